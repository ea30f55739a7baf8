"""`gpurun pull` and `gpurun stop`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from orchestrator.cli.common import find_run, run_argument, take_up, tell_end, watch, yes_option
from orchestrator.home import Home
from providers.errors import UsageError


@click.command()
@run_argument
@click.option("--to", "dest", type=click.Path(path_type=Path, file_okay=False), help="The folder; ./RUN unless given.")
def pull(run: str | None, dest: Path | None) -> None:
    """Copy a run's artifacts to a folder, checked.

    Every file is compared with the sha256 that the machine wrote. What is there already and whole is left alone. What
    did not come home comes from the run's store.

    \b
    Examples:
      gpurun pull
      gpurun pull demo-26 --to model
    """
    from orchestrator import pull as pulling
    from orchestrator.render import size

    home = Home.default()
    take_up(home)
    found = find_run(home, run)
    pulling.bring_from_store(home, found.run_id)
    pulled = pulling.pull(home.run(found.run_id), dest or Path(found.run_id), over=found.is_done)
    many = f"{len(pulled.files)} file{'' if len(pulled.files) == 1 else 's'}"
    click.echo(f"{pulled.folder}: {many}, {size(pulled.size)}, all as the machine wrote them")
    if not pulled.is_all:
        click.echo("it ended without a result: this is what the script had left by then", err=True)


@click.command()
@run_argument
@yes_option
@click.option("--detach", is_flag=True, help="Leave the wish and go; a background controller ends the run.")
def stop(run: str | None, *, yes: bool, detach: bool) -> int:
    """Stop a run: save, bring home, end the billing.

    \b
    Examples:
      gpurun stop
      gpurun stop demo-26 -y
    """
    from orchestrator.view import request_stop

    home = Home.default()
    found = find_run(home, run)
    if found.is_done:
        raise UsageError(f"{found.run_id} is over already: {found.reason}", hint=f"gpurun show {found.run_id}")
    if not yes and sys.stdin.isatty() and not click.confirm(f"Stop {found.run_id}?", default=True, err=True):
        return 0
    request_stop(home, found.run_id)
    if detach:
        take_up(home)
        click.echo(f"{found.run_id} is being stopped; see: gpurun ps", err=True)
        return 0
    watched = watch(home, found, show_log=False)
    code = tell_end(home, watched, as_json=False)
    return 0 if watched.run.is_done else code
