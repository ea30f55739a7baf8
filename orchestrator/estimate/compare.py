"""Every offer that could do one job, quoted: fits or why not, hours, dollars; cheapest, fastest and best value.

Pure: offers are handed in. Equal cards are estimated once; an offer costs microseconds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from orchestrator.cost import Bounds
from orchestrator.estimate import ask, fix
from orchestrator.estimate.learnt import NOTHING, Past, bare
from orchestrator.estimate.quote import FOUR_HOURS, estimate, usd
from orchestrator.render import duration

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import date

    from orchestrator.estimate.ask import Question
    from orchestrator.estimate.catalogue import Listed
    from orchestrator.estimate.gpus import Card
    from orchestrator.estimate.quote import Dollars, Estimate
    from orchestrator.estimate.work import Work

_MOST_HOURS = 720  # as config.py allows at most
_NONSENSE = 1e9  # seconds, 32 years: a measurement that can't be refuses nothing
# Who can end the billing with this computer asleep (design: "Who stops the meter").
STOPPERS = {
    "lambda": "this computer alone",
    "runpod": "the machine",
    "hf": "the vendor",
    "colab": "this computer alone",
    "local": "the machine",
}


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

    @property
    def late(self) -> bool:
        """It likely takes longer than the limits allow."""
        seconds = self.found.seconds
        return seconds is not None and seconds.likely > self.reach

    @property
    def hopeless(self) -> bool:
        """It takes longer than the limits allow even where all goes as well as it may."""
        seconds = self.found.seconds
        return seconds is not None and self.reach < seconds.low < _NONSENSE

    @property
    def too_dear(self) -> bool:
        """The budget buys no time at all there."""
        return self.dollars is not None and not self.dollars.worst and bool(self.offer.price)

    @property
    def reach(self) -> float:
        """Seconds that the limits allow here."""
        return self.found.bounds.ceiling(self.offer.price, self.offer.step_seconds)[0]

    def short(self) -> str:
        """Say which limit ends it first, and when."""
        bounds, reach = self.found.bounds, self.reach
        which = "time" if reach >= max(bounds.max_seconds, bounds.ceiling_seconds) else "budget"
        return f"the {which} ends after {duration(max(reach, 0.0))}"

    def longer(self) -> str:
        """Spell the limits with which it would be done, though it went slowly."""
        bounds, seconds = self.found.bounds, self.found.seconds
        if seconds is None:
            return ""
        if seconds.high > _MOST_HOURS * 3600:
            return f"train less: no run may last longer than {_MOST_HOURS} h"
        flags = []
        if seconds.high > max(bounds.max_seconds, bounds.ceiling_seconds):
            flags.append(f"--max-hours {math.ceil(seconds.high / 360) / 10:g}")
        if seconds.high > bounds.lasts(self.offer.price, self.offer.step_seconds):
            budget = bounds.enough(self.offer.price, math.ceil(seconds.high / 360) * 360, self.offer.step_seconds)
            flags.append(f"--max-cost {budget}")
        return " ".join(flags)

    def as_json(self, today: date, facts: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Give plain values; `facts` are those of its estimate, where they are at hand: many offers share one."""
        values = facts or self.found.as_json()
        wanted = ("fits", "fix", "measured", "memory_gib", "card_gib", "tokens_per_second", "hours")
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
            "late": self.late,
            **{name: values[name] for name in wanted},
            "usd": usd(self.dollars),
        }


@dataclass(frozen=True, slots=True)
class Known:
    """What else a quote rests on: the limits, what this home measured, and the name of the very same work."""

    bounds: Bounds = FOUR_HOURS
    past: Past = NOTHING
    same: str = ""


def compare(asked: Question, offers: Sequence[Listed], known: Known | float) -> list[Quoted]:
    """Quote every offer: those that fit by likely cost, then those that do not. A number is hours, the only limit."""
    if not isinstance(known, Known):
        known = Known(Bounds.of_hours(known))
    quote = Quoter(asked, known).quote
    found = [quote(offer) for offer in offers]
    fit = sorted((one for one in found if one.fits), key=by_cost)
    return [*_marked(fit), *(one for one in found if not one.fits)]


def quoted(asked: Question, offer: Listed, known: Known) -> Quoted:
    """Quote one offer."""
    return Quoter(asked, known).quote(offer)


class Quoter:
    """Quotes one job on many offers: what does not hang on the price is worked out once for a kind of offer."""

    def __init__(self, asked: Question, known: Known) -> None:
        self._asked, self._known = asked, known
        self._kinds: dict[tuple[str, int, str, str], tuple[Estimate, float, float, str]] = {}

    def quote(self, offer: Listed) -> Quoted:
        """Quote one offer."""
        name = bare(offer.name) if self._known.past else ""
        key = (offer.card.name, offer.count, offer.provider, name)
        kind = self._kinds.get(key)
        if kind is None:
            kind = self._kinds[key] = self._estimated(offer)
        found, disk, host, why = kind
        dollars = found.price(offer.rental(disk))
        if not why:
            why = _missing(offer, disk, host) or _too_dear(dollars, offer, self._known.bounds)
        return Quoted(offer, found, dollars, why)

    def _estimated(self, offer: Listed) -> tuple[Estimate, float, float, str]:
        asked, known = self._asked, self._known
        count = offer.count if asked.spreads else 1
        work = ask.for_card(asked.work, offer.card, count)
        found = estimate(
            work, offer.card, count, asked.amount,
            provider=offer.provider, packed=asked.packed, merge=asked.merge, bounds=known.bounds,
            learnt=known.past.learnt(work, offer.card, count, offer.kind, known.same),
            spreads=asked.spreads,
        )  # fmt: skip
        room = (found.room.disk_gib, found.room.host_gib) if found.room else (0.0, 0.0)
        return found, *room, _unfit(found, work)


def _too_dear(dollars: Dollars | None, offer: Listed, bounds: Bounds) -> str:
    if dollars is None or dollars.worst or not offer.price:
        return ""
    return f"a budget of more than ${bounds.max_cost:.2f}, at ${offer.price:.2f}/h"


def _unfit(found: Estimate, work: Work) -> str:
    """Say what a kind of card lacks; nothing where it has all."""
    if found.fits == fix.NO:
        return f"{found.memory.needed_gib:.0f} GiB of GPU memory, has {found.card.memory_gib:.0f}"
    return _unsuited(found.card, work)


def _missing(offer: Listed, disk_gib: float, host_gib: float) -> str:
    """Say what an offer lacks besides; what a vendor does not tell is not held against it."""
    if 0 < offer.disk_gib < disk_gib:
        return f"{disk_gib:.0f} GiB of disk, has {offer.disk_gib:.0f}"
    if 0 < offer.host_gib < host_gib:
        return f"{host_gib:.0f} GiB of host memory, has {offer.host_gib:.0f}"
    return ""


def _unsuited(card: Card, work: Work) -> str:
    if card.vendor == "amd" and work.bits < 16:
        return "bitsandbytes for CUDA, is an AMD card"
    if card.architecture in {"volta", "pascal"}:
        return "a card that current PyTorch still serves (Turing or newer)"  # its wheels dropped Volta (2.11)
    return ""


def by_cost(one: Quoted) -> tuple[Decimal, Decimal, str]:
    """Give what quotes are ordered by: likely cost, that of a token where nobody said how many there are."""
    cost = one.dollars.likely if one.dollars else one.offer.price / Decimal(one.found.tokens_per_second.likely)
    return cost, one.offer.price, one.offer.name


def _hours(one: Quoted) -> float:
    return one.found.seconds.likely if one.found.seconds else 1 / one.found.tokens_per_second.likely


def _marked(fit: list[Quoted]) -> list[Quoted]:
    """Mark the cheapest, the fastest, and the best value, least of cost times hours, of what is likely done in time."""
    done = [one for one in fit if not one.late]
    if not done:
        return fit
    best = {
        "cheapest": done[0],
        "fastest": min(done, key=_hours),
        "best value": min(done, key=lambda one: float(by_cost(one)[0]) * _hours(one)),
    }
    chosen = {id(one) for one in best.values()}
    return [
        replace(one, marks=tuple(name for name, it in best.items() if it is one)) if id(one) in chosen else one
        for one in fit
    ]


def frontier(fit: Sequence[Quoted]) -> list[Quoted]:
    """Those that nothing beats both in time and in cost, fastest first."""
    edge: list[Quoted] = []
    for one in sorted((one for one in fit if one.fits and one.dollars), key=_hours):
        if not edge or by_cost(one)[0] < by_cost(edge[-1])[0]:
            edge.append(one)
    return edge
