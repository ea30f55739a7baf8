"""An estimate as text of at most 80 columns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.estimate import words
from orchestrator.estimate.quote import HYBRID, method_of
from orchestrator.render import facts, money, price

if TYPE_CHECKING:
    from orchestrator.estimate.catalogue import Listed
    from orchestrator.estimate.footprint import Range
    from orchestrator.estimate.quote import Dollars, Estimate

_METHODS = {
    "full": "every weight",
    "lora": "LoRA",
    "lora8": "LoRA on 8 bits",
    "qlora": "QLoRA",
    "classify": "classification",
    "pretrain": "pretraining",
}
_FACTS = {
    "usable_vram_mib": "memory as reported",
    "memory_bandwidth_gbps": "bandwidth",
    "dense_fp16_tflops": "peak",
}


def page(found: Estimate, offer: Listed | None, dollars: Dollars | None, notes: list[str]) -> str:
    """Show what was estimated, part by part."""
    cards = f"{found.count} × {found.card.name}" if found.count > 1 else found.card.name
    head = f"{_METHODS[method_of(found.work)]} of {found.work.model.name} on {cards}"
    return (
        head
        + "\n"
        + facts(
            [
                ("verdict", _verdict(found)),
                ("fix", str(found.fix) if found.fix else ""),
                ("or", "; ".join(str(one) for one in found.others)),
                ("memory", _memory(found)),
                ("speed", _speed(found)),
                ("time", _time(found)),
                ("measured", f"on {found.basis}" if found.basis else ""),
                ("cost", _cost(found, offer, dollars)),
                ("disk", _room(found)),
                ("note", "; ".join(_notes(found, notes))),
            ]
        )
    )


def _verdict(found: Estimate) -> str:
    return words.memory(found.fits, ends(found.memory.process), found.card.memory_gib, found.count)


def ends(one: Range) -> tuple[float, float, float]:
    """Give low, likely and high."""
    return one.low, one.likely, one.high


def _memory(found: Estimate) -> str:
    parts = sorted(found.memory.components.items(), key=lambda part: -part[1])
    named = ", ".join(f"{name} {size:.2f}" for name, size in parts if size >= 0.005)
    return f"{found.memory.allocated.likely:.2f} GiB allocated at its peak ({found.memory.moment}): {named}"


def _speed(found: Estimate) -> str:
    basis = "" if found.known else "; nobody published this method on this card"
    return words.speed(ends(found.tokens_per_second)) + basis


def _time(found: Estimate) -> str:
    if found.seconds is None:
        return "unknown: say how much is trained, --rows N or --tokens N"
    by_name = found.stages.by_name if found.stages else {}
    return words.time(ends(found.seconds), found.stages.steps if found.stages else 0, by_name)


def _cost(found: Estimate, offer: Listed | None, dollars: Dollars | None) -> str:
    if offer is None:
        return f"no offer of {found.count} × {found.card.name} is known; --price USD an hour"
    seen = f"seen {offer.as_of}" if offer.as_of else "undated"
    at = f"{offer.provider} {offer.name} at {price(offer.price)} ({seen}, {offer.confidence})"
    if dollars is None:
        return at
    span = f"{money(dollars.low)}-{money(dollars.likely).removeprefix('$')}"
    hours = found.bounds.ceiling(offer.price, offer.step_seconds)[0] / 3600
    return f"{span}, at worst {money(dollars.worst)} (ended after {hours:.3g} h); {at}"


def _room(found: Estimate) -> str:
    if found.room is None:
        return ""
    return f"{found.room.disk_gib:.0f} GiB of disk, {found.room.host_gib:.0f} GiB of host memory"


def _notes(found: Estimate, notes: list[str]) -> list[str]:
    if not found.work.model.exact:
        notes = [*notes, f"{found.work.model.kind or 'this class'} is not known: counted as a Llama"]
    if found.work.model.kind in HYBRID:
        notes = [*notes, f"{found.work.model.kind} has other layers besides attention: memory and pace are approximate"]
    weak = [word for name, word in _FACTS.items() if name in found.card.unverified]
    if weak:
        notes = [*notes, f"nobody published the {' and '.join(weak)} of {found.card.name}: taken from its kind"]
    return notes
