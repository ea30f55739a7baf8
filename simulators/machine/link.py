"""The wire to a simulated machine: a TCP forwarder that can be cut, blackholed or frozen, at once or later.

    client ── ip:port ──[ Link ]── sshd

One thread for all connections of one machine. `cut` resets every connection (new ones get through). `blackhole` drops
incoming segments in the kernel, so nothing is even acknowledged and no FIN passes: keepalives and user timeouts count.
`freeze` goes on acknowledging and passes nothing on. What a fault holds back flows after `heal`, as TCP would have it.
"""

from __future__ import annotations

import contextlib
import ctypes
import selectors
import socket
import struct
import threading
import time
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

CHUNK = 256 * 2**10  # bytes a read: larger ones gain nothing on loopback
BACKLOG = 128
# linux/filter.h: a classic BPF program of one instruction, "return 0" = drop the segment before TCP sees it.
_SO_ATTACH_FILTER, _SO_DETACH_FILTER = 26, 27
_RETURN_NOTHING = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))
_DROP_ALL = struct.pack("HP", 1, ctypes.addressof(_RETURN_NOTHING))


@dataclass(slots=True, eq=False)
class _End:
    """One socket of a pair; `pending` waits to be written to it."""

    socket: socket.socket
    peer: _End | None = None
    pending: memoryview = field(default_factory=lambda: memoryview(b""))
    ended: bool = False  # it sends no more
    mask: int = 0  # what the selector watches


@dataclass(slots=True)
class _Fault:
    """A fault to come: after so many bytes, or at a moment of the monotonic clock."""

    act: Callable[[], None]
    bytes_left: int | None
    at: float | None
    again: Callable[[], None] | None = None


class Link:
    """Forwards `listen` to `target`; opened and closed any number of times."""

    def __init__(self, listen: tuple[str, int], target: tuple[str, int]) -> None:
        self.listen, self.target = listen, target
        self.passed_bytes = 0  # both ways, since the beginning
        self._selector = selectors.DefaultSelector()
        self._ends: dict[_End, None] = {}
        self._listener: socket.socket | None = None
        self._state = "up"  # up | frozen | blackholed
        self._faults: list[_Fault] = []
        self._calls: deque[tuple[Callable[[], None], Future[None]]] = deque()
        self._wake, waker = socket.socketpair()
        self._waker: socket.socket | None = waker
        self._selector.register(self._wake, selectors.EVENT_READ, None)
        self._buffer = bytearray(CHUNK)
        self._lock = threading.Lock()
        self._over = False  # the thread has ended
        self._thread = threading.Thread(target=self._serve, name=f"link {listen[0]}", daemon=True)
        self._thread.start()

    # ── what others call ─────────────────────────────────────────────────────────────────────────────────────────

    def open(self) -> None:
        """Listen; `target` may have changed since."""
        self._do(self._open)

    def shut(self) -> None:
        """Listen no more and reset what is connected: connections are refused."""
        self._do(self._shut)

    def cut(self, *, after_bytes: int = 0, after_seconds: float = 0.0, times: int = 1) -> None:
        """Reset every connection; `times` > 1 does it again after as much more."""
        left = times - 1
        more = (lambda: self.cut(after_bytes=after_bytes, after_seconds=after_seconds, times=left)) if left else None
        self._plan(self._reset_all, after_bytes, after_seconds, more)

    def blackhole(self, *, after_bytes: int = 0, after_seconds: float = 0.0, for_seconds: float | None = None) -> None:
        """Drop every segment that comes, unacknowledged, and send nothing; until `heal`, or for some seconds."""
        self._plan(lambda: self._stall("blackholed"), after_bytes, after_seconds, self._healing(for_seconds))

    def freeze(self, *, after_bytes: int = 0, after_seconds: float = 0.0, for_seconds: float | None = None) -> None:
        """Acknowledge and pass nothing; until `heal`, or for some seconds."""
        self._plan(lambda: self._stall("frozen"), after_bytes, after_seconds, self._healing(for_seconds))

    def heal(self) -> None:
        """Pass everything again, and forget the faults to come."""
        self._do(self._heal)

    def close(self) -> None:
        """Reset everything and end the thread. Safe twice."""
        with self._lock:
            if self._waker is None:
                return
        self._do(self._shut)
        with self._lock:
            waker, self._waker = self._waker, None
        if waker is not None:
            waker.close()  # the thread ends when it reads that
            self._thread.join()

    # ── the thread ───────────────────────────────────────────────────────────────────────────────────────────────

    def _do(self, deed: Callable[[], None]) -> None:
        """Have the thread do it; returns when it is done."""
        if threading.current_thread() is self._thread:
            deed()
            return
        done: Future[None] = Future()
        with self._lock:
            if self._waker is None or self._over:
                return  # closed: nothing is connected
            self._calls.append((deed, done))
            self._waker.send(b".")
        done.result()

    def _serve(self) -> None:
        try:
            self._forward()
        finally:
            with self._lock:  # whatever happened: nobody waits for ever
                self._over = True
                for _, done in self._calls:
                    done.cancel()
            self._selector.close()
            for one in [self._wake, *self._sockets()]:
                one.close()

    def _forward(self) -> None:
        while True:
            for key, events in self._selector.select(self._until_next_fault()):
                if key.fileobj is self._wake:
                    if not self._wake.recv(4096):
                        return
                elif key.fileobj is self._listener:
                    self._accept()
                elif key.data in self._ends:
                    self._move(key.data, events)
            self._obey()
            self._fire()

    def _obey(self) -> None:
        while self._calls:
            deed, done = self._calls.popleft()
            try:
                deed()
            except OSError as error:  # a port that is taken: the caller's to hear
                done.set_exception(error)
            else:
                done.set_result(None)

    # ── connections ──────────────────────────────────────────────────────────────────────────────────────────────

    def _open(self) -> None:
        if self._listener is None:
            listener = socket.socket()
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind(self.listen)
            except OSError:
                listener.close()
                raise
            listener.listen(BACKLOG)
            listener.settimeout(0)
            self._listener = listener
            if self._state == "up":
                self._selector.register(listener, selectors.EVENT_READ)
            elif self._state == "blackholed":
                _drop_all(listener)

    def _shut(self) -> None:
        if self._listener is not None:
            if self._state == "up":
                self._selector.unregister(self._listener)
            self._listener.close()
            self._listener = None
        self._reset_all()

    def _accept(self) -> None:
        assert self._listener is not None  # noqa: S101 (it was just readable)
        with contextlib.suppress(OSError):  # gone again before we looked
            client, _ = self._listener.accept()
            server = socket.socket()
            near, far = _End(client), _End(server)
            near.peer, far.peer = far, near
            self._ends |= {near: None, far: None}
            try:
                server.connect(self.target)
            except OSError:  # nobody there: sshd is down
                self._reset(near)
                return
            for end in (near, far):
                end.socket.settimeout(0)
                end.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._watch(end, selectors.EVENT_READ)

    def _watch(self, end: _End, mask: int) -> None:
        """Watch for these events; none = not at all. Under a fault it is only remembered."""
        if self._state == "up":
            if end.mask and mask:
                self._selector.modify(end.socket, mask, end)
            elif mask:
                self._selector.register(end.socket, mask, end)
            elif end.mask:
                self._selector.unregister(end.socket)
        end.mask = mask

    def _move(self, end: _End, events: int) -> None:
        try:
            if events & selectors.EVENT_WRITE:
                self._flush(end)
            if events & selectors.EVENT_READ:
                self._pull(end)
        except OSError:
            self._reset(end)

    def _pull(self, end: _End) -> None:
        """Read what came and write it to the other side; what does not fit stops the reading until it does."""
        other = end.peer
        assert other is not None  # noqa: S101 (made in pairs)
        room = min((fault.bytes_left for fault in self._faults if fault.bytes_left is not None), default=CHUNK)
        count = end.socket.recv_into(self._buffer, min(max(room, 1), CHUNK))
        if not count:
            end.ended = True
            self._watch(end, end.mask & ~selectors.EVENT_READ)
            self._finish(other)
            return
        data = memoryview(self._buffer)[:count]
        try:
            sent = other.socket.send(data)
        except BlockingIOError:
            sent = 0
        if sent < count:
            other.pending = memoryview(bytes(data[sent:]))
            self._watch(end, end.mask & ~selectors.EVENT_READ)
            self._watch(other, other.mask | selectors.EVENT_WRITE)
        self._count(count)

    def _flush(self, end: _End) -> None:
        end.pending = end.pending[end.socket.send(end.pending) :]
        if end.pending:
            return
        self._watch(end, end.mask & ~selectors.EVENT_WRITE)
        source = end.peer
        assert source is not None  # noqa: S101 (made in pairs)
        if source.ended:
            self._finish(end)
        else:
            self._watch(source, source.mask | selectors.EVENT_READ)

    def _finish(self, end: _End) -> None:
        """Pass an end of stream on, once everything before it is written; both ended = closed."""
        other = end.peer
        assert other is not None  # noqa: S101 (made in pairs)
        if end.pending:
            return
        if end.ended and not other.pending:
            self._drop(end)
            self._drop(other)
        else:
            end.socket.shutdown(socket.SHUT_WR)

    def _drop(self, end: _End) -> None:
        if end in self._ends:
            self._watch(end, 0)
            end.socket.close()
            del self._ends[end]

    def _reset(self, end: _End) -> None:
        """Close both sides with a RST: no word of farewell."""
        for one in (end, end.peer):
            if one is not None and one in self._ends:
                with contextlib.suppress(OSError):  # the other side was quicker
                    one.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self._drop(one)

    def _reset_all(self) -> None:
        for end in list(self._ends):
            self._reset(end)

    # ── faults ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _plan(
        self, act: Callable[[], None], after_bytes: int, after_seconds: float, again: Callable[[], None] | None
    ) -> None:
        at = time.monotonic() + after_seconds if after_seconds or not after_bytes else None

        def add() -> None:
            self._faults.append(_Fault(act, after_bytes or None, at, again))
            self._fire()

        self._do(add)

    def _healing(self, for_seconds: float | None) -> Callable[[], None] | None:
        if for_seconds is None:
            return None
        return lambda: self._faults.append(_Fault(self._resume, None, time.monotonic() + for_seconds))

    def _count(self, count: int) -> None:
        self.passed_bytes += count
        for fault in self._faults:
            if fault.bytes_left is not None:
                fault.bytes_left -= count

    def _until_next_fault(self) -> float | None:
        moments = [fault.at for fault in self._faults if fault.at is not None]
        return max(0.0, min(moments) - time.monotonic()) if moments else None

    def _fire(self) -> None:
        now = time.monotonic()
        for fault in list(self._faults):
            counted = fault.bytes_left is not None and fault.bytes_left <= 0
            if fault in self._faults and (counted or (fault.at is not None and fault.at <= now)):
                self._faults.remove(fault)
                fault.act()
                if fault.again is not None:
                    fault.again()

    def _stall(self, state: str) -> None:
        self._resume()
        for one in self._sockets():
            with contextlib.suppress(KeyError):  # nothing was expected of it
                self._selector.unregister(one)
            if state == "blackholed":
                _drop_all(one)
        self._state = state

    def _resume(self) -> None:
        state, self._state = self._state, "up"
        if state == "up":
            return
        if state == "blackholed":
            for one in self._sockets():
                one.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)
        if self._listener is not None:
            self._selector.register(self._listener, selectors.EVENT_READ)
        for end in self._ends:
            mask, end.mask = end.mask, 0
            self._watch(end, mask)

    def _heal(self) -> None:
        self._faults.clear()
        self._resume()

    def _sockets(self) -> list[socket.socket]:
        return [end.socket for end in self._ends] + ([self._listener] if self._listener else [])


def _drop_all(one: socket.socket) -> None:
    one.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, _DROP_ALL)
