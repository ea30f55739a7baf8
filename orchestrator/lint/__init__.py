"""What is wrong with a user's own script or notebook, found before money moves: nothing of it is run or imported. Pure.

    text -> pieces (script, or cells) -> names -> findings: errors will fail on the rented machine, warnings may

Errors: syntax, malformed dependencies, arguments and names that today's libraries lack (rows.py), files that would
stay here. What an index knows is asked in index.py.
"""

from __future__ import annotations

import ast
import sys
import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from orchestrator.lint import calls, home, imports, inline, notebooks
from orchestrator.lint.findings import Finding, Piece
from orchestrator.lint.inline import Packages, plain
from orchestrator.lint.modules import NOTEBOOK, STACK
from orchestrator.lint.names import Names

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

__all__ = ["Finding", "Packages", "Report", "check"]

REQUIREMENTS = "requirements.txt"


@dataclass(frozen=True, slots=True)
class Report:
    """All that was found, and what the script asks for."""

    findings: tuple[Finding, ...]
    packages: Packages
    beside: bool = False  # its packages stand in the requirements.txt beside it

    @property
    def errors(self) -> tuple[Finding, ...]:
        """What will fail."""
        return tuple(one for one in self.findings if one.error)

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """What may fail, or costs something."""
        return tuple(one for one in self.findings if not one.error)


def check(
    name: str,
    text: str,
    *,
    requirements: str | None = None,
    here: Collection[str] = (),
    shipped: Collection[str] = (),
    secrets: Collection[str] = (),
    arguments: Sequence[str] = (),
) -> Report:
    """Look a script or a notebook through.

    `requirements` = the requirements.txt beside it; `here` = names of files and folders beside it, `shipped` = those
    that go with it; `secrets` = names of the variables that go with it; `arguments` = the script's own.
    """
    found: list[Finding] = []
    notebook = notebooks.read(text) if name.endswith(".ipynb") else None
    if notebook is not None and (notebook.problem or notebook.language not in {"python", "ipython"}):
        said = notebook.problem or f"its language is {notebook.language}, and only Python is run"
        return Report((Finding(0, 0, said),), Packages())
    sources = notebook.cells if notebook is not None else (text,)
    packages = _packages(sources, found, cells=notebook is not None)
    beside = packages.dependencies is None and not packages.problems and requirements is not None
    if beside and requirements is not None:
        packages = inline.requirements(requirements)
        found += [Finding(0, 0, f"{REQUIREMENTS}:{line}: {said}") for line, said in packages.problems]
    pieces = list(_pieces(sources, found, packages, cells=notebook is not None))
    names = Names.of([piece.tree for piece in pieces])
    given = _given(packages, notebook, beside=beside)
    found += (*calls.check(pieces, names, packages), *calls.arguments(arguments, names, packages))
    if not packages.more:
        modules = {each.partition("/")[0].removesuffix(".py") for each in shipped}
        found += imports.check(pieces, given, {*here, *(each.removesuffix(".py") for each in here)}, modules)
    found += home.check(pieces, names, secrets, () if packages.more else STACK if given is None else given)
    return Report(tuple(sorted(set(found))), packages, beside)


def _packages(sources: tuple[str, ...], found: list[Finding], *, cells: bool) -> Packages:
    """Read the block of comments; a notebook may have it in any cell."""
    for number, source in enumerate(sources, 1):
        packages = inline.read(source)
        found += [Finding(number if cells else 0, line, said) for line, said in packages.problems]
        if packages.dependencies is not None or packages.problems:
            wanted = tuple(replace(one, cell=number if cells else 0) for one in packages.wanted)
            return replace(packages, wanted=wanted)
    return Packages()


def _given(packages: Packages, notebook: notebooks.Notebook | None, *, beside: bool) -> set[str] | None:
    """Name the packages that will be there; None = those of gpurun's own environment."""
    names = {one.name for one in packages.wanted}
    names |= {plain(name) for name in notebooks.installs(notebook.cells)} if notebook is not None else set()
    if packages.dependencies is None and not beside:
        return {*STACK, *names, *NOTEBOOK} if notebook is not None else None
    return {*names, *NOTEBOOK} if notebook is not None else names


def _pieces(sources: tuple[str, ...], found: list[Finding], packages: Packages, *, cells: bool) -> Iterator[Piece]:
    for number, raw in enumerate(sources, 1):
        source, cell = (notebooks.as_python(raw), number) if cells else (raw, 0)
        try:
            yield Piece(cell, source, parse(source, cells=cells))
        except (SyntaxError, ValueError, RecursionError) as error:
            line = getattr(error, "lineno", 0) or 0
            newer = calls.release(packages.python.strip("<>=~! ").split(",")[0]) > sys.version_info[:2]
            said = f"syntax: {getattr(error, 'msg', error)}"
            if newer:
                said = f"can't be read by this Python {sys.version_info[0]}.{sys.version_info[1]}: {said}"
            found.append(Finding(cell, line, said, error=not newer))


def parse(source: str, *, cells: bool) -> ast.Module:
    """Parse and compile, which finds what parsing alone does not: `return` outside a function. Runs nothing.

    Raises:
        SyntaxError, ValueError: it is no Python.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tree = ast.parse(source)
        flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT if cells else 0
        compile(source, "<script>", "exec", flags=flags, dont_inherit=True)
    return tree
