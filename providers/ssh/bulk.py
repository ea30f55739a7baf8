"""Large files to and from a machine: pipelined, resumed where they broke off, verified, moved into place whole.

    pull   part + note beside it (remote file, its time, bytes that are whole) -> sha256 -> fsync -> dest
    push   <remote>.<sha256>.part on the machine -> the machine's own sha256 of it -> remote

Each byte is hashed once at its end of the way: here by the thread that wrote it, there by a process that follows the
part as it grows, so that no machine waits, billing, for a hash after the last byte; one sent in two goes is read again.
A cut costs what was under way: `DEPTH` requests, 4 MiB. `st_size` is no measure of what is whole; the note is, and what
an earlier process left is hashed again: a part that rotted can't stay.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shlex
import shutil
import time
from collections import deque
from dataclasses import asdict, dataclass
from hashlib import sha256 as new_sha256
from typing import TYPE_CHECKING, Protocol

from providers.errors import IntegrityError, RemoteError, UnreachableError
from providers.ssh.keys import write_private
from providers.ssh.sftp import CREATE, DEPTH, READ, TRUNCATE, WRITE, NoSuchFile, Sftp
from providers.ssh.stream import let_go
from providers.wire import digest_of

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from pathlib import Path

    from providers.ssh.link import Link
    from providers.ssh.stream import Stream

_NOTE_BYTES = 4 * 2**20  # between two notes: what a crash of ours costs
_BLOCK = 2**20  # bytes
_MOST_PIECES = 1024  # that one call may write
_IDLE_CUTS = 4  # drops in a row without a byte between them: the link stands and falls, and nothing moves
_FOLLOWER_SECONDS = 10.0  # the last bytes are there: a follower that is alive needs none of it
_SUM_SECONDS_A_GIB = 60.0  # Debian's sha256sum, the slowest of the three, needs 4 s of a whole core (2026-11)

# glibc gives freed memory back at once until it has seen a large block freed; then it keeps twice that. Without this,
# each piece of a file costs page faults: 15 % of the CPU of a pull (glibc 2.36, 2026-11). Costs nothing elsewhere.
bytes(16 * 2**20)

# Debian's sha256sum is five times slower than openssl (2026-11), which not every image has. Safe to repeat: whoever
# finds the part gone looks at the file itself.
_SETTLE = """\
p={part}; n={final}; f=$p; s={known}; [ -e "$f" ] || {{ f=$n; s=; }}
[ -n "$s" ] || s=$({{ openssl dgst -sha256 -r || sha256sum || python3 -c 'import hashlib, sys
h = hashlib.sha256()
for block in iter(lambda: sys.stdin.buffer.read(1 << 20), b""):
    h.update(block)
print(h.hexdigest())'
}} 2>/dev/null < "$f") || exit 4
s=$(printf %.64s "$s"); printf %s "$s"
[ "$s" = {sha256} ] || {{ rm -f -- "$p"; exit 3; }}
[ "$f" = "$n" ] || mv -fT -- "$p" "$n"
"""


# Hashes a file while it grows, so that a large one needn't be read again; ends when nobody listens any more.
_FOLLOW = """\
import hashlib, select, sys, time
left, digest, room = int(sys.argv[2]), hashlib.sha256(), memoryview(bytearray(1 << 18))
with open(sys.argv[1], "rb", 0) as file:
    while left and not select.select([0], [], [], 0)[0]:
        count = file.readinto(room[: min(left, len(room))])
        digest.update(room[:count])
        left -= count
        if not count:
            time.sleep(0.01)
print("" if left else digest.hexdigest())
"""
_WORTH_FOLLOWING = 16 * 2**20  # bytes


def pull(
    link: Link, remote: str, dest: Path, size: int, sha256: str,
    progress: Callable[[int], None] | None = None, give_up_at: float | None = None,
) -> None:  # fmt: skip
    """Bring one file; `progress` is told how many bytes are here, `give_up_at` is in monotonic seconds.

    Raises:
        IntegrityError: its bytes are not the manifest's; nothing is left under `dest`.
        UnreachableError: the link could not be mended, or `give_up_at` came. The part stays, to carry on from.
        RemoteError: the file can't be read there, or not be written here; the part stays.
    """
    if not re.fullmatch(r"[0-9a-f]{64}", sha256) or size < 0:
        raise IntegrityError(f"the manifest's words on {remote!r} make no sense")
    with local_errors(dest, size):
        if dest.is_file() and dest.stat().st_size == size and digest_of(dest) == sha256:
            return
        dest.parent.mkdir(parents=True, exist_ok=True)
        for _ in range(2):
            with contextlib.closing(_Part(dest, remote, size, sha256)) as part:
                _persist(link, part, progress, give_up_at)
                whole = part.settle()
            if whole:
                return
            if not part.resumed:
                break  # a second time only where an earlier process's part may be at fault
    raise IntegrityError(f"{remote!r} arrived with another sha256 than {sha256[:12]}…")


def push(
    link: Link, source: Path, remote: str, sha256: str,
    progress: Callable[[int], None] | None = None, give_up_at: float | None = None, mode: int = 0o600,
) -> None:  # fmt: skip
    """Send one file to a path on the machine whose folder is there; it appears whole or not at all.

    Raises:
        IntegrityError: what arrived is not `sha256`: `source` changed.
        UnreachableError: the link could not be mended, or `give_up_at` came. The part stays, to carry on from.
        RemoteError: the file can't be read here, or not be written there (a full disk, a missing folder).
    """
    try:
        handle = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise RemoteError(f"{source} can't be read: {error.strerror}") from error
    try:
        for _ in range(2):
            with contextlib.closing(_Parcel(link, handle, remote, sha256, mode)) as parcel:
                _persist(link, parcel, progress, give_up_at)
                if parcel.settle():
                    return
            if not parcel.resumed:
                break
    finally:
        os.close(handle)
    raise IntegrityError(f"{source} is not what was to be sent: its sha256 on the machine is not {sha256[:12]}…")


class _Work(Protocol):
    def fill(self, sftp: Sftp) -> Generator[int]: ...


def _persist(link: Link, work: _Work, progress: Callable[[int], None] | None, give_up_at: float | None) -> None:
    """Work until it is done, over as many connections as it takes while bytes move between them."""
    idle = 0
    while True:
        channel = link.sftp()  # mends the link, within its own patience
        try:
            for done in work.fill(Sftp(channel, link.name, link.patience.stall_seconds)):
                idle = 0
                if progress is not None:
                    progress(done)
                _still_time(link, done, give_up_at)
        except UnreachableError:
            idle += 1
            if idle > _IDLE_CUTS or (give_up_at is not None and time.monotonic() > give_up_at):
                raise
        else:
            return
        finally:
            let_go(channel)


def _still_time(link: Link, done: int, give_up_at: float | None) -> None:
    if give_up_at is not None and time.monotonic() > give_up_at:
        raise UnreachableError(f"{link.name} was too slow: given up at byte {done}")


# ── to here ──────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class _Note:
    """What a part holds: of which remote file, and how much of it is whole."""

    remote: str
    sha256: str
    size: int
    modified: int
    offset: int


class _Part:
    """A file on its way here; hashed as it comes."""

    def __init__(self, dest: Path, remote: str, size: int, sha256: str) -> None:
        name = new_sha256(os.fsencode(dest.name)).hexdigest()[:16]  # any name fits, and leads nowhere
        self._dest, self._path = dest, dest.parent / f".{name}.part"
        self._note_path = dest.parent / f".{name}.part.json"
        self._note = _Note(remote, sha256, size, -1, 0)
        self._said = asdict(self._note)
        self._digest = new_sha256()
        self._noted = 0
        self.resumed = False
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._handle = os.open(self._path, flags, 0o600)
        self._offset = 0

    def fill(self, sftp: Sftp) -> Generator[int]:
        """Receive from where it stands; yield how much is whole."""
        remote, size = self._note.remote, self._note.size
        handle = sftp.open(remote, READ)
        found = sftp.stat(handle, remote)
        if found.size != size:
            self._drop()
            raise IntegrityError(f"{remote!r} has {found.size} bytes on the machine, not {size}")
        if self._note.modified != found.modified:
            self._begin(found.modified)
        with contextlib.closing(sftp.receive(handle, remote, self._offset, size, self._write)) as steps:
            for at in steps:
                if at - self._noted >= _NOTE_BYTES:
                    self._write_note()
                yield at
        sftp.shut(handle, remote)

    def _begin(self, modified: int) -> None:
        """Find out how much is here already; nothing, when it was of another file or time."""
        wanted = _Note(self._note.remote, self._note.sha256, self._note.size, modified, 0)
        left = _read_note(self._note_path)
        kept = 0
        if self._note.modified == -1 and left is not None and asdict(left) | {"offset": 0} == asdict(wanted):
            kept = min(left.offset, os.fstat(self._handle).st_size, wanted.size)
        self._note, self._said, self.resumed = wanted, asdict(wanted), kept > 0
        os.ftruncate(self._handle, kept)
        self._digest, self._offset, self._noted = new_sha256(), 0, kept
        while self._offset < kept:
            block = os.pread(self._handle, min(_BLOCK, kept - self._offset), self._offset)
            self._digest.update(block)
            self._offset += len(block)
        os.lseek(self._handle, kept, os.SEEK_SET)
        if shutil.disk_usage(self._path.parent).free < wanted.size - kept:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _write(self, pieces: list[memoryview]) -> None:
        """Write and hash, in the reading thread."""
        left = deque(pieces)
        while left:
            count = os.writev(self._handle, [left[each] for each in range(min(len(left), _MOST_PIECES))])
            while left and count >= len(left[0]):
                count -= len(left.popleft())
            if count:
                left[0] = left[0][count:]
        for piece in pieces:
            self._digest.update(piece)
            self._offset += len(piece)

    def _write_note(self) -> None:
        offset = self._offset
        note = json.dumps(self._said | {"offset": offset})
        write_private(self._note_path, note.encode(), sync=False)
        self._noted = offset

    def settle(self) -> bool:
        """Move it into place if its bytes are the right ones; else let nothing of it stay."""
        whole = self._digest.hexdigest() == self._note.sha256
        if whole:
            os.fsync(self._handle)
            self._path.replace(self._dest)
            _sync_folder(self._dest.parent)
        self._drop()
        return whole

    def _drop(self) -> None:
        self._path.unlink(missing_ok=True)
        self._note_path.unlink(missing_ok=True)
        self._noted = self._offset

    def close(self) -> None:
        """Let go, noting where it stands; on a full disk the last note has to do."""
        if self._offset > self._noted:
            with contextlib.suppress(OSError):
                self._write_note()
        os.close(self._handle)


def _read_note(path: Path) -> _Note | None:
    """Read what an earlier process noted; None = nothing of use."""
    try:
        said = json.loads(path.read_bytes())
        note = _Note(**said)
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    whole = isinstance(note.offset, int) and isinstance(note.modified, int) and note.offset >= 0
    return note if whole else None


@contextlib.contextmanager
def local_errors(dest: Path, size: int) -> Iterator[None]:
    """Say what this computer's disk refused, and what it would take."""
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
            raise RemoteError(
                f"no room for {dest}: it has {size} bytes, and {_free(dest.parent)} are free; what came is kept",
                hint=f"free space under {dest.parent}, then pull again",
            ) from error
        raise RemoteError(f"{dest} can't be written: {error.strerror or error}") from error


def _free(folder: Path) -> int:
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return 0


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


# ── to there ─────────────────────────────────────────────────────────────────────────────────────────────────────


class _Parcel:
    """A file on its way to the machine."""

    def __init__(self, link: Link, handle: int, remote: str, sha256: str, mode: int) -> None:
        self._link, self._handle, self._remote, self._sha256, self._mode = link, handle, remote, sha256, mode
        self._size = os.fstat(handle).st_size
        self._follower: Stream | None = None
        self._part = f"{remote}.{sha256[:16]}.part"
        self._offset = -1  # what the machine has acknowledged without a gap; -1 = not known
        self.resumed = False

    def fill(self, sftp: Sftp) -> Generator[int]:
        """Send from where it stands; yield how much is there for sure."""
        if self._offset < 0:
            self._offset = self._left_there(sftp)
            self.resumed = self._offset > 0
        self.close()  # who followed the last connection may have seen what is written anew now
        fresh = 0 if self._offset else TRUNCATE
        handle = sftp.open(self._part, WRITE | CREATE | fresh, self._mode)
        if fresh and self._size >= _WORTH_FOLLOWING:
            self._follow()
        for safe in sftp.send(handle, self._part, self._offset, self._read):
            self._offset = safe
            yield safe
        sftp.shut(handle, self._part)

    def _left_there(self, sftp: Sftp) -> int:
        """Find what an earlier process sent: less what may have been under way when it ended."""
        try:
            handle = sftp.open(self._part, READ)
        except NoSuchFile:
            return 0
        found = sftp.stat(handle, self._part).size
        sftp.shut(handle, self._part)
        return max(0, found - DEPTH * sftp.write_bytes) if found <= self._size else 0

    def _read(self, room: memoryview, offset: int) -> int:
        try:
            return os.preadv(self._handle, [room], offset)
        except OSError as error:
            raise RemoteError(f"what is sent to {self._remote!r} can't be read: {error.strerror}") from error

    def _follow(self) -> None:
        """Have the machine hash what comes as it comes; where it can't, it is hashed at the end."""
        command = f"exec python3 -I -S -c {shlex.quote(_FOLLOW)} {shlex.quote(self._part)} {self._size}"
        with contextlib.suppress(RemoteError):
            self._follower = self._link.open(command)

    def _followed(self) -> str:
        """Give the follower's word; "" = it has none."""
        if self._follower is None:
            return ""
        said = b""
        with contextlib.suppress(TimeoutError, UnreachableError):
            while piece := self._follower.read(_FOLLOWER_SECONDS):
                said += piece
        found = re.findall(rb"^[0-9a-f]{64}$", said, re.MULTILINE)  # a login shell may print what it likes before
        return found[-1].decode() if found else ""

    def settle(self) -> bool:
        """Let the machine hash it and move it into place; False = it is not what it should be, and is gone."""
        seconds = 60 + _SUM_SECONDS_A_GIB * self._size / 2**30
        part, final = shlex.quote(self._part), shlex.quote(self._remote)
        command = _SETTLE.format(part=part, final=final, sha256=self._sha256, known=self._followed())
        ran = self._link.run(command, timeout=seconds, repeatable=True)
        if ran.code == 3:
            return False
        if ran.code:
            said = ran.err.decode("utf-8", "replace").strip()[-200:]
            raise RemoteError(f"{self._remote!r} can't be put into place on the machine: {said or 'not hashed'}")
        return True

    def close(self) -> None:
        """Let the follower go."""
        follower, self._follower = self._follower, None
        if follower is not None:
            follower.close()
