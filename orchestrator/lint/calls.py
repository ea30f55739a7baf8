"""The calls of a program held against rows.py: what was renamed or taken away, with line and fix. Pure."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING

from orchestrator.lint import rows
from orchestrator.lint.findings import Finding
from orchestrator.lint.names import Names, guarded, root

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from orchestrator.lint.findings import Piece
    from orchestrator.lint.inline import Packages
    from orchestrator.lint.rows import Row

_LOADERS = frozenset({"transformers", "peft", "trl"})
_NO_MODEL = re.compile(
    r"(Auto)?(Tokenizer|Config|Processor|FeatureExtractor|ImageProcessor)\w*|\w+(Tokenizer|Config|Processor)(Fast)?"
)
_NO_ARGUMENTS = frozenset({"trl.ModelConfig", "trl.DatasetMixtureConfig"})
_ARGUMENTS = frozenset({rows.ARGUMENTS, "transformers.Seq2SeqTrainingArguments"})
_PARSERS = frozenset({"transformers.HfArgumentParser", "trl.TrlParser"})
_TRAINERS = frozenset({rows.TRAINER, "transformers.Seq2SeqTrainer"})


def check(pieces: Sequence[Piece], names: Names, packages: Packages) -> Iterator[Finding]:
    """Find all that the libraries of today will not take."""
    for piece in pieces:
        spared = guarded(piece.tree)
        bases = _bases(piece.tree)
        for node in ast.walk(piece.tree):
            if isinstance(node, ast.Call):
                yield from _call(piece, node, names, packages, bases.get(node))
            elif node not in spared and isinstance(node, ast.ImportFrom | ast.Attribute):
                yield from _gone(piece, node, names, packages)


def arguments(words: Sequence[str], names: Names, packages: Packages) -> Iterator[Finding]:
    """Find what a script that parses TrainingArguments from its command line will not take there."""
    known = set(names.known.values())
    if not known & _PARSERS:
        return
    for word in words:
        found = re.match(r"--([A-Za-z][\w-]*)", word)
        for row in rows.KEYWORDS if found else ():
            ours = row.place == rows.ARGUMENTS or row.place in known
            if found and ours and row.argument == found[1].replace("-", "_") and applies(row, packages):
                yield Finding(0, 0, f"the argument --{found[1]} is gone", f"--{row.fix}", source=_source(row))


def _bases(tree: ast.Module) -> dict[ast.AST, ast.ClassDef]:
    """Say in which class a call of `super().__init__` stands."""
    found: dict[ast.AST, ast.ClassDef] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            found.update(dict.fromkeys(ast.walk(node), node))
    return found


def _call(
    piece: Piece, call: ast.Call, names: Names, packages: Packages, within: ast.ClassDef | None
) -> Iterator[Finding]:
    places, sure = places_of(call, names, within)
    if not places:
        return
    called = places[0].partition(".")[2]
    for keyword, node, _value in names.keywords(call):
        for row in rows.KEYWORDS:
            if row.argument == keyword and row.place in places and applies(row, packages):
                text = f"{called}({keyword}=) is gone"
                yield piece.at(node, text, row.fix, error=sure, source=_source(row))
        for row in rows.STILL:
            if row.argument == keyword and row.place in places:
                yield piece.at(node, f"{called}({keyword}=) still works", row.fix, error=False)


def places_of(call: ast.Call, names: Names, within: ast.ClassDef | None = None) -> tuple[list[str], bool]:
    """Give the places of the table that a call belongs to, and whether that is sure."""
    func = call.func
    if isinstance(func, ast.Attribute) and func.attr in {"from_pretrained", "from_config"}:
        meant = names.meant(func.value) or next(names.starred(func.value), None)
        if meant is not None and (root(meant) not in _LOADERS or _NO_MODEL.fullmatch(meant.partition(".")[2])):
            return [], True
        return ["*.from_pretrained"], meant is not None
    if isinstance(func, ast.Attribute) and func.attr == "__init__" and within is not None:
        found = [meant for base in within.bases if (meant := names.meant(base))]
    else:
        meant = names.meant(func)
        found = [meant] if meant is not None else list(names.starred(func))
    return [place for one in found for place in _wider(one)], True


def _wider(meant: str) -> list[str]:
    """Give a callable, and the families that it belongs to."""
    found = [meant]
    if meant in _ARGUMENTS or (meant.startswith("trl.") and meant.endswith("Config") and meant not in _NO_ARGUMENTS):
        found.append(rows.ARGUMENTS)
    if meant in _TRAINERS:
        found.append(rows.TRAINER)
    if meant.startswith("trl.") and meant.endswith("Trainer"):
        found.append("trl.*Trainer")
    return found


def _gone(piece: Piece, node: ast.ImportFrom | ast.Attribute, names: Names, packages: Packages) -> Iterator[Finding]:
    if isinstance(node, ast.ImportFrom):
        package = root(node.module) if node.module and not node.level else ""
        used: dict[str, ast.AST] = {f"{package}.{alias.name}": alias for alias in node.names}
    else:
        used = {names.meant(node) or "": node}
    for row in rows.NAMES:
        if row.place in used and applies(row, packages):
            yield piece.at(used[row.place], f"{row.place} is gone", row.fix, source=_source(row))


def _source(row: Row) -> str:
    return f"{row.last} had it, {row.gone} has not"


def applies(row: Row, packages: Packages) -> bool:
    """Whether what the script asks for lets a version in that has lost it."""
    package, _, gone = row.gone.partition(" ")
    wanted = packages.of(package)
    if wanted is None or not wanted.ranges:
        return True
    return all(_lets_in(part.strip(), release(gone)) for part in wanted.ranges.split(","))


def _lets_in(part: str, gone: tuple[int, ...]) -> bool:
    found = re.fullmatch(r"(===|~=|==|!=|<=|>=|<|>)\s*v?([\d.]+)(\.\*)?.*", part)
    if not found:
        return True
    operator, bound = found[1], release(found[2])
    if operator in {"==", "==="} and found[3]:
        bound = release(found[2], trim=False)
        return (*bound[:-1], bound[-1] + 1) > gone
    if operator == "~=":
        bound = release(found[2], trim=False)
        return (*bound[:-2], bound[-2] + 1) > gone if len(bound) > 1 else True
    return {"==": bound >= gone, "===": bound >= gone, "<=": bound >= gone, "<": bound > gone}.get(operator, True)


def release(version: str, *, trim: bool = True) -> tuple[int, ...]:
    """Give a version's numbers; 2.0 is 2."""
    numbers = [int(part) for part in version.split(".") if part.isdigit()]
    while trim and len(numbers) > 1 and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)
