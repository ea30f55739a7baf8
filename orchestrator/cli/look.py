"""`gpurun ps` and `gpurun show`."""

from __future__ import annotations

import time

import click

from orchestrator.cli.common import find_run, json_option, run_argument, take_up
from orchestrator.home import Home


@click.command()
@click.option("-a", "--all", "everything", is_flag=True, help="All runs, not only the unfinished and the last ten.")
@json_option
def ps(*, everything: bool, as_json: bool) -> None:
    """List runs: what may still bill first.

    \b
    Examples:
      gpurun ps
      gpurun ps --all --json
    """
    from orchestrator import glance, screens

    home, now = Home.default(), time.time()
    runs = glance.runs(home, now, last=None if everything else 10)
    taken_up = glance.tend(home, runs, now)
    if as_json:
        from orchestrator.render import to_json

        click.echo(to_json([screens.run_json(run, home.run(run.run_id).path) for run in runs]))
    else:
        click.echo(
            screens.runs_table(runs, now, glance.steps(home, runs)) if runs else "no runs yet: gpurun launch demo"
        )
    if taken_up:
        click.echo(f"nobody held {' '.join(taken_up)}: a background controller carries on", err=True)


@click.command()
@run_argument
@json_option
def show(run: str | None, *, as_json: bool) -> None:
    """Show one run: plan beside truth, history, files.

    RUN is the beginning of a run's id; the newest run when none is given.

    \b
    Examples:
      gpurun show
      gpurun show demo-26 --json
    """
    from orchestrator import dossier
    from orchestrator.render import to_json

    home = Home.default()
    take_up(home)
    found = find_run(home, run)
    facts = dossier.read(home, found)
    click.echo(to_json(facts.as_json()) if as_json else dossier.screen(facts, time.time()))
