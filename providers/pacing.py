"""How often a vendor is asked: slots in time, shared by all processes of this user.

wait() -> a slot of the lane's, one of the common lane's    spare() -> what a vendor says is left is not used up at once
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import re
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

log = logging.getLogger("gpurun.http")

_LOCK_SECONDS = 2.0  # the pace file is held for microseconds: who holds it longer is frozen
_FARTHEST_SECONDS = 90.0  # a slot farther ahead was written under a clock that jumped,
_FARTHEST_SLOTS = 40  # unless so many may wait before it: a launch has one in 13 s
_FEW = 10  # requests left of a window: from here on they are spread over what is left of it
_WINDOW = re.compile(r";\s*r=(\d{1,9})\s*;\s*t=(\d{1,9})")


class Pacer:
    """Slots in time by lane, shared by every process of this user through one small file.

    A slot is taken under a lock and waited for outside of it: whoever crashes or freezes costs others one slot at most.
    Where the file can't be had, slots are shared within this process only, and a warning says so.
    """

    def __init__(self, path: Path, intervals: Mapping[str, float]) -> None:
        self._path = path
        self._intervals = dict(intervals)  # lane -> seconds from one slot to the next
        self._own: dict[str, float] = {}
        self._guard = threading.Lock()
        self._warned = False

    def wait(self, lane: str) -> None:
        """Sleep until this lane's next free slot, and then until the common lane's."""
        if lane:
            time.sleep(self._take(lane))
        time.sleep(self._take(""))
        if lane:
            self.hold(lane, self._intervals[lane])  # counted from the request itself, not from its slot

    def hold(self, lane: str, seconds: float) -> None:
        """Let nobody into a lane for a while."""

        def change(times: dict[str, float], now: float) -> float:
            times[lane] = max(times.get(lane, 0.0), now + min(seconds, _FARTHEST_SECONDS))
            return 0.0

        self._shared(change)

    def spare(self, header: str, most: float) -> None:
        """Spread the last requests of a window over its rest: `RateLimit: "minute";r=9;t=20`, as IETF drafts have it.

        A rest is taken for `most` seconds at most.
        """
        for left, seconds in ((int(left), int(seconds)) for left, seconds in _WINDOW.findall(header)):
            if left < _FEW:
                self.hold("", min(seconds, most) / (left + 1))

    def _take(self, lane: str) -> float:
        """Take the lane's next slot; gives the seconds until then."""

        def change(times: dict[str, float], now: float) -> float:
            slot = max(now, times.get(lane, 0.0))
            times[lane] = slot + self._intervals[lane]
            return slot - now

        return self._shared(change)

    def _shared(self, change: Callable[[dict[str, float], float], float]) -> float:
        with self._guard:
            try:
                with self._locked() as file:
                    return self._change(change, _times(os.pread(file, 4096, 0)), file)
            except OSError as error:
                if not self._warned:
                    self._warned = True
                    log.warning("%s: %s: other processes' requests are not counted", self._path, error)
                return self._change(change, self._own, None)

    def _change(
        self, change: Callable[[dict[str, float], float], float], times: dict[str, float], file: int | None
    ) -> float:
        now = time.time()
        self._own = {lane: at for lane, at in times.items() if at - now <= self._farthest(lane)}
        result = change(self._own, now)
        if file is not None:
            os.ftruncate(file, 0)
            os.pwrite(file, json.dumps(self._own).encode(), 0)
        return result

    def _farthest(self, lane: str) -> float:
        return max(_FARTHEST_SECONDS, _FARTHEST_SLOTS * self._intervals.get(lane, 0.0))

    @contextmanager
    def _locked(self) -> Iterator[int]:
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            end = time.monotonic() + _LOCK_SECONDS
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > end:
                        raise
                time.sleep(0.005)
            yield file
        finally:
            os.close(file)


def _times(data: bytes) -> dict[str, float]:
    """Read the pace file; what is damaged paces nobody."""
    try:
        values = json.loads(data)
    except ValueError:
        return {}
    if not isinstance(values, dict):
        return {}
    return {lane: at for lane, at in values.items() if isinstance(at, float) and 0 < at < 2**40}


def pacer_for(vendor: str, base: str, account: str, intervals: Mapping[str, float]) -> Pacer:
    """Pace all processes of this user that ask one vendor with one key."""
    import platformdirs

    name = re.sub(r"[^\w.-]", "-", f"{vendor}-{urlsplit(base).netloc}-{account}")
    return Pacer(Path(platformdirs.user_cache_dir("gpurun", appauthor=False)) / "pace" / f"{name}.json", intervals)
