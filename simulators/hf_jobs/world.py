"""The Hub's world of jobs: submitted, scheduled, running as real processes, ended; and the bill.

    SCHEDULING ──(schedule)──> RUNNING ── exit 0 ──> COMPLETED
        │                         ├── exit n, timeoutSeconds ──> ERROR     cancel ──> CANCELED
        └── image ──> ERROR       └ billed from here ──────────> to here

Stages lag a little behind what happened (1.3 s were seen, 2026). Everything here runs under the world's lock, but for
the containers' own threads.
"""

from __future__ import annotations

import functools
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from simulators.clock import Agenda, Clock, iso
from simulators.faults import Faults, Hit
from simulators.hf_jobs.buckets import Bucket, Scope, Stores
from simulators.hf_jobs.container import Container
from simulators.hf_jobs.faults import BOOK
from simulators.hf_jobs.flavors import FLAVORS
from simulators.hf_jobs.scheduled import Schedules
from simulators.journal import Journal
from simulators.meter import Entry, Meter

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from simulators.hf_jobs.repos import Repo

TERMINAL = frozenset({"COMPLETED", "ERROR", "CANCELED", "DELETED"})
DEFAULT_TIMEOUT = 1800  # seconds, where none is asked for
_GRACE_SECONDS = 10.0  # from SIGTERM to SIGKILL: not documented
_LAG_SECONDS = 1.3  # of the stage behind the process
_KEEP_ALIVE_SECONDS = 30.0
_LEAST_SILENCE_SECONDS = 8.0
_LEAST_GRACE_SECONDS = 1.0  # ours: processes end in our world, however hurried the vendor


@dataclass(slots=True)
class Job:
    """One job. Moments are epoch seconds of the vendor's clock."""

    id: str
    number: int
    namespace: str
    spec: dict[str, Any]
    micro: int  # USD · 10^-6 a minute
    created: float
    faults: dict[str, Hit]
    container: Container
    labels: dict[str, str]
    stage: str = "SCHEDULING"
    message: str | None = None
    started: float | None = None
    finished: float | None = None
    listed_from: float = 0.0
    lines: list[tuple[str, str]] = field(default_factory=list)  # text, timestamp
    streamed: int = 0  # events that any connection was given
    fate: str = ""  # why its process ends, where that is decided already
    gone: bool = False
    scheduled: str = ""  # the scheduled job that submitted it

    @property
    def terminal(self) -> bool:
        """Whether the vendor says that it is over."""
        return self.stage in TERMINAL


class HubWorld:
    """The state behind the Hub's API."""

    def __init__(
        self, lock: threading.RLock, clock: Clock, *, pace: float, schedule_seconds: float, dice: random.Random
    ) -> None:
        self.lock = lock
        self.clock = clock
        self.agenda = Agenda(clock, lock)
        self.faults = Faults(BOOK.on_instance)
        self.journal = Journal()
        self.meter = Meter()
        self.pace = pace
        self.jobs: dict[str, Job] = {}
        self.buckets: dict[str, Bucket] = {}
        self.repos: dict[str, Repo] = {}
        self.tokens: dict[str, Scope] = {}  # beside the account's own, which may all
        self.scope: Scope | None = None  # of the token that asks now; None = the account's own
        self.schedules = Schedules(self)
        self.stores: Stores
        self.folder: Path
        self.micro = {name: flavor.micro for name, flavor in FLAVORS.items()}
        self.news = threading.Condition(lock)
        self.closing = False
        self.endpoint = ""  # where the Hub is reached from within a job
        self.troubles: list[str] = []
        self.dice = dice
        self._schedule = schedule_seconds / pace
        self._pool = ThreadPoolExecutor(4, "containers")

    def settle(self, folder: Path) -> None:
        """Keep files below this folder."""
        self.folder = folder
        self.stores = Stores(folder / "xet")

    # ── the life of a job ────────────────────────────────────────────────────────────────────────────────────────

    def submit(self, namespace: str, spec: dict[str, Any], *, scheduled: str = "") -> Job:
        """Take a job in and plan its life."""
        now, job_id = self.clock.now(), self.hexes(24)
        faults = self.faults.take_for_instance()
        factor = faults["price_dearer"].number("factor") if "price_dearer" in faults else 1.0
        job = Job(
            id=job_id,
            number=len(self.jobs),
            namespace=namespace,
            spec=spec,
            micro=round(self.micro[spec["flavor"]] * factor),
            created=now,
            faults=faults,
            container=Container(
                job_id,
                self.folder / "jobs" / job_id,
                lambda line: self._said(job, line),
                lambda code: self._left(job, code),
            ),
            labels=dict(spec.get("labels") or {}),
            scheduled=scheduled,
        )
        lag = self.faults.take("list_lag", of="list")
        job.listed_from = now + (lag.number("seconds") / self.pace if lag else 0)
        self.jobs[job_id] = job
        price = Decimal(job.micro) * 60 / 10**6
        self.meter.launch(Entry(job_id, job.labels.get("name", ""), spec["flavor"], price, now))
        self._plan(job)
        return job

    def _plan(self, job: Job) -> None:
        faults, start = job.faults, job.created + self._schedule
        if "stuck_scheduling" in faults:
            job.message = "no hardware is free"
            return
        if "slow_scheduling" in faults:
            start += faults["slow_scheduling"].number("seconds") / self.pace
        if "image_fails" in faults:
            self._then(job, start, lambda when: self._end(job, "ERROR", "Failed to pull image", when))
            return
        word = faults.get("unknown_stage")
        if word:
            self._then(job, start, lambda _: setattr(job, "stage", word.text("word")))
            start += word.number("seconds") / self.pace
        self._then(job, start, lambda when: self._run(job, when))

    def _then(self, job: Job, when: float, action: Callable[[float], None]) -> None:
        self.agenda.at(when, lambda moment: None if job.terminal or job.gone or self.closing else action(moment))

    def _run(self, job: Job, when: float) -> None:
        job.stage, job.started, job.message = "RUNNING", when, None
        self.meter.start(job.id, when)
        self._say(job, f"===== Job started at {iso(when)[:19].replace('T', ' ')} =====")
        self._then(job, when + self.timeout_of(job), lambda moment: self._stop(job, "ERROR", "Job timeout", moment))
        for name, stage, message in (
            ("spend_limit", "CANCELED", "Resource group spend limit reached"),
            ("vanish", "", ""),
        ):
            if name in job.faults:
                moment = when + job.faults[name].number("after") / self.pace
                self._then(job, moment, functools.partial(self._stop, job, stage, message))
        killed = job.faults.get("exit_code")
        if killed:
            self._then(job, when + killed.number("after") / self.pace, lambda _: self._kill(job))
        self._apart(self._start, job)

    def _start(self, job: Job) -> None:
        """Start the processes; in a thread of its own."""
        mounts = {}
        with self.lock:
            for volume in job.spec.get("volumes") or ():
                bucket = self.buckets.get(volume["source"])
                if bucket is None:
                    self._end(job, "ERROR", f"Failed to mount {volume['source']}", self.clock.now())
                    return
                prefix = str(volume.get("path") or "").strip("/")
                place = bucket.place(prefix) if prefix else bucket.folder
                place.mkdir(parents=True, exist_ok=True)
                mounts[volume["mountPath"].rstrip("/")] = place
                if "bucket_lag" in job.faults:
                    bucket.late[f"{prefix}/out/"] = job.faults["bucket_lag"].number("seconds") / self.pace
        hub = {"HF_ENDPOINT": self.endpoint}  # not the vendor's: there the Hub is where its library looks
        environment = {**hub, **(job.spec.get("environment") or {}), **(job.spec.get("secrets") or {})}
        command = [*job.spec["command"], *(job.spec.get("arguments") or ())]
        try:
            job.container.start(command, environment, mounts, FLAVORS[job.spec["flavor"]])
        except OSError as error:
            with self.lock:
                self._end(job, "ERROR", f"Job failed with exit code: 127. Reason: {error}", self.clock.now())
        with self.lock:
            ended = job.terminal or self.closing
        if ended:  # while it was being started: there was nothing yet that could be killed
            job.container.kill()

    def timeout_of(self, job: Job) -> float:
        """Seconds that it may run."""
        return float(job.spec.get("timeoutSeconds") or DEFAULT_TIMEOUT)

    def cancel(self, job: Job) -> None:
        """End it because somebody asked."""
        self._stop(job, "CANCELED", "", self.clock.now())

    def _stop(self, job: Job, stage: str, message: str, when: float) -> None:
        """End a job whose processes may still live: SIGTERM, a grace, SIGKILL. Billing stops at once."""
        if not stage:
            job.gone = True
        self._end(job, stage or "DELETED", message, when)
        job.container.ask()
        grace = max(_GRACE_SECONDS / self.pace, _LEAST_GRACE_SECONDS * self.clock.rate)
        self.agenda.at(when + grace, lambda _: self._kill(job))

    def _kill(self, job: Job) -> None:
        """Kill it in a thread of its own: its last words need the lock."""
        if not self.closing:
            self._apart(lambda _: job.container.kill(), job)

    def _apart(self, what: Callable[[Job], None], job: Job) -> None:
        """Do it in a thread of its own; what breaks there is a bug of ours, and told."""

        def note(done: Future[None]) -> None:
            error = done.exception()
            if error is not None:
                self.troubles.append(f"{type(error).__name__}: {error}")

        self._pool.submit(what, job).add_done_callback(note)

    def _end(self, job: Job, stage: str, message: str, when: float) -> None:
        if job.terminal:
            return
        job.stage, job.message, job.finished = stage, message or None, when
        self.meter.end(job.id, when, message or stage.lower())
        self.news.notify_all()

    def _left(self, job: Job, code: int) -> None:
        """Its first process ended: the vendor knows a moment later."""
        with self.lock:
            now = self.clock.now()
            code = 128 - code if code < 0 else code
            killed = job.faults.get("exit_code")
            code = int(killed.number("code")) if killed and code == 137 else code
            self.meter.end(job.id, now, f"exit {code}")
            stage = "ERROR" if code else "COMPLETED"
            message = f"Job failed with exit code: {code}. Reason: Error." if code else ""
            self._then(job, now + _LAG_SECONDS / self.pace, lambda _: self._end(job, stage, message, now))

    # ── logs ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _said(self, job: Job, line: str) -> None:
        with self.lock:
            self._say(job, line)

    def _say(self, job: Job, line: str) -> None:
        job.lines.append((line, iso(self.clock.now())))
        self.news.notify_all()

    def wait_for_lines(self, job: Job, index: int, seconds: float) -> list[tuple[str, str]]:
        """Give the events from an index on, once there are some; [] = none within so many of our seconds."""
        with self.lock:
            self.news.wait_for(lambda: len(job.lines) > index or job.terminal or self.closing, seconds)
            return job.lines[index : index + 500]

    @property
    def keep_alive_seconds(self) -> float:
        """Our seconds between two comments of a silent stream.

        However hurried: `hf jobs logs` without -f takes a silence of five seconds for the end.
        """
        return max(_KEEP_ALIVE_SECONDS / self.pace, _LEAST_SILENCE_SECONDS)

    # ── for the control ──────────────────────────────────────────────────────────────────────────────────────────

    def meter_report(self) -> dict[str, object]:
        """Tell the bill."""
        return self.meter.report(self.clock.now(), {one.id: one.stage for one in self.jobs.values()})

    def state(self) -> dict[str, object]:
        """Tell what there is, without secrets."""
        return {
            "now": iso(self.clock.now()),
            "rate": self.clock.rate,
            "jobs": [
                {
                    "id": one.id,
                    "stage": one.stage,
                    "message": one.message,
                    "flavor": one.spec["flavor"],
                    "labels": one.labels,
                }
                for one in self.jobs.values()
            ],
            "buckets": {name: sorted(bucket.names()) for name, bucket in self.buckets.items()},
            "scheduled": [self.schedules.spell(one) for one in self.schedules.all.values()],
            "repos": {name: repo.state() for name, repo in self.repos.items()},
            "troubles": self.troubles,
        }

    def arm(self, hits: Iterable[Hit]) -> None:
        """Arm faults."""
        self.faults.arm(hits)

    def hexes(self, count: int) -> str:
        """Draw an id."""
        return f"{self.dice.getrandbits(4 * count):0{count}x}"

    def close(self) -> None:
        """End every container, and wait until it is done."""
        with self.lock:
            self.closing = True
            self.news.notify_all()
            jobs = list(self.jobs.values())
        for job in jobs:
            job.container.kill()
        self._pool.shutdown(wait=True)
