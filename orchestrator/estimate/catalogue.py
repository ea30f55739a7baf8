"""The bundled offers: what could be rented at what price when somebody last looked. A live price always wins.

Each row of data/offers.csv has its source and the date on which the price was seen; shown with its age.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from functools import lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING

from orchestrator.estimate import gpus
from orchestrator.estimate.learnt import bare
from orchestrator.estimate.quote import Rental

if TYPE_CHECKING:
    from orchestrator.estimate.gpus import Card
    from providers.base import Offer

_SAME_GIB = 4  # by which a vendor's word of a card's memory and the table's may differ
COMPILED = date(2026, 11, 22)  # when the table was put together: the age of what nobody dated is not less
OURS = {"hf-jobs": "hf"}
# Colab draws units without a stop; HF bills by the minute, Lambda by the minute begun, RunPod by the second
# (their pages, 2026-08 to 2026-11).
STEP_SECONDS = {"second": 1, "minute": 60, "compute-unit": 1}
# RunPod, https://docs.runpod.io/pods/pricing (2026-08): container disk 0.10 USD a GB and month while it runs.
RUNPOD_DISK_USD_GB_HOUR = Decimal("0.10") / 730


COMMUNITY = "community"  # a cloud of strangers' machines


@dataclass(frozen=True, slots=True)
class Listed:
    """One row of the catalogue. `price` is USD an hour for all GPUs; 0 sizes = unknown."""

    provider: str
    name: str
    card: Card
    count: int
    price: Decimal
    vcpus: int
    host_gib: float
    disk_gib: float
    step_seconds: int
    cloud: str
    as_of: date | None
    confidence: str
    units_hour: Decimal | None  # Colab's compute units
    source: str
    note: str
    available: bool | None = None  # None = nobody asked

    @property
    def kind(self) -> tuple[str, str]:
        """Provider and name, without the region."""
        return self.provider, bare(self.name)

    def rental(self, disk_gib: float = 0.0) -> Rental:
        """Give what it costs with so much disk."""
        beside = self.provider == "runpod" and self.confidence != "live"  # a live price is what the meter shows
        disk = RUNPOD_DISK_USD_GB_HOUR * Decimal(round(disk_gib)) if beside else Decimal(0)
        return Rental(self.provider, self.price, self.step_seconds, self.step_seconds, disk)

    def age_days(self, today: date) -> int:
        """Days since the price was seen."""
        return (today - (self.as_of or COMPILED)).days


@lru_cache(maxsize=1)
def listed() -> tuple[Listed, ...]:
    """Read the bundled offers, cheapest first."""
    text = files("orchestrator.estimate").joinpath("data/offers.csv").read_text(encoding="utf-8")
    found = [_row(row) for row in csv.DictReader(text.splitlines())]
    return tuple(sorted(found, key=lambda one: (one.price, one.provider, one.name)))


def _row(row: dict[str, str]) -> Listed:
    units = row["compute_units_per_hour"]
    return Listed(
        provider=OURS.get(row["provider"], row["provider"]),
        name=row["offer_name"],
        card=gpus.table()[row["gpu"]],
        count=int(row["gpu_count"]),
        price=Decimal(row["usd_per_hour"]),
        vcpus=int(float(row["vcpus"] or 0)),
        host_gib=float(row["ram_gb"] or 0),
        disk_gib=float(row["disk_gb"] or 0),
        step_seconds=STEP_SECONDS[row["billing_unit"]],
        cloud=row["cloud"],
        as_of=date.fromisoformat(row["as_of"]) if row["as_of"] else None,
        confidence=row["confidence"],
        units_hour=Decimal(units) if units else None,
        source=row["source"],
        note=row["note"],
    )


def card_of(offer: Offer) -> Card | None:
    """Give the card that a vendor's offer stands for; None = it has none, or one that is not in the table."""
    if not offer.gpu:
        return None
    family = gpus.family(offer.gpu)
    card = gpus.spelt(offer.provider, offer.gpu) or next(iter(family), None)
    if card is None or not offer.vram_gib:
        return card
    # What the vendor says of this very machine.
    near = [one for one in family if abs(one.memory_gib - offer.vram_gib) < _SAME_GIB]
    return next((one for one in near if one.name == offer.gpu), next(iter(near), card))


@lru_cache(maxsize=1)
def _steps() -> dict[tuple[str, str], int]:
    return {one.kind: one.step_seconds for one in listed()}


def of_offer(offer: Offer, today: date, step_seconds: int | None = None) -> Listed | None:
    """Give a vendor's live offer as a row of the catalogue; None = its card is not in the table."""
    card = card_of(offer)
    if card is None:
        return None
    if step_seconds is None:
        step_seconds = _steps().get((offer.provider, bare(offer.name)), 1 if offer.provider == "runpod" else 60)
    return Listed(
        offer.provider, offer.name, card, offer.gpu_count, offer.price, offer.vcpus, offer.memory_gib, offer.disk_gib,
        step_seconds, offer.cloud, today, "live", None, "live", "", available=offer.available,
    )  # fmt: skip


def cheapest(card: Card, count: int, provider: str = "") -> Listed | None:
    """Give the cheapest offer of a card; RunPod rents any number of what it lists as one, strangers' only if asked."""
    own = [one for one in listed() if one.cloud != COMMUNITY]
    for one in own:
        if one.card == card and (not provider or one.provider == provider) and one.count == count:
            return one
    single = next((one for one in own if one.card == card and one.provider == "runpod" and one.count == 1), None)
    if single is None or count == 1 or provider not in {"", "runpod"}:
        return None
    from dataclasses import replace

    return replace(single, count=count, price=single.price * count)
