"""Lambda's world: keys, instances and their lives, the bill.

    launched -> address -> sshd -> active (billing starts) -> … terminate accepted (billing ends) -> terminated -> gone
        0         1/5      3/4       boot                              linger                 linger

Where the moments lie: seen in July and August 2026 (address after 22-31 s, active after 113-333 s, sshd 27-62 s
before that or slightly after). Faults move or replace them. Everything here runs under the world's lock.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

from simulators import roads, strikes
from simulators.clock import Agenda, Clock, iso
from simulators.faults import Faults, Hit
from simulators.hosts import Host, Machine
from simulators.journal import Journal
from simulators.lambda_cloud.catalogue import KINDS
from simulators.lambda_cloud.faults import BOOK
from simulators.lambda_cloud.instances import Instance, Order
from simulators.limits import Limits
from simulators.meter import Entry, Meter
from simulators.outage import Outage

if TYPE_CHECKING:
    import random
    import threading
    from collections.abc import Callable, Iterable, Mapping

    from simulators.outage import Door

# Of an instance's faults, those that can strike one that is there already.
_LATER = frozenset(
    {"unhealthy", "preempted", "vanish", "link_cut", "link_blackhole", "link_freeze", "terminating_lingers"},
)
_KIND = strikes.Kind("instance", "launch", _LATER)


class LambdaWorld:
    """The state behind Lambda's API. `make_machine` is None where no real machines are wanted."""

    def __init__(
        self,
        lock: threading.RLock,
        clock: Clock,
        *,
        pace: float,
        boot_seconds: float,
        linger_seconds: float,
        make_machine: Callable[[Instance], Machine] | None,
        door: Door,
        dice: random.Random,
    ) -> None:
        self.lock = lock
        self.clock = clock
        self.agenda = Agenda(clock, lock)
        self.book = BOOK
        self.faults = Faults(BOOK.on_instance)
        self.journal = Journal()
        self.meter = Meter()
        self.limits = Limits(clock, pace=pace)
        self.pace = pace
        self.keys: dict[str, dict[str, str]] = {}  # id -> as the vendor spells it
        self.instances: dict[str, Instance] = {}
        self.cents = {name: kind.cents for name, kind in KINDS.items()}
        self.capacity = {name: list(kind.regions) for name, kind in KINDS.items()}
        self.outage = Outage(self.agenda, self.faults, door)
        self.dice = dice
        self.troubles: list[str] = []
        self._boot_seconds = boot_seconds / pace
        self._linger_seconds = linger_seconds / pace
        self._make_machine = make_machine
        self._hosts: list[Host] = []
        self._launches = 0
        self._network = f"127.{dice.randint(1, 254)}"
        self.launch_by_hand: Callable[[object], str]

    # ── the life of an instance ──────────────────────────────────────────────────────────────────────────────────

    def launch(self, order: Order, *, faults: dict[str, Hit]) -> Instance:
        """Make an instance and plan its life."""
        now = self.clock.now()
        self._launches += 1
        dearer = faults["price_dearer"].number("factor") if "price_dearer" in faults else 1.0
        lag = faults.get("list_lag")
        listed_from = now + (lag.number("seconds") if lag else 0)
        instance = Instance(
            id=self.hexes(32),
            number=self._launches,
            order=order,
            name=order.name,
            cents=round(self.cents[order.kind.name] * dearer),
            address=f"{self._network}.{self._launches // 250}.{self._launches % 250 + 2}",
            launched=now,
            jupyter_token=self.hexes(32),
            jupyter_host=self.hexes(32),
            listed_from=listed_from,
            found_from=listed_from if lag and lag.options["get"] else now,
            faults=faults,
        )
        self.instances[instance.id] = instance
        self.meter.launch(Entry(instance.id, order.name, order.kind.name, Decimal(instance.cents) / 100, now))
        self._plan_boot(instance)
        self.outage.at("launch", now)
        return instance

    def _plan_boot(self, instance: Instance) -> None:
        faults, start = instance.faults, instance.launched
        boot = faults["slow_boot"].number("seconds") if "slow_boot" in faults else self._boot_seconds
        active = start + boot
        dead = "unhealthy" in faults and not faults["unhealthy"].given("after")
        if "ip_late" in faults:
            self._then(instance, active + faults["ip_late"].number("seconds"), self._show_address)
        elif "ip_never" not in faults:
            self._then(instance, start + boot / 5, self._show_address)
        if "sshd_late" in faults:
            self._then(instance, active + faults["sshd_late"].number("seconds"), self._start_host)
        elif not dead and "sshd_never" not in faults:
            self._then(instance, start + boot * 3 / 4, self._start_host)
        self._then(instance, active, self._sicken if dead else self._activate)

    def _then(self, instance: Instance, when: float, action: Callable[[Instance, float], None]) -> None:
        def act(moment: float) -> None:
            if instance.alive and instance.id in self.instances:
                action(instance, moment)

        self.agenda.at(when, act)

    def _show_address(self, instance: Instance, _moment: float) -> None:
        instance.has_address = True

    def _start_host(self, instance: Instance, _moment: float) -> None:
        if self._make_machine is not None and instance.host is None:
            make = self._make_machine
            instance.host = Host(lambda: make(instance), self.troubles)
            self._hosts.append(instance.host)
            instance.host.boot()

    def _activate(self, instance: Instance, moment: float) -> None:
        if instance.status != "booting":
            return
        instance.status = "active"
        if instance.first_healthy is None:
            instance.first_healthy = moment
            self.meter.start(instance.id, moment)
            for hit in instance.faults.values():
                self._strike(instance, hit, moment)
            self.outage.at("active", moment)

    def _sicken(self, instance: Instance, _moment: float) -> None:
        instance.status = "unhealthy"

    def _preempt(self, instance: Instance, _moment: float) -> None:
        # What ends its billing is not documented: it bills on here, so that whoever trusts the word alone is caught.
        instance.status = "preempted"
        self._bury(instance)

    def _vanish(self, instance: Instance, moment: float) -> None:
        self.meter.end(instance.id, moment, "vanished")
        self._bury(instance)
        del self.instances[instance.id]

    def _strike(self, instance: Instance, hit: Hit, since: float) -> None:
        """Plan what a fault does to an instance that is up."""
        if hit.name.startswith("link_"):
            for moment, what, options in roads.deeds(hit, since, self.clock):
                self._then(instance, moment, _link(what, options))
        actions = {
            "unhealthy": self._sicken,
            "preempted": self._preempt,
            "vanish": self._vanish,
            "disk_full": self._fill_disk,
        }
        if hit.name in actions:
            self._then(instance, since + hit.number("after"), actions[hit.name])

    def _fill_disk(self, instance: Instance, _moment: float) -> None:
        if instance.host is not None:
            instance.host.fill_disk()

    def _bury(self, instance: Instance) -> None:
        if instance.host is not None:
            instance.host.destroy()

    def restart(self, instance: Instance) -> None:
        """Boot it again: it keeps its id, and bills on."""
        instance.status = "booting"
        if instance.host is not None:
            instance.host.reboot()
        self._then(instance, self.clock.now() + self._boot_seconds / 2, self._activate)

    def terminate(self, instance: Instance) -> None:
        """End it for good: billing ends here, the machine dies, the word lingers."""
        if not instance.alive:
            return
        now = self.clock.now()
        instance.status, instance.ignored = "terminating", ""
        self.meter.end(instance.id, now, "terminate")
        self._bury(instance)
        lingers = instance.faults.get("terminating_lingers")
        linger = lingers.number("seconds") if lingers else self._linger_seconds
        self.agenda.at(now + linger, lambda _moment: setattr(instance, "status", "terminated"))
        self.agenda.at(now + linger + self._linger_seconds, lambda _moment: self._forget(instance))
        self.outage.at("terminate", now)

    def _forget(self, instance: Instance) -> None:
        self.instances.pop(instance.id, None)

    # ── for the API ──────────────────────────────────────────────────────────────────────────────────────────────

    def hexes(self, count: int) -> str:
        """Make up an id."""
        return f"{self.dice.getrandbits(count * 4):0{count}x}"

    def listed(self) -> list[Instance]:
        """Give what the list shows, in the order of launches."""
        now = self.clock.now()
        return [each for each in self.instances.values() if each.listed_from <= now]

    def found(self, instance_id: str) -> Instance | None:
        """Look one up by its id."""
        instance = self.instances.get(instance_id)
        return instance if instance is not None and instance.found_from <= self.clock.now() else None

    def hide(self, instance: Instance, seconds: float) -> None:
        """Show it to nobody for a while."""
        until = self.clock.now() + seconds
        instance.listed_from = max(instance.listed_from, until)
        instance.found_from = max(instance.found_from, until)

    # ── for the control ──────────────────────────────────────────────────────────────────────────────────────────

    def meter_report(self) -> dict[str, object]:
        """Tell the bill."""
        return self.meter.report(self.clock.now(), {each.id: each.status for each in self.instances.values()})

    def state(self) -> dict[str, object]:
        """Tell what there is, without secrets."""
        return {
            "now": iso(self.clock.now()),
            "rate": self.clock.rate,
            "instances": [_plainly(each) for each in self.instances.values()],
            "keys": [key["name"] for key in self.keys.values()],
            "violations": self.limits.violations,
            "troubles": self.troubles,
        }

    def arm(self, hits: Iterable[Hit]) -> None:
        """Arm faults; those that name an instance strike it now."""
        now = self.clock.now()
        for instance, hit in strikes.arm(self.faults, hits, self.instances, _KIND, pace=self.pace):
            self._strike(instance, hit, now)
        self.outage.at("now", now)
        self.agenda.moved()

    def set_price(self, name: str, price: Decimal) -> None:
        """Ask another price an hour from the next launch on."""
        self._known_kind(name)
        self.cents[name] = int(price * 100)

    def set_capacity(self, name: str, regions: list[str]) -> None:
        """Have capacity in these regions only."""
        self._known_kind(name)
        self.capacity[name] = regions

    def _known_kind(self, name: str) -> None:
        if name not in KINDS:
            raise LookupError(f"no instance type {name!r}")

    def links(self, instance_id: str | None, what: str, options: Mapping[str, float]) -> int:
        """Do that to the link of one instance or all; how many there were."""
        hosts = [
            each.host for each in strikes.named(self.instances, instance_id or "*", _KIND) if each.host is not None
        ]
        return sum(host.link(what, roads.for_link(options, self.clock)) for host in hosts)

    def close(self) -> None:
        """End every machine, and wait until it is done."""
        for host in self._hosts:
            host.destroy()
        for host in self._hosts:
            host.wait()


def _link(what: str, options: dict[str, float]) -> Callable[[Instance, float], None]:
    def act(instance: Instance, _moment: float) -> None:
        if instance.host is not None:
            instance.host.link_soon(what, options)

    return act


def _plainly(instance: Instance) -> dict[str, object]:
    return {
        "id": instance.id,
        "name": instance.name,
        "type": instance.order.kind.name,
        "region": instance.order.region,
        "status": instance.status,
        "address": instance.address,
        "has_address": instance.has_address,
        "launched": iso(instance.launched),
        "first_healthy": None if instance.first_healthy is None else iso(instance.first_healthy),
        "faults": sorted(instance.faults),
        "host": instance.host is not None,
        "passed_bytes": 0 if instance.host is None else instance.host.passed_bytes(),
    }
