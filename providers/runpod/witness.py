"""When a pod began and ended, as narrow as this process saw it: what was asked, what was answered, `Date` in between.

    POST asked ── made ── answered          DELETE asked ── ended ── read gone

RunPod tells a begin in whole seconds, and no end at all, and bills by the second. Our moments become RunPod's by all
the `Date` that it ever told (clocks.py), with a little more: its machines are not one clock.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from providers.base import utc

if TYPE_CHECKING:
    from datetime import datetime

    from providers.clocks import Ahead
    from providers.runpod.reading import Pod

_APART = timedelta(seconds=0.05)
_UNKNOWN = timedelta(seconds=1)  # where RunPod's answers told no time


class Witness:
    """What was seen of each pod, epoch seconds by our clock."""

    def __init__(self, ahead: Ahead) -> None:
        self._ahead = ahead
        self._made: dict[str, tuple[float, float]] = {}
        self._taken: dict[str, float] = {}
        self._gone: dict[str, float] = {}

    def made(self, pod_id: str, asked: float, answered: float) -> None:
        """Note that it was made in between."""
        self._made[pod_id] = asked, answered

    def taken(self, pod_id: str, asked: float) -> None:
        """Note that RunPod took its end, asked for not before this moment."""
        self._taken.setdefault(pod_id, asked)

    def gone(self, pod_id: str, heard: float) -> None:
        """Note that it was read gone, where its end was taken before."""
        if pod_id in self._taken:
            self._gone.setdefault(pod_id, heard)

    def doubted(self, pod_id: str) -> None:
        """Forget that it was read gone: it is listed."""
        self._gone.pop(pod_id, None)

    def lives(self, pod_id: str) -> None:
        """Forget its end: it lives on, whatever was answered."""
        self._taken.pop(pod_id, None)
        self._gone.pop(pod_id, None)

    def began(self, pod: Pod) -> tuple[datetime | None, float]:
        """Say when it began, and by how many seconds it may have been later."""
        seen = self._made.get(pod.id)
        if pod.created is None or seen is None:
            return pod.created, pod.created_within
        until = pod.created + timedelta(seconds=pod.created_within)
        low, high = max(pod.created, self._earliest(seen[0])), min(until, self._latest(seen[1]))
        return (low, (high - low).total_seconds()) if low <= high else (pod.created, pod.created_within)

    def ended(self, pod_id: str) -> tuple[datetime, float] | None:
        """Say when it ended, and by how many seconds it may have been later; None = nobody here ended it."""
        if pod_id not in self._taken or pod_id not in self._gone:
            return None
        low, high = self._earliest(self._taken[pod_id]), self._latest(self._gone[pod_id])
        return low, max((high - low).total_seconds(), 0.0)

    def _earliest(self, ours: float) -> datetime:
        told = self._ahead.earliest(ours)
        return utc(ours) - _UNKNOWN if told is None else told - _APART

    def _latest(self, ours: float) -> datetime:
        told = self._ahead.latest(ours)
        return utc(ours) + _UNKNOWN if told is None else told + _APART
