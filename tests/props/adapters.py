"""One computer's way to a simulated vendor: the contract of providers/base.py, over a wire that is slow and breaks.

Every call takes time, may fail on its way there or back, and is one of the places at which a process can die.
It keeps what a good adapter keeps: an error is never absence, a list that breaks off is an error.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from engine import Process, current
from rigs import Rig, digest

from providers import wire
from providers.base import (
    Allocation,
    Entry,
    Holder,
    Manifest,
    Mark,
    Observation,
    Offer,
    OrderKind,
    Phase,
    Place,
    Proof,
    RemoteStatus,
    Traits,
    utc,
)
from providers.errors import (
    CredentialsError,
    IntegrityError,
    NoCapacityError,
    RemoteError,
    UnclearError,
    UnreachableError,
    UsageError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from pathlib import Path

    from computers import Computer
    from vendors import Nature, Thing, Vendor

    from providers.base import Access, Job, Order

_LISTS = {"find", "allocations"}
LEAST_SECONDS = 30  # of running: less is no job
PATIENCE = 20.0  # seconds until a call that gets no answer gives up


def traits_of(vendor: Vendor) -> Traits:
    nature = vendor.nature
    return Traits(
        list_lag_seconds=nature.lag,
        boot_limit_seconds=nature.boot * 4 + 60 + 2 * nature.queue_limit,  # the job's own queue limit comes first
        start_limit_seconds=300.0,
        poll_seconds=nature.poll,
        billing_step_seconds=nature.step,
        console_url="https://vendor.invalid/console",
        retry_seconds=30.0,
        ending_seconds=60.0,
        queue_seconds=nature.queue_limit,
    )


class SimProvider:
    """The money plane, as one computer's key opens it."""

    def __init__(self, vendor: Vendor, computer: Computer) -> None:
        self.vendor, self.computer = vendor, computer
        self.name = vendor.name
        self.key = computer.key
        self.traits = traits_of(vendor)
        self.skew = timedelta(0)

    # ── the wire ────────────────────────────────────────────────────────────────────────────────

    def _call(
        self, verb: str, what: Callable[[], Any], *, about: str = "", lost: type[Exception] = UnreachableError
    ) -> Any:
        """Ask the vendor: the way there, its side, the way back."""
        process, world = current(), self.computer.world
        assert isinstance(process, Process), "only a process calls out"
        process.step()
        self.key = self.computer.key  # the one with which it asks, whatever is set meanwhile
        key = self.key
        engine, chance, vendor = world.engine, world.chance, self.vendor
        slow = 8.0 if chance.random() < 0.02 else 0.15
        engine.sleep(chance.random() * slow)
        flaw = chance.random() / vendor.nature.flaws if vendor.nature.flaws else 2.0
        if self._unreachable(flaw):
            world.failed_call(self.computer, verb)
            engine.sleep(PATIENCE if flaw > 1 else 1.0)
            raise lost(f"{verb}: no answer")
        if vendor.revoked.get(key, engine.now + 1) <= engine.now:
            world.failed_call(self.computer, verb)
            raise CredentialsError(f"{verb}: the key was revoked", hint="export VENDOR_KEY=…")
        self.key = key
        result, at = what(), engine.now
        engine.sleep(chance.random() * slow)
        if 0.5 <= flaw < 1 or not self.computer.online(engine.now):
            vendor.counts["lost reply"] += 1
            world.failed_call(self.computer, verb)
            raise lost(f"{verb}: the answer did not come")
        if about or verb in _LISTS:
            world.history.read(at, key, process, about, result)
        self.skew = timedelta(seconds=engine.now - self.computer.wall())
        process.step()
        return result

    def _unreachable(self, flaw: float) -> bool:
        now = self.computer.world.engine.now
        for word, holds in (
            ("lost request", flaw < 0.5),
            ("network down", not self.computer.online(now)),
            ("API down", self.vendor.is_down(now)),
        ):
            if holds:
                self.vendor.counts[word] += 1
                return True
        return False

    # ── the contract ────────────────────────────────────────────────────────────────────────────

    def account(self) -> str:
        return self.computer.key

    def offers(self) -> Sequence[Offer]:
        vendor = self.vendor
        return self._call(
            "offers",
            lambda: [
                Offer(self.name, name, "a10", 1, money(price), available=vendor.engine.now >= vendor.sold_out_until)
                for name, price in vendor.prices.items()
            ],
        )

    def holders(self, job: Job, offer: Offer) -> Sequence[Holder]:
        del offer
        if self.vendor.nature.jobs:
            return [Holder("its own limit", Place.SERVER, Proof.PROVEN)]
        able = job.key_on_machine or self.vendor.nature.pods
        return [Holder("the watchdog", Place.MACHINE, Proof.UNPROVEN)] if able else []

    def launch(self, job: Job, offer: Offer) -> str:
        world, limit = self.computer.world, job.max_seconds - self.vendor.nature.queue_limit
        if limit < LEAST_SECONDS:
            raise UsageError("no time is left to run")
        late = (
            world.chance.random() * self.vendor.nature.lag if world.chance.random() < world.story.late_launches else 0
        )

        def rent() -> Thing | None:
            vendor, name = self.vendor, str(job.mark)
            key, by = self.key, self.computer.name
            thing = vendor.launch(name, key, offer.name, by, limit, job, late)
            if thing is not None:
                world.rented(thing, job)
            return thing

        twice = self.vendor.double_next

        thing = self._call("launch", rent, lost=UnclearError)
        if thing is None:
            raise NoCapacityError("none left")
        if late or twice:  # what came back is no answer to one launch
            self.vendor.counts["late launch"] += bool(late)
            raise UnclearError("launch: the answer did not come")
        return str(thing.id)

    def find(self, mark: Mark) -> Sequence[Allocation]:
        wanted = (mark.home, mark.run_id, mark.attempt, mark.node)

        def same(one: Mark | None) -> bool:
            return one is not None and (one.home, one.run_id, one.attempt, one.node) == wanted

        return [one for one in self._list("find") if same(one.mark)]

    def allocations(self) -> Sequence[Allocation]:
        return self._list("allocations")

    def _list(self, verb: str) -> list[Allocation]:
        vendor = self.vendor

        def read() -> list[Allocation]:
            moment = vendor.seen_at()
            shown = vendor.listed(self.key, moment)
            return [
                allocation_of(one, moment, vendor.nature)
                for one in shown
                if not vendor.denies(one, current().name, wanted=self._lies())
            ]

        rows = self._call(verb, read)
        if vendor.nature.pages and len(rows) > 2:
            again = self._call(verb, read)  # the second page: it may fail, and the list with it
            rows = rows[:2] + [row for row in again if row.id != rows[0].id]
            vendor.counts["second page"] += 1
        self.computer.world.history.listed(current(), rows)
        return rows

    def _lies(self) -> bool:
        world = self.computer.world
        return world.chance.random() < world.story.lies

    def inspect(self, allocation_id: str) -> Observation:
        return self._call("inspect", lambda: self._observe(allocation_id), about=allocation_id)

    def _observe(self, allocation_id: str) -> Observation:
        vendor, moment = self.vendor, self.vendor.seen_at()
        thing = vendor.things.get(allocation_id)
        told = f"GET {allocation_id} → "
        if thing is None or thing.account != self.key or thing.made > moment:
            return Observation(Phase.ABSENT, billing=False, evidence=f"{told}404")
        if vendor.denies(thing, current().name, wanted=self._lies()):
            return Observation(Phase.ABSENT, billing=False, evidence=f"{told}404")
        if thing.ended is not None and moment >= thing.ended:
            return self._over(thing, told, moment)
        up = moment >= thing.up
        began = utc(thing.billed_from) if vendor.nature.records and moment >= thing.billed_from else None
        here = Observation(
            Phase.QUEUED, billing=True, evidence=f"{told}{'up' if up else 'booting'}", price=money(thing.price),
            billed_from=began, failure="unhealthy" if thing.sick else self._waited(thing, moment),
        )  # fmt: skip
        if not up:
            return here
        return replace(here, phase=Phase.RUNNING if vendor.nature.jobs else Phase.READY)

    def _waited(self, thing: Thing, moment: float) -> str:
        mark = Mark.parse(thing.name)
        if not self.vendor.nature.queue_limit or moment >= thing.up or mark is None:
            return ""
        return "still queued at the queue limit" if moment >= mark.ceiling.timestamp() - thing.limit else ""

    def _over(self, thing: Thing, told: str, moment: float) -> Observation:
        assert thing.ended is not None
        nature = self.vendor.nature
        if moment < thing.ended + nature.linger:
            return Observation(
                Phase.QUEUED, billing=True, evidence=f"{told}terminating", price=money(thing.price), ending=True
            )
        if not nature.records:
            return Observation(Phase.ABSENT, billing=False, evidence=f"{told}404")
        began, ended = min(thing.billed_from, thing.ended), thing.ended
        return Observation(
            Phase.EXITED if nature.jobs else Phase.ABSENT, billing=False, evidence=f"{told}ended at {ended:.0f}",
            price=money(thing.price), billed_from=utc(began), billed_until=utc(ended), ended=True,
        )  # fmt: skip

    def terminate(self, allocation_ids: Sequence[str]) -> None:
        def end() -> None:
            process, before = current(), len(self.vendor.ended_log)
            self.vendor.terminate(list(allocation_ids), self.key, process.name)
            self.computer.world.history.killed(process, before)
            self.computer.world.say(process.name, f"terminate {list(allocation_ids)}")

        self._call("terminate", end)

    def extend(self, allocation_id: str, ceiling: Any) -> bool:
        def move() -> bool:
            thing = self.vendor.things.get(allocation_id)
            mark = None if thing is None else Mark.parse(thing.name)
            if self.vendor.nature.jobs or self.vendor.nature.pods or thing is None or mark is None:
                return False
            return self.vendor.rename(allocation_id, self.key, str(replace(mark, ceiling=ceiling)))

        return bool(self._call("extend", move))

    def tidy(self, live: Collection[Mark]) -> None:
        self._call("tidy", lambda: len(live))

    def remote(self, allocation_id: str, access: Access) -> SimRemote:
        return SimRemote(self, allocation_id, access)


class SimRemote:
    """The byte plane: one machine's or job's rig, reached over the same weather."""

    def __init__(self, provider: SimProvider, allocation_id: str, access: Access) -> None:
        self._provider, self._id, self._access = provider, allocation_id, access
        self._world = provider.computer.world

    def _ask(self, verb: str, what: Callable[[Rig, float], Any]) -> Any:
        process, world, thing = current(), self._world, self._provider.vendor.things[self._id]
        assert isinstance(process, Process), "only a process calls out"
        process.step()
        world.engine.sleep(world.chance.random() * 0.3)
        now = world.engine.now
        over = not thing.bills_at(now) and not self._provider.vendor.nature.jobs  # a job's files lie in a store
        flawed = world.chance.random() < self._provider.vendor.nature.flaws / 2
        if over or now < thing.up or flawed or not self._provider.computer.online(now):
            world.engine.sleep(1.0 if flawed else 10.0)
            raise RemoteError(f"{verb}: {self._id} does not answer")
        rig, thing.heard = world.rigs[self._id], now
        return what(rig, min(now, thing.ended or now))

    def start(self, job: Job) -> None:
        self._ask("start", lambda rig, _now: self._world.ship(rig, job))

    def status(self) -> RemoteStatus:
        return self._ask("status", self._status)

    def _status(self, rig: Rig, now: float) -> RemoteStatus:
        if rig.thing not in self._world.machines:
            return RemoteStatus(Phase.READY)
        step, word = rig.progress(now)
        phase = Phase.RUNNING if rig.is_alive(now) or (rig.began is None and rig.died is None) else Phase.EXITED
        machine, dog = self._world.machines[rig.thing], self._world.proof_of(rig)
        deadline = None if rig.began is None else utc(rig.deadline)
        said = wire.status_of({"proof": machine.stored}, machine.wall())  # of the store, in the shipped words
        heard = {"phase": phase, "heartbeat": utc(now), "step": step, "total_steps": rig.steps, "reason": word}
        return replace(said, **heard, stage="train", detail="", deadline=deadline, watchdog=dog)

    def logs(self, offset: int) -> bytes:
        return self._ask("logs", lambda rig, now: rig.log(now)[offset : offset + 4096])

    def tell(self, order: Order) -> None:
        def obey(rig: Rig, now: float) -> None:
            if order.kind is OrderKind.STORE and order.store is not None:
                self._world.machines[rig.thing].disk.take_leave(order.store.reveal())
            elif order.kind is OrderKind.STOP:
                rig.told_stop = now if rig.told_stop is None else rig.told_stop
            elif order.deadline is not None and (rig.ordered is None or order.id > rig.ordered[0]):
                ceiling = None if order.ceiling is None else order.ceiling.timestamp()
                rig.ordered = (order.id, order.deadline.timestamp(), ceiling)
                rig.deadline = order.deadline.timestamp()

        self._ask("tell", obey)

    def manifest(self) -> Manifest:
        def name_all(rig: Rig, now: float) -> Manifest:
            files = rig.files(now)
            entries = tuple(Entry(name, len(data), digest(data)) for name, data in files.items())
            return Manifest(entries, final="result.json" in files)

        return self._ask("manifest", name_all)

    def fetch(self, names: Sequence[str], dest: Path) -> None:
        for name in names:  # the line may break between two files
            self._provider.computer.must_have_room()
            data = self._ask("fetch", lambda rig, now: rig.files(now)).get(name)
            if data is None:
                raise RemoteError(f"{self._id} has no file {name!r}")
            if self._world.chance.random() < self._provider.vendor.nature.flaws / 4:
                raise IntegrityError(f"{name} is not what the manifest says")
            if self._access.go_on is not None:
                self._access.go_on()
            path = dest / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)

    def close(self) -> None:
        pass


def allocation_of(thing: Thing, moment: float, nature: Nature) -> Allocation:
    ended = thing.ended is not None and thing.ended <= moment
    mark, price, over = Mark.parse(thing.name), money(thing.price), ended and nature.lists_ended
    return Allocation(thing.id, mark, thing.name, billing=not over, price=price, ending=ended and not over)


def money(price: float) -> Decimal:
    return Decimal(str(round(price, 6)))
