"""An estimate as text of at most 80 columns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.estimate.quote import HYBRID, method_of
from orchestrator.render import duration, facts, money, price

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
_VERDICTS = {
    "fits": "fits",
    "tight": "tight: it may run out of memory",
    "no": "does not fit",
}


def page(found: Estimate, offer: Listed | None, dollars: Dollars | None, limit_hours: float, notes: list[str]) -> str:
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
                ("cost", _cost(found, offer, dollars, limit_hours)),
                ("disk", _room(found)),
                ("note", "; ".join(_notes(found, notes))),
            ]
        )
    )


def _verdict(found: Estimate) -> str:
    size = found.memory.process
    have = f"of {found.card.memory_gib:.1f} on the card"
    each = " a GPU" if found.count > 1 else ""
    return f"{_VERDICTS[found.fits]}: {_span(size, 1)} GiB{each} {have}"


def _span(one: Range, digits: int) -> str:
    return f"{one.likely:.{digits}f} ({one.low:.{digits}f}-{one.high:.{digits}f})"


def _memory(found: Estimate) -> str:
    parts = sorted(found.memory.components.items(), key=lambda part: -part[1])
    named = ", ".join(f"{name} {size:.2f}" for name, size in parts if size >= 0.005)
    return f"{found.memory.allocated.likely:.2f} GiB allocated at its peak ({found.memory.moment}): {named}"


def _speed(found: Estimate) -> str:
    pace = found.tokens_per_second
    basis = "" if found.known else "; nobody published this method on this card"
    return f"{_rounded(pace.likely)} tokens/s ({_rounded(pace.low)}-{_rounded(pace.high)}){basis}"


def _rounded(value: float) -> str:
    """Three digits that count: more would be pretence."""
    return f"{float(f'{value:.3g}'):,.0f}"


def _time(found: Estimate) -> str:
    if found.stages is None:
        return "unknown: say how much is trained, --rows N or --tokens N"
    total = found.stages.total
    stages = ", ".join(
        f"{name} {duration(likely)}" for name, (_, likely, _) in found.stages.by_name.items() if likely >= 1
    )
    span = f"{duration(total.likely)} ({duration(total.low)} to {duration(total.high)})"
    return f"{span}, {found.stages.steps} steps: {stages}"


def _cost(found: Estimate, offer: Listed | None, dollars: Dollars | None, limit_hours: float) -> str:
    if offer is None:
        return f"no offer of {found.count} × {found.card.name} is known; --price USD an hour"
    seen = f"seen {offer.as_of}" if offer.as_of else "undated"
    at = f"{offer.provider} {offer.name} at {price(offer.price)} ({seen}, {offer.confidence})"
    if dollars is None:
        return at
    span = f"{money(dollars.low)}-{money(dollars.likely).removeprefix('$')}"
    return f"{span}, at worst {money(dollars.worst)} ({limit_hours:g} h); {at}"


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
