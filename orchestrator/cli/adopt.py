"""`gpurun adopt`."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from orchestrator.cli.common import find_run, hours, json_option, tell_detached, yes_option
from orchestrator.cli.launch import agreed, tell_not_wanted
from orchestrator.home import Home


@click.command()
@click.argument("instance")
@click.option("--provider", default="lambda", metavar="NAME", help="Where it bills; lambda unless given.")
@click.option("--hours", "limit", type=hours, metavar="HOURS", required=True, help="End it after so long.")
@yes_option
@json_option
def adopt(instance: str, provider: str, limit: float, *, yes: bool, as_json: bool) -> int:
    """Put an instance that you started by hand under the meter.

    INSTANCE is its id or its name. It gets the mark of a run in the place of its name, and a controller in the
    background that ends it in time; gpurun stop ends it at once. Nothing on it is touched.

    \b
    Examples:
      gpurun adopt 0920582c7ff041399e34823a0be62549 --hours 3
      gpurun adopt my-box --hours 0.5 -y
    """
    from orchestrator import adoption
    from providers.table import open_provider

    home = Home.default()
    planned = adoption.look(open_provider(provider, home.root), instance, limit, datetime.now(UTC), home)
    click.echo(planned.screen(), err=True)
    if not agreed("Adopt it?", yes=yes):
        return tell_not_wanted(as_json=as_json)
    return tell_detached(home, find_run(home, planned.go(home)), as_json=as_json)
