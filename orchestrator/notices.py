"""What is worth telling of a run, from its row and the time. Pure; notify.py remembers what was told and sends it.

Everything is judged from what *is*, never from what changed: a controller that was killed in between loses no notice.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from orchestrator.render import clean, duration, fit, moment, money, money_range
from orchestrator.words import Reason, State, outcome_of, verdict
from providers.base import Place, Proof, seconds_between, utc

if TYPE_CHECKING:
    from collections.abc import Collection
    from decimal import Decimal

    from orchestrator.cost import Interval
    from orchestrator.records import RunRow
    from providers.base import Traits

SHARES = (100, 80, 50)  # per cent of the budget
SILENT_SECONDS = 300.0  # a guard looks at least once a minute
_DEATHS = (Reason.LOST, Reason.FAILED, Reason.HUNG, Reason.DIVERGED)
_ENDING_SECONDS = 180.0  # where the vendor's own pace is not at hand
_HOUR = 3600
_LONGEST = 900  # characters of a notice's text


class Event(StrEnum):
    """What a notice is about."""

    END = "end"
    DEATH = "death"
    BUDGET = "budget"
    UNPROVEN = "unproven"  # an end that is not proven: it may still bill
    GUARD = "guard"
    TEST = "test"


@dataclass(frozen=True, slots=True)
class Notice:
    """One thing to tell; `key` holds no blank, and a key is told once."""

    key: str
    event: Event
    title: str
    text: str
    urgent: bool = False
    facts: dict[str, Any] = field(default_factory=dict)  # of the run, as JSON

    def as_json(self, now: datetime) -> dict[str, Any]:
        """Give what a webhook gets: every key is always there, null where it says nothing."""
        none: dict[str, Any] = dict.fromkeys(_FACTS)
        head = {"event": self.event, "key": self.key, "title": self.title, "text": self.text, "urgent": self.urgent}
        return {**head, "time": moment(now.timestamp()).replace(" UTC", "Z").replace(" ", "T"), **none, **self.facts}


_FACTS = (
    *("run_id", "provider", "state", "attempt", "outcome", "reason", "cost_low_usd", "cost_usd", "budget_usd"),
    *("folder", "evidence", "console_url"),
)


def worth_telling(row: RunRow, told: Collection[str], now: datetime, traits: Traits | None = None) -> list[Notice]:
    """Say what of a run should be told and was not; `now` is by our clock."""
    accrued = row.accrued(now.timestamp())
    facts = facts_of(row, accrued, traits)
    if row.memory.state is State.DONE:
        found = [_end(row, accrued, facts)]
    else:
        vendors = now.timestamp() + row.skew
        found = [*_deaths(row, facts), *_budget(row, accrued, told, facts), *_unproven(row, vendors, traits, facts)]
        found += _silent(row, now, facts)
    return [notice for notice in found if notice.key not in told]


def guard_is_silent(pulse: float | None, now: datetime) -> Notice | None:
    """Say that a guard which was there gives no sign; `pulse` is its last one, epoch seconds."""
    if pulse is None or now.timestamp() - pulse < SILENT_SECONDS:
        return None
    text = (
        f"Its last pass was at {moment(pulse)}, {duration(now.timestamp() - pulse)} ago. While it is silent, only a"
        " run's own controller and the other holders that its plan names stop the meter. Look: gpurun guard status"
    )
    return Notice(f"guard-silent-{int(pulse)}", Event.GUARD, "gpurun's guard is silent", text, urgent=True)


def _silent(row: RunRow, now: datetime, facts: dict[str, Any]) -> list[Notice]:
    """A guard elsewhere that the plan counted on and that shows no proof for a while."""
    found = []
    proven = {one["name"]: one.get("proven_at") for one in row.plan.get("holders", ())}
    for one in row.holders:
        last = one.get("proven_at") or proven.get(one["name"])
        if one["place"] != Place.ELSEWHERE or one["proof"] == Proof.PROVEN or last is None:
            continue
        took = seconds_between(datetime.fromisoformat(last), now)
        if took >= SILENT_SECONDS:
            lines = [
                f"Its last proof is {duration(took)} old: {one['evidence']}",
                f"Until it is back, others hold the meter: gpurun show {row.run_id}",
            ]
            key = f"silent-{one['name']}-{last}".replace(" ", "-")
            title = f"{row.run_id}: {one['name']} is silent"
            found.append(Notice(key, Event.GUARD, title, _lines(lines), urgent=True, facts=facts))
    return found


def guard_says(key: str, title: str, text: str, *, urgent: bool = True) -> Notice:
    """Make a notice of a guard's own: a provider that it can't reach, an allocation that it ended."""
    return Notice(f"guard-{key}".replace(" ", "-"), Event.GUARD, fit(clean(title), 120), _short(text), urgent=urgent)


def trial(now: datetime) -> Notice:
    """Make the notice that `gpurun config test-notify` sends."""
    text = (
        "This is what a notice looks like. A run's end, its death, its budget and a bill that may go on come this way."
    )
    return Notice(f"test-{int(now.timestamp())}", Event.TEST, "gpurun: a test", text)


def facts_of(row: RunRow, accrued: Interval, traits: Traits | None) -> dict[str, Any]:
    """Give a run's figures as JSON; money in USD."""
    memory = row.memory
    return {
        "run_id": row.run_id,
        "provider": row.provider,
        "state": memory.state.value,
        "attempt": memory.attempt,
        "outcome": outcome_of(memory.reason).value if memory.is_done and memory.reason else None,
        "reason": memory.reason.value if memory.reason else None,
        "cost_low_usd": float(accrued.low),
        "cost_usd": float(accrued.high),
        "budget_usd": float(_budget_of(row)),
        "folder": row.plan.get("folder"),
        "evidence": memory.evidence or None,
        "console_url": (traits.console_url if traits else "") or None,
    }


def _end(row: RunRow, accrued: Interval, facts: dict[str, Any]) -> Notice:
    memory = row.memory
    outcome, reason = facts["outcome"] or "over", memory.reason or ""
    lines = [
        "" if reason == Reason.COMPLETED else memory.detail,
        f"cost {money_range(accrued.low, accrued.high)}",
        f"results: {facts['folder']}" if facts["folder"] and row.spells else "",
        f"nothing bills any more: {memory.evidence}",
        f"gpurun receipt {row.run_id}",
    ]
    good = reason in {Reason.COMPLETED, Reason.STOPPED}
    return Notice("end", Event.END, f"{row.run_id} {verdict(outcome, reason)}", _lines(lines), not good, facts)


def _deaths(row: RunRow, facts: dict[str, Any]) -> list[Notice]:
    """Earlier attempts that were lost, by their signatures (one an attempt), and the present one."""
    memory = row.memory
    before = [(at, words) for at, words in enumerate(memory.signatures, 1) if at < memory.attempt]
    found = [_death(row, at, words, facts) for at, words in before if words.startswith(_DEATHS)]
    if memory.reason in _DEATHS and memory.state in {State.COLLECTING, State.TERMINATING}:
        words = f"{memory.reason}: {memory.detail}".removesuffix(": ")
        found.append(_death(row, memory.attempt, words, facts))
    return found


def _death(row: RunRow, attempt: int, words: str, facts: dict[str, Any]) -> Notice:
    then = "What there is comes home, then its billing is ended." if attempt == row.memory.attempt else "The next runs."
    again = "Another attempt follows." if row.memory.reroll and attempt == row.memory.attempt else ""
    title = f"{row.run_id}: attempt {attempt} {words.partition(':')[0]}"
    return Notice(f"death-{attempt}", Event.DEATH, title, _lines([words, then, again]), urgent=True, facts=facts)


def _budget_of(row: RunRow) -> Decimal:
    return row.worst if row.max_cost is None else row.max_cost


def _budget(row: RunRow, accrued: Interval, told: Collection[str], facts: dict[str, Any]) -> list[Notice]:
    """The highest share that was passed; the lower ones are not worth telling any more."""
    budget = _budget_of(row)
    passed = [share for share in SHARES if budget > 0 and accrued.high * 100 >= budget * share]
    if not passed or any(f"budget-{share}-of-{budget}" in told for share in SHARES if share >= passed[0]):
        return []
    whose = "its budget" if row.max_cost is not None else "the worst case that was quoted"
    lines = [
        f"{money_range(accrued.low, accrued.high)} of {money(budget)}, {whose}.",
        f"It ends by {moment(row.deadline)}; sooner: gpurun stop {row.run_id}",
    ]
    title = f"{row.run_id} has used {passed[0]} % of {money(budget)}"
    return [Notice(f"budget-{passed[0]}-of-{budget}", Event.BUDGET, title, _lines(lines), passed[0] > 50, facts)]


def _unproven(row: RunRow, vendors: float, traits: Traits | None, facts: dict[str, Any]) -> list[Notice]:
    """An end that takes longer than its vendor's ends do; the key changes once an hour."""
    memory = row.memory
    if memory.state is not State.TERMINATING or memory.entered is None or memory.freed is not None:
        return []
    took = seconds_between(memory.entered, utc(vendors))
    over = took - (traits.ending_seconds + traits.list_lag_seconds if traits else _ENDING_SECONDS)
    if over <= 0:
        return []
    ids = " ".join(one for one in (memory.allocation_id, *memory.extra_ids) if one)
    where = facts["console_url"] or f"gpurun show {row.run_id}"
    lines = [
        f"Its end was ordered {duration(took)} ago and is not proven. At most {money(row.worst)} was quoted.",
        memory.evidence or memory.detail,
        f"{row.provider} {ids}: look, and end it by hand if need be: {where}",
    ]
    key = f"unproven-{memory.attempt}-{int(over // _HOUR)}"
    return [Notice(key, Event.UNPROVEN, f"{row.run_id} MAY STILL BILL", _lines(lines), urgent=True, facts=facts)]


def _lines(lines: list[str]) -> str:
    return _short("\n".join(clean(line) for line in lines if line))


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
