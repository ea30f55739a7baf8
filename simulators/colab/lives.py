"""The lives of VMs, from the assign to the end.

    assigned ── … activity, pings … ── unassigned | idle too long | too old | balance gone     units end with it
        └── units, by the second ────────┘

A VM is ended by whoever asks (outside, or its own address inside), and by Colab itself: limits are not published, 90
minutes of idleness and 12 hours (24 with Pro+) are what is said of them. Both go by the clock, whatever the pace.
"""

from __future__ import annotations

from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING

from simulators import roads
from simulators.colab.catalogue import KINDS
from simulators.colab.vms import Vm
from simulators.hosts import Host
from simulators.meter import Entry

if TYPE_CHECKING:
    import random
    import threading
    from collections.abc import Callable

    from simulators.clock import Agenda, Clock
    from simulators.colab.account import Account
    from simulators.colab.catalogue import Kind
    from simulators.colab.machine import Machine
    from simulators.faults import Faults, Hit
    from simulators.outage import Outage

_IDLE_SECONDS = 90 * 60.0
_LIFE_SECONDS, _LONG_LIFE_SECONDS = 12 * 3600.0, 24 * 3600.0
_TOKEN_SECONDS = 3600.0


class Lives:
    """Every VM there is, and what becomes of it."""

    def __init__(
        self,
        lock: threading.RLock,
        clock: Clock,
        agenda: Agenda,
        *,
        make_machine: Callable[[Vm], Machine] | None,
        account: Account,
        faults: Faults,
        outage: Outage,
        dice: random.Random,
    ) -> None:
        self._lock, self._clock, self._agenda = lock, clock, agenda
        self._account, self._faults, self._outage, self._dice = account, faults, outage, dice
        self._make_machine = make_machine
        self._hosts: list[Host] = []
        self._closing = False
        self.vms: dict[str, Vm] = {}
        self.troubles: list[str] = []

    # ── the beginning ────────────────────────────────────────────────────────────────────────────────────────────

    def assign(self, asked: Kind, nbh: str, *, faults: dict[str, Hit], foreign: bool = False) -> Vm:
        """Make a VM and plan its life."""
        now = self._clock.now()
        kind = KINDS[faults["substituted"].text("to")] if "substituted" in faults else asked
        endpoint = f"{kind.prefix}{self._dice.getrandbits(52):013x}"
        lag = faults["list_lag"].number("seconds") if "list_lag" in faults else 0.0
        vm = Vm(endpoint, len(self.vms), nbh, kind, now, now + lag, now, now, faults, foreign=foreign)
        vm.url = f"http://127.0.0.1:9/{endpoint}"  # where no real machine is: nobody
        self.vms[endpoint] = vm
        units = self._account.rates.get(kind.name, kind.units)
        if "rate_dearer" in faults:
            units *= Decimal(str(faults["rate_dearer"].number("factor")))
        self._account.meter.launch(Entry(endpoint, nbh, kind.name, units, now, step_seconds=1))
        self._account.meter.start(endpoint, now)
        if self._make_machine is not None and not foreign:
            self._boot(vm, self._make_machine)
        for hit in faults.values():
            self.strike(vm, hit, now)
        if not foreign:
            self._plan_end(vm, now)
        self._outage.at("assign", now)
        self._account.watch()
        return vm

    def _boot(self, vm: Vm, make: Callable[[Vm], Machine]) -> None:
        """Have its machine made; its way in is open at once, and waits until somebody is there."""
        machine = make(vm)
        vm.machine, vm.url = machine, machine.url
        vm.host = Host(lambda: machine, self.troubles)
        self._hosts.append(vm.host)
        vm.host.boot()

    def strike(self, vm: Vm, hit: Hit, since: float) -> None:
        """Plan what a fault does to a VM."""
        if hit.name == "vanish":
            self._then(vm, since + hit.number("after"), partial(self.end, by="vanished"))
        elif hit.name == "lifetime":
            self._then(vm, vm.created + hit.number("seconds"), partial(self.end, by="lifetime"))
        elif hit.name == "idle_reaper":
            self._watch_idleness(vm)
        elif hit.name == "disk_full":
            self._then(vm, since + hit.number("after"), _fill_disk)
        elif hit.name == "websocket_cut":
            for index in range(int(hit.number("count"))):
                self._then(vm, since + hit.number("after") + index * hit.number("every"), _cut_websockets)
        elif hit.name.startswith("link_"):
            for when, what, options in roads.deeds(hit, since, self._clock):
                self._then(vm, when, partial(_touch_link, what=what, options=options))

    def _then(self, vm: Vm, when: float, action: Callable[[Vm], object]) -> None:
        def act(_moment: float) -> None:
            if vm.alive and not self._closing:
                action(vm)

        self._agenda.at(when, act)

    # ── the end ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _plan_end(self, vm: Vm, since: float) -> None:
        life = _LONG_LIFE_SECONDS if self._account.tier == 2 else _LIFE_SECONDS
        self._then(vm, since + life, partial(self.end, by="lifetime"))
        self._watch_idleness(vm)

    def _watch_idleness(self, vm: Vm) -> None:
        """Look when it would have been idle for too long."""
        since = vm.pinged if self._pings_only(vm) else max(vm.active, vm.pinged)
        self._then(vm, since + self._idle_seconds(vm), self._look_for_idleness)

    @staticmethod
    def _idle_seconds(vm: Vm) -> float:
        return vm.faults["idle_reaper"].number("seconds") if "idle_reaper" in vm.faults else _IDLE_SECONDS

    @staticmethod
    def _pings_only(vm: Vm) -> bool:
        return "idle_reaper" in vm.faults and bool(vm.faults["idle_reaper"].options["pings"])

    def _look_for_idleness(self, vm: Vm) -> None:
        """Ask the machine whether a kernel is busy, which is activity; in its own thread."""
        machine = vm.machine
        if machine is None or vm.host is None or self._pings_only(vm):
            self._judge_idleness(vm, busy=False)
            return

        def ask() -> None:
            busy = machine.busy()
            with self._lock:
                self._judge_idleness(vm, busy=busy)

        vm.host.do(ask)

    def _judge_idleness(self, vm: Vm, *, busy: bool) -> None:
        if not vm.alive:
            return
        now = self._clock.now()
        if busy:
            vm.active = now
        since = vm.pinged if self._pings_only(vm) else max(vm.active, vm.pinged)
        if now - since >= self._idle_seconds(vm):
            self.end(vm, by="idle")
        else:
            self._watch_idleness(vm)

    def end(self, vm: Vm, by: str) -> None:
        """End a VM: no unit is drawn any more, its machine goes, its way in answers 404."""
        if not vm.alive:
            return
        vm.ended, vm.ended_by = self._clock.now(), by
        lingers = vm.faults.get("lingers")
        vm.listed_until = vm.ended + lingers.number("seconds") if lingers else 0.0
        self._account.meter.end(vm.endpoint, vm.ended, by)
        if vm.host is not None:
            vm.host.destroy()

    # ── the way in ───────────────────────────────────────────────────────────────────────────────────────────────

    def mint(self, vm: Vm) -> tuple[str, float]:
        """Give a fresh token of its proxy, and for how long it lasts."""
        short = self._faults.take("token_ttl")
        seconds = short.number("seconds") if short else _TOKEN_SECONDS
        token, now = f"{self._dice.getrandbits(192):048x}", self._clock.now()
        vm.tokens = {each: end for each, end in vm.tokens.items() if end > now}
        vm.tokens[token] = now + seconds
        return token, seconds

    def listed(self) -> list[Vm]:
        """Give what the list shows."""
        now = self._clock.now()
        return [one for one in self.vms.values() if one.listed_from <= now and (one.alive or now < one.listed_until)]

    def of_nbh(self, nbh: str) -> Vm | None:
        """Find what is assigned to a notebook."""
        return next((one for one in self.vms.values() if one.nbh == nbh and one.alive), None)

    def close(self) -> None:
        """End every machine, and wait until it is done."""
        with self._lock:
            self._closing = True
            hosts = list(self._hosts)
        for host in hosts:
            host.destroy()
        for host in hosts:
            host.wait()
        for vm in self.vms.values():
            if vm.machine is not None:
                vm.machine.close()


def _cut_websockets(vm: Vm) -> None:
    if vm.machine is not None:
        vm.machine.cut_websockets()


def _fill_disk(vm: Vm) -> None:
    if vm.host is not None:
        vm.host.fill_disk()


def _touch_link(vm: Vm, what: str, options: dict[str, float]) -> None:
    if vm.host is not None:
        vm.host.link_soon(what, options)
