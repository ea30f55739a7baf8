"""The grounds on which the contract is tested: adding a provider is a class with these verbs, and a line in GROUNDS."""

from __future__ import annotations

import io
import subprocess
import tarfile
import time
import uuid
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from shlex import quote
from typing import TYPE_CHECKING, Protocol

from boxes import PAYLOAD
from colab_ground import ColabGround
from fakes import OFFER, Clock, FakeCloud
from hf_ground import HfGround
from runpods import RunpodGround
from simulators_fixture import lambda_running

from providers.base import Job, Mark, Offer, Provider
from providers.lambdalabs import LambdaProvider
from providers.local import LocalProvider
from providers.ssh.keys import make_pair

if TYPE_CHECKING:
    from pathlib import Path

# What the three works do, on every ground: steps of 1, 2, 3…, each a metrics line of the log.
STEPS = """
import itertools, os, signal, sys, time
def leave(*_):
    sys.exit(5)
signal.signal(signal.SIGTERM, leave)
for step in itertools.count(1) if sys.argv[1] == "long" else range(1, 6):
    print('::metrics {"step": %d, "loss": %r}' % (step, 1 / step), flush=True)
    time.sleep(0.05)
os.makedirs("artifacts/deep dir", exist_ok=True)
open("artifacts/model.bin", "wb").write(b"weights")
open("artifacts/deep dir/card.md", "w").write("# card")
"""


class Ground(Protocol):
    """A provider with something to run on it."""

    provider: Provider

    def offer(self) -> Offer: ...

    def job(self, work: str = "short") -> Job:
        """`short` makes some steps and artifacts; `long` goes on until it is told to stop."""

    def pass_(self) -> None:
        """Let a moment pass."""

    def again(self) -> Provider:
        """Open the provider anew, as another process would after a crash of everything."""

    def spoil(self, job: Job, name: str) -> None:
        """Change the bytes of a file on the machine behind its manifest's back."""

    def close(self) -> None:
        """Take the ground down, once nothing runs on it."""


def steps_job(path: Path, command: tuple[str, ...], **more) -> Job:
    """A job for a machine with real processes; its bundle lies in `path`."""
    now = datetime.now(UTC).replace(microsecond=0)  # a mark tells seconds
    mark = Mark("beef", f"contract-260101-{uuid.uuid4().hex[:6]}", 1, now + timedelta(seconds=90))
    bundle = path / f"{mark.run_id}.tar.gz"
    with tarfile.open(bundle, "w:gz") as tar:
        for script in PAYLOAD.glob("*.py"):
            tar.add(script, f"payload/{script.name}")
        for name, content in (("config.json", b"{}"), ("code/steps.py", STEPS.encode())):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    job = Job(mark, bundle, (), command, now + timedelta(seconds=80), mark.ceiling, 90, 5, 60)
    return replace(job, **more)


def steps(work: str) -> tuple[str, ...]:
    return ("{python}", "-S", "code/steps.py", work)


@dataclass
class LocalGround:
    """This computer."""

    path: Path
    provider: Provider = field(init=False)

    def __post_init__(self) -> None:
        self.provider = self.again()

    def again(self) -> Provider:
        return LocalProvider(self.path / "home" / "runs")

    def offer(self) -> Offer:
        return next(offer for offer in self.provider.offers() if offer.gpu_count == 0)

    def job(self, work: str = "short", *, command: tuple[str, ...] | None = None, **more) -> Job:
        return steps_job(self.path, command or steps(work), **more)

    def pass_(self) -> None:
        time.sleep(0.03)

    def close(self) -> None:
        pass

    def folder(self, job: Job) -> Path:
        return self.path / "home" / "runs" / job.mark.run_id / "attempts" / "1"

    def spoil(self, job: Job, name: str) -> None:
        path = self.folder(job) / name
        path.write_bytes(path.read_bytes()[::-1])


@dataclass
class LambdaGround:
    """Lambda's API on loopback, with a real sshd behind each machine; known by its exports only."""

    path: Path
    provider: Provider = field(init=False)

    def __post_init__(self) -> None:
        self._running = ExitStack()
        self._sim = self._running.enter_context(lambda_running(machines=True))
        self.provider = self.again()

    def again(self) -> Provider:
        return LambdaProvider.from_home(self.path / "home", self._sim.exports)

    def offer(self) -> Offer:
        return next(offer for offer in self.provider.offers() if offer.name.startswith("gpu_1x_a10@"))

    def job(self, work: str = "short") -> Job:
        folder = self.path / "ssh"  # as the field's `Access` has it
        for name in ("client_ed25519", "host_ed25519"):
            make_pair(folder / name)
        keys = {"client_key": folder / "client_ed25519", "host_key": folder / "host_ed25519"}
        return steps_job(self.path, steps(work), **keys)

    def pass_(self) -> None:
        time.sleep(0.05)

    def spoil(self, job: Job, name: str) -> None:
        turn = "import pathlib, sys; p = pathlib.Path(sys.argv[1]); p.write_bytes(p.read_bytes()[::-1])"
        path = f".gpurun/jobs/{job.mark}/{name}"
        argv = ["ssh", "-F", self.path / "ssh" / "config", "gpurun", f"python3 -c {quote(turn)} {quote(path)}"]
        subprocess.run(argv, check=True, timeout=30, stdin=subprocess.DEVNULL)

    def close(self) -> None:
        self._running.close()


@dataclass
class FakeGround:
    """The cloud in memory that serves the orchestrator's tests: held to the same promises, so that it stays honest."""

    path: Path
    provider: FakeCloud = field(init=False)

    def __post_init__(self) -> None:
        self.provider = FakeCloud(Clock())

    def again(self) -> Provider:
        return self.provider  # the vendor forgets nothing when we do

    def offer(self) -> Offer:
        return OFFER

    def job(self, work: str = "short") -> Job:
        self.provider.total_steps = 5 if work == "short" else 1_000_000
        now = self.provider.clock()
        mark = Mark("beef", f"contract-260101-{uuid.uuid4().hex[:6]}", 1, now + timedelta(hours=9))
        return Job(mark, self.path / "b.tar.gz", (), (), now + timedelta(hours=8), mark.ceiling, 9 * 3600, 60, 600)

    def pass_(self) -> None:
        self.provider.clock.advance(1)

    def spoil(self, job: Job, name: str) -> None:
        self.provider.spoiled.add(name)

    def close(self) -> None:
        pass


GROUNDS = {
    "local": LocalGround,
    "fake": FakeGround,
    "lambda": LambdaGround,
    "hf": HfGround,
    "runpod": RunpodGround,
    "colab": ColabGround,
}
