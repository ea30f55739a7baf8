"""How often RunPod lets itself be asked: fixed windows a minute, an hour and a day, told in every answer's headers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from simulators.clock import Clock

# The example of the official document; a live minute was seen with more left than that (2026-08).
QUOTAS = {"minute": (60, 60), "hour": (3000, 3600), "day": (50000, 86400)}


class Windows:
    """The quotas of one user, by the vendor's clock. Its owner holds the world's lock."""

    def __init__(self, clock: Clock, pace: float) -> None:
        self._clock = clock
        self._spans = {name: span / pace for name, (_, span) in QUOTAS.items()}
        self._begun = dict.fromkeys(QUOTAS, clock.now())
        self._asked = dict.fromkeys(QUOTAS, 0)
        self.violations = 0

    def ask(self) -> tuple[str, int] | None:
        """Take leave for one request; else the window that is full, and the seconds until it opens."""
        now = self._clock.now()
        for name, span in self._spans.items():
            if now - self._begun[name] >= span:
                self._begun[name], self._asked[name] = now, 0
        full = next((name for name, (most, _) in QUOTAS.items() if self._asked[name] >= most), None)
        if full is not None:
            self.violations += 1
            return full, self._left(full, now)
        for name in QUOTAS:
            self._asked[name] += 1
        return None

    def headers(self) -> dict[str, str]:
        """Give the headers of an answer to somebody who is known."""
        now = self._clock.now()
        left = {name: max(0, most - self._asked[name]) for name, (most, _) in QUOTAS.items()}
        return {
            "RateLimit": ", ".join(f'"{name}";r={rest};t={self._left(name, now)}' for name, rest in left.items()),
            "RateLimit-Policy": ", ".join(f'"{name}";q={most};w={span}' for name, (most, span) in QUOTAS.items()),
        }

    def _left(self, name: str, now: float) -> int:
        return max(1, math.ceil(self._begun[name] + self._spans[name] - now))
