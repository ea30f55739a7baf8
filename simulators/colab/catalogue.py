"""What Colab assigns: accelerators and their compute units an hour. Fixture data; Google publishes no table.

The rates are readings of `consumptionRateHourly` by others (2026); those of TPUs and of a T4 with more memory are made
up. `+highmem` is `shape=hm`; an A100 of that shape is the 80 GB one (release notes, 2025-10-14).
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

UNIT_USD = Decimal("0.0999")  # 100 units for 9.99 USD
FREE_GPUS = ("T4",)  # without a balance
FREE_TPUS = ("V5E1",)
GPUS = ("T4", "L4", "G4", "A100", "H100")
TPUS = ("V5E1", "V6E1")
VARIANTS = ("DEFAULT", "GPU", "TPU")  # in lists: their place here
_HIGH = "+highmem"


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of VM. `card` is what nvidia-smi says; none for CPUs and TPUs."""

    name: str
    variant: str
    accelerator: str
    units: Decimal  # an hour
    card: str = ""
    mib: int = 0

    @property
    def high(self) -> bool:
        """Whether it is the shape with more memory."""
        return self.name.endswith(_HIGH)

    @property
    def free(self) -> bool:
        """Whether an account without a balance may have it."""
        return not self.high and self.accelerator in {"NONE", *FREE_GPUS, *FREE_TPUS}

    @property
    def prefix(self) -> str:
        """How its endpoints begin."""
        return "m-s-" if self.variant == "DEFAULT" else f"{self.variant.lower()}-{self.accelerator.lower()}-s-kkb-"


def _gpu(name: str, units: str, card: str, mib: int) -> Kind:
    return Kind(name, "GPU", name.removesuffix(_HIGH), Decimal(units), card, mib)


_ROWS = (
    Kind("CPU", "DEFAULT", "NONE", Decimal("0.08")),
    Kind("CPU+highmem", "DEFAULT", "NONE", Decimal("0.16")),
    _gpu("T4", "1.07", "Tesla T4", 15360),
    _gpu("T4+highmem", "1.31", "Tesla T4", 15360),
    _gpu("L4", "1.71", "NVIDIA L4", 23034),
    _gpu("G4", "8.9", "NVIDIA RTX PRO 6000 Blackwell Server Edition", 97887),
    _gpu("A100", "5.4", "NVIDIA A100-SXM4-40GB", 40960),
    _gpu("A100+highmem", "7.52", "NVIDIA A100-SXM4-80GB", 81920),
    _gpu("H100", "14.43", "NVIDIA H100 80GB HBM3", 81559),
    Kind("V28", "TPU", "V28", Decimal("1.96")),
    Kind("V5E1", "TPU", "V5E1", Decimal("2.2")),
    Kind("V6E1", "TPU", "V6E1", Decimal("4.4")),
)
KINDS = {row.name: row for row in _ROWS}


def find(variant: str, accelerator: str, shape: str) -> Kind | None:
    """Find what is asked for; None = there is no such thing."""
    name = "CPU" if accelerator == "NONE" else accelerator
    kind = KINDS.get(name + (_HIGH if shape in {"hm", "1"} else ""))
    return kind if kind is not None and kind.variant == variant else None
