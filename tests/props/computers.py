"""A computer as it truly is: its clocks, its sleep, its network, its disk, its key; and the homes and processes on it.

The processes run the shipped code: a controller with its lease, a guard's pass. What the system gives them (the time,
files, SQLite) is handed in here or swapped by `swapped`.
"""

from __future__ import annotations

import contextlib
import errno
import math
import sqlite3
import sys
import time
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from engine import current

from orchestrator import follow, guard_pass
from orchestrator import home as homes
from orchestrator.controller import Controller
from orchestrator.database import Database
from orchestrator.home import Home
from orchestrator.ledger import Ledger
from providers.base import utc
from providers.errors import GpurunError, LeaseLostError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime
    from pathlib import Path

    from adapters import SimProvider
    from engine import Process

    from orchestrator.records import Lease

GUARD_SECONDS = 60.0


@dataclass
class Computer:
    """A laptop or an always-on box."""

    name: str
    key: str  # also names the account
    world: Any
    ahead: float = 0.0  # of its clock
    behind: float = 0.0  # that its clock ever was
    asleep_until: float = 0.0
    slept: float = 0.0
    woke: float = -math.inf
    dead: bool = False  # switched off
    gone: bool = False  # for good
    full: bool = False  # its disk
    cut_off: list[tuple[float, float]] = field(default_factory=list)
    guarded: bool = False  # a timer starts a guard's pass every minute
    homes: list[SimHome] = field(default_factory=list)
    provider: SimProvider | None = None

    def wall(self) -> float:
        return self.world.engine.now + self.ahead

    def clock(self) -> datetime:
        return utc(self.wall())

    def steady(self) -> float:
        """CLOCK_MONOTONIC: stands still while it sleeps."""
        return self.world.engine.now - self.slept

    def online(self, moment: float) -> bool:
        return not any(start <= moment < end for start, end in self.cut_off)

    def is_awake(self, moment: float) -> bool:
        return not self.dead and self.asleep_until <= moment

    def must_have_room(self) -> None:
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")

    def sleep_for(self, seconds: float) -> None:
        """The lid is closed: whatever runs here stands still, in the midst of anything."""
        now = self.world.engine.now
        until = max(self.asleep_until, now + seconds)
        self.slept += until - max(self.asleep_until, now)
        self.asleep_until = self.woke = until

    def power_off(self) -> None:
        self.dead = True
        for process in [one for one in self.world.engine.processes if one.computer is self]:
            process.kill()

    def power_on(self) -> None:
        self.dead = self.gone


class SimHome:
    """One GPURUN_HOME on one computer, with its controllers."""

    def __init__(self, computer: Computer, root: Path, home_id: str) -> None:
        self.computer, self.id = computer, home_id
        self.home = Home(root)
        self.runs: list[str] = []
        self.controllers: dict[str, tuple[Process, Lease, float]] = {}  # by the holder's name
        self.held: dict[str, Process] = {}  # run -> the newest controller of it
        self.saved: bytes | None = None
        self.restored_at: float | None = None
        self._numbers = 0

    # ── controllers ─────────────────────────────────────────────────────────────────────────────

    def hold(self, run_id: str, die_at: int = -1) -> Process:
        """Start a controller, as a command or the guard does."""
        self._numbers += 1
        name = f"{self.computer.name}:{self._numbers}:1"
        engine = self.computer.world.engine
        process = engine.spawn(self.computer, f"controller {run_id}", lambda: self._hold(run_id, name), self.id)
        process.die_at = die_at
        return process

    def _hold(self, run_id: str, name: str) -> None:
        """What hold.hold does, without its thread: the lease is renewed where somebody asks for it (`keep`)."""
        process, world = current(), self.computer.world
        ledger = Ledger(self.home.ledger)
        try:
            row = ledger.run(run_id)
            self.keep()
            lease = None if row.memory.is_done else ledger.acquire(run_id, name, self.computer.clock(), self.is_alive)
            if lease is None:
                return
            self.controllers[name] = (process, lease, self.computer.steady())
            self.held[run_id] = process
            world.holds(self, run_id, process, begins=True)
            try:
                controller = Controller(self.home, ledger, self.computer.provider, lease, clock=self.computer.clock)
                controller.run(world.engine.sleep)
            finally:
                world.holds(self, run_id, process, begins=False)
                if process.alive:
                    ledger.release(lease)
        except LeaseLostError:
            world.say(self.computer.name, f"controller {name} of {run_id}: another one holds it")
        finally:
            self.controllers.pop(name, None)
            ledger.close()

    def is_alive(self, name: str) -> bool:
        return name in self.controllers and self.controllers[name][0].alive

    def keep(self) -> None:
        """Renew what the lease keepers would have renewed by now: each every ten seconds that its computer is awake."""
        now, computer = self.computer.world.engine.now, self.computer
        if now - computer.woke < 10.0 or computer.full:
            return
        for process, lease, _ in list(self.controllers.values()):
            if process.alive:
                with contextlib.suppress(GpurunError):
                    ledger = Ledger(self.home.ledger)
                    try:
                        ledger.renew(lease, computer.clock())
                    finally:
                        ledger.close()

    def tend(self) -> list[str]:
        """Give every unfinished run to a controller of its own: one that is held keeps its holder."""
        if not self.id:
            return []
        ledger = Ledger(self.home.ledger)
        try:
            unfinished = [row.run_id for row in ledger.runs(unfinished=True)]
        finally:
            ledger.close()
        for run_id in unfinished:
            holder = self.held.get(run_id)
            if holder is None or not holder.alive or self.computer.world.engine.now - self.computer.woke < 30.0:
                self.hold(run_id)  # the lease says whether it may
        return unfinished

    def guard_once(self) -> None:
        """One pass of the shipped guard."""
        computer, world = self.computer, self.computer.world
        means = guard_pass.Means(computer.clock, world.engine.sleep, self.tend)
        providers = {computer.provider.name: computer.provider}
        begun = world.engine.now
        pulse = guard_pass.once(self.home, providers, means)
        world.history.guarded(self, begun, pulse)

    def guard_forever(self) -> None:
        """The timer: a pass a minute, never two at once."""
        engine = self.computer.world.engine
        while True:
            begun = engine.now
            process = engine.spawn(self.computer, f"guard {self.id}", self.guard_once, self.id)
            process.die_at = self.computer.world.next_guard_death() or -1
            while process.alive:
                engine.sleep(1.0)
            if process.steps == process.die_at:
                self.computer.world.history.failed.append(engine.now)
            engine.sleep(max(GUARD_SECONDS - (engine.now - begun), 1.0))

    # ── the ledger's file ───────────────────────────────────────────────────────────────────────

    def back_up(self) -> None:
        connection = sqlite3.connect(self.home.ledger)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.close()
        self.saved = self.home.ledger.read_bytes()

    def restore(self) -> None:
        """Put an old ledger in the place of today's; nothing of this home runs meanwhile."""
        if self.saved is None:
            return
        for process in [one for one in self.computer.world.engine.processes if one.computer is self.computer]:
            process.kill()
        for end in ("-wal", "-shm"):
            self.home.ledger.with_name(self.home.ledger.name + end).unlink(missing_ok=True)
        self.home.ledger.write_bytes(self.saved)
        self.restored_at = self.computer.world.engine.now


# ── what the system gives ───────────────────────────────────────────────────────────────────────


class SimDatabase(Database):
    """The shipped one, on a disk that may be full; before and after each transaction its process may die."""

    def __init__(self, path: Path) -> None:
        process = current()
        self._process = process
        self._computer = None if process is None else process.computer
        super().__init__(path)

    def execute(self, query: str, values: Any = ()) -> None:
        if self._computer is not None and self._computer.full:
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorname = "SQLITE_FULL"
            raise error
        super().execute(query, values)

    @contextlib.contextmanager
    def write(self) -> Iterator[None]:
        if self._process is not None:
            self._process.step()
        with super().write():
            yield
        if self._process is not None:
            self._computer.world.history.wrote(self._process, self._connection)
            self._process.step()


def _steady() -> float:
    process = current()
    return time.monotonic() if process is None else process.computer.steady()


def _wall() -> float:
    return current().computer.wall()


def _sleep(seconds: float) -> None:
    current().engine.sleep(seconds)


def _write_aside(path: Path, data: bytes) -> None:
    process = current()
    if process is not None:
        process.computer.must_have_room()
    path.write_bytes(data)


def _write_at(path: Path, place: int, data: bytes) -> None:
    process = current()
    if process is not None:
        process.computer.must_have_room()
    _REAL_WRITE_AT(path, place, data)


_REAL_WRITE_AT = follow._write_at


@contextlib.contextmanager
def swapped() -> Iterator[None]:
    """Put the simulated time, files and database in the place of the system's, in every module of ours."""
    clockwork = SimpleNamespace(monotonic=_steady, time=_wall, sleep=_sleep)
    swaps = {
        "time": (time, clockwork),
        "write_aside": (homes.write_aside, _write_aside),
        "_write_at": (_REAL_WRITE_AT, _write_at),
        "Database": (Database, SimDatabase),
    }
    undo = []
    for name, module in list(sys.modules.items()):
        if not name.startswith("orchestrator.") or module is None or name == "orchestrator.database":
            continue
        for attribute, (real, ours) in swaps.items():
            if module.__dict__.get(attribute) is real:
                undo.append((module, attribute, real))
                setattr(module, attribute, ours)
    try:
        yield
    finally:
        for module, attribute, real in undo:
            setattr(module, attribute, real)
