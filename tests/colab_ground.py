"""Colab on loopback for tests of its adapter: opened by the exports alone, jobs for it, the contract's ground.

The simulator itself is colab_fixture.py's.
"""

from __future__ import annotations

import time
import uuid
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from colab_fixture import colab_sim_running

from providers.base import Job, Mark
from providers.colab import ColabProvider

if TYPE_CHECKING:
    from colab_fixture import ColabSim

    from providers.base import Offer, Provider


def open_colab(sim: ColabSim, home: Path, **more: str) -> ColabProvider:
    """Open it as a process with nothing but the simulator's exports would."""
    return ColabProvider.from_home(home, {**sim.exports, **more})


def colab_job(home: Path, *, hours: float = 2, home_id: str = "beef", **more) -> Job:
    """A job that nobody starts."""
    now = datetime.now(UTC).replace(microsecond=0)  # a mark tells seconds
    mark = Mark(home_id, f"unit-261122-{uuid.uuid4().hex[:6]}", 1, now + timedelta(hours=hours))
    limits = (mark.ceiling, mark.ceiling, int(hours * 3600), 60, 600)
    return Job(mark, home / "bundle.tar.gz", (), ("true",), *limits, **more)


def offer_of(provider: ColabProvider, name: str = "T4") -> Offer:
    return next(offer for offer in provider.offers() if offer.name == name)


@dataclass
class ColabGround:
    """Colab on loopback, with a real Jupyter server behind each VM; known by its exports only."""

    path: Path
    provider: Provider = field(init=False)

    def __post_init__(self) -> None:
        self._running = ExitStack()
        self.sim = self._running.enter_context(colab_sim_running(machines=True))
        self.provider = self.again()

    def again(self) -> Provider:
        return open_colab(self.sim, self.path / "home")

    def offer(self) -> Offer:
        return offer_of(self.provider)

    def job(self, work: str = "short") -> Job:
        from grounds import steps, steps_job

        return steps_job(self.path, steps(work))

    def pass_(self) -> None:
        time.sleep(0.05)

    def spoil(self, job: Job, name: str) -> None:
        disk = Path(self.sim.exports["GOOGLE_APPLICATION_CREDENTIALS"]).parent
        (path,) = disk.glob(f"*/disk/root/.gpurun/jobs/{job.mark}/{name}")
        path.write_bytes(path.read_bytes()[::-1])

    def close(self) -> None:
        self._running.close()
