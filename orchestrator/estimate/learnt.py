"""What this home's own runs measured, and how it takes the place of what the model says. Pure: rows are handed in.

    Measured (a row a finished run) ──> Past.learnt(work, card, where) ──> Learnt ──> quote.estimate(…, learnt)

Memory and pace are of like work: the same model, method, sizes and card. Boot and setup are of the same offer, whatever
ran there. All other stages are of the very same work, settings and data.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from hashlib import sha256
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from orchestrator.estimate.gpus import Card
    from orchestrator.estimate.work import Work

# Stages as they are measured, and what of the modelled ones each of them is.
GROUPS = {
    "boot": ("boot",),
    "setup": ("setup",),
    "load": ("weights", "load", "data"),
    "training": ("first step", "training"),
    "evaluation": ("evaluation",),
    "checkpoints": ("checkpoints",),
    "bring home": ("bring home",),
}
ANY_WORK = ("boot", "setup")  # stages that ask for the offer alone
MOST_ROWS = 5  # of the newest: machines and packages change
# Half the width of the band round one, two and more runs. Kernels repeat within some percent; clocks, neighbours and
# the lengths that chance puts together do not. What goes over a network spreads twice as far.
_BANDS = (0.25, 0.15, 0.10)
_NETWORK = frozenset({"boot", "setup", "load", "bring home"})

Span = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Measured:
    """One finished run. Seconds, GiB, tokens a second; None and absent keys = nobody measured it."""

    run_id: str
    ended: float  # epoch seconds
    completed: bool
    work: str  # names settings and data
    like: str  # names model, method, sizes and card; "" = not modelled, or not run as planned
    provider: str
    offer: str  # without its region
    seconds: float  # billed
    stages: Mapping[str, float]
    memory_gib: Mapping[str, float]  # allocated, reserved, process: the peak
    tokens_per_second: float | None = None  # as the payload counts them: padding left out
    pace: float | None = None  # the same by the estimate's own count of tokens
    steps: int = 0


@dataclass(frozen=True, slots=True)
class Learnt:
    """What is known instead of modelled. Hashable: estimates are kept by it."""

    basis: str  # which runs
    memory_gib: Span | None = None  # allocated, reserved, process
    pace: Span | None = None  # tokens a second, low, likely, high
    stages: tuple[tuple[str, Span], ...] = ()  # seconds, by the names of GROUPS
    seconds: Span | None = None  # billed, of the very same work


class Past:
    """The finished runs of a home."""

    def __init__(self, rows: Sequence[Measured] = ()) -> None:
        self._rows = sorted(rows, key=lambda one: -one.ended)
        self._known: dict[tuple[str, str, str, str], Learnt | None] = {}

    def __bool__(self) -> bool:
        """Say whether there are any."""
        return bool(self._rows)

    def learnt(
        self, work: Work | None, card: Card | None, count: int, where: tuple[str, str], same: str = ""
    ) -> Learnt | None:
        """Say what was measured of such work; `where` = provider and offer, `same` = the name of the very same work."""
        if not self._rows:
            return None
        key = (like(work, card, count) if work and card else "", *where, same)
        if key not in self._known:
            self._known[key] = self._learn(*key)
        return self._known[key]

    def _learn(self, alike: str, provider: str, offer: str, same: str) -> Learnt | None:
        there = [one for one in self._rows if (one.provider, one.offer) == (provider, offer)]
        again = [one for one in there if same and one.work == same and one.completed][:MOST_ROWS]
        like_it = [one for one in self._rows if alike and one.like == alike][:MOST_ROWS]
        stages = {name: _span(name, there[:MOST_ROWS]) for name in ANY_WORK}
        stages |= {name: _span(name, again) for name in GROUPS if name not in ANY_WORK}
        known = tuple((name, span) for name, span in stages.items() if span)
        paces = [one.pace for one in like_it if one.pace]
        peaks = [one.memory_gib for one in like_it if one.memory_gib.get("allocated")]
        used = again or like_it or (there[:MOST_ROWS] if known else [])
        if not used:
            return None
        whole = band([one.seconds for one in again]) if again else None
        basis = _named(used) if again or like_it else f"{_named(used)}: boot and setup alone, the rest is estimated"
        return Learnt(basis, _peak(peaks), band(paces) if paces else None, known, whole)


NOTHING = Past()


def _span(name: str, rows: Sequence[Measured]) -> Span | None:
    values = [one.stages[name] for one in rows if name in one.stages]
    return band(values, 2.0 if name in _NETWORK else 1.0) if values else None


def band(values: Sequence[float], wider: float = 1.0) -> Span:
    """Give low, likely and high of what was measured some times: the fewer times, the wider."""
    half = min(_BANDS[min(len(values), len(_BANDS)) - 1] * wider, 0.9)
    return min(values) * (1 - half), sorted(values)[len(values) // 2], max(values) * (1 + half)


def _peak(rows: Sequence[Mapping[str, float]]) -> Span | None:
    """The largest that was seen, of each kind; a kind that nobody measured is as large as the one below it."""
    if not rows:
        return None
    allocated = max(one["allocated"] for one in rows)
    reserved = max(allocated, *(one.get("reserved", 0.0) for one in rows))
    return allocated, reserved, max(reserved, *(one.get("process", 0.0) for one in rows))


def _named(rows: Sequence[Measured]) -> str:
    newest = rows[0].run_id
    return f"your run of {newest}" if len(rows) == 1 else f"{len(rows)} runs of yours, the last {newest}"


@lru_cache(maxsize=4096)
def like(work: Work, card: Card, count: int) -> str:
    """Name all that memory and pace depend on; how much is trained, and in how many passes a step, are not of it."""
    return sha256(repr((replace(work, accumulation=1), card.name, count)).encode()).hexdigest()[:16]


def bare(offer: str) -> str:
    """Name an offer without its region: `gpu_1x_a10@us-west-1` is a `gpu_1x_a10`."""
    return offer.partition("@")[0]


def grouped(stages: Mapping[str, float]) -> dict[str, float]:
    """Sum modelled stages by the names under which they are measured."""
    found: dict[str, float] = {}
    for name, parts in GROUPS.items():
        seconds = [stages[part] for part in dict.fromkeys((name, *parts)) if part in stages]
        if seconds:
            found[name] = sum(seconds)
    return found
