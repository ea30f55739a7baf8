"""The ledger's tables, and how an older ledger becomes today's.

Each entry of `MIGRATIONS` brings `PRAGMA user_version` up by one; none is ever edited after a release.
Money is TEXT (a decimal), times are REAL (epoch seconds, UTC; in `allocations` by the vendor's clock).
"""

from __future__ import annotations

MIGRATIONS = (
    """
    CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;

    CREATE TABLE runs (
        run_id TEXT PRIMARY KEY,
        template TEXT NOT NULL,
        provider TEXT NOT NULL,
        created REAL NOT NULL,
        deadline REAL NOT NULL,
        ceiling REAL NOT NULL,
        grace_seconds INTEGER NOT NULL,
        max_attempts INTEGER NOT NULL,
        max_cost TEXT,                 -- USD, NULL = the deadline alone limits it
        worst TEXT NOT NULL,           -- USD reserved against the monthly cap while the run is open
        plan TEXT NOT NULL,            -- JSON: what the user was shown
        memory TEXT NOT NULL,          -- JSON: lifecycle.Memory
        state TEXT NOT NULL,           -- of memory, for queries
        reason TEXT,
        stop_requested REAL,           -- written by anyone, never by the controller
        seen REAL,                     -- last tick that could look
        ended REAL,
        lease_holder TEXT,             -- host:pid:start
        lease_epoch INTEGER NOT NULL DEFAULT 0,
        lease_until REAL
    ) STRICT;

    CREATE TABLE allocations (
        id TEXT NOT NULL,
        provider TEXT NOT NULL,
        run_id TEXT NOT NULL REFERENCES runs,
        attempt INTEGER NOT NULL,
        mark TEXT NOT NULL,
        account TEXT NOT NULL,
        price TEXT NOT NULL,           -- USD an hour, as paid
        step_seconds INTEGER NOT NULL, -- the vendor's billing step
        start_low REAL NOT NULL,       -- intent: it can't have billed before
        start_high REAL NOT NULL,      -- reply: it may have billed since
        billing_seen REAL,             -- last read that said "billing"
        ended REAL,                    -- first read that said "free"
        evidence TEXT NOT NULL DEFAULT '',
        PRIMARY KEY (provider, id)
    ) STRICT;

    CREATE TABLE events (
        id INTEGER PRIMARY KEY,
        time REAL NOT NULL,
        run_id TEXT NOT NULL,
        attempt INTEGER NOT NULL,
        actor TEXT NOT NULL,           -- controller cli guard
        verb TEXT NOT NULL,            -- launch start terminate … or state
        kind TEXT NOT NULL,            -- intent done failed note
        text TEXT NOT NULL
    ) STRICT;
    CREATE INDEX events_of_run ON events (run_id, id);
    CREATE INDEX allocations_of_run ON allocations (run_id);
    CREATE TRIGGER events_are_kept BEFORE DELETE ON events BEGIN SELECT RAISE(ABORT, 'events are append-only'); END;
    CREATE TRIGGER events_stand BEFORE UPDATE ON events BEGIN SELECT RAISE(ABORT, 'events are append-only'); END;
    """,
    """
    ALTER TABLE runs ADD COLUMN skew REAL NOT NULL DEFAULT 0;  -- seconds that the vendor's clock is ahead of ours
    ALTER TABLE allocations ADD COLUMN ending REAL;            -- since when the vendor says that it is ending it
    """,
    """
    ALTER TABLE runs ADD COLUMN wish TEXT;                         -- JSON: the extension that the user asked for last
    ALTER TABLE runs ADD COLUMN holders TEXT NOT NULL DEFAULT '[]';  -- JSON: who can stop the meter, as last read
    """,
    """
    CREATE TABLE measured (
        run_id TEXT PRIMARY KEY REFERENCES runs,
        ended REAL NOT NULL,
        facts TEXT NOT NULL  -- JSON: estimate.learnt.Measured
    ) STRICT;
    """,
)
