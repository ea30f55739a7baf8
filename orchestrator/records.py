"""What the ledger hands out: plain records of runs, events, leases and deeds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.cost import Interval, Spell, accrued, unsettled
from orchestrator.facts import Rules
from orchestrator.jobs import candidates_of
from orchestrator.words import Launch, is_unproven
from providers.base import Place, Proof, utc

if TYPE_CHECKING:
    from decimal import Decimal

    from orchestrator.facts import Memory, Wish
    from providers.base import Traits


@dataclass(frozen=True, slots=True)
class RunRow:
    """One run as the ledger holds it. Times are epoch seconds; money is USD."""

    run_id: str
    template: str
    provider: str
    created: float
    deadline: float
    ceiling: float
    grace_seconds: int
    max_attempts: int
    max_cost: Decimal | None
    worst: Decimal
    plan: dict[str, Any]
    memory: Memory
    seen: float | None = None
    skew: float = 0.0  # seconds that the vendor's clock is ahead of ours
    wish: Wish | None = None  # the extension that the user asked for last
    holders: tuple[dict[str, Any], ...] = ()  # who can stop the meter, as last read: providers.base.Holder as JSON
    ended: float | None = None
    lease_holder: str | None = None
    lease_epoch: int = 0
    lease_until: float | None = None
    spells: tuple[Spell, ...] = ()

    def rules(self, traits: Traits) -> Rules:
        """Give the limits and the vendor's pace in the life cycle's words."""
        return Rules(
            deadline=utc(self.deadline),
            ceiling=utc(self.ceiling),
            grace_seconds=self.grace_seconds,
            max_attempts=self.max_attempts,
            list_lag_seconds=traits.list_lag_seconds,
            boot_limit_seconds=traits.boot_limit_seconds,
            start_limit_seconds=traits.start_limit_seconds,
            max_cost=self.max_cost,
            candidates=candidates_of(self.plan),
            retry_seconds=traits.retry_seconds,
            ending_seconds=traits.ending_seconds,
            wait_until=None if not self.plan.get("wait_seconds") else utc(self.created + self.plan["wait_seconds"]),
            bare=bool(self.plan.get("adopted")),
            budget_bound=bool(self.plan.get("budget_bound")),
            needs_watchdog=_needs_watchdog(self.plan),
            wish=self.wish,
        )

    def accrued(self, now: float) -> Interval:
        """What it cost by `now`, epoch seconds of our own clock."""
        return accrued(self.bills, (self.ended or now) + self.skew)

    @property
    def bills(self) -> tuple[Spell, ...]:
        """All that billed or may have, a launch that nobody has settled yet too."""
        memory = self.memory
        if memory.launch is not Launch.INTENDED or memory.intended is None or memory.offer is None:
            return self.spells
        return (*self.spells, unsettled(memory.offer.price, memory.intended.timestamp()))

    def is_unproven(self, now: float) -> bool:
        """Whether it may bill though it should not; `now` is by our own clock. No bound is known of what it costs."""
        overdue = now + self.skew > self.ceiling and self.accrued(now).high > 0
        return is_unproven(self.memory.state, freed=self.memory.freed is not None, overdue=overdue)


def _needs_watchdog(plan: dict[str, Any]) -> bool:
    """Say whether money hangs on the machine's own holder alone, beside this computer, and the user took no risk."""
    if plan.get("accept_risk") or not any(one.price for one in candidates_of(plan)):
        return False
    places = {one["place"] for one in plan.get("holders", ()) if one["proof"] != Proof.ABSENT}
    return places - {Place.HERE} == {Place.MACHINE}


@dataclass(frozen=True, slots=True)
class Event:
    """One line of the append-only history."""

    time: float
    attempt: int
    actor: str
    verb: str
    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to act on a run; good while the ledger still holds this epoch."""

    run_id: str
    epoch: int
    actor: str = "controller"


@dataclass(slots=True)
class Deed:
    """A money verb under way: say how it ended."""

    text: str = ""
