"""A quote beside what came of it: memory, pace, stages, time and dollars of one run. Pure.

Like with like: stages under the names by which they are measured, the pace by the quote's own count of tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from orchestrator.estimate import words
from orchestrator.estimate.learnt import GROUPS, grouped
from orchestrator.render import duration, money, money_range

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from orchestrator.estimate.learnt import Measured, Span

_KINDS = ("allocated", "reserved", "process")


@dataclass(frozen=True, slots=True)
class Line:
    """One figure; None = not quoted, or not measured. GiB, tokens a second, seconds."""

    kind: str  # memory speed time stage
    what: str  # of several of a kind: allocated, training
    quoted: Span | None
    true: float | None

    def cells(self) -> tuple[str, str, str]:
        """Give name, plan and truth as text."""
        say = {"memory": _gib, "speed": _speed}.get(self.kind, _time)
        name = f"  {self.what}" if self.kind == "stage" else f"{self.kind} {self.what}".strip()
        return name, say(self.quoted), say(None if self.true is None else (self.true,))


def lines(quote: Mapping[str, Any], one: Measured | None, seconds: float) -> list[Line]:
    """Put the quote of a plan beside what its run measured; `seconds` is how long it took, or has so far."""
    whole = Line("time", "", _span(quote.get("seconds")), seconds)
    return [*_memory(quote, one), *_pace(quote, one), whole, *_stages(quote, one)]


def as_json(found: Sequence[Line]) -> list[dict[str, Any]]:
    """Give lines as plain values."""
    ends = ("low", "likely", "high")
    return [
        {
            "figure": f"{one.kind} {one.what}".strip(),
            "quoted": dict(zip(ends, one.quoted, strict=True)) if one.quoted else None,
            "true": one.true,
        }
        for one in found
    ]


def dollars(quote: Mapping[str, Any], low: Decimal, high: Decimal, worst: Decimal) -> tuple[str, str, str]:
    """Give the cost as quoted and as paid, between `low` and `high` where not all was witnessed.

    `worst` is what it may come to now: more than was quoted, once it was extended.
    """
    quoted, now = money(Decimal(quote["worst"])), money(worst)
    most = f"at most {now}" + (f" (quoted {quoted})" if now != quoted else "")
    if quote.get("likely") is None:
        return "cost", most, money_range(low, high)
    return "cost", f"{money_range(Decimal(quote['low']), Decimal(quote['likely']))}, {most}", money_range(low, high)


def _memory(quote: Mapping[str, Any], one: Measured | None) -> Iterator[Line]:
    quoted, true = quote.get("memory_gib") or {}, one.memory_gib if one else {}
    for kind in _KINDS:
        if kind in quoted or kind in true:
            yield Line("memory", kind, _span(quoted.get(kind)), true.get(kind))


def _pace(quote: Mapping[str, Any], one: Measured | None) -> Iterator[Line]:
    quoted, true = _span(quote.get("tokens_per_second")), (one.pace or one.tokens_per_second) if one else None
    if quoted or true:
        yield Line("speed", "", quoted, true)


def _stages(quote: Mapping[str, Any], one: Measured | None) -> Iterator[Line]:
    by_end = [grouped({name: each[end] for name, each in (quote.get("stages") or {}).items()}) for end in range(3)]
    true = one.stages if one else {}
    for name in (name for name in GROUPS if name in by_end[1] or name in true):
        quoted = (by_end[0][name], by_end[1][name], by_end[2][name]) if name in by_end[1] else None
        yield Line("stage", name, quoted, true.get(name))


def _span(values: Sequence[float] | None) -> Span | None:
    return (values[0], values[1], values[2]) if values else None


def _gib(values: Sequence[float] | None) -> str:
    return "" if values is None else f"{words.span(values, 1) if len(values) > 1 else f'{values[0]:.1f}'} GiB"


def _speed(values: Sequence[float] | None) -> str:
    return "" if values is None else words.speed(values) if len(values) > 1 else f"{values[0]:,.0f} tokens/s"


def _time(values: Sequence[float] | None) -> str:
    if values is None:
        return ""
    if len(values) == 1:
        return duration(values[0])
    low, likely, high = map(duration, values)
    return f"{likely} ({low}\u2013{high})"
