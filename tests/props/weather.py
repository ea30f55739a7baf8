"""Spans of time, and in which of them somebody could have ended a thing: for the oracle. Imports nothing of gpurun.

What excuses a thing that bills on is bad weather only: while no holder lives, awake, with a key that works, on line,
with the vendor's API answering, taking the order and showing its lists.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from oracle import Fact, History, Holder

Span = tuple[float, float]

PATIENCE = 120.0  # seconds of good weather after which what is past its time must be gone


def good(history: History, thing: Fact, start: float, end: float, *, itself: bool = False) -> list[Span]:
    """Spans between two moments in which somebody could have ended it, and every call was heard.

    `itself` = nobody but its own holder counts.
    """
    holders = [one for one in history.holders if covers(one, thing) and (one.id or not itself)]
    able = [span for one in holders for span in _in_time(one, thing)]
    if thing.limit_at < end and not itself:
        able.append((thing.limit_at, math.inf))
    spans = minus(union(able), history.down)
    breaks = [moment for moment in history.failed if start < moment < end]
    breaks += [moment for moment, one in history.ignored if one == thing.id]
    found = []
    for a, b in spans:
        edges = [max(a, start), *sorted(at for at in breaks if max(a, start) < at < min(b, end)), min(b, end)]
        found += [(x, y) for x, y in itertools.pairwise(edges) if y > x]
    return found


def _in_time(holder: Holder, thing: Fact) -> tuple[Span, ...] | list[Span]:
    mark = thing.mark
    if not holder.behind or mark is None or holder.own == mark[0]:
        return holder.able
    return minus(list(holder.able), [(-math.inf, mark[3] + holder.behind)])


def covers(holder: Holder, thing: Fact) -> bool:
    """Say whether a holder may end a thing."""
    if holder.id:
        return holder.id == thing.id
    if holder.account != thing.account:
        return False
    mark = thing.mark
    return not holder.home or (mark is not None and (holder.home, holder.run) == mark[:2])


def union(spans: list[Span]) -> list[Span]:
    """Join spans that touch."""
    joined: list[Span] = []
    for a, b in sorted(spans):
        if joined and a <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], b))
        else:
            joined.append((a, b))
    return joined


def minus(spans: list[Span], holes: list[Span]) -> list[Span]:
    """Cut holes out of spans."""
    for start, end in holes:
        spans = [piece for a, b in spans for piece in ((a, min(b, start)), (max(a, end), b)) if piece[1] > piece[0]]
    return spans
