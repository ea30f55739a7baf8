"""When a pod began and ended, as narrow as this process saw it: what was asked, what was answered, `Date` in between.

    POST asked ── made ── answered          lives, or DELETE asked ── ended ── read gone

RunPod tells a begin in whole seconds and no end at all, and bills by the second. Our moments become its own by all the
`Date` that it told (clocks.py).
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from providers.base import seconds_between

if TYPE_CHECKING:
    from datetime import datetime

    from providers.clocks import Ahead, Noted
    from providers.http import Reply
    from providers.runpod.reading import Pod

_APART = timedelta(seconds=0.1)  # by which the clocks of RunPod's own machines are taken to differ at most


class Witness:
    """What was seen of each pod."""

    def __init__(self, ahead: Ahead) -> None:
        self._ahead = ahead
        self._made: dict[str, tuple[Noted, Noted]] = {}
        self._alive: dict[str, Noted] = {}  # it lived on after that
        self._taken: dict[str, Noted] = {}  # its end was not asked for before that
        self._gone: dict[str, Noted] = {}

    def made(self, pod_id: str, reply: Reply) -> None:
        """Note that this order made it."""
        self._made[pod_id] = self._ahead.note(reply.asked), self._ahead.note(reply.heard)

    def taken(self, pod_id: str, reply: Reply) -> None:
        """Note that RunPod took this order to end it. One that it takes again was not carried out before."""
        self._taken.setdefault(pod_id, self._ahead.note(reply.asked))
        self._gone.pop(pod_id, None)

    def gone(self, pod_id: str, reply: Reply, *, word: bool) -> None:
        """Note that it was read gone, where its end was taken before; by `word` it may have ended before that."""
        if pod_id not in self._taken or pod_id in self._gone:
            return
        if word and pod_id in self._alive:
            self._taken[pod_id] = self._alive[pod_id]
        elif word:
            del self._taken[pod_id]
            return
        self._gone[pod_id] = self._ahead.note(reply.heard)

    def doubted(self, pod_id: str) -> None:
        """Forget that it was read gone: it is listed."""
        self._gone.pop(pod_id, None)

    def lives(self, pod_id: str, reply: Reply) -> None:
        """Note that it was read alive, and forget its end, whatever was answered."""
        self._alive[pod_id] = self._ahead.note(reply.asked)
        self._taken.pop(pod_id, None)
        self._gone.pop(pod_id, None)

    def began(self, pod: Pod) -> tuple[datetime | None, float]:
        """Say when it began, and by how many seconds it may have been later."""
        window = self._between(*self._made[pod.id]) if pod.id in self._made else None
        if pod.created is None or window is None:
            return pod.created, pod.created_within
        until = pod.created + timedelta(seconds=pod.created_within)
        low, high = max(pod.created, window[0]), min(until, window[1])
        low, high = (low, high) if low <= high else window  # `createdAt` is by another clock than all else
        return low, seconds_between(low, high)

    def ended(self, pod_id: str) -> tuple[datetime, float] | None:
        """Say when it ended, and by how many seconds it may have been later; None = nobody here can say."""
        if pod_id not in self._taken or pod_id not in self._gone:
            return None
        window = self._between(self._taken[pod_id], self._gone[pod_id])
        return None if window is None else (window[0], max(seconds_between(*window), 0.0))

    def _between(self, first: Noted, last: Noted) -> tuple[datetime, datetime] | None:
        begin, end = self._ahead.between(first), self._ahead.between(last)
        return None if begin is None or end is None else (begin[0] - _APART, end[1] + _APART)
