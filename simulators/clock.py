"""A simulator's own time, and what is due at which moment of it.

    clock.now()                 epoch seconds of the vendor's world; runs as ours does until it is moved or hurried
    agenda.at(when, action)     done at that moment, in order, even when the clock is moved past it at once

Boot, lags, rate windows, the `Date` header and the meter all go by it.
"""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

FASTEST = 1e6
_LONGEST_NAP_SECONDS = 3600.0  # ours; a condition can't wait for ever on every system


class Clock:
    """Epoch seconds that start at our time and run `rate` times as fast."""

    def __init__(self, rate: float = 1.0) -> None:
        self._lock = threading.Lock()
        self._base = time.time()
        self._since = time.monotonic()
        self._rate = _checked(rate)

    @property
    def rate(self) -> float:
        """Seconds of the vendor's in one of ours."""
        return self._rate

    def now(self) -> float:
        """Epoch seconds in the vendor's world."""
        with self._lock:
            return self._base + (time.monotonic() - self._since) * self._rate

    def advance(self, seconds: float) -> None:
        """Jump ahead."""
        if seconds < 0:
            raise ValueError("a clock is moved forwards only")
        with self._lock:
            self._base += seconds

    def set_rate(self, rate: float) -> None:
        """Run so many times as fast as ours from now on."""
        checked = _checked(rate)
        with self._lock:
            moment = time.monotonic()
            self._base += (moment - self._since) * self._rate
            self._since, self._rate = moment, checked


def _checked(rate: float) -> float:
    if not 0 < rate <= FASTEST:
        raise ValueError(f"a clock's rate lies above 0 and is at most {FASTEST:g}, not {rate}")
    return rate


def iso(epoch_seconds: float) -> str:
    """Spell a moment as the vendor does: UTC, whole milliseconds."""
    return datetime.fromtimestamp(epoch_seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Agenda:
    """What is due when, done by one thread under the world's lock.

    `run_due` also runs before every answer, so that no answer is older than its moment.
    """

    def __init__(self, clock: Clock, lock: threading.RLock) -> None:
        self._clock = clock
        self._due: list[tuple[float, int, Callable[[float], None]]] = []
        self._count = itertools.count()
        self._changed = threading.Condition(lock)
        self._ended = False
        self._thread = threading.Thread(target=self._keep, name="agenda", daemon=True)

    def start(self) -> None:
        """Begin to keep the agenda."""
        self._thread.start()

    def stop(self) -> None:
        """Forget what is still due."""
        with self._changed:
            self._ended = True
            self._due.clear()
            self._changed.notify_all()
        self._thread.join()

    def at(self, when: float, action: Callable[[float], None]) -> None:
        """Do `action(when)` at that moment; at once when it has passed."""
        with self._changed:
            if not self._ended:
                heapq.heappush(self._due, (when, next(self._count), action))
                self._changed.notify_all()

    def run_due(self) -> None:
        """Do all that is due by now, in the order of its moments."""
        with self._changed:
            now = self._clock.now()
            while self._due and self._due[0][0] <= now:
                when, _, action = heapq.heappop(self._due)
                action(when)

    def moved(self) -> None:
        """Look again: the clock was moved, or runs at another rate."""
        with self._changed:
            self.run_due()
            self._changed.notify_all()

    def _keep(self) -> None:
        with self._changed:
            while not self._ended:
                self.run_due()
                nap = _LONGEST_NAP_SECONDS
                if self._due:
                    nap = min(nap, max((self._due[0][0] - self._clock.now()) / self._clock.rate, 0.001))
                self._changed.wait(nap)
