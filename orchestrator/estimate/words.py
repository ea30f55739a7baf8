"""A quote in words, the same in `estimate`, `compare` and the plan of a launch. Plain numbers in, text out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.render import duration

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

VERDICTS = {
    "fits": "fits",
    "tight": "tight: it may run out of memory",
    "no": "does not fit",
}


def memory(fits: str, process: Sequence[float], card_gib: float, gpus: int = 1) -> str:
    """Say the verdict: `fits: 17.8 (16.9-19.2) GiB of 22.5 on the card`."""
    each = " a GPU" if gpus > 1 else ""
    return f"{VERDICTS[fits]}: {span(process, 1)} GiB{each} of {card_gib:.1f} on the card"


def span(values: Sequence[float], digits: int) -> str:
    """Say `likely (low-high)`."""
    low, likely, high = (f"{one:.{digits}f}" for one in values)
    return f"{likely} ({low}-{high})"


def speed(values: Sequence[float]) -> str:
    """Say tokens a second, in three digits that count: more would be pretence."""
    low, likely, high = (f"{float(f'{one:.3g}'):,.0f}" for one in values)
    return f"{likely} tokens/s ({low}-{high})"


def time(seconds: Sequence[float], steps: int, stages: Mapping[str, Sequence[float]]) -> str:
    """Say how long it takes in all, and by stage."""
    low, likely, high = map(duration, seconds)
    counted = f", {steps} steps" if steps else ""
    parts = ", ".join(f"{name} {duration(each[1])}" for name, each in stages.items() if each[1] >= 1)
    return f"{likely} ({low} to {high}){counted}" + (f": {parts}" if parts else "")
