"""Looking: one round of questions to the vendor and to the machine, and what the ledger learns from the answers.

    ledger row ──> offers? | find by mark | inspect each id ──> ask the machine ──> Seen, for lifecycle.decide

What could not be asked stays None: it proves nothing.
"""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING

from orchestrator.capacity import wants_planned
from orchestrator.cost import Spell
from orchestrator.facts import Seen
from orchestrator.home import write_json
from orchestrator.jobs import mark_of, offer_of
from orchestrator.plan import candidates
from orchestrator.proof import what_counts
from orchestrator.reach import check_account
from orchestrator.safeguard import ids_of
from orchestrator.words import Launch, State
from providers.base import Phase
from providers.errors import GpurunError, HostKeyError, LedgerError, ProviderError, RemoteError, UnreachableError

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from orchestrator.home import RunFolder
    from orchestrator.ledger import Ledger
    from orchestrator.reach import Reach
    from orchestrator.records import Lease, RunRow
    from orchestrator.safeguard import VendorClock
    from providers.base import Holder, Observation, Offer, Provider, RemoteStatus

_PROOF_SECONDS = 60.0  # between two notes of a proof that did not change


class Looker:
    """Looks for one controller; what goes wrong is told to it through `trouble`."""

    def __init__(
        self,
        provider: Provider,
        ledger: Ledger,
        folder: RunFolder,
        lease: Lease,
        reach: Reach,
        now: VendorClock,
        clock: Callable[[], datetime],
        trouble: Callable[[str], None],
    ) -> None:
        self._provider = provider
        self._ledger = ledger
        self._folder = folder
        self._lease = lease
        self._reach = reach
        self._now = now
        self._clock = clock
        self._trouble = trouble
        self._read: dict[str, str] = {}  # the last words on each id
        self._held = ("", 0.0)  # the last proof of the machine's holder, and when it was noted

    def look(self, row: RunRow) -> Seen:
        """Ask what the run's state calls for."""
        memory = row.memory
        accrued = row.accrued(self._clock().timestamp()).high
        if memory.state is State.DONE:
            return Seen(accrued_high=accrued)
        if memory.state is State.PENDING:
            return Seen(offers=self._offers(row), accrued_high=accrued)
        try:
            check_account(self._provider, row)
            if memory.launch is Launch.INTENDED:
                found = tuple(self._provider.find(mark_of(row, self._ledger.home_id)))
                self._now.heard()
                for allocation in found:
                    self.open(row, allocation.id, memory.intended or self._now())
                return Seen(found=found, accrued_high=accrued)
            looks = self._inspect(row)
        except ProviderError as error:
            self._trouble(f"look: {error}")
            return Seen(accrued_high=accrued)
        observation, each = what_counts(list(looks.values())), tuple(looks.items())
        try:
            return Seen(observation, self._ask(row, observation), accrued_high=accrued, looks=each)
        except HostKeyError as error:
            self._trouble(f"ask: {error}")
            return Seen(observation, broken=words_of(error), accrued_high=accrued, looks=each)

    def _offers(self, row: RunRow) -> tuple[Offer, ...] | None:
        """Ask again what is to be had, where what was planned is old; None = as planned, or can't be told now."""
        memory = row.memory
        if wants_planned(memory) or (memory.retry_at is not None and self._now() < memory.retry_at):
            return None
        try:
            offers = tuple(candidates(self._provider.offers(), row.plan.get("gpu")))
        except ProviderError as error:
            self._trouble(f"offers: {error}")
            return None
        self._now.heard()
        return offers

    def _inspect(self, row: RunRow) -> dict[str, Observation]:
        """Look at all that this attempt made."""
        looks = {one: self._provider.inspect(one) for one in ids_of(row.memory)}
        self._now.heard()
        try:
            for one, look in looks.items():
                if look.billing:
                    if not row.spells:  # an adoption that was cut off before it could note this
                        self.open(row, one, row.memory.intended or self._now())
                    self._ledger.saw_billing(self._provider.name, one, self._now(), look)
                if row.memory.state is State.TERMINATING:
                    self._note_read(row, one, look)
        except LedgerError as error:  # a full disk must not keep us from deciding: what is to end is ended
            self._trouble(f"ledger: {error}")
        return looks

    def _note_read(self, row: RunRow, one: str, look: Observation) -> None:
        """Keep each read that counts as proof, and each change of what is said on the way there."""
        words = f"{one}: {look.evidence}"
        if look.billing and self._read.get(one) == words:
            return
        self._ledger.note(row.run_id, row.memory.attempt, self._lease.actor, "read", "note", words, self._clock())
        self._read[one] = words

    def _ask(self, row: RunRow, observation: Observation) -> RemoteStatus | None:
        ending = observation.ending or row.memory.state is State.TERMINATING
        if observation.phase in {Phase.QUEUED, Phase.ABSENT} or ending or row.plan.get("adopted"):
            return None
        try:
            status = self._reach.remote(row).status()
        except HostKeyError:
            self._reach.close()
            raise
        except (RemoteError, UnreachableError) as error:
            self._reach.close()
            self._trouble(f"ask: {error}")
            return None
        values = asdict(status) | {"seen": self._clock(), "state": row.memory.state}
        try:
            write_json(self._folder.status, values)
            if status.watchdog is not None:
                self._note_holder(row, status.watchdog)
        except (OSError, LedgerError) as error:
            self._trouble(f"status: {error}")
        return status

    def _note_holder(self, row: RunRow, holder: Holder) -> None:
        proof, at = self._held
        if holder.proof != proof or time.monotonic() - at > _PROOF_SECONDS:
            self._ledger.saw_holders(self._lease, row.memory.attempt, [holder], self._clock())
            self._held = (holder.proof, time.monotonic())

    def open(self, row: RunRow, allocation_id: str, intended: datetime) -> None:
        """Note that this allocation of the present attempt may bill, since the intent at the earliest."""
        spell = Spell(
            offer_of(row).price,
            self._provider.traits.billing_step_seconds,
            intended.timestamp(),
            self._now().timestamp(),
            None,
            None,
        )
        self._ledger.open_allocation(
            allocation_id,
            mark_of(row, self._ledger.home_id),
            spell,
            provider=self._provider.name,
            account=self._provider.account(),
        )


def words_of(error: GpurunError) -> str:
    """Give an error and its way out in one line."""
    return f"{error} {error.hint}".strip()
