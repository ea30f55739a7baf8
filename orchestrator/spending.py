"""The ledger's side of money: what was rented, since when it bills, when its end was proven, on whose word.

Times in here are by the vendor's clock. Part of the ledger (ledger.py), which opens the database.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING

from orchestrator.cost import Spell
from providers.base import Phase

if TYPE_CHECKING:
    from datetime import datetime

    from orchestrator.database import Database
    from providers.base import Mark, Observation

_SLACK_SECONDS = 5.0  # by which two clocks that are taken for one may differ


@dataclass(frozen=True, slots=True)
class Rented:
    """One allocation as the ledger holds it."""

    id: str
    provider: str
    run_id: str
    attempt: int
    account: str
    spell: Spell
    evidence: str  # on whose word it is free; "" = nobody's yet


class Spending:
    """What the ledger knows of allocations."""

    _db: Database

    def allocations(self, run_id: str | None = None) -> list[Rented]:
        """Read what was rented, for one run or for all, in order."""
        query = "SELECT * FROM allocations WHERE run_id = ? OR ? IS NULL ORDER BY run_id, attempt, start_low"
        return [
            Rented(
                *(one["id"], one["provider"], one["run_id"], one["attempt"], one["account"]),
                spell=Spell(
                    Decimal(one["price"]),
                    *(one["step_seconds"], one["start_low"], one["start_high"], one["billing_seen"], one["ended"]),
                ),
                evidence=one["evidence"],
            )
            for one in self._db.all(query, run_id, run_id)
        ]

    def open_allocation(self, allocation_id: str, mark: Mark, spell: Spell, *, provider: str, account: str) -> None:
        """Note that something may bill; safe to repeat."""
        with self._db.write():
            self._db.execute(
                "INSERT INTO allocations"
                " (id, provider, run_id, attempt, mark, account, price, step_seconds, start_low, start_high)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                (
                    allocation_id,
                    provider,
                    mark.run_id,
                    mark.attempt,
                    str(mark),
                    account,
                    str(spell.price),
                    spell.step_seconds,
                    spell.start_low,
                    spell.start_high,
                ),
            )

    def saw_billing(
        self, provider: str, allocation_id: str, now: datetime, look: Observation, *, lag: float = 0.0
    ) -> None:
        """Note a read that said "billing", with what the vendor told: price, start, whether the end is under way.

        Such a read may be `lag` seconds old: it may have ended since.

        While it is queued, or has failed the vendor's check, it may bill or may not. That moves the latest moment at
        which the billing can have begun, as does the first read of a machine that is up: it came up before that.
        """
        at, began = now.timestamp(), None if look.billed_from is None else look.billed_from.timestamp()
        # One that was adopted billed before: that is not this run's.
        queued = (look.phase is Phase.QUEUED or bool(look.failure)) and began is None and not look.ending
        latest = began is None and (queued or look.phase in {Phase.READY, Phase.RUNNING})
        with self._db.write():
            self._db.execute(
                "UPDATE allocations SET price = coalesce(:price, price), ended = NULL,"
                " ending = CASE WHEN :ending THEN coalesce(ending, :at) END,"
                " billing_seen = CASE WHEN :queued OR :ending THEN billing_seen"
                "   ELSE max(coalesce(billing_seen, 0), :at - :lag) END,"
                " start_low = CASE WHEN :began > start_low - :slack THEN :began ELSE start_low END,"
                " start_high = CASE WHEN :began > start_low - :slack THEN :began + :within"
                "   WHEN :latest AND billing_seen IS NULL THEN max(start_high, :at)"
                "   ELSE start_high END"
                " WHERE provider = :provider AND id = :id",
                {
                    "price": None if look.price is None else str(look.price),
                    "ending": look.ending,
                    "queued": queued,
                    "latest": latest,
                    "at": at,
                    "lag": lag,
                    "began": began,
                    "within": look.billed_within,
                    "slack": _SLACK_SECONDS,
                    "provider": provider,
                    "id": allocation_id,
                },
            )

    def saw_free(self, provider: str, allocation_id: str, now: datetime, look: Observation) -> None:
        """Note that the end is proven, on whose word.

        It bills until the vendor's own record says, else until the vendor first said that it was ending it. Such a
        record is as good as having seen it bill to the last, and tells the begin too; of one that nobody saw while it
        billed, the price as well.
        """
        until = now.timestamp() if look.billed_until is None else look.billed_until.timestamp()
        own = look.billed_until is not None
        began = None if look.billed_from is None else look.billed_from.timestamp()
        with self._db.write():
            self._db.execute(
                "UPDATE allocations SET ended = CASE WHEN :own THEN :until + :within ELSE coalesce(ending, :until) END,"
                " price = CASE WHEN billing_seen IS NULL THEN coalesce(:price, price) ELSE price END,"
                " billing_seen = CASE WHEN :own THEN :until ELSE billing_seen END,"
                " start_low = CASE WHEN :began > start_low - :slack THEN :began ELSE start_low END,"
                " start_high = CASE WHEN :began > start_low - :slack THEN :began + :within ELSE start_high END,"
                " evidence = :evidence"
                " WHERE provider = :provider AND id = :id AND ended IS NULL",
                {
                    "price": None if look.price is None else str(look.price),
                    "own": own,
                    "until": until,
                    "began": began,
                    "within": look.billed_within,
                    "slack": _SLACK_SECONDS,
                    "evidence": look.evidence,
                    "provider": provider,
                    "id": allocation_id,
                },
            )

    def doubt_end(self, provider: str, allocation_id: str) -> None:
        """Forget since when it is said to be ending: the word was not kept in time, and it may have billed on."""
        with self._db.write():
            self._db.execute(
                "UPDATE allocations SET ending = NULL WHERE provider = ? AND id = ?", (provider, allocation_id)
            )

    def ended_attempts(self) -> set[tuple[str, int]]:
        """Name the attempts, (run id, number), that this ledger records as ended: proven gone, or never rented."""
        ended = set()
        for row in self._db.all("SELECT run_id, state, json_extract(memory, '$.attempt') AS attempt FROM runs"):
            over = row["attempt"] + (row["state"] == "done")
            ended |= {(row["run_id"], number) for number in range(1, over)}
        return ended
