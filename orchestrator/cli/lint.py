"""`gpurun lint`: what will fail in a script or a notebook of yours, before anything is rented."""

from __future__ import annotations

from pathlib import Path

import click

from orchestrator.cli.common import json_option, tell

BAD_INPUT = 2  # as every other mistake in what was handed over


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--include", multiple=True, metavar="PATH", help="As for launch: a file that goes along. Repeatable.")
@click.option("--secret", multiple=True, metavar="NAME", help="As for launch: a variable that goes along. Repeatable.")
@json_option
def lint(file: Path, *, include: tuple[str, ...], secret: tuple[str, ...], as_json: bool) -> int:
    """Look a script or a notebook through for what will fail on a rented machine.

    Syntax, packages that no index knows, arguments and names that today's TRL, transformers, peft and datasets lack,
    files that would stay here. Nothing of it is run. Leaves with 2 where something will fail; launch does the same.

    \b
    Examples:
      gpurun lint train.py
      gpurun lint notebook.ipynb --json
    """
    from orchestrator import own
    from orchestrator.render import clean, to_json

    looked = own.look(file, own.include(file, include), secret)
    findings = looked.report.findings
    if as_json:
        click.echo(to_json([looked.as_json(one) for one in findings]))
    else:
        for one in findings:
            tell(clean(f"{'error' if one.error else 'warning':8} {one.sentence(file.name)}"), indent=" " * 9)
        errors = len(looked.report.errors)
        click.echo(f"{errors} will fail there, {len(findings) - errors} may" if findings else "nothing found", err=True)
    return BAD_INPUT if looked.report.errors else 0
