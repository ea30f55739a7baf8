"""What was paid: by run, provider and month, and day by day, beside what was quoted. Out of the ledger alone. Pure.

    ledger.runs() ──> entries ──> grouped (by run, provider, month) and periods (for the plot)

Everything stands at the price that was paid then, never at today's. Days and months are UTC. Where an end was not
witnessed the amount stays an interval. Not here: what bills now (accounts.py), the screens (bills.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from math import inf
from typing import TYPE_CHECKING, Any, Literal

from orchestrator.cost import NOTHING, Interval, charge
from orchestrator.render import rfc3339

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from orchestrator.cost import Spell
    from orchestrator.records import RunRow

By = Literal["run", "provider", "month"]
Unit = Literal["day", "month"]
MOST_DAYS = 31  # a plot of more is one of months


@dataclass(frozen=True, slots=True)
class Entry:
    """One run, or several under one name. Money is USD, times are epoch seconds."""

    name: str  # a run's id, a provider, a month
    runs: int
    provider: str  # "" = several
    first: float  # the first launch
    low: Decimal | None  # quoted; None = not known, for one of them at least
    likely: Decimal | None
    worst: Decimal
    paid: Interval
    unfinished: int = 0
    at_most: Decimal = Decimal(0)  # what the unfinished ones may come to, the paid of the others included
    unproven: int = 0  # of the unfinished ones, those that may bill though they should not: they know no bound
    state: str = ""  # of a single run

    def as_json(self, by: By) -> dict[str, Any]:
        """Give it for programs."""
        key = {"run": "run_id"}.get(by, by)
        return {
            key: self.name,
            **({"provider": self.provider, "state": self.state} if by == "run" else {}),
            "runs": self.runs,
            "first": rfc3339(self.first) if self.first else None,
            "quoted_low_usd": self.low,
            "quoted_likely_usd": self.likely,
            "quoted_worst_usd": self.worst,
            "paid_low_usd": self.paid.low,
            "paid_usd": self.paid.high,
            "unfinished": self.unfinished,
            "unproven": self.unproven,
            "at_most_usd": None if self.unproven else self.at_most,
        }


def entries(rows: Sequence[RunRow], by: By, now: float) -> list[Entry]:
    """Give one entry a run, provider or month; the newest first, providers by name."""
    each = [_entry(row, now) for row in rows]
    if by == "run":
        return sorted(each, key=lambda one: one.first, reverse=True)
    if by == "provider":
        names = sorted({one.provider for one in each})
        return [total([one for one in each if one.provider == name], name) for name in names]
    return _months(rows, each, now)


def total(each: Sequence[Entry], name: str = "total") -> Entry:
    """Sum entries."""
    providers = {one.provider for one in each}
    return Entry(
        name=name,
        runs=sum(one.runs for one in each),
        provider=providers.pop() if len(providers) == 1 else "",
        first=min((one.first for one in each), default=0.0),
        low=_sum(one.low for one in each),
        likely=_sum(one.likely for one in each),
        worst=sum((one.worst for one in each), Decimal(0)),
        paid=sum((one.paid for one in each), NOTHING),
        unfinished=sum(one.unfinished for one in each),
        unproven=sum(one.unproven for one in each),
        at_most=sum((one.at_most for one in each), Decimal(0)),
    )


def _sum(values: Iterable[Decimal | None]) -> Decimal | None:
    """What is not known of one is not known of all."""
    known = list(values)
    return None if not known or None in known else sum((one for one in known if one is not None), Decimal(0))


def _entry(row: RunRow, now: float) -> Entry:
    quote, paid, done = row.plan.get("quote") or {}, row.accrued(now), row.memory.is_done
    return Entry(
        name=row.run_id,
        runs=1,
        provider=row.provider,
        first=row.created,
        low=_dollars(quote.get("low")),
        likely=_dollars(quote.get("likely")),
        worst=_dollars(quote.get("worst")) or row.worst,
        paid=paid,
        unfinished=int(not done),
        unproven=int(row.is_unproven(now)),
        at_most=paid.high if done else max(row.worst, paid.high),
        state=(row.memory.reason or "done") if done else row.memory.state.value,
    )


def _dollars(text: str | None) -> Decimal | None:
    return None if text is None else Decimal(text)


def _months(rows: Sequence[RunRow], each: Sequence[Entry], now: float) -> list[Entry]:
    """A run and its quote count in the month of its launch; what it paid, in the months in which it billed."""
    paid = periods(rows, "month", now)
    launched = {one.name: _label(one.first, "month") for one in each}
    found = []
    for month in sorted({*paid, *launched.values()}, reverse=True):
        summed = total([one for one in each if launched[one.name] == month], month)
        spent = paid.get(month, NOTHING)
        more = summed.at_most - summed.paid.high  # that the unfinished ones may still come to
        found.append(_with(summed, spent, spent.high + more, _begin_of(month)))
    return found


def _with(entry: Entry, paid: Interval, at_most: Decimal, begin: float) -> Entry:
    from dataclasses import replace

    return replace(entry, paid=paid, at_most=at_most, first=entry.first or begin)


# ── day by day ──────────────────────────────────────────────────────────────────────────────────


def periods(rows: Iterable[RunRow], unit: Unit, now: float) -> dict[str, Interval]:
    """Give what was paid in each UTC day or month, "2026-11-22" or "2026-11"; only those in which something billed."""
    found: dict[str, Interval] = {}
    for row in rows:
        until = (row.ended or now) + row.skew
        for spell in row.bills:
            for label, paid in _split(spell, until, unit):
                found[label] = found.get(label, NOTHING) + paid
    return dict(sorted(found.items()))


def paid_until(rows: Iterable[RunRow], at: float) -> Decimal:
    """Give what was surely paid for the time before a moment, epoch seconds of our own clock."""
    spells = [(row, spell) for row in rows for spell in row.spells]
    return sum((_until(spell, inf, at + row.skew).low for row, spell in spells), Decimal(0))


def _split(spell: Spell, until: float, unit: Unit) -> Iterator[tuple[str, Interval]]:
    """Cut one allocation's bill at midnights; the parts add up to the whole, to the last begun step."""
    end = until if spell.ended is None else spell.ended
    begin, before = spell.start_low, NOTHING
    while begin < end or before is NOTHING:
        cut = _next(begin, unit)
        upto = _until(spell, until, cut if cut < end else inf)
        yield _label(begin, unit), Interval(upto.low - before.low, upto.high - before.high)
        begin, before = cut, upto


def _until(spell: Spell, until: float, cut: float) -> Interval:
    """What an allocation had cost by `cut`; whole where that is never."""
    end = until if spell.ended is None else spell.ended
    seen = max(spell.billing_seen or spell.start_high, spell.start_high)
    low = charge(spell.price, min(seen, cut) - spell.start_high, spell.step_seconds)
    return Interval(low, max(low, charge(spell.price, min(end, cut) - spell.start_low, spell.step_seconds)))


def _label(at: float, unit: Unit) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d}"[: 10 if unit == "day" else 7]


def _begin_of(month: str) -> float:
    return datetime.fromisoformat(f"{month}-01T00:00:00+00:00").timestamp()


def _next(at: float, unit: Unit) -> float:
    """The next midnight, or the first of the next month."""
    day = datetime.fromtimestamp(at, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if unit == "day":
        return day.timestamp() + 86400  # UTC has no summer
    return day.replace(year=day.year + day.month // 12, month=day.month % 12 + 1, day=1).timestamp()


def plotted(rows: Sequence[RunRow], now: float, *, by_month: bool) -> tuple[Unit, dict[str, Interval]]:
    """Choose days, or months where there are too many, and fill in those in which nothing was paid."""
    days = {} if by_month else periods(rows, "day", now)
    if by_month or len(_between(days, "day")) > MOST_DAYS:
        months = periods(rows, "month", now)
        return "month", {label: months.get(label, NOTHING) for label in _between(months, "month")}
    return "day", {label: days.get(label, NOTHING) for label in _between(days, "day")}


def _between(found: dict[str, Interval], unit: Unit) -> list[str]:
    """Name every day or month from the first to the last."""
    if not found:
        return []
    first, last = min(found), max(found)
    at, labels = _begin_of(first) if unit == "month" else _begin_of(first[:7]) + 86400 * (int(first[8:]) - 1), []
    while (label := _label(at, unit)) <= last:
        labels.append(label)
        at = _next(at, unit)
    return labels
