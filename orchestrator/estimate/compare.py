"""Every offer that could do one job, quoted: fits or why not, hours, dollars; cheapest, fastest and best value.

Pure: offers are handed in. Equal cards are estimated once; an offer costs microseconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from orchestrator.estimate import ask, fix
from orchestrator.estimate.quote import estimate

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import date
    from decimal import Decimal

    from orchestrator.estimate.ask import Question
    from orchestrator.estimate.catalogue import Listed
    from orchestrator.estimate.gpus import Card
    from orchestrator.estimate.quote import Dollars, Estimate
    from orchestrator.estimate.work import Work

# Who can end the billing with this computer asleep (design: "Who stops the meter").
STOPPERS = {
    "lambda": "this computer alone",
    "runpod": "the machine",
    "hf": "the vendor",
    "colab": "the machine",
    "local": "the machine",
}
_for_card = lru_cache(maxsize=4096)(ask.for_card)


@dataclass(frozen=True, slots=True)
class Quoted:
    """One offer with its quote. `why` says what is missing where it does not fit."""

    offer: Listed
    found: Estimate
    dollars: Dollars | None
    why: str
    marks: tuple[str, ...] = ()

    @property
    def fits(self) -> bool:
        """The job can run there."""
        return not self.why

    def as_json(self, today: date) -> dict[str, Any]:
        """Give plain values."""
        values = self.found.as_json(self.offer.rental(_disk(self.found)))
        wanted = ("fits", "fix", "memory_gib", "card_gib", "tokens_per_second", "hours", "usd")
        return {
            "provider": self.offer.provider,
            "offer": self.offer.name,
            "gpu": self.offer.card.name,
            "gpu_count": self.offer.count,
            "usd_per_hour": str(self.offer.price),
            "available": self.offer.available,
            "price_age_days": self.offer.age_days(today),
            "price_source": self.offer.source,
            "who_stops_the_meter": STOPPERS.get(self.offer.provider, ""),
            "marks": list(self.marks),
            "why_not": self.why or None,
            **{name: values[name] for name in wanted},
        }


def compare(asked: Question, offers: Sequence[Listed], max_hours: float) -> list[Quoted]:
    """Quote every offer: those that fit by likely cost, then those that do not."""
    quoted = [_quoted(asked, offer, max_hours) for offer in offers]
    fit = sorted((one for one in quoted if one.fits), key=_by_cost)
    return [*_marked(fit), *(one for one in quoted if not one.fits)]


def _quoted(asked: Question, offer: Listed, max_hours: float) -> Quoted:
    found = estimate(
        _for_card(asked.work, offer.card, offer.count), offer.card, offer.count, asked.amount,
        provider=offer.provider, packed=asked.packed, merge=asked.merge, max_seconds=max_hours * 3600,
    )  # fmt: skip
    return Quoted(offer, found, found.price(offer.rental(_disk(found))), _missing(found, offer, asked.work))


def _disk(found: Estimate) -> float:
    return found.room.disk_gib if found.room else 0.0


def _missing(found: Estimate, offer: Listed, work: Work) -> str:
    """Say what an offer lacks; nothing where it has all."""
    if found.fits == fix.NO:
        return f"{found.memory.process.likely:.0f} GiB of GPU memory, has {offer.card.memory_gib:.0f}"
    if unsuited := _unsuited(offer.card, work):
        return unsuited
    if found.room and 0 < offer.disk_gib < found.room.disk_gib:
        return f"{found.room.disk_gib:.0f} GiB of disk, has {offer.disk_gib:.0f}"
    if found.room and 0 < offer.host_gib < found.room.host_gib:
        return f"{found.room.host_gib:.0f} GiB of host memory, has {offer.host_gib:.0f}"
    return ""


def _unsuited(card: Card, work: Work) -> str:
    if card.vendor == "amd" and work.bits < 16:
        return "bitsandbytes for CUDA, is an AMD card"
    if card.architecture in {"volta", "pascal"}:
        return "a card that current PyTorch still serves (Turing or newer)"  # its wheels dropped Volta (2.11)
    return ""


def _by_cost(one: Quoted) -> tuple[Decimal, Decimal, str]:
    cost = one.dollars.likely if one.dollars else one.offer.price
    return cost, one.offer.price, one.offer.name


def _hours(one: Quoted) -> float:
    return one.found.stages.total.likely if one.found.stages else 1 / one.found.tokens_per_second.likely


def _marked(fit: list[Quoted]) -> list[Quoted]:
    """Mark the cheapest, the fastest, and the best value: least of cost times hours."""
    if not fit:
        return []
    best = {
        "cheapest": fit[0],
        "fastest": min(fit, key=_hours),
        "best value": min(fit, key=lambda one: float(_by_cost(one)[0]) * _hours(one)),
    }
    from dataclasses import replace

    return [replace(one, marks=tuple(name for name, chosen in best.items() if chosen is one)) for one in fit]


def frontier(fit: Sequence[Quoted]) -> list[Quoted]:
    """Those that nothing beats both in time and in cost, fastest first."""
    found: list[Quoted] = []
    for one in sorted((one for one in fit if one.fits and one.dollars), key=_hours):
        if not found or _by_cost(one)[0] < _by_cost(found[-1])[0]:
            found.append(one)
    return found
