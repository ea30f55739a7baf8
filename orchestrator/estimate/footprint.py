"""From bytes alive to what a card must hold: allocated, reserved by torch's allocator, and the whole process.

The allocator keeps what it once took. With one length for all batches freed blocks fit again and little is lost; when
lengths vary each longer batch needs new segments beside the old. When the card is full it gives the unused ones back,
so what is *needed* is nearer to the allocated than to the reserved figure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.estimate.memory import Peak, peak
from orchestrator.estimate.work import GIB

if TYPE_CHECKING:
    from orchestrator.estimate.work import Work


@dataclass(frozen=True, slots=True)
class Kept:
    """What the allocator keeps of what comes and goes, times what was alive."""

    same: float
    varying: float


# Reserved over allocated, of what comes and goes within a step. Same lengths: torch's allocator (best fit, 2 MiB and
# 20 MiB segments) replayed on a step of 7B models keeps 1.08 to 1.26 times what was alive (2026-11); published
# readings of whole processes (fitcheck, fms-acceleration, PyTorch 2.4 to 2.14) want a little more.
# Lengths vary: the replay gives 1.3 to 1.7; published runs on padded batches reserve 1.5 to 3 times (ms-swift
# 2024, Unsloth's notebooks 2024), more than the allocator alone explains.
KEPT = Kept(same=1.3, varying=2.4)
# Of that: all of it in full fine-tunes at one length, little where lengths vary (fms-acceleration, ms-swift).
APART = 0.8
CONTEXT_GIB = 0.5  # CUDA's own, since modules are loaded when first used (CUDA 11.7); 0.1 on a T4, 0.6 on an H100
# With several GPUs NCCL keeps send and receive buffers of about 10 MiB for each channel, 24 to 32 of them in rings and
# as many in trees, and FSDP's own streams keep what the others can't use (fms-acceleration, A100, 2 and 4: 1 to 2 GiB).
NCCL_GIB = 1.0
FULL = 0.97  # of a card: there the allocator gives back what it does not use
_LOW, _HIGH = 0.95, 1.08  # of the allocated figure: the spread of rows that were not looked at


@dataclass(frozen=True, slots=True)
class Range:
    """Low, likely and high of one figure."""

    low: float
    likely: float
    high: float

    def as_json(self, digits: int = 2) -> dict[str, float]:
        """Give plain numbers."""
        return {"low": round(self.low, digits), "likely": round(self.likely, digits), "high": round(self.high, digits)}


@dataclass(frozen=True, slots=True)
class Footprint:
    """GiB on one GPU."""

    allocated: Range
    reserved: Range
    process: Range
    components: dict[str, float]
    moment: str  # at which the peak stands
    context_gib: float = CONTEXT_GIB  # of the process, outside torch's allocator

    @property
    def needed_gib(self) -> float:
        """What must be there for the job to run: the allocated peak with its margin, and CUDA's own."""
        return self.allocated.likely * (1 + (KEPT.same - 1) / 4) + self.context_gib


def footprint(
    work: Work,
    gpus: int = 1,
    card_gib: float = float("inf"),
    context_gib: float = CONTEXT_GIB,
    kept: Kept = KEPT,
) -> Footprint:
    """Estimate what one GPU holds; `card_gib` is all of its memory."""
    found = peak(work, gpus)
    allocated = found.worst.total / GIB
    context_gib += NCCL_GIB if gpus > 1 else 0.0
    limit = card_gib * FULL - context_gib
    limit = limit if allocated <= limit else float("inf")  # what does not fit is not squeezed in
    factor = kept.varying if work.lengths_vary else kept.same
    likely, high = _reserved(found, factor), _reserved(found, factor * 1.25)
    reserved = Range(min(allocated, limit), min(likely, limit), min(high, limit))
    process = Range(*(one + context_gib for one in (reserved.low, reserved.likely, reserved.high)))
    return Footprint(
        Range(allocated * _LOW, allocated, allocated * _HIGH),
        reserved,
        process,
        {name: size / GIB for name, size in found.worst.parts.items() if size},
        found.worst.name,
        context_gib,
    )


def _reserved(found: Peak, factor: float) -> float:
    """GiB reserved: what comes and goes with the tokens takes more than was alive of it; weights keep their sizes.

    Segments cut for activations do not serve the gradients and temporaries of a step well, nor these the next pass: of
    what is at its largest at different moments a part is held at once.
    """
    at_once = max(moment.total + moment.by_tokens * (factor - 1) for moment in found.moments)
    fixed = max(moment.total - moment.by_tokens for moment in found.moments)
    apart = fixed + factor * max(moment.by_tokens for moment in found.moments)
    return (at_once + APART * (apart - at_once)) / GIB
