"""`gpurun rehearse`."""

from __future__ import annotations

import os
from pathlib import Path

import click

from orchestrator.cli.common import WithCommand


@click.command(cls=WithCommand)
@click.argument("provider", default="lambda")
@click.option("--faults", metavar="JSON", help="What goes wrong: '{\"launch_capacity\": 2}'.")
@click.option("--seed", type=int, metavar="N", help="Let something go wrong, drawn by this number.")
@click.option("--pace", type=float, metavar="X", help="All that the vendor takes time for takes so much less.")
@click.option(
    "--boot", type=float, default=15.0, metavar="SECONDS", help="To boot; 15, where real machines take minutes."
)
@click.option("--home", "folder", type=click.Path(path_type=Path, file_okay=False), help="Rehearse in this folder.")
@click.option("--list-faults", is_flag=True, help="Name what can go wrong there, and stop.")
@click.option("--keep", is_flag=True, help="Keep the rehearsal's home; --home always does.")
@click.pass_obj
def rehearse(
    command: list[str], /, provider: str, folder: Path | None, *, list_faults: bool, keep: bool, **given: object
) -> int:
    """Practise on a simulated vendor: real commands, no account, no bill.

    Opens your shell, or runs CMD, in an environment where gpurun reaches a simulator on this computer: its API over
    HTTP, its machines over real SSH, a meter that bills until an instance is terminated. Real keys are left outside.
    Leaves with the exit code of CMD. A single word behind -- is a line for the shell.

    \b
    Examples:
      gpurun rehearse lambda
      gpurun rehearse lambda -- gpurun doctor
      gpurun rehearse runpod
      gpurun rehearse hf
      gpurun rehearse --faults '{"unhealthy": 1}' -- sh my-script.sh
    """
    from orchestrator import rehearse as rehearsing

    if list_faults:
        click.echo(rehearsing.list_faults(provider))
        return 0
    options = [word for name, value in given.items() if value is not None for word in (f"--{name}", str(value))]
    return rehearsing.rehearse(provider, options, command, folder, os.environ, say=_say, keep=keep)


def _say(text: str) -> None:
    click.echo(text, err=True)
