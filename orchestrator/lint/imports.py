"""Imports that nothing on the machine will answer: modules of no named package, files that stay here. Pure."""

from __future__ import annotations

import ast
import sys
from typing import TYPE_CHECKING

from orchestrator.lint.inline import plain
from orchestrator.lint.modules import BRINGS, PACKAGES, STACK
from orchestrator.lint.names import guarded, root

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from orchestrator.lint.findings import Finding, Piece

_COLAB = "google.colab"


def check(
    pieces: Sequence[Piece], given: Collection[str] | None, here: Collection[str], shipped: Collection[str]
) -> Iterator[Finding]:
    """Find them.

    `given` = the packages that are named, None = none are, and gpurun's own are there; `here` = modules that lie
    beside the script, `shipped` = those that go with it.
    """
    there = _with_their_own(STACK if given is None else given)
    told: set[str] = set()
    for piece in pieces:
        spared = guarded(piece.tree)
        for node in ast.walk(piece.tree):
            for module in () if node in spared else _modules(node):
                name = root(module)
                if name in told or name in sys.stdlib_module_names or name in shipped:
                    continue
                found = _judge(piece, node, module, given, there, here)
                if found is not None:
                    told.add(name)
                    yield found


def _modules(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module] if isinstance(node, ast.ImportFrom) and node.module and not node.level else []


def _judge(
    piece: Piece,
    node: ast.AST,
    module: str,
    given: Collection[str] | None,
    there: set[str],
    here: Collection[str],
) -> Finding | None:
    name = root(module)
    if module.startswith(_COLAB):
        return piece.at(node, "google.colab is on Colab only", "drop it; artifacts/ comes home by itself")
    packages = PACKAGES.get(name, (plain(name),))
    if there & set(packages):
        return None
    if name in here:
        file = next(each for each in (f"{name}.py", name) if each in here)
        return piece.at(node, f"{name} lies beside the script and would stay here", f"ship it: --include {file}")
    text = "no package that it names brings" if given is not None else "gpurun's own environment lacks"
    return piece.at(node, f"{text} the module {name}", f'name it: dependencies = ["{packages[0]}", …]', error=False)


def _with_their_own(names: Collection[str]) -> set[str]:
    """Add what comes along."""
    return {each for name in names for each in (name, *BRINGS.get(name, ()))}
