"""`gpurun estimate`: does it fit, how long does it take, what does it cost; before anything is rented."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.common import complete_template, hours, json_option
from orchestrator.home import Home
from providers.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

_WHERE = (
    click.option("--gpu", metavar="NAME", required=True, help="The card: a100, h100, 4090, t4, rtx-pro-6000…"),
    click.option("--count", type=click.IntRange(1), default=1, metavar="N", help="So many of them; 1."),
    click.option("--provider", default="", metavar="NAME", help="Price it there: lambda, runpod, hf, colab."),
    click.option("--price", metavar="USD", help="An hour of all GPUs, in place of the bundled price."),
    click.option("--max-hours", type=hours, metavar="HOURS", help="The limit: what the worst case is counted with."),
)
WHAT = (
    click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="Change a setting of the template."),
    click.option("--model", metavar="NAME", help="A hub name, a folder, or a config.json."),
    click.option(
        "--method",
        type=click.Choice(["full", "lora", "lora8", "qlora", "classify", "dpo"]),
        metavar="NAME",
        help="full, lora, lora8, qlora, classify or dpo; lora unless given.",
    ),
    click.option("--seq", type=int, metavar="N", help="Tokens of the longest row."),
    click.option("--micro-batch", type=int, metavar="N", help="Rows of one pass on one GPU."),
    click.option("--accumulation", type=int, metavar="N", help="Passes of one optimizer step."),
    click.option("--rank", type=int, metavar="N", help="Of the adapters; 16."),
    click.option("--targets", metavar="LIST", help="q_proj,v_proj,… or all-linear."),
    click.option("--rows", type=int, metavar="N", help="Rows of the data."),
    click.option("--tokens", type=int, metavar="N", help="Tokens of one epoch."),
    click.option("--epochs", type=float, metavar="N", help="Times over the data."),
    click.option("--data", metavar="FILE", help="Take rows and lengths from this file."),
    click.option(
        "--optimizer",
        type=click.Choice(["adamw", "adamw_fused", "adamw_8bit", "paged_adamw_8bit", "adafactor"]),
        metavar="NAME",
        help="adamw_fused, adamw, adamw_8bit, paged_adamw_8bit or adafactor.",
    ),
    click.option(
        "--loss",
        type=click.Choice(["plain", "fused", "chunked", "linear"]),
        metavar="NAME",
        help="plain, fused, chunked or linear (logits never whole), as TRL has it.",
    ),
    click.option(
        "--attention",
        type=click.Choice(["sdpa", "flash", "eager"]),
        metavar="NAME",
        help="sdpa, flash or eager; sdpa unless given.",
    ),
    click.option("--checkpointing/--no-checkpointing", default=None, help="Compute layers again in the backward pass."),
    click.option("--packing/--no-packing", default=None, help="Fill rows up with others."),
    click.option("--pure-bf16", is_flag=True, help="Weights that are trained in bfloat16, no float32 copy."),
)


def _options(command: Callable[..., None]) -> Callable[..., None]:
    for option in reversed((*_WHERE, *WHAT, json_option)):
        command = option(command)
    return command


@click.command()
@click.argument("template", required=False, shell_complete=complete_template)
@_options
def estimate(template: str | None, sets: tuple[str, ...], price: str | None, *, as_json: bool, **said: Any) -> None:
    """Estimate fit, time and cost of a job on a GPU.

    Of a template, or of a model and a method. Prices are bundled ones with their dates; nothing is rented.

    \b
    Examples:
      gpurun estimate qlora-sft --gpu a10 --rows 12000
      gpurun estimate --model Qwen/Qwen2.5-7B --method qlora --seq 2048 --gpu 4090
      gpurun estimate --model ./config.json --method full --gpu h100
    """
    from orchestrator.estimate.answer import Flags, answer
    from orchestrator.estimate.page import page
    from orchestrator.measuring import past
    from orchestrator.render import to_json

    found = answer(Flags(price=_dollars(price), **said), template_of(template, sets), past(Home.default()))
    if as_json:
        click.echo(to_json(found.as_json()))
    else:
        click.echo(page(found.found, found.offer, found.dollars, found.notes))


def template_of(name: str | None, sets: tuple[str, ...]) -> Any:
    """Load the template that was named; None = none was.

    Raises:
        UsageError: settings of no template.
    """
    if name is None:
        if sets:
            raise UsageError("--set changes a template, and none is named")
        return None
    from orchestrator import data_remote, templates

    home = Home.default()
    return templates.load(name, sets, own=home.root / "templates", bring=data_remote.Bringer(home))


def _dollars(text: str | None) -> Decimal | None:
    if text is None:
        return None
    try:
        given = Decimal(text.removeprefix("$"))
    except InvalidOperation:
        raise click.BadParameter(f'"{text}" is no amount of dollars') from None
    if not given.is_finite() or given < 0:
        raise click.BadParameter(f'"{text}" is no amount of dollars')
    return given
