"""The lives of pods, from the create to the end.

    created ── PROVISIONING ── STARTING ── container ── RUNNING ── address ── … deleted (billing ends)
        0                        1/6         5/6        start       7/6
        └── billed, by the second ──────────────────────────────────────────┘

The order is documented, the moments are not (minutes for a large image, 30 to 90 s from RUNNING to an open port were
seen). A container that ends is started again, and bills. Everything here runs under the world's lock.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

from simulators import roads
from simulators.hosts import Host
from simulators.meter import Entry
from simulators.runpod.pods import Order, Pod

if TYPE_CHECKING:
    import random
    import threading
    from collections.abc import Callable

    from simulators.clock import Agenda, Clock
    from simulators.faults import Hit
    from simulators.outage import Outage
    from simulators.runpod.account import Account
    from simulators.runpod.container import Container
    from simulators.runpod.logs import Logs

_PAUSE_SECONDS = 1.0  # from the end of a container to its next start, doubled each time; not documented
_LONGEST_PAUSE_SECONDS = 60.0
_LEAST_PAUSE_SECONDS = 0.2  # ours: processes take their time, however hurried the vendor


class Lives:
    """Every pod there is, and what becomes of it. `make_container` is None where no real ones are wanted."""

    def __init__(
        self,
        lock: threading.RLock,
        clock: Clock,
        agenda: Agenda,
        *,
        pace: float,
        start_seconds: float,
        make_container: Callable[[Pod], Container] | None,
        account: Account,
        logs: Logs,
        outage: Outage,
        dice: random.Random,
    ) -> None:
        self._lock, self._clock, self._agenda = lock, clock, agenda
        self._account, self._meter, self._logs, self._outage = account, account.meter, logs, outage
        self._dice = dice
        self._pace = pace
        self._start_seconds = start_seconds / pace
        self._make_container = make_container
        self._hosts: list[Host] = []
        self._created = 0
        self._network = f"127.{dice.randint(1, 254)}"
        self.pods: dict[str, Pod] = {}
        self.troubles: list[str] = []

    def create(self, order: Order, *, faults: dict[str, Hit]) -> Pod:
        """Make a pod and plan its life."""
        now = self._clock.now()
        self._created += 1
        dearer = faults.get("price_dearer")
        price = self._account.price(order.kind.id, order.cloud) * order.count
        if dearer and not dearer.given("after"):
            price *= Decimal(str(dearer.number("factor")))
        lag = faults.get("list_lag")
        listed_from = now + (lag.number("seconds") if lag else 0)
        pod = Pod(
            id=word(self._dice, 14),
            number=self._created,
            order=order,
            name=order.name,
            price=price,
            address=f"{self._network}.{self._created // 250}.{self._created % 250 + 2}",
            machine=f"{self._dice.getrandbits(32):08x}",
            key=f"rpa_{word(self._dice, 40).upper()}",
            created=now,
            listed_from=listed_from,
            found_from=listed_from if lag and lag.options["get"] else now,
            faults=faults,
        )
        self.pods[pod.id] = pod
        hourly = price + order.disk_price(running=True)
        self._account.disk_shares[pod.id] = order.disk_price(running=True) / hourly
        self._meter.launch(Entry(pod.id, order.name, order.kind.id, hourly, now, step_seconds=1))
        self._meter.start(pod.id, now)
        self._plan_start(pod, now)
        self._outage.at("create", now)
        self._account.watch()
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
        if not faults.keys() & {"ssh_never", "no_public_ip"}:
            mapped = since + (span + late.number("seconds") if late else span * 7 / 6)
            self._then(pod, mapped, lambda one, _moment: setattr(one, "mapped", True))

    def _then(self, pod: Pod, when: float, action: Callable[[Pod, float], None]) -> None:
        def act(moment: float) -> None:
            if pod.alive and pod.id in self.pods:
                action(pod, moment)

        self._agenda.at(when, act)

    def _pull(self, pod: Pod, _moment: float) -> None:
        if pod.status == "PROVISIONING":
            pod.status = "STARTING"
            self._logs.say(pod, "system", f"create container {pod.order.image}")
            if "pull_fails" in pod.faults:
                self._logs.say(pod, "system", f"error pulling image: manifest for {pod.order.image} not found")
            else:
                self._logs.say(pod, "system", f"Status: Image is up to date for {pod.order.image}")

    def _start_container(self, pod: Pod, moment: float) -> None:
        if pod.status not in {"PROVISIONING", "STARTING"}:
            return
        pod.container_since = moment
        self._logs.say(pod, "system", f"start container for {pod.order.image}: begin")
        if self._make_container is None:
            pod.port = self._dice.randint(10000, 60000)
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
                self.strike(pod, hit, moment)
            self._outage.at("running", moment)

    def exited(self, pod: Pod, code: int) -> None:
        """Take note that a container ended by itself, and plan its next start: the pod stays RUNNING, and bills."""
        with self._lock:
            if pod.status not in {"STARTING", "RUNNING"} or pod.id not in self.pods:
                return
            self._logs.say(pod, "system", f"container exited with code {code}")
            pause = min(_PAUSE_SECONDS * 2 ** min(pod.restarts, 9), _LONGEST_PAUSE_SECONDS) / self._pace
            pause = max(pause, _LEAST_PAUSE_SECONDS * self._clock.rate)
            before = pod.restarts

            def start_again(one: Pod, moment: float) -> None:
                if one.restarts == before:  # nobody was quicker
                    self._restart(one, moment)

            self._then(pod, self._clock.now() + pause, start_again)

    def _restart(self, pod: Pod, moment: float) -> None:
        """Start the container again: everything in it dies, its disk stays, another port is mapped."""
        if pod.status not in {"STARTING", "RUNNING"}:
            return
        self._keep_port(pod, moment)
        pod.restarts += 1
        pod.container_since = moment
        self._logs.say(pod, "system", f"start container for {pod.order.image}: begin")
        if pod.host is not None:
            pod.host.reboot()
        else:
            pod.port = self._dice.randint(10000, 60000)

    def restart(self, pod: Pod) -> None:
        """Restart the container because somebody asked."""
        self._restart(pod, self._clock.now())

    def _change_port(self, pod: Pod, moment: float) -> None:
        self._keep_port(pod, moment)
        if pod.host is not None and pod.container is not None:
            pod.host.do(pod.container.remap)
        else:
            pod.port = self._dice.randint(10000, 60000)

    def _keep_port(self, pod: Pod, moment: float) -> None:
        stale = pod.faults.get("stale_port")
        if stale is not None:
            pod.old_port = (pod.public_port(moment), moment + stale.number("seconds"))

    def _sicken(self, pod: Pod, _moment: float) -> None:
        pod.status = "ERROR"
        if pod.host is not None and pod.container is not None:
            pod.host.do(pod.container.wipe)

    def _vanish(self, pod: Pod, moment: float) -> None:
        self._meter.end(pod.id, moment, "vanished")
        pod.status = "TERMINATED"
        self._bury(pod)
        del self.pods[pod.id]

    def _grow_dear(self, pod: Pod, moment: float) -> None:
        pod.price *= Decimal(str(pod.faults["price_dearer"].number("factor")))
        self._meter.reprice(pod.id, moment, pod.price + pod.order.disk_price(running=True))
        self._account.watch()

    def strike(self, pod: Pod, hit: Hit, since: float) -> None:
        """Plan what a fault does to a pod that is up."""
        if hit.name.startswith("link_"):
            for moment, what, options in roads.deeds(hit, since, self._clock):
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
        now = self._clock.now()
        pod.status, pod.container_since, pod.mapped = "EXITED", None, False
        self._meter.reprice(pod.id, now, pod.order.disk_price(running=False))
        if pod.host is not None and pod.container is not None:
            pod.host.do(pod.container.wipe)
        self._logs.forget(pod)

    def start(self, pod: Pod) -> None:
        """Start it again, on the same host."""
        now = self._clock.now()
        pod.status = "STARTING"
        self._meter.reprice(pod.id, now, pod.price + pod.order.disk_price(running=True))
        self._plan_start(pod, now)

    def reset(self, pod: Pod, order: Order) -> None:
        """Take another configuration: the container is made anew, and what was on its disk is lost."""
        pod.order = order
        if pod.host is not None and pod.container is not None and pod.status == "RUNNING":
            pod.host.do(pod.container.wipe)
            self.restart(pod)

    def terminate(self, pod: Pod, by: str = "delete") -> None:
        """End it for good: billing ends here, the container dies."""
        now = self._clock.now()
        pod.status = "TERMINATED"
        self._meter.end(pod.id, now, by)
        self._bury(pod)
        lingers = pod.faults.get("terminated_lingers")
        self._agenda.at(now + (lingers.number("seconds") if lingers else 0), lambda _moment: self._forget(pod))
        if lingers is None:
            self._forget(pod)
        self._outage.at("delete", now)

    def _forget(self, pod: Pod) -> None:
        self.pods.pop(pod.id, None)
        self._logs.forget(pod)

    def close(self) -> None:
        """End every container, and wait until it is done."""
        for host in self._hosts:
            host.destroy()
        for host in self._hosts:
            host.wait()


def word(dice: random.Random, count: int) -> str:
    """Make up an id."""
    return "".join(dice.choice("abcdefghijkmnpqrstuvwxyz0123456789") for _ in range(count))


def _link(what: str, options: dict[str, float]) -> Callable[[Pod, float], None]:
    def act(pod: Pod, _moment: float) -> None:
        if pod.host is not None:
            pod.host.link_soon(what, options)

    return act


def _fill_disk(pod: Pod, _moment: float) -> None:
    if pod.host is not None:
        pod.host.fill_disk()
