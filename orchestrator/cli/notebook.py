"""`gpurun notebook`: a training as a notebook for Colab, to be run by a person."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from orchestrator.cli.common import WithCommand, complete_template, json_option
from orchestrator.home import Home


@click.command(cls=WithCommand)
@click.argument("template", default="demo", shell_complete=complete_template)
@click.option("--gpu", multiple=True, metavar="NAME", help="t4, l4, a100, a100-80gb, g4, h100; auto: the cheapest.")
@click.option(
    "-o", "--output", metavar="FILE", help="Write it there; TEMPLATE-colab.ipynb unless given, - to print it."
)
@click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="Change a setting: --set epochs=1. Repeatable.")
@click.option("--max-hours", metavar="HOURS", help="Release the machine after so long, from its first cell on.")
@click.option("--max-cost", metavar="USD", help="Release it before it costs more; 100 unless given.")
@click.option("--max-idle", metavar="MINUTES", help="No step for so long means hung.")
@click.option("--push-to-hub", metavar="REPO", help="Put the artifacts on the Hub at the end: you/model, private.")
@click.option("--push-public", is_flag=True, help="Let everybody read what --push-to-hub makes.")
@click.option("--include", multiple=True, metavar="PATH", help="As for launch: a file that goes along. Repeatable.")
@click.option("--secret", multiple=True, metavar="NAME", help="As for launch: one of Colab's secrets. Repeatable.")
@click.option("--force", is_flag=True, help="Write what does not fit or can't be quoted; write over another's file.")
@json_option
@click.pass_context
def notebook(ctx: click.Context, /, output: str | None, *, as_json: bool, **given: Any) -> None:
    """Write a notebook that trains on Google Colab, for no API and no key.

    The same payload, limits and checked artifacts as every launch, with the quote in its first cell. You open it and
    run it; its machine releases itself. gpurun can't watch it: it is in no ledger and in no list.

    \b
    Examples:
      gpurun notebook demo --gpu t4
      gpurun notebook qlora-sft --gpu l4 --push-to-hub you/model
      gpurun notebook pretrain --max-hours 1 -o pretrain.ipynb
    """
    from orchestrator import notebook as notebooks
    from orchestrator import notebook_page
    from orchestrator.render import to_json
    from orchestrator.wish import Wish

    given["gpu"] = given["gpu"] or None
    made = notebooks.make(Home.default(), Wish(provider=None, arguments=tuple(ctx.obj or ()), **given))
    target = output or f"{made.name}-colab.ipynb"
    if target == "-":
        click.echo(made.text, nl=False)
    else:
        notebooks.write(made, Path(target), force=given["force"])
    links = notebook_page.ways(target, notebooks.link(Path(target)))
    if as_json and target != "-":
        click.echo(to_json({**made.as_json(), "file": target, "open": links}))
    else:
        click.echo(notebook_page.page(made, target, links), err=target == "-")
