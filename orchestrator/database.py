"""One connection to the ledger's file: opened in WAL mode, brought up to date, every fault told as `LedgerError`.

Not here: what the tables mean (ledger.py). Standard library only.
"""

from __future__ import annotations

import errno
import os
import secrets
import shlex
import sqlite3
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from orchestrator.schema import MIGRATIONS
from providers.errors import LedgerError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_BUSY_SECONDS = 20.0
_TRIES = 5
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK}  # a file system without them: SQLite makes it
_HINTS = {
    "SQLITE_FULL": "free some space on its disk, then the same again",
    "SQLITE_BUSY": "another gpurun is writing to it: the same again",
    "SQLITE_CANTOPEN": "its folder must be yours to write, or name another home: export GPURUN_HOME=~/gpurun",
    "SQLITE_READONLY": "its folder must be yours to write, or name another home: export GPURUN_HOME=~/gpurun",
    "SQLITE_IOERR": "the disk fails or is full: df",
}


class Database:
    """One open connection, `synchronous=FULL`. Not shared between threads.

    Raises:
        LedgerError: from every method, with the next thing to type.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            if not path.stat().st_size:  # a new one is never seen empty, and a home has one identity
                raise self.broken("it is empty")
        except FileNotFoundError:
            self._create()
        except OSError:
            pass  # SQLite says what is wrong with it
        self._open(path)

    def _open(self, path: Path) -> None:
        try:
            if is_read_only(path):
                self._connection = read_only(path)
            else:
                self._connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None)
                self._use_wal()
                self._connection.execute("PRAGMA synchronous=FULL")
                self._connection.execute("PRAGMA foreign_keys=ON")
            self._connection.row_factory = sqlite3.Row
            self._migrate()
        except sqlite3.Error as error:
            raise self.broken(error) from error

    def _create(self) -> None:
        """Make a new ledger aside, whole, then put it in its place; of two that race one counts."""
        aside = self.path.with_name(f".{self.path.name}.{os.getpid()}-{secrets.token_hex(4)}")
        try:
            self._open(aside)
            self.close()
            os.link(aside, self.path)
        except FileExistsError:
            pass  # another process was quicker
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise self.broken(error) from error
        finally:
            for end in ("", "-wal", "-shm"):
                with suppress(OSError):
                    aside.with_name(aside.name + end).unlink()

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def execute(self, query: str, values: tuple[object, ...] | dict[str, object] = ()) -> None:
        """Write, inside `write()`."""
        self._connection.execute(query, values)

    def all(self, query: str, *values: object) -> list[sqlite3.Row]:
        """Read every row."""
        try:
            return self._connection.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise self.broken(error) from error

    def one(self, query: str, *values: object) -> sqlite3.Row:
        """Read the one row that must be there."""
        rows = self.all(query, *values)
        if not rows:
            raise self.broken(f"nothing answers {query!r}")
        return rows[0]

    @contextmanager
    def write(self) -> Iterator[None]:
        """One transaction that takes the write lock at once, so that what was read is still true when it is written."""
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                if self._connection.in_transaction:  # on a full disk SQLite has rolled back by itself
                    self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            raise self.broken(error) from error

    def broken(self, error: object) -> LedgerError:
        """Make the error for a fault of the file's."""
        kind = str(getattr(error, "sqlite_errorname", ""))
        hint = next((words for name, words in _HINTS.items() if kind.startswith(name)), "")
        if not hint:  # only what is damaged is to be moved away: the ledger knows what may bill
            old, aside = shlex.quote(str(self.path)), shlex.quote(f"{self.path}.damaged")
            hint = f"move it away, then see what still runs: mv {old} {aside} && gpurun sweep"
        return LedgerError(f"the ledger {self.path} can't be used: {error}", hint=hint)

    def _use_wal(self) -> None:
        """Switch a new file to WAL. SQLite's own waiting does not cover that switch: two that race get "locked"."""
        until = time.monotonic() + _BUSY_SECONDS
        while True:
            try:
                self._connection.execute("PRAGMA journal_mode=WAL")
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > until:
                    raise
                time.sleep(0.02)
            else:
                return

    def _migrate(self) -> None:
        version = int(self.one("PRAGMA user_version")[0])
        if version == len(MIGRATIONS):
            return
        if version > len(MIGRATIONS):
            raise LedgerError(
                f"{self.path} was written by a newer gpurun (version {version})",
                hint="upgrade: pip install -U gpurun",
            )
        with self.write():
            version = int(self.one("PRAGMA user_version")[0])  # another process may have been quicker
            for number, script in enumerate(MIGRATIONS[version:], version + 1):
                for statement in _statements(script):
                    self._connection.execute(statement)
                self._connection.execute(f"PRAGMA user_version = {number}")
            self._connection.execute("INSERT OR IGNORE INTO meta VALUES ('home', ?)", (secrets.token_hex(2),))


def is_read_only(path: Path) -> bool:
    """Whether the ledger is there and its folder can't be written: then all that can be done is to look."""
    return path.exists() and not os.access(path.parent, os.W_OK)


def read_only(path: Path) -> sqlite3.Connection:
    """Open a ledger to look at it, where nothing can be written.

    With a log beside it, somebody writes, or did and died: SQLite itself reads that. Without one all is in the file,
    which SQLite will not open where it can't make a log. It may be told that nobody writes (`immutable`), and nobody
    knows that: another mount may be writable. So the file is read whole, and again where it changed meanwhile.

    Raises:
        sqlite3.Error: it can't be read.
    """
    try:
        for _ in range(_TRIES):
            before = path.stat()
            if path.with_name(f"{path.name}-wal").exists():
                connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)
                connection.execute("PRAGMA query_only=ON")
                return connection
            data = bytearray(path.read_bytes())
            after = path.stat()
            if (before.st_mtime_ns, before.st_size, before.st_ino) == (after.st_mtime_ns, after.st_size, after.st_ino):
                return _in_memory(data)
    except OSError as error:
        raise sqlite3.OperationalError(f"{path}: {error.strerror}") from error
    raise sqlite3.OperationalError(f"{path} is being written all the time")


def _in_memory(data: bytearray) -> sqlite3.Connection:
    data[18:20] = b"\x01\x01"  # no longer "in WAL mode": memory has none (https://www.sqlite.org/fileformat.html)
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.deserialize(bytes(data))
    connection.execute("PRAGMA query_only=ON")
    return connection


def _statements(script: str) -> Iterator[str]:
    """Split a script where SQLite sees a statement end (triggers hold semicolons of their own)."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
