"""What Colab tells, as plain facts: assignments, the balance, offers. Unknown keys and words are tolerated.

`variant` is a word on one road and a number on another, whole numbers come as text; a row without a usable endpoint is
an error, since something that may bill can't be passed over in silence.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

from providers.base import Mark, Offer, Secret
from providers.colab import rates
from providers.colab.door import Proxy
from providers.errors import ProviderError, UsageError
from providers.http import base_url

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

CONSOLE = "https://colab.research.google.com/"
SIGN_UP = "https://colab.research.google.com/signup"
_ENDPOINT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
_HOUR_TOKEN = 3600.0


@dataclass(frozen=True, slots=True)
class Assignment:
    """One VM as Colab lists it."""

    endpoint: str
    accelerator: str  # what was really given
    high_memory: bool
    proxy: Proxy | None  # None = no way in is told
    proxy_seconds: float  # that its token lasts, from the answer on
    tier: int | None = None  # `subTier`, where it is told

    def is_what(self, accelerator: str, *, high_memory: bool) -> bool:
        """Whether it is what was asked for: Colab gives another card where it has none of those."""
        return self.accelerator.upper() == accelerator.upper() and self.high_memory >= high_memory


@dataclass(frozen=True, slots=True)
class Account:
    """What an account has, and what all that runs on it draws."""

    balance: Decimal  # compute units
    rate: Decimal  # units an hour, of all its VMs together
    count: int
    eligible: frozenset[str] = frozenset()
    ineligible: frozenset[str] = frozenset()
    free_units: Decimal | None = None  # of the free tier; None = not told, as where units were paid for

    @property
    def is_free(self) -> bool:
        """Whether nothing is paid for."""
        return self.balance <= 0


def is_endpoint(text: str) -> bool:
    """Whether Colab can have given such a name, and a URL can carry it."""
    return _ENDPOINT.fullmatch(text) is not None and ".." not in text


def same_attempt(one: Mark | None, other: Mark) -> bool:
    """Whether two marks are of one attempt."""
    if one is None:
        return False
    return (one.home, one.run_id, one.attempt, one.node) == (other.home, other.run_id, other.attempt, other.node)


def assignments(body: Mapping[str, Any], what: str) -> list[Assignment]:
    """Read the list.

    Raises:
        ProviderError: it is none, or one of its rows can't be named.
    """
    rows = body.get("assignments")
    if not isinstance(rows, list):
        raise ProviderError(f"{what} answered with something that is no list")
    return [assignment(row) for row in rows]


def assignment(row: Any) -> Assignment:
    """Read one.

    Raises:
        ProviderError: it has no usable endpoint.
    """
    fields = _mapping(row)
    endpoint = _text(fields, "endpoint")
    if not is_endpoint(endpoint):
        raise ProviderError("Colab lists a VM without a name that can be used", hint=f"look at {CONSOLE}")
    info = _mapping(fields.get("runtimeProxyInfo"))
    seconds = number(info.get("tokenExpiresInSeconds"))
    tier = number(fields.get("subTier"))
    return Assignment(
        endpoint,
        _text(fields, "accelerator"),
        high_memory=fields.get("machineShape") in {1, "1", "hm", "SHAPE_HIGHMEM", "HIGHMEM"},
        proxy=_proxy(info),
        proxy_seconds=float(seconds) if seconds else _HOUR_TOKEN,
        tier=None if tier is None else int(tier),
    )


def _proxy(info: Mapping[str, Any]) -> Proxy | None:
    """Read the way in; an address to which no token may be sent is none."""
    url, token = _text(info, "url"), _text(info, "token")
    try:
        return Proxy(base_url(url, "the VM's address"), Secret(token)) if url and token else None
    except UsageError:
        return None


def account(body: Mapping[str, Any], what: str) -> Account:
    """Read `ccu-info`.

    Raises:
        ProviderError: it names no balance.
    """
    balance, rate = number(body.get("currentBalance")), number(body.get("consumptionRateHourly"))
    if balance is None:
        raise ProviderError(f"{what} tells no balance")
    quota = _mapping(body.get("freeCcuQuotaInfo"))
    tokens = number(quota.get("remainingTokens"))  # thousandths of a unit, as text
    return Account(
        balance,
        rate or Decimal(0),
        int(number(body.get("assignmentsCount")) or 0),
        _names(body.get("eligibleGpus")),
        _names(body.get("ineligibleGpus")),
        None if tokens is None else tokens / 1000,
    )


def _names(value: Any) -> frozenset[str]:
    return frozenset(str(one).upper() for one in value) if isinstance(value, list) else frozenset()


def offers(told: Account, known: Mapping[str, Decimal], tier: int | None, seen_at: datetime) -> Iterator[Offer]:
    """Give what the account may have: for units, or on the free tier where it has none. `known` = live rates."""
    for rate in rates.table().values():
        units = known.get(rate.offer, rate.units)
        able = rate.accelerator in told.eligible or (not told.eligible and rate.accelerator not in told.ineligible)
        yield Offer(
            "colab",
            f"{rate.offer}@{rates.FREE}" if told.is_free else rate.offer,
            rate.gpu,
            1,
            Decimal(0) if told.is_free else rates.dollars(units, tier),
            vram_gib=rate.vram_gib,
            vcpus=rate.vcpus,
            memory_gib=rate.ram_gib,
            available=able,
            seen_at=seen_at,
            cloud=rates.FREE if told.is_free else "",
            most_hours=_free_hours(told, units) if told.is_free else rates.PAID_HOURS,
        )


def _free_hours(told: Account, units: Decimal) -> float:
    """How long the free tier's quota lasts; 12 hours at most."""
    if told.free_units is None:
        return rates.FREE_HOURS
    return round(min(rates.FREE_HOURS, float(told.free_units / units)), 2)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What an offer's name says."""

    offer: str
    accelerator: str
    high_memory: bool
    free: bool
    params: Mapping[str, str] = field(default_factory=dict)  # as `assign` takes it


def wanted(name: str) -> Wanted | None:
    """Read an offer's name back; None = it is none of ours."""
    rate, free = rates.of_name(name)
    if rate is None:
        return None
    params = {"variant": "GPU", "accelerator": rate.accelerator} | ({"shape": "hm"} if rate.high_memory else {})
    return Wanted(rate.offer, rate.accelerator, rate.high_memory, free, params)


def number(value: Any) -> Decimal | None:
    """Read a number, also one that comes as text; None = it is none, or no finite one."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        found = Decimal(str(value))
    except InvalidOperation:
        return None
    return found if found.is_finite() and abs(found) < 10**12 else None


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    return value if isinstance(value, str) else ""


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
