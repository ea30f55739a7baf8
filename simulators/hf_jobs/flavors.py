"""What Hugging Face rents for jobs: flavors, cards and prices a minute. Fixture data; the live prices move.

Source: huggingface/hub-docs, jobs-pricing.md of 2026-08-21; the names are those of huggingface_hub 2.4.0 (2026-10).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Flavor:
    """One kind of hardware. `vram` is what the vendor says: GB of all cards together."""

    name: str
    micro: int  # USD · 10^-6 a minute
    cpus: int
    ram: int  # GB
    disk: int  # GB
    model: str = ""
    count: int = 0
    vram: int = 0
    card: str = ""  # as nvidia-smi says
    card_mib: int = 0

    def spell(self, micro: int) -> dict[str, object]:
        """Give the row of `GET /api/jobs/hardware`."""
        accelerator = {
            "type": "gpu",
            "model": self.model,
            "quantity": str(self.count),
            "vram": f"{self.vram} GB",
            "manufacturer": "Nvidia",
        }
        return {
            "name": self.name,
            "prettyName": f"Nvidia {self.model} - {self.name}" if self.count else self.name.replace("-", " ").upper(),
            "cpu": f"{self.cpus} vCPU",
            "ram": f"{self.ram} GB",
            "ephemeralStorage": f"{self.disk} GB",
            "accelerator": accelerator if self.count else None,
            "unitCostMicroUSD": micro,
            "unitCostUSD": micro / 1e6,
            "unitLabel": "minute",
        }


def _gpu(name: str, hour: float, size: tuple[int, int, int], model: str, count: int) -> Flavor:
    card, mib, gb = _CARDS[model]
    return Flavor(name, round(hour * 1e6 / 60), *size, model, count, gb * count, card, mib)


_CARDS = {
    "T4": ("Tesla T4", 15360, 16),
    "L4": ("NVIDIA L4", 23034, 24),
    "A10G": ("NVIDIA A10G", 23028, 24),
    "L40S": ("NVIDIA L40S", 46068, 48),
    "A100": ("NVIDIA A100-SXM4-80GB", 81920, 80),
    "RTX PRO 6000": ("NVIDIA RTX PRO 6000 Blackwell Server Edition", 97887, 96),
    "H200": ("NVIDIA H200", 143771, 141),
}
_ROWS = (
    Flavor("cpu-basic", 167, 2, 16, 50),
    Flavor("cpu-upgrade", 500, 8, 32, 50),
    Flavor("cpu-xl", 16667, 16, 124, 1000),
    Flavor("cpu-performance", 31667, 32, 256, 1024),
    _gpu("t4-small", 0.40, (4, 15, 50), "T4", 1),
    _gpu("t4-medium", 0.60, (8, 30, 100), "T4", 1),
    _gpu("l4x1", 0.80, (8, 30, 400), "L4", 1),
    _gpu("l4x4", 3.80, (48, 186, 3200), "L4", 4),
    _gpu("a10g-small", 1.00, (4, 15, 110), "A10G", 1),
    _gpu("a10g-large", 1.50, (12, 46, 200), "A10G", 1),
    _gpu("a10g-largex2", 3.00, (24, 92, 1000), "A10G", 2),
    _gpu("a10g-largex4", 5.00, (48, 184, 2000), "A10G", 4),
    _gpu("l40sx1", 1.80, (8, 62, 380), "L40S", 1),
    _gpu("l40sx4", 8.30, (48, 382, 3200), "L40S", 4),
    _gpu("l40sx8", 23.50, (192, 1534, 6500), "L40S", 8),
    _gpu("a100-large", 2.50, (12, 142, 1000), "A100", 1),
    _gpu("a100x4", 10.0, (48, 568, 4000), "A100", 4),
    _gpu("a100x8", 20.0, (96, 1136, 8000), "A100", 8),
    _gpu("rtx-pro-6000", 2.75, (23, 256, 475), "RTX PRO 6000", 1),
    _gpu("rtx-pro-6000x2", 5.50, (46, 512, 950), "RTX PRO 6000", 2),
    _gpu("rtx-pro-6000x4", 11.0, (92, 1024, 1900), "RTX PRO 6000", 4),
    _gpu("rtx-pro-6000x8", 22.0, (184, 2048, 3800), "RTX PRO 6000", 8),
    _gpu("h200", 5.0, (23, 256, 3000), "H200", 1),
    _gpu("h200x2", 10.0, (46, 512, 6000), "H200", 2),
    _gpu("h200x4", 20.0, (92, 1024, 12000), "H200", 4),
    _gpu("h200x8", 40.0, (184, 2048, 24000), "H200", 8),
)
FLAVORS = {row.name: row for row in _ROWS}
