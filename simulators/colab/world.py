"""Colab's world: VMs (lives.py), units (account.py), tokens (google.py), and what goes wrong.

Everything here runs under the world's lock.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

from simulators import roads, strikes
from simulators.clock import Agenda, Clock, iso
from simulators.colab.account import Account
from simulators.colab.catalogue import KINDS
from simulators.colab.faults import BOOK
from simulators.colab.google import Google
from simulators.colab.lives import Lives
from simulators.colab.vms import Vm, plainly
from simulators.faults import Faults, Hit
from simulators.journal import Journal
from simulators.outage import Outage

if TYPE_CHECKING:
    import random
    import threading
    from collections.abc import Callable, Iterable, Mapping

    from simulators.colab.machine import Machine
    from simulators.outage import Door

# Of a VM's faults, those that can strike one that is there already.
_LATER = frozenset(
    {
        *("vanish", "idle_reaper", "lifetime", "rate_dearer", "runtime_refuses", "websocket_cut", "lingers"),
        *("link_cut", "link_blackhole", "link_freeze"),
    }
)
_KIND = strikes.Kind("VM", "assign", _LATER)


class ColabWorld:
    """The state behind Colab's API. `make_machine` is None where no real machines are wanted."""

    def __init__(
        self,
        lock: threading.RLock,
        clock: Clock,
        *,
        pace: float,
        make_machine: Callable[[Vm], Machine] | None,
        door: Door,
        dice: random.Random,
    ) -> None:
        self.lock = lock
        self.clock = clock
        self.agenda = Agenda(clock, lock)
        self.book = BOOK
        self.faults = Faults(BOOK.on_instance)
        self.journal = Journal()
        self.outage = Outage(self.agenda, self.faults, door)
        self.account = Account(clock, self.agenda, self._go_broke, self._go_out)
        self.google = Google(dice)
        self.lives = Lives(
            lock,
            clock,
            self.agenda,
            make_machine=make_machine,
            account=self.account,
            faults=self.faults,
            outage=self.outage,
            dice=dice,
        )
        self.vms = self.lives.vms
        self.pace = pace
        self.dice = dice
        self.capacity = set(KINDS)

    def word(self, count: int) -> str:
        """Make up so many hex digits."""
        return f"{self.dice.getrandbits(4 * count):0{count}x}"

    # ── for the control ──────────────────────────────────────────────────────────────────────────────────────────

    def meter_report(self) -> dict[str, object]:
        """Tell the bill: units, and dollars at pay as you go."""
        return self.account.report({each.endpoint: "assigned" if each.alive else "gone" for each in self.vms.values()})

    def state(self) -> dict[str, object]:
        """Tell what there is, without secrets."""
        return {
            "now": iso(self.clock.now()),
            "rate": self.clock.rate,
            "instances": [plainly(each) for each in self.vms.values()],
            "balance": str(self.account.balance),
            "free": str(self.account.free_left),
            "troubles": self.lives.troubles,
        }

    def arm(self, hits: Iterable[Hit]) -> None:
        """Arm faults; those that name an instance strike it now."""
        now = self.clock.now()
        for vm, hit in strikes.arm(self.faults, hits, self.vms, _KIND, pace=self.pace):
            self.lives.strike(vm, hit, now)
        self._arm_money()
        if self.faults.take("login_ends"):
            self.google.end_all()
        foreign = self.faults.take("foreign")
        for _ in range(int(foreign.number("count")) if foreign else 0):
            self.launch_by_hand({"accelerator": "T4"})
        self.outage.at("now", now)
        self.agenda.moved()

    def _arm_money(self) -> None:
        poorer = self.faults.take("balance")
        if poorer is not None:
            self.account.leave(_units(poorer, "units"), _units(poorer, "free"))
        free = self.faults.take("free_tier")
        if free is not None:
            self.account.never_paid(_units(free, "units"))

    def set_price(self, name: str, price: Decimal) -> None:
        """Draw so many *units* an hour from the next assign on."""
        if name not in KINDS:
            raise LookupError(f"no accelerator {name!r}")
        self.account.rates[name] = price

    def set_capacity(self, name: str, regions: list[str]) -> None:
        """Have that accelerator, or, with no region, not: Colab knows none."""
        if name not in KINDS:
            raise LookupError(f"no accelerator {name!r}")
        (self.capacity.add if regions else self.capacity.discard)(name)

    def links(self, instance_id: str | None, what: str, options: Mapping[str, float]) -> int:
        """Do that to the link of one VM or all; how many there were."""
        hosts = [each.host for each in strikes.named(self.vms, instance_id or "*", _KIND) if each.host is not None]
        return sum(host.link(what, roads.for_link(options, self.clock)) for host in hosts)

    def launch_by_hand(self, order: object) -> str:
        """Assign as a person in a browser would: {"accelerator": "T4"}; there is no machine behind it."""
        name = order.get("accelerator") if isinstance(order, dict) else None
        if not isinstance(name, str) or name not in KINDS:
            raise ValueError(f'expected {{"accelerator": one of {", ".join(KINDS)}}}')
        return self.lives.assign(KINDS[name], f"by hand {len(self.vms)}", faults={}, foreign=True).endpoint

    def close(self) -> None:
        """End every machine, and wait until it is done."""
        self.lives.close()

    def _go_broke(self) -> None:
        for vm in list(self.vms.values()):
            if vm.alive and not vm.kind.free:
                self.lives.end(vm, "balance")

    def _go_out(self) -> None:
        for vm in list(self.vms.values()):
            if vm.alive:
                self.lives.end(vm, "free quota")


def _units(hit: Hit, option: str) -> Decimal:
    return Decimal(str(hit.number(option)))
