"""How a dead peer is noticed: a socket that counts what it hears, and asks when it hears nothing.

TCP keepalive and `TCP_USER_TIMEOUT` see a silent network. A peer that is frozen, or a middle box that goes on
acknowledging, only an answer from the other sshd can tell from a quiet one: after `ping_seconds` without a byte it is
asked, and after `misses` questions without a byte the socket fails, and all that waits on it with it. Any byte counts
as life, so that a slow link is no false alarm. It all happens inside paramiko's own reading thread, which waits for
nothing else: no further thread, no lock.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_BUFFER = 1024 * 2**10  # bytes: a header and a packet are read in one call of the system instead of four


class PulseSocket(socket.socket):
    """A connected TCP socket for paramiko, which calls `recv` and `send` until they fail."""

    def __init__(self, connected: socket.socket, *, ping_seconds: float, misses: int) -> None:
        family, kind, proto = connected.family, connected.type, connected.proto
        super().__init__(family, kind, proto, fileno=connected.detach())
        self._ping_seconds = ping_seconds
        self._misses = misses
        self._ask: Callable[[], None] | None = None
        self._moved = self._wrote = time.monotonic()  # last byte or question; last byte taken
        self._asked = 0
        self._kept = memoryview(bytearray(_BUFFER))
        self._start = self._end = 0
        self.news = threading.Condition()  # for those who wait for what the reading thread hands on
        self.bytes_in = self.bytes_out = 0
        self._guard(ping_seconds * (misses + 1))

    def _guard(self, dead_seconds: float) -> None:
        """Let the kernel notice a silent network by itself: it works while Python does something else."""
        self.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        whole = max(1, round(self._ping_seconds))
        wanted = {"TCP_KEEPIDLE": whole, "TCP_KEEPALIVE": whole, "TCP_KEEPINTVL": whole, "TCP_KEEPCNT": self._misses}
        wanted["TCP_USER_TIMEOUT"] = round(dead_seconds * 1000)  # Linux; others have the rest
        for name, value in wanted.items():
            if hasattr(socket, name):
                self.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)

    def ask_with(self, ask: Callable[[], None]) -> None:
        """Say how a question is put that any living sshd answers."""
        self._ask = ask
        self._moved = time.monotonic()

    def settimeout(self, seconds: float | None) -> None:
        """Let the kernel keep the time: one call of the system for each read instead of two."""
        super().settimeout(None)
        whole, part = divmod(seconds or 0.0, 1.0)
        limit = struct.pack("ll", int(whole), int(part * 1e6))
        self.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
        self.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)

    def recv(self, bufsize: int, flags: int = 0) -> bytes:  # noqa: ARG002 - the shape of a socket
        """Give what has been read ahead, or read on; `TimeoutError` = nothing came, ask again.

        Raises:
            ConnectionResetError: the peer did not answer.
        """
        if self._start == self._end:
            try:
                self._read_on()
            except (BlockingIOError, InterruptedError) as nothing:
                self._wonder()
                raise TimeoutError from nothing
        piece = bytes(self._kept[self._start : min(self._end, self._start + bufsize)])
        self._start += len(piece)
        return piece

    def gather(self, count: int, *, wait: bool = True) -> memoryview | None:
        """Show `count` bytes in one piece without taking them; None = not now, or never: `recv` finds out."""
        while self._end - self._start < count:
            if count > _BUFFER or not wait:
                return None
            if self._start + count > _BUFFER:
                rest = self._end - self._start
                self._kept[:rest] = self._kept[self._start : self._end]
                self._start, self._end = 0, rest
            try:
                if not self._read_on():
                    return None
            except (BlockingIOError, InterruptedError):
                return None
        return self._kept[self._start : self._start + count]

    def skip(self, count: int) -> None:
        """Take off what was gathered and used."""
        self._start += count

    def _read_on(self) -> int:
        """Read what there is behind what is kept, and wake those who wait for what came before."""
        with self.news:
            self.news.notify_all()
        if self._start == self._end:
            self._start = self._end = 0
        count = self.recv_into(self._kept[self._end :])
        self._end += count
        if count:
            self._moved, self._asked = time.monotonic(), 0
            self.bytes_in += count
        return count

    def _wonder(self) -> None:
        """Count questions, each with its own time to answer: a computer that slept must ask before it judges."""
        if self._ask is None or time.monotonic() - self._moved < self._ping_seconds:
            return
        if self._asked >= self._misses:
            self._die()
        self._asked += 1
        self._moved = time.monotonic()
        self._ask()

    def send(self, data: bytes, flags: int = 0) -> int:  # type: ignore[override]
        """Write some of it; `TimeoutError` = the buffer is full, try again.

        Raises:
            ConnectionResetError: nothing was taken and nothing was heard for as long as an answer may take.
        """
        try:
            count = super().send(data, flags)
        except (BlockingIOError, InterruptedError) as nothing:
            if time.monotonic() - max(self._moved, self._wrote) > self._ping_seconds * (self._misses + 1):
                self._die()
            raise TimeoutError from nothing
        self._wrote = time.monotonic()
        self.bytes_out += count
        return count

    def _die(self) -> None:
        raise ConnectionResetError(errno.ECONNRESET, "the peer does not answer")

    def close(self) -> None:
        """Wake whoever waits in `recv` or `send` before the number of the socket can be another's."""
        with contextlib.suppress(OSError):
            self.shutdown(socket.SHUT_RDWR)
        super().close()
