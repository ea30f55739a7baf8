"""The GPU table: what people type, the cards it means, and how each provider spells them.

A name is a family: `a100` is every A100, `a100-80gb` the PCIe and the SXM one, `h100` all three. Facts with their
sources lie in data/gpus.csv, a row a card.
"""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files

from providers.errors import UsageError

_OTHER_CHIPS = {"ti", "super", "ada"}  # what comes after a name and makes it another chip
_UNKNOWN_SHARE = 0.96  # of the marketed size, where nobody published what the card reports


@dataclass(frozen=True, slots=True)
class Card:
    """One GPU model. Sizes in GiB as the driver reports them, peaks dense, bandwidth in GB/s."""

    name: str
    vendor: str
    architecture: str
    capability: str
    memory_gib: float
    bf16_teraflops: float
    fp16_teraflops: float
    fp32_teraflops: float
    measured_teraflops: float  # best matrix product that was published; 0 = none
    bandwidth_gbps: float
    watts: float
    bf16: bool
    nvlink: bool
    spellings: tuple[tuple[str, str], ...]  # (provider, its word)
    names: tuple[str, ...]  # what people type for this very card
    source: str
    note: str
    unverified: tuple[str, ...]

    @property
    def family(self) -> str:
        """Architecture without its revision: what share of the peak is reached goes by it."""
        return self.architecture.partition("-")[0]

    def teraflops(self, short: str) -> float:
        """Dense peak for a type; what has no bfloat16 computes in float16."""
        if short == "float32":
            return self.fp32_teraflops or self.fp16_teraflops / 8
        return self.bf16_teraflops if short == "bfloat16" and self.bf16_teraflops else self.fp16_teraflops


def _card(row: dict[str, str]) -> Card:
    def number(name: str) -> float:
        return float(row[name] or 0)

    aliases = [alias for alias in row["aliases"].split(";") if alias]
    spelt = tuple((who, word) for who, _, word in (alias.partition(":") for alias in aliases) if word)
    unverified = tuple(filter(None, row["unverified"].split(";")))
    size = number("usable_vram_mib") / 1024 or number("vram_gb") * _UNKNOWN_SHARE
    return Card(
        name=row["name"],
        vendor=row["vendor"],
        architecture=row["architecture"],
        capability=row["compute_capability"],
        memory_gib=size,
        bf16_teraflops=number("dense_bf16_tflops"),
        fp16_teraflops=number("dense_fp16_tflops"),
        fp32_teraflops=number("fp32_tflops"),
        measured_teraflops=number("mamf_tflops"),
        bandwidth_gbps=number("memory_bandwidth_gbps"),
        watts=number("tdp_w"),
        bf16=row["supports_bf16"] == "y",
        nvlink=row["nvlink"] == "y",
        spellings=spelt,
        names=tuple(alias for alias in aliases if ":" not in alias),
        source=row["source"],
        note=row["note"],
        unverified=unverified,
    )


@lru_cache(maxsize=1)
def table() -> dict[str, Card]:
    """Read the bundled cards, by name."""
    text = files("orchestrator.estimate").joinpath("data/gpus.csv").read_text(encoding="utf-8")
    return {row["name"]: _card(row) for row in csv.DictReader(text.splitlines())}


_NOISE = re.compile(r"\b(nvidia|geforce|tesla|amd|instinct|generation|edition|blackwell)\b")


def plainly(name: str) -> str:
    """Write a name as the table does: lower case, hyphens, without the makers' words."""
    text = _NOISE.sub(" ", name.lower().replace("_", " ").replace("-", " "))
    text = re.sub(r"(\d+)\s*g(i?b)\b", r"\1gb", text)
    text = re.sub(r"\b(rtx|gtx)(?=[a-z]?\d)", r"\1 ", text)
    return "-".join(text.split())


@lru_cache(maxsize=1024)
def family(name: str) -> tuple[Card, ...]:
    """Give every card that a name means, smallest memory first; none = unknown.

    A name is a prefix at a hyphen, with or without `rtx-`: memory and form may differ, not the chip (`3090` is no Ti).
    """
    wanted = plainly(name)
    found = [card for card in table().values() if _is_of(card, wanted)]
    return tuple(sorted(found, key=lambda card: (card.memory_gib, card.name)))


def _is_of(card: Card, wanted: str) -> bool:
    own = {card.name, card.name.removeprefix("rtx-"), card.name.removeprefix("quadro-")}
    ends = [one.removeprefix(wanted) for one in own if one.startswith(wanted)]
    prefixed = any(not end or (end[0] == "-" and end.split("-")[1] not in _OTHER_CHIPS) for end in ends)
    swapped = {"-".join(reversed(one.split("-", 1))) for one in own if one.count("-") == 1}
    return (
        prefixed or wanted in swapped or wanted in {plainly(alias) for alias in card.names} or _by_parts(card, wanted)
    )


def _by_parts(card: Card, wanted: str) -> bool:
    """`a100-sxm` and `a100-sxm4-80gb` are the card `a100-80gb-sxm`."""
    parts, own = {re.sub(r"^(sxm)\d$", r"\1", part) for part in wanted.split("-")}, set(card.name.split("-"))
    return len(parts) > 1 and parts <= own


def card(name: str) -> Card:
    """Give the card that a name means, the smallest of a family.

    Raises:
        UsageError: no GPU is called that.
    """
    found = family(name)
    if found:
        return found[0]
    from difflib import get_close_matches

    known = [*table(), *(one.removeprefix("rtx-") for one in table()), *(one.partition("-")[0] for one in table())]
    close = get_close_matches(plainly(name), dict.fromkeys(known), n=3)
    raise UsageError(f"no GPU is called {name}", hint=f"perhaps {' or '.join(close)}" if close else "gpurun offers")


@lru_cache(maxsize=4096)
def spelt(provider: str, word: str) -> Card | None:
    """Give the card behind a provider's own word; None = unknown."""
    for one in table().values():
        if (provider, word) in one.spellings:
            return one
    found = family(word)
    return found[0] if len(found) == 1 else None
