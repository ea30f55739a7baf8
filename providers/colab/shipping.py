"""`Remote.start` on a VM of Colab's: everything the job needs, there, in an order in which any line may be the last.

    marker -> guards + arm.json -> the watchdog is armed -> parts of blobs, by content -> begin: job.json last

Every step looks at what is there first: a repeat ships what is missing, and a job that has begun is left alone.
Parts travel several at once through the VM's contents; a kernel checks each, and the whole, by sha256.
"""

from __future__ import annotations

import functools
import logging
import secrets
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from providers import wire
from providers.colab import ender, parts
from providers.colab.door import MARKER
from providers.colab.jupyter import WORKERS, TooLargeError
from providers.colab.kernels import FOLDER
from providers.errors import IntegrityError, RemoteError, StartError, UnreachableError
from providers.fetching import ANSWER_SECONDS, fetched
from providers.freight import arm_of, blamed, freight_of, guards, must_be_the_same

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from concurrent.futures import Future

    from providers.base import Job
    from providers.colab.desk import Desk
    from providers.colab.jupyter import Jupyter
    from providers.colab.kernels import Kernel
    from providers.colab.parts import Segment
    from providers.freight import Freight, Item

Progress = Callable[[int, int], None]  # bytes shipped, bytes to ship
Part = tuple["Segment[Item]", ...]
Sent = tuple[str, str, Part]  # its name there, its sha256

_log = logging.getLogger(__name__)
_LEAST_PART = 2**18  # bytes: whoever takes no more takes nothing
_TRIES = 3  # for one part
_HASHED = 50e6  # bytes a second that any machine hashes
_WRONG_CLOCK = 60.0  # seconds
_SPARE = 2**30  # bytes of disk beyond what is shipped: it is unpacked, too


def start(jupyter: Jupyter, kernel: Kernel, desk: Desk, job: Job, progress: Progress, ahead: float) -> None:
    """Mark, arm, ship, begin. See `Remote.start`; `ahead` = seconds by which the clock of the job's limits is ahead.

    Raises:
        StartError: the job, the user's files or the VM are at fault.
        RemoteError: the deadline came first, or the VM took something else than was sent.
        UnreachableError: the connection dropped and could not be mended: what has arrived counts.
    """
    freight = freight_of(job)
    _mark(jupyter, str(job.mark))
    answer = _seed(desk, job, freight, ahead)
    if answer.get("ender") is not True:
        _put_ender(desk)
    if answer.get("begun") is True:
        return
    items = freight.items()
    here = answer.get("here")
    missing = [item for digest, item in items.items() if digest not in (here if isinstance(here, list) else [])]
    _must_fit(missing, wire.number(answer.get("free")))
    whole = sum(item.size for item in missing)
    digests = [item.sha256 for item in missing]
    ask = functools.partial(desk.ask, "fetch", seconds=ANSWER_SECONDS)
    came = fetched(ask, job, digests, lambda done: progress(done, whole))
    missing = [item for item in missing if item.sha256 not in came]
    shipment = Shipment(jupyter, kernel, job.deadline.timestamp() - ahead, progress)
    broken = shipment.ship(missing) or _begin(desk, job, freight)
    for item in (items[digest] for digest in broken if digest in items):
        must_be_the_same(item)
    if broken:
        raise IntegrityError(f"{len(broken)} files did not arrive as they were sent: they are to be shipped again")


def _mark(jupyter: Jupyter, mark: str) -> None:
    """Say on the VM whose it is, for a guard on another computer; a VM that is somebody else's is left alone.

    Raises:
        StartError: it bears another mark.
    """
    found = (jupyter.get(MARKER) or b"").decode(errors="replace").strip()
    if found and found != mark:
        raise StartError("this VM bears another attempt's mark: nothing is started there")
    if not found:
        jupyter.put(MARKER, f"{mark}\n".encode())


def _seed(desk: Desk, job: Job, freight: Freight, ahead: float) -> dict[str, Any]:
    """Arm the watchdog. A VM that goes down never comes back, so nothing is installed to start it again."""
    try:
        answer = desk.first(guards(), {"arm": arm_of(job, ahead), "want": freight.want()})
    except StartError:
        raise
    except RemoteError as error:
        raise StartError(f"the job can't be started: {error}") from error
    off = (wire.number(answer.get("time")) or time.time()) - time.time()
    if abs(off) > _WRONG_CLOCK:
        _log.warning("the VM's clock is %.0f s %s ours", abs(off), "ahead of" if off > 0 else "behind")
    return answer


def _put_ender(desk: Desk) -> None:
    """Give the VM what it ends itself by, before all that takes time; where that fails, its proof says so."""
    try:
        desk.ask("ender", ender.orders())
    except UnreachableError:
        raise
    except RemoteError as error:
        _log.warning("the VM can't end itself: %s", error)


def _begin(desk: Desk, job: Job, freight: Freight) -> list[str]:
    """Put it all into place, job.json last; gives what is to be shipped again."""
    seconds = 120 + sum(item.size for item in freight.items().values()) / _HASHED
    try:
        answer = desk.ask("begin", freight.begin(job), seconds=seconds)
    except RemoteError as error:
        raise StartError(f"the job can't be started: {error}") from error
    if answer is None:
        raise StartError("what was shipped is gone from the VM")
    return _texts(answer.get("broken"))


def _must_fit(items: Collection[Item], free: float | None) -> None:
    size = sum(item.size for item in items)
    if free is not None and items and size + min(size, _SPARE) > free:
        message = f"the VM's disk has {free / 1e9:.1f} GB free; {size / 1e9:.1f} GB are to be shipped"
        raise StartError(message, hint="ship less, or choose another provider")


class Shipment:
    """What is on its way: how far it is, and until when it may be."""

    def __init__(self, jupyter: Jupyter, kernel: Kernel, deadline: float, progress: Progress) -> None:
        """`deadline` is by our clock."""
        self._jupyter = jupyter
        self._kernel = kernel
        self._deadline = deadline
        self._progress = progress
        self._done = self._whole = 0

    def ship(self, items: Collection[Item], most: int = parts.PART) -> list[str]:
        """Ship files that are not whole there; gives the sha256 of those that did not arrive as they are named.

        Raises:
            StartError: a file of the user's changed meanwhile, or went away.
            RemoteError: the deadline came.
        """
        large = [item for item in items if item.size > most]
        self._whole, self._done = sum(item.size for item in items), 0
        known = self._kernel.ask("have", [item.sha256 for item in large]) if large else {}
        try:
            with blamed(items):
                self._ship_parts(list(self._missing(items, most, known)))
                broken = self._seal(large) if large else []
        except TooLargeError:
            if most // 2 < _LEAST_PART:
                raise
            _log.info("the way to the VM takes no parts of %d KiB: halved", most >> 10)
            return self.ship(items, most // 2)
        return broken

    def _missing(self, items: Iterable[Item], most: int, known: dict[str, Any]) -> Iterable[Part]:
        """Cut what is to be sent, without the pieces that have come in an earlier attempt."""
        for part in parts.cut(((item, 0, item.size) for item in items), most):
            piece = part[0]
            if [piece.offset, piece.length] in (known.get(piece.of.sha256) or []):
                self._done += piece.length
            else:
                yield part

    def _ship_parts(self, pending: Iterable[Part]) -> None:
        """Send several at once; the kernel takes what has come, a few at a time. Who is told to end waits for none."""
        on_way: deque[Future[Sent]] = deque()
        pool = ThreadPoolExecutor(WORKERS)
        try:
            for part in pending:
                on_way.append(pool.submit(self._send, part))
                if len(on_way) == 2 * WORKERS:
                    self._take([on_way.popleft().result() for _ in range(WORKERS)])
            self._take([sent.result() for sent in on_way])
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _send(self, part: Part) -> Sent:
        """Read a part and upload it."""
        data = bytearray()
        for segment in part:
            data += _read(segment)
        name = secrets.token_hex(8)
        self._jupyter.put(f"{FOLDER}/in/{name}", bytes(data))
        return name, sha256(data).hexdigest(), part

    def _take(self, sent: list[Sent]) -> None:
        for _ in range(_TRIES):
            if not sent:
                return
            told = [
                [name, digest, [[one.of.sha256, one.of.size, one.offset, one.length] for one in part]]
                for name, digest, part in sent
            ]
            broken = _texts(self._kernel.ask("take", told, seconds=120.0).get("broken"))
            self._at(sum(one.length for name, _, part in sent if name not in broken for one in part))
            sent = [self._send(part) for name, _, part in sent if name in broken]
        if sent:
            raise IntegrityError("a part did not arrive as it was sent, three times over")

    def _seal(self, large: Collection[Item]) -> list[str]:
        """Have each large file hashed there and get its name."""
        broken: list[str] = []
        for item in large:
            answer = self._kernel.ask("whole", [[item.sha256, item.size]], seconds=120 + item.size / _HASHED)
            broken += _texts(answer.get("broken"))
        return broken

    def _at(self, more: int) -> None:
        """Tell how far it is.

        Raises:
            RemoteError: the deadline has come: what would arrive now could not be used.
        """
        self._done += more
        if time.time() > self._deadline:
            raise RemoteError(f"the deadline came after {self._done / 1e9:.2f} of {self._whole / 1e9:.2f} GB")
        self._progress(self._done, self._whole)


def _read(segment: Segment[Item]) -> bytes:
    try:
        with segment.of.path.open("rb") as file:
            file.seek(segment.offset)
            data = file.read(segment.length)
    except OSError as error:
        raise StartError(f"{segment.of.path} can't be read any more: {error.strerror}", permanent=True) from error
    if len(data) != segment.length:
        raise StartError(f"{segment.of.path} changed since the launch: launch again", permanent=True)
    return data


def _texts(value: object) -> list[str]:
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []
