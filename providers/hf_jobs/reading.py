"""What the Hub tells, as plain facts: hardware -> offers, jobs -> observations. Unknown words are tolerated.

`SCHEDULING` may cover queue and start; only what runs is billed (hub-docs, 2026-08). While it is not known which it
is, a job counts as one that may bill; its own start and end narrow that. An unknown stage is not an end.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from providers.base import Allocation, Holder, Mark, Observation, Offer, Phase, Place, Proof
from providers.http import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from huggingface_hub import JobInfo

MARK, RUN, TIMEOUT = "gpurun-mark", "gpurun-run", "gpurun-timeout"  # labels
OURS = {"gpurun": "1"}
LIVE = ["SCHEDULING", "RUNNING"]
_ID = re.compile(r"[0-9a-f]{24}")
_TERMINAL = frozenset({"COMPLETED", "ERROR", "CANCELED", "DELETED"})
_EXIT_CODE = re.compile(r"exit code:?\s*(\d{1,3})")
_MINUTES = Decimal(60)
_LIMIT = "Hugging Face's time limit"

# The Hub's name of a card -> ours, and the memory of one in MiB as nvidia-smi prints it (2026-11).
_CARDS = {
    "T4": ("t4", 15360),
    "L4": ("l4", 23034),
    "A10G": ("a10g", 23028),
    "L40S": ("l40s", 46068),
    "A100": ("a100-80gb-sxm", 81920),
    "RTX PRO 6000": ("rtx-pro-6000", 97887),
    "H200": ("h200-sxm", 143771),
}
_FAR_OFF = 0.25


def is_id(text: str) -> bool:
    """Whether the Hub can have given such an id."""
    return _ID.fullmatch(text) is not None


def offers(rows: list[Any], seen_at: datetime) -> Iterator[Offer]:
    """Read the hardware list; what is not priced by the minute can't be planned with."""
    for row in rows:
        price = hourly(row)
        if price is None:
            continue
        card = row.accelerator
        count = int(_number(card.quantity)) if card is not None else 0
        gpu, vram = _gpu(card, count) if card is not None and count else ("", 0.0)
        yield Offer(
            "hf",
            str(row.name),
            gpu,
            count,
            price,
            vram_gib=vram,
            vcpus=int(_number(row.cpu)),
            memory_gib=round(_number(row.ram) * 1e9 / 2**30, 1),
            disk_gib=round(_number(row.ephemeral_storage) * 1e9 / 2**30, 1),
            seen_at=seen_at,
        )


def hourly(row: Any) -> Decimal | None:
    """Give a flavor's price in USD an hour; None = it is not by the minute."""
    micro = row.unit_cost_micro_usd
    if row.unit_label != "minute" or not isinstance(micro, int) or micro < 0:
        return None
    return Decimal(micro) * _MINUTES / 10**6


def _gpu(card: Any, count: int) -> tuple[str, float]:
    """Name the card, and its memory in GiB: the Hub tells the sum of all cards."""
    each = _number(card.vram) / count
    model = str(card.model).upper().removeprefix("NVIDIA ").strip()
    name, mib = _CARDS.get(model, ("", 0))
    if name and abs(each * 1e9 / 2**20 - mib) <= _FAR_OFF * mib:
        return name, round(mib / 1024, 1)
    return f"{'-'.join(model.lower().split())}-{each:.0f}gb", round(each * 1e9 / 2**30, 1)


def _number(text: object) -> float:
    found = re.search(r"\d+(\.\d+)?", str(text))
    return float(found[0]) if found else 0.0


# ── jobs ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def mark_of(job: JobInfo) -> Mark | None:
    """Whose it is."""
    return Mark.parse(str((job.labels or {}).get(MARK, "")))


def stage_of(job: JobInfo) -> str:
    """Give its stage as the Hub spells it, an enum or a word."""
    return str(getattr(job.status.stage, "value", job.status.stage))


def is_over(job: JobInfo) -> bool:
    """Whether it has ended, on the Hub's word."""
    return stage_of(job) in _TERMINAL


def exit_code(job: JobInfo) -> int | None:
    """Read the exit code out of the message; None = it is not told."""
    found = _EXIT_CODE.search(job.status.message or "")
    return int(found[1]) if found else None


def timed_out(job: JobInfo) -> bool:
    """Whether the Hub ended it at its time limit."""
    return "job timeout" in (job.status.message or "").lower()


def timeout_of(job: JobInfo) -> float:
    """Seconds that it may run, as asked for; the client drops the field, so a label carries it."""
    return _number((job.labels or {}).get(TIMEOUT, ""))


def queue_limit(job: JobInfo) -> datetime | None:
    """Give the moment at which it must have begun: later, and its time would end past the ceiling."""
    mark, timeout = mark_of(job), timeout_of(job)
    return mark.ceiling - timedelta(seconds=timeout) if mark is not None and timeout else None


def observation(job: JobInfo, price: Decimal | None, now: datetime) -> Observation:
    """Say what a look at a job means for the money."""
    stage, words = stage_of(job), printable(job.status.message or "", 200)
    evidence = f"GET /api/jobs/…/{job.id} → {stage}{f': {words}' if words else ''}"
    if is_over(job):
        began = _utc(job.started_at)
        return Observation(
            Phase.EXITED,
            billing=False,
            evidence=evidence,
            price=price,
            billed_from=began,
            # What never ran was never billed.
            billed_until=_utc(job.finished_at) if began else _utc(job.created_at),
            message=words or stage,
            failure=f"it never ran: {words or stage}" if began is None and stage == "ERROR" else "",
            ended=True,
        )
    running = stage == "RUNNING"
    return Observation(
        Phase.RUNNING if running else Phase.QUEUED,
        billing=True,
        evidence=evidence,
        price=price,
        billed_from=_utc(job.started_at),
        message=words or stage,
        failure="" if running else _waited(job, stage, words, now),
        holder=limit_of(job),
    )


def limit_of(job: JobInfo) -> Holder | None:
    """Say whether the Hub keeps the time limit that was asked for; None = its answer names none."""
    told, asked = getattr(job, "timeout", None), timeout_of(job)
    if isinstance(told, bool) or not isinstance(told, int | float):
        return None
    words = f"GET /api/jobs/…/{job.id} → timeout {told:g} s"
    if 0 < told <= asked:
        return limit(Proof.PROVEN, words)
    return limit(Proof.ABSENT, f"{words}, where {asked:g} s were asked for")


def limit(proof: Proof, evidence: str) -> Holder:
    """Spell the Hub's own limit as a holder."""
    return Holder(_LIMIT, Place.SERVER, proof, worst_overrun_seconds=60, evidence=evidence)


def _waited(job: JobInfo, stage: str, words: str, now: datetime) -> str:
    """Say that it waited for too long; "" = it may go on."""
    limit = queue_limit(job)
    if limit is None or now < limit or job.started_at is not None:
        return ""
    return f"still {stage} at the queue limit{f': {words}' if words else ''}"


def allocation(job: JobInfo, price: Decimal | None) -> Allocation:
    """Show it as what bills, or no longer does."""
    return Allocation(
        job.id,
        mark_of(job),
        printable((job.labels or {}).get("name") or job.docker_image or job.space_id or job.id, 80),
        billing=not is_over(job),
        price=price,
        since=_utc(job.started_at or job.created_at),
        console_url=job.url,
    )


def _utc(moment: datetime | None) -> datetime | None:
    return None if moment is None else moment.astimezone(UTC)
