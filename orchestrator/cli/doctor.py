"""`gpurun doctor`."""

from __future__ import annotations

import click

from orchestrator.cli.common import json_option
from orchestrator.home import Home


@click.command()
@json_option
def doctor(*, as_json: bool) -> int:
    """Check this computer, and say what to type where it fails.

    Leaves with 3 when something is bad; a note is none. With 5 while the end of a run is not proven.

    \b
    Examples:
      gpurun doctor
    """
    from orchestrator import checks, screens
    from orchestrator.render import to_json

    found = []
    for check in checks.all_checks(Home.default()):
        found.append(check)
        if not as_json:
            click.echo(screens.check_line(check.name, check.verdict, check.text, check.next))
    if as_json:
        click.echo(to_json(found))
    return checks.exit_code(found)
