"""When a pod began and ended, as narrow as this process saw it: what was asked, what was answered, `Date` in between.

    POST asked ── made ── answered          lives, or DELETE asked ── ended ── read gone

RunPod tells a begin in whole seconds and no end at all, and bills by the second. Our moments become its own at once, by
all `Date` that it told until then (clocks.py): a clock that is set later moves nothing of it.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from providers.base import utc

if TYPE_CHECKING:
    from datetime import datetime

    from providers.clocks import Ahead
    from providers.http import Reply
    from providers.runpod.reading import Pod

_APART = timedelta(seconds=0.1)  # by which the clocks of RunPod's own machines are taken to differ at most
_UNKNOWN = timedelta(seconds=1)  # where its answers told no time


class Witness:
    """What was seen of each pod, by RunPod's clock."""

    def __init__(self, ahead: Ahead) -> None:
        self._ahead = ahead
        self._made: dict[str, tuple[datetime, datetime]] = {}
        self._alive: dict[str, datetime] = {}  # it lived on after that
        self._taken: dict[str, datetime] = {}  # its end was not asked for before that
        self._gone: dict[str, datetime] = {}

    def made(self, pod_id: str, reply: Reply) -> None:
        """Note that this order made it."""
        self._made[pod_id] = self._asked(reply), self._heard(reply)

    def taken(self, pod_id: str, reply: Reply) -> None:
        """Note that RunPod took this order to end it. One that it takes again was not carried out before."""
        self._taken.setdefault(pod_id, self._asked(reply))
        self._gone.pop(pod_id, None)

    def gone(self, pod_id: str, reply: Reply, *, word: bool) -> None:
        """Note that it was read gone, where its end was taken before; by `word` it may have ended before that."""
        if pod_id not in self._taken or pod_id in self._gone:
            return
        if word and pod_id in self._alive:
            self._taken[pod_id] = min(self._taken[pod_id], self._alive[pod_id])
        elif word:
            del self._taken[pod_id]
            return
        self._gone[pod_id] = self._heard(reply)

    def doubted(self, pod_id: str) -> None:
        """Forget that it was read gone: it is listed."""
        self._gone.pop(pod_id, None)

    def lives(self, pod_id: str, reply: Reply) -> None:
        """Note that it was read alive, and forget its end, whatever was answered."""
        self._alive[pod_id] = self._asked(reply)
        self._taken.pop(pod_id, None)
        self._gone.pop(pod_id, None)

    def began(self, pod: Pod) -> tuple[datetime | None, float]:
        """Say when it began, and by how many seconds it may have been later."""
        if pod.created is None or pod.id not in self._made:
            return pod.created, pod.created_within
        until = pod.created + timedelta(seconds=pod.created_within)
        low, high = max(pod.created, self._made[pod.id][0]), min(until, self._made[pod.id][1])
        return (low, (high - low).total_seconds()) if low <= high else (pod.created, pod.created_within)

    def ended(self, pod_id: str) -> tuple[datetime, float] | None:
        """Say when it ended, and by how many seconds it may have been later; None = nobody here ended it."""
        if pod_id not in self._taken or pod_id not in self._gone:
            return None
        low, high = self._taken[pod_id], self._gone[pod_id]
        return low, max((high - low).total_seconds(), 0.0)

    def _asked(self, reply: Reply) -> datetime:
        told = self._ahead.earliest(reply.asked)
        return utc(reply.asked) - _UNKNOWN if told is None else told - _APART

    def _heard(self, reply: Reply) -> datetime:
        told = self._ahead.latest(reply.heard)
        return utc(reply.heard) + _UNKNOWN if told is None else told + _APART
