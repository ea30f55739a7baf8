"""`gpurun logs`, `gpurun wait` and `gpurun resume`."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.common import (
    find_run,
    forward_option,
    forwarding,
    hours,
    json_option,
    need_ssh,
    run_argument,
    take_up,
    tell_end,
    watch,
    yes_option,
)
from orchestrator.home import Home

if TYPE_CHECKING:
    from orchestrator.forward import Port


@click.command()
@run_argument
@click.option("-f", "--follow", is_flag=True, help="Go on until the run ends.")
@click.option("-n", "last", type=click.IntRange(0), metavar="LINES", help="Only so many lines from the end.")
@click.option("--raw", is_flag=True, help="Byte for byte, metrics lines and control characters included.")
@forward_option
def logs(run: str | None, last: int | None, forward: tuple[Port, ...], *, follow: bool, raw: bool) -> None:
    """Print a run's log.

    RUN is the beginning of a run's id; the newest run when none is given. --forward follows too.

    \b
    Examples:
      gpurun logs -f
      gpurun logs --forward 8888
      gpurun logs demo-26 -n 20
      gpurun logs --raw > log.txt
    """
    from orchestrator import logbook

    home = Home.default()
    need_ssh(forward)
    follow = follow or bool(forward)
    if not follow:  # who follows sees to it
        take_up(home)
    found = find_run(home, run)
    with forwarding(home, forward, lambda text: click.echo(text, err=True)) as beside:
        logbook.show(home, found.run_id, sys.stdout.buffer, last=last, raw=raw, follow=follow, beside=beside)


@click.command()
@run_argument
@json_option
def wait(run: str | None, *, as_json: bool) -> int:
    """Wait for a run to end and leave with its exit code.

    0 succeeded, 1 failed, 3 provider, 4 a limit, 5 may still bill, 6 stopped.

    \b
    Examples:
      gpurun wait && gpurun pull
    """
    home = Home.default()
    return tell_end(home, watch(home, find_run(home, run), show_log=False), as_json=as_json)


@click.command()
@run_argument
@click.option("--provider", metavar="NAME", help="Carry on there with a run that is over; where it was unless given.")
@click.option("--gpu", multiple=True, metavar="NAME", help="The GPU to rent for it. Repeatable.")
@click.option("--max-hours", type=hours, metavar="HOURS", help="End it after so long from now; as before unless given.")
@click.option("--accept-risk", is_flag=True, help="Carry on although this computer alone can stop the meter.")
@click.option("--key-on-machine", is_flag=True, help="Lambda: put your account's key on the machine, as in launch.")
@forward_option
@yes_option
@json_option
def resume(run: str | None, forward: tuple[Port, ...], *, yes: bool, as_json: bool, **given: Any) -> int:
    """Carry on with a run and watch it.

    A run whose controller died is taken up where the ledger left it. One that is over is told again; with --provider,
    --gpu or --max-hours it goes on from its newest whole checkpoint, at home or in its store: the same run, its next
    attempt, the same curve.

    \b
    Examples:
      gpurun resume
      gpurun resume demo-26
      gpurun resume demo-26 --provider local
      gpurun resume demo-26 --provider lambda --gpu a10 --max-hours 3
    """
    home = Home.default()
    need_ssh(forward)
    found = find_run(home, run)
    if given["provider"] or given["gpu"] or given["max_hours"]:
        from orchestrator import again
        from orchestrator.cli.launch import agreed, show_plan, tell_not_wanted

        planned = again.prepare(home, found.run_id, again.Wanted(**given), datetime.now(UTC))
        show_plan(planned.plan, {"max_idle_minutes": planned.job.max_idle_seconds / 60}, as_json=as_json, as_data=False)
        if not agreed("Carry on?", yes=yes):
            return tell_not_wanted(as_json=as_json)
        found = find_run(home, planned.go())
    return tell_end(home, watch(home, found, ask=True, forward=forward), as_json=as_json)
