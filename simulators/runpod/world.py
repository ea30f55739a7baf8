"""RunPod's world: pods and their lives, the bill.

    created ── PROVISIONING ── STARTING ── container ── RUNNING ── address ── … deleted (billing ends)
        0                        1/6         5/6        start       7/6
        └── billed, by the second ──────────────────────────────────────────┘

The order is documented, the moments are not (minutes for a large image, 30 to 90 s from RUNNING to an open port were
seen). A container that ends is started again, and bills. Everything here runs under the world's lock, but for logs.py.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

from simulators import roads
from simulators.clock import Agenda, Clock, iso
from simulators.faults import FaultError, Faults, Hit
from simulators.hosts import Host
from simulators.journal import Journal
from simulators.meter import Entry, Meter
from simulators.outage import Outage
from simulators.runpod.catalogue import COMMUNITY, DATA_CENTERS, KINDS
from simulators.runpod.faults import BOOK
from simulators.runpod.limits import Windows
from simulators.runpod.logs import Logs
from simulators.runpod.pods import Order, Pod

if TYPE_CHECKING:
    import random
    import threading
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from simulators.outage import Door
    from simulators.runpod.container import Container

# Of a pod's faults, those that can strike one that is there already.
_LATER = frozenset(
    {
        *("error", "exited", "vanish", "container_restart", "port_change", "stale_port", "price_dearer", "disk_full"),
        *("link_cut", "link_blackhole", "link_freeze", "pod_key", "terminated_lingers"),
    }
)
_BALANCE = Decimal(100)
_MICRO = Decimal("0.000001")
SPEND_LIMIT = Decimal(80)  # USD an hour: the default of a new account (docs, 2026)
_PAUSE_SECONDS = 1.0  # from the end of a container to its next start, doubled each time; not documented
_LONGEST_PAUSE_SECONDS = 60.0
_LEAST_PAUSE_SECONDS = 0.2  # ours: processes take their time, however hurried the vendor


class PodWorld:
    """The state behind RunPod's API. `make_container` is None where no real machines are wanted."""

    def __init__(
        self,
        lock: threading.RLock,
        clock: Clock,
        *,
        pace: float,
        start_seconds: float,
        make_container: Callable[[Pod], Container] | None,
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
        self.limits = Windows(clock, pace)
        self.logs = Logs(clock, pace)
        self.outage = Outage(self.agenda, self.faults, door)
        self.pace = pace
        self.pods: dict[str, Pod] = {}
        self.keys: list[str] = []
        self.prices: dict[str, Decimal] = {}  # other than the catalogue's; of both clouds
        self.capacity = {name: list(kind.places) for name, kind in KINDS.items()}
        self.dice = dice
        self.troubles: list[str] = []
        self._start_seconds = start_seconds / pace
        self._make_container = make_container
        self._hosts: list[Host] = []
        self._created = 0
        self._disk_shares: dict[str, Decimal] = {}  # of a pod's price
        self._lost_usd = Decimal(0)  # of the balance, by the fault of that name
        self._network = f"127.{dice.randint(1, 254)}"
        self.launch_by_hand: Callable[[object], str]

    # ── the life of a pod ────────────────────────────────────────────────────────────────────────────────────────

    def create(self, order: Order, *, faults: dict[str, Hit]) -> Pod:
        """Make a pod and plan its life."""
        now = self.clock.now()
        self._created += 1
        dearer = faults.get("price_dearer")
        price = self.price(order.kind.id, order.cloud) * order.count
        if dearer and not dearer.given("after"):
            price *= Decimal(str(dearer.number("factor")))
        lag = faults.get("list_lag")
        listed_from = now + (lag.number("seconds") if lag else 0)
        pod = Pod(
            id=self.word(14),
            number=self._created,
            order=order,
            name=order.name,
            price=price,
            address=f"{self._network}.{self._created // 250}.{self._created % 250 + 2}",
            machine=f"{self.dice.getrandbits(32):08x}",
            key=f"rpa_{self.word(40).upper()}",
            created=now,
            listed_from=listed_from,
            found_from=listed_from if lag and lag.options["get"] else now,
            faults=faults,
        )
        self.pods[pod.id] = pod
        hourly = (price + order.disk_price(running=True)).quantize(_MICRO)
        self.meter.launch(Entry(pod.id, order.name, order.kind.id, hourly, now, step_seconds=1))
        self.meter.start(pod.id, now)
        self._disk_shares[pod.id] = order.disk_price(running=True) / hourly
        self._plan_start(pod, now)
        self.outage.at("create", now)
        self._watch_balance()
        return pod

    def _plan_start(self, pod: Pod, since: float) -> None:
        faults = pod.faults
        span = faults["slow_start"].number("seconds") if "slow_start" in faults else self._start_seconds
        if "stuck_provisioning" in faults:
            return
        self._then(pod, since + span / 6, self._pull)
        if "stuck_starting" in faults or "pull_fails" in faults:
            return
        self._then(pod, since + span * 5 / 6, self._start_container)
        self._then(pod, since + span, self._run)
        late = faults.get("ssh_late")
        if "ssh_never" not in faults:
            mapped = since + (span + late.number("seconds") if late else span * 7 / 6)
            self._then(pod, mapped, lambda one, _moment: setattr(one, "mapped", True))

    def _then(self, pod: Pod, when: float, action: Callable[[Pod, float], None]) -> None:
        def act(moment: float) -> None:
            if pod.alive and pod.id in self.pods:
                action(pod, moment)

        self.agenda.at(when, act)

    def _pull(self, pod: Pod, _moment: float) -> None:
        if pod.status == "PROVISIONING":
            pod.status = "STARTING"
            self.logs.say(pod, "system", f"create container {pod.order.image}")
            if "pull_fails" in pod.faults:
                self.logs.say(pod, "system", f"error pulling image: manifest for {pod.order.image} not found")
            else:
                self.logs.say(pod, "system", f"Status: Image is up to date for {pod.order.image}")

    def _start_container(self, pod: Pod, moment: float) -> None:
        if pod.status not in {"PROVISIONING", "STARTING"}:
            return
        pod.container_since = moment
        self.logs.say(pod, "system", f"start container for {pod.order.image}: begin")
        if self._make_container is None:
            pod.port = self.dice.randint(10000, 60000)
        elif pod.host is None:
            make = self._make_container

            def made() -> Container:
                pod.container = make(pod)
                return pod.container

            pod.host = Host(made, self.troubles)
            self._hosts.append(pod.host)
            pod.host.boot()
        else:
            pod.host.reboot()

    def _run(self, pod: Pod, moment: float) -> None:
        if pod.status not in {"PROVISIONING", "STARTING"}:
            return
        pod.status, first = "RUNNING", pod.started is None
        pod.started = moment
        if first:
            for hit in pod.faults.values():
                self._strike(pod, hit, moment)
            self.outage.at("running", moment)

    def exited(self, pod: Pod, code: int) -> None:
        """Take note that a container ended by itself, and plan its next start: the pod stays RUNNING, and bills."""
        with self.lock:
            if pod.status not in {"STARTING", "RUNNING"} or pod.id not in self.pods:
                return
            self.logs.say(pod, "system", f"container exited with code {code}")
            pause = min(_PAUSE_SECONDS * 2 ** min(pod.restarts, 9), _LONGEST_PAUSE_SECONDS) / self.pace
            pause = max(pause, _LEAST_PAUSE_SECONDS * self.clock.rate)
            before = pod.restarts

            def start_again(one: Pod, moment: float) -> None:
                if one.restarts == before:  # nobody was quicker
                    self._restart(one, moment)

            self._then(pod, self.clock.now() + pause, start_again)

    def _restart(self, pod: Pod, moment: float) -> None:
        """Start the container again: everything in it dies, its disk stays, another port is mapped."""
        if pod.status not in {"STARTING", "RUNNING"}:
            return
        self._keep_port(pod, moment)
        pod.restarts += 1
        pod.container_since = moment
        self.logs.say(pod, "system", f"start container for {pod.order.image}: begin")
        if pod.host is not None:
            pod.host.reboot()
        else:
            pod.port = self.dice.randint(10000, 60000)

    def restart(self, pod: Pod) -> None:
        """Restart the container because somebody asked."""
        self._restart(pod, self.clock.now())

    def _change_port(self, pod: Pod, moment: float) -> None:
        self._keep_port(pod, moment)
        if pod.host is not None and pod.container is not None:
            pod.host.do(pod.container.remap)
        else:
            pod.port = self.dice.randint(10000, 60000)

    def _keep_port(self, pod: Pod, moment: float) -> None:
        stale = pod.faults.get("stale_port")
        if stale is not None:
            pod.old_port = (pod.public_port(moment), moment + stale.number("seconds"))

    def _sicken(self, pod: Pod, _moment: float) -> None:
        pod.status = "ERROR"
        if pod.host is not None and pod.container is not None:
            pod.host.do(pod.container.wipe)

    def _vanish(self, pod: Pod, moment: float) -> None:
        self.meter.end(pod.id, moment, "vanished")
        pod.status = "TERMINATED"
        self._bury(pod)
        del self.pods[pod.id]

    def _grow_dear(self, pod: Pod, moment: float) -> None:
        pod.price *= Decimal(str(pod.faults["price_dearer"].number("factor")))
        self.meter.reprice(pod.id, moment, pod.price + pod.order.disk_price(running=True))
        self._watch_balance()

    def _strike(self, pod: Pod, hit: Hit, since: float) -> None:
        """Plan what a fault does to a pod that is up."""
        if hit.name.startswith("link_"):
            for moment, what, options in roads.deeds(hit, since, self.clock):
                self._then(pod, moment, _link(what, options))
        if hit.name == "container_restart":
            for index in range(int(hit.number("count"))):
                moment = since + hit.number("after") + index * hit.number("every")
                self._then(pod, moment, self._restart)
        actions: dict[str, Callable[[Pod, float], None]] = {
            "error": self._sicken,
            "exited": lambda one, _moment: self.stop(one),
            "vanish": self._vanish,
            "port_change": self._change_port,
            "disk_full": _fill_disk,
        }
        if hit.name == "price_dearer" and hit.given("after"):
            actions["price_dearer"] = self._grow_dear
        if hit.name in actions:
            self._then(pod, since + hit.number("after"), actions[hit.name])

    def _bury(self, pod: Pod) -> None:
        if pod.host is not None:
            pod.host.destroy()

    def stop(self, pod: Pod) -> None:
        """Stop it: the GPU is given back, its disk wiped and its log lost; a volume is kept, and bills."""
        now = self.clock.now()
        pod.status, pod.container_since, pod.mapped = "EXITED", None, False
        self.meter.reprice(pod.id, now, pod.order.disk_price(running=False))
        if pod.host is not None and pod.container is not None:
            pod.host.do(pod.container.wipe)
        self.logs.forget(pod)

    def start(self, pod: Pod) -> None:
        """Start it again, on the same host."""
        now = self.clock.now()
        pod.status = "STARTING"
        self.meter.reprice(pod.id, now, pod.price + pod.order.disk_price(running=True))
        self._plan_start(pod, now)

    def reset(self, pod: Pod, order: Order) -> None:
        """Take another configuration: the container is made anew, and what was on its disk is lost."""
        pod.order = order
        if pod.host is not None and pod.container is not None and pod.status == "RUNNING":
            pod.host.do(pod.container.wipe)
            self.restart(pod)

    def terminate(self, pod: Pod, by: str = "delete") -> None:
        """End it for good: billing ends here, the container dies."""
        now = self.clock.now()
        pod.status = "TERMINATED"
        self.meter.end(pod.id, now, by)
        self._bury(pod)
        lingers = pod.faults.get("terminated_lingers")
        self.agenda.at(now + (lingers.number("seconds") if lingers else 0), lambda _moment: self._forget(pod))
        if lingers is None:
            self._forget(pod)
        self.outage.at("delete", now)

    def _forget(self, pod: Pod) -> None:
        self.pods.pop(pod.id, None)
        self.logs.forget(pod)

    # ── money ────────────────────────────────────────────────────────────────────────────────────────────────────

    def price(self, kind_id: str, cloud: str) -> Decimal:
        """USD an hour for one GPU."""
        return self.prices.get(kind_id) or KINDS[kind_id].price(cloud) or Decimal(0)

    def balance(self) -> Decimal:
        """USD that the account has left."""
        return _BALANCE - self._lost_usd - self.meter.usd(self.clock.now())

    def bills(self, begin: float, end: float, span: float) -> Iterator[tuple[str, float, dict[str, float]]]:
        """Give (pod, bucket, amounts) of all that was billed between two moments."""
        now = self.clock.now()
        for entry in self.meter.entries():
            since = max(begin, entry.launched // span * span)
            while since < min(end, now):
                usd = entry.usd(min(since + span, now)) - entry.usd(since)
                if usd:
                    disk = usd * self._disk_shares[entry.id]
                    amounts = {"totalAmount": usd, "gpuAmount": usd - disk, "diskAmount": disk}
                    yield entry.id, since, {**{name: float(each) for name, each in amounts.items()}, "cpuAmount": 0.0}
                since += span

    def _watch_balance(self) -> None:
        """Look again when the balance will be gone as things stand."""
        rate = self.meter.rate()
        if rate:
            hours = max(self.balance() / rate, Decimal(0))
            self.agenda.at(self.clock.now() + float(hours) * 3600 + 1, lambda _moment: self._check_balance())

    def _check_balance(self) -> None:
        if self.balance() > 0:
            return
        for pod in list(self.pods.values()):
            if pod.alive:  # none has a network volume, which alone would be stopped and kept
                self.terminate(pod, "balance")

    # ── for the API ──────────────────────────────────────────────────────────────────────────────────────────────

    def word(self, count: int) -> str:
        """Make up an id."""
        return "".join(self.dice.choice("abcdefghijkmnpqrstuvwxyz0123456789") for _ in range(count))

    def listed(self) -> list[Pod]:
        """Give what the list shows, the newest first."""
        now = self.clock.now()
        return [each for each in reversed(self.pods.values()) if each.listed_from <= now and each.alive]

    def found(self, pod_id: str) -> Pod | None:
        """Look one up by its id."""
        pod = self.pods.get(pod_id)
        return pod if pod is not None and pod.found_from <= self.clock.now() else None

    def hide(self, pod: Pod, seconds: float) -> None:
        """Show it to nobody for a while."""
        until = self.clock.now() + seconds
        pod.listed_from = max(pod.listed_from, until)
        pod.found_from = max(pod.found_from, until)

    # ── for the control ──────────────────────────────────────────────────────────────────────────────────────────

    def meter_report(self) -> dict[str, object]:
        """Tell the bill."""
        return self.meter.report(self.clock.now(), {each.id: each.status for each in self.pods.values()})

    def state(self) -> dict[str, object]:
        """Tell what there is, without secrets."""
        now = self.clock.now()
        return {
            "now": iso(now),
            "rate": self.clock.rate,
            "instances": [_plainly(each, now) for each in self.pods.values()],
            "balance": str(self.balance()),
            "violations": self.limits.violations,
            "troubles": self.troubles,
        }

    def arm(self, hits: Iterable[Hit]) -> None:
        """Arm faults; those that name an instance strike it now."""
        now = self.clock.now()
        hits = [hit.hurried(self.pace) for hit in hits]
        for hit in hits:
            if hit.options.get("instance") is not None and hit.name not in _LATER:
                raise FaultError(f"{hit.name} strikes at create only: a pod that is there can't have it")
        self.faults.arm(hit for hit in hits if hit.options.get("instance") is None)
        for hit in hits:
            for pod in self._named(hit.options.get("instance")):
                pod.faults[hit.name] = hit
                self._strike(pod, hit, now)
        poorer = self.faults.take("balance")
        if poorer is not None:
            self._lost_usd += self.balance() - Decimal(str(poorer.number("usd")))
            self._watch_balance()
        self.outage.at("now", now)
        self.agenda.moved()

    def _named(self, wish: object) -> list[Pod]:
        if wish is None:
            return []
        found = [each for each in self.pods.values() if wish in {"*", each.id} and each.alive]
        if not found and wish != "*":
            raise LookupError(f"no pod {wish!r}")
        return found

    def set_price(self, name: str, price: Decimal) -> None:
        """Ask another price an hour from the next create on, in both clouds."""
        self._known_kind(name)
        self.prices[name] = price

    def set_capacity(self, name: str, regions: list[str]) -> None:
        """Have capacity in these data centers only; COMMUNITY is one, too."""
        self._known_kind(name)
        if unknown := set(regions) - {*DATA_CENTERS, COMMUNITY}:
            raise ValueError(f"no data center {', '.join(sorted(unknown))}")
        self.capacity[name] = regions

    def _known_kind(self, name: str) -> None:
        if name not in KINDS:
            raise LookupError(f"no GPU type {name!r}")

    def links(self, instance_id: str | None, what: str, options: Mapping[str, float]) -> int:
        """Do that to the link of one pod or all; how many there were."""
        hosts = [each.host for each in self._named(instance_id or "*") if each.host is not None]
        return sum(host.link(what, roads.for_link(options, self.clock)) for host in hosts)

    def close(self) -> None:
        """End every container, and wait until it is done."""
        self.logs.close()
        for host in self._hosts:
            host.destroy()
        for host in self._hosts:
            host.wait()


def _link(what: str, options: dict[str, float]) -> Callable[[Pod, float], None]:
    def act(pod: Pod, _moment: float) -> None:
        if pod.host is not None:
            pod.host.link_soon(what, options)

    return act


def _fill_disk(pod: Pod, _moment: float) -> None:
    if pod.host is not None:
        pod.host.fill_disk()


def _plainly(pod: Pod, now: float) -> dict[str, object]:
    return {
        "id": pod.id,
        "name": pod.name,
        "type": pod.order.kind.id,
        "region": pod.order.data_center or COMMUNITY,
        "status": pod.status,
        "address": pod.address,
        "port": pod.public_port(now),
        "restarts": pod.restarts,
        "created": iso(pod.created),
        "faults": sorted(pod.faults),
        "host": pod.host is not None,
        "passed_bytes": 0 if pod.host is None else pod.host.passed_bytes(),
    }
