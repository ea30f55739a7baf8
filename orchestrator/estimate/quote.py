"""The price tag: memory, pace, hours and dollars of one work on one kind of card. Every part is a module of its own.

estimate(work, card, count, amount) -> Estimate          computed once for a kind of card
Estimate.price(rental)              -> Dollars           microseconds: a few multiplications an offer

What was measured on the user's own runs (learnt.py) takes the place of what is modelled. The plan of a launch is this.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import Decimal
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from orchestrator.cost import Bounds, charge
from orchestrator.estimate import fix as fixing
from orchestrator.estimate import gpus
from orchestrator.estimate.disk import Room, room
from orchestrator.estimate.footprint import Footprint, Range, footprint
from orchestrator.estimate.hours import Stages, computed_tokens, stages
from orchestrator.estimate.speed import KNOWN, band, chip, seconds

if TYPE_CHECKING:
    from orchestrator.estimate.fix import Fix
    from orchestrator.estimate.gpus import Card
    from orchestrator.estimate.learnt import Learnt
    from orchestrator.estimate.work import Amount, Work

_CENT = Decimal("0.01")
_HOUR = 3600.0
_REPEATS = 1.04  # a peak that was measured may be so much higher the next time: other rows meet in a batch
FOUR_HOURS = Bounds.of_hours(4)
# Layers that are not all attention and MLP as Llama has them: what they keep and their pace is approximate.
HYBRID = frozenset({"qwen3_5", "qwen3_5_moe", "gemma4", "gemma4_unified", "gpt_oss", "deberta-v2"})


@dataclass(frozen=True, slots=True)
class Rental:
    """What an offer costs: USD an hour for all its GPUs, and how it is counted."""

    provider: str
    price: Decimal
    step_seconds: int = 1
    least_seconds: int = 0  # what is billed in any case
    disk_usd_hour: Decimal = Decimal(0)


@dataclass(frozen=True, slots=True)
class Dollars:
    """USD for the whole job. `worst` is what the limits allow."""

    low: Decimal
    likely: Decimal
    worst: Decimal


@dataclass(frozen=True, slots=True)
class Estimate:
    """Everything that can be said before money moves."""

    work: Work
    card: Card
    count: int
    memory: Footprint
    fits: str
    fix: Fix | None
    others: tuple[Fix, ...]
    tokens_per_second: Range  # of all GPUs together, padding counted
    known: bool  # card and method are in the measurements
    stages: Stages | None
    room: Room | None
    tokens: float  # computed in all, padding among them; 0 = nobody said how much
    bounds: Bounds
    took: Range | None = None  # seconds that the very same work took, where nobody can say how much it trains
    basis: str = ""  # the runs of the user's on which it was measured; "" = all is modelled

    @property
    def seconds(self) -> Range | None:
        """From launch to the end of billing."""
        return self.stages.total if self.stages else self.took

    def price(self, rental: Rental) -> Dollars | None:
        """Price one offer; None while nobody said how much is trained."""
        return priced(self.seconds, rental, self.bounds) if self.seconds else None

    @property
    def speed_basis(self) -> str:
        """Say what the pace rests on."""
        if self.basis:
            return f"measured on {self.basis}"
        return "measured cards and methods" if self.known else "no measurement of this card, method and kind of model"

    def as_json(self, rental: Rental | None = None) -> dict[str, Any]:
        """Give plain values: GiB, tokens a second, hours, USD as text."""
        dollars = self.price(rental) if rental else None
        return {
            "model": self.work.model.name,
            "gpu": self.card.name,
            "gpu_count": self.count,
            "card_gib": round(self.card.memory_gib, 2),
            "memory_gib": {
                "allocated": self.memory.allocated.as_json(),
                "reserved": self.memory.reserved.as_json(),
                "process": self.memory.process.as_json(),
                "components": {name: round(size, 3) for name, size in self.memory.components.items()},
                "peak_at": self.memory.moment,
            },
            "fits": self.fits,
            "measured": self.basis or None,
            "fix": str(self.fix) if self.fix else None,
            "other_fixes": [str(one) for one in self.others],
            "tokens_per_second": self.tokens_per_second.as_json(1),
            "speed_basis": self.speed_basis,
            "hours": _hours(self),
            "usd": usd(dollars),
            "disk_gib": _room(self.room),
            "parameters": {"total": self.work.model.parameters, "exact": self.work.model.exact},
        }


def priced(total: Range, rental: Rental, bounds: Bounds) -> Dollars:
    """Price so many seconds at an offer, within the limits: by the meter that a launch will be held to (cost.py)."""
    rate, step, least = rental.price + rental.disk_usd_hour, rental.step_seconds, rental.least_seconds
    low, likely = (charge(rate, max(time, least), step) for time in (total.low, total.likely))
    most = bounds.worst(rate, step)
    if likely * 2 > most:  # it may be cut short: told to save some time before the limits, it ends by then
        low = min(low, charge(rate, bounds.saved_by(rate, step), step))
    return Dollars(min(low, most), min(likely, most), most)


def _hours(found: Estimate) -> dict[str, Any] | None:
    total, by_stage = found.seconds, found.stages
    if total is None:
        return None
    whole = Range(total.low / _HOUR, total.likely / _HOUR, total.high / _HOUR).as_json(3)
    named = by_stage.by_name if by_stage else {}
    return {
        **whole,
        "steps": by_stage.steps if by_stage else None,
        "stages": {name: round(likely) for name, (_, likely, _) in named.items()},
    }


def usd(dollars: Dollars | None) -> dict[str, str] | None:
    """Give dollars as plain values."""
    if dollars is None:
        return None
    return {
        "low": str(dollars.low.quantize(_CENT)),
        "likely": str(dollars.likely.quantize(_CENT)),
        "worst": str(dollars.worst),
    }


def _room(found: Room | None) -> dict[str, float] | None:
    return {"disk": round(found.disk_gib, 1), "host_memory": round(found.host_gib, 1)} if found else None


@lru_cache(maxsize=4096)
def estimate(
    work: Work,
    card: Card,
    count: int = 1,
    amount: Amount | None = None,
    *,
    provider: str = "",
    packed: bool = False,
    merge: bool = False,
    bounds: Bounds = FOUR_HOURS,
    learnt: Learnt | None = None,
    spreads: bool = True,
) -> Estimate:
    """Estimate one work on so many of one card. Kept: the same question is answered from memory.

    `spreads` = more GPUs would help: what trains can share itself out over them.
    """
    memory = _footprint(work, count, card, learnt)
    fits = fixing.verdict(memory, card.memory_gib)
    fix, others = _fixes(work, card, count, spreads=spreads) if fits != fixing.FITS else (None, ())
    pace, known = _pace(work, card, count)
    if learnt and learnt.pace:
        pace, known = Range(*learnt.pace), True
    timed = stages(work, amount, pace, count, provider, packed=packed) if amount else None
    return Estimate(
        work=work,
        card=card,
        count=count,
        memory=memory,
        fits=fits,
        fix=fix,
        others=others,
        tokens_per_second=pace,
        known=known,
        stages=timed.learning(dict(learnt.stages)) if timed and learnt else timed,
        room=room(work, amount, merge=merge, gpus=count) if amount else None,
        tokens=computed_tokens(work, amount, count, packed=packed) if amount else 0.0,
        bounds=bounds,
        took=Range(*learnt.seconds) if learnt and learnt.seconds else None,
        basis=learnt.basis if learnt else "",
    )


def _footprint(work: Work, count: int, card: Card, learnt: Learnt | None) -> Footprint:
    """What was measured of like work, to some percent; else what is modelled."""
    found = footprint(work, count, card.memory_gib)
    if learnt is None or learnt.memory_gib is None:
        return found
    allocated, reserved, process = (Range(size * 0.98, size, size * _REPEATS) for size in learnt.memory_gib)
    return replace(found, allocated=allocated, reserved=reserved, process=process)


def _fixes(work: Work, card: Card, count: int, *, spreads: bool) -> tuple[Fix | None, tuple[Fix, ...]]:
    """Find what to change, and beside it more cards or another one."""
    found = fixing.on_this_card(work, card, count)
    beside = (
        fixing.more_cards(work, card, count) if spreads else None,
        fixing.other_card(work, tuple(gpus.table().values()), card, count),
    )
    others = tuple(one for one in beside if one)
    return (found, others) if found else (others[0] if others else None, others[1:])


def _pace(work: Work, card: Card, count: int) -> tuple[Range, bool]:
    likely = count * work.micro_tokens / seconds(work, card, count).total
    usual = work.model.exact and not work.model.experts and work.model.kind not in HYBRID
    known = usual and (chip(card), method_of(work)) in KNOWN
    low, high = band(known=known)
    return Range(likely * low, likely, likely * high), known


def method_of(work: Work) -> str:
    """Name the method as the measurements do."""
    if work.task in {"classify", "pretrain"}:
        return work.task
    if work.trains_all:
        return "full"
    return {4: "qlora", 8: "lora8"}.get(work.bits, "lora")
