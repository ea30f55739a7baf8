"""What a finished run measured: read from its result and the ledger, kept in the ledger, given to later quotes.

    result.json (memory, tokens/s, stages) + what was billed ──> Measured ──> table `measured` ──> estimate.learnt.Past

What no run told is left out, never guessed: a field that is no number is no measurement.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from orchestrator.estimate.learnt import Measured, Past, bare
from orchestrator.follow import number

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator.database import Database
    from orchestrator.home import Home
    from orchestrator.records import RunRow

# The payload's stages, and under which of the quote's names they count.
_STAGES = {
    "load": "load",
    "train": "training",
    "eval": "evaluation",
    "save": "checkpoints",
    "export": "checkpoints",
}
_KEPT = 500  # rows that are read: the newest


class Measuring:
    """The ledger's side of it."""

    _db: Database

    def keep_measured(self, one: Measured) -> None:
        """Keep what a run measured; safe to repeat."""
        with self._db.write():
            self._db.execute(
                "INSERT OR REPLACE INTO measured (run_id, ended, facts) VALUES (?, ?, ?)",
                (one.run_id, one.ended, json.dumps(asdict(one))),
            )

    def measured(self) -> list[Measured]:
        """Read what the newest runs measured."""
        rows = self._db.all("SELECT facts FROM measured ORDER BY ended DESC LIMIT ?", _KEPT)
        return [Measured(**json.loads(row["facts"])) for row in rows]


def past(home: Home) -> Past:
    """Read this home's finished runs; a home that launched nothing has none.

    Raises:
        LedgerError: the ledger is damaged.
    """
    if not home.ledger.exists():
        return Past()
    from orchestrator.ledger import Ledger

    ledger = Ledger(home.ledger)
    try:
        return Past(ledger.measured())
    finally:
        ledger.close()


def measured(row: RunRow, result: Mapping[str, Any]) -> Measured | None:
    """Read what a run measured, of its row and its result; None where it ran nowhere or left none."""
    if not row.spells or not result or result.get("attempt", row.memory.attempt) != row.memory.attempt:
        return None
    quote, offer = row.plan.get("quote") or {}, row.plan.get("offer") or {}
    taken = row.memory.offer
    name = taken.name if taken else str(offer.get("name", ""))
    planned = taken is None or (taken.gpu, taken.gpu_count) == (offer.get("gpu"), offer.get("gpu_count"))
    stages = _stages(row, result)
    return Measured(
        run_id=row.run_id,
        ended=max(one.ended or one.start_high for one in row.spells),
        completed=row.memory.reason == "completed" and len(row.spells) == 1 and not result.get("restarts"),
        work=str(row.plan.get("work", "")),
        like=str(quote.get("like") or "") if planned and _is_as_quoted(result, quote) else "",
        provider=row.provider,
        offer=bare(name),
        seconds=sum(one.ended - one.start_low for one in row.spells if one.ended is not None),
        stages=stages,
        memory_gib=_memory(result),
        tokens_per_second=number(result.get("tokens_per_second")) or None,
        pace=_pace(row, quote, stages.get("training")),
        steps=row.memory.step,
    )


def _is_as_quoted(result: Mapping[str, Any], quote: Mapping[str, Any]) -> bool:
    """Whether it ran as it was quoted: not with smaller batches once memory ran out, and no chain of several steps."""
    used, planned = number(result.get("micro_batch")), number(quote.get("micro_batch"))
    told = result.get("stage_seconds")
    steps = isinstance(told, dict) and any("/" in str(name) for name in told)
    return not steps and (used is None or planned is None or used == planned)


def _memory(result: Mapping[str, Any]) -> dict[str, float]:
    """GiB on the GPU; what a CPU's process took is no measure of a card."""
    told = result.get("memory_gib")
    values = {key: number(value) for key, value in told.items()} if isinstance(told, dict) else {}
    return {key: value for key, value in values.items() if value}


def _pace(row: RunRow, quote: Mapping[str, Any], seconds: float | None) -> float | None:
    """Tokens a second by the quote's own count of tokens: what it got wrong about the data is in it, too."""
    tokens, steps = number(quote.get("tokens")), number(quote.get("steps"))
    if not tokens or not steps or not seconds or not row.memory.step:
        return None
    return tokens * min(row.memory.step / steps, 1.0) / seconds


def _stages(row: RunRow, result: Mapping[str, Any]) -> dict[str, float]:
    """Seconds by the quote's names. Boot: until the agent ran. Setup: what of the agent's time no stage had."""
    told = result.get("stage_seconds")
    found: dict[str, float] = {}
    for name, value in told.items() if isinstance(told, dict) else ():
        seconds, stage = number(value), _STAGES.get(str(name).rpartition("/")[2])
        if seconds is not None and stage:
            found[stage] = found.get(stage, 0.0) + seconds
    started, ended, last = number(result.get("started")), number(result.get("ended")), row.spells[-1]
    if started is None or ended is None:
        return found
    around = {"boot": started - last.start_low}
    if found and not result.get("restarts"):
        around["setup"] = ended - started - sum(found.values())
    if last.ended is not None:
        around["bring home"] = last.ended - ended
    return {**{name: seconds for name, seconds in around.items() if seconds >= 0}, **found}
