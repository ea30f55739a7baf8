"""`gpurun store ls` and `gpurun store rm`."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from orchestrator.cli.common import json_option, yes_option
from orchestrator.home import Home

_ENDPOINT = click.option("--s3-endpoint", metavar="URL", help="The store's server where it is not AWS.")


@click.group()
def store() -> None:
    """List and delete what runs left in a store.

    \b
    Examples:
      gpurun store ls
      gpurun store rm demo-26
    """


@store.command()
@click.argument("address", required=False)
@_ENDPOINT
@json_option
def ls(address: str | None, s3_endpoint: str | None, *, as_json: bool) -> None:
    """List the runs in a store, their size, and what that costs a month.

    ADDRESS is s3://bucket/prefix or hf://buckets/you/name/prefix; your default (gpurun config) unless given. What jobs
    of Hugging Face's left behind whose home is gone lies in hf://buckets/you/gpurun.

    \b
    Examples:
      gpurun store ls
      gpurun store ls s3://my-bucket/runs --json
      gpurun store ls hf://buckets/me/runs
    """
    from orchestrator import render, store_page

    where = store_page.chosen(Home.default(), address, s3_endpoint)
    found = store_page.look(where)
    if as_json:
        click.echo(render.to_json(store_page.as_json(where, found)))
    else:
        click.echo(store_page.screen(where, found, datetime.now(UTC)))


@store.command()
@click.argument("run")
@click.option("--store", "address", metavar="ADDRESS", help="s3://… or hf://buckets/…; your default unless given.")
@_ENDPOINT
@yes_option
def rm(run: str, address: str | None, s3_endpoint: str | None, *, yes: bool) -> int:
    """Delete a run from a store for good, or the data of all runs.

    RUN is the beginning of a run's id, or the word data. What is at home stays. A run that goes on is refused, and so
    is another home's until its ceiling, unless its result is there; data, while any such run may use them.

    \b
    Examples:
      gpurun store rm demo-26
      gpurun store rm data -y
    """
    from orchestrator import store_page
    from orchestrator.cli.launch import NOT_WANTED, agreed
    from orchestrator.render import size
    from orchestrator.store import open_store

    home = Home.default()
    where = store_page.chosen(home, address, s3_endpoint)
    kept = open_store(where)
    found = store_page.look(where, kept)
    one = store_page.pick(where, found, run)
    store_page.refuse_live(home, kept, one, found, datetime.now(UTC))
    if not agreed(f"Delete {one.run_id} ({size(one.size)}) from {where}?", yes=yes):
        return NOT_WANTED
    kept.delete(one.keys)
    click.echo(f"{one.run_id}: {len(one.keys)} objects, {size(one.size)}, deleted from {where}", err=True)
    return 0
