"""`Remote.start` on a machine: everything the job needs, there, in an order in which any line may be the last.

    guards + arm.json -> the watchdog is armed -> blobs (bundle, data, checkpoint), by content -> begin: job.json last

Every step looks at what is there first: a repeat ships what is missing, and a job that has begun is left alone.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING

from providers import starting, wire
from providers.errors import HostKeyError, IntegrityError, RemoteError, StartError, UnreachableError
from providers.ssh import bulk, trees
from providers.ssh.door import plain, texts

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path
    from typing import Any

    from providers.base import Job, Secret
    from providers.ssh.door import Door
    from providers.ssh.link import Link

Progress = Callable[[int, int], None]  # bytes shipped, bytes to ship

_log = logging.getLogger(__name__)
_FIRST = (*wire.GUARDS, "place.py", "door.py")  # the door last: where it is, all are
_SMALL = 2**20  # bytes: a file below it costs less in a stream of many than by itself
_BATCH_FILES, _BATCH_BYTES = 1000, 8 * 2**20
_TOLD_SECONDS = 5.0  # between two words on how far it is
_HASHED = 50e6  # bytes a second that any machine hashes
_WRONG_CLOCK = 60.0  # seconds
_ENDER_SECONDS = 180.0  # for sudo and a disk that syncs
_LISTED = 100  # bytes that a machine spends on one blob in an answer


@dataclass(frozen=True, slots=True)
class _Item:
    """One file to ship: it travels under its content's name, and gets its own on the machine."""

    sha256: str
    size: int
    path: Path
    name: str


@contextlib.contextmanager
def alone(access: Path) -> Iterator[None]:
    """Keep a second controller, one that wakes late, from writing into the same parts; the machine judges the rest.

    Raises:
        StartError: the keys are gone.
        UnreachableError: another one is at it, which says nothing against the machine.
    """
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(starting.alone(access / "start.lock"))
        except OSError as error:
            raise StartError(f"the keys of this attempt are not at {access}: {error.strerror}") from error
        yield


def start(
    link: Link,
    door: Door,
    job: Job,
    progress: Progress | None = None,
    *,
    ender: Secret | None = None,
    ahead: float = 0.0,
) -> None:
    """Arm, ship, begin. See `Remote.start`; `ahead` = seconds by which the clock of the job's limits is ahead of ours.

    Raises:
        StartError: the job, the user's files or the machine are at fault.
        RemoteError: the deadline came first, or the machine took something else than was sent.
        UnreachableError: the connection dropped and could not be mended: what has arrived counts.
    """
    try:
        bundle, data, seed = _items(job)
    except (OSError, ValueError) as error:
        raise StartError(f"what is to be shipped can't be read here: {error}") from error
    items = {item.sha256: item for item in (bundle, *data, *seed)}
    shipment = _Shipment(job.deadline.timestamp() - ahead, progress or _tell())
    answer = _seed(door, job, items.values(), ahead)
    if ender is not None and answer.get("ender") is not True:
        _put_ender(door, ender)
    if answer.get("begun") is True:
        return
    here = set(texts(answer.get("here")))
    missing = [item for item in items.values() if item.sha256 not in here]
    shipment.ship(link, missing, answer)
    request = {
        "job": wire.job_json(job),
        "want": _want(items.values()),
        "bundle": bundle.sha256,
        "data": [[item.name, item.sha256] for item in data],
        "step": job.checkpoint.name if job.checkpoint is not None else "",
        "seed": [[item.name, item.sha256] for item in seed],
        "secrets": {name: secret.reveal() for name, secret in job.secrets.items()},
        "store": None if job.store is None else json.loads(job.store.reveal()),
    }
    seconds = 120 + sum(item.size for item in items.values()) / _HASHED
    broken = texts(_ask(door, "begin", request, seconds, len(items)).get("broken"))
    for item in (items[digest] for digest in broken if digest in items):
        _must_be_the_same(item)
    if broken:
        raise IntegrityError(f"{len(broken)} files did not arrive as they were sent: they are to be shipped again")


def _items(job: Job) -> tuple[_Item, list[_Item], list[_Item]]:
    """Name all that is to be shipped by its content: the bundle, the data, the checkpoint."""
    bundle = _Item(wire.digest_of(job.bundle), job.bundle.stat().st_size, job.bundle, "")
    data = [_Item(blob.sha256, blob.size, blob.path, blob.name) for blob in job.blobs]
    return bundle, data, list(_checkpoint(job.checkpoint)) if job.checkpoint is not None else []


def _checkpoint(folder: Path) -> Iterable[_Item]:
    """Name the files of a checkpoint; its seal knows their hashes, as it did when it was brought home."""
    seal = json.loads((folder / "CHECKPOINT.json").read_bytes())
    known = seal.get("files") if isinstance(seal, dict) else None
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        entry = wire.entry_of({"name": name, **(known.get(name) or {})} if isinstance(known, dict) else None)
        size = path.stat().st_size
        digest = entry.sha256 if entry is not None and entry.size == size else wire.digest_of(path)
        yield _Item(digest, size, path, name)


def _seed(door: Door, job: Job, items: Iterable[_Item], ahead: float) -> dict[str, Any]:
    payload = files("payload")
    guards = {name: payload.joinpath(name).read_text(encoding="utf-8") for name in _FIRST}
    want = _want(items)
    left = max(1.0, job.ceiling.timestamp() - ahead - time.time())  # steady seconds: a machine's clock may be wrong
    arm = {**wire.arm_json(job), "max_seconds": min(job.max_seconds, left), "rearm": True}
    try:
        answer = door.first(guards, {"arm": arm, "want": want}, limit=2**20 + _LISTED * len(want))
    except (StartError, HostKeyError):
        raise
    except RemoteError as error:
        raise StartError(f"the job can't be started: {error}") from error
    off = (wire.number(answer.get("time")) or time.time()) - time.time()
    if abs(off) > _WRONG_CLOCK:
        _log.warning("the machine's clock is %.0f s %s ours", abs(off), "ahead of" if off > 0 else "behind")
    return answer


def _put_ender(door: Door, ender: Secret) -> None:
    """Give the machine what it ends itself by: over standard input, before all that takes time.

    Where that fails the watchdog's proof says so, and whether the run goes on without it is the controller's to judge.
    """
    try:
        door.ask("ender", json.loads(ender.reveal()), seconds=_ENDER_SECONDS, repeatable=True)
    except (HostKeyError, UnreachableError):
        raise
    except RemoteError as error:
        _log.warning("the machine can't end itself: %s", error)


def _want(items: Iterable[_Item]) -> list[list[object]]:
    return [[item.sha256, item.size] for item in items]


def _ask(door: Door, verb: str, request: object, seconds: float, count: int) -> dict[str, Any]:
    try:
        answer = door.ask(verb, request, seconds=seconds, limit=2**20 + _LISTED * count)
    except HostKeyError:
        raise
    except RemoteError as error:
        raise StartError(f"the job can't be started: {error}") from error
    if answer is None:
        raise StartError("what was shipped is gone from the machine")
    return answer


def _must_be_the_same(item: _Item) -> None:
    try:
        same = wire.digest_of(item.path) == item.sha256
    except OSError:
        same = False
    if not same:
        raise StartError(f"{item.path} changed since the launch: launch again", permanent=True)


@contextlib.contextmanager
def _blamed(items: Sequence[_Item]) -> Iterator[None]:
    """Tell the user's own files that changed or went away from a machine that took them wrongly."""
    try:
        yield
    except HostKeyError:
        raise
    except RemoteError:
        for item in items:
            _must_be_the_same(item)
        raise


def _batches(items: Sequence[_Item]) -> Iterator[Sequence[_Item]]:
    """Cut into streams that each arrive whole or not at all, so that a cut costs little."""
    batch: list[_Item] = []
    size = 0
    for item in items:
        batch.append(item)
        size += item.size
        if len(batch) == _BATCH_FILES or size > _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


class _Shipment:
    """What is on its way: how far it is, and until when it may be."""

    def __init__(self, deadline: float, progress: Progress) -> None:
        """`deadline` is by our clock."""
        self._deadline = deadline
        self._progress = progress
        self._done = self._whole = 0

    def ship(self, link: Link, items: list[_Item], answer: dict[str, Any]) -> None:
        """Ship files into the folder that the machine named."""
        blobs, free = answer.get("blobs"), wire.number(answer.get("free"))
        if not isinstance(blobs, str) or not blobs.startswith("/") or "\0" in blobs:
            raise RemoteError(f"the machine names no folder for data: {plain(blobs)}")
        self._whole = sum(item.size for item in items)
        if free is not None and self._whole > free:
            message = f"the machine's disk has {free / 1e9:.1f} GB free; {self._whole / 1e9:.1f} GB are to be shipped"
            raise StartError(message, hint="choose an offer with a larger disk")
        for some in _batches([item for item in items if item.size < _SMALL]):
            with _blamed(some):
                go_on = functools.partial(self._at, self._done)  # eight megabytes take minutes on a bad line
                trees.push_tree(link, {item.sha256: item.path for item in some}, blobs, go_on)
            self._done += sum(item.size for item in some)
            self._at(self._done)
        for item in items:
            if item.size >= _SMALL:
                before, left = self._done, self._deadline - time.time()
                tell = functools.partial(self._on_from, before)
                with _blamed([item]):
                    bulk.push(link, item.path, f"{blobs}/{item.sha256}", item.sha256, tell, time.monotonic() + left)
                self._done = before + item.size

    def _on_from(self, before: int, done: int) -> None:
        self._at(before + done)

    def _at(self, done: int) -> None:
        """Tell how far it is.

        Raises:
            RemoteError: the deadline has come: what would arrive now could not be used.
        """
        if time.time() > self._deadline:
            raise RemoteError(f"the deadline came after {done / 1e9:.2f} of {self._whole / 1e9:.2f} GB were shipped")
        self._progress(done, self._whole)


def _tell() -> Progress:
    told = time.monotonic()

    def tell(done: int, whole: int) -> None:
        nonlocal told
        if time.monotonic() - told > _TOLD_SECONDS:
            told = time.monotonic()
            _log.info("shipped %.1f of %.1f GB", done / 1e9, whole / 1e9)

    return tell
