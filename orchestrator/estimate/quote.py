"""The price tag: memory, pace, hours and dollars of one work on one kind of card. Every part is a module of its own.

estimate(work, card, count, amount) -> Estimate          computed once for a kind of card
Estimate.price(rental)              -> Dollars           microseconds: one multiplication an offer
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from orchestrator.cost import charge
from orchestrator.estimate import fix as fixing
from orchestrator.estimate import gpus
from orchestrator.estimate.disk import Room, room
from orchestrator.estimate.footprint import Footprint, Range, footprint
from orchestrator.estimate.hours import Stages, stages
from orchestrator.estimate.speed import KNOWN, band, chip, seconds

if TYPE_CHECKING:
    from orchestrator.estimate.fix import Fix
    from orchestrator.estimate.gpus import Card
    from orchestrator.estimate.work import Amount, Work

_CENT = Decimal("0.01")
_HOUR = 3600.0
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
    max_seconds: float

    @property
    def seconds(self) -> Range | None:
        """From launch to the end of billing."""
        return self.stages.total if self.stages else None

    def price(self, rental: Rental) -> Dollars | None:
        """Price one offer; None while nobody said how much is trained."""
        if self.stages is None:
            return None
        total = self.stages.total
        rate, step, least = rental.price + rental.disk_usd_hour, rental.step_seconds, rental.least_seconds
        low, likely = (charge(rate, max(time, least), step) for time in (total.low, total.likely))
        most = charge(rate, max(self.max_seconds, least), step)
        return Dollars(min(low, most), min(likely, most), most.quantize(_CENT, ROUND_CEILING))

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
            "fix": str(self.fix) if self.fix else None,
            "other_fixes": [str(one) for one in self.others],
            "tokens_per_second": self.tokens_per_second.as_json(1),
            "speed_basis": "measured cards and methods"
            if self.known
            else "no measurement of this card, method and kind of model",
            "hours": _hours(self.stages),
            "usd": _usd(dollars),
            "disk_gib": _room(self.room),
            "parameters": {"total": self.work.model.parameters, "exact": self.work.model.exact},
        }


def _hours(found: Stages | None) -> dict[str, Any] | None:
    if found is None:
        return None
    total = found.total
    whole = Range(total.low / _HOUR, total.likely / _HOUR, total.high / _HOUR).as_json(3)
    return {
        **whole,
        "steps": found.steps,
        "stages": {name: round(likely) for name, (_, likely, _) in found.by_name.items()},
    }


def _usd(dollars: Dollars | None) -> dict[str, str] | None:
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
    max_seconds: float = 4 * _HOUR,
) -> Estimate:
    """Estimate one work on so many of one card. Kept: the same question is answered from memory."""
    memory = footprint(work, count, card.memory_gib)
    fits = fixing.verdict(memory, card.memory_gib)
    found = fixing.on_this_card(work, card, count) if fits != fixing.FITS else None
    others: tuple[Fix, ...] = ()
    if fits != fixing.FITS:
        beside = (
            fixing.more_cards(work, card, count),
            fixing.other_card(work, tuple(gpus.table().values()), card, count),
        )
        others = tuple(one for one in beside if one)
    pace, known = _pace(work, card, count)
    return Estimate(
        work=work,
        card=card,
        count=count,
        memory=memory,
        fits=fits,
        fix=found or (others[0] if others else None),
        others=others if found else others[1:],
        tokens_per_second=pace,
        known=known,
        stages=stages(work, amount, pace, count, provider, packed=packed) if amount else None,
        room=room(work, amount, merge=merge, gpus=count) if amount else None,
        max_seconds=max_seconds,
    )


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
