"""Hugging Face on loopback for tests: a running simulator by its announcement, and the contract's ground on it."""

from __future__ import annotations

import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
import requests
from sims import Sim, judged

from providers.base import Access
from providers.hf_jobs import HfProvider
from simulators.hf_jobs import HfSimulator
from simulators.hf_jobs.faults import BOOK

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from providers.base import Job, Offer, Provider, Remote

PACE = 100.0


@dataclass
class HfSim(Sim):
    """A running simulator, known by its announcement only."""

    KEY = "HF_TOKEN"


@contextmanager
def hf_running(
    *, pace: float = PACE, rate: float = 1, schedule_seconds: float = 1, faults: object = ()
) -> Iterator[HfSim]:
    """Start one in this process, with the client online, and judge what is left at the end."""
    from huggingface_hub import close_session, constants

    offline, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, False
    hits = BOOK.parse(faults) if faults else ()
    try:
        with HfSimulator(pace=pace, rate=rate, schedule_seconds=schedule_seconds, faults=hits) as simulator:
            told = simulator.announcement()
            with judged(HfSim(told["url"], told["control"], told["exports"])) as sim:
                yield sim
    finally:
        constants.HF_HUB_OFFLINE = offline
        close_session()


@dataclass
class HfGround:
    """Jobs on loopback, each a real process with its bucket mounted; known by its exports only."""

    path: Path
    provider: Provider = field(init=False)

    def __post_init__(self) -> None:
        self._running = ExitStack()
        self.sim = self._running.enter_context(hf_running())
        self.provider = self.again()

    def again(self) -> Provider:
        return HfProvider.from_home(self.path / "home", self.sim.exports)

    def offer(self) -> Offer:
        return next(offer for offer in self.provider.offers() if offer.name == "cpu-basic")

    def job(self, work: str = "short") -> Job:
        from grounds import steps, steps_job

        return steps_job(self.path, steps(work))

    def pass_(self) -> None:
        time.sleep(0.05)

    def spoil(self, job: Job, name: str) -> None:
        path = f"runs/{job.mark}/out/files/{name}"
        data = self._bytes(path)
        self.sim.tell("/write", {"bucket": "alice/gpurun", "path": path, "text": data.decode()[::-1]})

    def _bytes(self, path: str) -> bytes:
        token = self.sim.exports["HF_TOKEN"]
        url = f"{self.sim.url}/buckets/alice/gpurun/resolve/{path}"
        return requests.get(url, headers={"Authorization": f"Bearer {token}"}, timeout=30).content

    def close(self) -> None:
        self._running.close()


class Bench:
    """One simulator, one account, and the deeds that tests repeat."""

    def __init__(self, sim: HfSim, path: Path) -> None:
        self.sim, self.path = sim, path
        self.provider = self.open()

    def open(self, **more: str) -> HfProvider:
        return HfProvider.from_home(self.path / "home", {**self.sim.exports, **more})

    def offer(self, name: str = "cpu-basic") -> Offer:
        return next(offer for offer in self.provider.offers() if offer.name == name)

    def job(self, work: str = "short", **more: Any) -> Job:
        from grounds import steps, steps_job

        job = steps_job(self.path, steps(work))
        queue = timedelta(
            seconds=int(self.provider.traits.queue_seconds)
        )  # as a plan has it: the ceiling has room for it
        mark = replace(job.mark, ceiling=job.mark.ceiling + queue)
        most = job.max_seconds + queue.seconds
        return replace(
            job, **{"mark": mark, "ceiling": mark.ceiling, "deadline": job.deadline + queue, "max_seconds": most} | more
        )

    def launch(self, work: str = "short", **more: Any) -> tuple[Job, str]:
        job = self.job(work, **more)
        return job, self.provider.launch(job, self.offer())

    def remote(self, allocation_id: str) -> Remote:
        return self.provider.remote(allocation_id, Access(self.path / "ssh"))


@pytest.fixture
def start_hf(tmp_path: Path) -> Iterator[Any]:
    """Start any number of them, with the options of `hf_running`; a test that leaves something billing fails."""
    with ExitStack() as running:
        yield lambda **options: Bench(running.enter_context(hf_running(**options)), tmp_path)
