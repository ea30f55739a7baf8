"""The ledger: what was launched, what was seen, what it cost. SQLite in WAL mode, `synchronous=FULL`.

Intent is committed before the deed: `deed()` writes one event before a money verb and one after.
Every write of a controller carries its lease's epoch; a controller that lost its lease gets `LeaseLostError`
and can neither record nor begin anything more. Standard library only: `gpurun ps` reads it.
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from orchestrator import memo
from orchestrator.caps import check_cap, extension
from orchestrator.cost import Spell
from orchestrator.database import Database
from orchestrator.measuring import Measuring
from orchestrator.records import Deed, Event, Lease, RunRow
from orchestrator.render import money
from orchestrator.reopening import Reopening
from orchestrator.spending import Spending
from providers.errors import GpurunError, LeaseLostError, UsageError

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterator, Sequence
    from datetime import datetime
    from pathlib import Path

    from orchestrator.facts import Memory, Wish
    from providers.base import Holder

LEASE_SECONDS = 30.0


class Ledger(Spending, Measuring, Reopening):
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
                check_cap(self.runs(), row.run_id, row.worst, now, monthly_cap)
            self._db.execute(
                "INSERT INTO runs"
                " (run_id, template, provider, created, deadline, ceiling, grace_seconds, max_attempts, max_cost,"
                " worst, plan, memory, state, skew)"
                " VALUES (:run_id, :template, :provider, :created, :deadline, :ceiling, :grace_seconds, :max_attempts,"
                " :max_cost, :worst, :plan, :memory, :state, :skew)",
                memo.columns(row),
            )
            self._event(now, row.run_id, 0, "cli", "admit", "done", f"worst case ${row.worst}")

    def save(
        self,
        lease: Lease,
        memory: Memory,
        now: datetime,
        *,
        looked: bool = False,
        skew: float = 0.0,
        late: int = 0,
        granted: Wish | None = None,
    ) -> None:
        """Remember; a change of state becomes an event.

        `skew` is the vendor's clock less ours, seconds; `late` moves the limits by the seconds for which nothing
        could be rented, since they count from the launch; `granted` are the limits from now on.

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
            if late:
                self._shift_wish(lease.run_id, memory.answered, late)
            if granted is not None:
                self._grant(lease, memory.attempt, granted, now)
            if before != memory.state:
                never = before == "provisioning" and memory.state == "pending"  # an unclear launch, found by nobody
                evidence = memory.evidence if before == "terminating" or never or memory.is_done else ""
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

    def saw_holders(self, lease: Lease, attempt: int, holders: Sequence[Holder], now: datetime) -> None:
        """Note who can stop the meter, as read just now; a proof that came or went becomes an event."""
        with self._db.write():
            self._fence(lease, now)
            kept = {one["name"]: one for one in self._holders(lease.run_id)}
            for one in holders:
                if kept.get(one.name, {}).get("proof") != one.proof:
                    text = f"{one.name}: {one.proof} {one.evidence}".strip()
                    self._event(now, lease.run_id, attempt, lease.actor, "holder", "note", text)
                last = kept.get(one.name, {}).get("proven_at")  # so that an absence says since when
                values = memo.holder_values(one)
                kept[one.name] = values | {"proven_at": values["proven_at"] or last}
            text = json.dumps(list(kept.values()))
            self._db.execute("UPDATE runs SET holders = ? WHERE run_id = ?", (text, lease.run_id))

    def _holders(self, run_id: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(
            self._db.one("SELECT holders FROM runs WHERE run_id = ?", run_id)["holders"]
        )
        return found

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

    # ── an extension ────────────────────────────────────────────────────────────────────────────

    def wish_extension(
        self,
        run_id: str,
        *,
        deadline: datetime,
        max_cost: Decimal | None,
        now: datetime,
        monthly_cap: Decimal | None,
    ) -> int:
        """Leave the user's wish for a later deadline with whoever holds the run; gives the wish's number.

        `max_cost` raises the run's own budget. The answer is an event `extend`, done or failed, by that number.

        Raises:
            RefusedError: it is over or ending, not later than now, or dearer than the budget or the cap allows.
        """
        with self._db.write():
            row = self.run(run_id)
            wish = extension(row, deadline, max_cost)
            if monthly_cap is not None:
                check_cap(self.runs(), run_id, wish.worst, now, monthly_cap)
            self._db.execute("UPDATE runs SET wish = ? WHERE run_id = ?", (memo.dump_wish(wish), run_id))
            text = f"{wish.id}: to {wish.deadline:%d %b %H:%M:%S} UTC, at most {money(wish.worst)}"
            self._event(now, run_id, row.memory.attempt, "cli", "extend", "intent", text)
            return wish.id

    def _shift_wish(self, run_id: str, answered: int, late: int) -> None:
        """Move what was asked for and not answered as the limits are: it was for so much more than those."""
        text = self._db.one("SELECT wish FROM runs WHERE run_id = ?", run_id)["wish"]
        wish = None if text is None else memo.load_wish(text)
        if wish is not None and wish.id > answered:
            by = timedelta(seconds=late)
            later = replace(wish, deadline=wish.deadline + by, ceiling=wish.ceiling + by)
            self._db.execute("UPDATE runs SET wish = ? WHERE run_id = ?", (memo.dump_wish(later), run_id))

    def _grant(self, lease: Lease, attempt: int, wish: Wish, now: datetime) -> None:
        self._db.execute(
            "UPDATE runs SET deadline = ?, ceiling = ?, worst = ?, max_cost = coalesce(?, max_cost),"
            " plan = json_set(plan, '$.budget_bound', json('false')) WHERE run_id = ?",  # it is hours that end it now
            (
                wish.deadline.timestamp(),
                wish.ceiling.timestamp(),
                str(wish.worst),
                None if wish.max_cost is None else str(wish.max_cost),
                lease.run_id,
            ),
        )
        text = f"{wish.id}: ends by {wish.deadline:%d %b %H:%M:%S} UTC"
        self._event(now, lease.run_id, attempt, lease.actor, "extend", "done", text)

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
            wish=None if row["wish"] is None else memo.load_wish(row["wish"]),
            holders=tuple(json.loads(row["holders"])),
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
