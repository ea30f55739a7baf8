"""`gpurun offers` and `gpurun compare`: what can be rented, and what each offer would cost for this job."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.common import complete_template, hours, json_option
from orchestrator.cli.estimate import WHAT, template_of
from orchestrator.home import Home

if TYPE_CHECKING:
    from collections.abc import Callable

_refresh = click.option("--refresh", is_flag=True, help="Ask the vendors now, not a quarter of an hour ago.")


@click.command()
@click.option("--gpu", metavar="NAME", help="Only this family: a100, 4090…")
@click.option("--provider", metavar="NAME", help="Only this provider.")
@click.option("--min-vram", type=float, default=0.0, metavar="GIB", help="At least so much memory on one GPU.")
@click.option("--max-price", type=float, metavar="USD", help="At most so much an hour.")
@click.option("--available", is_flag=True, help="Only what a vendor said is free now.")
@_refresh
@json_option
def offers(*, as_json: bool, refresh: bool, **wish: Any) -> None:
    """List what can be rented, cheapest first.

    Live where a key is at hand, else bundled prices with the date on which they were seen.

    \b
    Examples:
      gpurun offers --gpu a100
      gpurun offers --min-vram 24 --max-price 1 --available
    """
    from orchestrator.market import market
    from orchestrator.offers_page import listing, offers_json, wished
    from orchestrator.render import to_json

    found = wished(market(Home.default(), refresh=refresh), **wish)
    click.echo(to_json(offers_json(found)) if as_json else listing(found))


def _options(command: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(WHAT):
        command = option(command)
    return command


@click.command()
@click.argument("template", required=False, shell_complete=complete_template)
@click.option("--gpu", metavar="NAME", help="Only this family: a100, 4090…")
@click.option("--provider", metavar="NAME", help="Only this provider.")
@click.option("--max-hours", type=hours, metavar="HOURS", help="The limit: what the worst case is counted with.")
@click.option(
    "--plot", type=click.Path(path_type=Path), metavar="FILE", help="Draw cost against time: FILE.svg or .png."
)
@_refresh
@_options
@json_option
def compare(template: str | None, sets: tuple[str, ...], *, as_json: bool, **said: Any) -> None:
    """Quote this job on every offer, by likely cost.

    \b
    Examples:
      gpurun compare qlora-sft --rows 12000
      gpurun compare --model Qwen2.5-7B --method qlora --rows 500 --plot a.svg
    """
    from orchestrator.offers_page import Comparison

    found = Comparison.of(Home.default(), template_of(template, sets), **said)
    click.echo(found.json_text() if as_json else found.page())
