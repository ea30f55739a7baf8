"""`gpurun receipt`: what one run was quoted, what was paid, who could have stopped it, and each read-back of its end.

Out of the ledger alone, so that it says the same in a year. Times of the bill are by the vendor's clock, those of
events by this computer's. What is not witnessed is said to be so.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import ROUND_CEILING, Decimal
from itertools import groupby
from typing import TYPE_CHECKING, Any

from orchestrator.cost import NOTHING, Interval, accrued
from orchestrator.render import WIDTH, clean, duration, facts, moment, money, money_range, price, rfc3339, wrap
from orchestrator.words import has_begun, outcome_of, proof_words, verdict

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from orchestrator.ledger import Ledger
    from orchestrator.records import Event, RunRow
    from orchestrator.spending import Rented

_RULE = "─" * WIDTH
_COLUMN = 30  # of the evidence
_CENT = Decimal("0.01")


def _in_steps(seconds: int) -> str:
    return "by the second" if seconds == 1 else f"in begun steps of {duration(seconds)}"


@dataclass(frozen=True, slots=True)
class Receipt:
    """All that the ledger knows of one run's money."""

    home_id: str
    row: RunRow
    rented: tuple[Rented, ...]
    events: tuple[Event, ...]
    now: float  # by our clock

    @property
    def paid(self) -> Interval:
        """USD."""
        return self.row.accrued(self.now)

    @property
    def at_most(self) -> Decimal | None:
        """USD that it may come to; None where it bills though it should not: no bound is known."""
        row = self.row
        known = self.paid.high if row.memory.is_done else max(row.worst, self.paid.high)
        return None if row.is_unproven(self.now) else known

    def paid_for(self, one: Rented) -> Interval:
        """USD for one allocation."""
        return accrued([one.spell], (self.row.ended or self.now) + self.row.skew)

    @property
    def holders(self) -> list[dict[str, Any]]:
        """Who could stop it: as last read, and as planned where nothing was read of one."""
        read = list(self.row.holders)
        known = {one["name"] for one in read}
        return [*read, *(one for one in self.row.plan.get("holders", ()) if one["name"] not in known)]

    def as_json(self) -> dict[str, Any]:
        """Give it for programs."""
        row, memory = self.row, self.row.memory
        quote = row.plan.get("quote") or {}
        return {
            "run_id": row.run_id,
            "home": self.home_id,
            "as_of": rfc3339(self.now),
            "final": memory.is_done,
            "state": memory.state,
            "outcome": outcome_of(memory.reason) if memory.is_done and memory.reason else None,
            "reason": memory.reason,
            "provider": row.provider,
            "offer": (row.plan.get("offer") or {}).get("name"),
            "account": row.plan.get("account"),
            "quoted": {
                **{f"{name}_usd": _number(quote.get(name)) for name in ("low", "likely", "worst")},
                "basis": quote.get("basis"),
            },
            "paid_low_usd": self.paid.low,
            "paid_usd": self.paid.high,
            "at_most_usd": self.at_most,
            "allocations": [self._rented_json(one) for one in self.rented],
            "launched": rfc3339(row.created),
            "deadline": rfc3339(row.deadline),
            "ceiling": rfc3339(row.ceiling),
            "max_cost_usd": row.max_cost,
            "holders": self.holders,
            "evidence": memory.evidence or None,
            "ended": rfc3339(row.ended),
            "read_backs": [_event_json(one) for one in self.events if _is_of_the_end(one)],
            "extensions": [_event_json(one) for one in self.events if one.verb == "extend"],
            "notices": [_event_json(one) for one in self.events if one.verb == "notify" and one.kind != "intent"],
        }

    def _rented_json(self, one: Rented) -> dict[str, Any]:
        spell, paid = one.spell, self.paid_for(one)
        return {
            "id": one.id,
            "attempt": one.attempt,
            "account": one.account,
            "usd_per_hour": spell.price,
            "step_seconds": spell.step_seconds,
            "billed_from_earliest": rfc3339(spell.start_low),
            "billed_from_latest": rfc3339(spell.start_high),
            "last_seen_billing": rfc3339(spell.billing_seen),
            "billed_until_latest": rfc3339(spell.ended),
            "steps_least": _steps(paid.low, one),
            "steps_most": _steps(paid.high, one),
            "paid_low_usd": paid.low,
            "paid_usd": paid.high,
            "evidence": one.evidence or None,
        }


def read(ledger: Ledger, run_id: str, now: float) -> Receipt:
    """Read a run's receipt; `now` is by our clock."""
    rented, events = tuple(ledger.allocations(run_id)), tuple(ledger.events(run_id))
    return Receipt(ledger.home_id, ledger.run(run_id), rented, events, now)


def _number(text: str | None) -> Decimal | None:
    return None if text is None else Decimal(text)


def _event_json(one: Event) -> dict[str, Any]:
    when = rfc3339(one.time)
    return {
        "time": when,
        "attempt": one.attempt,
        "who": one.actor,
        "verb": one.verb,
        "kind": one.kind,
        "text": one.text,
    }


def _steps(usd: Decimal, one: Rented) -> int | None:
    """Begun billing steps; None where they cost nothing."""
    a_step = one.spell.price * one.spell.step_seconds / 3600
    return int((usd / a_step).quantize(Decimal("0.000001")).to_integral_value(ROUND_CEILING)) if a_step else None


def _is_of_the_end(one: Event) -> bool:
    if one.verb == "state":
        return one.text.startswith("terminating") or " -> done" in one.text
    return one.verb in {"terminate", "read", "guard"}


# ── for a person ────────────────────────────────────────────────────────────────────────────────


def screen(known: Receipt) -> str:
    """Lay it out, 80 columns wide."""
    parts = [
        f"{'gpurun receipt':<{WIDTH - 28}}{moment(known.now):>28}",
        _RULE,
        _head(known),
        _section("QUOTED", _quoted(known)),
        _section("PAID", _paid(known)),
        _section("LIMITS", _limits(known)),
        _section("WHO COULD STOP IT", _holders(known)),
        _section("READ BACK", "\n".join(_read_backs(known.events))),
        _section("TOLD", "\n".join(_told(known.events))),
        _RULE,
        _last(known),
    ]
    return "\n".join(part for part in parts if part)


def _section(title: str, body: str) -> str:
    return f"\n{title}\n{body}" if body else ""


def _head(known: Receipt) -> str:
    row, memory, offer = known.row, known.row.memory, known.row.plan.get("offer") or {}
    outcome = verdict(outcome_of(memory.reason), memory.reason) if memory.is_done and memory.reason else memory.state
    region = f", {offer['region']}" if offer.get("region") else ""
    return facts(
        [
            ("run", row.run_id),
            ("home", f"{known.home_id}, this ledger only"),
            ("on", f"{row.provider} {offer.get('name', '')}{region}"),
            ("account", str(row.plan.get("account") or "")),
            ("outcome", str(outcome)),
            ("why", "" if memory.reason == "completed" else clean(memory.detail)),
        ]
    )


def _quoted(known: Receipt) -> str:
    quote = known.row.plan.get("quote") or {}
    low, likely, worst = (_number(quote.get(name)) for name in ("low", "likely", "worst"))
    offered = _number((known.row.plan.get("offer") or {}).get("price"))
    return facts(
        [
            ("  low", "not known" if low is None else money(low // _CENT * _CENT or low)),
            ("  likely", "not known" if likely is None else money(likely)),
            ("  at most", "" if worst is None else money(worst)),
            ("  price", "" if offered is None else price(offered)),
            ("  basis", clean(str(quote.get("basis") or ""))),
        ]
    )


def _paid(known: Receipt) -> str:
    if not known.rented:
        unsettled = known.row.bills and f"  {_amount(known.paid, known=known)}: nobody knows yet what the launch made"
        return unsettled or "  $0.00: nothing was rented"
    blocks = [_block(known, one) for one in known.rented]
    if len(blocks) > 1:
        blocks.append(facts([("  total   ", _amount(known.paid, known=known))]))
    return "\n".join(blocks)


def _block(known: Receipt, one: Rented) -> str:
    spell, paid = one.spell, known.paid_for(one)
    return facts(
        [
            (f"  attempt {one.attempt}", clean(one.id)),
            ("  price", f"{price(spell.price)}, {_in_steps(spell.step_seconds)}"),
            ("  from", _between(spell.start_low, spell.start_high)),
            ("  until", _until(one, known)),
            ("  steps", _begun(paid, one)),
            ("  paid", _amount(paid, known=known)),
            ("  on the word", clean(one.evidence) or "of nobody yet"),
        ]
    )


def _between(low: float, high: float) -> str:
    return moment(low) if high - low < 1 else f"{moment(low)} at the earliest, {moment(high)[11:]} at the latest"


def _until(one: Rented, known: Receipt) -> str:
    spell = one.spell
    if spell.ended is None:
        seen = f"; seen billing at {moment(spell.billing_seen)}" if spell.billing_seen else ""
        return f"{'not proven' if known.row.memory.is_done else 'not ended yet'}{seen}"
    seen_at = spell.billing_seen or spell.start_high
    if spell.ended - seen_at <= spell.step_seconds:
        return moment(spell.ended)
    return f"{moment(spell.ended)} at the latest; last seen billing {moment(seen_at)}"


def _begun(paid: Interval, one: Rented) -> str:
    least, most = _steps(paid.low, one), _steps(paid.high, one)
    if most is None:
        return ""
    return f"{most}" if least == most else f"{least} to {most}"


def _amount(paid: Interval, *, known: Receipt) -> str:
    if paid == NOTHING:
        return "$0.00"
    unwitnessed = "" if paid.high - paid.low < _CENT else " (between: not all of it was witnessed)"
    return f"{money_range(paid.low, paid.high)}{unwitnessed}{'' if known.row.memory.is_done else ', so far'}"


def _limits(known: Receipt) -> str:
    row = known.row
    granted = [one for one in known.events if one.verb == "extend" and one.kind == "done"]
    return facts(
        [
            ("  launched", moment(row.created)),
            ("  deadline", f"{moment(row.deadline)}{', as extended' if granted else ''}"),
            ("  ceiling", moment(row.ceiling)),
            ("  budget", "" if row.max_cost is None else money(row.max_cost)),
            ("  at most", f"{money(row.worst)}, as extended" if granted else ""),
            ("  extension", "\n".join(_extension(one) for one in known.events if one.verb == "extend")),
        ]
    )


def _extension(one: Event) -> str:
    number, _, words = one.text.partition(": ")
    verb = {"intent": "asked", "done": "granted", "failed": "refused"}.get(one.kind, one.kind)
    return f"{_clock(one.time)} {verb}: {words or number}"


def _holders(known: Receipt) -> str:
    lines, memory = [], known.row.memory
    for one in known.holders:
        proof = proof_words(one, begun=has_begun(memory.state), over=memory.is_done)
        words = f": {clean(str(one['evidence']))}" if one.get("evidence") else ""
        lines.append(wrap(f"  {one['name']} ({one['place']}): {proof}{words}", indent="    "))
    return "\n".join(lines)


def _read_backs(events: Sequence[Event]) -> Iterator[str]:
    """Order the end's events by time; of an order only how it went, and what repeats once, with how often."""
    ends = [one for one in events if _is_of_the_end(one)]
    shown = [(one, _words(one, ends[:at])) for at, one in enumerate(ends) if not _was_answered(one, ends[at + 1 :])]
    for (verb, words), same in groupby(shown, key=lambda pair: (pair[0].verb, pair[1])):
        times = [one.time for one, _ in same]
        often = f" ({len(times)} times, until {_clock(times[-1])})" if len(times) > 1 else ""
        yield _line(times[0], verb, f"{words}{often}")


def _was_answered(one: Event, later: Sequence[Event]) -> bool:
    """Say whether an order's outcome follows, so that the intent needs no line."""
    following = next((each for each in later if each.verb == one.verb), None)
    return one.verb == "terminate" and one.kind == "intent" and following is not None and following.kind != "intent"


def _words(one: Event, before: Sequence[Event]) -> str:
    if one.verb == "state":  # from where to where, and on whose word
        parts = one.text.split(" · ")
        return " ".join(one.text.split()[:3]) + (f": {parts[-1]}" if len(parts) > 1 else "")
    if one.verb == "read":  # "i-1: GET /instances/i-1 → active"
        name, _, said = one.text.partition(": ")
        return said if name in said else one.text
    if one.verb != "terminate":
        return one.text
    ids = next((each.text for each in reversed(before) if each.verb == "terminate" and each.kind == "intent"), "")
    match one.kind:
        case "done":
            return f"accepted: {one.text or ids}"
        case "failed":
            return f"failed: {one.text}"
        case _:
            return f"ordered: {one.text}; no answer was noted"


def _told(events: Sequence[Event]) -> Iterator[str]:
    for one in events:
        if one.verb == "notify" and one.kind != "intent":
            key, _, where = one.text.partition(" ")
            yield _line(one.time, key, where if one.kind == "failed" else f"{where}: told")


def _line(at: float, verb: str, text: str) -> str:
    return wrap(f"  {_clock(at)}  {verb:<{_COLUMN - 21}}  {clean(text)}", indent=" " * _COLUMN)


def _clock(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%d %b %H:%M:%S}"


def _last(known: Receipt) -> str:
    row, memory, paid = known.row, known.row.memory, known.paid
    if memory.is_done:
        proof = clean(memory.evidence) or "nothing was launched"
        words = f"PAID {money_range(paid.low, paid.high)}. Nothing bills any more: {proof} (as of {moment(row.ended)})."
    elif memory.freed is not None:
        words = f"PAID {money_range(paid.low, paid.high)}. Nothing bills any more: {clean(memory.evidence)}."
    else:
        bound = f"; {money(row.worst)} was quoted" if known.at_most is None else f", at most {money(known.at_most)}"
        words = f"SO FAR {money_range(paid.low, paid.high)}{bound}. MAY STILL BILL."
    return wrap(words)
