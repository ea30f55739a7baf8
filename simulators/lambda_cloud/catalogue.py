"""Lambda's shop window as of mid 2026: types, prices, regions, images. Fixture data; the live prices move.

Types and prices: lambda.ai/instances and the console, July to September 2026. Card names and memory: `nvidia-smi -q`
on such cards. Where there is capacity is made up, with some types sold out.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass

REGIONS = {
    "us-east-1": "Virginia, USA",
    "us-east-3": "Washington DC, USA",
    "us-midwest-1": "Illinois, USA",
    "us-south-1": "Texas, USA",
    "us-west-1": "California, USA",
    "us-west-2": "Arizona, USA",
    "us-west-3": "Utah, USA",
    "europe-central-1": "Germany",
    "asia-south-1": "India",
    "asia-northeast-1": "Osaka, Japan",
}


@dataclass(frozen=True, slots=True)
class Card:
    """A GPU as the vendor and as `nvidia-smi` call it; memory in MiB as reported."""

    description: str
    smi_name: str
    memory_mib: int
    architecture: str = "x86_64"


_A10 = Card("A10 (24 GB PCIe)", "NVIDIA A10", 23028)
_RTX6000 = Card("RTX 6000 (24 GB)", "Quadro RTX 6000", 24576)
_A6000 = Card("A6000 (48 GB)", "NVIDIA RTX A6000", 49140)
_A100_SXM = Card("A100 (40 GB SXM4)", "NVIDIA A100-SXM4-40GB", 40960)
_A100_PCIE = Card("A100 (40 GB PCIe)", "NVIDIA A100-PCIE-40GB", 40960)
_A100_80 = Card("A100 (80 GB SXM4)", "NVIDIA A100-SXM4-80GB", 81920)
_H100_PCIE = Card("H100 (80 GB PCIe)", "NVIDIA H100 PCIe", 81559)
_H100_SXM = Card("H100 (80 GB SXM5)", "NVIDIA H100 80GB HBM3", 81559)
_GH200 = Card("GH200 (96 GB)", "NVIDIA GH200 480GB", 97871, "arm64")
_B200 = Card("B200 (180 GB SXM6)", "NVIDIA B200", 183359)
_V100 = Card("Tesla V100 (16 GB)", "Tesla V100-SXM2-16GB", 16384)
_NONE = Card("N/A", "", 0)


@dataclass(frozen=True, slots=True)
class Kind:
    """An instance type. `cents` an hour for the whole instance; memory and storage in GiB."""

    name: str
    gpus: int
    card: Card
    vcpus: int
    memory: int
    storage: int
    cents: int
    regions: tuple[str, ...] = ()

    @property
    def description(self) -> str:
        """Spell it as the vendor does."""
        return f"{self.gpus}x {self.card.description}" if self.gpus else f"{self.vcpus}x CPU General"


KINDS = {
    kind.name: kind
    for kind in (
        Kind("gpu_1x_a10", 1, _A10, 30, 200, 1400, 129, ("us-west-1", "us-east-1")),
        Kind("gpu_1x_rtx6000", 1, _RTX6000, 14, 46, 512, 69),
        Kind("gpu_1x_a6000", 1, _A6000, 14, 100, 205, 109, ("us-south-1",)),
        Kind("gpu_2x_a6000", 2, _A6000, 28, 200, 1024, 218, ("us-south-1",)),
        Kind("gpu_4x_a6000", 4, _A6000, 56, 400, 1024, 436),
        Kind("gpu_1x_a100_sxm4", 1, _A100_SXM, 30, 200, 512, 199, ("us-east-1", "us-west-2", "asia-south-1")),
        Kind("gpu_1x_a100", 1, _A100_PCIE, 30, 200, 512, 199),
        Kind("gpu_2x_a100", 2, _A100_PCIE, 60, 400, 1024, 398, ("us-east-1",)),
        Kind("gpu_4x_a100", 4, _A100_PCIE, 120, 800, 1024, 796),
        Kind("gpu_8x_a100", 8, _A100_SXM, 124, 1800, 6144, 1592, ("us-west-1",)),
        Kind("gpu_8x_a100_80gb_sxm4", 8, _A100_80, 240, 1800, 20480, 2232, ("us-midwest-1",)),
        Kind("gpu_1x_h100_pcie", 1, _H100_PCIE, 26, 200, 1024, 329, ("us-west-3",)),
        Kind("gpu_1x_h100_sxm5", 1, _H100_SXM, 26, 225, 2867, 429, ("us-south-1", "us-east-3")),
        Kind("gpu_2x_h100_sxm5", 2, _H100_SXM, 52, 450, 5632, 838),
        Kind("gpu_4x_h100_sxm5", 4, _H100_SXM, 104, 900, 11264, 1636),
        Kind("gpu_8x_h100_sxm5", 8, _H100_SXM, 208, 1800, 22528, 3192, ("us-west-1", "europe-central-1")),
        Kind("gpu_1x_gh200", 1, _GH200, 64, 432, 4096, 229, ("us-east-3",)),
        Kind("gpu_1x_b200_sxm6", 1, _B200, 26, 360, 2867, 699),
        Kind("gpu_2x_b200_sxm6", 2, _B200, 52, 720, 5632, 1378),
        Kind("gpu_8x_b200_sxm6", 8, _B200, 208, 2900, 22528, 5352, ("us-south-1",)),
        Kind("gpu_8x_v100", 8, _V100, 92, 448, 6042, 632, ("us-east-3",)),
        Kind("cpu_4x_general", 0, _NONE, 4, 16, 102, 20, ("us-west-1",)),
    )
}

# family -> version; the default image was seen to differ by region (2026): whoever cares pins the family.
_FAMILIES = {"lambda-stack-22-04": "22.4.5", "lambda-stack-24-04": "24.4.2", "gpu-base-24-04": "24.4.1"}
_IMAGED = "2026-06-16T09:00:00.000Z"


def region(name: str) -> dict[str, str]:
    """Spell a region as the vendor does."""
    return {"name": name, "description": REGIONS[name]}


def images() -> list[dict[str, object]]:
    """List the images: one row for each region and architecture, with ids that stay the same."""
    return [
        {
            "id": str(uuid.uuid5(uuid.NAMESPACE_DNS, f"{family}.{architecture}.{where}")),
            "created_time": _IMAGED,
            "updated_time": _IMAGED,
            "name": f"{family}-{version}",
            "description": f"{family.replace('-', ' ')} ({architecture})",
            "family": family,
            "version": version,
            "architecture": architecture,
            "region": region(where),
        }
        for family, version in _FAMILIES.items()
        for where in REGIONS
        for architecture in ("x86_64", "arm64")
    ]
