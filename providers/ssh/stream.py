"""One command on a machine: what goes in, what comes out, how it ended."""

from __future__ import annotations

import contextlib
import struct
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidSignature, InvalidTag
from paramiko.buffered_pipe import PipeTimeout
from paramiko.common import MSG_CHANNEL_DATA
from paramiko.ssh_exception import SSHException

from providers.errors import RemoteError, UnreachableError
from providers.ssh.packets import LARGEST, Burst

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import paramiko

# What a peer that dies, or talks nonsense, raises out of paramiko's reading thread.
DROPPED = (SSHException, EOFError, OSError, InvalidTag, InvalidSignature, ValueError, IndexError, struct.error)

_PIECE = 2**20  # bytes
_RIPE = 2**20  # bytes through a tap before its user is woken
_LOOK_SECONDS = 0.25  # or after so long
_MOST_WAITING = (
    32 * 2**20
)  # bytes unread: twice the window that a machine was given, which paramiko does not hold it to
_DYING_SECONDS = 0.3  # a dying connection ends its channels a moment before itself


@dataclass(frozen=True, slots=True)
class Ran:
    """How a command ended; `code` -1 = by a signal."""

    code: int
    out: bytes
    err: bytes


class Chunks:
    """A channel's buffer that hands on what came as it came; paramiko's own copies each byte three times.

    Whoever waits is not woken for each packet but when the reading thread has worked off what it read: `news` is its.
    """

    def __init__(self, news: threading.Condition) -> None:
        self._chunks: deque[bytes | memoryview] = deque()
        self._fed = self._taken = 0  # bytes, each counted by one thread alone
        self._closed = False
        self._news = news
        self._tap: Callable[[Sequence[bytes | memoryview]], bool] | None = None
        self._passed = 0  # bytes that went through the tap, and that nobody was told of
        self._tapped = threading.Lock()
        self._ripe = threading.Event()

    def divert(self, tap: Callable[[Sequence[bytes | memoryview]], bool] | None) -> None:
        """Let what comes go through `tap`, in the reading thread, until None; it says when its user is to look.

        Reads then give how much has passed. When this returns, the tap that was there is not running any more.
        """
        with self._tapped:
            self._tap, self._passed = tap, 0
            self._ripe.clear()

    def feed(self, data: bytes | memoryview) -> None:
        """Take a packet's content, in the reading thread.

        Raises:
            SSHException: more waits than the machine was allowed to send; it ends the connection.
        """
        self.feed_all([data])

    def feed_all(self, burst: Sequence[bytes | memoryview]) -> None:
        """Take the content of some packets; see `feed`."""
        size = sum(map(len, burst))
        with self._tapped:
            if self._tap is None:
                self._chunks.extend(burst)
                self._fed += size
                if self._fed - self._taken > _MOST_WAITING:
                    raise SSHException("the machine sends more than it was allowed to")
                return
            ripe = self._tap(burst)
            self._passed += size
            if ripe or self._passed >= _RIPE:
                self._ripe.set()

    def close(self) -> None:
        """No more will come."""
        with self._news:
            self._closed = True
            self._news.notify_all()
        self._ripe.set()

    def read(self, nbytes: int, timeout: float | None = None) -> bytes | memoryview | range:
        """Give what is there, up to `nbytes`, or a range as long as what went through a tap; empty = it is over."""
        if self._tap is not None:
            return self._wait_for_tap(timeout)
        if not self._chunks:
            with self._news:
                if not self._news.wait_for(self._ready, timeout):
                    raise PipeTimeout
        if not self._chunks:
            return b""
        pieces = [self._chunks.popleft()]
        room = nbytes - len(pieces[0])
        if room < 0:
            self._chunks.appendleft(pieces[0][nbytes:])
            self._taken += nbytes
            return pieces[0][:nbytes]
        while self._chunks and len(self._chunks[0]) <= room:
            pieces.append(self._chunks.popleft())
            room -= len(pieces[-1])
        self._taken += nbytes - room
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _wait_for_tap(self, timeout: float | None) -> range:
        until = None if timeout is None else time.monotonic() + timeout
        while not self._ripe.wait(_LOOK_SECONDS) and not self._passed:
            if until is not None and time.monotonic() > until:
                raise PipeTimeout
        with self._tapped:
            passed, self._passed = self._passed, 0
            if not self._closed:
                self._ripe.clear()
        return range(passed)

    def _ready(self) -> bool:
        return bool(self._chunks) or self._closed

    def read_ready(self) -> bool:
        """Say whether a read would give something."""
        return bool(self._chunks)


def divert(channel: paramiko.Channel, tap: Callable[[Sequence[bytes | memoryview]], bool] | None) -> None:
    """Let what comes for a quickened channel go through `tap`: see `Chunks.divert`."""
    buffer: Chunks = channel.in_buffer  # type: ignore[assignment]
    buffer.divert(tap)
    head = struct.pack(">BI", MSG_CHANNEL_DATA, channel.chanid)
    channel.get_transport().packetizer.tap = None if tap is None else (head, buffer.feed_all)  # type: ignore[attr-defined]


def send_all(channel: paramiko.Channel, data: bytes | memoryview) -> None:
    """Send all of it, as many packets at once as the machine has room for: paramiko's own copies each eight times."""
    view = memoryview(data)
    while view:
        pieces: list[memoryview] = []
        with channel.lock:
            if channel.closed:
                raise OSError("the channel is closed")
            while view and (channel.out_window_size or not pieces):
                # waits only where there is no room at all
                size = channel._wait_for_send_window(min(len(view), LARGEST))  # type: ignore[attr-defined]  # noqa: SLF001
                if not size:
                    raise OSError("the channel is closed")
                pieces.append(view[:size])
                view = view[size:]
        burst = Burst(channel.remote_chanid, pieces)
        channel.get_transport()._send_user_message(burst)  # type: ignore[attr-defined]  # noqa: SLF001


def quicken(channel: paramiko.Channel) -> paramiko.Channel:
    """Put the quick buffer, which is bounded, under a channel on which nothing was asked yet."""
    news = channel.get_transport().sock.news  # type: ignore[union-attr]
    channel.in_buffer, channel.in_stderr_buffer = Chunks(news), Chunks(news)  # type: ignore[assignment]
    return channel


def let_go(channel: paramiko.Channel) -> None:
    """Close a channel, whose connection may be gone."""
    with contextlib.suppress(*DROPPED):
        channel.close()


class Stream:
    """A running command. Reads raise `TimeoutError` when nothing comes, `UnreachableError` when the link dropped."""

    def __init__(self, channel: paramiko.Channel, name: str, stall_seconds: float) -> None:
        self._channel = channel
        self._name = name
        self.stall_seconds = stall_seconds  # what its users may wait for a sign of work

    def read(self, timeout: float | None, most: int = _PIECE) -> bytes:
        """Read what there is of its output, waiting for the first byte; b"" = it has closed its output."""
        data = self._got(self._channel.recv, timeout, most)
        if not data and not self._channel.eof_received:
            self._still_there()
        return data

    def read_error(self, timeout: float | None, most: int = _PIECE) -> bytes:
        """Read what it wrote to standard error; at most a window (16 MiB) of it waits unread."""
        return self._got(self._channel.recv_stderr, timeout, most)

    def _got(self, recv: Callable[[int], bytes], timeout: float | None, most: int) -> bytes:
        self._channel.settimeout(timeout)
        try:
            return bytes(recv(most))
        except TimeoutError:
            raise
        except DROPPED as error:  # it can't say any more that it has room
            raise UnreachableError(f"the connection to {self._name} dropped") from error

    def write(self, data: bytes, timeout: float | None) -> None:
        """Write to its input, waiting while it takes nothing.

        Raises:
            BrokenPipeError: it has ended.
        """
        self._channel.settimeout(timeout)
        try:
            send_all(self._channel, data)
        except TimeoutError:
            raise
        except DROPPED as error:
            self._still_there()
            raise BrokenPipeError(f"a command on {self._name} ended before its input") from error

    def finish(self) -> None:
        """End its input."""
        self._channel.shutdown_write()

    def code(self, timeout: float | None) -> int:
        """Wait for its end; -1 = by a signal."""
        if not self._channel.status_event.wait(timeout):
            raise TimeoutError
        if self._channel.exit_status == -1:
            self._still_there()
        return int(self._channel.exit_status)

    def close(self) -> None:
        """Let go of it: its input and output are closed, which ends most commands."""
        let_go(self._channel)

    def _still_there(self) -> None:
        """Tell a command that ended from a connection that did."""
        transport = self._channel.get_transport()
        if transport.is_active():
            transport.join(_DYING_SECONDS)
        if not transport.is_active():
            raise UnreachableError(f"the connection to {self._name} dropped")


def collect(stream: Stream, stdin: bytes, until: float, limit: int) -> Ran:
    """Feed a command, read what it says, wait for its end.

    Raises:
        RemoteError: it is not done at `until` (monotonic), or said more than `limit` bytes.
    """

    def left() -> float:
        return max(0.001, until - time.monotonic())

    try:
        try:
            stream.write(stdin, left())
            stream.finish()
        except BrokenPipeError:
            pass  # it did not want all of its input: its exit code says why
        out = _all(lambda: stream.read(left()), limit)
        err = _all(lambda: stream.read_error(left()), limit)
        return Ran(stream.code(left()), out, err)
    except TimeoutError as error:
        raise RemoteError("a command on the machine took too long, and was left") from error
    finally:
        stream.close()


def _all(read: Callable[[], bytes], limit: int) -> bytes:
    pieces: list[bytes] = []
    size = 0
    while piece := read():
        size += len(piece)
        if size > limit:
            raise RemoteError(f"a command on the machine said more than {limit} bytes")
        pieces.append(piece)
    return b"".join(pieces)
