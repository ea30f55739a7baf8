"""What several commands share: the RUN argument, `--json`, the home, and how a watched run is told at its end."""

from __future__ import annotations

import re
import sys
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

import click

from orchestrator.home import Home
from providers.errors import CredentialsError, ProviderError, RefusedError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from orchestrator.forward import Port
    from orchestrator.glance import Run
    from orchestrator.view import Beside, Watched
    from providers.errors import GpurunError


def complete_run(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Complete a run's id; a broken home completes nothing."""
    from orchestrator import glance
    from providers.errors import GpurunError

    try:
        return [run.run_id for run in glance.runs(Home.default(), 0.0) if run.run_id.startswith(incomplete)]
    except GpurunError:
        return []


def complete_template(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Complete a template's name."""
    from orchestrator import templates

    own = Home.default().root / "templates"
    return [listed.name for listed in templates.names(own) if listed.name.startswith(incomplete)]


def duration(value: str | float) -> float:
    """Read `2h`, `90s`, `1h30m` as seconds; a number without a unit is refused: nobody knows which was meant."""
    if isinstance(value, float):  # click converts the default too
        return value
    text = value.strip().lower()
    parts = re.findall(r"([0-9]+(?:\.[0-9]+)?)\s*([smhd])", text)
    seconds = sum(float(number) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[unit] for number, unit in parts)
    if not seconds or re.sub(r"[0-9]+(\.[0-9]+)?\s*[smhd]\s*", "", text):
        raise click.BadParameter(f'"{value}" is no duration: write 2h, 30m, 90s or 1h30m')
    return seconds


def hours(value: str) -> float:
    """Read a number of hours above 0, 720 at most."""
    number = float(value) if re.fullmatch(r"[0-9]*\.?[0-9]+", value) else 0.0
    if not 0 < number <= 720:
        raise click.BadParameter(f'"{value}": a number of hours above 0 is needed, at most 720')
    return number


def port(value: str) -> Port:
    """Read `8888` or `8888:80`: a port here, and the machine's."""
    from orchestrator.forward import Port

    here, _, there = value.partition(":")
    numbers = [int(text) if text.isascii() and text.isdecimal() else 0 for text in (here, there or here)]
    if not all(0 < number < 65536 for number in numbers):
        raise click.BadParameter(f'"{value}" is no port: write 8888, or 8888:80 for the machine\'s port 80')
    return Port(*numbers)


class WithCommand(click.Command):
    """A command that takes another one behind `--`, left as it was typed: `ctx.obj` holds it, a list of words."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Part ours from theirs."""
        at = args.index("--") if "--" in args else len(args)
        ctx.obj = args[at + 1 :]
        return super().parse_args(ctx, args[:at])

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        """Show the place of theirs."""
        return [*super().collect_usage_pieces(ctx), "[-- CMD...]"]


INTERRUPTED = 130  # as shells count SIGINT
forward_option = click.option(
    "--forward",
    "forward",
    multiple=True,
    type=port,
    metavar="PORT[:REMOTE]",
    help="Reach the machine's port at localhost while this command watches. Repeatable.",
)
run_argument = click.argument("run", required=False, metavar="[RUN]", shell_complete=complete_run)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
yes_option = click.option("-y", "--yes", is_flag=True, help="Do not ask.")


def find_run(home: Home, prefix: str | None) -> Run:
    """Find the run that was named by the beginning of its id, or the newest."""
    import time

    from orchestrator import glance

    return glance.find(home, prefix, time.time())


def take_up(home: Home) -> None:
    """Carry on with every run that nobody holds: whatever is typed next after a crash does so."""
    import time

    from orchestrator import glance

    now = time.time()
    glance.tend(home, glance.runs(home, now, last=0), now)


def exit_code_of(run: Run) -> int:
    """Give the exit code of the table: 5 for whatever may still bill."""
    from orchestrator.words import Reason, State, exit_code

    return exit_code(State(run.state), Reason(run.reason) if run.reason else None)


def exit_code_now(runs: Sequence[Run]) -> int:
    """Give 5 while any of these may bill though it should not, else 0."""
    from orchestrator.words import EXIT_MAY_BILL

    return EXIT_MAY_BILL if any(run.unproven for run in runs) else 0


def watch(
    home: Home,
    run: Run,
    *,
    show_log: bool = True,
    ask: bool = False,
    forward: Sequence[Port] = (),
    rented: bool = False,
) -> Watched:
    """Follow a run on this terminal; with `ask`, Ctrl-C asks whether to stop it."""
    from orchestrator.terminal import Terminal
    from orchestrator.view import Viewer

    terminal = Terminal()
    with forwarding(home, forward, terminal.say) as beside:
        if rented:
            from orchestrator.rent import Invitation

            beside.append(Invitation(home, terminal.say))
        return Viewer(home, run.run_id, terminal, show_log=show_log, ask=ask, beside=beside).watch()


@contextmanager
def forwarding(home: Home, ports: Sequence[Port], say: Callable[[str], None]) -> Iterator[list[Beside]]:
    """Keep ports forwarded as long as the block lasts and what it is given is looked at; nothing without ports."""
    if not ports:
        yield []
        return
    from orchestrator.forward import Forwarder

    with closing(Forwarder(home, ports, say)) as forwarder:
        yield [forwarder]


def need_ssh(forward: Sequence[Port], *, watched: bool = True) -> None:
    """Say before anything is rented that ports can't be forwarded.

    Raises:
        StateError: this computer has no ssh.
        UsageError: nobody would watch, or two ports here are the same.
    """
    if not forward:
        return
    from orchestrator.login import ssh_program

    ssh_program()
    if not watched:
        raise UsageError("--forward lasts as long as this command watches", hint="drop --detach or --forward")
    if len({port.here for port in forward}) < len(forward):
        raise UsageError("--forward names one port of this computer twice", hint="--forward 8888 --forward 8889:8888")


def tell(text: str, *, err: bool = False, indent: str = "  ") -> None:
    """Print a sentence: folded on a terminal, a line for those who read it otherwise."""
    from shutil import get_terminal_size

    from orchestrator.render import fold

    terminal = (sys.stderr if err else sys.stdout).isatty()
    click.echo(fold(text, get_terminal_size().columns, indent=indent) if terminal else text, err=err)


def tell_end(home: Home, watched: Watched, *, as_json: bool) -> int:
    """Print how a run ended, or how to come back to it; give the exit code."""
    if watched.detached:
        tell_detached(home, watched.run, as_json=as_json)
        return 0 if watched.asked else INTERRUPTED
    if as_json:
        _last_line(home, watched.run)
    else:
        from orchestrator import screens
        from orchestrator.home import read_json
        from orchestrator.jobs import newest_checkpoint

        folder = home.run(watched.run.run_id)
        checkpoint = newest_checkpoint(folder.checkpoints)
        click.echo(screens.ending(watched.run, read_json(folder.result) or {}, folder, checkpoint))
    return exit_code_of(watched.run)


def tell_detached(home: Home, run: Run, *, as_json: bool) -> int:
    """Say how to come back; the run goes on."""
    if as_json:
        _last_line(home, run)
    click.echo(f"{run.run_id} goes on in the background. Come back with:\n  gpurun resume {run.run_id}", err=True)
    if run.needs_us:
        from orchestrator.awake import DETACHED

        click.echo(DETACHED, err=True)
    return 0


def _last_line(home: Home, run: Run) -> None:
    """Print the one object that `--json` ends with."""
    from orchestrator.render import to_json

    values = {
        "run_id": run.run_id,
        "outcome": run.outcome or None,
        "reason": run.reason or None,
        "accrued_usd": run.high,
        "folder": str(home.run(run.run_id).path),
        "state": run.state,
        "evidence": run.evidence,
    }
    click.echo(to_json(values, indent=None))


def tell_error(home: Home, run_id: str, error: GpurunError) -> None:
    """Print the one object that `--json` ends with where an error ended the command."""
    if run_id:
        from orchestrator.render import to_json

        folder = str(home.run(run_id).path)
        unknown = {"run_id": run_id, "outcome": None, "reason": None, "accrued_usd": None, "folder": folder}
        click.echo(to_json({**unknown, "state": None, "evidence": str(error)}, indent=None))
        return
    words = {CredentialsError: "credentials", ProviderError: "provider", RefusedError: "refused", UsageError: "usage"}
    reason = next((word for kind, word in words.items() if isinstance(error, kind)), "home")
    tell_nothing_launched("failed", reason, str(error))


def tell_nothing_launched(outcome: str, reason: str, why: str) -> None:
    """Print that object where there is no run."""
    from orchestrator.render import to_json

    none = {"run_id": None, "outcome": outcome, "reason": reason, "accrued_usd": 0, "folder": None}
    click.echo(to_json({**none, "state": None, "evidence": f"nothing was launched: {why}"}, indent=None))
