"""Runs of the past for tests of the screens: a ledger as controllers would have left it, and a way to run a command."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING

from orchestrator.cli import run
from orchestrator.cost import Spell
from orchestrator.facts import Memory
from orchestrator.ledger import Ledger
from orchestrator.records import RunRow
from orchestrator.words import Reason, State
from providers.base import Mark, Observation, Phase

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

NOW = time.time()


def admit(home: Path, run_id: str, memory: Memory, *, age: float = 60.0, ended: bool = False, price: str = "0") -> None:
    """Enter a run as a controller would have left it."""
    home.mkdir(exist_ok=True)
    ledger = Ledger(home / "ledger.sqlite")
    begun = NOW - age
    plan = {
        "offer": {"provider": "local", "name": "cpu", "price": price},
        "quote": {"worst": "3.00", "seconds_likely": None},
    }
    ledger.admit(
        RunRow(
            run_id=run_id, template="demo", provider="local", created=begun, deadline=NOW + 3600, ceiling=NOW + 3600,
            grace_seconds=60, max_attempts=3, max_cost=None, worst=Decimal("3.00"), plan={**plan, "holders": []},
            memory=Memory(), seen=None, ended=None, lease_holder=None, lease_epoch=0, lease_until=None, spells=(),
        ),
        datetime.fromtimestamp(begun, UTC),
    )  # fmt: skip
    moment = datetime.fromtimestamp(NOW - (5 if ended else 1), UTC)
    lease = ledger.acquire(run_id, "elsewhere:1:1", moment, lambda _: True)
    assert lease is not None
    if price != "0":
        spell = Spell(Decimal(price), 1, begun, begun, None, None)
        ledger.open_allocation(f"i-{run_id}", Mark("0000", run_id, 1, moment), spell, provider="local", account="a")
        for at in (datetime.fromtimestamp(begun, UTC), moment):
            ledger.saw_billing("local", f"i-{run_id}", at, Observation(Phase.RUNNING, billing=True, evidence=""))
    ledger.save(lease, memory, moment, looked=True)
    ledger.close()


def done(reason: Reason, detail: str = "", evidence: str = "not listed") -> Memory:
    return Memory(state=State.DONE, reason=reason, detail=detail, evidence=evidence, step=9)


def output(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str, str]:
    code = run(list(args))
    told = capsys.readouterr()
    return code, told.out, told.err
