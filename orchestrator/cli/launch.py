"""`gpurun launch` and `gpurun rent`: a plan shown, a question, a run watched to its end."""

from __future__ import annotations

import sys
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.common import (
    WithCommand,
    complete_template,
    duration,
    find_run,
    forward_option,
    json_option,
    need_ssh,
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

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from orchestrator.forward import Port
    from orchestrator.wish import Planned

_WHERE = (
    click.option(
        "--provider",
        metavar="NAME",
        help="Where to run; else your config's, else with --gpu the cheapest whose key is here, else local.",
    ),
    click.option(
        "--gpu",
        multiple=True,
        metavar="NAME",
        help="a10, a100, 4090…, cpu, or auto: the cheapest offer that fits. Repeatable.",
    ),
    click.option(
        "--cloud",
        type=click.Choice(["secure", "community"]),
        help="RunPod: its own machines, or strangers', which are cheaper and can be looked into.",
    ),
)
_COLAB = (
    click.option(
        "--allow-free-tier", is_flag=True, help="Colab: run for nothing where no compute units are left; one VM."
    ),
    click.option("--allow-substitute", is_flag=True, help="Colab: take another GPU where it gives one instead."),
)
_WHAT = (
    click.option(
        "--set", "sets", multiple=True, metavar="KEY=VALUE", help="Change a setting: --set epochs=1. Repeatable."
    ),
    click.option("--max-hours", metavar="HOURS", help="End the run after so long, queueing included."),
    click.option("--max-idle", metavar="MINUTES", help="No step for so long means hung."),
    click.option("--force", is_flag=True, help="Launch what does not fit, can't be quoted, or lint refuses."),
)
_OWN = (
    click.option(
        "--include",
        multiple=True,
        metavar="PATH",
        help="Ship a file or folder beside the script too; 2 GiB at most. Repeatable.",
    ),
    click.option(
        "--secret", multiple=True, metavar="NAME", help="Hand this variable's value on to the script. Repeatable."
    ),
)
_LIMITS = (
    click.option("--max-cost", metavar="USD", help="End the run before it costs more; 100 unless given."),
    click.option("--extendable-to", metavar="HOURS", help="How far gpurun extend may go, from the launch on."),
    click.option("--max-attempts", metavar="N", help="Rent at most so many machines, one after another; 3."),
    click.option(
        "--store",
        metavar="ADDRESS",
        help="Bring results to s3://bucket/prefix or hf://buckets/you/name as it trains: no laptop need be awake.",
    ),
    click.option("--s3-endpoint", metavar="URL", help="The store's server where it is not AWS: R2, MinIO, …"),
    click.option("--accept-risk", is_flag=True, help="Launch although this computer alone can stop the meter."),
    click.option(
        "--key-on-machine",
        is_flag=True,
        help="Lambda: put your account's key on the machine, so that it can end itself. The plan says the risk.",
    ),
    click.option(
        "--wait-for-capacity",
        type=duration,
        default=0.0,
        metavar="DURATION",
        help="Where nothing is free, go on asking for so long: 2h, 30m.",
    ),
    click.option(
        "--trust-on-first-use", is_flag=True, help="Take whatever host key the machine shows first, unverified."
    ),
)
_PROBE = click.option(
    "--probe",
    is_flag=True,
    help="Measure 20 steps on the machine, quote anew, and stop there if the limits can't hold the rest.",
)
_PUSH = (
    click.option("--push-to-hub", metavar="REPO", help="Put the artifacts on the Hub at the end: you/model, private."),
    click.option("--push-public", is_flag=True, help="Let everybody read what --push-to-hub makes."),
)
_HOW = (
    forward_option,
    click.option("--dry-run", is_flag=True, help="Show the plan and stop there."),
    click.option(
        "--notify",
        multiple=True,
        metavar="TARGET",
        help="Tell its end and trouble: ntfy://topic, https://…, desktop, command:…. Repeatable.",
    ),
    click.option("--detach", is_flag=True, help="Do not watch: a background controller carries the run to its end."),
    yes_option,
    json_option,
)


def _with(*options: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Put options under a command, in this order."""

    def put(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return put


@click.command(cls=WithCommand)
@click.argument("template", default="demo", shell_complete=complete_template)
@_with(*_WHERE, *_COLAB, *_WHAT, *_OWN, *_LIMITS, _PROBE, *_PUSH, *_HOW)
@click.pass_context
def launch(ctx: click.Context, /, **given: Any) -> int:
    """Show the plan and the price, ask, run, bring the results home.

    TEMPLATE is the name of a ready one (gpurun templates), the path of a YAML file, or a script (.py) or notebook
    (.ipynb) of yours, whose arguments stand behind --; demo when none is given.

    \b
    Examples:
      gpurun launch demo --provider local
      gpurun launch my-run.yaml --set epochs=1 --set data.train=rows.jsonl
      gpurun launch demo --provider lambda --gpu a10 --accept-risk
      gpurun launch qlora-sft --provider hf --gpu auto --max-cost 5
      gpurun launch demo --provider colab --gpu t4 --accept-risk
      gpurun launch train.py --provider hf --gpu l4 --max-hours 2 -- --epochs 3
      gpurun launch demo --dry-run
    """
    return _go(_How(**_taken(given, _How)), {**given, "arguments": tuple(ctx.obj or ())})


@click.command()
@_with(*_WHERE)
@click.option("--hours", "max_hours", metavar="HOURS", required=True, help="End it after so long, queueing included.")
@_with(*_LIMITS, *_HOW)
def rent(**given: Any) -> int:
    """Rent a bare machine for some hours, and end it in time.

    Nothing is trained on it: log in with gpurun ssh, end it early with gpurun stop. Ceiling, holders and the proof that
    nothing bills are those of launch. What you leave in ~/.gpurun/jobs/*/artifacts/ there comes home at the end.

    \b
    Examples:
      gpurun rent --provider lambda --gpu a10 --hours 3 --accept-risk
      gpurun rent --provider lambda --gpu h100 --hours 1 --wait-for-capacity 2h
    """
    return _go(_How(**_taken(given, _How), rented=True), {"template": "rent", "sets": (), **given})


@dataclass(frozen=True, slots=True, kw_only=True)
class _How:
    forward: tuple[Port, ...]
    dry_run: bool
    detach: bool
    yes: bool
    as_json: bool
    notify: tuple[str, ...] = ()
    rented: bool = False


def _taken(given: dict[str, Any], kind: type) -> dict[str, Any]:
    """Take out of the options those that are fields of `kind`."""
    return {field.name: given.pop(field.name) for field in fields(kind) if field.name in given}


def _go(how: _How, wished: dict[str, Any]) -> int:
    from orchestrator import notify

    home, run_id = Home.default(), ""
    try:
        need_ssh(how.forward, watched=not how.detach)
        places = notify.chosen(home, how.notify)
        with _planned(home, wished, rented=how.rented) as plan:
            show_plan(plan.plan, plan.limits, as_json=how.as_json, as_data=how.dry_run)
            plan.check()
            if how.dry_run:
                return 0
            if not agreed("Launch?", yes=how.yes):
                return tell_not_wanted(as_json=how.as_json)
            take_up(home)
            notify.keep(home, plan.plan["run_id"], places)
            run_id = plan.go()
        run = find_run(home, run_id)
        if how.detach:
            return tell_detached(home, run, as_json=how.as_json)
        watched = watch(home, run, ask=True, forward=how.forward, rented=how.rented)
        return tell_end(home, watched, as_json=how.as_json)
    except GpurunError as error:
        if how.as_json and not how.dry_run:
            tell_error(home, run_id, error)
        raise


def _planned(home: Home, wished: dict[str, Any], *, rented: bool) -> AbstractContextManager[Planned]:
    from orchestrator import wish

    wanted = wish.Wish(**wished)
    if not rented:
        return wish.planned(home, wanted)
    from orchestrator.rent import template

    return wish.planned(home, wanted, template)


NOT_WANTED = 6  # as a run that was stopped: nothing was launched, because the user said so


def tell_not_wanted(*, as_json: bool) -> int:
    """Say nothing but the last line of `--json`."""
    if as_json:
        tell_nothing_launched("stopped", "stopped", "the answer was no")
    return NOT_WANTED


def show_plan(plan: dict[str, Any], limits: dict[str, Any], *, as_json: bool, as_data: bool) -> None:
    """Print the plan: on stdout where it is all that was asked for, else on stderr beside the progress."""
    from orchestrator import plan_screen, render

    if as_json and as_data:
        click.echo(render.to_json(plan))
    else:
        click.echo(plan_screen.plan_screen(plan, limits), err=not as_data)


def agreed(question: str, *, yes: bool) -> bool:
    """Ask; where there is nobody to ask, refuse."""
    if yes:
        return True
    if not sys.stdin.isatty():
        raise UsageError("nobody is here to say yes: standard input is no terminal", hint="add -y")
    return click.confirm(question, default=True, err=True)
