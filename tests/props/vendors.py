"""A vendor as it truly is: what it rented to whom, what bills since when, how much of that it shows. And its faults.

What the proof rests on, and what this vendor therefore keeps to (a vendor that breaks one of these is beyond any law):
- A read is never older than the list's lag: it tells the truth of some moment within it.
- Beyond the lag it denies what exists at most twice running to one reader (a home's guard, a run's controller: each
  rests on its own reads, and what another one reads in between is no part of them), never within twice the lag of its
  start, nor where a ledger is put back (which counts reads of before that).
- A launch takes effect within the list's lag of the reply (or of the lost reply), or never.
- It stops the meter when it takes the end, and shows "ending" only of what has ended.
- Its own clock runs true; it tells the time with each answer.
- It judges a job's own time limit from when the job began to run.
Knows nothing of gpurun: names are text, ids are text.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from random import Random

    from engine import Engine


@dataclass(frozen=True)
class Nature:
    """What kind of vendor it is; seconds."""

    jobs: bool = False  # queues, runs, ends by itself and at its own limit; never READY
    records: bool = False  # tells when billing began and ended
    bills_boot: bool = True  # from acceptance on; else from when it is up
    lag: float = 20.0
    boot: float = 20.0
    queue: float = 0.0  # of a job, beyond its boot
    linger: float = 0.0  # for which an ended one is shown as ending
    step: int = 1
    poll: float = 20.0
    ignores: int = 0  # orders to end that each of its things forgets
    flaws: float = 0.0  # share of calls that fail by themselves
    pages: bool = False  # a list may break off at its second page, or name one twice
    lists_ended: bool = False  # a list shows what has ended too, as such
    queue_limit: int = 0  # seconds that a job may wait: its own limit ends by the ceiling if it began by then
    pods: bool = False  # the key for a machine's own end lies in it from the start; no name of one can be changed
    routes: int = 2  # of the two ways to a pod's end, those that its key opens
    idle: float = 0.0  # it goes by itself when no computer was heard for so long; 0 = it stays


@dataclass
class Thing:
    """What may bill: a machine or a job, ours or anybody's."""

    id: str
    name: str
    account: str
    offer: str
    price: float
    made: float
    up: float  # when it is reachable, or the job runs
    by: str = ""  # the computer that asked for it
    order: int = 0  # one launch that made two gives both the same
    limit: float = math.inf  # seconds of running that the vendor itself allows
    ended: float | None = None
    ended_by: str = ""
    ignores: int = 0
    sick: bool = False
    heard: float = 0.0  # when a computer spoke with it last
    from_start: bool = True
    shipped: object = None  # what came with a job's launch
    denials: dict[str, int] = field(default_factory=dict)

    @property
    def billed_from(self) -> float:
        return self.made if self.from_start else self.up

    def bills_at(self, moment: float) -> bool:
        return self.made <= moment and (self.ended is None or moment < self.ended)


class Vendor:
    """The vendor's own memory; every method happens at the present moment, on its side of the wire."""

    def __init__(self, name: str, nature: Nature, engine: Engine, chance: Random) -> None:
        self.name, self.nature, self.engine, self.chance = name, nature, engine, chance
        self.things: dict[str, Thing] = {}
        self.prices: dict[str, float] = {}
        self.drift = 1.0  # what it charges, against what it offers
        self.sold_out_until = 0.0
        self.down: list[tuple[float, float]] = []
        self.revoked: dict[str, float] = {}  # key -> since when
        self.double_next = False
        self.ignored: list[tuple[float, str]] = []  # when an order to end was forgotten, or its existence denied
        self.ended_log: list[tuple[float, str, str, str]] = []  # moment, who asked, what for, id
        self.counts: dict[str, int] = defaultdict(int)
        self._orders = 0

    # ── by itself ───────────────────────────────────────────────────────────────────────────────

    def is_down(self, moment: float) -> bool:
        return any(start <= moment < end for start, end in self.down)

    def end(self, thing: Thing, who: str, moment: float | None = None) -> None:
        """Stop its meter, at a moment that is not past."""
        if thing.ended is None:
            thing.ended = self.engine.now if moment is None else moment
            thing.ended_by = who

    # ── asked from outside ──────────────────────────────────────────────────────────────────────

    def launch(
        self, name: str, account: str, offer: str, by: str, limit: float, shipped: object, late: float
    ) -> Thing | None:
        """Rent; None = no capacity. `late` = seconds until it takes effect."""
        if self.engine.now < self.sold_out_until:
            self.counts["no capacity"] += 1
            return None
        self._orders += 1
        copies = 2 if self.double_next else 1
        self.double_next = False
        made = []
        for _ in range(copies):
            now, nature = self.engine.now + late, self.nature
            up = now + nature.boot * self.chance.uniform(0.7, 1.5) + nature.queue
            thing = Thing(
                f"{self.name[0]}-{len(self.things) + 1}", name, account, offer, self.prices[offer] * self.drift, now, up
            )
            thing.by, thing.order, thing.ignores, thing.shipped = by, self._orders, nature.ignores, shipped
            thing.limit = limit if nature.jobs else math.inf
            thing.from_start = nature.bills_boot and not nature.jobs
            self.things[thing.id] = thing
            made.append(thing)
        return made[0]

    def terminate(self, ids: list[str], account: str, who: str) -> None:
        for one in ids:
            thing = self.things.get(one)
            if thing is None or thing.account != account or thing.ended is not None:
                continue
            if thing.ignores > 0:
                thing.ignores -= 1
                self.ignored.append((self.engine.now, one))
                self.counts["terminate ignored"] += 1
                continue
            self.ended_log.append((self.engine.now, who, thing.name, one))
            self.end(thing, who)

    def rename(self, one: str, account: str, name: str) -> bool:
        thing = self.things.get(one)
        if thing is None or thing.account != account or thing.ended is not None:
            return False
        thing.name = name
        return True

    def seen_at(self) -> float:
        """The moment whose truth the next read tells."""
        return self.engine.now - self.chance.random() * self.nature.lag * 0.95 if self.nature.lag else self.engine.now

    def listed(self, account: str, moment: float) -> list[Thing]:
        """Everything that shows on an account: what bills, and what has ended for as long as it does."""
        linger = math.inf if self.nature.lists_ended else self.nature.linger
        return [
            one
            for one in self.things.values()
            if one.account == account and one.made <= moment and (one.ended is None or moment < one.ended + linger)
        ]

    def denies(self, thing: Thing, reader: str, *, wanted: bool) -> bool:
        """Whether it says "no such thing" of what exists."""
        young = self.engine.now - thing.made < 2 * self.nature.lag + 5
        if not wanted or young or thing.denials.get(reader, 0) >= 2:
            thing.denials[reader] = 0
            return False
        thing.denials[reader] = thing.denials.get(reader, 0) + 1
        self.ignored.append((self.engine.now, thing.id))
        self.counts["existence denied"] += 1
        return True
