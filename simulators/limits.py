"""How often a vendor lets itself be asked.

General: a bucket that refills at one request a second. Launches: a gap and a number a minute.
A loaded computer bunches requests that were paced honestly: a little of *our* time is forgiven, whatever the pace.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from simulators.clock import Clock

_FORGIVEN_SECONDS = 0.05  # ours


class Limits:
    """Rate limits of one account, by the vendor's clock. Its owner holds the world's lock."""

    def __init__(
        self, clock: Clock, *, pace: float = 1, burst: int = 3, gap_seconds: float = 12, per_minute: int = 5
    ) -> None:
        self._clock = clock
        self._pace = pace
        self._burst = burst
        self._gap = gap_seconds / pace
        self._minute = 60 / pace
        self._per_minute = per_minute
        self._tokens = float(burst)
        self._asked = clock.now()
        self._launches: list[float] = []
        self.violations = 0

    def ask(self) -> bool:
        """Take leave for one request; False = too many."""
        now = self._clock.now()
        most = self._burst + self._forgiven() * self._pace
        self._tokens = min(self._tokens + (now - self._asked) * self._pace, most)
        self._asked = now
        if self._tokens < 1:
            self.violations += 1
            return False
        self._tokens -= 1
        return True

    def launch(self) -> bool:
        """Take leave for one launch; False = too early."""
        now = self._clock.now()
        self._launches = [when for when in self._launches if now - when < self._minute - self._forgiven()]
        early = self._launches and now - self._launches[-1] < self._gap - self._forgiven()
        if early or len(self._launches) >= self._per_minute:
            self.violations += 1
            return False
        self._launches.append(now)
        return True

    def _forgiven(self) -> float:
        return _FORGIVEN_SECONDS * self._clock.rate
