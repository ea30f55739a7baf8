"""What lint says: one finding, and a program as it is looked at. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ast


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """One thing that is wrong, or may be."""

    cell: int  # of a notebook, code cells counted from 1; 0 = it is a script
    line: int  # from 1, within the cell; 0 = nowhere in particular
    text: str
    fix: str = ""
    error: bool = True  # it will fail on the rented machine; else it may
    source: str = ""  # whence it is known

    def where(self, name: str) -> str:
        """Name the place: `train.py:12`, `train.ipynb cell 3 line 2`."""
        if self.cell:
            return f"{name} cell {self.cell} line {self.line}"
        return f"{name}:{self.line}" if self.line else name

    def sentence(self, name: str) -> str:
        """One line for a person."""
        return f"{self.where(name)}: {self.text}{f' → {self.fix}' if self.fix else ''}"


@dataclass(frozen=True, slots=True)
class Piece:
    """A script, or one cell of a notebook."""

    cell: int
    text: str
    tree: ast.Module

    def at(self, node: ast.AST, text: str, fix: str = "", *, error: bool = True, source: str = "") -> Finding:
        """Make a finding on a line of it."""
        return Finding(self.cell, getattr(node, "lineno", 0), text, fix, error, source)
