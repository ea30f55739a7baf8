"""One simulated world, from its story to its history: vendor, computers, homes, runs, and all that goes wrong.

    story (drawn up front) --> World.play() --> History, for the oracle to judge

Shipped code runs in it unchanged: Controller with decide and Ledger on real SQLite, the guard's pass. The folder lies
on a disk in memory. Times inside are true epoch seconds; every clock that gpurun sees may be off from them.
"""

from __future__ import annotations

import json
import math
import shutil
import sqlite3
from collections import Counter
from dataclasses import asdict
from decimal import Decimal
from random import Random
from typing import TYPE_CHECKING

from adapters import SimProvider, money
from buckets import NAME, URL, Bucket, StoreNature, reached
from computers import Computer, SimHome, swapped
from dogs import Machine, enders
from engine import Engine
from history import Historian
from incidents import Trouble
from rigs import Rig
from uploads import uploaders
from vendors import Vendor

from orchestrator.facts import Memory
from orchestrator.jobs import JobFile
from orchestrator.ledger import Ledger
from orchestrator.plan import _plain
from orchestrator.records import RunRow
from orchestrator.store import Ability, Address, as_json
from providers.base import Holder, Mark, Offer, Place, Proof

if TYPE_CHECKING:
    from pathlib import Path

    from engine import Process
    from oracle import History
    from story import Story
    from vendors import Thing

    from providers.base import Job

BEGIN = 1795348800.0  # 2026-11-22 12:00 UTC
PRICE = 1.2
AFTERMATH = 1500.0  # seconds of peace in which all must come to its end
_TEMPLATES: dict[str, bytes] = {}


def empty_ledger(home_id: str, folder: Path) -> bytes:
    """A new home's ledger as the shipped code makes it, with an id of our choosing; made once a process."""
    if not _TEMPLATES:
        path = folder / "template.sqlite"
        Ledger(path).close()
        connection = sqlite3.connect(path)
        connection.execute("PRAGMA journal_mode=DELETE")
        connection.close()
        _TEMPLATES[""] = path.read_bytes()
        path.unlink()
    if home_id not in _TEMPLATES:
        path = folder / "template.sqlite"
        path.write_bytes(_TEMPLATES[""])
        connection = sqlite3.connect(path)
        with connection:
            connection.execute("UPDATE meta SET value = ? WHERE key = 'home'", (home_id,))
        connection.close()
        _TEMPLATES[home_id] = path.read_bytes()
        path.unlink()
    return _TEMPLATES[home_id]


def conditions(story: Story) -> Counter[str]:
    """What holds from beginning to end, counted as the faults are."""
    nature = story.nature
    held = {
        "(world) lists lag": nature.lag > 0,
        "(world) two computers": len(story.computers.ahead) > 1,
        "(world) jobs with a limit of their own": nature.queue_limit > 0,
        "(world) pods": nature.pods,
        "(world) a store": story.store is not None,
        "(world) machines that go when nobody is heard": nature.idle > 0,
    }
    return Counter(word for word, holds in held.items() if holds)


class World:
    """What truly is; the story's incidents change it."""

    def __init__(self, story: Story, root: Path, *, telling: bool = False) -> None:
        self.story, self.root = story, root
        self.lines: list[tuple[float, str, str]] | None = [] if telling else None
        self.engine = Engine(BEGIN)
        self.chance = Random(story.seed * 2 + 1)
        self.luck = Random(story.seed * 3 + 2)  # of the store: it draws nothing from the rest of the world
        self.vendor = Vendor("sim", story.nature, self.engine, self.chance)
        self.bucket = Bucket(story.store or StoreNature(), self)
        for number in range(max(one.offers for one in story.wishes)):
            self.vendor.prices[f"a10@{number}"] = PRICE + number / 10
        self.rigs: dict[str, Rig] = {}
        self.machines: dict[str, Machine] = {}
        self.counts = conditions(story)
        self.lost_minutes: list[float] = []
        self.computers: list[Computer] = []
        self.homes: list[SimHome] = []
        self.keys: dict[str, str] = {}  # the right ones
        self.accounts: dict[str, str] = {}  # of each run
        self.history = Historian(self)
        self._guard_deaths = iter(story.guard_deaths)
        self._people()
        self._foreigners()
        self.pending = len(story.incidents) + len(story.wishes)
        for number, wish in enumerate(story.wishes):
            self.engine.at(BEGIN + wish.at, lambda number=number: self._launch(number))
        trouble = Trouble(self)
        for at, kind, how in story.incidents:
            self.engine.at(BEGIN + at, lambda kind=kind, how=how: trouble.strike(kind, how))

    # ── the beginning ───────────────────────────────────────────────────────────────────────────

    def _people(self) -> None:
        plan = self.story.computers
        shutil.rmtree(self.root, ignore_errors=True)
        for number, ahead in enumerate(plan.ahead):
            self._computer(f"laptop{number}", plan.keys[number], ahead, guarded=plan.guarded[number])
        for number, where in enumerate(plan.homes):
            computer = self.computers[where]
            home = SimHome(computer, self.root / f"home{number}", f"{number + 1:04x}")
            (home.home.runs).mkdir(parents=True)
            home.home.ledger.write_bytes(empty_ledger(home.id, self.root))
            self.homes.append(home)
            computer.homes.append(home)
        if plan.watcher:
            box = self._computer("box", "acct-a", 0.0, guarded=True)
            empty = SimHome(box, self.root / "empty", "")
            empty.home.root.mkdir(parents=True)
            box.homes.append(empty)
        for computer in self.computers:
            self.timers(computer)

    def _computer(self, name: str, key: str, ahead: float, *, guarded: bool) -> Computer:
        computer = Computer(name, key, self, ahead=ahead, guarded=guarded, behind=max(-ahead, 0.0))
        computer.provider = SimProvider(self.vendor, computer)
        self.keys[name] = key
        self.computers.append(computer)
        return computer

    def timers(self, computer: Computer) -> None:
        if computer.guarded and not computer.dead:
            for home in computer.homes:
                self.engine.spawn(computer, f"timer {home.id}", home.guard_forever, home.id)
            self.history.guards(home)

    def _foreigners(self) -> None:
        names = ["somebody's box", "gpurun", f"gpurun-zzzz-x-{1}", "train-7"]
        for number in range(self.story.foreign):
            self.vendor.launch(names[number], "acct-a", "a10@0", "somebody", math.inf, None, 0.0)

    # ── runs ────────────────────────────────────────────────────────────────────────────────────

    def _launch(self, number: int) -> None:
        """What `gpurun launch` leaves: a folder, a row, a controller. By the clock of its computer and the vendor's."""
        self.pending -= 1
        wish = self.story.wishes[number]
        home = self.homes[wish.home]
        computer = home.computer
        if not computer.is_awake(self.engine.now) or computer.full:
            return
        run_id = f"demo-261122-{number:06x}"
        folder = home.home.run(run_id)
        folder.path.mkdir()
        folder.bundle.write_bytes(b"")
        JobFile(("{python}", "x.py"), (), 60, ()).write(folder)
        begin = self.engine.now  # all of a run's times go by the vendor's clock, the true one
        end = begin + self.vendor.nature.queue_limit + wish.minutes * 60
        offers = [Offer("sim", f"a10@{one}", "a10", 1, money(PRICE + one / 10)) for one in range(wish.offers)]
        plan = {
            "candidates": [_plain(asdict(one)) for one in offers],
            "account": computer.key,
            "gpu": "a10",
            "wait_seconds": wish.wait,
            "accept_risk": wish.risk,
            "key_on_machine": wish.key,
            "holders": [{"place": "machine", "proof": "unproven until start", "name": "the watchdog"}]
            if wish.key or self.vendor.nature.pods
            else [],
            "store": self._store(),
        }
        row = RunRow(
            run_id, "demo", "sim", begin, end, end + wish.more * 60, int(wish.minutes * 12), wish.attempts,
            None if wish.max_cost is None else Decimal(str(wish.max_cost)), Decimal(1), plan, Memory(),
            skew=begin - computer.wall(),
        )  # fmt: skip
        ledger = Ledger(home.home.ledger)
        ledger.admit(row, computer.clock())
        ledger.close()
        home.runs.append(run_id)
        self.accounts[run_id] = computer.key
        self._hold_again(home, run_id, list(self.story.deaths[number]))

    def _store(self) -> dict[str, object] | None:
        """What a plan keeps of the store, after its preflight."""
        nature = self.story.store
        if nature is None:
            return None
        return as_json(Address(NAME, "mine", URL), Ability(nature.policies, nature.checksums))

    def _hold_again(self, home: SimHome, run_id: str, deaths: list[int]) -> None:
        """Start a controller; where the story lets it die, a command of the user's starts the next one."""
        if not home.computer.is_awake(self.engine.now):
            return
        process = home.hold(run_id, deaths.pop(0) if deaths else -1)

        def watch() -> None:
            if process.alive:
                self.engine.after(15.0, watch)
            elif process.steps == process.die_at:
                self.counts["controller killed at a step"] += 1
                self._hold_again(home, run_id, deaths)

        if process.die_at > 0:
            self.engine.after(15.0, watch)

    def rented(self, thing: Thing, job: Job) -> None:
        """A launch took effect: its rig stands ready; a job begins by itself."""
        mark = Mark.parse(thing.name)
        assert mark is not None, "a launch without a mark"
        wish = self.story.wishes[int(mark.run_id[-6:], 16)]
        for one in [one for one in self.vendor.things.values() if one.order == thing.order]:
            self.rigs[one.id] = Rig(one.id, wish.steps, wish.every, leaves=self.story.leaves)
            self.say("vendor", f"rented {one.id} {one.name}")
            patience = self.vendor.nature.queue_limit or self.vendor.nature.boot * 4
            self.counts["queue longer than expected"] += self.vendor.nature.jobs and one.up - one.made > patience
            if self.vendor.nature.idle:
                self.engine.at(one.up + self.vendor.nature.idle, lambda one=one: self._is_heard(one))
            if self.vendor.nature.jobs:
                self.engine.at(one.up, lambda one=one: self._run_job(one, job))

    def _is_heard(self, thing: Thing) -> None:
        """An allocation that no computer spoke with for long goes by itself."""
        until = max(thing.heard, thing.up) + self.vendor.nature.idle
        if thing.ended is None and self.engine.now >= until:
            self.counts["nobody was heard"] += 1
            self.vendor.end(thing, "nobody was heard")
        elif thing.ended is None:
            self.engine.at(until, lambda: self._is_heard(thing))

    def _run_job(self, thing: Thing, job: Job) -> None:
        if thing.ended is None:
            self.ship(self.rigs[thing.id], job)
            self.engine.at(thing.up + thing.limit, lambda: self.vendor.end(thing, "its limit"))
            self.engine.after(1.0, lambda: self._watch_job(thing))

    def _watch_job(self, thing: Thing) -> None:
        """A job ends when its process does."""
        rig, now = self.rigs[thing.id], self.engine.now
        if thing.ended is None and not rig.is_alive(now):
            self.vendor.end(thing, "its own end")
        elif thing.ended is None:
            over = min(rig.end()[0], math.inf if rig.died is None else rig.died)
            self.engine.at(min(max(over, now + 1), now + 30.0), lambda: self._watch_job(thing))

    def ship(self, rig: Rig, job: Job) -> None:
        """The job's files are in place: its watchdog is armed, and starts the agent."""
        if rig.thing not in self.machines:
            self.machines[rig.thing] = Machine(self, self.vendor.things[rig.thing], rig, job)
            self.machines[rig.thing].arm()

    def agent_starts(self, machine: Machine) -> None:
        """The training begins, from the checkpoint that was sent along or from the machine's own."""
        rig, job, now = machine.rig, machine.job, self.engine.now
        if rig.began is not None:
            rig.restart(now)
            return
        first = 0
        if job.checkpoint is not None:
            first = int(json.loads((job.checkpoint / "CHECKPOINT.json").read_bytes())["step"])
        rig.start(now, first, (machine.deadline, job.ceiling.timestamp(), job.grace_seconds))
        self._count_lost(machine.thing, first)

    def _count_lost(self, thing: Thing, first: int) -> None:
        """Work that an earlier attempt had done and this one does again: minutes, at a step a second."""
        run = str(Mark.parse(thing.name)).rsplit("-", 2)[0]
        before = [
            one for one in self.vendor.things.values() if one.name.startswith(f"{run}-") and one.made < thing.made
        ]
        if before:
            last = before[-1]
            reached, _ = self.rigs[last.id].progress(min(self.engine.now, last.ended or self.engine.now))
            self.lost_minutes.append(max(reached - first, 0) / 60)

    def proof_of(self, rig: Rig) -> Holder | None:
        """What the machine says of its own holder."""
        machine = self.machines[rig.thing]
        able = machine.has_ender and machine.dog is not None and machine.dog.alive
        works = able and machine.key not in self.vendor.revoked
        words = "its key was taken" if works else "it can't end this machine"
        return Holder("the watchdog", Place.MACHINE, Proof.PROVEN if works else Proof.ABSENT, evidence=words)

    # ── the end ─────────────────────────────────────────────────────────────────────────────────

    def play(self) -> History:
        """Let it happen."""
        with swapped(), enders(), uploaders(self), reached(self):
            story = self.story
            most = max(story.quiet, *(one.at + (one.minutes + one.more) * 60 for one in story.wishes))
            calm = BEGIN + most + story.nature.queue_limit + 60 + story.nature.ignores * 35
            self.engine.at(calm, self._everybody_looks)
            try:
                self.engine.run(calm + AFTERMATH, self._is_over)
                return self.history.close(calm)
            finally:
                self.engine.close()

    def _everybody_looks(self) -> None:
        """When all is calm, whoever has a computer looks at it: `gpurun ps` carries on what nobody holds."""
        for computer in self.computers:
            if computer.is_awake(self.engine.now) and not computer.full:
                for home in computer.homes:
                    if home.id:
                        self.engine.spawn(computer, f"ps {home.id}", home.tend, home.id)

    _checked = 0.0

    def _is_over(self) -> bool:
        """Whether nothing more can happen: nothing is to come, and nobody is left who could end what is not over."""
        now = self.engine.now
        if self.pending or now - self._checked < 60.0:
            return False
        self._checked = now
        alive = [one for one in self.computers if not one.gone and one.key not in self.vendor.revoked]
        accounts = {one.key for one in alive}
        living = [one for one in self.vendor.things.values() if one.ended is None and one.id in self.rigs]
        if any(one.account in accounts or now < one.up + one.limit < math.inf for one in living):
            return False
        if any(self._ends_itself(one) for one in living):
            return False
        return all(self._is_settled(home, run) for home in self.homes if home.computer in alive for run in home.runs)

    def _ends_itself(self, thing: Thing) -> bool:
        machine = self.machines.get(thing.id)
        return machine is not None and machine.has_ender and machine.key not in self.vendor.revoked

    def _is_settled(self, home: SimHome, run_id: str) -> bool:
        return self.history.is_done(home, run_id) or self.accounts[run_id] != home.computer.key

    def next_guard_death(self) -> int:
        """At which step the pass that begins now dies; 0 = not."""
        step = next(self._guard_deaths, 0)
        self.counts["guard killed at a step"] += step > 0
        return step

    # ── what the world is told ──────────────────────────────────────────────────────────────────

    def say(self, who: str, text: str) -> None:
        if self.lines is not None:
            self.lines.append((self.engine.now - BEGIN, who, text))

    def holds(self, home: SimHome, run_id: str, process: Process, *, begins: bool) -> None:
        self.history.holds(home, run_id, process, begins=begins)
        self.say(home.computer.name, f"controller of {run_id} {'begins' if begins else 'ends'}")

    def failed_call(self, computer: Computer, verb: str) -> None:
        self.history.failed.append(self.engine.now)
        self.say(computer.name, f"{verb}: no answer")
