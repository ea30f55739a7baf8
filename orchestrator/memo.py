"""`lifecycle.Memory` as JSON and back, and a run's row as columns: the form in which the ledger keeps them."""

from __future__ import annotations

import json
from dataclasses import asdict, fields, is_dataclass
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from orchestrator.facts import Memory, Wish
from orchestrator.jobs import offer_from
from orchestrator.words import Launch, Reason, State

if TYPE_CHECKING:
    from orchestrator.records import RunRow
    from providers.base import Holder


def columns(row: RunRow) -> dict[str, object]:
    """Give a run's row by the names of the table's columns."""
    return {
        "run_id": row.run_id,
        "template": row.template,
        "provider": row.provider,
        "created": row.created,
        "deadline": row.deadline,
        "ceiling": row.ceiling,
        "grace_seconds": row.grace_seconds,
        "max_attempts": row.max_attempts,
        "max_cost": None if row.max_cost is None else str(row.max_cost),
        "worst": str(row.worst),
        "plan": json.dumps(row.plan),
        "memory": dump(row.memory),
        "state": row.memory.state,
        "reason": row.memory.reason,
        "skew": row.skew,
    }


def dump(memory: Memory) -> str:
    """Write all but the user's stop, which has a column of its own that anyone may write."""
    values = {one.name: getattr(memory, one.name) for one in fields(memory) if one.name != "stop_requested"}
    return json.dumps(values, default=_plain)


def load(text: str, *, stop_requested: bool) -> Memory:
    """Read what `dump` wrote."""
    values: dict[str, Any] = json.loads(text)
    for name in ("entered", "intended", "told_to_stop", "retry_at", "waiting_since", "unheld", "freed", "tried"):
        values[name] = _time(values.get(name))
    offer = values.get("offer")
    values["offer"] = None if offer is None else offer_from(offer)
    values["refused"] = tuple(values.get("refused", ()))
    values["absences"] = tuple(datetime.fromisoformat(time) for time in values["absences"])
    values["extra_ids"] = tuple(values["extra_ids"])
    values["signatures"] = tuple(values["signatures"])
    values["state"] = State(values["state"])
    values["launch"] = Launch(values["launch"])
    values["reason"] = None if values["reason"] is None else Reason(values["reason"])
    return Memory(**values, stop_requested=stop_requested)


def dump_wish(wish: Wish) -> str:
    """Write an extension that was asked for."""
    return json.dumps(wish, default=_plain)


def load_wish(text: str) -> Wish:
    """Read what `dump_wish` wrote."""
    values = json.loads(text)
    cost = values["max_cost"]
    return Wish(
        values["id"],
        datetime.fromisoformat(values["deadline"]),
        datetime.fromisoformat(values["ceiling"]),
        Decimal(values["worst"]),
        None if cost is None else Decimal(cost),
    )


def holder_values(holder: Holder) -> dict[str, Any]:
    """Give a holder as plain JSON values."""
    proven = holder.proven_at
    return asdict(holder) | {"proven_at": None if proven is None else proven.isoformat()}


def _plain(value: Any) -> Any:
    """Give what JSON lacks: no deep copy is made on the way, since a run is saved at every look."""
    if is_dataclass(value):
        return {one.name: getattr(value, one.name) for one in fields(value)}
    return str(value) if isinstance(value, Decimal) else value.isoformat()


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
