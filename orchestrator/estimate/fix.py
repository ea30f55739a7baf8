"""What to change so that a job fits: a search over changes, the least painful set first. Nothing here is canned.

Every change has a pain; sets of changes are tried in the order of their pain (uniform-cost search), and each is put
through the memory model. More GPUs and another card are looked at beside it.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

from orchestrator.estimate.footprint import CONTEXT_GIB, Footprint, footprint
from orchestrator.estimate.work import Loss, Optimizer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.estimate.gpus import Card
    from orchestrator.estimate.work import Work

FITS, TIGHT, NO = "fits", "tight", "no"
ROOM = 0.985  # of what the card reports: the driver and the desktop keep the rest
_SMALLEST_SEQUENCE = 256
_MOST_TRIED = 400
_COUNTS = (2, 4, 8)


@dataclass(frozen=True, slots=True)
class Fix:
    """A set of changes that makes the job fit."""

    changes: tuple[str, ...]
    work: Work
    card: Card
    gpus: int
    process_gib: float

    def __str__(self) -> str:
        """Say it in a line."""
        return ", ".join(self.changes)


def verdict(found: Footprint, card_gib: float) -> str:
    """Say whether it fits: yes, tight (it may run out), or no."""
    room = card_gib * ROOM - CONTEXT_GIB
    if found.allocated.likely > room:
        return NO
    room -= found.context_gib - CONTEXT_GIB  # NCCL's buffers shrink where they must: jobs ran that left it less
    comfortable = max(found.allocated.high, found.needed_gib - found.context_gib)
    return FITS if comfortable <= room else TIGHT


@lru_cache(maxsize=4096)
def judged(work: Work, card: Card, gpus: int) -> str:
    """Judge one work on so many cards of a kind."""
    return verdict(footprint(work, gpus, card.memory_gib), card.memory_gib)


def changes(work: Work) -> Iterator[tuple[float, str, Work]]:
    """Every single change that takes less memory: its pain, what it is called, the work after it."""
    if work.micro_batch > 1:
        half = work.micro_batch // 2
        times = work.micro_batch / half
        grown = round(work.accumulation * times)
        name = f"batch {work.micro_batch} → {half} with accumulation ×{times:g}"
        yield 1.0, name, replace(work, micro_batch=half, accumulation=grown)
    if not work.checkpointing:
        yield 2.0, "activation checkpointing on", replace(work, checkpointing=True)
    if work.loss is Loss.PLAIN:
        yield 1.5, "a loss computed in chunks", replace(work, loss=Loss.LINEAR)
    if work.optimizer in {Optimizer.ADAMW, Optimizer.FUSED_ADAMW, Optimizer.ADAMW_LOOP} and work.trains_all:
        yield 3.0, "8-bit AdamW", replace(work, optimizer=Optimizer.ADAMW_8BIT)
    if work.sequence > _SMALLEST_SEQUENCE:
        shorter = _shorter(work.sequence)
        yield 4.0, f"sequence {work.sequence} → {shorter}", replace(work, sequence=shorter)
    if work.trains_all and work.task in {"causal", "dpo"}:
        yield 8.0, "LoRA instead of every weight", _adapted(work)
    elif not work.trains_all and work.bits >= 16:
        yield 6.0, "QLoRA instead of LoRA", replace(work, bits=4, optimizer=Optimizer.PAGED_ADAMW_8BIT)
    elif not work.trains_all and work.bits == 8:
        yield 5.0, "QLoRA instead of LoRA on 8 bits", replace(work, bits=4, optimizer=Optimizer.PAGED_ADAMW_8BIT)


def _adapted(work: Work) -> Work:
    return replace(work, method="lora", bits=16, adapter_bytes=4, optimizer=Optimizer.FUSED_ADAMW)


def _shorter(sequence: int) -> int:
    """Three quarters, at a multiple of 128."""
    return max(_SMALLEST_SEQUENCE, sequence * 3 // 4 // 128 * 128)


@lru_cache(maxsize=1024)
def on_this_card(work: Work, card: Card, gpus: int) -> Fix | None:
    """Find the least painful set of changes that fits the same cards; None = nothing does."""
    queue: list[tuple[float, int, tuple[str, ...], Work]] = [(0.0, 0, (), work)]
    seen, tried = {work}, 0
    while queue and tried < _MOST_TRIED:
        pain, _, names, now = heapq.heappop(queue)
        if names and judged(now, card, gpus) == FITS:
            return Fix(_joined(names, work, now), now, card, gpus, footprint(now, gpus, card.memory_gib).process.likely)
        for more, name, after in changes(now):
            if after not in seen:
                seen.add(after)
                tried += 1
                heapq.heappush(queue, (pain + more, tried, (*names, name), after))
    return None


def _joined(names: tuple[str, ...], before: Work, after: Work) -> tuple[str, ...]:
    """Say repeated changes once: from where it was to where it came."""
    kept = [name for name in names if not name.startswith(("batch ", "sequence "))]
    if after.micro_batch != before.micro_batch:
        times = after.accumulation / before.accumulation
        kept.insert(0, f"batch {before.micro_batch} → {after.micro_batch} with accumulation ×{times:g}")
    if after.sequence != before.sequence:
        kept.append(f"sequence {before.sequence} → {after.sequence}")
    return tuple(kept)


def more_cards(work: Work, card: Card, gpus: int) -> Fix | None:
    """Find how many of the same card hold the work as it is, shared out (FSDP)."""
    for count in _COUNTS:
        if count <= gpus:
            continue
        shared = replace(work, sharding="fsdp")
        if judged(shared, card, count) == FITS:
            size = footprint(shared, count, card.memory_gib).process.likely
            return Fix((f"{count} × {card.name}",), shared, card, count, size)
    return None


def other_card(work: Work, cards: tuple[Card, ...], card: Card, gpus: int) -> Fix | None:
    """Find the smallest card that holds the work as it is."""
    larger = sorted((one for one in cards if one.memory_gib > card.memory_gib), key=lambda one: one.memory_gib)
    for one in larger:
        if one.vendor == card.vendor and judged(work, one, gpus) == FITS:
            size = footprint(work, gpus, one.memory_gib).process.likely
            return Fix((f"a card of {one.memory_gib:.0f} GiB: {one.name}",), work, one, gpus, size)
    return None
