"""`gpurun offers` and `gpurun compare`, laid out: tables of 80 columns, JSON, a drawing."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from orchestrator.cloud import FREE
from orchestrator.cost import Bounds
from orchestrator.estimate import answer, gpus
from orchestrator.estimate.catalogue import COMMUNITY
from orchestrator.estimate.compare import Known, compare
from orchestrator.estimate.scatter import svg
from orchestrator.market import market, of_provider
from orchestrator.measuring import past
from orchestrator.render import money, price, table, to_json, wrap
from providers.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.estimate.catalogue import Listed
    from orchestrator.estimate.compare import Quoted
    from orchestrator.home import Home
    from orchestrator.market import Market
    from orchestrator.templates import Template

_FREE = {True: "yes", False: "no", None: "?"}
_SIGNS = {"cheapest": "$", "fastest": "»", "best value": "*"}
_STOPPERS = {"lambda": "nobody", "runpod": "itself", "hf": "vendor", "colab": "nobody", "local": "itself"}
_LEGEND = """\
$ cheapest  » fastest  * best value; GIB: used of what a card has, ! = tight;
HOURS, LIKELY: the likely quote, ! = longer than the limits allow;
LOW-WORST: from low to what the limits allow;
SEEN: the price's age, + free now, - sold out;
STOPS: who can end the billing while this computer sleeps"""
_MOST_REASONS = 6


def wished(
    found: Market, gpu: str | None, provider: str | None, min_vram: float, max_price: float | None, *, available: bool
) -> Market:
    """Keep what was asked for.

    Raises:
        UsageError: no GPU or provider is called that.
    """
    if provider:
        found = _only(found, provider)
    cards = set(gpus.family(gpu) or (gpus.card(gpu),)) if gpu else None
    kept = [
        one
        for one in found.offers
        if (cards is None or one.card in cards)
        and one.card.memory_gib >= min_vram * 0.93  # a 24 GB card reports less
        and (max_price is None or one.price <= max_price)
        and (not available or one.available)
    ]
    unasked = available and all(one.available is None for one in found.offers)
    words = "nobody was asked what is free: no vendor's key is at hand; next: gpurun login lambda"
    return replace(found, offers=tuple(kept), notes=(*found.notes, *([words] if unasked else [])))


def _only(found: Market, provider: str) -> Market:
    if provider == "local":
        raise UsageError("local is free and has no offers", hint="gpurun launch demo --provider local --dry-run")
    names = sorted({one.provider for one in found.offers})
    if provider not in names:
        raise UsageError(f"no provider is called {provider!r}", hint=f"there are: {', '.join(names)}")
    return of_provider(found, provider)


def of_own_clouds(found: Market) -> Market:
    """Leave strangers' machines out: a launch takes them only with --cloud community."""
    own = tuple(one for one in found.offers if one.cloud not in {COMMUNITY, FREE})
    left = sum(one.cloud == COMMUNITY for one in found.offers)
    note = f"{left} offers on strangers' machines are left out: launch takes them only with --cloud community"
    return replace(found, offers=own, notes=(*found.notes, *([note] if left else [])))


def cards(one: Listed) -> str:
    """`a10`, `2 × a10`."""
    return f"{one.count} × {one.card.name}" if one.count > 1 else one.card.name


def age(one: Listed, found: Market) -> str:
    """How old a price is: `now`, `49 d`, `>0 d` where nobody dated it."""
    days = one.age_days(found.today)
    return "now" if one.confidence == "live" else f"{days} d" if one.as_of else f">{days} d"


def listing(found: Market) -> str:
    """Show offers as a table."""
    if not found.offers:
        return "\n".join(["nothing on offer is like that", *_told(found.notes)])
    rows = [
        (
            one.provider,
            f"{one.name}@{COMMUNITY}" if one.cloud == COMMUNITY and "@" not in one.name else one.name,
            cards(one),
            f"{one.card.memory_gib:.0f}",
            price(one.price),
            _FREE[one.available],
            age(one, found),
        )
        for one in found.offers
    ]
    head = ("PROVIDER", "OFFER", "GPU", "GIB", "PRICE", "FREE", "SEEN")
    return "\n".join([table(head, rows, right=(3, 4, 6)), *_told(found.notes)])


def _told(notes: tuple[str, ...] | list[str]) -> list[str]:
    return [wrap(f"note: {note}", indent="  ") for note in notes]


def offers_json(found: Market) -> list[dict[str, Any]]:
    """Give offers as plain values."""
    return [
        {
            "provider": one.provider,
            "name": one.name,
            "gpu": one.card.name,
            "gpu_count": one.count,
            "vram_gib": round(one.card.memory_gib, 2),
            "usd_per_hour": str(one.price),
            "units_per_hour": str(one.units_hour) if one.units_hour else None,
            "cloud": one.cloud,
            "available": one.available,
            "as_of": one.as_of.isoformat() if one.as_of else None,
            "age_days": one.age_days(found.today),
            "confidence": one.confidence,
            "source": one.source,
            "note": one.note,
        }
        for one in found.offers
    ]


@dataclass(frozen=True, slots=True)
class Comparison:
    """One job on every offer."""

    quoted: list[Quoted]
    market: Market
    title: str
    notes: list[str]

    @classmethod
    def of(cls, home: Home, template: Template | None, *, plot: Path | None, refresh: bool, **said: Any) -> Comparison:
        """Quote every offer, and draw them where a file is named."""
        gpu, provider, limit = said.pop("gpu"), said.pop("provider"), said.pop("max_hours")
        asked, notes = answer.question(answer.Flags(gpu=gpu or "", **said), template)
        found = of_own_clouds(wished(market(home, refresh=refresh), gpu, provider, 0.0, None, available=False))
        known = Known(Bounds.of(template.settings.limits if template else None, limit), past(home))
        made = cls(compare(asked, found.offers, known), found, asked.work.model.name, notes)
        if plot:
            made.draw(plot)
        return made

    def draw(self, path: Path) -> None:
        """Write the drawing.

        Raises:
            UsageError: the file's kind can't be drawn here.
        """
        if path.suffix == ".svg":
            path.write_text(svg(self.quoted, f"{self.title}: cost against time"), encoding="utf-8")
            return
        if path.suffix != ".png":
            raise UsageError(f"{path.name} is no drawing", hint="--plot offers.svg or offers.png")
        try:
            from cairosvg import svg2png  # type: ignore[import-not-found]
        except ImportError as error:
            raise UsageError("a PNG needs the package cairosvg", hint="--plot offers.svg needs nothing") from error
        svg2png(bytestring=svg(self.quoted, f"{self.title}: cost against time").encode(), write_to=str(path))

    def json_text(self) -> str:
        """Give JSON, an offer a line."""
        facts = {id(one.found): one.found.as_json() for one in {id(one.found): one for one in self.quoted}.values()}
        rows = (to_json(one.as_json(self.market.today, facts[id(one.found)]), indent=None) for one in self.quoted)
        return "[\n" + ",\n".join(rows) + "\n]"

    def page(self) -> str:
        """Show what fits as a table, and below it what does not and why."""
        fit = [one for one in self.quoted if one.fits]
        if not fit:
            parts = [f"nothing on offer can do {self.title} as it is"]
        else:
            head = ("", "VENDOR", "GPU", "GIB", "HOURS", "LIKELY", "LOW-WORST", "$/H", "SEEN", "STOPS")
            parts = [table(head, self._rows(fit), right=(3, 4, 5, 6, 7, 8)), _LEGEND]
        return "\n".join([*parts, *self._left_out(), *_told([*self.notes, *self.market.notes])])

    def _rows(self, fit: list[Quoted]) -> list[tuple[str, ...]]:
        """Give a line each; data centers that would read the same share one."""
        signs: dict[tuple[str, ...], str] = {}
        for sign, *cells in map(self._row, fit):
            signs[tuple(cells)] = signs.get(tuple(cells), "") + sign
        return [(sign, *cells) for cells, sign in signs.items()]

    def _row(self, one: Quoted) -> tuple[str, ...]:
        hours = f"{one.found.seconds.likely / 3600:.2f}" if one.found.seconds else "?"
        hours += "!" if one.late else ""
        likely = money(one.dollars.likely) if one.dollars else "?"
        span = f"{one.dollars.low:.2f}-{one.dollars.worst:.2f}" if one.dollars else "?"
        used = f"{one.found.memory.process.likely:.0f}/{one.offer.card.memory_gib:.0f}"
        used += "!" if one.found.fits == "tight" else ""
        signs = "".join(_SIGNS[mark] for mark in one.marks)
        seen = age(one.offer, self.market).replace(" ", "") + {True: "+", False: "-", None: ""}[one.offer.available]
        rest = (price(one.offer.price).removeprefix("$").removesuffix("/h"), seen, _STOPPERS[one.offer.provider])
        return (signs, one.offer.provider, cards(one.offer), used, hours, likely, span, *rest)

    def _left_out(self) -> list[str]:
        reasons = Counter((cards(one.offer), one.why) for one in self.quoted if not one.fits)
        if not reasons:
            return []
        shown = [f"  {name}: needs {why}" for name, why in list(reasons)[:_MOST_REASONS]]
        more = len(reasons) - len(shown)
        return [
            "does not fit:",
            *(wrap(line, indent="    ") for line in shown),
            *([f"  and {more} more"] if more else []),
        ]
