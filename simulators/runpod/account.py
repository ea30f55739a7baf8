"""The money of the account: prices, the balance, what was billed when, and what becomes of pods when it is used up."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

from simulators.meter import Meter
from simulators.runpod.catalogue import KINDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from simulators.clock import Agenda, Clock

_BALANCE = Decimal(100)
SPEND_LIMIT = Decimal(80)  # USD an hour: the default of a new account (docs, 2026)


class Account:
    """One account. Its owner holds the world's lock. `broke` is called when nothing is left."""

    def __init__(self, clock: Clock, agenda: Agenda, broke: Callable[[], None]) -> None:
        self._clock, self._agenda = clock, agenda
        self.broke = broke
        self.meter = Meter()
        self.prices: dict[str, Decimal] = {}  # other than the catalogue's; of both clouds
        self.disk_shares: dict[str, Decimal] = {}  # of a pod's price
        self.lost_usd = Decimal(0)  # of the balance, by the fault of that name
        self.storage: list[tuple[float, Decimal]] = []  # charged for volumes: when, and USD

    def price(self, kind_id: str, cloud: str) -> Decimal:
        """USD an hour for one GPU."""
        return self.prices.get(kind_id) or KINDS[kind_id].price(cloud) or Decimal(0)

    def balance(self) -> Decimal:
        """USD that the account has left."""
        return _BALANCE - self.lost_usd - self.meter.usd(self._clock.now())

    def bills(self, begin: float, end: float, span: float, now: float) -> Iterator[tuple[str, float, dict[str, float]]]:
        """Give (pod, bucket, amounts) of all that was billed between two moments, and by `now`."""
        for entry in self.meter.entries():
            since = max(begin, entry.launched // span * span)
            while since < min(end, now):
                usd = entry.usd(min(since + span, now)) - entry.usd(since)
                if usd:
                    disk = usd * self.disk_shares[entry.id]
                    amounts = {"totalAmount": usd, "gpuAmount": usd - disk, "diskAmount": disk}
                    yield entry.id, since, {**{name: float(each) for name, each in amounts.items()}, "cpuAmount": 0.0}
                since += span

    def watch(self) -> None:
        """Look again when the balance will be gone as things stand."""
        rate = self.meter.rate()
        if rate:
            hours = max(self.balance() / rate, Decimal(0))
            self._agenda.at(self._clock.now() + float(hours) * 3600 + 1, lambda _moment: self._check())

    def _check(self) -> None:
        if self.balance() > 0:  # something was ended meanwhile
            self.watch()
        else:
            self.broke()

    def leave(self, usd: Decimal) -> None:
        """Let so much be left of the balance."""
        self.lost_usd += self.balance() - usd
        self.watch()
