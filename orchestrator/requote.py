"""The quote anew, from what a probe measured on the machine itself: read out of the metrics that came home.

    launch --probe ──> the agent judges the first steps (payload/probe.py) ──> ::metrics {"probe": …} ──> here

The judging is done where the deadline is held, with this computer asleep too. What the machine says is untrusted:
what is no sane number counts as not said.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from orchestrator.follow import number
from orchestrator.render import duration, money

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

STEPS = 20  # of the training itself, after one that warms up
_MOST = 1e9  # seconds and dollars beyond this are a mistake


@dataclass(frozen=True, slots=True)
class Requote:
    """What a probe found. Seconds; USD for this machine, from its launch to its end."""

    step: int
    steps: int
    total_steps: int | None
    seconds_per_step: float
    rest_seconds: float | None  # None = the training told no total: nobody knows
    left_seconds: float | None
    usd: float | None
    tokens_per_second: float | None
    peak_memory_gib: float | None
    holds: bool

    def as_json(self) -> dict[str, Any]:
        """Give plain values."""
        return asdict(self)

    def words(self) -> str:
        """Say it in a line for a person."""
        told = f"{self.steps} steps at {self.seconds_per_step:.3g} s each"
        if self.rest_seconds is None or self.left_seconds is None:
            return f"{told}; how many there are was not told"
        cost = f", about {money(Decimal(str(round(self.usd, 4))))} in all" if self.usd else ""
        verdict = "it went on" if self.holds else "stopped"
        left = f"{duration(self.rest_seconds)} more of {duration(max(self.left_seconds, 0.0))} left"
        return f"{told}: {left}{cost}: {verdict}"


def read(metrics: Path) -> Requote | None:
    """Find the newest probe of a run; None = there was none, or not yet."""
    found = None
    try:
        with metrics.open("rb") as file:
            for line in file:
                if b'"probe"' in line:
                    found = _of(line) or found
    except FileNotFoundError:
        return None
    return found


def _of(line: bytes) -> Requote | None:
    try:
        told = json.loads(line)["probe"]
    except (ValueError, LookupError, TypeError):
        return None
    return _sane(told) if isinstance(told, dict) else None


def _sane(told: Mapping[str, Any]) -> Requote | None:
    numbers = ((key, number(value)) for key, value in told.items())
    known = {key: value for key, value in numbers if value is not None and abs(value) < _MOST}
    step, steps, each = (known.get(name) for name in ("step", "steps", "seconds_per_step"))
    if step is None or steps is None or each is None:
        return None
    total = known.get("total_steps")
    return Requote(
        step=int(step),
        steps=int(steps),
        total_steps=int(total) if total else None,
        seconds_per_step=each,
        rest_seconds=known.get("rest_seconds"),
        left_seconds=known.get("left_seconds"),
        usd=known.get("usd"),
        tokens_per_second=known.get("tokens_per_second"),
        peak_memory_gib=known.get("peak_memory_gib"),
        holds=told.get("holds") is True,
    )
