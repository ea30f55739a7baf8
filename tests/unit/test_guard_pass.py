"""One pass of the shipped guard in a home: what it ends, what it leaves alone, what it can't tell, what it tells once."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest
from fakes import START, Clock, FakeCloud, Machine
from worlds import RUN, World

from orchestrator import guard_pass, guard_pulse
from orchestrator.facts import Memory
from orchestrator.guard_pass import Means
from orchestrator.home import Home
from orchestrator.ledger import Ledger
from orchestrator.words import Launch, Reason, State
from providers.base import Mark
from providers.errors import CredentialsError, ProviderError, StateError

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.guard_pass import Notice
    from orchestrator.guard_pulse import Pulse

OTHERS = "0bad"


def mark(hours: float, *, home: str = OTHERS, run: str = "unit-261122-00000a", attempt: int = 1) -> Mark:
    return Mark(home, run, attempt, START + timedelta(hours=hours))


@dataclass
class Scene:
    """A home, clouds without holders of their own, and a guard that comes by."""

    root: Path
    clock: Clock = field(default_factory=Clock)
    told: list[Notice] = field(default_factory=list)
    tended: list[str] = field(default_factory=list)
    paused: float = 0.0

    def __post_init__(self) -> None:
        self.home = Home(self.root / "home").ensure()
        self.cloud = self.another("fake")
        self.providers: dict[str, FakeCloud | CredentialsError] = {"fake": self.cloud}

    def another(self, name: str) -> FakeCloud:
        return FakeCloud(self.clock, name=name, holder_on_machine=False)

    def bills(self, mark: Mark | None, cloud: FakeCloud | None = None) -> Machine:
        """Something that was launched an hour ago."""
        cloud = cloud or self.cloud
        machine = Machine(f"m-{len(cloud.machines) + 1}", mark, Decimal(1), START - timedelta(hours=1), 0.0)
        cloud.machines[machine.id] = machine
        return machine

    def pause(self, seconds: float) -> None:
        self.paused += seconds
        self.clock.advance(seconds)

    def once(self) -> Pulse:
        means = Means(self.clock, self.pause, lambda: self.tended, self.told.append)
        return guard_pass.once(self.home, self.providers, means)


@pytest.fixture
def scene(fast_path: Path) -> Scene:
    return Scene(fast_path)


def test_what_is_past_its_ceiling_is_ended_and_proven_from_an_empty_home(scene: Scene) -> None:
    late, live, foreign = scene.bills(mark(-1)), scene.bills(mark(1)), scene.bills(None)
    pulse = scene.once()
    assert [one.id for one in scene.cloud.billing_now] == [live.id, foreign.id]
    (ended,) = pulse.providers["fake"].ended
    assert (ended["id"], ended["kind"]) == (late.id, "overdue")
    assert "unlisted in 3 whole lists" in ended["evidence"]
    assert scene.paused >= scene.cloud.traits.list_lag_seconds
    assert guard_pass.exit_code(pulse) == 0
    assert not scene.home.ledger.exists()
    assert guard_pulse.read(scene.home) == pulse
