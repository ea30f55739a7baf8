"""RunPod's world: pods (lives.py), the bill (account.py), what they say (logs.py), and what goes wrong.

Everything here runs under the world's lock.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

from simulators import roads, strikes
from simulators.clock import Agenda, Clock, iso
from simulators.faults import Faults, Hit
from simulators.journal import Journal
from simulators.outage import Outage
from simulators.runpod.account import Account
from simulators.runpod.catalogue import COMMUNITY, DATA_CENTERS, KINDS
from simulators.runpod.faults import BOOK
from simulators.runpod.limits import Windows
from simulators.runpod.lives import Lives, word
from simulators.runpod.logs import Logs
from simulators.runpod.pods import Pod, plainly

if TYPE_CHECKING:
    import random
    import threading
    from collections.abc import Callable, Iterable, Mapping

    from simulators.outage import Door
    from simulators.runpod.container import Container

# Of a pod's faults, those that can strike one that is there already.
_LATER = frozenset(
    {
        *("error", "exited", "vanish", "container_restart", "port_change", "stale_port", "price_dearer", "disk_full"),
        *("link_cut", "link_blackhole", "link_freeze", "pod_key", "terminated_lingers"),
    }
)
_KIND = strikes.Kind("pod", "create", _LATER)


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
        self.limits = Windows(clock, pace)
        self.logs = Logs(clock, pace)
        self.outage = Outage(self.agenda, self.faults, door)
        self.account = Account(clock, self.agenda, self._go_broke)
        self.lives = Lives(
            lock,
            clock,
            self.agenda,
            pace=pace,
            start_seconds=start_seconds,
            make_container=make_container,
            account=self.account,
            logs=self.logs,
            outage=self.outage,
            dice=dice,
        )
        self.pods = self.lives.pods
        self.pace = pace
        self.dice = dice
        self.keys: list[str] = []
        self.capacity = {name: list(kind.places) for name, kind in KINDS.items()}
        self.launch_by_hand: Callable[[object], str]

    # ── for the API ──────────────────────────────────────────────────────────────────────────────────────────────

    def word(self, count: int) -> str:
        """Make up an id."""
        return word(self.dice, count)

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
        return self.account.meter.report(self.clock.now(), {each.id: each.status for each in self.pods.values()})

    def state(self) -> dict[str, object]:
        """Tell what there is, without secrets."""
        now = self.clock.now()
        return {
            "now": iso(now),
            "rate": self.clock.rate,
            "instances": [plainly(each, now) for each in self.pods.values()],
            "balance": str(self.account.balance()),
            "violations": self.limits.violations,
            "troubles": self.lives.troubles,
        }

    def arm(self, hits: Iterable[Hit]) -> None:
        """Arm faults; those that name an instance strike it now."""
        now = self.clock.now()
        for pod, hit in strikes.arm(self.faults, hits, self.pods, _KIND, pace=self.pace):
            self.lives.strike(pod, hit, now)
        poorer = self.faults.take("balance")
        if poorer is not None:
            self.account.leave(Decimal(str(poorer.number("usd"))))
        volume = self.faults.take("volume_charged")
        if volume is not None:
            self.account.storage.append((now, Decimal(str(volume.number("usd")))))
        self.outage.at("now", now)
        self.agenda.moved()

    def set_price(self, name: str, price: Decimal) -> None:
        """Ask another price an hour from the next create on, in both clouds."""
        self._known_kind(name)
        self.account.prices[name] = price

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
        hosts = [each.host for each in strikes.named(self.pods, instance_id or "*", _KIND) if each.host is not None]
        return sum(host.link(what, roads.for_link(options, self.clock)) for host in hosts)

    def close(self) -> None:
        """End every container, and wait until it is done."""
        self.lives.close()

    def _go_broke(self) -> None:
        for pod in list(self.pods.values()):
            if pod.alive:  # none has a network volume, which alone would be stopped and kept
                self.lives.terminate(pod, "balance")
