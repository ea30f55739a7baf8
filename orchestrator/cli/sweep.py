"""`gpurun sweep`."""

from __future__ import annotations

import os
import sys

import click

from orchestrator.cli.common import json_option, yes_option
from orchestrator.home import Home


@click.command()
@yes_option
@json_option
def sweep(*, yes: bool, as_json: bool) -> int:
    """Show all that bills on each account, and end what is overdue or orphaned.

    The guard's judgement by hand: it asks before it ends anything. Leaves with 5 when something of ours is left that
    should be gone or that a guard could not prove gone, or an account could not be looked at; with 3 when only this
    home is damaged.

    \b
    Examples:
      gpurun sweep
      gpurun sweep --json
    """
    from orchestrator import guard_here, guard_pass, guard_screens
    from orchestrator.render import to_json, wants_colour

    home = Home.default()
    looked = guard_here.look(home)
    owed = guard_here.debts(home, looked)
    colour = wants_colour(terminal=sys.stdout.isatty(), environ=os.environ)
    if not as_json:
        click.echo(guard_screens.sweep_screen(looked, owed, colour=colour))
    many = guard_here.to_end(looked)
    if not many or not (yes or _agreed(many, as_json=as_json)):
        if as_json:
            click.echo(to_json(guard_screens.sweep_json(looked, owed, None)))
        return guard_here.exit_code(looked, owed)
    pulse = guard_here.after_others(home)
    values = guard_screens.sweep_json(looked, owed, pulse)
    click.echo(to_json(values) if as_json else guard_screens.pass_screen(pulse, colour=colour))
    return guard_pass.exit_code(pulse)


def _agreed(many: int, *, as_json: bool) -> bool:
    from orchestrator.cli.launch import agreed

    return not as_json and agreed(f"End {many}?", yes=False)
