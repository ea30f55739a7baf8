"""One decision at a time: a memory, a look and a time go in; state, act, reason and words come out."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from orchestrator.facts import Decision, Memory, Rules, Seen
from orchestrator.lifecycle import decide
from orchestrator.words import Act, Launch, Reason, State
from providers.base import Observation, Offer, Phase, RemoteStatus

if TYPE_CHECKING:
    from collections.abc import Mapping

T0 = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
OFFER = Offer("fake", "a10@east", "a10", 1, Decimal("1.00"))
DEADLINE, GRACE, LAG = 3600.0, 120.0, 30.0
SAVE_BY = DEADLINE - GRACE + 5.0


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


RULES = Rules(
    deadline=at(DEADLINE),
    ceiling=at(DEADLINE),
    grace_seconds=GRACE,
    max_attempts=3,
    list_lag_seconds=LAG,
    boot_limit_seconds=600.0,
    start_limit_seconds=300.0,
    candidates=(OFFER,),
    ending_seconds=180.0,
)
ABSENT_TWICE = (at(0), at(LAG / 2))  # a third read, a lag after the first, is proof
STOP = {"stop_requested": True}
POOR = {"max_cost": Decimal("0.50")}
BOUND = {"budget_bound": True}
BARE = {"bare": True}


def in_state(state: State, entered: float | None = 0.0, **more: Any) -> Memory:
    """Remember an accepted allocation, in this state since so many seconds after T0."""
    known: dict[str, Any] = {"launch": Launch.ACCEPTED, "allocation_id": "m-1", "offer": OFFER, "intended": T0, **more}
    return Memory(state=state, entered=None if entered is None else at(entered), **known)


def look(phase: Phase, **more: Any) -> Observation:
    return Observation(phase, **{"billing": True, "evidence": "GET m-1", **more})


def saw(phase: Phase | None = None, remote: RemoteStatus | Phase | None = None, **more: Any) -> Seen:
    """See an allocation that bills, in this phase, and the machine, in its own words; None = could not look."""
    status = RemoteStatus(remote) if isinstance(remote, Phase) else remote
    return Seen(None if phase is None else look(phase), status, **more)


GONE = Seen(look(Phase.ABSENT, billing=False))
UP = saw(Phase.READY, Phase.READY)
TRAINS = saw(Phase.READY, Phase.RUNNING)


def step(memory: Memory, seen: Seen, seconds: float = 100.0, rules: Mapping[str, Any] | None = None) -> Decision:
    """Decide, and hold what is true of every decision."""
    now = at(seconds)
    decision = decide(memory, seen, now, replace(RULES, **(rules or {})))
    after = decision.memory
    if after.state is not memory.state:
        assert after.entered == now
        assert after.absences == (), "what was absent in the last state proves nothing in this"
    if decision.act is Act.TERMINATE:
        assert after.state is State.TERMINATING
        assert after.terminate_sent
    assert (decision.act is Act.FINISH) == after.is_done
    return decision


def told(decision: Decision) -> tuple[State, Act, Reason | None, str]:
    """Give what a person would be told of a decision."""
    return decision.memory.state, decision.act, decision.memory.reason, decision.memory.detail
