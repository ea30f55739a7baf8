"""What may be promised on top of what is open: the monthly cap, and an extension's limits. Pure; USD.

Asked inside the ledger's own transaction: of two launches that race under one cap, one is refused.
"""

from __future__ import annotations

from datetime import UTC
from decimal import Decimal
from typing import TYPE_CHECKING

from orchestrator.cost import spent_since, worst
from orchestrator.facts import Wish
from orchestrator.jobs import candidates_of
from orchestrator.words import State
from providers.base import utc
from providers.errors import RefusedError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from orchestrator.records import RunRow

_LATEST = (State.PENDING, State.PROVISIONING, State.STARTING, State.RUNNING)


def check_cap(rows: Iterable[RunRow], run_id: str, wanted: Decimal, now: datetime, cap: Decimal) -> None:
    """Refuse what could pass the cap of this UTC month: what was spent, and the worst case of every open run.

    Raises:
        RefusedError: says what is spent, what is reserved, and that it knows this home's ledger only.
    """
    spent, reserved = committed((one for one in rows if one.run_id != run_id), now)
    if spent + reserved + wanted > cap:
        raise RefusedError(
            f"the monthly cap is ${cap}: ${spent:.2f} spent and ${reserved:.2f} reserved by open runs"
            f" (this home's ledger only) leave no room for ${wanted}",
            hint="lower --max-hours or --max-cost, or raise the cap: gpurun config set monthly-cap …",
        )


def committed(rows: Iterable[RunRow], now: datetime) -> tuple[Decimal, Decimal]:
    """Sum what was spent in this UTC month, and what open runs may still come to: their worst case, whole.

    A run that straddles two months counts in the second with what it billed there, and while it is open with all of
    it: rather too much is reserved than too little. An extension that is asked for is reserved before it is granted.
    """
    month = now.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0).timestamp()
    spent = reserved = Decimal(0)
    for one in rows:
        at = now.timestamp() + one.skew
        if one.memory.is_done:
            spent += spent_since(one.spells, month + one.skew, at)
        else:
            asked = one.wish.worst if one.wish and one.memory.answered < one.wish.id else one.worst
            reserved += max(one.worst, asked, one.accrued(now.timestamp()).high)
    return spent, reserved


def extension(row: RunRow, deadline: datetime, max_cost: Decimal | None) -> Wish:
    """Make the wish for a later deadline, with what the run may then cost.

    Raises:
        RefusedError: the run is over or on its way out, an earlier wish is not answered yet, the deadline is no later
            one, or the budget forbids it.
    """
    memory = row.memory
    if memory.is_done:
        raise RefusedError(f"{row.run_id} is over", hint=f"gpurun show {row.run_id}")
    if memory.state not in _LATEST or memory.stop_requested or memory.told_to_stop is not None:
        raise RefusedError(f"{row.run_id} is ending: nothing can be added to it", hint=f"gpurun wait {row.run_id}")
    if row.wish is not None and memory.answered < row.wish.id:  # the vendor's own limits may be moved by it already
        raise RefusedError(
            f"an extension of {row.run_id} was asked for already, and is not answered yet",
            hint=f"gpurun show {row.run_id}; then ask again",
        )
    if deadline.timestamp() <= row.deadline:
        raise RefusedError(f"{row.run_id} ends at {utc(row.deadline):%Y-%m-%d %H:%M} UTC: that is no later")
    ceiling = max(deadline, utc(row.ceiling))
    price = max(one.price for one in ((memory.offer,) if memory.offer else candidates_of(row.plan)))
    step = row.spells[-1].step_seconds if row.spells else 60
    most = worst(price, ceiling.timestamp() - row.created, step, row.max_attempts)
    budget, longer = max_cost or row.max_cost, (deadline.timestamp() - row.deadline) / 3600
    if budget is not None and most > budget:
        raise RefusedError(
            f"until {ceiling:%Y-%m-%d %H:%M} UTC it may cost ${most}, and the budget is ${budget}",
            hint=f"gpurun extend {row.run_id} --hours {longer:.4g} --max-cost {most}",
        )
    number = 1 + (row.wish.id if row.wish else 0)
    return Wish(number, deadline.replace(microsecond=0), ceiling.replace(microsecond=0), most, max_cost)
