"""RunPod on loopback for tests: a simulator known by its announcement, jobs for it, and the contract's ground on it."""

from __future__ import annotations

import time
import uuid
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from shlex import quote
from subprocess import DEVNULL, run
from typing import TYPE_CHECKING

from openapi import RUNPOD
from runpod_fixture import RTX_3090, runpod_running

from providers.base import Job, Mark
from providers.runpod import RunpodProvider
from providers.ssh.keys import make_pair

if TYPE_CHECKING:
    from pathlib import Path

    from runpod_fixture import RunPodSim

    from providers.base import Offer, Provider


def open_runpod(sim: RunPodSim, home: Path, **more: str) -> RunpodProvider:
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


def hold_to_the_document(sim: RunPodSim) -> set[tuple[str, str]]:
    """Check every request of ours against the official document; gives the operations that were asked."""
    ours = [one for one in sim.asked() if one["headers"].get("user-agent", "").startswith("gpurun/")]
    return {RUNPOD.validate_exchange(one) for one in ours if one["operation"] != "graphql"}


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
