"""The machine's own end: its clocks, and a watchdog that judges by the shipped payload/limits.py, ends by ender.fire.

Facts as watchdog.py gathers them, from the rig instead of /proc; the vendor asked by the ender through the same
weather as everybody. A look comes when a limit does, at the latest after ten seconds.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine import current
from uploads import Disk, pause, porter_of

from payload import ender, limits, watchdog

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine import Process
    from rigs import Rig
    from vendors import Thing
    from world import World

    from providers.base import Job

LOOK_SECONDS = 10.0
AGENT_SECONDS = 5.0  # until the agent has started a dead watchdog again
CRON_SECONDS = 60.0  # until the system has
ROUTES = 2  # to a pod's end


class Machine:
    """What the rig runs on: a computer of its own, that nobody puts to sleep."""

    def __init__(self, world: World, thing: Thing, rig: Rig, job: Job) -> None:
        self.world, self.thing, self.rig, self.job = world, thing, rig, job
        self.name = f"machine {thing.id}"
        nature = world.vendor.nature
        self.key = "the pod's own" if nature.pods else thing.account  # the account's lies on it only with leave
        self.full = False
        self.booted = world.engine.now
        # From the arming on, as providers/ssh/shipping.py ships it: what has passed since the launch is used.
        # Where the vendor has a limit of its own, all of it lies inside that, as providers/hf_jobs/launch.py ships it.
        spare = min(60.0, job.grace_seconds / 2) if nature.queue_limit else 0.0
        self.seconds = max(1.0, min(job.max_seconds, job.ceiling.timestamp() - self.booted, thing.limit - spare))
        self.deadline = job.deadline.timestamp() - spare
        self.order = 0
        self.proof: dict[str, Any] = {}  # watchdog.json
        self.boots = 1
        self.ended = self.fired = self.agent_of = ""
        self.dog: Process | None = None
        self.disk = Disk(self)
        if job.store is not None:
            self.disk.begin(job.store.reveal())
        self.porter = porter_of(self)
        self.stored: dict[str, Any] = {}  # what the watchdog says of it

    # ── its clocks ──────────────────────────────────────────────────────────────────────────────

    def wall(self) -> float:
        now = self.world.engine.now
        return now + sum(jump for moment, jump in self.rig.clock_ahead if moment <= now)

    def steady(self) -> float:
        return self.world.engine.now - self.booted

    def pause(self, seconds: float) -> None:
        """Let a process of it wait."""
        pause(self, seconds)

    # ── the watchdog ────────────────────────────────────────────────────────────────────────────

    @property
    def has_ender(self) -> bool:
        nature = self.world.vendor.nature
        return nature.routes > 0 if nature.pods else self.job.key_on_machine and not nature.jobs

    def arm(self) -> None:
        """Start a watchdog."""
        self.porter = porter_of(self)
        self.dog = self.world.engine.spawn(self, f"watchdog {self.thing.id}", self._watch)
        if self.has_ender:
            self.world.history.armed(self.thing, self.dog, self.key)

    def dies(self) -> None:
        """kill -9 of the watchdog: the agent, or the system, starts another."""
        if self.dog is None or not self.dog.alive:
            return
        self._bury_dog()
        wait = AGENT_SECONDS if self.rig.is_alive(self.world.engine.now) else CRON_SECONDS
        self.world.engine.after(wait, self._again)

    def reboots(self) -> None:
        """All processes die, the steady clock begins anew; the system starts the watchdog again."""
        now = self.world.engine.now
        if self.dog is not None and self.dog.alive:
            self._bury_dog()
        if self.rig.is_alive(now):
            self.rig.died = now
        self.booted, self.boots = now, self.boots + 1
        # A container's own command starts it, a machine's system looks once a minute.
        self.world.engine.after(AGENT_SECONDS if self.world.vendor.nature.pods else CRON_SECONDS, self._again)

    def _bury_dog(self) -> None:
        """Its uploader leaves with it: nobody listens any more."""
        assert self.dog is not None
        self.dog.kill()
        self.porter.helper.close()
        self.world.history.disarmed(self.dog)

    def _again(self) -> None:
        if self.thing.ended is None and (self.dog is None or not self.dog.alive):
            self.arm()

    def _watch(self) -> None:
        engine = self.world.engine
        clock = limits.Clock(self.wall, self.steady)
        armed = limits.armed_before(self.proof, str(self.boots), clock.wall(), clock.steady())
        job = self.job
        order = {
            "deadline": self.deadline,
            "ceiling": job.ceiling.timestamp(),
            "max_seconds": self.seconds,
        }
        ends = limits.limits_of(order, armed)
        obeyed = 0
        while self.thing.ended is None:
            obeyed = self._obey(ends, obeyed)
            self.proof = {
                "armed_steady": armed, "used": clock.steady() - armed, "boot": str(self.boots), "time": clock.wall(),
            }  # fmt: skip
            left = self._left = ends.left(ends.deadline, clock), ends.left(ends.ceiling, clock)
            self.porter.tend(clock.steady())
            self.stored = self.porter.proof()
            if not watchdog.do(self, limits.judge(self._facts(left))):
                break
            soon = [one + limits.MARGIN * (number == 0 and not self.has_ender) for number, one in enumerate(left)]
            engine.sleep(min([LOOK_SECONDS, *(max(one, 1.0) for one in soon if one > -1)]))
        self.porter.close()

    def _obey(self, ends: limits.Limits, obeyed: int) -> int:
        order = self.rig.ordered
        if order is None or order[0] <= obeyed:
            return obeyed
        ends.move(order[1], order[2])
        return order[0]

    def _facts(self, left: tuple[float, float]) -> limits.Facts:
        now, rig = self.world.engine.now, self.rig
        _, word = rig.progress(now)
        agent = "none"
        if self.agent_of == str(self.boots):
            agent = "alive" if rig.is_alive(now) else "dead"
        since = now - rig.end()[0] if word else 0.0
        return limits.Facts(*left, agent=agent, result=bool(word), since_result=since, alone=True,
                            ender=self.has_ender, over=self.ended, store=self.porter.state)  # fmt: skip

    # ── what the shipped watchdog.do asks for and does ──────────────────────────────────────────

    @property
    def lever(self) -> Machine:
        return self

    @property
    def there(self) -> bool:
        return self.has_ender

    def over(self) -> str:
        """Why there is no more time; "" = there is."""
        return limits.out_of_time(self._facts(self._left))

    def start_agent(self) -> None:
        self.agent_of = str(self.boots)
        self.world.agent_starts(self)

    def end(self, why: str) -> None:
        """End every process of the job."""
        if self.rig.is_alive(self.world.engine.now) or self.rig.began is None:
            self.rig.died = self.world.engine.now
        self.ended = self.ended or why
        self.disk.say_ended(self.ended)
        self.world.say(self.thing.id, f"ends all: {why}")

    def fire(self, why: str) -> bool:
        """End the machine; False = the vendor insists that it is gone."""
        if why == "all is in the store" and not self.fired:
            self.world.history.leaves(self.thing, self.disk.left())
        self.fired = self.fired or why
        if not self.ended:
            self.end(why)
        self.world.say(self.thing.id, f"fires: {why}")
        ender.fire(Path(), self._hear, self.world.engine.sleep, orders)
        return False

    def _hear(self, said: dict[str, str]) -> None:
        self.world.say(f"ender {self.thing.id}", said["evidence"])


def answer(request: dict[str, Any]) -> ender.Answer:
    """The vendor's answer to the ender of the machine that asks."""
    process = current()
    machine = process.computer
    world, thing = machine.world, machine.thing
    world.engine.sleep(world.chance.random() * 0.3)
    now, vendor = world.engine.now, world.vendor
    if vendor.is_down(now) or world.chance.random() < vendor.nature.flaws:
        world.failed_call(machine, request["method"])
        world.engine.sleep(ender.LONGEST_ASK)
        return ender.Answer(0, "no answer")
    if vendor.revoked.get(machine.key, now + 1) <= now:
        return ender.Answer(401, None)
    if vendor.nature.pods and request["url"].endswith("first") and vendor.nature.routes < ROUTES:
        return ender.Answer(403, None)
    if request["method"] == "POST":
        before = len(vendor.ended_log)
        vendor.terminate([thing.id], thing.account, process.name)
        world.history.killed(process, before)
        world.say(process.name, "terminates itself")
    return ender.Answer(200 if thing.ended is None else 404, {"status": "up" if thing.ended is None else "gone"})


def orders(_folder: Path) -> dict[str, Any]:
    """What lies in ender.json: a pod has two ways, of which its key may open one."""
    pods = current().computer.world.vendor.nature.pods
    urls = [f"https://vendor.invalid/{name}" for name in ("first", "second")[0 if pods else 1 :]]
    ways = [
        {"look": {"method": "GET", "url": url}, "alive": [{"status": [200]}], "gone": [{"status": [404]}]}
        for url in urls
    ]
    return {**ways[0], "routes": [{"method": "POST", "url": url} for url in urls], "more": ways[1:]}


@contextlib.contextmanager
def enders() -> Iterator[None]:
    """Let the shipped ender ask the simulated vendor."""
    real, ender.ask = ender.ask, answer
    try:
        yield
    finally:
        ender.ask = real
