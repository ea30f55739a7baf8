"""`gpurun adopt`."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from orchestrator.cli.common import find_run, hours, json_option, tell_detached, yes_option
from orchestrator.cli.launch import agreed, tell_not_wanted
from orchestrator.home import Home
from providers.errors import ProviderError, UsageError


@click.command()
@click.argument("instance", required=False)
@click.option("--provider", metavar="NAME", help="Where it bills; lambda unless given.")
@click.option("--hours", "limit", type=hours, metavar="HOURS", help="End it after so long.")
@click.option(
    "--store", "address", metavar="ADDRESS", help="Know the runs in s3://… or hf://buckets/… again: bring them home."
)
@click.option("--s3-endpoint", metavar="URL", help="The store's server where it is not AWS.")
@yes_option
@json_option
def adopt(
    instance: str | None,
    provider: str | None,
    limit: float | None,
    address: str | None,
    s3_endpoint: str | None,
    *,
    yes: bool,
    as_json: bool,
) -> int:
    """Put an instance under the meter, or know a store's runs again.

    INSTANCE is the id or the name of what you started by hand. It gets the mark of a run in the place of its name, and
    a controller in the background that ends it in time; gpurun stop ends it at once. Nothing on it is touched.
    With --store, INSTANCE is the beginning of a run's id, or left out for all: log, results and checkpoints come home.
    Leaves with 5 where a machine of one may still bill.

    \b
    Examples:
      gpurun adopt 0920582c7ff041399e34823a0be62549 --hours 3
      gpurun adopt my-box --hours 0.5 -y
      gpurun adopt --store s3://my-bucket/runs
    """
    from orchestrator import adoption
    from providers.table import open_provider

    home = Home.default()
    if address:
        if limit is not None or provider:
            words = "--hours and --provider are for an instance: --store brings home what is known, and ends nothing"
            raise UsageError(words, hint="gpurun adopt --store ADDRESS [RUN] [--json]")
        return _from_store(home, address, s3_endpoint, instance, as_json=as_json)
    if s3_endpoint is not None:
        raise UsageError("--s3-endpoint is the server of a --store", hint="gpurun adopt --store s3://…")
    if instance is None or limit is None:
        raise UsageError("which instance, and until when?", hint="gpurun adopt ID --hours 3, or gpurun adopt --store …")
    planned = adoption.look(open_provider(provider or "lambda", home.root), instance, limit, datetime.now(UTC), home)
    click.echo(planned.screen(), err=True)
    if not agreed("Adopt it?", yes=yes):
        return tell_not_wanted(as_json=as_json)
    return tell_detached(home, find_run(home, planned.go(home)), as_json=as_json)


def _from_store(home: Home, address: str, endpoint: str | None, named: str | None, *, as_json: bool) -> int:
    from orchestrator import render, store_adopt, store_page
    from orchestrator.words import EXIT_MAY_BILL

    where = store_page.chosen(home, address, endpoint)
    found = store_adopt.adopt(home, where, named, datetime.now(UTC))
    if as_json:
        click.echo(render.to_json([store_adopt.as_json(home, one) for one in found]))
    for one in found:
        click.echo(store_adopt.told(one), err=True)
    if any(one.may_bill for one in found):
        return EXIT_MAY_BILL
    return ProviderError.exit_code if any(one.wrong for one in found) else 0
