"""What the ledger hands out: plain records of runs, events, leases and deeds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.cost import Interval, Spell, accrued

if TYPE_CHECKING:
    from decimal import Decimal

    from orchestrator.lifecycle import Memory


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
    ended: float | None = None
    lease_holder: str | None = None
    lease_epoch: int = 0
    lease_until: float | None = None
    spells: tuple[Spell, ...] = ()

    def accrued(self, now: float) -> Interval:
        """What it cost by `now`."""
        return accrued(self.spells, self.ended or now)


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
