"""What Colab costs: compute units an hour by GPU, from a table with dates until the live rate is known; then dollars.

Google publishes no table. rates.csv has what others read off `consumptionRateHourly`, when, and how far it is to be
believed; what this home itself read (marks.py keeps it) takes its place. Pure.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from functools import lru_cache
from importlib.resources import files

# 100 units for 9.99 USD, pay as you go and in Pro; Pro+ has 600 for 49.99 since 2025-05 (Colab's release notes).
UNIT_USD = Decimal("0.0999")
PRO_PLUS_UNIT_USD = Decimal("49.99") / 600
PRO_PLUS = 2  # `subTier`: 0 none, 1 Pro, 2 Pro+
TIERS = {0: "pay as you go", 1: "Pro", 2: "Pro+"}
# FAQ: "at most 12 hours"; Pro+ runs up to 24 in the background while units last. No figure for others was found.
FREE_HOURS, PAID_HOURS = 12.0, 24.0
FREE = "free"  # the cloud of offers on the free tier
_LEAST_USD = Decimal("0.0001")


@dataclass(frozen=True, slots=True)
class Rate:
    """One kind of VM."""

    offer: str
    accelerator: str  # as Colab spells it
    high_memory: bool  # shape=hm
    gpu: str
    vram_gib: float
    vcpus: int
    ram_gib: float
    units: Decimal  # an hour
    as_of: str  # "" = nobody dated it
    confidence: str


@lru_cache(maxsize=1)
def table() -> dict[str, Rate]:
    """Read the table, by offer."""
    text = files("providers.colab").joinpath("rates.csv").read_text(encoding="utf-8")
    return {row["offer"]: _row(row) for row in csv.DictReader(text.splitlines())}


def _row(row: dict[str, str]) -> Rate:
    return Rate(
        row["offer"],
        row["accelerator"],
        row["high_memory"] == "y",
        row["gpu"],
        round(int(row["vram_mib"]) / 1024, 1),
        int(row["vcpus"]),
        float(row["ram_gib"]),
        Decimal(row["units_per_hour"]),
        row["as_of"],
        row["confidence"],
    )


def unit_usd(tier: int | None) -> Decimal:
    """USD for a compute unit; a tier that is not known pays the dearest."""
    return PRO_PLUS_UNIT_USD if tier == PRO_PLUS else UNIT_USD


def dollars(units: Decimal, tier: int | None) -> Decimal:
    """USD for so many units, or USD an hour for so many an hour; never less than it is."""
    return (units * unit_usd(tier)).quantize(_LEAST_USD, ROUND_CEILING)


def of_name(name: str) -> tuple[Rate | None, bool]:
    """Read an offer's name back: which kind, and whether on the free tier. None = it is none of Colab's."""
    bare, _, cloud = name.partition("@")
    return (table().get(bare) if cloud in {"", FREE} else None), cloud == FREE
