"""`gpurun costs` and `gpurun receipt`."""

from __future__ import annotations

import time
from contextlib import closing
from typing import TYPE_CHECKING

import click

from orchestrator.cli.common import find_run, json_option, run_argument, take_up
from orchestrator.home import Home

if TYPE_CHECKING:
    from orchestrator.costs import By


@click.command()
@click.option("--by", type=click.Choice(["run", "provider", "month"]), default="run", help="A line for each of these.")
@click.option("--plot", is_flag=True, help="Show what was paid as bars, a day or a month each.")
@json_option
def costs(by: By, *, plot: bool, as_json: bool) -> None:
    """Say what was paid, what bills now and what the vendors charged.

    What was paid comes from this home's ledger; what bills now is asked of each provider whose key is at hand, what
    gpurun did not start included. A provider that can't be asked is named, and never counted as nothing.

    \b
    Examples:
      gpurun costs
      gpurun costs --by month --plot
      gpurun costs --by provider --json
    """
    from orchestrator import bills
    from orchestrator.render import to_json

    home, now = Home.default(), time.time()
    take_up(home)
    story = bills.read(home, by, now)
    if as_json:
        click.echo(to_json(story.as_json(plot=plot)))
        return
    click.echo(story.screen(plot=plot))
    for account in story.accounts():
        click.echo(f"\n{bills.account_lines(account, now)}")
    click.echo(f"\n{bills.scope()}")


@click.command()
@run_argument
@json_option
def receipt(run: str | None, *, as_json: bool) -> None:
    """Show what a run was quoted, what was paid, and each read-back of its end.

    RUN is the beginning of a run's id; the newest run when none is given.

    \b
    Examples:
      gpurun receipt
      gpurun receipt demo-26 > receipt.txt
    """
    from orchestrator import receipt as receipts
    from orchestrator.ledger import Ledger
    from orchestrator.render import to_json

    home = Home.default()
    take_up(home)
    found = find_run(home, run)
    with closing(Ledger(home.ledger)) as ledger:
        known = receipts.read(ledger, found.run_id, time.time())
    click.echo(to_json(known.as_json()) if as_json else receipts.screen(known))
