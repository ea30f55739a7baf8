"""What can be rented, with prices: live where a key is at hand, else the bundled catalogue with its dates.

A live price wins; one that moved by more than five times against the catalogue is flagged: it may be a placeholder.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from orchestrator.estimate import catalogue
from orchestrator.home import write_json
from providers.errors import CredentialsError, GpurunError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import date

    from orchestrator.estimate.catalogue import Listed
    from orchestrator.home import Home
    from providers.base import Offer, Provider

FRESH_SECONDS = 900
SUSPICIOUS = 5  # times
_NAME = "offers.json"


@dataclass(frozen=True, slots=True)
class Market:
    """Offers, cheapest first, and what is to be told of them."""

    offers: tuple[Listed, ...]
    notes: tuple[str, ...]
    today: date


def market(home: Home, *, refresh: bool = False) -> Market:
    """Gather every offer: each vendor is asked where a key is at hand, once in a quarter of an hour."""
    from providers.table import looked_at, open_provider

    today = datetime.now(UTC).date()
    bundled = catalogue.listed()
    offers, notes = list(bundled), []
    for name in looked_at(home.root):
        if name == "local":
            continue
        try:
            provider = open_provider(name, home.root)
        except CredentialsError:
            continue  # no key: the bundled prices stand, with their dates
        try:
            step, asked = provider.traits.billing_step_seconds, _asked(home, name, provider, refresh=refresh)
            live = [catalogue.of_offer(offer, today, step) for offer in asked]
        except GpurunError as error:
            notes.append(f"{name} could not be asked ({error}): its prices are the bundled ones")
            continue
        known = [one for one in live if one is not None]
        notes += [
            f"{name}: {count} offers of cards that are not in the table" for count in [len(live) - len(known)] if count
        ]
        offers = [one for one in offers if one.provider != name] + known
        notes += _flagged(known, bundled)
    return Market(tuple(sorted(offers, key=lambda one: (one.price, one.provider, one.name))), tuple(notes), today)


def _asked(home: Home, name: str, provider: Provider, *, refresh: bool) -> Sequence[Offer]:
    from providers.base import Offer

    kept = {} if refresh else _kept(home)
    if name in kept and time.time() - kept[name]["at"] < FRESH_SECONDS:
        return [Offer(**{**one, "price": Decimal(one["price"])}) for one in kept[name]["offers"]]
    found = [one for one in provider.offers() if one.gpu_count]
    keys = (
        "provider",
        "name",
        "gpu",
        "gpu_count",
        "vram_gib",
        "vcpus",
        "memory_gib",
        "disk_gib",
        "region",
        "available",
        "cloud",
    )
    plain = [{key: getattr(one, key) for key in keys} | {"price": str(one.price)} for one in found]
    write_json(home.ensure().root / _NAME, {**kept, name: {"at": time.time(), "offers": plain}})
    return found


def _kept(home: Home) -> dict[str, Any]:
    try:
        found = json.loads((home.root / _NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}  # asked anew
    return found if isinstance(found, dict) else {}


def _flagged(live: Sequence[Listed], bundled: Sequence[Listed]) -> list[str]:
    """Tell of prices that cannot be believed without a second look."""
    known = {one.kind: one.price for one in bundled}
    notes = []
    for one in live:
        before = known.get(one.kind)
        if before and one.price and not Decimal(1) / SUSPICIOUS <= one.price / before <= SUSPICIOUS:
            notes.append(
                f"{one.provider} {one.name}: ${one.price}/h, but ${before} in the catalogue: look before you trust it"
            )
    return notes


def of_provider(found: Market, provider: str) -> Market:
    """Keep one provider's offers."""
    return replace(found, offers=tuple(one for one in found.offers if one.provider == provider))
