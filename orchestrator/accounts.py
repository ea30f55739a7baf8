"""What the vendors themselves say: what bills now on each account whose key is at hand, and what they charged so far.

A vendor that can't be asked is said to be so: it is never shown as nothing. Not here: what the ledger knows (costs.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from orchestrator.cost import NOTHING, Interval
from orchestrator.costs import paid_until
from orchestrator.render import clean, rfc3339
from providers.base import utc
from providers.errors import CredentialsError, GpurunError
from providers.optional import Bills

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence
    from pathlib import Path

    from orchestrator.records import RunRow
    from providers.base import Allocation, Provider

_CENT = Decimal("0.01")  # to which vendors round what they charge


class Whose(StrEnum):
    """By whose mark something bills."""

    OURS = "this home"
    OTHERS = "another home"  # of gpurun's
    FOREIGN = "not gpurun's"


class Answer(StrEnum):
    """What became of asking a vendor."""

    ANSWERED = "answered"
    NO_KEY = "no key"
    FAILED = "failed"


class Verdict(StrEnum):
    """What a vendor's record says to the ledger."""

    AGREES = "agrees"
    LATE = "not all there yet"  # less than the ledger's, and no less than can be in it already
    DIFFERS = "differs"


@dataclass(frozen=True, slots=True)
class Charged:
    """A vendor's own record held against the ledger. USD."""

    since: float
    usd: Decimal  # for what the ledger knows
    others: Decimal  # for all else on the account
    paid: Interval  # by the ledger
    settled: Decimal  # of that, what is old enough to be in the vendor's record for sure

    @property
    def verdict(self) -> Verdict:
        """Whether the record lies within what the ledger says, to the cent."""
        if not self.settled - _CENT <= self.usd <= self.paid.high + _CENT:
            return Verdict.DIFFERS
        return Verdict.AGREES if self.paid.low - _CENT <= self.usd else Verdict.LATE


@dataclass(frozen=True, slots=True)
class Account:
    """One vendor, asked just now."""

    provider: str
    answer: Answer
    why: str = ""  # where it did not answer
    billing: tuple[tuple[Allocation, Whose], ...] = ()
    tells_bills: bool = False
    charged: Charged | None = None
    no_bill: str = ""  # why the vendor's record can't be told, where it keeps one
    console_url: str = ""

    @property
    def price(self) -> Decimal:
        """USD an hour of all that bills now and whose price is told."""
        return sum((one.price for one, _ in self.billing if one.price is not None), Decimal(0))

    @property
    def unpriced(self) -> int:
        """How many bill at a price that the vendor does not tell."""
        return sum(one.price is None for one, _ in self.billing)

    def as_json(self) -> dict[str, Any]:
        """Give it for programs; what is not known is null."""
        answered, charged = self.answer is Answer.ANSWERED, self.charged
        return {
            "provider": self.provider,
            "answer": self.answer,
            "why": self.why,
            "usd_per_hour": self.price if answered and not self.unpriced else None,
            "allocations": [_allocation_json(one, whose) for one, whose in self.billing] if answered else None,
            "tells_bills": self.tells_bills,
            "why_no_bill": self.no_bill,
            "charged": None
            if charged is None
            else {
                "since": rfc3339(charged.since),
                "usd": charged.usd,
                "others_usd": charged.others,
                "paid_low_usd": charged.paid.low,
                "paid_usd": charged.paid.high,
                "agrees": charged.verdict is not Verdict.DIFFERS,
                "verdict": charged.verdict,
            },
            "console_url": self.console_url,
        }


def _allocation_json(one: Allocation, whose: Whose) -> dict[str, Any]:
    return {
        "id": one.id,
        "name": one.name,
        "whose": whose,
        "run_id": one.mark.run_id if one.mark else None,
        "usd_per_hour": one.price,
        "since": one.since,
        "console_url": one.console_url,
    }


def ask_all(
    home: Path,
    home_id: str,
    rows: Sequence[RunRow],
    ids: Collection[str],
    now: float,
    opening: Callable[[str, Path], Provider] | None = None,
) -> Iterator[Account]:
    """Ask every vendor there is; `ids` are the allocations that the ledger knows, `home` is GPURUN_HOME."""
    from providers import table

    for name in table.looked_at(home):
        try:
            provider = (opening or table.open_provider)(name, home)
        except CredentialsError as error:
            yield Account(name, Answer.NO_KEY, clean(str(error)))
        except GpurunError as error:
            yield Account(name, Answer.FAILED, clean(str(error)))
        else:
            yield ask(provider, home_id, [row for row in rows if row.provider == name], ids, now)


def ask(provider: Provider, home_id: str, rows: Sequence[RunRow], ids: Collection[str], now: float) -> Account:
    """Ask one vendor what bills, and what it charged where it tells."""
    console, tells = provider.traits.console_url, isinstance(provider, Bills)
    try:
        found = [one for one in provider.allocations() if one.billing]
    except GpurunError as error:
        why = clean(str(error))
        return Account(provider.name, Answer.FAILED, why, tells_bills=tells, no_bill=why if tells else "")
    billing = tuple((one, _whose(one, home_id)) for one in found)
    charged, no_bill = None, ""
    if isinstance(provider, Bills):
        try:
            charged = _charged(provider, rows, ids, now)
        except GpurunError as error:
            no_bill = clean(str(error))
    return Account(provider.name, Answer.ANSWERED, "", billing, tells, charged, no_bill, console)


def _whose(one: Allocation, home_id: str) -> Whose:
    if one.mark is None:
        return Whose.FOREIGN
    return Whose.OURS if one.mark.home == home_id else Whose.OTHERS


def _charged(provider: Bills, rows: Sequence[RunRow], ids: Collection[str], now: float) -> Charged:
    since = min((row.created for row in rows), default=now)
    bills = provider.billed(utc(since))
    ours = sum((one.usd for one in bills if one.allocation_id in ids), Decimal(0))
    whole = sum((one.usd for one in bills), Decimal(0))
    paid = sum((row.accrued(now) for row in rows), NOTHING)
    settled = paid_until(rows, now - provider.billed_late.total_seconds())
    return Charged(since, ours, whole - ours, paid, settled)
