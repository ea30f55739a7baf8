"""The contract between the controller and a vendor: two planes, because they fail differently.

    controller ── Provider (money: wrong = a bill) ──> the vendor's API
               └─ Remote   (bytes: wrong = a lost file) ──> the machine or the job

No verb waits, retries or sleeps; the controller does. An error is never absence.
Everything here is a plain fact: no vendor's dict leaves its adapter.
Units: money in USD (`Decimal`), an hour for all GPUs together; times in UTC; sizes as named.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from decimal import Decimal
    from pathlib import Path

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_MARK = re.compile(
    r"gpurun-(?P<home>[0-9a-f]{4})-(?P<run>[a-z0-9](?:[a-z0-9-]{0,22}[a-z0-9])?-\d{6}-[0-9a-f]{6})"
    r"-(?P<attempt>[1-9]\d?)(?:-n(?P<node>\d))?-t(?P<ceiling>[0-9a-z]{6,7})",
)


@dataclass(frozen=True, slots=True)
class Mark:
    """Whose an allocation is and when it must be gone: carried in its name, tag or label.

    `gpurun-<home>-<run id>-<attempt>[-n<node>]-t<ceiling, epoch seconds, base 36>`, 64 characters at most.
    """

    home: str
    run_id: str
    attempt: int
    ceiling: datetime
    node: int | None = None

    def __str__(self) -> str:
        """Spell the mark as the provider will show it."""
        node = "" if self.node is None else f"-n{self.node}"
        return f"gpurun-{self.home}-{self.run_id}-{self.attempt}{node}-t{_base36(int(self.ceiling.timestamp()))}"

    @classmethod
    def parse(cls, text: str) -> Mark | None:
        """Read a name back; None = not ours, to be shown and never touched."""
        match = _MARK.fullmatch(text)
        if match is None:
            return None
        node = match["node"]
        ceiling = datetime.fromtimestamp(int(match["ceiling"], 36), UTC)
        return cls(match["home"], match["run"], int(match["attempt"]), ceiling, None if node is None else int(node))


def _base36(number: int) -> str:
    digits = ""
    while number:
        number, rest = divmod(number, 36)
        digits = _DIGITS[rest] + digits
    return digits or "0"


@dataclass(frozen=True, slots=True)
class Offer:
    """Something rentable at a price now. `price` is USD an hour for all GPUs together."""

    provider: str
    name: str  # the provider's own id for it
    gpu: str  # canonical GPU name, "" = CPU only
    gpu_count: int
    price: Decimal
    vram_gib: float = 0.0  # of one GPU, as the card reports it
    vcpus: int = 0  # 0 = not told
    memory_gib: float = 0.0
    disk_gib: float = 0.0
    region: str = ""
    available: bool = True
    seen_at: datetime | None = None  # when the price was read
    source: str = "live"
    cloud: str = ""  # "community" = on a stranger's machine, "free" = on terms of its own: taken only where asked for
    most_hours: float = 0.0  # that the vendor itself lends it; 0 = it sets no such limit


class Place(StrEnum):
    """Where a holder lives: holders in one place fail together."""

    SERVER = "server"  # the provider itself
    MACHINE = "machine"  # on the rented machine
    HERE = "here"  # this computer: controller and guard
    ELSEWHERE = "elsewhere"  # a guard with a fresh pulse on another machine


class Proof(StrEnum):
    """What is known of a holder's power."""

    UNPROVEN = "unproven until start"
    PROVEN = "proven"
    ABSENT = "absent"


@dataclass(frozen=True, slots=True)
class Holder:
    """Who can stop the meter, and on whose word we believe it."""

    name: str
    place: Place
    proof: Proof
    extendable: bool = False
    worst_overrun_seconds: int = 0
    evidence: str = ""
    proven_at: datetime | None = None


class Phase(StrEnum):
    """What was seen of an allocation. A word the vendor made up later maps to the least final one."""

    QUEUED = "queued"
    READY = "ready"  # reachable, nothing running: machines only
    RUNNING = "running"
    EXITED = "exited"  # may still bill
    ABSENT = "absent"  # the provider's own "no such thing"


@dataclass(frozen=True, slots=True)
class Observation:
    """One look at one allocation. `billing` stands beside `phase`: exited and free are different facts."""

    phase: Phase
    billing: bool
    evidence: str  # whose word this is, in a few words: "GET /instances/i-1 → terminated"
    price: Decimal | None = None  # USD an hour as paid
    billed_from: datetime | None = None  # the vendor's own record
    billed_until: datetime | None = None
    billed_within: float = 0.0  # seconds by which either may be later than told
    message: str = ""  # the vendor's words for a person
    failure: str = ""  # a signature, where the vendor says that the allocation is broken for good
    ended: bool = False  # the vendor's own word that it is over, where an absence is none: one read is proof
    ending: bool = False  # the vendor took the end but has not carried it out: it may still bill, or live on
    holder: Holder | None = None  # the vendor's own limit, as it was read back in this look


@dataclass(frozen=True, slots=True)
class Allocation:
    """What bills on the account: ours by its mark, the rest foreign (`mark` is None)."""

    id: str
    mark: Mark | None
    name: str
    billing: bool
    price: Decimal | None = None
    since: datetime | None = None
    console_url: str = ""
    ending: bool = False  # the vendor took the end but has not carried it out: it may still bill, or live on


class Secret:
    """A value that is never shown: `repr` gives its last four characters."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Give the value itself: only where it leaves for the vendor."""
        return self._value

    def __repr__(self) -> str:
        """Show the end of a long secret, nothing of a short one."""
        tail = self._value[-4:] if len(self._value) >= 12 else ""
        return f"Secret('…{tail}')"

    __str__ = __repr__


@dataclass(frozen=True, slots=True)
class Blob:
    """A file of the user's data, named by its content so that it is never sent twice."""

    sha256: str
    size: int  # bytes
    path: Path  # where it lies here
    name: str  # where the payload expects it, relative to the job's folder: "data/train.jsonl"
    source: str = ""  # where the same bytes lie besides, as it was typed: "s3://bucket/train.jsonl"
    endpoint: str = ""  # the server of that


@dataclass(frozen=True, slots=True)
class Job:
    """All that a machine needs to do one attempt."""

    mark: Mark
    bundle: Path  # tar.gz: payload/, code/, config.json
    blobs: tuple[Blob, ...]
    command: tuple[str, ...]  # argv run in the job's folder; "{python}" stands for the payload's interpreter
    deadline: datetime
    ceiling: datetime
    max_seconds: int  # from launch to the ceiling: for a vendor's own limit
    grace_seconds: int  # SIGTERM this long before the deadline
    max_idle_seconds: int  # no step for this long = hung
    checkpoint: Path | None = None  # the newest whole checkpoint at home, to carry on from
    client_key: Path | None = None  # private half of this attempt's own ed25519 pair; the public one is <name>.pub
    host_key: Path | None = None  # the same for the machine, so that the first connection is already verified
    secrets: Mapping[str, Secret] = field(default_factory=dict)
    gpus: int = 0  # that the offer has: the setup calls a machine with fewer broken
    setup: tuple[str, ...] = ()  # argv that makes the environment on a bare machine; () = none is needed
    log_limit_bytes: int = 64 * 2**20
    store: Secret | None = None  # store.json: leave to write into the store, for this attempt; None = there is none
    sources: Secret | None = None  # {sha256: {"url", "size", "token"?}}: what the machine may fetch by itself
    key_on_machine: bool = False  # the user's leave: the account's key may lie on the machine, to end itself
    take_substitute: bool = False  # the user's leave: another GPU than the offer's will do, where a vendor gives one
    probe: Mapping[str, float] = field(default_factory=dict)  # what the first steps are judged by; {} = they are not


@dataclass(frozen=True, slots=True)
class Access:
    """What a later process needs to reach the same remote again; lies in `runs/<id>/ssh/`."""

    folder: Path  # this attempt's own part of it, 0600: client_ed25519, host_ed25519.pub, config (for the system's ssh)
    trust_on_first_use: bool = False  # the user's explicit leave to take whatever host key answers first
    progress: Callable[[int, int], None] | None = None  # told bytes shipped and to ship; may raise RemoteError to stop
    go_on: Callable[[], None] | None = None  # asked while files come home; raises RemoteError when it is time to end
    key_on_machine: bool = False  # as in the job


class OrderKind(StrEnum):
    """What the controller may tell a running agent."""

    STOP = "stop"  # save, then end
    DEADLINE = "deadline"  # a new deadline, and with it a new ceiling
    STORE = "store"  # a fresh leave to write into the store: nothing for the agent, so `id` is 0


@dataclass(frozen=True, slots=True)
class Order:
    """An order to the agent; `id` grows, and the agent obeys each once."""

    id: int
    kind: OrderKind
    deadline: datetime | None = None
    ceiling: datetime | None = None  # beside a new deadline: the machine's own last limit; None = as it was
    store: Secret | None = None  # of STORE: store.json as in the job


@dataclass(frozen=True, slots=True)
class RemoteStatus:
    """What the machine says of itself: `status.json`, `result.json` and `watchdog.json` in one."""

    phase: Phase  # READY = agent not started, RUNNING, EXITED = result.json is whole or the agent is gone
    heartbeat: datetime | None = None
    stage: str = ""  # "load", "train", "eval", "save", …
    step: int = 0
    total_steps: int = 0
    exit_code: int | None = None
    reason: str = ""  # the agent's word: completed failed hung diverged deadline stopped; "" = no result
    detail: str = ""  # one line for a person: the last error line, the signal
    deadline: datetime | None = None  # the agent's own, after `tell`
    store: str = ""  # of its results: "busy" = on their way there, "whole" = all verified there, "stuck"; "" = no store
    store_error: str = ""  # why nothing goes through to the store; "" = it does
    store_failing: datetime | None = None  # since when nothing does
    store_until: datetime | None = None  # by when the leave to write there ends
    watchdog: Holder | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """One whole file on the machine; `name` is relative to the job's folder, with forward slashes."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """The whole files of an attempt. `final` = result.json is there: no more will come."""

    entries: tuple[Entry, ...]
    final: bool


@dataclass(frozen=True, slots=True)
class Traits:
    """Facts about a vendor that the life cycle needs; times in seconds, each with its source beside it."""

    list_lag_seconds: float  # a fresh launch, or a fresh end, may not show for this long
    boot_limit_seconds: float  # from launch to READY/RUNNING; past it the attempt is broken
    start_limit_seconds: float  # from READY to RUNNING
    poll_seconds: float  # politeness
    billing_step_seconds: int  # 1 = per second, 60 = per minute begun
    console_url: str = ""
    ssh: bool = False  # a bare machine made for the attempt: it gets keys of its own and an environment by setup.sh
    setup: bool = False  # without ssh, and yet its image lacks the packages of trainings: setup.sh brings them
    host_key_sent: bool = True  # the host key can be made here and sent unseen; else the vendor's word on it is pinned
    retry_seconds: float = 30.0  # between two rounds while no offer has capacity
    ending_seconds: float = 180.0  # that it may take over an end before it is told again
    key_on_machine: bool = False  # a machine there can end itself with the account's own key, and with nothing less
    queue_seconds: float = 0.0  # that a launch may wait unbilled before it runs: the ceiling has room for it

    @property
    def makes_setup(self) -> bool:
        """Whether the environment of a training is made on what it rents."""
        return self.ssh or self.setup


@runtime_checkable
class Remote(Protocol):
    """The byte plane of one allocation; may hold a connection. Raises `RemoteError`."""

    def start(self, job: Job) -> None:
        """Ship and start detached; safe to repeat at any point: never two trainings."""

    def status(self) -> RemoteStatus:
        """Read what the machine says of itself."""

    def logs(self, offset: int) -> bytes:
        """Bytes of the log from `offset`, at most a few MiB; empty = nothing new."""

    def tell(self, order: Order) -> None:
        """Leave an order for the agent; safe to repeat."""

    def manifest(self) -> Manifest:
        """Name the files that are whole right now."""

    def fetch(self, names: Sequence[str], dest: Path) -> None:
        """Bring files under `dest` by their names, verified by sha256; resumable.

        Raises:
            IntegrityError: the bytes are not the manifest's; nothing is left under the final name.
        """

    def close(self) -> None:
        """Let go of the connection; the job goes on."""


@runtime_checkable
class Provider(Protocol):
    """The money plane of one vendor. Constructors do no I/O. Raises `ProviderError`."""

    name: str
    traits: Traits
    skew: timedelta  # how far the vendor's clock was ahead of ours at its last answer; zero while it is not known

    def account(self) -> str:
        """Fingerprint of the account, workspace or namespace that the key opens."""

    def offers(self) -> Sequence[Offer]:
        """Everything rentable now, with live prices where the vendor tells them."""

    def holders(self, job: Job, offer: Offer) -> Sequence[Holder]:
        """Who, besides this computer, can stop the meter of such a job."""

    def launch(self, job: Job, offer: Offer) -> str:
        """Start billing; give the allocation's id. Sent once.

        Raises:
            NoCapacityError, QuotaError, CredentialsError: nothing was rented.
            UnclearError: it may have been.
        """

    def find(self, mark: Mark) -> Sequence[Allocation]:
        """Look for what a launch with this mark may have made."""

    def inspect(self, allocation_id: str) -> Observation:
        """Look at one allocation; an id the vendor does not know is `Phase.ABSENT`."""

    def terminate(self, allocation_ids: Sequence[str]) -> None:
        """End billing. Safe twice, safe on unknown ids, batched where the API can."""

    def extend(self, allocation_id: str, ceiling: datetime) -> bool:
        """Move every limit the vendor holds, and the mark; False = it can't be moved."""

    def allocations(self) -> Sequence[Allocation]:
        """Everything that bills on the account, every page of it."""

    def tidy(self, live: Collection[Mark]) -> None:
        """Remove the leftovers of attempts that are not in `live`: keys, prefixes, folders."""

    def remote(self, allocation_id: str, access: Access) -> Remote:
        """Open the byte plane of an allocation."""


def utc(epoch_seconds: float) -> datetime:
    """Turn epoch seconds into the aware UTC time used everywhere."""
    return datetime.fromtimestamp(epoch_seconds, UTC)


def seconds_between(earlier: datetime, later: datetime) -> float:
    """Seconds from one time to another; negative when they are swapped."""
    return (later - earlier) / timedelta(seconds=1)
