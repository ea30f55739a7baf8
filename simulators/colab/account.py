"""The compute units of the account: what was drawn, what is left, and what becomes of VMs when nothing is.

    0 ──────── paid for ────────> balance 0: premium VMs end ──── free quota ────> 0: the rest ends

Units are drawn by the second. Once the balance is gone an account is as if it had never paid (colabtools #4395).
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

from simulators.colab.catalogue import UNIT_USD
from simulators.meter import Entry, Meter

if TYPE_CHECKING:
    from collections.abc import Callable

    from simulators.clock import Agenda, Clock

_BALANCE = Decimal("87.4")
_FREE = Decimal("4.748")
_MICRO = Decimal("0.000001")


class Account:
    """One account. Its owner holds the world's lock. `broke` is called when the balance is gone, `spent` after all."""

    def __init__(self, clock: Clock, agenda: Agenda, broke: Callable[[], None], spent: Callable[[], None]) -> None:
        self._clock, self._agenda = clock, agenda
        self._broke, self._spent = broke, spent
        self.meter = Meter()  # in units
        self.rates: dict[str, Decimal] = {}  # other than the catalogue's
        self.paid = _BALANCE  # that were ever bought, less what was lost
        self.free = _FREE
        self.tier = 1  # 0 none, 1 Pro, 2 Pro+
        self._paid_of: dict[str, Decimal] = {}  # of a VM's units, those that were paid for, once the balance was gone
        self._told = -1  # how many ends were told: 1 = broke, 2 = spent

    @property
    def balance(self) -> Decimal:
        """Units that were paid for and are left."""
        return max(self.paid - self._drawn(), Decimal(0))

    @property
    def free_left(self) -> Decimal:
        """Units of the free quota that are left."""
        return max(self.free - max(self._drawn() - self.paid, Decimal(0)), Decimal(0))

    @property
    def is_free(self) -> bool:
        """Whether it is as if it had never paid."""
        return self.balance <= 0

    def _drawn(self) -> Decimal:
        return self.meter.usd(self._clock.now())

    def leave(self, units: Decimal, free: Decimal) -> None:
        """Let so much be left."""
        self.paid = self._drawn() + units
        self.free, self._told = free, -1
        self.watch()

    def never_paid(self, free: Decimal) -> None:
        """Be an account of the free tier."""
        self.tier = 0
        self.leave(Decimal(0), free)

    def watch(self) -> None:
        """Look again when something will be used up as things stand."""
        self._check()
        rate = self.meter.rate()
        left = self.free_left if self.is_free else self.balance
        if rate and left:
            self._agenda.at(self._clock.now() + float(left / rate) * 3600 + 1, lambda _moment: self.watch())

    def _check(self) -> None:
        ends = (2 if self.free_left <= 0 else 1) if self.is_free else 0
        if ends >= 1 and self._told < 1:
            self._told = 1
            for entry in self.meter.entries():
                self._paid_of.setdefault(entry.id, entry.usd(self._clock.now()) if self.paid else Decimal(0))
            self._broke()
        if ends == 2 and self._told < 2:
            self._told = 2
            self._spent()

    def report(self, statuses: dict[str, str]) -> dict[str, object]:
        """Tell the bill, in units and dollars; units of the free quota cost nothing."""
        now = self._clock.now()
        report = self.meter.report(now, statuses)
        rows = [self._row(row, entry, now) for row, entry in zip(_rows(report), self.meter.entries(), strict=True)]
        return {
            **report,
            "units": str(sum((Decimal(str(row["units"])) for row in rows), Decimal(0))),
            "usd": str(sum((Decimal(str(row["usd"])) for row in rows), Decimal(0))),
            "balance": str(self.balance.quantize(_MICRO)),
            "allocations": rows,
        }

    def _row(self, row: dict[str, object], entry: Entry, now: float) -> dict[str, object]:
        units = entry.usd(now)
        paid = self._paid_of.get(entry.id, Decimal(0) if self.is_free and not self.paid else units)
        return {
            **row,
            "price": str(entry.price * UNIT_USD),
            "units_per_hour": str(entry.price),
            "units": str(units.quantize(_MICRO)),
            "usd": str((paid * UNIT_USD).quantize(_MICRO)),
        }


def _rows(report: dict[str, object]) -> list[dict[str, object]]:
    rows = report["allocations"]
    return [dict(row) for row in rows] if isinstance(rows, list) else []
