"""While a run goes on, ask the guard on the other machine again and again: the ledger knows when it was last proven.

A thread of the controller's process, since a box may take ten seconds to answer, or never do. Not here: what counts as
an answer (elsewhere.py), and what a holder's absence means for the run (lifecycle.py).
"""

from __future__ import annotations

import logging
import threading
from contextlib import closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Self

from orchestrator import elsewhere, settings_file
from orchestrator.ledger import Ledger
from providers.base import Place
from providers.errors import GpurunError, LeaseLostError

if TYPE_CHECKING:
    from orchestrator.home import Home
    from orchestrator.records import Lease, RunRow
    from providers.base import Provider

log = logging.getLogger("gpurun.rounds")
EVERY_SECONDS = 120.0


class Rounds:
    """Asks as long as the block lasts; nothing where the plan names no guard elsewhere."""

    def __init__(self, home: Home, lease: Lease, row: RunRow, provider: Provider) -> None:
        self._home = home
        self._lease = lease
        self._provider = provider
        self._wanted = any(one["place"] == Place.ELSEWHERE for one in row.plan.get("holders", ()))
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._go, daemon=True, name="rounds")

    def __enter__(self) -> Self:
        """Start asking."""
        if self._wanted:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop; an answer that is still on its way is not waited for."""
        self._over.set()

    def join(self) -> None:
        """Wait until nobody is asked any more."""
        if self._wanted:
            self._thread.join()

    def _go(self) -> None:
        while not self._over.wait(EVERY_SECONDS):
            try:
                self._ask()
            except LeaseLostError:
                return
            except GpurunError as error:  # a full disk, a damaged config: the run goes on, the proof grows old
                log.warning("the guard elsewhere: %s", error)

    def _ask(self) -> None:
        address = settings_file.load(self._home.root / settings_file.NAME).get("guard-elsewhere")
        if not isinstance(address, str):
            return
        now = datetime.now(UTC)
        found = elsewhere.look(address, self._provider.name, self._provider.account(), now)
        with closing(Ledger(self._home.ledger)) as ledger:
            attempt = ledger.run(self._lease.run_id).memory.attempt
            ledger.saw_holders(self._lease, attempt, [found], now)
