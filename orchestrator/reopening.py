"""The ledger's side of runs that go on after their end, and of runs that another home began.

Part of the ledger (ledger.py), which opens the database.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator import memo
from orchestrator.caps import check_cap
from orchestrator.words import State
from providers.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime
    from decimal import Decimal

    from orchestrator.database import Database
    from orchestrator.records import RunRow


class Reopening:
    """What `gpurun resume` and `gpurun adopt --store` write."""

    _db: Database
    _event: Callable[..., None]
    runs: Callable[..., Sequence[RunRow]]

    def reopen(self, row: RunRow, now: datetime, *, monthly_cap: Decimal) -> None:
        """Put a run that is over back to its beginning, with new limits and its next attempt.

        Raises:
            RefusedError: the monthly cap.
            UsageError: it is not over (any more).
        """
        with self._db.write():
            check_cap(self.runs(), row.run_id, row.worst, now, monthly_cap)
            state = self._db.one("SELECT state FROM runs WHERE run_id = ?", row.run_id)["state"]
            if state != State.DONE:
                raise UsageError(f"{row.run_id} is not over: it is {state}", hint=f"gpurun resume {row.run_id}")
            self._db.execute(
                "UPDATE runs SET provider = :provider, deadline = :deadline, ceiling = :ceiling,"
                " grace_seconds = :grace_seconds, max_attempts = :max_attempts, max_cost = :max_cost, worst = :worst,"
                " plan = :plan, memory = :memory, state = :state, reason = NULL, stop_requested = NULL, ended = NULL,"
                " wish = NULL, holders = '[]', skew = :skew WHERE run_id = :run_id",
                memo.columns(row),
            )
            words = f"attempt {row.memory.attempt} on {row.provider}, worst case ${row.worst}"
            self._event(now, row.run_id, row.memory.attempt, "cli", "resume", "done", words)

    def enter_ended(self, row: RunRow, now: datetime, evidence: str) -> None:
        """Enter a run of another home's as one that is over: nothing is rented or ended for it from here.

        One that was entered before is known anew; one that goes on here meanwhile is left as it is.
        """
        with self._db.write():
            self._db.execute(
                "INSERT INTO runs (run_id, template, provider, created, deadline, ceiling, grace_seconds, max_attempts,"
                " max_cost, worst, plan, memory, state, reason, ended)"
                " VALUES (:run_id, :template, :provider, :created, :deadline, :ceiling, :grace_seconds, :max_attempts,"
                " :max_cost, '0', :plan, :memory, :state, :reason, :ended)"
                " ON CONFLICT (run_id) DO UPDATE SET provider = excluded.provider, deadline = excluded.deadline,"
                " ceiling = excluded.ceiling, grace_seconds = excluded.grace_seconds, plan = excluded.plan,"
                " max_attempts = excluded.max_attempts, max_cost = excluded.max_cost, memory = excluded.memory,"
                " reason = excluded.reason, ended = excluded.ended WHERE state = excluded.state",
                memo.columns(row) | {"ended": now.timestamp()},
            )
            self._event(now, row.run_id, row.memory.attempt, "cli", "adopt", "done", evidence)
