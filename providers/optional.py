"""What some vendors can do beside the contract of base.py: asked for by `isinstance`. Raises `ProviderError`.

Adopts: gives a mark to what somebody else started. Bills: tells what was charged. Funded: tells what is left.
Remarks: has more to say about a plan.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime, timedelta
    from decimal import Decimal

    from providers.base import Mark, Offer


@runtime_checkable
class Adopts(Protocol):
    """A vendor on which an allocation that somebody else started can be given a mark."""

    def adopt(self, allocation_id: str, mark: Mark) -> None:
        """Put the mark on it: from here on it is ours to end."""


@dataclass(frozen=True, slots=True)
class Bill:
    """One line of a vendor's own record of what it charged. Times in UTC, money in USD."""

    since: datetime
    until: datetime | None  # None = it goes on
    usd: Decimal
    allocation_id: str = ""  # "" = the vendor does not say for what


@runtime_checkable
class Bills(Protocol):
    """A vendor that tells what it charged: the ledger is held against it."""

    @property
    def billed_late(self) -> timedelta:
        """How long a charge may be missing from its record: what is younger and lacks there is no difference."""

    def billed(self, since: datetime) -> Sequence[Bill]:
        """Every charge from `since` on, every page of it; none = the vendor's own word that it charged nothing."""


@dataclass(frozen=True, slots=True)
class Funds:
    """What an account has and may spend, as the vendor tells. USD; None = it does not say."""

    balance: Decimal | None = None
    spend_per_hour: Decimal | None = None  # of all that runs on the account now
    limit_per_hour: Decimal | None = None  # that all of it together may cost
    words: str = ""  # the balance in the vendor's own coin: "87.40 compute units"
    page: str = ""  # where it is topped up; "" = the console


@runtime_checkable
class Funded(Protocol):
    """A vendor with prepaid credit or a spend limit, which tells of them before a launch."""

    def funds(self) -> Funds | None:
        """Tell what is left; None = the vendor does not tell any more, which is no obstacle."""


@runtime_checkable
class Remarks(Protocol):
    """A vendor that chooses something for a job which its owner should know of before it is rented."""

    def remarks(self, command: Sequence[str], offer: Offer) -> Sequence[tuple[str, str]]:
        """Give lines of the plan: a name, and what is to be known. No I/O."""
