"""`gpurun extend`."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from orchestrator.cli.common import find_run, hours, json_option, run_argument, take_up, yes_option
from orchestrator.cli.launch import NOT_WANTED, agreed
from orchestrator.home import Home
from providers.errors import RefusedError, StateError, UsageError


@click.command()
@run_argument
@click.option("--hours", "more", type=hours, metavar="HOURS", required=True, help="So much later than it ends now.")
@click.option("--max-cost", metavar="USD", help="The whole run's new budget, where the old one has no room for it.")
@yes_option
@json_option
def extend(run: str | None, more: float, max_cost: str | None, *, yes: bool, as_json: bool) -> int:
    """Move a run's deadline: a later end, dearer, said and asked before it is done.

    Up to the run's ceiling at once; past it only where the mark and every limit that the vendor holds can really be
    moved. Else it is refused with the reason, and the old deadline holds.

    \b
    Examples:
      gpurun extend --hours 2
      gpurun extend demo-26 --hours 0.5 --max-cost 4 -y
    """
    from orchestrator import extend as extending
    from orchestrator import settings_file
    from orchestrator.render import to_json

    home = Home.default()
    found = find_run(home, run)
    if found.is_done:
        raise UsageError(f"{found.run_id} is over already: {found.reason}", hint=f"gpurun show {found.run_id}")
    budget = None if max_cost is None else settings_file.dollars("--max-cost", max_cost)
    click.echo(extending.preview(home, found.run_id, more, budget, datetime.now(UTC)), err=True)
    if not agreed("Extend?", yes=yes):
        return NOT_WANTED
    asked = extending.ask(home, found.run_id, more, budget, datetime.now(UTC))
    take_up(home)
    answer = extending.wait(home, asked)
    seen = find_run(home, found.run_id)
    if as_json:
        click.echo(to_json(extending.as_json(asked, answer, seen)))
    if answer.granted is None:
        raise StateError(f"asked, and not granted yet: {answer.text}", hint=f"gpurun show {found.run_id}")
    if not answer.granted:
        raise RefusedError(answer.text, hint=f"it still ends at its old deadline: gpurun show {found.run_id}")
    if not as_json:
        click.echo(extending.screen(asked, answer, seen))
    return 0
