"""Documents that cannot rot: every command is described, every link leads somewhere, every shown command parses."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

import click
import pytest

from orchestrator.cli import cli

ROOT = Path(__file__).parent.parent
PAGES = sorted(
    path
    for path in ROOT.rglob("*.md")
    if not any(part.startswith(".") or part in {"build", "dist", "results"} for part in path.relative_to(ROOT).parts)
)
README = (ROOT / "README.md").read_text(encoding="utf-8")


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def commands() -> dict[str, click.Command]:
    """Every command that `gpurun --help` lists, groups' own commands too, by what one types."""
    found = {}

    def walk(group: click.Group, words: tuple[str, ...]) -> None:
        context = click.Context(group, help_option_names=["-h", "--help"])  # click keeps the first answer
        for name in group.list_commands(context):
            command = group.get_command(context, name)
            assert command is not None
            found[" ".join((*words, name))] = command
            if isinstance(command, click.Group):
                walk(command, (*words, name))

    walk(cli, ("gpurun",))
    return found


def shown_commands() -> list[str]:
    """Lines of all pages' code blocks, and code spans of the README, that start with `gpurun `."""
    lines = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for block in re.findall(r"^```\w*\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
            lines += block.splitlines()
        lines += [line for line in text.splitlines() if line.startswith("    ")]
        lines += re.findall(r"`(gpurun [^`\n]+)`", text)
    stripped = (line.strip().removeprefix("$ ").partition("  #")[0].strip() for line in lines)
    return sorted({line for line in stripped if re.match(r"gpurun( |$)", line)})


def resolve(line: str) -> None:
    """Parse a command line as gpurun would, without running it; click raises what the user would see."""
    command: click.Command = cli
    words = shlex.split(line)[1:]
    context = click.Context(cli, info_name="gpurun", **cli.context_settings)
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        name, found, words = command.resolve_command(context, words)
        assert found is not None
        command = found
        context = click.Context(command, info_name=name, parent=context)
    if isinstance(command, click.Group) or "--help" in words or not words:  # a bare name only mentions the command
        return
    command.make_context(command.name, words, parent=context.parent)


def test_every_command_has_help() -> None:
    assert [line for line, command in commands().items() if not (command.help or "").strip()] == []


def test_every_option_has_help() -> None:
    bare = [
        f"{line} {option.opts[0]}"
        for line, command in commands().items()
        for option in command.params
        if isinstance(option, click.Option) and not option.help
    ]
    assert bare == []


def test_every_command_stands_in_the_readme() -> None:
    lacking = [line for line in commands() if not re.search(rf"`{line}[ `]", README)]
    assert lacking == []


def test_the_readme_lists_no_command_that_does_not_exist() -> None:
    table = re.findall(r"^\| `(gpurun [a-z]+)", README, re.MULTILINE)
    assert table != []
    assert set(table) <= set(commands())


def test_the_readme_lists_the_templates_there_are() -> None:
    section = README.partition("\n## Templates\n")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| `([a-z0-9-]+)`", section, re.MULTILINE)) == {
        path.stem for path in (ROOT / "templates").glob("*.yaml")
    }


@pytest.mark.parametrize("line", shown_commands())
def test_a_shown_command_parses(line: str) -> None:
    # usage lines: [RUN], <name>, [-- CMD]
    placeholder = re.sub(r"\[([A-Z. ]+)\]|<[^>]+>|…", "x", re.sub(r"\[(-- [A-Z]+)\]", r"\1", line))
    resolve(placeholder)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_relative_link_leads_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    targets = re.findall(r"\[[^\]]*\]\(([^)#\s]+)(?:#[^)]*)?\)", text)
    broken = [target for target in targets if "://" not in target and not (page.parent / target).exists()]
    assert broken == []


def test_every_dependency_has_its_reason_in_the_readme() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    wanted = [re.split(r"[^\w-]", name, maxsplit=1)[0] for name in project["dependencies"]]
    wanted += [f"gpurun[{extra}]" for extra in extras]
    assert [name for name in wanted if f"`{name}`" not in README] == []


def test_every_verb_of_the_makefile_says_what_it_does() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = set(re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)[0].split()) - {"base", "payload", "tools"}
    assert phony == set(re.findall(r"^([a-z]+):.*## \S", makefile, re.MULTILINE))


def test_ci_calls_three_verbs_and_nothing_else() -> None:
    lines = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    code = [line for line in lines if line and not line.startswith("#")]
    assert code == ["set -euo pipefail", 'cd "$(dirname "$0")/.."', "make lint types test"]
