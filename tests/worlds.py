"""One run on the fake cloud, driven by hand: controllers that die at any line, and the laws they must keep."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from fakes import OFFER, START, Clock, FakeCloud

from orchestrator.controller import Controller
from orchestrator.facts import Memory
from orchestrator.home import Home
from orchestrator.jobs import JobFile
from orchestrator.ledger import Ledger
from orchestrator.plan import _plain
from orchestrator.records import RunRow
from orchestrator.words import State
from providers.errors import LeaseLostError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from providers.base import Offer

from dataclasses import asdict

RUN = "demo-261122-abcdef"
FAST = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # every write of the ledger waits for the disk


class Killed(BaseException):
    """kill -9 of the controller: no error, so nothing may catch it."""


@dataclass
class Killer:
    """Counts the places where a process can die, and dies at the chosen ones."""

    at: set[int] = field(default_factory=set)
    passed: int = 0

    def __call__(self) -> None:
        self.passed += 1
        if self.passed in self.at:
            raise Killed


class Brittle:
    """Wraps an object so that the process may die right before and right after each of its calls."""

    def __init__(self, inner: Any, killer: Killer) -> None:
        self._inner, self._killer = inner, killer

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._inner, name)
        if not callable(value) or name == "deed":
            return value

        def call(*args: Any, **named: Any) -> Any:
            self._killer()
            result = value(*args, **named)
            self._killer()
            return Brittle(result, self._killer) if name == "remote" else result

        return call


class World:
    """A home, a cloud and a clock."""

    def __init__(
        self,
        root: Path,
        *,
        hours: float = 0.1,
        max_attempts: int = 3,
        max_cost: Decimal | None = None,
        candidates: tuple[Offer, ...] = (OFFER,),
        wait_seconds: float = 0.0,
        plan: Mapping[str, Any] | None = None,
    ) -> None:
        self.clock = Clock()
        self.cloud = FakeCloud(self.clock)
        self.home = Home(root / "home").ensure()
        self.ledger = Ledger(self.home.ledger)
        self.killer = Killer()
        self.controllers = 0
        self.run_id = RUN
        folder = self.home.run(RUN)
        folder.path.mkdir(parents=True, exist_ok=True)
        folder.bundle.write_bytes(b"")
        JobFile(("{python}", "x.py"), (), 60, ()).write(folder)
        seconds = hours * 3600
        start, end = START.timestamp(), START.timestamp() + seconds
        self.cloud.stock = list(candidates)
        facts = {
            "candidates": [_plain(asdict(one)) for one in candidates],
            "account": self.cloud.account(),
            "gpu": "a10",
            "wait_seconds": wait_seconds,
            **(plan or {}),
        }
        grace = int(seconds / 5)
        row = RunRow(RUN, "demo", "fake", start, end, end, grace, max_attempts, max_cost, Decimal(1), facts, Memory())
        self.ledger.admit(row, self.clock())

    @property
    def row(self) -> RunRow:
        return self.ledger.run(self.run_id)

    @property
    def memory(self) -> Memory:
        return self.row.memory

    def controller(self) -> Controller:
        """A new controller process that takes the lease from the last, which is dead."""
        self.controllers += 1
        ledger = Brittle(self.ledger, self.killer)
        lease = self.ledger.acquire(self.run_id, f"host:{self.controllers}:1", self.clock(), lambda _holder: False)
        return Controller(self.home, ledger, Brittle(self.cloud, self.killer), lease, clock=self.clock)

    def drive(self, *, until: Callable[[], bool] | None = None, most_seconds: float = 7200) -> None:
        """Tick controllers, a new one after each kill, until the run is done (or `until` holds)."""
        controller = None
        while (self.clock() - START).total_seconds() < most_seconds:
            if self.memory.is_done or (until is not None and until()):
                return
            try:
                controller = controller or self.controller()
                controller.run(self._pause_once)
            except Killed:
                controller = None
                self.clock.advance(3)
            except Paused:
                continue
            except LeaseLostError:
                controller = None

    def _pause_once(self, seconds: float) -> None:
        self.clock.advance(seconds)
        raise Paused

    # ── the laws ────────────────────────────────────────────────────────────────────────────────

    def check_ended(self) -> None:
        """Every history ends once, with nothing billing, on somebody's word, within the ledger's interval."""
        memory = self.memory
        assert memory.state is State.DONE, f"still {memory}"
        assert self.cloud.billing_now == [], "something bills"
        assert memory.evidence, "done on nobody's word"
        assert memory.reason is not None
        interval = self.row.accrued(self.clock().timestamp())
        meter = self.cloud.dollars()
        assert interval.low - Decimal("0.000001") <= meter <= interval.high + Decimal("0.000001"), (interval, meter)
        if memory.reason == "completed":
            result = json.loads(self.home.run(RUN).result.read_text())
            model = self.home.run(RUN).artifacts / "model.bin"
            assert model.read_bytes() == b"weights after %d" % result["step"]

    def check_one_billing(self) -> None:
        assert len(self.cloud.billing_now) <= 1, "two bill for one run"


def steps_of(metrics: Path) -> list[int]:
    """The steps in the home's metrics; one that repeats after a restart counts once."""
    return list(dict.fromkeys(json.loads(line)["step"] for line in metrics.read_text().splitlines()))


class Paused(BaseException):
    """The controller wants to sleep."""
