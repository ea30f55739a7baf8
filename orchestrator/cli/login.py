"""`gpurun login`."""

from __future__ import annotations

import os
import sys

import click

from orchestrator.cli.common import tell
from orchestrator.home import Home
from providers.errors import UsageError


def _complete(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    from orchestrator.keys import VARIABLES

    return [name for name in VARIABLES if name.startswith(incomplete)]


@click.command()
@click.argument("name", metavar="PROVIDER", shell_complete=_complete)
@click.option("--from-env", is_flag=True, help="Take it from this shell's environment.")
@click.option("--forget", is_flag=True, help="Remove the stored key.")
def login(name: str, *, from_env: bool, forget: bool) -> None:
    """Store a key for timers and background commands, once it was tried.

    PROVIDER may be the name of a variable too, such as HF_TOKEN, for trainings that a timer carries on. The key is
    asked for, or read from standard input; it lies in the home (0600). What is set in the environment wins.

    \b
    Examples:
      gpurun login lambda
      gpurun login HF_TOKEN --from-env
      gpurun login lambda --forget
    """
    from orchestrator import keys

    home, variable = Home.default(), keys.variable_of(name)
    if forget:
        was = keys.forget(home, variable)
        click.echo(f"{variable} is {'no longer' if was else 'not'} stored", err=True)
        return
    seen = keys.tried(home, name, variable, _asked(variable, from_env=from_env))
    tell(f"stored {variable} in {keys.path_of(home)} (0600){seen}", err=True)


def _asked(variable: str, *, from_env: bool) -> str:
    if from_env:
        value = os.environ.get(variable, "")
        if not value:
            raise UsageError(f"{variable} is not set here", hint=f"gpurun login {variable}")
        return value.strip()
    if sys.stdin.isatty():
        return str(click.prompt(variable, hide_input=True, err=True)).strip()
    return sys.stdin.readline().strip()
