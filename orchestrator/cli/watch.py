"""`gpurun logs`, `gpurun wait` and `gpurun resume`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from orchestrator.cli.common import (
    find_run,
    forward_option,
    forwarding,
    json_option,
    need_ssh,
    run_argument,
    take_up,
    tell_end,
    watch,
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
@forward_option
@json_option
def resume(run: str | None, forward: tuple[Port, ...], *, as_json: bool) -> int:
    """Carry on with an unfinished run and watch it.

    A run whose controller died is taken up where the ledger left it; a run that is over is told again.

    \b
    Examples:
      gpurun resume
      gpurun resume demo-26
    """
    home = Home.default()
    need_ssh(forward)
    return tell_end(home, watch(home, find_run(home, run), ask=True, forward=forward), as_json=as_json)
