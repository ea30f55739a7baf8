"""Dollars: what a run cost so far as an interval, and what it may cost at most. Pure; `Decimal` USD.

An end that nobody witnessed makes the interval wide: from the last read that said "billing" to the first that
said "free". It is never narrowed by guessing.

What it may cost at most (`worst`), and so how long a budget lasts (`affordable`), is the vendor's meter, not the clock:
every begun billing step counts whole, each further attempt begins one more, a price read back after the launch may be
`PRICE_TOLERANCE` dearer, and after the ceiling a guard needs up to `OVERRUN_SECONDS` until the vendor took the end.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from orchestrator.config import Limits

FUSE = Decimal(100)  # USD that a run may cost where nobody named an amount: eight H100s for three hours
MOST_GRACE_SECONDS = 600  # before its deadline training is told to save: so long at most
GRACE_SHARE = 0.2  # of the run
HOURS = 4.0  # where nobody named any, as in config.Limits
OVERRUN_SECONDS = 120  # past its ceiling: a guard looks once a minute, asks, and reads it back
PRICE_TOLERANCE = Decimal("1.01")  # of what was agreed to: dearer than that is ended at once
_HOUR = Decimal(3600)
_SPARE_SHARE = 10  # at most this part of a budget is kept back for the begun steps of further attempts
_CENT = Decimal("0.01")


@dataclass(frozen=True, slots=True)
class Spell:
    """One allocation's billed time as known: epoch seconds; `price` in USD an hour."""

    price: Decimal
    step_seconds: int
    start_low: float
    start_high: float
    billing_seen: float | None
    ended: float | None


@dataclass(frozen=True, slots=True)
class Interval:
    """Money between `low` and `high`, USD."""

    low: Decimal
    high: Decimal

    def __add__(self, other: Interval) -> Interval:
        """Add two spells of spending."""
        return Interval(self.low + other.low, self.high + other.high)


NOTHING = Interval(Decimal(0), Decimal(0))
_UNCLEAR_STEP_SECONDS = 60  # the longest billing step of those whose launch can be unclear


def unsettled(price: Decimal, intended: float) -> Spell:
    """Give what a launch may have rented that nobody has settled yet: from the intent on, or nothing at all."""
    return Spell(price, _UNCLEAR_STEP_SECONDS, intended, intended, None, None)


def charge(price: Decimal, seconds: float, step_seconds: int) -> Decimal:
    """USD for so many seconds at a price an hour, in begun billing steps."""
    begun = -(-math.ceil(max(seconds, 0.0)) // step_seconds)
    return price * (begun * step_seconds) / _HOUR


def accrued(spells: Iterable[Spell], now: float) -> Interval:
    """Sum what the spells cost by `now`. Monotone in `now`; `high` never falls when more is learnt of the past."""
    total = NOTHING
    for spell in spells:
        low_end = max(spell.billing_seen or spell.start_high, spell.start_high)
        high_end = now if spell.ended is None else spell.ended
        low = charge(spell.price, low_end - spell.start_high, spell.step_seconds)
        total += Interval(low, max(low, charge(spell.price, high_end - spell.start_low, spell.step_seconds)))
    return total


def worst(price: Decimal, max_seconds: float, step_seconds: int, attempts: int = 1) -> Decimal:
    """The most that the limits allow, rounded up to the cent; `max_seconds` run from the launch to the ceiling."""
    seconds = max_seconds + OVERRUN_SECONDS + (attempts - 1) * step_seconds
    return (charge(price, seconds, step_seconds) * PRICE_TOLERANCE).quantize(_CENT, ROUND_CEILING)


def affordable(price: Decimal, max_cost: Decimal, step_seconds: int, attempts: int = 1) -> tuple[float, int]:
    """How long a budget lasts, seconds from the launch to the ceiling, and for how many attempts of those wanted.

    What `worst` gives for them lies within the budget. Negative where nothing is left; infinite on what costs nothing.
    """
    if not price:
        return float("inf"), attempts
    steps = int(max_cost * _HOUR / (price * PRICE_TOLERANCE * step_seconds))
    spare = min(attempts - 1, steps // _SPARE_SHARE)
    return float((steps - spare) * step_seconds - OVERRUN_SECONDS), 1 + spare


@dataclass(frozen=True, slots=True)
class Bounds:
    """What ends a run whatever else happens: seconds from the launch on, and USD."""

    max_seconds: float
    ceiling_seconds: float  # how far an extension may go
    max_cost: Decimal = FUSE
    max_attempts: int = 3

    @classmethod
    def of(cls, limits: Limits | None, hours: float | None = None) -> Bounds:
        """Give a template's limits; `hours` were said besides and stand over them."""
        if limits is None:
            return cls.of_hours(hours or HOURS)
        long = hours or limits.max_hours
        far = max(limits.extendable_to_hours or 0.0, long)
        return cls(long * 3600, far * 3600, limits.max_cost or FUSE, limits.max_attempts)

    @classmethod
    def of_hours(cls, hours: float) -> Bounds:
        """Give what holds where somebody named hours and nothing else."""
        return cls(hours * 3600, hours * 3600)

    def lasts(self, price: Decimal, step_seconds: int) -> float:
        """How long the budget lasts at a price an hour, seconds from the launch on."""
        return affordable(price, self.max_cost, step_seconds, self.max_attempts)[0]

    def enough(self, price: Decimal, seconds: float, step_seconds: int) -> Decimal:
        """Give a budget that lasts so many seconds at a price an hour."""
        return worst(price, seconds, step_seconds, self.max_attempts)

    def ceiling(self, price: Decimal, step_seconds: int) -> tuple[float, int]:
        """Seconds from the launch to the ceiling at a price an hour, and the attempts that the budget leaves."""
        lasts, attempts = affordable(price, self.max_cost, step_seconds, self.max_attempts)
        return min(max(self.max_seconds, self.ceiling_seconds), lasts), attempts

    def saved_by(self, price: Decimal, step_seconds: int) -> float:
        """Seconds after which a run that the limits cut short may have saved and left: the earliest."""
        reach = min(self.ceiling(price, step_seconds)[0], self.max_seconds)
        return max(reach - min(MOST_GRACE_SECONDS, reach * GRACE_SHARE) - step_seconds, 1.0)

    def worst(self, price: Decimal, step_seconds: int) -> Decimal:
        """The most that these limits allow at a price an hour; nothing where they leave no time."""
        seconds, attempts = self.ceiling(price, step_seconds)
        return worst(price, int(seconds), step_seconds, attempts) if seconds > 0 else Decimal(0)


def spent_since(spells: Iterable[Spell], since: float, now: float) -> Decimal:
    """At most this was billed from `since` to `now`, both by the vendor's clock: for a month that began in a run."""
    total = Decimal(0)
    for spell in spells:
        until = now if spell.ended is None else spell.ended
        total += charge(spell.price, until - max(spell.start_low, since), spell.step_seconds)
    return total
