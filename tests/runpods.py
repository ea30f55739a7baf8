"""RunPod on loopback for tests: a simulator known by its announcement, jobs for it, and the contract's ground on it."""

from __future__ import annotations

import time
import uuid
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from shlex import quote
from subprocess import DEVNULL, run
from typing import TYPE_CHECKING, Any

import requests

from providers.base import Job, Mark
from providers.runpod import RunpodProvider
from providers.ssh.keys import make_pair
from simulators.runpod import RunPodSimulator
from simulators.runpod.faults import BOOK

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from providers.base import Offer, Provider

RTX_3090 = "NVIDIA GeForce RTX 3090"


@dataclass
class RunpodSim:
    """A running simulator, known by its announcement only."""

    url: str
    control: str
    exports: dict[str, str]
    may_bill: bool = False

    @property
    def key(self) -> str:
        return self.exports["RUNPOD_API_KEY"]

    def ask(self, path: str) -> dict[str, Any]:
        reply = requests.get(self.control + path, timeout=30)
        reply.raise_for_status()
        return reply.json()

    def tell(self, path: str, wish: object) -> dict[str, Any]:
        reply = requests.post(self.control + path, json=wish, timeout=60)
        reply.raise_for_status()
        return reply.json()

    def call(self, method: str, path: str, body: object = None, key: str = "") -> requests.Response:
        headers = {"Authorization": f"Bearer {key or self.key}"}
        return requests.request(method, self.url + path, json=body, headers=headers, timeout=30)

    def meter(self) -> dict[str, Any]:
        return self.ask("/meter")

    def state(self) -> dict[str, Any]:
        return self.ask("/state")

    def asked(self, operation: str = "") -> list[dict[str, Any]]:
        return [one for one in self.ask("/requests")["requests"] if operation in {"", one["operation"]}]

    def faults(self, wish: object) -> None:
        self.tell("/faults", wish)


@contextmanager
def runpod_running(
    *, pace: float = 1000, rate: float = 1, start_seconds: float = 0, faults: object = (), machines: bool = False
) -> Iterator[RunpodSim]:
    """Start one in this process, and judge what is left at the end."""
    hits = BOOK.parse(faults) if faults else ()
    how = {"pace": pace, "rate": rate, "start_seconds": start_seconds, "faults": hits, "machines": machines}
    with RunPodSimulator(**how) as simulator:
        told = simulator.announcement()
        sim = RunpodSim(told["url"], told["control"], told["exports"])
        yield sim
        billing = [row for row in sim.meter()["allocations"] if row["ended"] is None]
        troubles = sim.state()["troubles"]
    assert not billing or sim.may_bill, f"left billing: {billing}"
    assert troubles == []


def open_runpod(sim: RunpodSim, home: Path, **more: str) -> RunpodProvider:
    """Open it as a process with nothing but the simulator's exports would."""
    return RunpodProvider.from_home(home, {**sim.exports, **more})


def runpod_job(home: Path, *, hours: float = 2, **more) -> Job:
    """A job with a fresh key in the folder of its run."""
    now = datetime.now(UTC).replace(microsecond=0)  # a mark tells seconds
    mark = Mark("beef", f"unit-261122-{uuid.uuid4().hex[:6]}", 1, now + timedelta(hours=hours))
    folder = home / "runs" / mark.run_id / "ssh" / "1"
    make_pair(folder / "client_ed25519")
    job = Job(mark, home / "bundle.tar.gz", (), ("true",), mark.ceiling, mark.ceiling, int(hours * 3600), 60, 600)
    return replace(job, client_key=folder / "client_ed25519", **more)


def offer_of(provider: RunpodProvider, name: str = RTX_3090) -> Offer:
    return next(offer for offer in provider.offers() if offer.name == name)


@dataclass
class RunpodGround:
    """RunPod's API on loopback, with a real container behind each pod; known by its exports only."""

    path: Path
    provider: Provider = field(init=False)

    def __post_init__(self) -> None:
        self._running = ExitStack()
        self.sim = self._running.enter_context(runpod_running(machines=True))
        self.provider = self.again()

    def again(self) -> Provider:
        return open_runpod(self.sim, self.path / "home")

    def offer(self) -> Offer:
        return offer_of(self.provider)

    def job(self, work: str = "short") -> Job:
        from grounds import steps, steps_job

        folder = self.path / "ssh"  # as the field's `Access` has it
        make_pair(folder / "client_ed25519")
        return steps_job(self.path, steps(work), client_key=folder / "client_ed25519")

    def pass_(self) -> None:
        time.sleep(0.05)

    def spoil(self, job: Job, name: str) -> None:
        turn = "import pathlib, sys; p = pathlib.Path(sys.argv[1]); p.write_bytes(p.read_bytes()[::-1])"
        path = f".gpurun/jobs/{job.mark}/{name}"
        argv = ["ssh", "-F", self.path / "ssh" / "config", "gpurun", f"python3 -c {quote(turn)} {quote(path)}"]
        run(argv, check=True, timeout=30, stdin=DEVNULL)

    def close(self) -> None:
        self._running.close()
