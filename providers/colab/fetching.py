"""Files from a VM to this computer, in parts that a kernel cuts and names by sha256: several on their way at once.

    names ──cut──> content/gpurun/out/<part> ──contents, 4 at once──> checked ──in order──> .<name>.<sha>.part ──> name

Two batches of parts lie on the VM at the most, one in memory here. What has come stays, so that a repeat goes on.
"""

from __future__ import annotations

import os
from concurrent.futures import Future, ThreadPoolExecutor
from hashlib import sha256
from typing import TYPE_CHECKING, TypeAlias

from providers import wire
from providers.colab import parts
from providers.colab.jupyter import WORKERS
from providers.colab.kernels import FOLDER
from providers.errors import IntegrityError, RemoteError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from providers.base import Entry
    from providers.colab.jupyter import Jupyter
    from providers.colab.kernels import Kernel
    from providers.colab.parts import Segment

    Part: TypeAlias = tuple[Segment["Coming"], ...]
    Cut: TypeAlias = tuple[Part, str, str]  # its name there, its sha256
    Batch: TypeAlias = list[tuple[Cut, Future[bytes]]]

_BATCH = 6  # parts
_TRIES = 3  # for one part
_BLOCK = 2**20


def fetch(jupyter: Jupyter, kernel: Kernel, mark: str, wanted: Mapping[Entry, Path], go_on: Callable[[], None]) -> None:
    """Bring whole files to their places; one that is there and right already is left.

    `go_on` is called before each part; what it raises ends it all, and the next fetch carries on.

    Raises:
        IntegrityError: what came is not what the manifest says; nothing of it is left.
        RemoteError: a file is gone there, or can't be written here.
    """
    try:
        coming = [Coming(entry, target) for entry, target in wanted.items() if not _is(target, entry)]
        for one in coming:
            one.begin()
        pending = parts.cut((one, one.done, one.entry.size) for one in coming)
        _Fetching(jupyter, kernel, mark, go_on).run(pending)
    except OSError as error:
        raise RemoteError(f"files can't be written here: {error.strerror or error}") from error


class Coming:
    """One file on its way: what has come of it, and where it will be."""

    def __init__(self, entry: Entry, target: Path) -> None:
        self.entry = entry
        self.done = 0  # bytes, in one piece from the beginning
        self._target = target
        self._aside = target.with_name(f".{target.name[:100]}.{entry.sha256[:12]}.part")
        self._digest = sha256()

    def begin(self) -> None:
        """Find what an earlier fetch left, by whole parts; what is empty is whole at once."""
        self._target.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        with os.fdopen(os.open(self._aside, flags, 0o666), "r+b") as file:
            here = min(file.seek(0, os.SEEK_END), self.entry.size)
            self.done = here - here % parts.PART if self.entry.size > parts.PART else 0
            file.truncate(self.done)
            file.seek(0)
            while block := file.read(_BLOCK):
                self._digest.update(block)
        if self.done == self.entry.size:
            self._end()

    def take(self, offset: int, data: bytes) -> None:
        """Put the next piece behind what is there; with the last one the file gets its name.

        Raises:
            IntegrityError: what came is not what the manifest says.
        """
        if offset != self.done:
            raise AssertionError("parts come in order")
        with self._aside.open("ab") as file:
            file.write(data)
        self._digest.update(data)
        self.done += len(data)
        if self.done == self.entry.size:
            self._end()

    def _end(self) -> None:
        if self._digest.hexdigest() != self.entry.sha256:
            self._aside.unlink()
            raise IntegrityError(f"{self.entry.name!r} came, and its bytes are not those of the manifest")
        self._aside.replace(self._target)


class _Fetching:
    """Parts on their way: while one batch comes, the next is cut."""

    def __init__(self, jupyter: Jupyter, kernel: Kernel, mark: str, go_on: Callable[[], None]) -> None:
        self._jupyter = jupyter
        self._kernel = kernel
        self._mark = mark
        self._go_on = go_on
        self._left: list[str] = []  # parts on the VM that are home

    def run(self, pending: Iterable[Part]) -> None:
        """Bring them all; who is told to end waits for none that is on its way."""
        pool = ThreadPoolExecutor(WORKERS)
        try:
            before: Batch = []
            for batch in _batches(pending):
                coming = self._ask_for(pool, batch)
                self._take(before)
                before = coming
            self._take(before)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
        if self._left:
            self._kernel.ask("drop", self._left)

    def _ask_for(self, pool: ThreadPoolExecutor, batch: list[Part]) -> Batch:
        return [(one, pool.submit(self._get, one[1])) for one in self._cut(batch)]

    def _cut(self, batch: list[Part]) -> list[Cut]:
        """Have the kernel cut a batch, and let go of what is home."""
        wanted = [[[one.of.entry.name, one.offset, one.length] for one in part] for part in batch]
        gone, self._left = self._left, []
        said = self._kernel.ask("cut", self._mark, wanted, gone, seconds=120.0)
        if "gone" in said:
            raise RemoteError(f"{str(said['gone'])[:200]!r} is not on the VM (any more)")
        told = said.get("parts")
        if not isinstance(told, list) or len(told) != len(batch) or not all(_is_part(one) for one in told):
            raise RemoteError("the VM's parts make no sense")
        return [(part, name, digest) for part, (name, digest) in zip(batch, told, strict=True)]

    def _get(self, name: str) -> bytes:
        """Download a part; empty = it is not there."""
        return self._jupyter.get(f"{FOLDER}/out/{name}", 2 * parts.PART) or b""

    def _take(self, batch: Batch) -> None:
        """Check what came, and put it where it belongs; in order."""
        for cut, coming in batch:
            self._go_on()
            self._jupyter.door.keep_alive()
            data, start = self._checked(cut, coming.result()), 0
            for segment in cut[0]:
                segment.of.take(segment.offset, data[start : start + segment.length])
                start += segment.length
            self._left.append(cut[1])

    def _checked(self, cut: Cut, data: bytes) -> bytes:
        """Give a part as it was cut; one that came otherwise is cut and fetched again.

        Raises:
            IntegrityError: it comes otherwise each time.
        """
        size = sum(segment.length for segment in cut[0])
        for _ in range(_TRIES):
            if len(data) == size and sha256(data).hexdigest() == cut[2]:
                return data
            [cut] = self._cut([cut[0]])
            data = self._get(cut[1])
            self._left.append(cut[1])
        raise IntegrityError(f"a part of {cut[0][0].of.entry.name!r} comes otherwise each time")


def _batches(pending: Iterable[Part]) -> Iterator[list[Part]]:
    batch: list[Part] = []
    for part in pending:
        batch.append(part)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _is_part(told: object) -> bool:
    """Whether it names a part and its sha256; a name leads to nothing but a file in our folder there."""
    plain = isinstance(told, list) and len(told) == 2 and all(isinstance(one, str) for one in told)
    return plain and str(told[0]).replace("-", "").isalnum()  # type: ignore[index]  # a list, as was just seen


def _is(target: Path, entry: Entry) -> bool:
    plain = target.is_file() and not target.is_symlink() and target.stat().st_size == entry.size
    return plain and wire.digest_of(target) == entry.sha256
