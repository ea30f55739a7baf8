"""What a name in a program stands for: `SFTTrainer`, `T` after `import SFTTrainer as T`, a subclass of it. Pure.

Imports, plain assignments and base classes are followed in the order in which they stand; nothing is run.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


@dataclass(slots=True)
class Names:
    """What is known after the pieces so far."""

    known: dict[str, str] = field(default_factory=dict)  # local name -> package.name
    stars: list[str] = field(default_factory=list)  # from trl import *
    tables: dict[str, list[tuple[str, ast.expr]]] = field(default_factory=dict)  # name -> what dict literals it got
    texts: dict[str, str] = field(default_factory=dict)  # name -> the text that it was given

    @classmethod
    def of(cls, trees: Iterable[ast.Module]) -> Names:
        """Read all pieces of a program."""
        names = cls()
        for tree in trees:
            for node in ast.walk(tree):
                if isinstance(node, ast.Import | ast.ImportFrom):
                    names._take_import(node)
        for tree in trees:
            for node in ast.walk(tree):
                if isinstance(node, ast.ClassDef):
                    names._take_class(node)
                elif isinstance(node, ast.Assign | ast.AnnAssign):
                    names._take_assignment(node)
        return names

    def _take_import(self, node: ast.Import | ast.ImportFrom) -> None:
        if isinstance(node, ast.Import):
            for alias in node.names:
                self.known[alias.asname or root(alias.name)] = alias.name if alias.asname else root(alias.name)
        elif node.module and not node.level:
            for alias in node.names:
                if alias.name == "*":
                    self.stars.append(root(node.module))
                else:
                    self.known[alias.asname or alias.name] = f"{root(node.module)}.{alias.name}"

    def _take_class(self, node: ast.ClassDef) -> None:
        for base in node.bases:
            meant = self.meant(base)
            if meant is not None:
                self.known[node.name] = meant

    def _take_assignment(self, node: ast.Assign | ast.AnnAssign) -> None:
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        for target in targets:
            if isinstance(target, ast.Subscript) and isinstance(target.value, ast.Name):
                key = text_of(target.slice)
                if key is not None and node.value is not None:
                    self.tables.setdefault(target.value.id, []).append((key, target))
            if not isinstance(target, ast.Name) or node.value is None:
                continue
            pairs = list(self.pairs(node.value))
            if pairs:
                self.tables.setdefault(target.id, []).extend(pairs)
            text = self.text(node.value)
            if text is not None:
                self.texts.setdefault(target.id, text)
            meant = self.meant(node.value) if isinstance(node.value, ast.Name | ast.Attribute) else None
            if meant is not None and target.id not in self.known:
                self.known[target.id] = meant

    def meant(self, node: ast.expr) -> str | None:
        """Give `package.name` of an expression, the modules between them left out; None = it is not known."""
        if isinstance(node, ast.Name):
            return self.known.get(node.id)
        if isinstance(node, ast.Attribute):
            base = self.meant(node.value)
            return None if base is None else f"{root(base)}.{node.attr}"
        return None

    def starred(self, node: ast.expr) -> Iterator[str]:
        """Give what a plain name may stand for after `from … import *`; capitals only: a class, no variable."""
        if isinstance(node, ast.Name) and node.id not in self.known and node.id[:1].isupper():
            yield from (f"{star}.{node.id}" for star in self.stars)

    def keywords(self, call: ast.Call) -> Iterator[tuple[str, ast.AST, ast.expr | None]]:
        """Give all keywords of a call with where they stand: also those of `**settings` made from literals."""
        for keyword in call.keywords:
            if keyword.arg is not None:
                yield keyword.arg, keyword.value, keyword.value
            elif isinstance(keyword.value, ast.Name):
                yield from ((key, node, None) for key, node in self.tables.get(keyword.value.id, []))
            else:
                yield from ((key, node, None) for key, node in self.pairs(keyword.value))

    def pairs(self, node: ast.expr) -> Iterator[tuple[str, ast.expr]]:
        """Give the keys of a dict that is written out, with where they stand."""
        if isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                text = text_of(key)
                if text is not None:
                    yield text, key or value
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict":
            yield from ((keyword.arg, keyword.value) for keyword in node.keywords if keyword.arg)

    def text(self, node: ast.AST | None) -> str | None:
        """Give the beginning of a text, as far as it is written down; None = it is not."""
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            return node.value
        if isinstance(node, ast.Name):
            return self.texts.get(node.id)
        if isinstance(node, ast.JoinedStr):
            return self.text(node.values[0]) if node.values else ""
        if isinstance(node, ast.FormattedValue):
            return self.text(node.value)
        if isinstance(node, ast.BinOp):
            return self.text(node.left)
        if isinstance(node, ast.Call) and node.args:
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            return self.text(node.args[0]) if name in {"Path", "join", "str"} else None
        return None


def text_of(node: ast.AST | None) -> str | None:
    """Give a text that is written out."""
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def root(name: str) -> str:
    """Give the first part of a dotted name."""
    return name.partition(".")[0]


def guarded(tree: ast.Module) -> set[ast.AST]:
    """Name the nodes that may fail: below a `try` that catches a failed import, or read by type checkers alone."""
    found: set[ast.AST] = set()
    for node in ast.walk(tree):
        tried = isinstance(node, ast.Try) and any(map(_catches, node.handlers))
        typed = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        if isinstance(node, ast.Try | ast.If) and (tried or typed):
            found |= {inner for statement in node.body for inner in ast.walk(statement)}
    return found


def _catches(handler: ast.ExceptHandler) -> bool:
    words = ast.dump(handler.type) if handler.type else "Exception"
    return any(
        name in words for name in ("ImportError", "ModuleNotFoundError", "'Exception'", "Exception", "AttributeError")
    )
