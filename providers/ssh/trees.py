"""Many small files in one stream: a tar over one channel, each file checked as it passes.

    pull_tree   NUL-separated names -> the machine's tar -> each member is the next one asked for: name, size, sha256
    push_tree   a tar made here, its sums at the end -> python3 on the machine -> moved into place when all is right

All or nothing: files are written aside under numbers, so that no name of the machine's choosing ever becomes a path
before everything is verified. A dropped link is mended and the rest asked for again.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import json
import os
import re
import secrets
import shlex
import shutil
import tarfile
import tempfile
from hashlib import sha256 as new_sha256
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from providers.errors import IntegrityError, RemoteError, UnreachableError
from providers.ssh.bulk import local_errors
from providers.wire import MAX_ENTRIES, inside

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from providers.base import Entry
    from providers.ssh.link import Link
    from providers.ssh.stream import Stream

_BUFFER = 128 * 2**10  # bytes
_IDLE_DROPS = 4  # drops in a row without a file between them
_DYING_SECONDS = 5.0  # a command that broke off says why within these
_LONGEST_NAME = 4096  # bytes, the kernel's own limit
_NOT_WHAT_WAS_SENT = 3  # receiver.py's word
_NAMES = 2**20  # bytes of names asked for at once: less than sshd takes without reading, so that neither side waits
_SUMS_MARK = {"GPURUN.sums": "1"}  # told apart from the files by what no name can hold
_NOISE = 2**20  # bytes that a login shell may print before the tar
_TAR = """\
printf '\\n%s\\n' {word}
TAR_OPTIONS= LC_ALL=C exec tar -cf - -C {base} --no-recursion --hard-dereference -h --null -T -"""


def pull_tree(
    link: Link, base: str, entries: Sequence[Entry], dest: Path, progress: Callable[[int], None] | None = None,
    go_on: Callable[[], None] = lambda: None,
) -> None:  # fmt: skip
    """Bring files that lie under `base` on the machine to the same names under `dest`; `progress` counts bytes.

    `go_on` is called before each wait for bytes; what it raises ends it all.

    Raises:
        IntegrityError: a name leads outside, or what came is not what the manifest says; nothing of it is kept.
        UnreachableError: the link could not be mended.
        RemoteError: a file is gone there, or can't be written here.
    """
    _check(entries)
    if not entries:
        return
    with local_errors(dest, sum(entry.size for entry in entries)), _aside(dest) as aside:
        for done in _persist(link, base, entries, aside, go_on):
            if progress is not None:
                progress(done)
        _sync(aside)
        _place(entries, aside, dest)


def _persist(link: Link, base: str, entries: Sequence[Entry], aside: Path, go_on: Callable[[], None]) -> Iterator[int]:
    """Receive file after file, over as many connections as it takes while files arrive between them."""
    count = size = idle = 0
    while count < len(entries):
        try:
            for each in _receive(link, base, _some(entries, count), aside, count, go_on):
                count, size, idle = count + 1, size + each, 0
                yield size
        except UnreachableError:
            idle += 1
            if idle > _IDLE_DROPS:
                raise


def _some(entries: Sequence[Entry], start: int) -> Sequence[Entry]:
    """Take as many as may be named at once."""
    end, room = start, _NAMES
    while end < len(entries) and (room := room - len(os.fsencode(entries[end].name)) - 3) >= 0:
        end += 1
    return entries[start:end]


def _receive(
    link: Link, base: str, entries: Sequence[Entry], aside: Path, first: int, go_on: Callable[[], None]
) -> Iterator[int]:
    word = f"gpurun-{secrets.token_hex(8)}"
    stream = link.open(f"exec sh -c {shlex.quote(_TAR.format(word=word, base=shlex.quote(_anchored(base))))}")
    try:
        stream.write(b"".join(b"./" + os.fsencode(entry.name) + b"\0" for entry in entries), stream.stall_seconds)
        stream.finish()
        source = _Source(stream, sum(entry.size for entry in entries) + len(entries) * 4 * _LONGEST_NAME, go_on)
        source.skip_to(f"\n{word}\n".encode())
        with tarfile.open(
            fileobj=source, mode="r|", bufsize=_BUFFER, tarinfo=_Member, encoding="utf-8", errors="surrogateescape"
        ) as tar:
            for number, entry in enumerate(entries, first):
                _take(tar, entry, f"{aside}/{number}")
                yield entry.size
    except (tarfile.TarError, BrokenPipeError) as error:
        raise _explained(stream, error) from error
    except TimeoutError as error:
        raise UnreachableError(f"{link.name} gives nothing any more") from error
    finally:
        stream.close()


def _take(tar: tarfile.TarFile, entry: Entry, path: str) -> None:
    """Write the next member aside, if it is the one that was asked for: stricter than tarfile's own "data" filter."""
    member = tar.next()
    if member is None:
        raise tarfile.ReadError("it ends before the last file")
    if member.name.removeprefix("./") != entry.name or not member.isreg() or member.size != entry.size:
        raise IntegrityError(f"the machine sent something else than {entry.name!r} of {entry.size} bytes")
    source, digest = tar.extractfile(member), new_sha256()
    with open(path, "wb") as file:  # noqa: PTH123 - thousands of times; over what a cut left
        while source is not None and (block := source.read(2**20)):
            digest.update(block)
            file.write(block)
    if digest.hexdigest() != entry.sha256:
        raise IntegrityError(f"{entry.name!r} arrived with another sha256 than {entry.sha256[:12]}…")


def _place(entries: Sequence[Entry], aside: Path, dest: Path) -> None:
    """Move everything to its name, after a look at each folder: a link in `dest` must not lead out of it."""
    for folder in {entry.name.rpartition("/")[0] for entry in entries} - {""}:
        inside(dest, folder).mkdir(parents=True, exist_ok=True)
        inside(dest, f"{folder}/.")
    for number, entry in enumerate(entries):
        os.replace(f"{aside}/{number}", f"{dest}/{entry.name}")  # noqa: PTH105 - thousands of times


class _Member(tarfile.TarInfo):
    """A member whose headers can't fill the memory."""

    def _proc_member(self, tar: tarfile.TarFile) -> tarfile.TarInfo:
        if not self.isreg() and self.size > _LONGEST_NAME:
            raise tarfile.HeaderError("a header longer than any name")
        return super()._proc_member(tar)  # type: ignore[misc,no-any-return]


class _Source(io.RawIOBase):
    """What comes over a stream, as a file that `tarfile` reads; no more than was asked for."""

    def __init__(self, stream: Stream, limit: int, go_on: Callable[[], None]) -> None:
        self._stream = stream
        self._left = limit
        self._go_on = go_on
        self._kept = b""

    def skip_to(self, mark: bytes) -> None:
        """Pass over what the login shell prints."""
        while mark not in self._kept:
            self._go_on()
            data = self._stream.read(self._stream.stall_seconds)
            if not data or len(self._kept) > _NOISE:
                raise tarfile.ReadError("it does not begin")
            self._kept += data
        self._kept = self._kept.partition(mark)[2]

    def read(self, size: int = -1) -> bytes:
        size = size if size > 0 else _BUFFER
        data, self._kept = self._kept[:size], self._kept[size:]
        self._go_on()
        data = data or self._stream.read(self._stream.stall_seconds, size)
        self._left -= len(data)
        if self._left < 0:
            raise IntegrityError("the machine sends more than was asked for")
        return data


def _explained(stream: Stream, error: Exception | None) -> RemoteError:
    """Tell a tar that failed there, by its own words, from one that makes no sense."""
    with contextlib.suppress(TimeoutError):
        code = stream.code(_DYING_SECONDS)
        if code not in {0, _NOT_WHAT_WAS_SENT}:
            said = stream.read_error(_DYING_SECONDS).decode("utf-8", "replace").strip()
            words = "".join(letter if letter.isprintable() else " " for letter in said[-300:])
            return RemoteError(f"the machine can't send or take the files: {words or f'code {code}'}")
    return IntegrityError(f"what arrived is not what was sent{f': {error}' if error else ''}")


def _check(entries: Sequence[Entry]) -> None:
    """Judge a manifest before anything is asked for or written."""
    if len(entries) > MAX_ENTRIES:
        raise IntegrityError(f"the manifest names {len(entries)} files; {MAX_ENTRIES} at most can be believed")
    names = {entry.name for entry in entries}
    if len(names) < len(entries):
        raise IntegrityError("the manifest names a file twice")
    for entry in entries:
        name, parts = entry.name, entry.name.split("/")
        if not {"", ".", ".."}.isdisjoint(parts) or "\0" in name or len(os.fsencode(name)) > _LONGEST_NAME:
            raise IntegrityError(f"the name {name[:200]!r} leads outside, or nowhere")
        if entry.size < 0 or not re.fullmatch(r"[0-9a-f]{64}", entry.sha256):
            raise IntegrityError(f"the manifest's words on {name!r} make no sense")
        if any("/".join(parts[:count]) in names for count in range(1, len(parts))):
            raise IntegrityError(f"{name!r} lies below another file")


# ── to there ─────────────────────────────────────────────────────────────────────────────────────────────────────


def push_tree(
    link: Link, files: Mapping[str, Path], base: str, go_on: Callable[[], None] = lambda: None
) -> None:  # fmt: skip
    """Send files to their names under `base` on the machine, which is made; all appear, or none does.

    `go_on` is called before each piece; what it raises ends it all.

    Raises:
        IntegrityError: a name leads outside, or what arrived is not what was read.
        UnreachableError: the link dropped and could not be mended.
        RemoteError: a file can't be read here, or not be written there.
    """
    for name in files:
        inside(Path(os.sep), name)
    for left in range(_IDLE_DROPS, -1, -1):
        try:
            _send(link, files, base, go_on)
        except UnreachableError:
            if not left:
                raise
        else:
            return


def _send(link: Link, files: Mapping[str, Path], base: str, go_on: Callable[[], None]) -> None:
    script = (Path(__file__).parent / "receiver.py").read_text()
    stream = link.open(f"exec python3 -I -S -c {shlex.quote(script)} {shlex.quote(_anchored(base))}")
    try:
        _pack(stream, files, go_on)
        stream.finish()
        if stream.code(stream.stall_seconds):
            raise _explained(stream, None)
    except BrokenPipeError as error:
        raise _explained(stream, error) from error
    except TimeoutError as error:
        raise UnreachableError(f"{link.name} takes nothing any more") from error
    finally:
        stream.close()


def _pack(stream: Stream, files: Mapping[str, Path], go_on: Callable[[], None]) -> None:
    """Write the tar; what is read is hashed as it goes."""
    sums: list[tuple[str, str]] = []
    with tarfile.open(
        fileobj=_Sink(stream, go_on), mode="w|", bufsize=_BUFFER, format=tarfile.PAX_FORMAT, encoding="utf-8",
        errors="surrogateescape",
    ) as tar:  # fmt: skip
        for name, path in files.items():
            sums.append((name, _add(tar, name, path)))
        content = json.dumps(sums).encode()
        last = tarfile.TarInfo("sums")
        last.size, last.pax_headers = len(content), dict(_SUMS_MARK)
        tar.addfile(last, io.BytesIO(content))


def _add(tar: tarfile.TarFile, name: str, path: Path) -> str:
    try:
        with path.open("rb") as file:
            facts = os.fstat(file.fileno())
            info = tarfile.TarInfo(name)
            info.size, info.mode, info.mtime = facts.st_size, facts.st_mode & 0o777, int(facts.st_mtime)
            source = _Hashed(file)
            tar.addfile(info, source)
            return source.digest.hexdigest()
    except (BrokenPipeError, TimeoutError):
        raise
    except OSError as error:
        raise RemoteError(f"{path} can't be read: {error.strerror or error}") from error


class _Hashed:
    """A file that is hashed as it is read."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.digest = new_sha256()

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self.digest.update(data)
        return data


class _Sink(io.RawIOBase):
    """Where `tarfile` writes."""

    def __init__(self, stream: Stream, go_on: Callable[[], None]) -> None:
        self._stream = stream
        self._go_on = go_on

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self._go_on()
        self._stream.write(data, self._stream.stall_seconds)
        return len(data)


# ── both ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _anchored(base: str) -> str:
    """Keep a name from being read as an option."""
    return base if base.startswith("/") else f"./{base}"


@contextlib.contextmanager
def _aside(dest: Path) -> Iterator[Path]:
    """Make a folder beside the files to come, gone at the end."""
    dest.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=".tree-", dir=dest))
    try:
        yield aside
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _sync(folder: Path) -> None:
    """Bring all that was written to the disk at once: a call for each of thousands of files would take minutes."""
    syncfs = getattr(ctypes.CDLL(None), "syncfs", None)
    if syncfs is None:
        os.sync()
        return
    handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if syncfs(handle):
            raise OSError(ctypes.get_errno(), "it can't be brought to the disk")
    finally:
        os.close(handle)
