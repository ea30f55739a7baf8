"""A home, clouds without holders of their own, and a guard that comes by."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

from fakes import START, Clock, FakeCloud, Machine

from orchestrator import guard_pass
from orchestrator.guard_pass import Means
from orchestrator.home import Home
from providers.base import Mark

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.guard_pass import Notice
    from orchestrator.guard_pulse import Pulse
    from providers.errors import CredentialsError

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
