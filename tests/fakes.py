"""A cloud in memory, with a clock moved by hand, a meter, and faults by verb. No kinder than a vendor.

It serves the orchestrator's tests at our own seam; the contract suite runs on it as well as on the real adapters,
which keeps it honest. Time passes only when a test moves `Clock`.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import defaultdict, deque
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

from providers.base import (
    Access,
    Allocation,
    Entry,
    Holder,
    Job,
    Manifest,
    Mark,
    Observation,
    Offer,
    Order,
    OrderKind,
    Phase,
    Place,
    Proof,
    RemoteStatus,
    Traits,
)
from providers.errors import (
    CredentialsError,
    HostKeyError,
    IntegrityError,
    NoCapacityError,
    RemoteError,
    StartError,
    UnclearError,
    UnreachableError,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

START = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
OFFER = Offer("fake", "gpu_1x_a10", "a10", 1, Decimal("1.20"), vram_gib=22.5)


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@dataclass
class Machine:
    """One thing that bills, with a job on it once it was started."""

    id: str
    mark: Mark
    price: Decimal
    since: datetime
    boot_seconds: float
    ended: datetime | None = None
    job: Job | None = None
    started: datetime | None = None
    first_step: int = 0
    told_stop: datetime | None = None
    died: datetime | None = None  # the agent and all below it; the machine bills on
    ignores_terminate: int = 0
    only_shown: bool = False  # as being ended, which nobody does
    sick: bool = False  # the vendor calls it broken, whatever runs on it
    deadline: datetime | None = None  # as ordered after the start
    order: int = 0  # the last one obeyed

    @property
    def billing(self) -> bool:
        return self.ended is None


@dataclass
class FakeCloud:
    """A vendor of machines. `faults[verb]` is a queue: each call of the verb takes one ("" = none)."""

    clock: Clock
    traits: Traits = field(default_factory=lambda: Traits(10.0, 300.0, 120.0, 5.0, 1))
    name: str = "fake"
    skew: timedelta = timedelta(0)
    boot_seconds: float = 20.0
    linger_seconds: float = 0.0  # for which an ended machine still shows as being ended
    total_steps: int = 60  # one a second
    checkpoint_every: int = 7
    holder_on_machine: bool = True
    proof: Proof = Proof.PROVEN  # what the holder on the machine shows
    movable: bool = True  # whether the vendor lets a mark be changed
    limit: Holder | None = None  # of its own, as each look reads it back
    behind_seconds: float = 0.0  # by which the machines' clocks are slow
    hidden: dict[str, float] = field(default_factory=dict)  # id -> seconds for which no list shows it
    deaf: bool = False  # orders reach the machines and nobody there takes them up
    machines: dict[str, Machine] = field(default_factory=dict)
    faults: dict[str, deque[str]] = field(default_factory=lambda: defaultdict(deque))
    stock: list[Offer] = field(default_factory=lambda: [OFFER])
    sold_out: set[str] = field(default_factory=set)  # names of offers whose launch is refused
    asked_for: list[tuple[float, str]] = field(default_factory=list)  # launches, with the seconds since START
    offers_read: int = 0
    spoiled: set[str] = field(default_factory=set)  # names of files whose bytes changed behind the manifest's back
    most_billing: int = 0

    # ── the test's own view ─────────────────────────────────────────────────────────────────────

    @property
    def billing_now(self) -> list[Machine]:
        self._pass_time()
        return [machine for machine in self.machines.values() if machine.billing]

    def dollars(self) -> Decimal:
        """What the vendor's meter says, in begun steps."""
        self._pass_time()
        total, step = Decimal(0), self.traits.billing_step_seconds
        for machine in self.machines.values():
            seconds = ((machine.ended or self.clock.now) - machine.since).total_seconds()
            total += machine.price * math.ceil(seconds / step) * step / 3600
        return total

    def _fault(self, verb: str) -> str:
        fault = self.faults[verb].popleft() if self.faults[verb] else ""
        if fault == "unreachable":
            raise UnreachableError(f"{verb}: no answer")
        return fault

    def _pass_time(self) -> None:
        """What happens by itself: the holder on the machine ends it at the ceiling."""
        for machine in self.machines.values():
            if self.holder_on_machine and machine.billing and self.clock.now >= machine.mark.ceiling:
                machine.ended = machine.mark.ceiling

    def _listed(self, machine: Machine) -> bool:
        fresh = (self.clock.now - machine.since).total_seconds() < self.traits.list_lag_seconds / 2
        return not fresh and machine.billing

    def _lingers(self, machine: Machine) -> bool:
        """The vendor says that it is ending it."""
        since = machine.ended
        if since is None:
            return machine.only_shown
        return (self.clock.now - since).total_seconds() < self.linger_seconds

    # ── the money plane ─────────────────────────────────────────────────────────────────────────

    def account(self) -> str:
        return "acct-fake"

    def offers(self) -> Sequence[Offer]:
        self._fault("offers")
        self.offers_read += 1
        return [replace(one, available=one.name not in self.sold_out) for one in self.stock]

    def holders(self, job: Job, offer: Offer) -> Sequence[Holder]:
        if not self.holder_on_machine:
            return []
        return [Holder("the watchdog", Place.MACHINE, Proof.UNPROVEN)]

    def launch(self, job: Job, offer: Offer) -> str:
        fault = self._fault("launch")
        self.asked_for.append(((self.clock.now - START).total_seconds(), offer.name))
        if fault == "capacity" or offer.name in self.sold_out:
            raise NoCapacityError("no a10 left")
        if fault == "credentials":
            raise CredentialsError("the key was revoked", hint="export FAKE_KEY=…")
        if fault == "lost_request":
            raise UnclearError("the connection broke")
        copies = 2 if fault == "twice" else 1
        for _ in range(copies):
            number = len(self.machines) + 1
            machine = Machine(f"m-{number}", job.mark, offer.price, self.clock.now, self.boot_seconds)
            self.machines[machine.id] = machine
        self.most_billing = max(self.most_billing, len(self.billing_now))
        if fault in {"lost_reply", "twice"}:
            raise UnclearError("the answer did not come")
        return machine.id

    def find(self, mark: Mark) -> Sequence[Allocation]:
        self._fault("find")
        return [allocation for allocation in self.allocations() if allocation.mark == mark]

    def inspect(self, allocation_id: str) -> Observation:
        fault = self._fault("inspect")
        self._pass_time()
        machine = self.machines.get(allocation_id)
        if machine is not None and fault != "absent" and self._lingers(machine):
            evidence = f"GET {allocation_id} → terminating"
            return Observation(Phase.QUEUED, billing=True, evidence=evidence, price=machine.price, ending=True)
        if machine is not None and fault == "terminated" and not machine.billing:
            return Observation(Phase.ABSENT, billing=False, evidence=f"GET {allocation_id} → terminated", ended=True)
        if machine is None or (fault == "absent") or (not self._listed(machine)):
            return Observation(Phase.ABSENT, billing=False, evidence=f"GET {allocation_id} → 404")
        if fault == "dearer":
            machine.price *= 2
            return Observation(Phase.QUEUED, billing=True, evidence=f"GET {allocation_id}", price=machine.price)
        if fault == "unhealthy":
            return Observation(Phase.QUEUED, billing=True, evidence="unhealthy", failure="unhealthy")
        up = (self.clock.now - machine.since).total_seconds() >= machine.boot_seconds
        phase = Phase.READY if up else Phase.QUEUED  # what runs on it is told by the machine itself
        failure, evidence = "unhealthy" if machine.sick else "", f"GET {allocation_id} → {phase}"
        return Observation(
            phase, billing=True, evidence=evidence, price=machine.price, failure=failure, holder=self.limit
        )

    def terminate(self, allocation_ids: Sequence[str]) -> None:
        fault = self._fault("terminate")
        if fault == "ignored":
            return
        self._pass_time()
        for one in allocation_ids:
            machine = self.machines.get(one)
            if machine is not None and machine.billing:
                machine.only_shown = fault == "only shown"
                machine.ended = None if machine.only_shown else self.clock.now

    def extend(self, allocation_id: str, ceiling: datetime) -> bool:
        self._fault("extend")
        self._pass_time()
        machine = self.machines.get(allocation_id)
        if not self.movable or machine is None or not machine.billing:
            return False
        machine.mark = replace(machine.mark, ceiling=ceiling)
        return True

    def allocations(self) -> Sequence[Allocation]:
        self._fault("allocations")
        self._pass_time()
        return [
            Allocation(
                machine.id, machine.mark, str(machine.mark), billing=True, price=machine.price, since=machine.since
            )
            for machine in self.machines.values()
            if self._listed(machine)
            and (self.clock.now - machine.since).total_seconds() >= self.hidden.get(machine.id, 0.0)
        ]

    def tidy(self, live: Collection[Mark]) -> None:
        self._fault("tidy")

    def remote(self, allocation_id: str, access: Access) -> FakeRemote:
        return FakeRemote(self, allocation_id)


class FakeRemote:
    """The bytes of one machine: a training that makes a step a second and a checkpoint every few."""

    def __init__(self, cloud: FakeCloud, allocation_id: str) -> None:
        self._cloud = cloud
        self._id = allocation_id

    def start(self, job: Job) -> None:
        fault = self._cloud._fault("start")
        if fault == "broken":
            raise StartError("No space left on device")
        if fault == "changed data":
            raise StartError("rows.jsonl changed since the launch", permanent=True)
        machine = self._machine()
        if machine.job is None:
            machine.job, machine.started = job, self._cloud.clock.now
            if job.checkpoint is not None:
                machine.first_step = int(job.checkpoint.name.removeprefix("step-"))

    def status(self) -> RemoteStatus:
        if self._cloud._fault("status") == "other host key":
            raise HostKeyError(f"127.0.0.{self._id[2:]}:22 shows another host key: SHA256:{self._id}")
        machine = self._machine()
        if machine.job is None:
            return RemoteStatus(Phase.READY)
        step, reason = self._progress()
        gone = machine.died is not None and machine.died <= self._cloud.clock.now
        phase = Phase.EXITED if reason or gone else Phase.RUNNING
        dog = Holder("the watchdog", Place.MACHINE, self._cloud.proof, proven_at=self._cloud.clock.now)
        now, total = self._cloud.clock.now, self._cloud.total_steps
        deadline = machine.deadline or machine.job.deadline
        return RemoteStatus(phase, now, "train", step, total, reason=reason, deadline=deadline, watchdog=dog)

    def logs(self, offset: int) -> bytes:
        self._cloud._fault("logs")
        machine = self._machine()
        step, _ = self._progress()
        lines = [f'::metrics {{"step": {n}, "loss": {1 / n:.4f}}}\n' for n in range(machine.first_step + 1, step + 1)]
        return "".join(lines).encode()[offset : offset + 97]  # an odd chunk: lines are cut

    def tell(self, order: Order) -> None:
        self._cloud._fault("tell")
        machine = self._machine()
        if order.id <= machine.order or self._cloud.deaf:
            return
        machine.order = order.id
        if order.kind is OrderKind.STOP and machine.told_stop is None:
            machine.told_stop = self._cloud.clock.now
        if order.kind is OrderKind.DEADLINE:
            machine.deadline = order.deadline

    def manifest(self) -> Manifest:
        self._cloud._fault("manifest")
        files = self._files()
        entries = tuple(Entry(name, len(data), hashlib.sha256(data).hexdigest()) for name, data in files.items())
        return Manifest(entries, final="result.json" in files)

    def fetch(self, names: Sequence[str], dest: Path) -> None:
        files = self._files()
        for name in names:
            if name not in files:
                raise RemoteError(f"{self._id} has no file {name!r}")
            if self._cloud._fault("fetch") == "corrupt" or name in self._cloud.spoiled:
                raise IntegrityError(f"{name} is not what the manifest says")
            path = dest / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(files[name])

    def close(self) -> None:
        pass

    def _machine(self) -> Machine:
        self._cloud._pass_time()
        machine = self._cloud.machines[self._id]
        up = (self._cloud.clock.now - machine.since).total_seconds() >= machine.boot_seconds
        if not machine.billing or not up:
            raise RemoteError(f"{self._id} does not answer")
        return machine

    def _progress(self) -> tuple[int, str]:
        """Steps done by now, and the agent's word once it is over."""
        machine = self._machine()
        if machine.job is None or machine.started is None:
            return 0, ""
        grace = timedelta(seconds=machine.job.grace_seconds)
        ends = {machine.started + timedelta(seconds=self._cloud.total_steps - machine.first_step): "completed"}
        behind = timedelta(seconds=self._cloud.behind_seconds)
        ends[(machine.deadline or machine.job.deadline) - grace + behind] = "deadline"
        if machine.told_stop is not None:
            ends[machine.told_stop + timedelta(seconds=1)] = "stopped"
        first = min(ends)
        until = min(self._cloud.clock.now, first)
        if machine.died is not None:
            until = min(until, machine.died)
        step = machine.first_step + max(int((until - machine.started).total_seconds()), 0)
        over = self._cloud.clock.now >= first and (machine.died is None or machine.died > first)
        return step, ends[first] if over else ""

    def _files(self) -> dict[str, bytes]:
        step, reason = self._progress()
        files: dict[str, bytes] = {}
        for whole in range(self._cloud.checkpoint_every, step + 1, self._cloud.checkpoint_every):
            files[f"checkpoints/step-{whole}/model.bin"] = b"weights after %d" % whole
            files[f"checkpoints/step-{whole}/CHECKPOINT.json"] = b'{"step": %d}' % whole
        if reason:
            files["artifacts/model.bin"] = b"weights after %d" % step
            files["result.json"] = json.dumps({"reason": reason, "step": step}).encode()
        return files
