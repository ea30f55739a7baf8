"""Metrics lines in, progress out: the stage and its clock, the newest figures, the time left.

Pure; the clock is handed in. Whatever the lines hold, nothing here raises: the log is anybody's text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orchestrator.render import Progress

if TYPE_CHECKING:
    from collections.abc import Mapping
    from decimal import Decimal


_MOST = 1e15  # a step, a rate or a time beyond this is a mistake
_OLDEST_SECONDS = 30 * 86400


class Meter:
    """What the live line knows."""

    def __init__(self) -> None:
        self._stage = ""
        self._since: dict[str, float] = {}  # stage -> when it first began: an evaluation between does not reset "train"
        self._first: tuple[float, int] | None = None  # time and step from which the pace is reckoned
        self._last: tuple[float, int] | None = None
        self._values: dict[str, Any] = {}
        self._from_log = False

    def state(self, state: str, now: float) -> None:
        """Take the run's own state as the stage: before the training speaks, and once it runs no more."""
        if state != "running" or not self._from_log:
            self._enter(state, now)

    def add(self, metrics: Mapping[str, Any], now: float) -> None:
        """Take one metrics line in; what is no number is passed over."""
        time = _number(metrics.get("time"))
        at = now if time is None or not 0 <= now - time < _OLDEST_SECONDS else time
        stage = metrics.get("stage")
        if isinstance(stage, str) and stage:
            self._from_log = True
            self._enter(stage, at)
        step = _number(metrics.get("step"))
        if step is not None:
            self._pace(at, int(step), metrics.get("total_steps"))
        self._values.update({key: value for key, value in metrics.items() if value is not None})

    def _enter(self, stage: str, at: float) -> None:
        self._stage = stage
        self._since.setdefault(stage, at)

    def _pace(self, at: float, step: int, total: object) -> None:
        back = self._last is not None and step < self._last[1]  # it began again from a checkpoint, or the next part did
        if self._first is None or back or total != self._values.get("total_steps"):
            self._first = (at, step)
        self._last = (at, step)

    def progress(self, now: float, low: Decimal, high: Decimal) -> Progress:
        """Say where the run is at this moment."""
        total = _number(self._values.get("total_steps"))
        step = _number(self._values.get("step"))
        loss = self._values.get("loss")
        return Progress(
            stage=self._stage or "waiting",
            stage_seconds=max(0.0, now - self._since.get(self._stage, now)),
            step=int(step or 0),
            total_steps=int(total or 0),
            loss=loss if isinstance(loss, str) else _number(loss),
            accuracy=_number(self._values.get("accuracy")),
            tokens_per_second=_number(self._values.get("tokens_per_second")),
            samples_per_second=_number(self._values.get("samples_per_second")),
            seconds_left=self._left(now, total),
            spent_low=low,
            spent_high=high,
        )

    def _left(self, now: float, total: float | None) -> float | None:
        if self._first is None or self._last is None or not total:
            return None
        (began, first), (seen, last) = self._first, self._last
        if last <= first or last >= total:
            return None
        return max(0.0, (total - last) * (seen - began) / (last - first) - (now - seen))


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not -_MOST < value < _MOST:
        return None  # nan compares false with everything
    return float(value)
