"""A quick look at the ledger for `ps`, the viewer and finding runs: read only, no life cycle, nothing heavy imported.

ledger.py is the ledger; this reads the same tables with plain SQL, because `gpurun ps` must start like a bare script.
"""

from __future__ import annotations

import os
import sqlite3
from decimal import Decimal
from typing import TYPE_CHECKING, NamedTuple

from orchestrator.words import Reason, is_unproven, outcome_of
from providers.errors import GpurunError, LedgerError, StateError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from orchestrator.home import Home

_COLUMNS = """
    SELECT run_id, template, provider, state, coalesce(reason, '') AS reason,
        coalesce(json_extract(memory, '$.detail'), '') AS detail,
        coalesce(json_extract(memory, '$.evidence'), '') AS evidence,
        coalesce(json_extract(memory, '$.allocation_id'), '') AS allocation_id,
        json_extract(memory, '$.attempt') AS attempt, json_extract(memory, '$.step') AS step,
        created, deadline, ceiling, seen, ended, stop_requested IS NOT NULL AS stopping,
        lease_holder, lease_until, worst, skew, holders, json_extract(plan, '$.holders') AS planned,
        provider = 'colab' AND json_extract(plan, '$.store') IS NULL AS needs_us,
        json_extract(memory, '$.freed') IS NOT NULL AS freed,
        CASE json_extract(memory, '$.launch') WHEN 'intended' THEN json_extract(memory, '$.intended') END AS intended,
        json_extract(memory, '$.offer.price') AS price
    FROM runs
"""
_OPEN = " WHERE state != 'done' ORDER BY created DESC, rowid DESC"
_OVER = " WHERE state = 'done' ORDER BY created DESC, rowid DESC LIMIT ?"


class Run(NamedTuple):
    """One run as `ps` shows it. Times are epoch seconds, money is USD."""

    run_id: str
    template: str
    provider: str
    state: str
    reason: str  # "" = not ended
    detail: str
    evidence: str
    allocation_id: str
    attempt: int
    step: int
    created: float
    deadline: float
    ceiling: float
    seen: float | None
    ended: float | None
    stopping: bool
    lease_holder: str | None
    lease_until: float | None
    worst: Decimal
    skew: float = 0.0  # seconds that the vendor's clock is ahead of ours
    holders: str = "[]"  # JSON: who can stop the meter, as last read
    planned: str | None = None  # JSON: the same as it was planned
    needs_us: bool = False  # a sleep of this computer may cost the run: awake.py
    freed: bool = False  # nothing bills any more, and only what it left in the store is awaited
    intended: str | None = None  # when a launch was sent of which nobody knows yet what it made: RFC 3339
    price: str | None = None  # of the offer that this attempt takes, USD an hour
    low: Decimal = Decimal(0)  # accrued, between `low` and `high`
    high: Decimal = Decimal(0)
    unproven: bool = False  # it may bill though it should not: its end is not proven, or it is past its ceiling

    @property
    def is_done(self) -> bool:
        """Nothing bills, and that was read back."""
        return self.state == "done"

    @property
    def outcome(self) -> str:
        """`succeeded failed stopped`; "" while it goes on."""
        if not self.is_done or not self.reason:
            return ""
        return outcome_of(Reason(self.reason)).value

    @property
    def intended_at(self) -> float:
        """When the launch was sent that is not settled, by the vendor's clock; 0 = there is none."""
        from datetime import datetime

        return datetime.fromisoformat(self.intended).timestamp() if self.intended else 0.0

    def held_by(self) -> list[dict[str, str]]:
        """Who can stop the meter: as last read, and as planned where nothing was read yet. Fields of a `Holder`."""
        import json

        read = json.loads(self.holders)
        known = {one["name"] for one in read}
        return [*read, *(one for one in json.loads(self.planned or "[]") if one["name"] not in known)]

    def seconds(self, now: float) -> float:
        """How long it lasted, or has so far, by the vendor's clock, which wrote `created`; `now` is by ours."""
        return max((self.ended or now) + self.skew - self.created, 0.0)

    def held(self, now: float) -> bool:
        """Whether a live controller has it."""
        if self.lease_until is None or self.lease_until <= now:
            return False
        from orchestrator.processes import is_alive

        return is_alive(self.lease_holder)


def runs(home: Home, now: float, last: int | None = None) -> list[Run]:
    """Read runs: what may bill though it should not first, then what goes on, then the `last` that are over.

    Newest first within each.

    Raises:
        LedgerError: the ledger is damaged or was written by another version.
        StateError: the home can't be looked into, which says nothing about what runs.
    """
    try:
        home.ledger.stat()
    except FileNotFoundError:
        return []  # nothing was ever launched from here
    except OSError as error:
        hint = "name another home: export GPURUN_HOME=~/gpurun"
        raise StateError(f"the home {home.root} can't be read: {error.strerror}", hint=hint) from error
    try:
        return _read(home.ledger, now, last)
    except sqlite3.DatabaseError:
        # Damaged, locked, or of an older gpurun: the ledger itself brings it up to date or says what is wrong.
        from orchestrator.ledger import Ledger

        Ledger(home.ledger).close()
    try:
        return _read(home.ledger, now, last)
    except sqlite3.Error as error:
        raise LedgerError(f"the ledger {home.ledger} can't be read: {error}", hint="gpurun doctor") from error


def _read(path: Path, now: float, last: int | None) -> list[Run]:
    if os.access(path.parent, os.W_OK):
        database = sqlite3.connect(path, timeout=20, isolation_level=None)
    else:
        from orchestrator.database import read_only

        database = read_only(path)
    try:
        database.execute("BEGIN")  # one moment for all: a run that ends in between would be listed twice
        found = [_run(row) for row in database.execute(_COLUMNS + _OPEN)]
        found += [_run(row) for row in database.execute(_COLUMNS + _OVER, (-1 if last is None else last,))]
        return sorted(
            (_judged(_with_money(database, run, now), now) for run in found), key=lambda run: not run.unproven
        )
    finally:
        database.close()


def _run(row: Sequence[object]) -> Run:
    run = Run(*row)  # type: ignore[arg-type]  # the columns stand in the fields' order
    flags = {name: bool(getattr(run, name)) for name in ("stopping", "needs_us", "freed")}
    return run._replace(worst=Decimal(run.worst), **flags)  # type: ignore[arg-type]  # they are no others


def _judged(run: Run, now: float) -> Run:
    overdue = now + run.skew > run.ceiling and run.high > 0
    return run._replace(unproven=is_unproven(run.state, freed=run.freed, overdue=overdue))


def _with_money(database: sqlite3.Connection, run: Run, now: float) -> Run:
    query = (
        "SELECT price, step_seconds, start_low, start_high, billing_seen, ended FROM allocations"
        " WHERE run_id = ? AND CAST(price AS REAL) > 0"
    )
    rows = database.execute(query, (run.run_id,)).fetchall()
    if not rows and not run.intended:
        return run
    from orchestrator.cost import Spell, accrued, unsettled

    spells = [Spell(Decimal(row[0]), *row[1:]) for row in rows]
    if run.intended and run.price:
        spells.append(unsettled(Decimal(run.price), run.intended_at))
    total = accrued(spells, (run.ended or now) + run.skew)
    return run._replace(low=total.low, high=total.high)


def find(home: Home, prefix: str | None, now: float) -> Run:
    """Find the one run whose id begins with `prefix`; without one, the newest.

    Raises:
        UsageError: there is none, or more than one.
    """
    every = sorted(runs(home, now), key=lambda run: run.created, reverse=True)
    if not every:
        raise UsageError("there are no runs yet", hint="gpurun launch demo")
    if not prefix:
        return every[0]
    found = [run for run in every if run.run_id == prefix] or [run for run in every if run.run_id.startswith(prefix)]
    if len(found) == 1:
        return found[0]
    if found:
        names = " ".join(run.run_id for run in found[:5]) + (" …" if len(found) > 5 else "")
        raise UsageError(f'{len(found)} runs begin with "{prefix}": {names}', hint="add a few letters more")
    from difflib import get_close_matches

    close = get_close_matches(prefix, [run.run_id for run in every], n=1, cutoff=0.5)
    guess = f"; did you mean {close[0]}?" if close else ""
    raise UsageError(f'no run is called "{prefix}"{guess}', hint="gpurun ps --all")


def tend(home: Home, found: Sequence[Run], now: float) -> list[str]:
    """Start a controller for every unfinished run that nobody holds; gives their ids.

    Raises:
        GpurunError: the defaults can't be read; the controllers of what bills were started all the same.
    """
    alone = [run for run in found if not run.is_done and not run.held(now)]
    if not alone or not os.access(home.root, os.W_OK):  # a controller could note nothing there: it would not begin
        return []
    from orchestrator import settings_file
    from orchestrator.processes import spawn_controller

    try:
        settings_file.export_python(home.root / settings_file.NAME)
    except GpurunError:
        for run in alone:
            if run.provider != "local":  # which Python trains here is not known: what costs nothing waits for it
                spawn_controller(home, run.run_id)
        raise
    for run in alone:
        spawn_controller(home, run.run_id)
    return [run.run_id for run in alone]


def store_troubles(home: Home, found: Sequence[Run]) -> dict[str, list[str]]:
    """Read why results don't get to the store, by run id; who has none, or no trouble with it, is left out."""
    from orchestrator.home import read_json

    said = {run.run_id: (run, read_json(home.run(run.run_id).status) or {}) for run in found if not run.is_done}
    why = ("store_error", "store_silent", "launch_waits")
    if not any(status.get(key) for _, status in said.values() for key in why):
        return {}
    from orchestrator import store_words

    told = {run_id: store_words.trouble(run, status) for run_id, (run, status) in said.items()}
    return {run_id: words for run_id, words in told.items() if words}


def steps(home: Home, found: Sequence[Run]) -> dict[str, str]:
    """Read how far each run is, "120/480", from what its agent last said."""
    from orchestrator.home import read_json

    told = {}
    for run in found:
        status = read_json(home.run(run.run_id).status) if not run.is_done else None
        total = (status or {}).get("total_steps")
        step = max(run.step, int((status or {}).get("step") or 0))
        if step:
            told[run.run_id] = f"{step}/{total}" if isinstance(total, int) and total else str(step)
    return told
