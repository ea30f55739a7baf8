"""The money plane of this computer: nothing costs, and still everything must be found again and ended.

    launch -> runs/<run>/attempts/<n>/ + a detached watchdog; the id is the mark

All else is read from the folder and from the processes themselves: after a crash of everything the mark is enough.
"""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import subprocess
import time
from collections import Counter
from datetime import timedelta
from decimal import Decimal
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from providers import wire
from providers.base import Allocation, Holder, Mark, Observation, Offer, Phase, Place, Proof, Traits, utc
from providers.errors import NoCapacityError, ProviderError, UnclearError, UnreachableError
from providers.local import processes
from providers.local.python import python_for
from providers.local.remote import LocalRemote, read_json, write_json

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from datetime import datetime

    from providers.base import Access, Job, Remote
    from providers.optional import Bill

_PASSED = frozenset({"PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TMPDIR", "VIRTUAL_ENV"})
_PASSED |= {"LD_LIBRARY_PATH", "HF_HOME", "REQUESTS_CA_BUNDLE"}
_PASSED |= {f"UV_{name}" for name in ("DEFAULT_INDEX", "INDEX_URL", "EXTRA_INDEX_URL", "FIND_LINKS", "CACHE_DIR")}
_PASSED |= {name for way in ("no_proxy", "http_proxy", "https_proxy") for name in (way, way.upper())}
_PASSED_PREFIXES = (
    *("LC_", "XDG_", "CUDA_", "NVIDIA_", "HF_HUB_", "HF_DATASETS_", "TRANSFORMERS_", "TOKENIZERS_", "SSL_CERT_"),
    *("TORCH", "OMP_", "MKL_", "OPENBLAS_", "GPURUN_", "PIP_"),  # PIP_: weights may come as a package
)
_ARM_SECONDS = 20.0  # a Python that takes longer to start is called unclear
_DIE_SECONDS = 10.0  # SIGKILL takes milliseconds; what lives after this hangs in the kernel


class LocalProvider:
    """This computer. `root` holds the runs: `GPURUN_HOME/runs`."""

    name = "local"
    traits = Traits(
        list_lag_seconds=0.0,  # the kernel's own table
        boot_limit_seconds=60.0,
        start_limit_seconds=600.0,  # copying large data
        poll_seconds=0.3,
        billing_step_seconds=1,
    )
    skew = timedelta(0)

    def __init__(self, root: Path, python: Path | None = None) -> None:
        self._root = root
        self._python = python

    @classmethod
    def from_home(cls, home: Path) -> LocalProvider:
        """Open this computer for one GPURUN_HOME."""
        return cls(home / "runs")

    def account(self) -> str:
        """Fingerprint of this computer: a home on a shared disk may be read by another."""
        try:
            identity = Path("/etc/machine-id").read_text().strip()
        except OSError:
            identity = ""
        return "local-" + sha256((identity or platform.node()).encode()).hexdigest()[:12]

    def offers(self) -> Sequence[Offer]:
        """The CPU, and each kind of GPU that nvidia-smi names."""
        import psutil

        now = utc(time.time())
        gib = 2**30
        place = next(path for path in (self._root, *self._root.parents) if path.exists())
        rest = {
            "vcpus": os.cpu_count() or 0,
            "memory_gib": round(psutil.virtual_memory().total / gib, 1),
            "disk_gib": round(shutil.disk_usage(place).free / gib, 1),
        }

        def offer(name: str, gpu: str, count: int, vram: float) -> Offer:
            return Offer(self.name, name, gpu, count, Decimal(0), vram, region="here", seen_at=now, **rest)  # type: ignore[arg-type]

        gpus = Counter(_gpus())
        return [
            *(offer(f"{n}x {gpu}" if n > 1 else gpu, gpu, n, vram) for (gpu, vram), n in gpus.items()),
            offer("cpu", "", 0, 0.0),
        ]

    def holders(self, job: Job, offer: Offer) -> Sequence[Holder]:  # noqa: ARG002 (the contract's shape)
        """The watchdog: it ends all processes by itself, whatever becomes of the controller.

        Raises:
            UsageError: no Python here can run the job; said while it is planned, not once it is launched.
        """
        if self._python is None:
            python_for(job.command, self._root.parent)
        evidence = "starts with the job; ends its processes at the ceiling"
        return [Holder("watchdog", Place.MACHINE, Proof.UNPROVEN, True, 2, evidence)]  # noqa: FBT003 (extendable, seconds)

    def launch(self, job: Job, offer: Offer) -> str:
        """Make the job's folder and arm its watchdog.

        Raises:
            NoCapacityError: nothing runs: the disk is full, the folder can't be made, the Python does not start.
            UnclearError: the folder is there already: an earlier launch got so far.
        """
        python = self._python or python_for(job.command, self._root.parent)
        folder = self._folder(job.mark)
        try:
            folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            folder.mkdir(mode=0o700)
        except FileExistsError as error:
            raise UnclearError(f"{folder} is there already: {job.mark} was launched before") from error
        except OSError as error:
            raise NoCapacityError(f"{folder} can't be made: {error.strerror}", hint="gpurun doctor") from error
        try:
            self._arm(job, folder)
            done = subprocess.run(
                [python, "-B", folder / "payload" / "watchdog.py", "--detach", folder],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_ARM_SECONDS,
                check=False,
                env=_environment(job.mark, offer),
                cwd=folder,
                start_new_session=True,
            )
        except subprocess.TimeoutExpired as error:
            raise UnclearError(f"the watchdog of {job.mark} did not answer", allocation_id=str(job.mark)) from error
        except OSError as error:
            raise NoCapacityError(f"the watchdog can't be started: {error}", hint="gpurun doctor") from error
        if done.returncode != 0:
            words = (done.stderr + _bytes(folder / "watchdog.log")).decode(errors="replace").strip()
            raise NoCapacityError(f"the watchdog did not arm: {words[-300:]}", hint="gpurun doctor")
        return str(job.mark)

    def _arm(self, job: Job, folder: Path) -> None:
        payload = files("payload")
        (folder / "payload").mkdir()
        for name in wire.GUARDS:
            (folder / "payload" / name).write_bytes(payload.joinpath(name).read_bytes())
        write_json(folder / "arm.json", {**wire.arm_json(job), "host": self.account()})

    def find(self, mark: Mark) -> Sequence[Allocation]:
        """Look for a launch by its folder and by the processes that carry its mark."""
        everyone = processes.living()
        folder = self._folder(mark)
        ours = processes.of_job(everyone, str(mark), processes.listed(folder))
        if not ours and not folder.exists():
            return []
        self._must_be_here(folder)
        return [self._allocation(str(mark), ours)]

    def inspect(self, allocation_id: str) -> Observation:
        """Look at the processes first, at the folder for what they are doing."""
        mark = Mark.parse(allocation_id)
        if mark is None:
            return Observation(Phase.ABSENT, billing=False, evidence=f"{allocation_id!r} is no mark of gpurun's")
        folder = self._folder(mark)
        self._must_be_here(folder)
        if processes.held(folder / ".watchdog.lock"):  # the cheap look, for the many while it runs
            evidence = f"the watchdog of {allocation_id} lives: its lock is held"
            return Observation(self._phase(folder), billing=True, evidence=evidence, price=Decimal(0))
        everyone = processes.living()
        ours = processes.of_job(everyone, allocation_id, processes.listed(folder))
        if ours:
            pids = " ".join(str(one.pid) for one in ours[:8])
            evidence = f"{len(ours)} processes of {allocation_id} live: {pids}{' …' if len(ours) > 8 else ''}"
            return Observation(self._phase(folder), billing=True, evidence=evidence, price=Decimal(0))
        evidence = f"no process carries {allocation_id}; {len(everyone)} scanned"
        if not folder.exists():
            return Observation(Phase.ABSENT, billing=False, evidence=evidence + ", and no folder of it is here")
        ended = str(read_json(folder / "watchdog.json").get("ended") or "")
        return Observation(Phase.EXITED, billing=False, evidence=evidence, price=Decimal(0), message=ended)

    def _phase(self, folder: Path) -> Phase:
        """Judge what living processes are doing. The lock is asked before the result: see payload/watchdog.py."""
        began = (folder / ".agent.lock").exists()  # before its lock: one that comes now is no dead one
        agent = processes.held(folder / ".agent.lock")
        if (folder / "result.json").exists():
            return Phase.EXITED
        if agent:
            return Phase.RUNNING
        waiting = processes.held(folder / ".watchdog.lock") and not began
        return Phase.READY if waiting else Phase.EXITED

    def terminate(self, allocation_ids: Sequence[str]) -> None:
        """End every process of these jobs, and prove it by looking again.

        Raises:
            ProviderError: some would not die; they are named.
        """
        for allocation_id in allocation_ids:
            mark = Mark.parse(allocation_id)
            if mark is None:
                continue
            folder = self._folder(mark)
            self._must_be_here(folder)
            if folder.exists():
                with contextlib.suppress(OSError):  # a full disk: ending does not depend on it
                    write_json(folder / "end.json", {"time": time.time(), "by": "terminate"})
            left = processes.end(allocation_id, folder, _DIE_SECONDS)
            if left:
                pids = " ".join(str(one.pid) for one in left)
                message = f"{len(left)} processes of {allocation_id} do not die: {pids}"
                raise ProviderError(message, hint=f"ps -o pid,stat,wchan,args -p {pids}", allocation_id=allocation_id)
            (folder / "secrets.json").unlink(missing_ok=True)

    def extend(self, allocation_id: str, ceiling: datetime) -> bool:  # noqa: ARG002 (the contract's shape)
        """The mark stands in the environment of living processes: it can't be moved."""
        return False

    def allocations(self) -> Sequence[Allocation]:
        """Every living job of any home of this user, by its mark; and those of this home that shed theirs."""
        everyone = processes.living()
        found = []
        folders = {read_mark(folder): folder for folder in self._root.glob("*/attempts/*")}
        for mark in sorted({*processes.marks(everyone), *folders} - {""}):
            listed = processes.listed(folders[mark]) if mark in folders else []
            ours = processes.of_job(everyone, mark, listed)
            if ours:
                found.append(self._allocation(mark, ours))
        return found

    @property
    def billed_late(self) -> timedelta:
        """Nothing is ever charged."""
        return timedelta(0)

    def billed(self, since: datetime) -> Sequence[Bill]:  # noqa: ARG002 (the contract's shape)
        """Nothing, ever: it is the user's own computer."""
        return ()

    def tidy(self, live: Collection[Mark]) -> None:
        """Remove what ended attempts need no more: secrets, code, data. Their results stay."""
        spared = {str(mark) for mark in live}
        for folder in self._root.glob("*/attempts/*"):
            mark = read_mark(folder)
            if mark in spared or processes.held(folder / ".watchdog.lock") or processes.held(folder / ".agent.lock"):
                continue
            for name in ("secrets.json", "store.json", ".reserve"):
                (folder / name).unlink(missing_ok=True)
            kept = any((folder / "code" / name).is_dir() for name in ("artifacts", "outputs"))  # nobody brought it home
            for name in ("payload", "data") if kept else ("payload", "code", "data"):
                shutil.rmtree(folder / name, ignore_errors=True)

    def remote(self, allocation_id: str, access: Access) -> Remote:  # noqa: ARG002 (the contract's shape)
        """Open the job's folder.

        Raises:
            UnreachableError: it lies on another computer.
        """
        mark = Mark.parse(allocation_id)
        if mark is None:
            raise UnreachableError(f"{allocation_id!r} is no local allocation")
        folder = self._folder(mark)
        self._must_be_here(folder)
        return LocalRemote(folder)

    def _folder(self, mark: Mark) -> Path:
        node = "" if mark.node is None else f"-n{mark.node}"
        return self._root / mark.run_id / "attempts" / f"{mark.attempt}{node}"

    def _must_be_here(self, folder: Path) -> None:
        """A home may be shared by computers: what runs on another one can't be seen from here."""
        host = read_json(folder / "arm.json").get("host")
        if host is not None and host != self.account():
            raise UnreachableError(f"{folder} belongs to a job on another computer", hint="run gpurun there")

    def _allocation(self, mark: str, ours: Sequence[processes.Living]) -> Allocation:
        since = utc(processes.born(ours[0].pid)) if ours else None
        return Allocation(mark, Mark.parse(mark), mark, billing=bool(ours), price=Decimal(0), since=since)


def read_mark(folder: Path) -> str:
    """Read whose attempt a folder is; "" = nobody's."""
    return str(read_json(folder / "arm.json").get("mark") or "")


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _environment(mark: Mark, offer: Offer) -> dict[str, str]:
    """Make the job's environment: what finds programs, caches and devices; no key of the user's."""
    passed = {name: value for name, value in os.environ.items() if name in _PASSED or name.startswith(_PASSED_PREFIXES)}
    if offer.gpu_count == 0:
        passed["CUDA_VISIBLE_DEVICES"] = ""  # the CPU was asked for
    return {**passed, "GPURUN_MARK": str(mark)}


def _gpus() -> list[tuple[str, float]]:
    """Name and GiB of each NVIDIA GPU; [] = none, or none that can be asked."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    argv = [program, "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, errors="replace", timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    found = []
    for line in done.stdout.splitlines() if done.returncode == 0 else []:
        name, _, memory = line.rpartition(",")
        with contextlib.suppress(ValueError):
            found.append((name.strip().removeprefix("NVIDIA ").removeprefix("GeForce "), float(memory) / 1024))
    return [(name, round(memory, 1)) for name, memory in found if name]
