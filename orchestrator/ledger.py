"""The ledger: what was launched, what was seen, what it cost. SQLite in WAL mode, `synchronous=FULL`.

Intent is committed before the deed: `deed()` writes one event before a money verb and one after.
Every write of a controller carries its lease's epoch; a controller that lost its lease gets `LeaseLostError`
and can neither record nor begin anything more. Standard library only: `gpurun ps` reads it.
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from decimal import Decimal
from typing import TYPE_CHECKING

from orchestrator import memo
from orchestrator.cost import Spell
from orchestrator.database import Database
from orchestrator.records import Deed, Event, Lease, RunRow
from providers.base import Phase
from providers.errors import GpurunError, LeaseLostError, RefusedError, UsageError

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterator
    from datetime import datetime
    from pathlib import Path

    from orchestrator.facts import Memory
    from providers.base import Mark, Observation

LEASE_SECONDS = 30.0
_SLACK_SECONDS = 5.0  # by which two clocks that are taken for one may differ


class Ledger:
    """One open connection. Not shared between threads: each opens its own."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._db = Database(path)

    def close(self) -> None:
        """Close the connection."""
        self._db.close()

    # ── writing runs ────────────────────────────────────────────────────────────────────────────

    @property
    def home_id(self) -> str:
        """Four hex digits that tell this home's marks from another's."""
        return str(self._db.one("SELECT value FROM meta WHERE key = 'home'")["value"])

    def admit(self, row: RunRow, now: datetime, *, monthly_cap: Decimal | None = None) -> None:
        """Enter a new run, in one transaction with the check of the cap: of two that race, one is refused.

        Raises:
            RefusedError: this month's spending, with the worst case of all open runs, would pass the cap.
        """
        with self._db.write():
            if monthly_cap is not None:
                self._check_cap(row, now, monthly_cap)
            self._db.execute(
                "INSERT INTO runs"
                " (run_id, template, provider, created, deadline, ceiling, grace_seconds, max_attempts, max_cost,"
                " worst, plan, memory, state, skew)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    row.run_id,
                    row.template,
                    row.provider,
                    row.created,
                    row.deadline,
                    row.ceiling,
                    row.grace_seconds,
                    row.max_attempts,
                    None if row.max_cost is None else str(row.max_cost),
                    str(row.worst),
                    json.dumps(row.plan),
                    memo.dump(row.memory),
                    row.memory.state,
                    row.skew,
                ),
            )
            self._event(now, row.run_id, 0, "cli", "admit", "done", f"worst case ${row.worst}")

    def save(
        self, lease: Lease, memory: Memory, now: datetime, *, looked: bool = False, skew: float = 0.0, late: int = 0
    ) -> None:
        """Remember; a change of state becomes an event.

        `skew` is the vendor's clock less ours, seconds; `late` moves the limits by the seconds for which nothing
        could be rented, since they count from the launch.

        Raises:
            LeaseLostError: another controller holds the run now.
        """
        with self._db.write():
            before = self._fence(lease, now)
            self._db.execute(
                "UPDATE runs SET memory = ?, state = ?, reason = ?, seen = CASE WHEN ? THEN ? ELSE seen END,"
                " ended = CASE WHEN ? THEN coalesce(ended, ?) END, skew = ?, deadline = deadline + ?,"
                " ceiling = ceiling + ? WHERE run_id = ?",
                (
                    memo.dump(memory),
                    memory.state,
                    memory.reason,
                    looked,
                    now.timestamp(),
                    memory.is_done,
                    now.timestamp(),
                    skew,
                    late,
                    late,
                    lease.run_id,
                ),
            )
            if before != memory.state:
                evidence = memory.evidence if before == "terminating" or memory.is_done else ""
                words = " · ".join(part for part in (memory.reason or "", memory.detail, evidence) if part)
                text = f"{before} -> {memory.state} {words}".strip()
                self._event(now, lease.run_id, memory.attempt, lease.actor, "state", "note", text)

    @contextmanager
    def deed(self, lease: Lease, attempt: int, verb: str, text: str, clock: Callable[[], datetime]) -> Iterator[Deed]:
        """Write the intent, let the deed happen, write how it ended. Fenced: a stale lease does no deed."""
        with self._db.write():
            self._fence(lease, clock())
            self._event(clock(), lease.run_id, attempt, lease.actor, verb, "intent", text)
        deed = Deed()
        try:
            yield deed
        except (GpurunError, OSError) as error:
            self.note(lease.run_id, attempt, lease.actor, verb, "failed", f"{type(error).__name__}: {error}", clock())
            raise
        self.note(lease.run_id, attempt, lease.actor, verb, "done", deed.text, clock())

    def note(self, run_id: str, attempt: int, actor: str, verb: str, kind: str, text: str, now: datetime) -> None:
        """Append one event."""
        with self._db.write():
            self._event(now, run_id, attempt, actor, verb, kind, text)

    def request_stop(self, run_id: str, now: datetime) -> None:
        """Leave the user's wish for whoever holds the run."""
        with self._db.write():
            self._db.execute(
                "UPDATE runs SET stop_requested = coalesce(stop_requested, ?) WHERE run_id = ?",
                (now.timestamp(), run_id),
            )
            self._event(now, run_id, 0, "cli", "stop", "note", "asked by the user")

    # ── money ───────────────────────────────────────────────────────────────────────────────────

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

    def saw_billing(self, provider: str, allocation_id: str, now: datetime, look: Observation) -> None:
        """Note a read that said "billing", with what the vendor told: price, start, whether the end is under way.

        While it is queued, or has failed the vendor's check, it may bill or may not. That moves the latest moment at
        which the billing can have begun, as does the first read of a machine that is up: it came up before that.
        """
        at, began = now.timestamp(), None if look.billed_from is None else look.billed_from.timestamp()
        # One that was adopted billed before: that is not this run's.
        queued = (look.phase is Phase.QUEUED or bool(look.failure)) and began is None and not look.ending
        latest = began is None and (queued or look.phase is Phase.READY)
        with self._db.write():
            self._db.execute(
                "UPDATE allocations SET price = coalesce(:price, price), ended = NULL,"
                " ending = CASE WHEN :ending THEN coalesce(ending, :at) END,"
                " billing_seen = CASE WHEN :queued OR :ending THEN billing_seen"
                "   ELSE max(coalesce(billing_seen, 0), :at) END,"
                " start_low = CASE WHEN :began > start_low - :slack THEN :began ELSE start_low END,"
                " start_high = CASE WHEN :began > start_low - :slack THEN :began"
                "   WHEN :latest AND billing_seen IS NULL THEN max(start_high, :at)"
                "   ELSE start_high END"
                " WHERE provider = :provider AND id = :id",
                {
                    "price": None if look.price is None else str(look.price),
                    "ending": look.ending,
                    "queued": queued,
                    "latest": latest,
                    "at": at,
                    "began": began,
                    "slack": _SLACK_SECONDS,
                    "provider": provider,
                    "id": allocation_id,
                },
            )

    def saw_free(self, provider: str, allocation_id: str, now: datetime, look: Observation) -> None:
        """Note that the end is proven, on whose word.

        It bills until the vendor's own record says, else until the vendor first said that it was ending it.
        """
        until = now.timestamp() if look.billed_until is None else look.billed_until.timestamp()
        own = look.billed_until is not None
        with self._db.write():
            self._db.execute(
                "UPDATE allocations SET ended = CASE WHEN ? THEN ? ELSE coalesce(ending, ?) END, evidence = ?"
                " WHERE provider = ? AND id = ? AND ended IS NULL",
                (own, until, until, look.evidence, provider, allocation_id),
            )

    def doubt_end(self, provider: str, allocation_id: str) -> None:
        """Forget since when it is said to be ending: the word was not kept in time, and it may have billed on."""
        with self._db.write():
            self._db.execute(
                "UPDATE allocations SET ending = NULL WHERE provider = ? AND id = ?", (provider, allocation_id)
            )

    # ── the lease ───────────────────────────────────────────────────────────────────────────────

    def acquire(self, run_id: str, holder: str, now: datetime, is_alive: Callable[[str], bool]) -> Lease | None:
        """Take the run, or None while a live controller holds it. Each taking raises the epoch."""
        with self._db.write():
            row = self._db.one("SELECT lease_holder, lease_epoch, lease_until FROM runs WHERE run_id = ?", run_id)
            held = row["lease_until"] is not None and row["lease_until"] > now.timestamp()
            if held and row["lease_holder"] != holder and is_alive(row["lease_holder"]):
                return None
            epoch = int(row["lease_epoch"]) + 1
            self._db.execute(
                "UPDATE runs SET lease_holder = ?, lease_epoch = ?, lease_until = ? WHERE run_id = ?",
                (holder, epoch, now.timestamp() + LEASE_SECONDS, run_id),
            )
            return Lease(run_id, epoch)

    def renew(self, lease: Lease, now: datetime) -> None:
        """Hold on for another `LEASE_SECONDS`."""
        with self._db.write():
            self._fence(lease, now)

    def release(self, lease: Lease) -> None:
        """Let go, if it is still ours."""
        with self._db.write():
            self._db.execute(
                "UPDATE runs SET lease_until = NULL, lease_holder = NULL WHERE run_id = ? AND lease_epoch = ?",
                (lease.run_id, lease.epoch),
            )

    # ── reading ─────────────────────────────────────────────────────────────────────────────────

    def run(self, run_id: str) -> RunRow:
        """Read one run.

        Raises:
            UsageError: no such run.
        """
        rows = self._db.all("SELECT * FROM runs WHERE run_id = ?", run_id)
        if not rows:
            raise UsageError(f"no run is called {run_id}", hint="see them all: gpurun ps --all")
        return self._row(rows[0])

    def runs(self, *, unfinished: bool = False) -> list[RunRow]:
        """Read all runs, newest first."""
        query = "SELECT * FROM runs WHERE state != 'done' OR ? ORDER BY created DESC, rowid DESC"
        return [self._row(row) for row in self._db.all(query, not unfinished)]

    def events(self, run_id: str) -> list[Event]:
        """Read a run's history in order."""
        rows = self._db.all("SELECT * FROM events WHERE run_id = ? ORDER BY id", run_id)
        return [Event(r["time"], r["attempt"], r["actor"], r["verb"], r["kind"], r["text"]) for r in rows]

    def check(self) -> None:
        """Let SQLite check the whole file.

        Raises:
            LedgerError: it is damaged.
        """
        verdict = self._db.one("PRAGMA quick_check")[0]
        if verdict != "ok":
            raise self._db.broken(verdict)

    # ── inside ──────────────────────────────────────────────────────────────────────────────────

    def _row(self, row: sqlite3.Row) -> RunRow:
        spells = self._db.all("SELECT * FROM allocations WHERE run_id = ? ORDER BY attempt", row["run_id"])
        return RunRow(
            run_id=row["run_id"],
            template=row["template"],
            provider=row["provider"],
            created=row["created"],
            deadline=row["deadline"],
            ceiling=row["ceiling"],
            grace_seconds=row["grace_seconds"],
            max_attempts=row["max_attempts"],
            max_cost=None if row["max_cost"] is None else Decimal(row["max_cost"]),
            worst=Decimal(row["worst"]),
            plan=json.loads(row["plan"]),
            memory=memo.load(row["memory"], stop_requested=row["stop_requested"] is not None),
            seen=row["seen"],
            skew=row["skew"],
            ended=row["ended"],
            lease_holder=row["lease_holder"],
            lease_epoch=row["lease_epoch"],
            lease_until=row["lease_until"],
            spells=tuple(
                Spell(
                    Decimal(s["price"]),
                    s["step_seconds"],
                    s["start_low"],
                    s["start_high"],
                    s["billing_seen"],
                    s["ended"],
                )
                for s in spells
            ),
        )

    def _check_cap(self, row: RunRow, now: datetime, cap: Decimal) -> None:
        month = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0).timestamp()
        spent = reserved = Decimal(0)
        for other in self.runs():
            if not other.memory.is_done:
                reserved += max(other.worst, other.accrued(now.timestamp()).high)
            elif (other.ended or 0) >= month:
                spent += other.accrued(now.timestamp()).high
        if spent + reserved + row.worst > cap:
            raise RefusedError(
                f"the monthly cap is ${cap}: ${spent:.2f} spent and ${reserved:.2f} reserved by open runs"
                f" (this home's ledger only) leave no room for ${row.worst}",
                hint="lower --max-hours or --max-cost, or raise the cap: gpurun config set monthly-cap …",
            )

    def _fence(self, lease: Lease, now: datetime) -> str:
        row = self._db.one("SELECT state, lease_epoch FROM runs WHERE run_id = ?", lease.run_id)
        if row["lease_epoch"] != lease.epoch:
            raise LeaseLostError(f"another controller took over {lease.run_id} (epoch {row['lease_epoch']})")
        self._db.execute(
            "UPDATE runs SET lease_until = ? WHERE run_id = ?", (now.timestamp() + LEASE_SECONDS, lease.run_id)
        )
        return str(row["state"])

    def _event(self, now: datetime, run_id: str, attempt: int, actor: str, verb: str, kind: str, text: str) -> None:
        self._db.execute(
            "INSERT INTO events (time, run_id, attempt, actor, verb, kind, text) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (now.timestamp(), run_id, attempt, actor, verb, kind, text),
        )
