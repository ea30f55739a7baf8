"""How far a vendor's clock is ahead of ours, as narrow as its answers' `Date` allow.

    asked ── the vendor writes Date, in whole seconds ── answered        Date - answered < ahead < Date + 1 - asked

Each answer alone says it to a second and its own way; where seconds turn differs, so a dozen say it to a tenth. Ours is
the clock that nobody sets, `steady`. What was noted early is told as well as is known later, unless theirs was set.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from math import inf

_SECOND = 1.0  # a `Date` has whole ones
_FORGOTTEN_SECONDS = 180.0  # clocks drift apart: what is older counts no more


def steady() -> float:
    """Seconds by a clock that nobody sets and that goes on in a sleep, where there is one."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


@dataclass(frozen=True, slots=True)
class Noted:
    """A moment of ours, and how far the vendor's clock was ahead of it, as was known then."""

    ours: float
    low: float
    high: float


class Ahead:
    """Bounds in seconds between steady time and a vendor's epoch seconds."""

    def __init__(self) -> None:
        self._heard: list[tuple[float, float, float]] = []  # when, and the two bounds that it gave

    def hear(self, date: datetime, asked: float, answered: float) -> None:
        """Take in one answer. One that contradicts the others, since a clock was set, is right alone."""
        told = date.timestamp()
        fresh = (answered, told - answered, told + _SECOND - asked)
        self._heard = [one for one in self._heard if answered - one[0] < _FORGOTTEN_SECONDS]
        low, high = self.bounds
        self._heard = [*self._heard, fresh] if low < fresh[2] and fresh[1] < high else [fresh]
        self._heard = sorted(self._tightest())

    def _tightest(self) -> set[tuple[float, float, float]]:
        """Name those that set the bounds, now and once older ones are forgotten."""
        kept: set[tuple[float, float, float]] = set()
        low, high = -inf, inf
        for one in reversed(self._heard):
            if one[1] > low or one[2] < high:
                kept.add(one)
                low, high = max(low, one[1]), min(high, one[2])
        return kept

    @property
    def bounds(self) -> tuple[float, float]:
        """Seconds, at least and at most; endless before the first answer."""
        return max((one[1] for one in self._heard), default=-inf), min((one[2] for one in self._heard), default=inf)

    def note(self, ours: float) -> Noted:
        """Keep a moment, by the steady clock."""
        return Noted(ours, *self.bounds)

    def between(self, noted: Noted) -> tuple[datetime, datetime] | None:
        """Say what the vendor's clock said then, at least and at most; None = it never told."""
        low, high = max(noted.low, self.bounds[0]), min(noted.high, self.bounds[1])
        if low > high:  # it was set since
            low, high = noted.low, noted.high
        return None if inf in {-low, high} else (_moment(noted.ours + low), _moment(noted.ours + high))


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
