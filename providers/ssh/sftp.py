"""SFTP version 3 as far as moving large files needs it: requests sent ahead, replies taken in the order of the file.

paramiko's own client lists every buffered request at each read: six times scp's time for 1 GiB (2026-11). This one
holds `DEPTH` requests in flight and hands on what comes without joining it. What a server says is bounded and checked.
"""

from __future__ import annotations

import struct
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from providers.errors import RemoteError, UnreachableError
from providers.ssh.intake import Intake
from providers.ssh.stream import DROPPED, divert, send_all

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Sequence, Sized

    import paramiko

DEPTH = 16  # requests in flight; with OpenSSH's 255 KiB each: 4 MiB, which is what a cut can cost
READ, WRITE, CREATE, TRUNCATE = 1, 2, 8, 16  # flags of open

_PIECE = 256 * 2**10  # bytes taken at once
_BATCH = 4  # requests sent in one packet: each packet costs both ends a system call
_PLAIN = 32 * 2**10  # bytes a request, where the server tells no limits
_MOST = 255 * 2**10  # bytes a request, whatever the server would take
_LONGEST = 300 * 2**10  # bytes of any reply: more is no SFTP
_INIT, _OPEN, _CLOSE, _READ, _WRITE, _FSTAT, _EXTENDED = 1, 3, 4, 5, 6, 8, 200
_VERSION, _STATUS, _HANDLE, _ATTRS, _EXTENDED_REPLY = 2, 101, 102, 105, 201
_NO_SUCH_FILE, _DENIED = 2, 3
_NONSENSE = "the machine answers what makes no sense in SFTP"
_REASONS = {_NO_SUCH_FILE: "there is no such file or folder", _DENIED: "permission denied"}


class NoSuchFile(RemoteError):  # noqa: N818 - the protocol's own word
    """The machine's own word that a file is not there."""


@dataclass(frozen=True, slots=True)
class Stat:
    """What is told of a file: bytes, and seconds since 1970."""

    size: int
    modified: int


class Acks:
    """The answers to writes, judged in the reading thread: whoever sends is woken for some of them at once."""

    def __init__(self, path: str, few: int) -> None:
        """`few` = so many may still be awaited when whoever sends is woken."""
        self._few = few
        self.awaited: set[int] = set()  # said before the request is sent
        self.error: RemoteError | None = None
        self._path = path
        self._kept = bytearray()

    def take(self, burst: Iterable[bytes | memoryview]) -> bool:
        """Take what comes; True = there is room for some requests, or nothing more will be."""
        if self.error is None:
            for data in burst:
                self._kept += data
            try:
                while len(self._kept) >= 13 and len(self._kept) >= (whole := self._whole()):
                    self._judge(bytes(self._kept[:whole]))
                    del self._kept[:whole]
            except RemoteError as error:
                self.error = error
        return self.error is not None or len(self.awaited) <= self._few

    def _whole(self) -> int:
        whole = 4 + int.from_bytes(self._kept[:4], "big")
        if not 13 <= whole <= _LONGEST:
            raise RemoteError(_NONSENSE)
        return whole

    def _judge(self, reply: bytes) -> None:
        kind, number = struct.unpack_from(">BI", reply, 4)
        if kind != _STATUS or number not in self.awaited:
            raise RemoteError(f"the machine answers what was not asked, writing {self._path!r}")
        _judge(reply[9:], self._path, ", writing: its disk may be full")
        self.awaited.discard(number)


class Sftp:
    """A session on one channel. One thread; a drop raises UnreachableError, after which it is of no more use."""

    def __init__(self, channel: paramiko.Channel, name: str, stall_seconds: float) -> None:
        self._channel = channel
        self._name = name
        self._rest = memoryview(b"")
        self._next = 0
        self._extensions: dict[str, str] = {}
        channel.settimeout(stall_seconds)  # the link may live while the machine's disk hangs
        self._greet()
        self.read_bytes, self.write_bytes = self._limits()

    # ── files ────────────────────────────────────────────────────────────────────────────────────────────────────

    def open(self, path: str, flags: int, mode: int = 0o600) -> bytes:
        """Open a file; relative paths begin at the user's home."""
        attributes = struct.pack(">II", 4, mode) if flags & CREATE else struct.pack(">I", 0)
        self._ask(_OPEN, _text(path), struct.pack(">I", flags), attributes)
        return self._string(self._answer(_HANDLE, path))

    def stat(self, handle: bytes, path: str) -> Stat:
        """Look at an open file; `path` is for messages."""
        self._ask(_FSTAT, _bytes(handle))
        return _stat(self._answer(_ATTRS, path))

    def shut(self, handle: bytes, path: str) -> None:
        """Close a file: that it could be is the server's last word on what was written."""
        self._ask(_CLOSE, _bytes(handle))
        self._answer(_STATUS, path)

    def receive(
        self, handle: bytes, path: str, start: int, size: int, sink: Callable[[list[memoryview]], None]
    ) -> Generator[int]:
        """Give the bytes from `start` to `size` to `sink`, in order, in the reading thread; yield where it stands.

        Raises:
            IntegrityError: the file ends before `size`.
            OSError: the sink's own.
        """
        intake, ahead = Intake(path, start, size, sink), start
        self._divert(intake.take)
        try:
            while intake.at < size:
                if len(intake.asked) <= DEPTH - _BATCH:
                    ahead = self._ask_ahead(intake, handle, ahead, size)
                self._recv()  # waits, and tells the machine that there is room again
                if intake.error is not None:
                    raise intake.error
                yield intake.at
        finally:
            divert(self._channel, None)

    def _divert(self, take: Callable[[Sequence[bytes | memoryview]], bool]) -> None:
        if self._rest or self._channel.recv_ready():
            raise RemoteError(f"{self._name} answers what was not asked")
        divert(self._channel, take)

    def _ask_ahead(self, intake: Intake, handle: bytes, ahead: int, size: int) -> int:
        """Ask for what is next, all in one packet; give where the next question begins."""
        packets: list[bytes] = []
        while len(intake.asked) < DEPTH and (intake.short or ahead < size):
            if intake.short:
                offset, length = intake.short.popleft()
            else:
                offset, length = ahead, min(self.read_bytes, size - ahead)
                ahead += length
            packets.append(self._packet(_READ, _bytes(handle), struct.pack(">QI", offset, length)))
            intake.asked[self._next] = offset, length
        self._put(b"".join(packets))
        return ahead

    def send(self, handle: bytes, path: str, start: int, read: Callable[[memoryview, int], int]) -> Generator[int]:
        """Write what `read(room, offset)` puts there, from `start` on until it is nothing; yield what is safe."""
        beginning = 9 + 4 + len(handle) + 12
        # Whoever waits for room in the machine's window is woken for each packet: so no more than it has room for.
        depth = max(2, min(DEPTH, self._channel.out_window_size * 7 // 8 // (beginning + self.write_bytes)))
        acks, pending, at, over = Acks(path, depth - 2), deque[tuple[int, int]](), start, False
        room = memoryview(bytearray(beginning + self.write_bytes))  # one for all requests: packets are sealed from it
        self._divert(acks.take)
        try:
            while pending or not over:
                while not over and len(pending) < depth:
                    count = read(room[beginning:], at)
                    over = not count
                    if count:
                        self._next = (self._next + 1) & 0xFFFFFFFF
                        acks.awaited.add(self._next)
                        head = struct.pack(">IBI", beginning - 4 + count, _WRITE, self._next)
                        room[:beginning] = head + _bytes(handle) + struct.pack(">QI", at, count)
                        self._put(room[: beginning + count])
                        at += count
                        pending.append((self._next, at))
                if pending:
                    self._recv()  # waits, and tells the machine that there is room again
                if acks.error is not None:
                    raise acks.error
                while pending and pending[0][0] not in acks.awaited:
                    yield pending.popleft()[1]
        finally:
            divert(self._channel, None)

    # ── the protocol ─────────────────────────────────────────────────────────────────────────────────────────────

    def _greet(self) -> None:
        self._put(struct.pack(">IBI", 5, _INIT, 3))
        kind, length = self._head()
        body = self._take(length)
        if kind != _VERSION:
            raise RemoteError(f"{self._name} offers no SFTP")
        rest = memoryview(body)[4:]
        while rest:
            name, rest = _cut(rest)
            value, rest = _cut(rest)
            self._extensions[name.decode("ascii", "replace")] = value.decode("ascii", "replace")

    def _limits(self) -> tuple[int, int]:
        """Ask how much a request may hold: OpenSSH since 8.5 answers 255 KiB."""
        if "limits@openssh.com" not in self._extensions:
            return _PLAIN, _PLAIN
        self._ask(_EXTENDED, _text("limits@openssh.com"))
        body = self._answer(_EXTENDED_REPLY, "its limits")
        _, read, write = struct.unpack_from(">QQQ", body)
        return tuple(min(_MOST, told) if told else _PLAIN for told in (read, write))  # type: ignore[return-value]

    def _ask(self, kind: int, *parts: bytes) -> int:
        self._put(self._packet(kind, *parts))
        return self._next

    def _packet(self, kind: int, *parts: bytes) -> bytes:
        self._next = (self._next + 1) & 0xFFFFFFFF
        size = 5 + sum(map(len, parts))
        return b"".join((struct.pack(">IBI", size, kind, self._next), *parts))

    def _put(self, data: bytes | memoryview) -> None:
        try:
            send_all(self._channel, data)
        except TimeoutError as error:
            raise UnreachableError(f"{self._name} takes nothing any more") from error
        except DROPPED as error:
            raise UnreachableError(f"the connection to {self._name} dropped") from error

    def _answer(self, kind: int, path: str) -> bytes:
        """Take the one reply that is awaited."""
        number, body = self._reply(kind, path)
        if number != self._next:
            raise RemoteError(f"{self._name} answers what was not asked")
        if kind == _STATUS:
            _judge(body, path)
        return body

    def _reply(self, wanted: int, path: str = "") -> tuple[int, bytes]:
        kind, length = self._head()
        body = self._take(length)
        (number,) = struct.unpack_from(">I", body) if length >= 4 else (0,)
        if kind == _STATUS and wanted != _STATUS:
            _judge(body[4:], path)
        if kind != wanted or length < 8:
            raise RemoteError(f"{self._name} answers what makes no sense in SFTP")
        return number, body[4:]

    def _string(self, body: bytes) -> bytes:
        return _cut(memoryview(body))[0]

    def _head(self) -> tuple[int, int]:
        length, kind = struct.unpack(">IB", self._take(5))
        if not 1 <= length <= _LONGEST:
            raise RemoteError(f"{self._name} answers what makes no sense in SFTP")
        return kind, length - 1

    def _take(self, count: int) -> bytes:
        if count <= len(self._rest):
            data, self._rest = self._rest[:count].tobytes(), self._rest[count:]
            return data
        return b"".join(self._pieces(count))

    def _pieces(self, count: int) -> Iterator[memoryview]:
        while count:
            if not self._rest:
                self._rest = memoryview(self._recv())  # type: ignore[arg-type]
            piece, self._rest = self._rest[:count], self._rest[count:]
            count -= len(piece)
            yield piece

    def _recv(self) -> Sized:
        try:
            data = self._channel.recv(_PIECE)
        except TimeoutError as error:
            raise UnreachableError(f"{self._name} gives nothing any more") from error
        except DROPPED as error:
            raise UnreachableError(f"the connection to {self._name} dropped") from error
        if not data:
            raise UnreachableError(f"the connection to {self._name} dropped")
        return data


def _judge(body: bytes, path: str, doing: str = "") -> None:
    """Raise what a status says, unless it says that all is well."""
    (code,) = struct.unpack_from(">I", body)
    if not code:
        return
    said = _cut(memoryview(body)[4:])[0].decode("utf-8", "replace") if len(body) >= 8 else ""
    reason = _REASONS.get(code) or "".join(letter for letter in said[:200] if letter.isprintable()) or f"error {code}"
    raise (NoSuchFile if code == _NO_SUCH_FILE else RemoteError)(f"{path!r} on the machine: {reason}{doing}")


def _bytes(value: bytes) -> bytes:
    return struct.pack(">I", len(value)) + value


def _text(value: str) -> bytes:
    return _bytes(value.encode("utf-8", "surrogateescape"))


def _cut(rest: memoryview) -> tuple[bytes, memoryview]:
    """Take one string off a reply."""
    if len(rest) < 4 or len(rest) - 4 < (size := int.from_bytes(rest[:4], "big")):
        raise RemoteError(_NONSENSE)
    return rest[4 : 4 + size].tobytes(), rest[4 + size :]


def _stat(body: bytes) -> Stat:
    """Read size and time of change; what is not told is -1."""
    (flags,) = struct.unpack_from(">I", body)
    layout = ((1, ">Q"), (2, ">II"), (4, ">I"), (8, ">II"))
    told, at = {}, 4
    for flag, form in layout:
        if flags & flag:
            if len(body) < at + struct.calcsize(form):
                raise RemoteError(_NONSENSE)
            told[flag] = struct.unpack_from(form, body, at)
            at += struct.calcsize(form)
    return Stat(told.get(1, (-1,))[0], told.get(8, (-1, -1))[1])
