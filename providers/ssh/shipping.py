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
from typing import TYPE_CHECKING

from providers import starting, wire
from providers.errors import HostKeyError, IntegrityError, RemoteError, StartError, UnreachableError
from providers.fetching import ANSWER_SECONDS, fetched
from providers.freight import arm_of, blamed, freight_of, guards, must_be_the_same
from providers.ssh import bulk, trees
from providers.ssh.door import plain, texts

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path
    from typing import Any

    from providers.base import Job, Secret
    from providers.freight import Freight, Item
    from providers.ssh.door import Door
    from providers.ssh.link import Link

Progress = Callable[[int, int], None]  # bytes shipped, bytes to ship

_log = logging.getLogger(__name__)
_SMALL = 2**20  # bytes: a file below it costs less in a stream of many than by itself
_BATCH_FILES, _BATCH_BYTES = 1000, 8 * 2**20
_TOLD_SECONDS = 5.0  # between two words on how far it is
_HASHED = 50e6  # bytes a second that any machine hashes
_WRONG_CLOCK = 60.0  # seconds
_ENDER_SECONDS = 180.0  # for sudo and a disk that syncs
_LISTED = 100  # bytes that a machine spends on one blob in an answer


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
    freight = freight_of(job)
    items = freight.items()
    shipment = _Shipment(job.deadline.timestamp() - ahead, progress or _tell())
    answer = _seed(door, job, freight, ahead)
    if ender is not None and answer.get("ender") is not True:
        _put_ender(door, ender)
    if answer.get("begun") is True:
        return
    here = set(texts(answer.get("here")))
    missing = [item for item in items.values() if item.sha256 not in here]
    shipment.ship(link, missing, answer, lambda digests, told: _fetched(door, job, digests, told))
    seconds = 120 + sum(item.size for item in items.values()) / _HASHED
    broken = texts(_ask(door, "begin", freight.begin(job), seconds, len(items)).get("broken"))
    for item in (items[digest] for digest in broken if digest in items):
        must_be_the_same(item)
    if broken:
        raise IntegrityError(f"{len(broken)} files did not arrive as they were sent: they are to be shipped again")


def _seed(door: Door, job: Job, freight: Freight, ahead: float) -> dict[str, Any]:
    want = freight.want()
    arm = {**arm_of(job, ahead), "rearm": True}
    try:
        answer = door.first(guards(), {"arm": arm, "want": want}, limit=2**20 + _LISTED * len(want))
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


def _fetched(door: Door, job: Job, digests: Sequence[str], tell: Callable[[int], None]) -> set[str]:
    """Have the machine fetch by itself what it can."""

    def ask(request: dict[str, Any]) -> dict[str, Any] | None:
        return door.ask("fetch", request, seconds=ANSWER_SECONDS, limit=2**20 + 3 * _LISTED * len(digests))

    return fetched(ask, job, digests, tell)


def _batches(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    """Cut into streams that each arrive whole or not at all, so that a cut costs little."""
    batch: list[Item] = []
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

    def ship(
        self,
        link: Link,
        items: list[Item],
        answer: dict[str, Any],
        fetch: Callable[[Sequence[str], Callable[[int], None]], set[str]],
    ) -> None:
        """Ship files into the folder that the machine named; `fetch` has it bring some by itself."""
        blobs, free = answer.get("blobs"), wire.number(answer.get("free"))
        if not isinstance(blobs, str) or not blobs.startswith("/") or "\0" in blobs:
            raise RemoteError(f"the machine names no folder for data: {plain(blobs)}")
        self._whole = sum(item.size for item in items)
        if free is not None and self._whole > free:
            message = f"the machine's disk has {free / 1e9:.1f} GB free; {self._whole / 1e9:.1f} GB are to be shipped"
            raise StartError(message, hint="choose an offer with a larger disk")
        here = fetch([item.sha256 for item in items], self._at)
        self._done = sum(item.size for item in items if item.sha256 in here)
        items = [item for item in items if item.sha256 not in here]
        for some in _batches([item for item in items if item.size < _SMALL]):
            with blamed(some):
                go_on = functools.partial(self._at, self._done)  # eight megabytes take minutes on a bad line
                trees.push_tree(link, {item.sha256: item.path for item in some}, blobs, go_on)
            self._done += sum(item.size for item in some)
            self._at(self._done)
        for item in items:
            if item.size >= _SMALL:
                before, left = self._done, self._deadline - time.time()
                tell = functools.partial(self._on_from, before)
                with blamed([item]):
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
