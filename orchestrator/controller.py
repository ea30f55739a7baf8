"""The loop that carries one run to its end: observe, decide, save, act. Owns the clock.

    ledger -> look (provider, machine) -> decide (pure) -> save, fenced -> act -> wait -> again, until nothing bills

Any process may be killed at any line: the next controller takes the lease and carries on from the ledger.
Terminating never gives up; where the disk is the fault, terminating comes first and recording after.
"""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from orchestrator import lifecycle, stored
from orchestrator.capacity import no_capacity
from orchestrator.collect import fetch
from orchestrator.credentials import Redactor
from orchestrator.follow import Follower
from orchestrator.home import read_json
from orchestrator.homecoming import files_home
from orchestrator.jobs import mark_of, offer_of
from orchestrator.looks import Looker, words_of
from orchestrator.measuring import measured
from orchestrator.notify import Herald
from orchestrator.reach import Reach, UnderWay, check_account
from orchestrator.render import price
from orchestrator.safeguard import LastResort, VendorClock, ids_of
from orchestrator.words import Act, Launch, Reason, State
from providers.base import Observation, Order, OrderKind, Phase, utc
from providers.errors import (
    CredentialsError,
    GpurunError,
    JobGoneError,
    LeaseLostError,
    LedgerError,
    NoCapacityError,
    ProviderError,
    QuotaError,
    RemoteError,
    StartError,
    StateError,
    UnclearError,
    UsageError,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator.facts import Decision, Memory, Seen, Wish
    from orchestrator.home import Home
    from orchestrator.ledger import Ledger
    from orchestrator.records import Lease
    from providers.base import Provider

log = logging.getLogger("gpurun.controller")
SYNC_SECONDS = 2.0
_SLOWEST_SECONDS = 30.0
_LEAST_SECONDS = 0.1
_SOON_SECONDS = 1.0  # after a step on the road, to see it take effect


def clock() -> datetime:
    """The time, UTC."""
    return datetime.now(UTC)


def _looked(seen: Seen) -> bool:
    """Whether the vendor answered: what it shows, or that it shows nothing of a launch."""
    return seen.observation is not None or seen.found is not None


class Controller:
    """Holds one run's lease and acts on it."""

    def __init__(
        self,
        home: Home,
        ledger: Ledger,
        provider: Provider,
        lease: Lease,
        *,
        clock: Callable[[], datetime] = clock,
        redactor: Redactor | None = None,
    ) -> None:
        self._home = home
        self._ledger = ledger
        self._provider = provider
        self._lease = lease
        self._clock = clock
        self._folder = home.run(lease.run_id)
        self._row = ledger.run(lease.run_id)
        self._now = VendorClock(clock, provider, self._row.skew)
        self._deed = UnderWay(provider, ledger, lease.run_id, clock=clock, vendors=self._now)
        self._reach = Reach(provider, self._folder, ledger.home_id, redactor or Redactor(), self._deed.is_overtaken)
        self._looker = Looker(provider, ledger, self._folder, lease, self._reach, self._now, clock, self._trouble)
        self._troubles = 0
        self._synced = 0.0
        self._resort = LastResort(provider, ledger.home_id)
        self._herald = Herald(home, ledger, provider.traits)

    def run(self, pause: Callable[[float], None] = time.sleep) -> Memory:
        """Tick until nothing bills."""
        while True:
            try:
                wait = self.tick()
            except LeaseLostError:
                raise
            except Exception as error:
                # Whatever is wrong here (a full disk, a bug of ours), the meter must still stop.
                log.exception("tick")
                self._trouble(f"tick: {error}")
                if self._resort.take(self._row, self._now()):
                    raise
                wait = self._pace()
            self._tell()
            if self._row.memory.is_done:
                return self._row.memory
            pause(wait)

    def _tell(self) -> None:
        """Let people know what is worth telling; the money of an end is in the ledger by then."""
        if self._row.memory.is_done:
            self._reload()
        self._herald.look(self._row, self._clock())

    def tick(self) -> float:
        """Look, decide, save, act; gives the seconds to wait before the next.

        Raises:
            LeaseLostError: another controller holds the run; nothing more was done.
        """
        self._reload()
        before = self._row.memory.state
        seen = self._looker.look(self._row)
        now = self._now()
        decision = lifecycle.decide(self._row.memory, seen, now, self._row.rules(self._provider.traits))
        self._settle_money(decision, seen, now)
        try:
            self._save(decision.memory, looked=_looked(seen), late=decision.late, granted=decision.granted)
        except LedgerError:
            if decision.act is Act.TERMINATE:  # where the disk is the fault, terminating comes first
                self._provider.terminate(ids_of(decision.memory))
            raise
        try:
            self._act(decision, seen)
            self._reach.renew_leave(self._row, seen.remote, now)
        except (ProviderError, JobGoneError, OSError) as error:
            self._trouble(f"{decision.act}: {error}")
        else:
            if seen.observation is not None or decision.act is not Act.WAIT:
                self._troubles = 0
            if decision.act is Act.COLLECT and self._row.memory != decision.memory:
                return 0.0  # all is home: until it is ended, every second costs for nothing
        moved = decision.memory.state is not before and decision.act is not Act.LAUNCH
        return min(self._pace(), _SOON_SECONDS) if moved else self._pace()

    def _pace(self) -> float:
        share = 1.0 if self._row.memory.state is State.RUNNING else 0.3  # on the way, nobody works for what is paid
        wait = min(self._provider.traits.poll_seconds * share * 2.0**self._troubles, _SLOWEST_SECONDS)
        left = lifecycle.seconds_to_limit(self._now(), self._row.rules(self._provider.traits)) / self._now.rate
        return min(wait, max(left, _LEAST_SECONDS))  # nobody sleeps past a limit

    # ── act ─────────────────────────────────────────────────────────────────────────────────────

    def _act(self, decision: Decision, seen: Seen) -> None:
        self._deed.act, self._deed.seen = decision.act, seen
        match decision.act:
            case Act.LAUNCH:
                self._launch()
            case Act.START:
                self._start()
            case Act.FOLLOW:
                self._follow()
            case Act.TELL_STOP:
                self._tell_stop()
            case Act.EXTEND:
                self._extend()
            case Act.COLLECT:
                self._collect(seen)
            case Act.TERMINATE:
                self._terminate(decision.memory, doubted=seen.observation is not None and seen.observation.ending)
            case Act.FINISH:
                self._finish()
            case Act.WAIT:
                pass

    def _launch(self) -> None:
        offer = offer_of(self._row)
        try:
            check_account(self._provider, self._row)
            job = self._reach.job(self._row)
        except (CredentialsError, JobGoneError) as error:  # known before anything was rented
            self._refused(Reason.CREDENTIALS if isinstance(error, CredentialsError) else Reason.PROVIDER, error)
            return
        intended = self._now()
        text = f"{offer.name} at {price(offer.price)} as {job.mark}"
        try:
            with self._ledger.deed(self._lease, job.mark.attempt, "launch", text, self._clock) as deed:
                allocation_id = self._provider.launch(job, offer)
                deed.text = allocation_id
        except NoCapacityError as error:
            rules = self._row.rules(self._provider.traits)
            self._save(no_capacity(self._row.memory, words_of(error), self._now(), rules))
        except QuotaError as error:
            self._refused(Reason.NO_CAPACITY, error)
        except CredentialsError as error:
            self._refused(Reason.CREDENTIALS, error)
        except UsageError as error:
            self._refused(Reason.PROVIDER, error)
        except (UnclearError, ProviderError) as error:
            # It may have been rented all the same: `find` settles it before anything else is launched.
            self._trouble(f"launch: {error}")
        else:
            self._took(allocation_id, intended)

    def _took(self, allocation_id: str, intended: datetime) -> None:
        """Remember what was rented; what nobody tracks any more is ended again at once."""
        try:
            self._looker.open(self._row, allocation_id, intended)
            self._save(lifecycle.launch_accepted(self._row.memory, allocation_id))
        except LeaseLostError:
            # Held up between intent and deed (a suspended computer) until another had settled it as never sent.
            if allocation_id not in ids_of(self._ledger.run(self._lease.run_id).memory):
                self._provider.terminate([allocation_id])
                look = self._provider.inspect(allocation_id)
                if not look.billing:
                    self._ledger.saw_free(self._provider.name, allocation_id, self._now(), look)
            raise

    def _refused(self, reason: Reason, error: GpurunError) -> None:
        self._save(lifecycle.launch_refused(self._row.memory, reason, words_of(error), self._now()))

    def _start(self) -> None:
        try:
            job = self._reach.job(self._row)
            with self._ledger.deed(self._lease, job.mark.attempt, "start", str(job.mark), self._clock):
                self._reach.remote(self._row).start(job)
        except (RemoteError, CredentialsError, JobGoneError) as error:
            self._reach.close()
            permanent = isinstance(error, JobGoneError) or (isinstance(error, StartError) and error.permanent)
            theirs = isinstance(error, RemoteError)  # a secret that is not set here may be set in the next shell
            self._save(lifecycle.start_failed(self._row.memory, str(error), permanent=permanent, theirs=theirs))
            raise

    def _tell_stop(self) -> None:
        self._reach.remote(self._row).tell(Order(1 + self._last_wish, OrderKind.STOP))

    def _follow(self) -> None:
        remote = self._reach.remote(self._row)
        if self._row.memory.told_to_stop is not None:
            self._tell_stop()  # again and again: the first order may have been lost, and is obeyed once
        Follower(self._folder, self._row.memory.attempt).pull(remote, self._reach.go_on)
        if time.monotonic() - self._synced >= SYNC_SECONDS:
            fetch(remote, remote.manifest(), self._folder.path)
            self._synced = time.monotonic()

    @property
    def _last_wish(self) -> int:
        """The number of the last order that may have gone out: the agent obeys only greater ones."""
        return self._row.wish.id if self._row.wish else 0

    def _extend(self) -> None:
        try:
            self._move_limits()
        except ProviderError:
            self._follow()  # it is tried again, perhaps for hours: the log comes home meanwhile
            raise

    def _move_limits(self) -> None:
        """Move the limits from the outside in: the vendor's first, so that whatever breaks off ends it too early."""
        wish = self._row.wish
        if wish is None:
            return
        memory = self._row.memory
        if wish.ceiling.timestamp() > self._row.ceiling:
            text = f"{wish.id}: the ceiling to {wish.ceiling:%Y-%m-%d %H:%M:%S} UTC"
            with self._ledger.deed(self._lease, memory.attempt, "ceiling", text, self._clock):
                moved = all(self._provider.extend(one, wish.ceiling) for one in ids_of(memory))
            if not moved:
                self._save(lifecycle.extended(memory, wish, moved=False))
                words = (
                    f"{wish.id}: {self._provider.name} can't move its own limit past {utc(self._row.ceiling):%H:%M} UTC"
                )
                self._ledger.note(
                    self._row.run_id, memory.attempt, "controller", "extend", "failed", words, self._clock()
                )
                return
        if not self._row.plan.get("adopted"):
            order = Order(wish.id, OrderKind.DEADLINE, wish.deadline, wish.ceiling)
            self._reach.remote(self._row).tell(order)
        self._save(lifecycle.extended(memory, wish, moved=True))

    def _collect(self, seen: Seen) -> None:
        if seen.stored and seen.observation is not None and seen.observation.billing:
            return  # it is ended first: what is in the store comes home at no cost
        remote = self._reach.source(self._row, seen)
        Follower(self._folder, self._row.memory.attempt).pull(remote, self._reach.go_on)
        manifest = remote.manifest()
        fetch(remote, manifest, self._folder.path)
        over = Phase.EXITED in {look.phase for look in (seen.observation, seen.remote) if look is not None}
        if manifest.final or over:
            rules = self._row.rules(self._provider.traits)
            self._save(files_home(self._row.memory, remote.status(), rules))

    def _terminate(self, memory: Memory, *, doubted: bool) -> None:
        """Order the end; `doubted` = the vendor says that it is ending it, and has for too long."""
        ids = ids_of(memory)
        with self._ledger.deed(self._lease, memory.attempt, "terminate", " ".join(ids), self._clock):
            self._provider.terminate(ids)
        for one in ids if doubted else ():
            self._ledger.doubt_end(self._provider.name, one)

    def _finish(self) -> None:
        live = [mark_of(row, self._ledger.home_id) for row in self._ledger.runs(unfinished=True)]
        self._provider.tidy(live)
        stored.tidy(self._row)

    # ── remember ────────────────────────────────────────────────────────────────────────────────

    def _reload(self) -> None:
        """Read the run again (a stop may have been asked for); a ledger that can't be read leaves what we knew."""
        try:
            self._row = self._ledger.run(self._lease.run_id)
        except LedgerError as error:
            self._trouble(f"ledger: {error}")

    def _save(self, memory: Memory, *, looked: bool = False, late: int = 0, granted: Wish | None = None) -> None:
        skew = self._now.skew.total_seconds()
        if memory.is_done:  # before it is told: whoever reads DONE finds no key of its any more
            self._ledger.renew(self._lease, self._clock())  # another controller's keys are not ours to drop
            self._reach.drop_keys()
            self._measure(memory)
        self._ledger.save(self._lease, memory, self._clock(), looked=looked, skew=skew, late=late, granted=granted)
        if granted is not None:
            self._reload()
        deadline, ceiling = self._row.deadline + late, self._row.ceiling + late
        self._row = replace(self._row, memory=memory, skew=skew, deadline=deadline, ceiling=ceiling)

    def _measure(self, memory: Memory) -> None:
        """Keep what the run measured, for later quotes; what can't be read is no reason to keep a run open."""
        try:
            row = replace(self._ledger.run(self._lease.run_id), memory=memory)
            found = measured(row, read_json(self._folder.result) or {})
            if found is not None:
                self._ledger.keep_measured(found)
        except StateError as error:
            log.warning("what it measured: %s", error)

    def _settle_money(self, decision: Decision, seen: Seen, now: datetime) -> None:
        """Record the end of billing when it is proven, not when it first seemed so: one absence may be a lag."""
        before, after = self._row.memory, decision.memory
        now = now if seen.asked is None else max(now, seen.asked)  # ours may have been set back since
        if before.launch is Launch.INTENDED and after.launch is Launch.NOT_YET:
            # Never found, or gone before it could be remembered: it may have billed from the intent until now.
            known = [one for one in self._ledger.allocations(self._row.run_id) if one.attempt == before.attempt]
            ids = [one.id for one in known if one.spell.ended is None]
            if not known:
                ids = [f"unclear-{mark_of(self._row, self._ledger.home_id)}"]
                self._looker.open(self._row, ids[0], before.intended or now)
            gone = Observation(Phase.ABSENT, billing=False, evidence=after.evidence)
            for one in ids:
                self._ledger.saw_free(self._provider.name, one, now, gone)
        ended = before.state is State.TERMINATING and (after.state is not State.TERMINATING or after.freed is not None)
        if ended and seen.observation is not None:
            for one, look in seen.looks:
                self._ledger.saw_free(self._provider.name, one, now, look)

    def _trouble(self, text: str) -> None:
        """Say what went wrong and slow down; nothing is given up."""
        self._troubles = min(self._troubles + 1, 6)
        log.warning("%s", text)
