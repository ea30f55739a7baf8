"""`Remote.start` on a machine: everything the job needs, there, in an order in which any line may be the last.

    guards + arm.json -> the watchdog is armed -> blobs (bundle, data, checkpoint), by content -> begin: job.json last

Every step looks at what is there first: a repeat ships what is missing, and a job that has begun is left alone.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING

from providers import wire
from providers.errors import HostKeyError, IntegrityError, RemoteError, StartError
from providers.ssh import bulk
from providers.ssh.door import plain, texts

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path
    from typing import Any

    from providers.base import Job
    from providers.ssh.door import Door
    from providers.ssh.link import Link

Progress = Callable[[int, int], None]  # bytes shipped, bytes to ship

_log = logging.getLogger(__name__)
_FIRST = (*wire.GUARDS, "place.py", "door.py")  # the door last: where it is, all are
_SMALL = 2**20  # bytes: a file below it costs less in a stream of many than by itself
_PIECE = 2**18  # bytes
_TOLD_SECONDS = 5.0  # between two words on how far it is
_HASHED = 50e6  # bytes a second that any machine hashes
_WRONG_CLOCK = 60.0  # seconds
_LISTED = 100  # bytes that a machine spends on one blob in an answer


@dataclass(frozen=True, slots=True)
class _Item:
    """One file to ship: it travels under its content's name, and gets its own on the machine."""

    sha256: str
    size: int
    path: Path
    name: str


def start(link: Link, door: Door, job: Job, progress: Progress | None = None) -> None:
    """Arm, ship, begin. See `Remote.start`.

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
    shipment = _Shipment(job, progress or _tell())
    answer = _seed(door, job, items.values())
    if answer.get("begun") is True:
        return
    here = set(texts(answer.get("here")))
    missing = [item for item in items.values() if item.sha256 not in here]
    shipment.ship(link, door, missing, answer)
    request = {
        "job": wire.job_json(job),
        "want": _want(items.values()),
        "bundle": bundle.sha256,
        "data": [[item.name, item.sha256] for item in data],
        "step": job.checkpoint.name if job.checkpoint is not None else "",
        "seed": [[item.name, item.sha256] for item in seed],
        "secrets": {name: secret.reveal() for name, secret in job.secrets.items()},
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


def _seed(door: Door, job: Job, items: Iterable[_Item]) -> dict[str, Any]:
    payload = files("payload")
    guards = {name: payload.joinpath(name).read_text(encoding="utf-8") for name in _FIRST}
    want = _want(items)
    left = max(1.0, job.ceiling.timestamp() - time.time())  # steady seconds: a machine's clock may be wrong
    arm = {**wire.arm_json(job), "max_seconds": min(job.max_seconds, left)}
    try:
        answer = door.first(guards, {"arm": arm, "want": want}, limit=2**20 + _LISTED * len(want))
    except (StartError, HostKeyError):
        raise
    except RemoteError as error:
        raise StartError(f"the job can't be started: {error}") from error
    ahead = (wire.number(answer.get("time")) or time.time()) - time.time()
    if abs(ahead) > _WRONG_CLOCK:
        _log.warning("the machine's clock is %.0f s %s ours", abs(ahead), "ahead of" if ahead > 0 else "behind")
    return answer


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


class _Shipment:
    """What is on its way: how far it is, and until when it may be."""

    def __init__(self, job: Job, progress: Progress) -> None:
        self._deadline = job.deadline.timestamp()
        self._progress = progress
        self._done = self._whole = 0

    def ship(self, link: Link, door: Door, items: list[_Item], answer: dict[str, Any]) -> None:
        """Ship files into the folder that the machine named."""
        blobs, free = answer.get("blobs"), wire.number(answer.get("free"))
        if not isinstance(blobs, str) or not blobs.startswith("/") or "\0" in blobs:
            raise RemoteError(f"the machine names no folder for data: {plain(blobs)}")
        self._whole = sum(item.size for item in items)
        if free is not None and self._whole > free:
            message = f"the machine's disk has {free / 1e9:.1f} GB free; {self._whole / 1e9:.1f} GB are to be shipped"
            raise StartError(message, hint="choose an offer with a larger disk")
        small = [item for item in items if item.size < _SMALL]
        if small:
            self._stream(door, small)
        for item in items:
            if item.size >= _SMALL:
                self._push(link, item, f"{blobs}/{item.sha256}")

    def _push(self, link: Link, item: _Item, path: str) -> None:
        before = self._done
        give_up_at = time.monotonic() + self._deadline - time.time()
        try:
            bulk.push(link, item.path, path, item.sha256, lambda done: self._at(before + done), give_up_at)
        except IntegrityError:
            _must_be_the_same(item)
            raise
        self._done = before + item.size

    def _stream(self, door: Door, items: Iterable[_Item]) -> None:
        """Ship small files in one stream; each counts as soon as it has arrived whole."""
        word, answer = door.start("take")
        try:
            for item in items:
                data = item.path.read_bytes()
                if len(data) != item.size:
                    _must_be_the_same(item)
                answer.write(f"{item.sha256} {item.size}\n".encode() + data)
                self._done += item.size
                self._at(self._done)
            answer.finish()
            answer.head(word)
        except BrokenPipeError:
            answer.head(word)  # it says why it took no more
            raise RemoteError("the machine took no more data, and does not say why") from None
        except OSError as error:
            raise StartError(f"what is to be shipped can't be read here: {error}") from error
        finally:
            answer.close()

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
