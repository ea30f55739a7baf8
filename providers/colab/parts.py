"""Files in parts of some MiB, as they go through a VM's contents: many small files in one, a large one in many.

A large file's parts begin at multiples of their size, so that what has come in an earlier attempt is known again.
Pure: no byte is moved here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

PART = 4 * 2**20  # bytes: a third more on its way (base64), and a few times that in memory while it is
FILES = 500  # in one part at most: each is named in a question

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Segment(Generic[T]):
    """A piece of one file."""

    of: T
    offset: int
    length: int


def cut(files: Iterable[tuple[T, int, int]], most: int = PART) -> Iterator[tuple[Segment[T], ...]]:
    """Cut (file, where to begin, size) into parts of `most` bytes at the most, in order; small files go together."""
    together: list[Segment[T]] = []
    size = 0
    for file, start, end in files:
        if end - start >= most:
            for offset in range(start, end, most):
                yield (Segment(file, offset, min(most, end - offset)),)
            continue
        if size + end - start > most or len(together) == FILES:
            yield tuple(together)
            together, size = [], 0
        together.append(Segment(file, start, end - start))
        size += end - start
    if together:
        yield tuple(together)
