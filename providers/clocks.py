"""How far a vendor's clock is ahead of ours, as narrow as its answers' `Date` allow.

    asked ── the vendor writes Date, in whole seconds ── answered        Date - answered < ahead < Date + 1 - asked

Each answer alone says it to a second and its own way; where seconds turn differs, so a dozen say it to a tenth.
"""

from __future__ import annotations

from datetime import UTC, datetime
from math import inf

_SECOND = 1.0  # a `Date` has whole ones
_FORGOTTEN_SECONDS = 180.0  # clocks drift apart, and ours is set now and then: what is older counts no more


class Ahead:
    """Bounds in seconds; epoch seconds in, moments by the vendor's clock out."""

    def __init__(self) -> None:
        self._heard: list[tuple[float, float, float]] = []  # when, and the two bounds that it gave

    def hear(self, date: datetime, asked: float, answered: float) -> None:
        """Take in one answer. One that contradicts the others, and all from before a clock was set, is right alone."""
        told = date.timestamp()
        fresh = (answered, told - answered, told + _SECOND - asked)
        self._heard = [one for one in self._heard if 0 <= answered - one[0] < _FORGOTTEN_SECONDS]
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

    def earliest(self, ours: float) -> datetime | None:
        """Say what the vendor's clock said at the least; None = it never told."""
        return _moment(ours + self.bounds[0])

    def latest(self, ours: float) -> datetime | None:
        """Say what the vendor's clock said at the most; None = it never told."""
        return _moment(ours + self.bounds[1])


def _moment(seconds: float) -> datetime | None:
    return None if seconds in {-inf, inf} else datetime.fromtimestamp(seconds, UTC)
