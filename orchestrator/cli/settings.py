"""`gpurun config get|set|list|unset|test-notify`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from orchestrator.cli.common import json_option
from orchestrator.home import Home

if TYPE_CHECKING:
    from pathlib import Path


def _file() -> Path:
    from orchestrator.settings_file import NAME

    return Home.default().root / NAME


def _complete_key(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    from orchestrator.settings_file import KEYS

    return [key for key in KEYS if key.startswith(incomplete)]


_key = click.argument("key", shell_complete=_complete_key)


@click.group()
def config() -> None:
    """Read and change your defaults.

    A flag of launch wins over the template, and the template over these.

    \b
    Examples:
      gpurun config list
      gpurun config set monthly-cap 25
    """


@config.command("list")
@json_option
def list_all(*, as_json: bool) -> None:
    """List every key, its value (in brackets: built in) and what it is for.

    \b
    Examples:
      gpurun config list
    """
    from orchestrator import settings_file
    from orchestrator.render import table, to_json

    values = settings_file.load(_file())
    shown = {key: settings_file.shown(key, values.get(key)) for key in settings_file.KEYS}
    if as_json:
        private = {key: text for key, text in shown.items() if text and text != settings_file.spell(values[key])}
        click.echo(to_json({**{key: values.get(key) for key in settings_file.KEYS}, **private}))
        return
    built_in = {key: f"({known.built_in})" if known.built_in else "" for key, known in settings_file.KEYS.items()}
    rows = [(key, shown[key] or built_in[key], known.about) for key, known in settings_file.KEYS.items()]
    click.echo(table(("KEY", "VALUE", "WHAT FOR"), rows))


@config.command()
@_key
def get(key: str) -> int:
    """Print one value; leave with 1 when it is not set.

    \b
    Examples:
      gpurun config get monthly-cap
    """
    from orchestrator import settings_file

    value = settings_file.get(_file(), key)
    if value is not None:
        click.echo(settings_file.spell(value))
    return int(value is None)


# -3 is a value that is refused with its reason, and no option
@config.command("set", context_settings={"ignore_unknown_options": True})
@_key
@click.argument("value")
def set_one(key: str, value: str) -> None:
    """Set one key.

    The value - is read from standard input: what holds a token stays out of your shell's history.

    \b
    Examples:
      gpurun config set monthly-cap 25
      gpurun config set max-hours 2
      gpurun config set notify ntfy://my-topic
    """
    from orchestrator import settings_file

    path = _file()
    kept = settings_file.set_value(path, key, sys.stdin.readline().strip() if value == "-" else value)
    click.echo(f"{key} = {settings_file.shown(key, kept)} (in {path})", err=True)


@config.command()
@_key
def unset(key: str) -> None:
    """Forget one key.

    \b
    Examples:
      gpurun config unset monthly-cap
    """
    from orchestrator import settings_file

    was_set = settings_file.unset(_file(), key)
    click.echo(f"{key} is {'no longer' if was_set else 'not'} set", err=True)


@config.command("test-notify")
@click.argument("target", nargs=-1)
@json_option
def test_notify(target: tuple[str, ...], *, as_json: bool) -> int:
    """Send a test notice and say how it went.

    To each TARGET, or to those of the key notify; leaves with 3 where one was not told.

    \b
    Examples:
      gpurun config test-notify
      gpurun config test-notify ntfy://my-topic desktop
    """
    from orchestrator import notify
    from orchestrator.render import table, to_json

    outcomes = notify.test(Home.default(), target)
    if as_json:
        click.echo(to_json([{"target": place.shown, "told": not why, "why": why} for place, why in outcomes.items()]))
    else:
        click.echo(table(("TARGET", ""), [(place.shown, why or "told") for place, why in outcomes.items()]))
    return 3 if any(outcomes.values()) else 0
