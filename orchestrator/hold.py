"""A background controller: takes a run's lease, carries the run to its end, lets go.

python -m orchestrator.hold RUN_ID
"""

from __future__ import annotations

import logging
import signal
import sys
import threading
from typing import TYPE_CHECKING, Self

from orchestrator.controller import Controller, clock
from orchestrator.credentials import Redactor, guard_logs, in_environment
from orchestrator.home import Home
from orchestrator.ledger import LEASE_SECONDS, Ledger
from orchestrator.processes import is_alive, this_process
from orchestrator.rounds import Rounds
from providers.errors import GpurunError, LeaseLostError, LedgerError

if TYPE_CHECKING:
    from orchestrator.records import Lease

log = logging.getLogger("gpurun.hold")


class LeaseKeeper:
    """Renews a lease from a thread of its own while long deeds (shipping, fetching) run."""

    def __init__(self, home: Home, lease: Lease) -> None:
        self._home = home
        self._lease = lease
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._renew, daemon=True, name="lease")

    def __enter__(self) -> Self:
        """Start renewing."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop renewing."""
        self._over.set()
        self._thread.join()

    def _renew(self) -> None:
        while not self._over.wait(LEASE_SECONDS / 3):
            try:
                ledger = Ledger(self._home.ledger)
                try:
                    ledger.renew(self._lease, clock())
                finally:
                    ledger.close()
            except LeaseLostError:
                return
            except LedgerError as error:
                log.warning("lease: %s", error)


def hold(home: Home, run_id: str, redactor: Redactor) -> None:
    """Take a run and carry it to its end; at once back when it is over or another controller holds it."""
    from providers.table import open_provider

    ledger = Ledger(home.ledger)
    row = ledger.run(run_id)
    lease = None if row.memory.is_done else ledger.acquire(run_id, this_process(), clock(), is_alive)
    if lease is None:
        log.info("%s is over or held by another controller", run_id)
        return
    try:
        provider = open_provider(row.provider, home.root)
        with LeaseKeeper(home, lease), Rounds(home, lease, row, provider):
            Controller(home, ledger, provider, lease, redactor=redactor).run()
    finally:
        ledger.release(lease)


def main() -> int:
    """Hold the run named on the command line."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    redactor = Redactor()
    redactor.learn(in_environment())
    guard_logs(redactor)
    logging.getLogger("paramiko").setLevel(logging.CRITICAL)  # our errors say it; its tracebacks are not for people
    for number in (signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)  # the terminal it came from may close: the run goes on
    try:
        hold(Home.default(), sys.argv[1], redactor)
    except GpurunError as error:
        log.warning("let go of %s: %s", sys.argv[1], error)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
