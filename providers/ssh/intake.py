"""What a large file does on its way in: from the packet to the disk in the thread that decrypted it.

Handing pieces to another thread costs a third more CPU than the work itself (2026-11): Python's threads take turns.
So the reading thread parses the answers, writes and hashes; whoever pulls only asks for more, and looks now and then.
"""

from __future__ import annotations

import struct
from collections import deque
from typing import TYPE_CHECKING

from providers.errors import IntegrityError, RemoteError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_HEAD = struct.Struct(">IBII")  # length, kind, number of the request, bytes that follow (or a status)
_STATUS, _DATA = 101, 103
_EOF = 1


class Intake:
    """The answers to reads of one file, in whatever order and pieces they come."""

    def __init__(self, path: str, start: int, size: int, sink: Callable[[list[memoryview]], None]) -> None:
        """`sink` gets the bytes from `start` to `size` in order, in the reading thread; it may raise OSError."""
        self.at = self._next = start  # all before it has gone to the sink, and will have
        self._run: list[memoryview] = []  # from the one to the other
        self.asked: dict[int, tuple[int, int]] = {}  # number -> offset, length; said before the request is sent
        self.short: deque[tuple[int, int]] = deque()  # what an answer left out, to be asked for again
        self.error: OSError | RemoteError | None = None
        self._path, self._size, self._sink = path, size, sink
        self._head = bytearray()
        self._number = self._left = self._length = 0  # of the answer that is under way
        self._aside: bytearray | None = None
        self._early: dict[int, bytearray] = {}

    def take(self, burst: Iterable[bytes | memoryview]) -> bool:
        """Take what comes; True = all is here, or nothing more will be."""
        if self.error is None:
            try:
                self._take(burst)
            except (OSError, RemoteError) as error:
                self.error = error
        return self.error is not None or self.at >= self._size

    def _take(self, burst: Iterable[bytes | memoryview]) -> None:
        try:
            for data in burst:
                self._parse(memoryview(data))
        finally:
            run, self._run = self._run, []
            self._sink(run)
            self.at = self._next

    def _parse(self, view: memoryview) -> None:
        while view:
            if self._left:
                piece, view = view[: self._left], view[self._left :]
                self._left -= len(piece)
                self._pass_on(piece)
            else:
                missing = _HEAD.size - len(self._head)
                self._head += view[:missing]
                view = view[missing:]
                if len(self._head) == _HEAD.size:
                    self._begin(*_HEAD.unpack(self._head))
                    self._head.clear()

    def _begin(self, length: int, kind: int, number: int, size: int) -> None:
        if kind == _STATUS and size == _EOF:
            raise IntegrityError(f"{self._path!r} ends on the machine before byte {self._size}")
        if kind == _STATUS:
            raise RemoteError(f"{self._path!r} can't be read on the machine: error {size}")
        offset, most = self.asked.get(number, (0, 0))
        if kind != _DATA or size != length - 9 or not 0 < size <= most:
            raise RemoteError(f"the machine answers what was not asked, reading {self._path!r}")
        self._number, self._left, self._length = number, size, size
        self._aside = None if offset == self._next else bytearray()

    def _pass_on(self, piece: memoryview) -> None:
        if self._aside is None:
            self._run.append(piece)
            self._next += len(piece)
        else:
            self._aside += piece
        if not self._left:
            self._end()

    def _end(self) -> None:
        offset, most = self.asked.pop(self._number)
        if self._length < most:  # a server may give less than it was asked for
            self.short.append((offset + self._length, most - self._length))
        if self._aside is not None:
            self._early[offset] = self._aside
        while (early := self._early.pop(self._next, None)) is not None:
            self._run.append(memoryview(early))
            self._next += len(early)
