"""RunPod's shop window as of autumn 2026: GPU types, prices on both clouds, data centers. Fixture data; prices move.

Prices: the vendor's GraphQL `gpuTypes` as of 2026-09-29 to 2026-11-09, kept by public price feeds. Where there is stock
is made up, with some types sold out.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

# name, region, country; the S3 page of the docs lists them (2026-08).
DATA_CENTERS = {
    "EU-CZ-1": ("EU Czechia 1", "EUROPE", "CZ"),
    "EU-RO-1": ("EU Romania 1", "EUROPE", "RO"),
    "EUR-IS-1": ("Europe Iceland 1", "EUROPE", "IS"),
    "EUR-NO-1": ("Europe Norway 1", "EUROPE", "NO"),
    "US-CA-2": ("US California 2", "NORTH_AMERICA", "US"),
    "US-GA-2": ("US Georgia 2", "NORTH_AMERICA", "US"),
    "US-IL-1": ("US Illinois 1", "NORTH_AMERICA", "US"),
    "US-KS-2": ("US Kansas 2", "NORTH_AMERICA", "US"),
    "US-MD-1": ("US Maryland 1", "NORTH_AMERICA", "US"),
    "US-MO-1": ("US Missouri 1", "NORTH_AMERICA", "US"),
    "US-NC-1": ("US North Carolina 1", "NORTH_AMERICA", "US"),
    "US-WA-1": ("US Washington 1", "NORTH_AMERICA", "US"),
}
COMMUNITY = "COMMUNITY"  # stands where a data center would: hosts of strangers are in none
CUDA_VERSIONS = ("12.4", "12.6", "12.8")
DISK_USD_GB_MONTH = Decimal("0.10")  # container and volume disk while it runs; a stopped volume is twice that
HOURS_A_MONTH = 730


@dataclass(frozen=True, slots=True)
class Kind:
    """A GPU type. `gb` is its memory as sold, `mib` as nvidia-smi says; prices are USD an hour for one."""

    id: str
    name: str
    gb: int
    mib: int
    secure: str | None
    community: str | None
    places: tuple[str, ...] = ()  # where there is stock
    vcpus: int = 8  # of one GPU's share
    ram: int = 32  # GB
    most: tuple[int, int] = (8, 4)  # on one machine, secure and community
    pool: str | None = None
    manufacturer: str = "NVIDIA"

    def price(self, cloud: str) -> Decimal | None:
        """USD an hour for one, where this cloud has it."""
        price = self.secure if cloud == "SECURE" else self.community
        return None if price is None else Decimal(price)

    def most_of(self, cloud: str) -> int:
        """The largest machine of a cloud."""
        if self.price(cloud) is None:
            return 0
        return self.most[cloud == COMMUNITY]


_EUROPE, _US = ("EU-RO-1", "EU-CZ-1"), ("US-KS-2", "US-IL-1")
KINDS = {
    kind.id: kind
    for kind in (
        Kind("NVIDIA B200", "B200", 180, 183359, "7.99", "5.98", ("US-CA-2",), 28, 180, pool="BLACKWELL_180"),
        Kind(
            "NVIDIA H200", "H200 SXM", 141, 143771, "5.29", "3.59", ("US-CA-2", "US-GA-2"), 12, 188, pool="HOPPER_141"
        ),
        Kind("NVIDIA H100 80GB HBM3", "H100 SXM", 80, 81559, "3.99", "2.69", ("US-MO-1", COMMUNITY), 20, 125),
        Kind("NVIDIA H100 NVL", "H100 NVL", 94, 95830, "3.19", "2.59", (), 16, 94),
        Kind("NVIDIA H100 PCIe", "H100 PCIe", 80, 81559, "2.89", "1.99", (*_US, COMMUNITY), 16, 176),
        Kind("NVIDIA A100-SXM4-80GB", "A100 SXM", 80, 81920, "1.79", "1.39", ("US-MD-1", COMMUNITY), 16, 117),
        Kind("NVIDIA A100 80GB PCIe", "A100 PCIe", 80, 81920, "1.79", "1.19", (*_EUROPE, COMMUNITY), 8, 117),
        Kind("NVIDIA A100-SXM4-40GB", "A100 SXM 40GB", 40, 40960, None, "1.00", (COMMUNITY,), most=(0, 2)),
        Kind("NVIDIA L40S", "L40S", 48, 46068, "1.09", "0.79", ("EUR-NO-1", COMMUNITY), 12, 62, pool="ADA_48_PRO"),
        Kind("NVIDIA L40", "L40", 48, 46068, "0.82", "0.69", (), 9, 125),
        Kind("NVIDIA A40", "A40", 48, 46068, "0.49", None, ("EU-CZ-1",), 9, 48, (10, 0), "AMPERE_48"),
        Kind("NVIDIA RTX 6000 Ada Generation", "RTX 6000 Ada", 48, 49140, "0.84", "0.74", _EUROPE, 10, 62),
        Kind("NVIDIA RTX A6000", "RTX A6000", 48, 49140, "0.53", "0.33", (*_US, COMMUNITY), 8, 50, pool="AMPERE_48"),
        Kind("NVIDIA GeForce RTX 5090", "RTX 5090", 32, 32607, "0.99", "0.69", ("EU-RO-1", COMMUNITY), 6, 46),
        Kind(
            "NVIDIA GeForce RTX 4090",
            "RTX 4090",
            24,
            24564,
            "0.74",
            "0.34",
            (*_EUROPE, COMMUNITY),
            5,
            29,
            pool="ADA_24",
        ),
        Kind(
            "NVIDIA GeForce RTX 3090", "RTX 3090", 24, 24576, "0.50", "0.22", ("EU-CZ-1", "US-KS-2", COMMUNITY), 4, 25
        ),
        Kind("NVIDIA L4", "L4", 24, 23034, "0.49", None, ("EU-RO-1",), 8, 45, (8, 0), "AMPERE_24"),
        Kind(
            "NVIDIA RTX A5000", "RTX A5000", 24, 24564, "0.27", "0.16", ("EU-RO-1", COMMUNITY), 3, 25, pool="AMPERE_24"
        ),
        Kind(
            "NVIDIA RTX A4000", "RTX A4000", 16, 16376, "0.25", "0.17", ("EU-RO-1", COMMUNITY), 6, 35, pool="AMPERE_16"
        ),
        Kind("Tesla V100-SXM2-16GB", "V100 SXM2", 16, 16384, None, "0.23", (), most=(0, 8)),
        Kind("AMD Instinct MI300X OAM", "MI300X", 192, 196608, "2.39", None, (), 24, 283, (8, 0), None, "AMD"),
    )
}


def spell_data_center(name: str) -> dict[str, object]:
    """Spell a data center as the vendor does."""
    label, region, _ = DATA_CENTERS[name]
    return {
        "id": name,
        "name": label,
        "region": region,
        "globalNetwork": True,
        "networkVolumeTypes": ["STANDARD"],
        "compliance": ["SOC_2_TYPE_2"],
    }
