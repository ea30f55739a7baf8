"""`gpurun templates` and `gpurun completion`."""

from __future__ import annotations

import click

from orchestrator.cli.common import complete_template, json_option
from orchestrator.home import Home


@click.command()
@click.argument("name", required=False, shell_complete=complete_template)
@json_option
def templates(name: str | None, *, as_json: bool) -> None:
    """List the ready templates, or show one.

    Your own lie in the folder `templates` of gpurun's home, or anywhere: launch takes the path of a YAML file.

    \b
    Examples:
      gpurun templates
      gpurun templates demo > my-run.yaml
    """
    from orchestrator import templates as ready
    from orchestrator.render import table, to_json

    own = Home.default().root / "templates"
    if name:
        path = ready.find(name, own)
        text = path.read_text(encoding="utf-8")
        click.echo(to_json({"name": path.stem, "path": path, "text": text}) if as_json else text, nl=as_json)
        return
    listed = ready.listing(own)
    if as_json:
        click.echo(to_json([{"name": one.name, "about": one.about, "path": one.source} for one in listed]))
    else:
        click.echo(table(("TEMPLATE", "WHAT IT DOES"), [(one.name, one.about) for one in listed]))


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script for your shell.

    \b
    Examples:
      gpurun completion bash >> ~/.bashrc
      gpurun completion zsh >> ~/.zshrc
      gpurun completion fish > ~/.config/fish/completions/gpurun.fish
    """
    from click.shell_completion import get_completion_class

    from orchestrator.cli import cli

    made = get_completion_class(shell)
    if made is not None:
        # Only the script: click's own `source()` would start the shell to ask for its version.
        click.echo(made.source_template % made(cli, {}, "gpurun", "_GPURUN_COMPLETE").source_vars())
