"""`gpurun launch`."""

from __future__ import annotations

import sys
from typing import Any

import click

from orchestrator.cli.common import (
    complete_template,
    find_run,
    json_option,
    take_up,
    tell_detached,
    tell_end,
    tell_error,
    tell_nothing_launched,
    watch,
    yes_option,
)
from orchestrator.home import Home
from providers.errors import GpurunError, UsageError


@click.command()
@click.argument("template", default="demo", shell_complete=complete_template)
@click.option("--provider", metavar="NAME", help="Where to run; local unless your config says otherwise.")
@click.option("--gpu", metavar="NAME", help="The GPU to rent, or cpu; the cheapest offer that has it is taken.")
@click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="Change a setting: --set epochs=1. Repeatable.")
@click.option("--max-hours", metavar="HOURS", help="End the run after so long, queueing included.")
@click.option("--max-cost", metavar="USD", help="End the run before it costs more.")
@click.option("--max-idle", metavar="MINUTES", help="No step for so long means hung.")
@click.option("--accept-risk", is_flag=True, help="Launch although this computer alone can stop the meter.")
@click.option("--dry-run", is_flag=True, help="Show the plan and stop there.")
@click.option("--detach", is_flag=True, help="Do not watch: a background controller carries the run to its end.")
@yes_option
@json_option
def launch(
    template: str,
    provider: str | None,
    gpu: str | None,
    sets: tuple[str, ...],
    max_hours: str | None,
    max_cost: str | None,
    max_idle: str | None,
    *,
    accept_risk: bool,
    dry_run: bool,
    detach: bool,
    yes: bool,
    as_json: bool,
) -> int:
    """Show the plan and the price, ask, run, bring the results home.

    TEMPLATE is the name of a ready one (gpurun templates) or the path of a YAML file; demo when none is given.

    \b
    Examples:
      gpurun launch demo --provider local
      gpurun launch my-run.yaml --set epochs=1 --set data.train=rows.jsonl
      gpurun launch demo --dry-run
    """
    from orchestrator import wish

    home, run_id = Home.default(), ""
    wanted = wish.Wish(template, provider, gpu, sets, max_hours, max_cost, max_idle, accept_risk)
    try:
        with wish.planned(home, wanted) as plan:
            show_plan(plan.plan, plan.limits, as_json=as_json, as_data=dry_run)
            if dry_run:
                return 0
            if not agreed(yes=yes):
                return tell_not_wanted(as_json=as_json)
            take_up(home)
            run_id = plan.go()
        if detach:
            return tell_detached(home, find_run(home, run_id), as_json=as_json)
        return tell_end(home, watch(home, find_run(home, run_id), ask=True), as_json=as_json)
    except GpurunError as error:
        if as_json and not dry_run:
            tell_error(home, run_id, error)
        raise


NOT_WANTED = 6  # as a run that was stopped: nothing was launched, because the user said so


def tell_not_wanted(*, as_json: bool) -> int:
    """Say nothing but the last line of `--json`."""
    if as_json:
        tell_nothing_launched("stopped", "stopped", "the answer was no")
    return NOT_WANTED


def show_plan(plan: dict[str, Any], limits: dict[str, Any], *, as_json: bool, as_data: bool) -> None:
    """Print the plan: on stdout where it is all that was asked for, else on stderr beside the progress."""
    from orchestrator import render, screens

    if as_json and as_data:
        click.echo(render.to_json(plan))
    else:
        click.echo(screens.plan_screen(plan, limits), err=not as_data)


def agreed(*, yes: bool) -> bool:
    """Ask; where there is nobody to ask, refuse."""
    if yes:
        return True
    if not sys.stdin.isatty():
        raise UsageError("nobody is here to say yes: standard input is no terminal", hint="add -y, or --dry-run")
    return click.confirm("Launch?", default=True, err=True)
