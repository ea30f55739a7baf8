"""A ledger with a past: two months, two providers, an end that nobody witnessed, a run that is under way."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

from orchestrator.cost import Spell
from orchestrator.facts import Memory
from orchestrator.home import Home
from orchestrator.ledger import Ledger
from orchestrator.records import RunRow
from orchestrator.words import Reason, State
from providers.base import Mark, Observation, Phase

if TYPE_CHECKING:
    from pathlib import Path

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
HELD = "elsewhere:1:1"  # a controller on another computer: nobody takes the run up


@dataclass
class Past:
    """Writes runs as controllers would have."""

    home: Home
    ledger: Ledger

    def admit(self, run_id: str, begun: datetime, *, provider: str = "lambda", **quote: str | None) -> None:
        asked = {"low": None, "likely": None, "worst": "3.00", "basis": "measured on 2 runs of yours", **quote}
        holder = {"name": "watchdog", "place": "machine", "proof": "unproven until start", "evidence": "starts with it"}
        plan = {
            "offer": {"provider": provider, "name": "gpu_1x_a10", "price": "1.20", "region": "us-east-1"},
            "account": "acct-1",
            "quote": asked,
            "holders": [holder],
        }
        stamp, end = begun.timestamp(), begun.timestamp() + 7200
        worst = Decimal(asked["worst"] or 0)
        self.ledger.admit(
            RunRow(run_id, "demo", provider, stamp, end, end, 60, 3, Decimal("2.50"), worst, plan, Memory()), begun
        )

    def rent(self, run_id: str, one: str, begun: datetime, *, provider: str = "lambda", price: str = "1.20") -> None:
        spell = Spell(Decimal(price), 60, begun.timestamp(), begun.timestamp() + 2, None, None)
        mark = Mark(self.ledger.home_id, run_id, 1, begun + timedelta(hours=2))
        self.ledger.open_allocation(one, mark, spell, provider=provider, account="acct-1")
        self.billing(one, begun + timedelta(seconds=2), provider=provider, price=price)

    def billing(self, one: str, at: datetime, *, provider: str = "lambda", price: str = "1.20") -> None:
        look = Observation(Phase.RUNNING, billing=True, evidence=f"GET {one} → active", price=Decimal(price))
        self.ledger.saw_billing(provider, one, at, look)

    def free(self, one: str, at: datetime, *, provider: str = "lambda") -> None:
        look = Observation(Phase.ABSENT, billing=False, evidence=f"GET /instances/{one} → terminated", ended=True)
        self.ledger.saw_free(provider, one, at, look)

    def save(self, run_id: str, memory: Memory, at: datetime) -> None:
        lease = self.ledger.acquire(run_id, HELD, at, lambda _: False)
        assert lease is not None
        self.ledger.save(lease, memory, at, looked=True)
        self.ledger._db.execute("UPDATE runs SET lease_until = 9e9")  # held for good: no command takes it up

    def whole(self, run_id: str, begun: datetime, seconds: float, **quote: str | None) -> None:
        """A run whose end was witnessed."""
        one, end = f"i-{run_id}", begun + timedelta(seconds=seconds)
        self.admit(run_id, begun, **quote)
        self.rent(run_id, one, begun)
        self.billing(one, end - timedelta(seconds=1))
        self.free(one, end)
        done = Memory(state=State.DONE, reason=Reason.COMPLETED, evidence=f"GET /instances/{one} → terminated")
        self.save(run_id, done, end + timedelta(seconds=3))


def past(root: Path) -> Past:
    home = Home(root).ensure()
    return Past(home, Ledger(home.ledger))


def two_months(root: Path) -> Past:
    """October: one across midnight of the month. November: one not witnessed, one under way, one on this computer."""
    made = past(root)
    made.whole("over-261031-aaaaaa", datetime(2026, 10, 31, 23, tzinfo=UTC), 7200, low="2.00", likely="2.10")
    begun = datetime(2026, 11, 20, 10, tzinfo=UTC)
    made.admit("asleep-261120-bbbbbb", begun)
    made.rent("asleep-261120-bbbbbb", "i-asleep", begun)
    made.billing("i-asleep", begun + timedelta(minutes=10))
    made.free("i-asleep", begun + timedelta(hours=2))
    lost = Memory(
        state=State.DONE, reason=Reason.LOST, detail="vanished", evidence="GET /instances/i-asleep → terminated"
    )
    made.save("asleep-261120-bbbbbb", lost, begun + timedelta(hours=2))
    made.admit("free-261121-cccccc", NOW - timedelta(days=1), provider="local", worst="0.00")
    made.save("free-261121-cccccc", Memory(state=State.DONE, reason=Reason.STOPPED, evidence="x"), NOW)
    made.admit("going-261122-dddddd", NOW - timedelta(minutes=30), low="0.50", likely="0.90")
    made.rent("going-261122-dddddd", "i-going", NOW - timedelta(minutes=30))
    made.billing("i-going", NOW - timedelta(seconds=30), price="1.50")
    made.save("going-261122-dddddd", Memory(state=State.RUNNING, allocation_id="i-going"), NOW)
    return made
