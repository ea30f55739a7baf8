"""Waiting for something to rent: which offer is tried next, in rounds, until one is had or patience ends. Pure.

PENDING ──> the next candidate ──> refused? the one after it ──> all refused? a round over: wait, or give up
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

from orchestrator.facts import Decision
from orchestrator.words import Act, Launch, Reason, State
from providers.base import Offer, seconds_between

if TYPE_CHECKING:
    from datetime import datetime

    from orchestrator.facts import Memory, Rules, Seen


def try_next(memory: Memory, seen: Seen, now: datetime, rules: Rules) -> Decision:
    """Take the next offer, wait for the next round, or give up."""
    if memory.retry_at is not None and now < memory.retry_at:
        return Decision(memory, Act.WAIT)
    if memory.waiting_since is not None and rules.wait_until is not None and now >= rules.wait_until:
        return Decision(_gave_up(memory, memory.detail, now), Act.FINISH)  # slept, or could not look, past the end
    offers = rules.candidates if wants_planned(memory) else seen.offers
    if offers is None:
        return Decision(memory, Act.WAIT)
    left = [one for one in offers if one.name not in memory.refused and _is_agreed_to(one, rules)]
    if not left:
        over = _round_over(memory, memory.detail or "nothing is on offer", now, rules)
        return Decision(over, Act.FINISH if over.is_done else Act.WAIT)
    fresh = replace(memory, launch=Launch.INTENDED, intended=now, offer=left[0], retry_at=None, detail="")
    late = 0
    if memory.waiting_since is not None:  # whole seconds, as a mark tells them; the rest counts the next time
        late = int(seconds_between(memory.waiting_since, now))
        fresh = replace(fresh, waiting_since=memory.waiting_since + timedelta(seconds=late))
    return Decision(fresh.to(State.PROVISIONING, now), Act.LAUNCH, late)


def _is_agreed_to(offer: Offer, rules: Rules) -> bool:
    """Say whether it is like what the user was shown: as many GPUs, at no more than the dearest of it."""
    like = [one for one in rules.candidates if one.gpu_count == offer.gpu_count]
    return offer.price <= max((one.price for one in like), default=Decimal(-1))


def wants_planned(memory: Memory) -> bool:
    """Say whether the offers of the plan are fresh enough to be taken: at the first try they are."""
    return memory.attempt == 1 and memory.rounds == 0


def _round_over(memory: Memory, detail: str, now: datetime, rules: Rules) -> Memory:
    """Nothing could be had: wait for the next round while the user is ready to, else end."""
    again = now + timedelta(seconds=rules.retry_seconds)
    if rules.wait_until is not None and again < rules.wait_until:
        since = memory.waiting_since or now
        return replace(memory, detail=detail, refused=(), rounds=memory.rounds + 1, retry_at=again, waiting_since=since)
    return _gave_up(memory, detail, now)


def _gave_up(memory: Memory, detail: str, now: datetime) -> Memory:
    """End for want of capacity, and say what was tried."""
    tried = f"tried {', '.join(memory.refused)}" if memory.refused else ""
    rounds = f"asked {memory.rounds + 1} times" if memory.rounds else ""
    words = "; ".join(part for part in (detail, tried, rounds) if part)
    evidence = memory.evidence or "nothing was rented: the vendor refused it"
    return replace(memory, reason=Reason.NO_CAPACITY, detail=words, evidence=evidence).to(State.DONE, now)


def no_capacity(memory: Memory, detail: str, now: datetime, rules: Rules) -> Memory:
    """The vendor has none of this offer left: the next candidate comes, or the next round, or the end."""
    free = replace(memory, launch=Launch.NOT_YET, detail=detail).to(State.PENDING, now)
    if memory.offer is None:
        return _round_over(free, detail, now, rules)
    return replace(free, refused=(*memory.refused, memory.offer.name), offer=None)
