"""What a known bug is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """One exact replacement in one file, and the tests that must catch it: arguments for pytest."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
