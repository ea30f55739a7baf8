"""What a person reads of the guard: a pass, its status, the table of a sweep. Text out of values."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from orchestrator import guard_pulse
from orchestrator.guard import Kind, Post
from orchestrator.render import (
    LONGEST_RUN_ID,
    WIDTH,
    ago,
    clean,
    facts,
    fit,
    moment,
    paint,
    price,
    rfc3339,
    table,
    wrap,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.guard import Verdict
    from orchestrator.guard_afar import Afar
    from orchestrator.guard_here import Debt, Looked
    from orchestrator.guard_pulse import Pulse, Seen
    from orchestrator.guard_timer import Timer
    from providers.base import Allocation

_ORDER = tuple(Kind)
_WORDS = {Kind.OVERDUE: "OVERDUE", Kind.ORPHAN: "ORPHAN", Kind.FOREIGN: "also billing here"}


def pass_screen(pulse: Pulse, *, colour: bool = False) -> str:
    """One pass in lines: the verdict first."""
    head = fit(f"guard: {guard_pulse.summary(pulse)}", WIDTH)
    lines = [paint(head, "bad", colour=colour and not pulse.is_well)]
    for name, seen in pulse.providers.items():
        lines += [wrap(f"  {clean(line)}", indent="    ") for line in _of_provider(name, seen)]
    lines += [wrap(f"  this home: {clean(text)}", indent="    ") for text in pulse.troubles]
    if pulse.tended:
        lines.append(
            wrap(f"  nobody held {' '.join(pulse.tended)}: background controllers were started", indent="    ")
        )
    return "\n".join(lines)


def _of_provider(name: str, seen: Seen) -> list[str]:
    lines = [f"{name}: {_counts(seen)}"] if seen.counts is not None else []
    lines += [f"{name}: {text}" for text in seen.troubles]
    lines += [f"{name}: ended {one['name']} ({one['kind']}): {one['evidence']}" for one in seen.ended]
    lines += [f"{name}: NOT PROVEN GONE: {one['name']} ({one['kind']}), id {one['id']}" for one in seen.unproven]
    if seen.unproven and seen.console_url:
        lines.append(f"{name}: look at {seen.console_url}")
    lines += [f"{name}: {mark} is not in this home's ledger: left alone until its ceiling" for mark in seen.unknown]
    return lines + [f"{name}: {text}" for text in seen.notes]


def _counts(seen: Seen) -> str:
    told = [f"{seen.counts[kind]} {kind}" for kind in _ORDER if seen.counts and seen.counts.get(kind)]
    return f"{', '.join(told) or 'nothing bills'}, on {seen.account}"


def status_screen(pulse: Pulse | None, timer: Timer | None, now: float, afar: Afar | None = None) -> str:
    """`gpurun guard status`."""
    pairs = [("timer", _timer(timer)), *(("", str(path)) for path in (timer.files if timer else ()))]
    if afar is not None:
        from orchestrator import guard_afar

        pairs.append(("afar", "\n".join(guard_afar.lines(afar, now))))
    if pulse is None:
        return facts([*pairs, ("last pass", "none in this home")])
    stale = guard_pulse.staleness(pulse, now)
    told = "" if not stale else ": SILENT" if now > pulse.when else f": CAN'T TELL: {stale}"
    when = f"{ago(max(now - pulse.when, 0))}{told} ({moment(pulse.when)}, on {pulse.host})"
    seen = [line for name, one in pulse.providers.items() for line in _of_provider(name, one)]
    verdict = guard_pulse.summary(pulse)
    if stale:  # whatever it found, it says nothing about now
        verdict = f"CAN'T TELL: {stale}; when it last looked: {verdict}"
    return facts(
        [*pairs, ("last pass", when), ("verdict", verdict), ("saw", "\n".join(seen))]
        + [("this home", text) for text in pulse.troubles]
    )


def _timer(timer: Timer | None) -> str:
    if timer is None:
        return "none installed: gpurun guard install"
    return f"{timer.way}, each minute{f'; {timer.note}' if timer.note else ''}"


def status_json(pulse: Pulse | None, timer: Timer | None, now: float, afar: Afar | None = None) -> dict[str, Any]:
    """The pulse as it is, and beside it what runs the guard."""
    installed = None if timer is None else {"way": timer.way, "files": [str(path) for path in timer.files]}
    told = asdict(pulse) if pulse is not None else {}
    age = None if pulse is None else max(now - pulse.when, 0.0)
    there = {} if afar is None else {"afar": {**asdict(afar), "stale": afar.stale(now)}}
    return {**told, "installed": installed, "note": timer.note if timer else "", "age_seconds": age, **there}


# ── sweep ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def sweep_screen(looked: Sequence[Looked], owed: Sequence[Debt] = (), *, colour: bool = False) -> str:
    """Everything that bills on each account, what is to be ended first; `owed` stands on none of these lists."""
    rows = [(post.provider.name, verdict) for post in looked if isinstance(post, Post) for verdict in post.verdicts]
    rows.sort(key=lambda row: _ORDER.index(row[1].kind))
    cells = [_cells(where, verdict) for where, verdict in rows]
    head, *lines = table(("RUN", "VERDICT", "WHERE", "PRICE", "CEILING"), cells, right=(3,)).split("\n")
    told = [head] if cells else []
    for (_, verdict), line in zip(rows, lines, strict=True):
        told.append(paint(line, "bad", colour=colour and verdict.to_end))
    told += [paint(wrap(_owed(one), indent="  "), "bad", colour=colour) for one in owed]
    return "\n".join([*told, *(wrap(text, indent="  ") for text in unseen(looked))]) or "nothing bills"


def _owed(one: Debt) -> str:
    what = f"{clean(one.name)} ({one.kind}), id {clean(one.id)}"
    return f"{one.provider}: NOT PROVEN GONE: {what}: one list without it proves nothing: gpurun guard once"


def _cells(where: str, verdict: Verdict) -> tuple[str, ...]:
    one = verdict.allocation
    return _name(one), _word(verdict), where, _price(one), _end(one)


def unseen(looked: Sequence[Looked]) -> list[str]:
    """Say which accounts nobody could look at, and what is wrong with this home."""
    told = []
    for one in looked:
        name, why = (one.provider.name, one.trouble) if isinstance(one, Post) else (one[0], one[1].in_a_line)
        if why:
            blind = "" if name == guard_pulse.HOME else "CAN'T TELL: "
            told.append(f"{name}: {blind}{clean(why)}")
    return told


def _name(one: Allocation) -> str:
    if one.mark is None:
        return fit(clean(one.name or one.id), LONGEST_RUN_ID)
    return f"{one.mark.run_id} {one.mark.attempt}"


def _word(verdict: Verdict) -> str:
    word = _WORDS.get(verdict.kind, verdict.kind.value)
    return f"{word}, of another home" if verdict.kind is Kind.LIVE and not verdict.ours else word


def _price(one: Allocation) -> str:
    return "" if one.price is None else price(one.price)


def _end(one: Allocation) -> str:
    return "" if one.mark is None else f"{one.mark.ceiling:%d %b %H:%M} UTC"


def sweep_json(looked: Sequence[Looked], owed: Sequence[Debt], pulse: Pulse | None) -> dict[str, Any]:
    """The same for programs; `pulse` is the pass that ended what was to end, if one was made."""
    passed = pulse.providers.values() if pulse else ()
    return {
        "allocations": [
            _row(post.provider.name, verdict) for post in looked if isinstance(post, Post) for verdict in post.verdicts
        ],
        "unseen": unseen(looked),
        "ended": [one for seen in passed for one in seen.ended],
        "unproven": [one for seen in passed for one in seen.unproven] if pulse else [one._asdict() for one in owed],
        "guard": None if pulse is None else guard_pulse.summary(pulse),
    }


def _row(where: str, verdict: Verdict) -> dict[str, Any]:
    one = verdict.allocation
    return {
        "provider": where,
        "id": one.id,
        "name": one.name,
        "verdict": verdict.kind,
        "ours": verdict.ours,
        "run_id": None if one.mark is None else one.mark.run_id,
        "ceiling": None if one.mark is None else rfc3339(one.mark.ceiling.timestamp()),
        "price_usd_per_hour": one.price,
        "since": None if one.since is None else rfc3339(one.since.timestamp()),
        "console_url": one.console_url,
    }
