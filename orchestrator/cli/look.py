"""`gpurun ps` and `gpurun show`."""

from __future__ import annotations

import os
import sys
import time

import click

from orchestrator.cli.common import exit_code_now, find_run, json_option, run_argument, take_up
from orchestrator.home import Home


@click.command()
@click.option("-a", "--all", "everything", is_flag=True, help="All runs, not only the unfinished and the last ten.")
@json_option
def ps(*, everything: bool, as_json: bool) -> int:
    """List runs: what may still bill first.

    Leaves with 5 while the end of something is not proven, by a run's controller or by a guard.

    \b
    Examples:
      gpurun ps
      gpurun ps --all --json
    """
    from orchestrator import glance, guard_pulse, screens
    from orchestrator.render import to_json, wants_colour
    from orchestrator.words import EXIT_MAY_BILL

    home, now = Home.default(), time.time()
    runs = glance.runs(home, now, last=None if everything else 10)
    taken_up = glance.tend(home, runs, now)
    colour = wants_colour(terminal=sys.stdout.isatty(), environ=os.environ)
    if as_json:
        click.echo(to_json([screens.run_json(run, home.run(run.run_id).path) for run in runs]))
    else:
        steps = glance.steps(home, runs)
        stuck = glance.store_troubles(home, runs)
        shown = screens.runs_table(runs, now, steps, stuck, colour=colour)
        click.echo(shown if runs else "no runs yet: gpurun launch demo")
        rents = any(not run.is_done and run.provider != "local" for run in runs)
        pulse = guard_pulse.line(home, now, wanted=rents)
        if pulse:
            click.echo(pulse, err=True)
    if taken_up:
        click.echo(f"nobody held {' '.join(taken_up)}: a background controller was started", err=True)
    return EXIT_MAY_BILL if guard_pulse.owes(home) else exit_code_now(runs)


@click.command()
@run_argument
@json_option
def show(run: str | None, *, as_json: bool) -> int:
    """Show one run: plan beside truth, history, files.

    RUN is the beginning of a run's id; the newest run when none is given. Leaves with 5 while its end is not proven.

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
    return exit_code_now([found])
