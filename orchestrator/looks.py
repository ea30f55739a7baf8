"""Looking: one round of questions to the vendor and to the machine, and what the ledger learns from the answers.

    ledger row ──> offers? | find by mark | inspect each id ──> ask the machine ──> Seen, for lifecycle.decide

What could not be asked stays None: it proves nothing.
"""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from orchestrator import origins, stored
from orchestrator.capacity import wants_planned
from orchestrator.cloud import of_cloud
from orchestrator.cost import Spell
from orchestrator.facts import Seen
from orchestrator.home import read_json, write_json
from orchestrator.jobs import mark_of, offer_of
from orchestrator.plan import candidates
from orchestrator.proof import what_counts
from orchestrator.reach import check_account
from orchestrator.safeguard import ids_of
from orchestrator.words import Launch, State
from providers.base import Phase, Proof, seconds_between, utc
from providers.errors import (
    CredentialsError,
    GpurunError,
    HostKeyError,
    LedgerError,
    ProviderError,
    RemoteError,
    StateError,
    UnreachableError,
)
from providers.table import open_provider

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from datetime import datetime
    from decimal import Decimal

    from orchestrator.home import RunFolder
    from orchestrator.ledger import Ledger
    from orchestrator.reach import Reach
    from orchestrator.records import Lease, RunRow
    from orchestrator.safeguard import VendorClock
    from providers.base import Allocation, Holder, Observation, Offer, Provider, RemoteStatus

_TWIN_LAGS = 5.0  # of the list, after an unclear launch, for which more of it is looked for
_TWIN_SECONDS = 60.0  # at least
_TIMELY = timedelta(minutes=1)  # that an answer may take
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
        self._held: dict[str, tuple[str, float]] = {}  # the last proof of each holder, and when it was noted

    def look(self, row: RunRow) -> Seen:
        """Ask what the run's state calls for."""
        memory = row.memory
        accrued = row.accrued(self._clock().timestamp()).high
        if memory.state is State.DONE:
            return Seen(accrued_high=accrued)
        if memory.state is State.PENDING:
            return self._before_a_launch(row, accrued)
        begun = self._clock()
        try:
            check_account(self._provider, row)
            if memory.launch is Launch.INTENDED:
                found = tuple(self._provider.find(mark_of(row, self._ledger.home_id)))
                self._now.heard()
                asked = self._asked(begun)
                listed = [] if found else self._listed(row)  # what one list lacks, another may show
                found = found or tuple(one for one in listed if one.mark and one.mark.attempt == memory.attempt)
                for allocation in found:
                    self.open(row, allocation.id, memory.intended or self._now())
                strays = () if found else self._opened(row, listed)
                return Seen(found=found, accrued_high=accrued, asked=asked, strays=strays)
            looks = {one: self._provider.inspect(one) for one in ids_of(memory)}
            self._now.heard()
            asked = self._asked(begun)
            self._note(row, looks, asked)
            observation, each = what_counts(list(looks.values())), tuple(looks.items())
            if memory.state is State.TERMINATING and not observation.billing:
                strays = self._strays(row, each)
                seen = Seen(observation, accrued_high=accrued, looks=each, asked=asked, strays=strays)
                return stored.look(row, seen, self._silent)
            strays = self._twins(row)
        except ProviderError as error:
            self._trouble(f"look: {error}")
            return Seen(accrued_high=accrued)
        seen = Seen(observation, accrued_high=accrued, looks=each, asked=asked, strays=strays)
        try:
            return stored.look(row, replace(seen, remote=self._ask(row, observation)), self._silent)
        except HostKeyError as error:
            self._trouble(f"ask: {error}")
            return replace(seen, broken=words_of(error))

    def _twins(self, row: RunRow) -> tuple[str, ...]:
        """Name what else an unclear launch made: a list that lags, or pages that lose a row, show it later."""
        memory = row.memory
        since = None if memory.intended is None else seconds_between(memory.intended, self._now())
        lags = max(_TWIN_LAGS * self._provider.traits.list_lag_seconds, _TWIN_SECONDS)
        if not memory.unclear or since is None or (since > lags and memory.state is not State.TERMINATING):
            return ()
        ours = ids_of(memory)
        return tuple(one for one in self._strays(row) if one not in ours)

    def _before_a_launch(self, row: RunRow, accrued: Decimal) -> Seen:
        """Look for what bills for the run already: a ledger that was put back knows less than there is."""
        try:
            strays = self._strays(row) if row.plan["account"] == self._provider.account() else ()
        except CredentialsError:
            strays = ()  # the launch will say so
        except ProviderError as error:
            self._trouble(f"look: {error}")
            strays = None
        last = None if strays is None else self._stored(row)
        return Seen(offers=self._offers(row), accrued_high=accrued, strays=strays, last_attempt=last)

    def _stored(self, row: RunRow) -> int | None:
        """Bring what the last machine left in the store, to carry on from it; gives the last attempt there.

        None = nothing may be launched now: it can't be told, or another home's machine of the run may bill.
        """
        last: int | None = None
        try:
            found = origins.what_bills(row, self._ledger.home_id, self._now(), self._vendor)
            why = f"another home's machine of it goes first: {found[1].text}" if found else ""
            if found is None:
                stored.bring_newest(row, self._folder)
                last = stored.last_attempt(row)
        except (
            ProviderError
        ) as error:  # a refused key too: a leave is signed offline, and only the machine would see it
            self._trouble(f"look: {error}")
            why = words_of(error)
        self._note_status(launch_waits=why)
        return last

    def _vendor(self, name: str) -> Provider:
        return self._provider if name == self._provider.name else open_provider(name, self._folder.path.parents[1])

    def _strays(self, row: RunRow, looks: Iterable[tuple[str, Observation]] = ()) -> tuple[str, ...]:
        """Name what is listed for this run, whichever attempt, and is not proven gone.

        One that was absent just now is named too: then one of the two answers was wrong.
        """
        return self._opened(row, self._listed(row, looks))

    def _listed(self, row: RunRow, looks: Iterable[tuple[str, Observation]] = ()) -> list[Allocation]:
        known = {one.id for one in self._ledger.allocations(row.run_id) if one.spell.ended is not None}
        known.update(one for one, look in looks if look.ended or look.billed_until is not None)
        found = [
            one
            for one in self._provider.allocations()
            if one.mark is not None and (one.mark.home, one.mark.run_id) == (self._ledger.home_id, row.run_id)
            if one.billing and one.id not in known
        ]
        self._now.heard()
        return found

    def _opened(self, row: RunRow, found: Iterable[Allocation]) -> tuple[str, ...]:
        ids = tuple(dict.fromkeys(one.id for one in found))
        admitted = utc(row.created)  # by the vendor's clock
        for one in ids:
            self.open(row, one, min(admitted, row.memory.intended or admitted))
        return ids

    def _offers(self, row: RunRow) -> tuple[Offer, ...] | None:
        """Ask again what is to be had, where what was planned is old; None = as planned, or can't be told now."""
        memory = row.memory
        if wants_planned(memory) or (memory.retry_at is not None and self._now() < memory.retry_at):
            return None
        try:
            asked = of_cloud(self._provider.offers(), offer_of(row).cloud)
            offers = tuple(candidates(asked, row.plan.get("gpu"), row.plan.get("kinds") or ()))
        except ProviderError as error:
            self._trouble(f"offers: {error}")
            return None
        self._now.heard()
        return offers

    def _asked(self, begun: datetime) -> datetime:
        """Say when, by the vendor's clock, the question was put that was answered just now: as old is the answer.

        Raises:
            UnreachableError: the computer slept over it, or its clock was set: nobody knows how old it is.
        """
        age = self._clock() - begun
        if not timedelta(0) <= age <= _TIMELY:
            raise UnreachableError(f"the answer lay here for {age.total_seconds():.0f} s")
        return self._now() - age

    def _note(self, row: RunRow, looks: Mapping[str, Observation], asked: datetime) -> None:
        """Keep what was seen of all that this attempt made."""
        age = self._provider.traits.list_lag_seconds + seconds_between(asked, self._now())
        try:
            for one, look in looks.items():
                if look.billing:
                    if not row.spells:  # an adoption that was cut off before it could note this
                        self.open(row, one, row.memory.intended or self._now())
                    self._ledger.saw_billing(self._provider.name, one, self._now(), look, lag=age)
                if row.memory.state is State.TERMINATING:
                    self._note_read(row, one, look)
                if look.holder is not None:
                    at = self._clock() if look.holder.proof is Proof.PROVEN else None
                    self._note_holder(row, replace(look.holder, proven_at=at))
        except LedgerError as error:  # a full disk must not keep us from deciding: what is to end is ended
            self._trouble(f"ledger: {error}")

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

    def _silent(self, words: str) -> None:
        """Keep why the store could not be asked where a person looks; the machine's next word overwrites it."""
        self._trouble(words)
        self._note_status(store_silent=words)

    def _note_status(self, **words: str) -> None:
        try:
            said = read_json(self._folder.status) or {}
            if any(said.get(key, "") != text for key, text in words.items()):
                write_json(self._folder.status, {**said, **words})
        except (OSError, StateError) as error:
            self._trouble(f"status: {error}")

    def _note_holder(self, row: RunRow, holder: Holder) -> None:
        proof, at = self._held.get(holder.name, ("", 0.0))
        if holder.proof != proof or time.monotonic() - at > _PROOF_SECONDS:
            self._ledger.saw_holders(self._lease, row.memory.attempt, [holder], self._clock())
            self._held[holder.name] = (holder.proof, time.monotonic())

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
