"""`gpurun extend`: leave the wish for a later deadline in the ledger, and read the answer of whoever holds the run.

Not here: whether it may be (caps.py, in the ledger's transaction), and carrying it out (lifecycle.py, controller.py).
"""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from orchestrator import settings_file
from orchestrator.caps import check_cap, extension
from orchestrator.config import MOST_HOURS
from orchestrator.ledger import Ledger
from orchestrator.render import duration, facts, moment, money, rfc3339
from orchestrator.wish import monthly_cap
from providers.base import utc
from providers.errors import RefusedError

if TYPE_CHECKING:
    from decimal import Decimal

    from orchestrator.glance import Run
    from orchestrator.home import Home
    from orchestrator.records import RunRow

PATIENCE_SECONDS = 60.0
_PAUSE_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Asked:
    """A wish in the ledger, and the run as it was before."""

    before: RunRow
    number: int


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a wish. `granted` is None while nobody has answered; `text` is the refusal's."""

    granted: bool | None
    text: str
    now: RunRow


def ask(home: Home, run_id: str, hours: float, max_cost: Decimal | None, now: datetime) -> Asked:
    """Ask for so many hours more than the present deadline; `now` is by our clock.

    Raises:
        RefusedError: the run is over or ending, the budget or the monthly cap has no room, or no run may be that long.
    """
    cap = monthly_cap(settings_file.load(home.root / settings_file.NAME))
    with closing(Ledger(home.ledger)) as ledger:
        row = ledger.run(run_id)
        deadline = _later(row, hours)
        number = ledger.wish_extension(run_id, deadline=deadline, max_cost=max_cost, now=now, monthly_cap=cap)
    return Asked(row, number)


def preview(home: Home, run_id: str, hours: float, max_cost: Decimal | None, now: datetime) -> str:
    """Say what an extension would come to; nothing is asked for yet.

    Raises:
        RefusedError: as `ask`.
    """
    cap = monthly_cap(settings_file.load(home.root / settings_file.NAME))
    with closing(Ledger(home.ledger)) as ledger:
        row = ledger.run(run_id)
        wish = extension(row, _later(row, hours), max_cost)
        check_cap(ledger.runs(), run_id, wish.worst, now, cap)
    words = f"{run_id} would end at {moment(wish.deadline.timestamp())}"
    return f"{words}, and cost at most {money(wish.worst)}; as it stands, {money(row.worst)}"


def _later(row: RunRow, hours: float) -> datetime:
    deadline = utc(row.deadline) + timedelta(hours=hours)
    if (deadline - utc(row.created)) > timedelta(hours=MOST_HOURS):
        raise RefusedError(
            f"{row.run_id} would last longer than {MOST_HOURS} h, which no run may", hint="ask for less: --hours"
        )
    return deadline


def wait(home: Home, asked: Asked) -> Answer:
    """Wait a minute for the answer: the event `extend`, done or failed, by the wish's number."""
    until = time.monotonic() + PATIENCE_SECONDS
    with closing(Ledger(home.ledger)) as ledger:
        while True:
            answer = _answer(ledger, asked)
            if answer.granted is not None or time.monotonic() >= until:
                return answer
            time.sleep(_PAUSE_SECONDS)


def _answer(ledger: Ledger, asked: Asked) -> Answer:
    row = ledger.run(asked.before.run_id)
    for event in reversed(ledger.events(row.run_id)):
        number, _, words = event.text.partition(": ")
        if event.verb == "extend" and event.kind in {"done", "failed"} and number == str(asked.number):
            return Answer(event.kind == "done", words, row)
    if row.memory.is_done:
        return Answer(granted=False, text=f"{row.run_id} ended meanwhile", now=row)
    return Answer(granted=None, text=_pending(row), now=row)


def _pending(row: RunRow) -> str:
    running = row.memory.state == "running"
    return (
        "whoever holds the run has not answered yet: as long as nothing says otherwise, it ends at its old deadline"
        if running
        else f"it is {row.memory.state}: the answer comes once it runs; until then the old deadline holds"
    )


def as_json(asked: Asked, answer: Answer, run: Run) -> dict[str, Any]:
    """Give it for programs; money in USD, times in UTC."""
    return {
        "run_id": answer.now.run_id,
        "granted": answer.granted,
        "why": "" if answer.granted else answer.text,
        "deadline_before": rfc3339(asked.before.deadline),
        "deadline": rfc3339(answer.now.deadline),
        "ceiling": rfc3339(answer.now.ceiling),
        "worst_usd": answer.now.worst,
        "max_cost_usd": answer.now.max_cost,
        "holders": run.held_by(),
    }


def screen(asked: Asked, answer: Answer, run: Run) -> str:
    """Say the new end, what it may cost now, and who holds it."""
    row, later = answer.now, answer.now.deadline - asked.before.deadline
    left = row.deadline - datetime.now(UTC).timestamp() - row.skew
    holders = [f"{one['name']} ({one['place']}): {one['proof']}" for one in run.held_by()]
    return facts(
        [
            ("run", row.run_id),
            ("deadline", f"{moment(row.deadline)}, {duration(later)} later; {duration(max(left, 0.0))} from now"),
            ("ceiling", moment(row.ceiling)),
            ("cost", f"at most {money(row.worst)}" + (f", of {money(row.max_cost)}" if row.max_cost else "")),
            ("holders", "\n".join(holders)),
        ]
    )
