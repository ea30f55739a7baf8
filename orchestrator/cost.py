"""Dollars: what a run cost so far as an interval, and what it may cost at most. Pure; `Decimal` USD.

An end that nobody witnessed makes the interval wide: from the last read that said "billing" to the first that
said "free". It is never narrowed by guessing.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_HOUR = Decimal(3600)
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


def charge(price: Decimal, seconds: float, step_seconds: int) -> Decimal:
    """USD for so many seconds at a price an hour, in begun billing steps."""
    steps = (Decimal(str(max(seconds, 0.0))) / step_seconds).to_integral_value(ROUND_CEILING)
    return price * steps * step_seconds / _HOUR


def accrued(spells: Iterable[Spell], now: float) -> Interval:
    """Sum what the spells cost by `now`. Monotone in `now`; `high` never falls when more is learnt of the past."""
    total = NOTHING
    for spell in spells:
        low_end = max(spell.billing_seen or spell.start_high, spell.start_high)
        high_end = now if spell.ended is None else spell.ended
        low = charge(spell.price, low_end - spell.start_high, spell.step_seconds)
        total += Interval(low, max(low, charge(spell.price, high_end - spell.start_low, spell.step_seconds)))
    return total


def worst(price: Decimal, max_seconds: float, step_seconds: int) -> Decimal:
    """The most that the limits allow, rounded up to the cent."""
    return charge(price, max_seconds, step_seconds).quantize(_CENT, ROUND_CEILING)


def seconds_affordable(price: Decimal, max_cost: Decimal) -> float:
    """How long a budget lasts; infinite on what costs nothing."""
    return float(max_cost / price * _HOUR) if price else float("inf")
