"""`gpurun guard once|watch|install|uninstall|status`."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import click

from orchestrator.cli.common import json_option, yes_option
from orchestrator.home import Home
from providers.errors import UsageError

_BEAT_SECONDS = 30.0
_PASS_SECONDS = 900.0
_ON = click.option(
    "--on", type=click.Choice(("hf",)), help="Not here: in a scheduled job of this vendor's, awake always."
)


@click.group()
def guard() -> None:
    """End rented machines that are past their ceiling, from any computer.

    Judges by the mark that each machine carries; needs a key and no ledger.

    \b
    Examples:
      gpurun guard install
      gpurun guard status
    """


@guard.command()
@click.option("-q", "--quiet", is_flag=True, help="Say only what is not well.")
@json_option
def once(*, quiet: bool, as_json: bool) -> int:
    """Make one pass over every account whose key is at hand.

    Leaves with 5 when something is not proven gone, or an account could not be looked at; with 3 when only this home
    is damaged.

    \b
    Examples:
      gpurun guard once
    """
    from orchestrator import guard_here, guard_pass, guard_pulse, guard_screens
    from orchestrator.render import to_json, wants_colour
    from orchestrator.words import EXIT_MAY_BILL

    home = Home.default()
    pulse = guard_here.once(home)
    if pulse is None:
        last = guard_pulse.read(home)
        stale = "it has left no pulse yet" if last is None else guard_pulse.staleness(last, time.time())
        click.echo(f"another pass is under way in this home{stale and f': {stale}'}", err=True)
        if as_json:
            click.echo(to_json(last))
        return EXIT_MAY_BILL if stale or (last is not None and last.may_bill) else 0
    if as_json:
        click.echo(to_json(pulse))
    elif not (quiet and pulse.is_well):
        colour = wants_colour(terminal=sys.stdout.isatty(), environ=os.environ)
        click.echo(guard_screens.pass_screen(pulse, colour=colour))
    return guard_pass.exit_code(pulse)


@guard.command()
def watch() -> None:
    """Make a pass every half minute, for ever: where there is no timer.

    \b
    Examples:
      gpurun guard watch
    """
    from orchestrator.guard_here import WATCHED

    argv = [sys.executable, "-P", "-m", "orchestrator.cli", "guard", "once", "--quiet"]
    env = {**os.environ, WATCHED: "1"}
    while True:  # each pass a process of its own: one that dies or hangs ends no watch
        try:
            subprocess.run(argv, timeout=_PASS_SECONDS, check=False, env=env)
        except subprocess.TimeoutExpired:
            click.echo(f"guard: a pass took over {_PASS_SECONDS:.0f} s and was ended", err=True)
        time.sleep(_BEAT_SECONDS)


@guard.command()
@click.option("--way", type=click.Choice(("systemd", "launchd", "cron")), help="Not what this computer offers first.")
@_ON
@yes_option
def install(way: str | None, on: str | None, *, yes: bool) -> int:
    """Let a timer of this computer run the guard each minute; or, with --on, a vendor's own clock.

    Stores the providers' keys that are set here in the home (0600), since a timer has none; then runs the guard once
    as the timer will, and fails when that can't read a key or reach a provider.

    With --on hf a job of Hugging Face's looks each half minute, whether this computer is awake or not. It costs what
    it says and asks about; the other providers' keys go there as secrets of the job.

    \b
    Examples:
      gpurun guard install
      gpurun guard install --on hf
    """
    from orchestrator import guard_install, guard_screens

    if on is not None:
        return _install_afar(on, way, yes=yes)
    done = guard_install.install(Home.default(), way or "", lambda text: click.echo(text, err=True))
    click.echo(guard_screens.status_screen(done.pulse, done.timer, time.time()))
    return 0


def _install_afar(on: str, way: str | None, *, yes: bool) -> int:
    from orchestrator import guard_afar
    from orchestrator.cli.launch import NOT_WANTED, agreed

    if way is not None:
        raise UsageError("--way is a timer's of this computer, --on a vendor's", hint=f"gpurun guard install --on {on}")
    home = Home.default()
    terms = guard_afar.terms(home, on)
    click.echo(terms.text(), err=True)
    if not agreed("Install?", yes=yes):
        return NOT_WANTED
    done = guard_afar.install(home, terms, lambda text: click.echo(text, err=True))
    click.echo("\n".join(guard_afar.lines(done, time.time())))
    return 0


@guard.command()
@_ON
def uninstall(on: str | None) -> None:
    """Remove the timer, and nothing else; with --on, the vendor's job, read back from the vendor's list.

    \b
    Examples:
      gpurun guard uninstall
      gpurun guard uninstall --on hf
    """
    from orchestrator import guard_afar, guard_timer, keys

    home = Home.default()
    removed = guard_timer.uninstall(home) if on is None else guard_afar.uninstall(home, on)
    click.echo("\n".join(f"removed {one}" for one in removed) if removed else "no guard was installed for this home")
    if on is None and keys.stored(home):
        click.echo(f"keys stay stored in {keys.path_of(home)}: gpurun login lambda --forget", err=True)


@guard.command()
@json_option
def status(*, as_json: bool) -> int:
    """Say when the guard last ran, what it saw, and what runs it.

    Leaves with 5 when its last pass left something unproven, could not look, or was too long ago for a timer or
    `gpurun guard watch`.

    \b
    Examples:
      gpurun guard status --json
    """
    from orchestrator import guard_afar, guard_pulse, guard_screens, guard_timer
    from orchestrator.render import to_json
    from orchestrator.words import EXIT_MAY_BILL

    home, now = Home.default(), time.time()
    pulse, timer, afar = guard_pulse.read(home), guard_timer.find(home), guard_afar.find(home)
    if as_json:
        click.echo(to_json(guard_screens.status_json(pulse, timer, now, afar)))
    else:
        click.echo(guard_screens.status_screen(pulse, timer, now, afar))
    kept = timer is not None or guard_pulse.is_kept(home, pulse)
    silent = pulse is not None and kept and bool(guard_pulse.staleness(pulse, now))
    silent = silent or (afar is not None and afar.may_bill(now))
    return EXIT_MAY_BILL if silent or (pulse is not None and pulse.may_bill) else 0
