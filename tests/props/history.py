"""Keeps what truly happened and what gpurun said, in the oracle's plain words. Decides nothing."""

from __future__ import annotations

import math
import sqlite3
from collections import defaultdict
from contextlib import closing
from typing import TYPE_CHECKING, Any

from oracle import Claim, Fact, History, Holder, Kill, Told
from weather import Span, minus

from orchestrator.ledger import Ledger
from providers.base import Mark
from providers.errors import GpurunError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from computers import Computer, SimHome
    from engine import Process
    from vendors import Thing
    from world import World

    from providers.base import Allocation

_WRITTEN = 1.0  # seconds: by then what was heard is in the ledger


class Historian:
    """Watches one world."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._told = History()
        self.failed = self._told.failed
        self._held: list[tuple[SimHome, str, Process, float, float]] = []
        self._guards: list[tuple[Computer, str, float]] = []
        self._dogs: list[tuple[Thing, Process, str, float, float]] = []
        self._holes: dict[str, list[Span]] = defaultdict(list)
        self._revoked: dict[str, float] = {}
        self._restored: set[str] = set()
        self._done: dict[str, set[str]] = defaultdict(set)
        self._free: dict[str, set[str]] = defaultdict(set)
        self._open: dict[str, set[str]] = defaultdict(set)  # runs with an allocation that is not proven gone

    @property
    def now(self) -> float:
        return self._world.engine.now

    def hole(self, computer: Computer, span: Span) -> None:
        """This computer can do nothing for so long."""
        self._holes[computer.name].append(span)

    def revoked(self, key: str) -> None:
        self._revoked.setdefault(key, self.now)

    def restored(self, home: SimHome) -> None:
        self._restored.add(home.id)
        self._told.restored.append((self.now, home.id))
        self._done[home.id].clear()
        self._free[home.id].clear()

    def holds(self, home: SimHome, run_id: str, process: Process, *, begins: bool) -> None:
        if begins:
            self._held.append((home, run_id, process, self.now, math.inf))
            return
        for number, (where, run, who, start, _) in enumerate(self._held):
            if who is process:
                self._held[number] = (where, run, who, start, self.now)

    def guards(self, home: SimHome) -> None:
        self._guards.append((home.computer, home.id, self.now))

    def sealed(self, thing: Thing) -> None:
        """A machine heard that the last of its results is in the store, by its checksum."""
        self._told.sealed.append((self.now, thing.id))

    def leaves(self, thing: Thing, files: dict[str, bytes]) -> None:
        """A machine ends itself since all is in the store; what lies on its disk just then."""
        self._told.leaving.append((self.now, thing.id, files))

    def silent(self, home: str) -> None:
        """The store failed a controller of this home."""
        self._told.silent.append((self.now, home))

    def armed(self, thing: Thing, dog: Process, key: str) -> None:
        """A watchdog that can end its machine, by this key."""
        self._dogs.append((thing, dog, key, self.now, math.inf))

    def disarmed(self, dog: Process) -> None:
        self._dogs = [
            (one, who, key, start, self.now if who is dog else end) for one, who, key, start, end in self._dogs
        ]

    def is_done(self, home: SimHome, run_id: str) -> bool:
        return run_id in self._done[home.id] and run_id not in self._open[home.id]

    def read(self, at: float, key: str, process: Process, about: str, result: Any) -> None:
        """An answer that came, of a look at one or at the whole list: the truth of `at`, when the vendor gave it."""
        home = process.home
        whose = process.name.partition("controller ")[2]  # "" = the guard, which reads for every run
        if isinstance(result, list):
            listed = frozenset(row.id for row in result if row.billing)
            self._told.reads.append((at, home, key, listed, ""))
        elif about and result.billing:
            self._told.priced.add((home, about))
            self._told.heard.add((home, whose, about))
        elif about:
            self._told.heard.add((home, whose, about))
            self._told.reads.append((at, home, key, frozenset(), about))

    def listed(self, process: Process, rows: Iterable[Allocation]) -> None:
        """A list came whole, every page of it: what a page did not hold nobody was shown."""
        whose = process.name.partition("controller ")[2]
        shown = {(process.home, whose, row.id) for row in rows if row.billing}
        # Who dies of the answer, before a word of it is written, has told nobody.
        self._world.engine.after(_WRITTEN, lambda: self._told.heard.update(shown if process.alive else ()))

    def wrote(self, process: Process, connection: sqlite3.Connection) -> None:
        """A transaction was committed: what does the ledger say now that it did not say before?"""
        home, account = process.home, process.computer.key
        done = {row[0] for row in connection.execute("SELECT run_id FROM runs WHERE state = 'done'")}
        rented = connection.execute("SELECT id, run_id, ended IS NULL FROM allocations").fetchall()
        known = {run for _, run, _ in rented}
        for run in done - self._done[home]:
            blank = home in self._restored and run not in known
            self._told.claims.append(Claim(self.now, home, account, run, blank=blank))
        self._done[home] = done
        rows = {one: run for one, run, bills in rented if not bills}
        for one in rows.keys() - self._free[home]:
            self._told.claims.append(Claim(self.now, home, account, rows[one], one))
        self._free[home] = set(rows)
        self._open[home] = {run for _, run, bills in rented if bills}

    def guarded(self, home: SimHome, begun: float, pulse: Any) -> None:
        """A guard's pass is over: what it says is gone, and whether it says that all is well."""
        account = home.computer.key
        for seen in pulse.providers.values():
            for one in seen.ended:
                self._told.claims.append(Claim(self.now, home.id, account, one["name"], one["id"]))
        if pulse.is_well:
            self._told.well.append((begun, self.now, home.id))

    def killed(self, process: Process, before: int) -> None:
        """The vendor carried out orders of this process: all that its log holds since `before`."""
        for at, _, name, one in self._world.vendor.ended_log[before:]:
            by = process.name.partition(" ")[0]
            if by == "watchdog":  # its own machine
                continue
            under_way = by == "guard" and self._is_under_way(process.home, name)
            self._told.kills.append(Kill(at, process.home, by, one, name, under_way, process.computer.ahead))

    def _is_under_way(self, home_id: str, name: str) -> bool:
        mark = Mark.parse(name)
        home = next((one for one in self._world.homes if one.id == home_id), None)
        if home is None or mark is None:
            return False
        with closing(sqlite3.connect(home.home.ledger)) as connection:
            query = "SELECT state, json_extract(memory, '$.attempt') FROM runs WHERE run_id = ?"
            row = connection.execute(query, (mark.run_id,)).fetchone()
        return row is not None and row[0] not in {"terminating", "done", "pending"} and row[1] == mark.attempt

    # ── the end ─────────────────────────────────────────────────────────────────────────────────

    def close(self, calm: float) -> History:
        """Give the whole of it."""
        told, vendor = self._told, self._world.vendor
        told.now, told.down, told.ignored, told.lag = self.now, vendor.down, vendor.ignored, vendor.nature.lag
        for one in vendor.things.values():
            limit = one.up + one.limit
            told.things.append(
                Fact(one.id, one.name, one.account, one.made, one.billed_from, one.ended, one.price,
                     vendor.nature.step, one.order, limit)
            )  # fmt: skip
        told.objects = self._world.bucket.log
        told.holders = [*self._controllers(), *self._timers(), *self._watchdogs()]
        told.told = [row for home in self._world.homes for run in home.runs if (row := self._tell(home, run, calm))]
        for process in self._world.engine.processes:
            if process.error is not None and not isinstance(process.error, (GpurunError, OSError)):
                told.errors.append(f"{process.name} died of {type(process.error).__name__}: {process.error}")
        return told

    def _able(self, computer: Computer, span: Span) -> tuple[Span, ...]:
        key = self._right_key(computer)
        holes = [*self._holes[computer.name], *computer.cut_off]
        if key in self._revoked:
            holes.append((self._revoked[key], math.inf))
        return tuple(minus([span], holes))

    def _right_key(self, computer: Computer) -> str:
        return self._world.keys[computer.name]

    def _controllers(self) -> list[Holder]:
        return [
            Holder(process.name, self._right_key(home.computer), self._able(home.computer, (start, end)), home.id, run)
            for home, run, process, start, end in self._held
        ]

    def _timers(self) -> list[Holder]:
        return [
            Holder(
                f"guard at {computer.name}",
                self._right_key(computer),
                self._able(computer, (start, math.inf)),
                own=own,
                behind=computer.behind,
            )
            for computer, own, start in self._guards
        ]

    def _watchdogs(self) -> list[Holder]:
        return [
            Holder(dog.name, one.account, ((start, min(end, self._revoked.get(key, math.inf))),), id=one.id)
            for one, dog, key, start, end in self._dogs
        ]

    def _tell(self, home: SimHome, run_id: str, calm: float) -> Told | None:
        with closing(Ledger(home.home.ledger)) as ledger:
            try:
                row = ledger.run(run_id)
            except GpurunError:
                return None  # an old ledger, of before it was launched
            events = tuple((one.verb, one.kind, one.text) for one in ledger.events(run_id))
        with closing(sqlite3.connect(home.home.ledger)) as connection:
            query = "SELECT id, evidence FROM allocations WHERE run_id = ?"
            known = tuple(connection.execute(query, (run_id,)).fetchall())
        interval = row.accrued(self.now - row.skew)  # of this very moment, whatever became of its clock since it heard
        key = self._right_key(home.computer)
        computer = home.computer
        return Told(
            home.id, run_id, str(row.memory.state), str(row.memory.reason or ""),
            float(interval.low), float(interval.high),
            recorded=bool(known) and all("ended at" in evidence for _, evidence in known),
            step=self._world.vendor.nature.step,
            price=max((float(one.price) for one in (*row.spells, row.memory.offer) if one), default=0.0),
            known=known, events=events, folder=home.home.run(run_id).path, whole=home.id not in self._restored,
            answerable=(
                computer.is_awake(calm) and computer.is_awake(self.now)
                and key not in self._revoked and key == row.plan["account"]
            ),
        )  # fmt: skip
