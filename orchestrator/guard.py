"""The guard: judges what every account lists by the marks alone, ends what is overdue or orphaned, reads it back.

    round of one account:  list (every page) -> judge (pure) -> terminate in batches -> list again, until proven gone
    patrol:                a round of every account in turn, a pause, the next, until nothing is owed or patience is out
                           (meanwhile what owes nothing is listed again, twice a minute)

It needs no ledger: with one, it also knows which attempts of this home have ended. An error is never absence, and
nothing is called gone but on the vendor's own word, or unlisted in three reads spread over the list's lag.
Not here: opening accounts, the pulse, notices (guard_pass.py). Clock and pause are handed in; only providers do I/O.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

from providers.base import seconds_between, utc
from providers.errors import CredentialsError, ProviderError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
    from datetime import datetime

    from providers.base import Allocation, Mark, Provider
    from providers.errors import GpurunError

SKEW_SECONDS = 60.0  # a clock that is farther off than this is told
_TIMELY = timedelta(minutes=5)  # that a list may take, with all its pages
_AGAIN_SECONDS = 30.0  # after which an account is listed again, as long as a pass goes on
_READS = 3  # without it on the list, where the vendor has no word for "ended"


class Kind(StrEnum):
    """What the guard makes of an allocation; the first two it ends."""

    OVERDUE = "overdue"  # past its ceiling: anyone with the key may judge and end it
    ORPHAN = "orphan"  # this home's, of an attempt that this home's ledger records as ended
    UNKNOWN = "unknown"  # this home's mark, and the ledger does not know the attempt: left alone until its ceiling
    LIVE = "live"
    FOREIGN = "foreign"  # without a mark: shown and never touched


@dataclass(frozen=True, slots=True)
class Verdict:
    """One allocation that bills, judged."""

    kind: Kind
    allocation: Allocation
    ours: bool = False  # the mark is this home's

    @property
    def to_end(self) -> bool:
        """Whether the guard ends it."""
        return self.kind in {Kind.OVERDUE, Kind.ORPHAN}


@dataclass(frozen=True, slots=True)
class Known:
    """What this home's ledger says; the default is a home without one: marks alone count."""

    home: str = ""  # "" = no ledger: every mark is another home's
    ended: Collection[tuple[str, int]] = frozenset()  # (run id, attempt) on record as ended
    live: Collection[tuple[str, int]] = frozenset()  # attempts under way
    accounts: Mapping[str, str] = field(default_factory=dict)  # run id -> the account that its plan was made on


def judge(
    allocations: Iterable[Allocation], now: datetime, skew: timedelta, known: Known, account: str
) -> list[Verdict]:
    """Judge what bills on an account. `now` is our clock's, `skew` how far the vendor's is ahead of it.

    Another home's is killed late, by whichever clock is behind; ours by whichever is ahead.
    """
    early, late = now + min(skew, timedelta(0)), now + max(skew, timedelta(0))
    verdicts = []
    for one in allocations:
        if not one.billing:
            continue
        ours = one.mark is not None and one.mark.home == known.home
        verdicts.append(Verdict(_kind(one.mark, late if ours else early, known, account), one, ours))
    return verdicts


def _kind(mark: Mark | None, now: datetime, known: Known, account: str) -> Kind:
    if mark is None:
        return Kind.FOREIGN
    if now >= mark.ceiling:
        return Kind.OVERDUE
    if mark.home != known.home:
        return Kind.LIVE
    attempt = (mark.run_id, mark.attempt)
    if known.accounts.get(mark.run_id) != account:
        return Kind.UNKNOWN  # what the ledger has as ended was on another account: that says nothing about this one
    if attempt in known.ended:
        return Kind.ORPHAN
    return Kind.LIVE if attempt in known.live else Kind.UNKNOWN


@dataclass(slots=True)
class Owed:
    """What was told to end and is not proven gone. Times are epoch seconds by the vendor's clock."""

    id: str
    account: str
    name: str
    kind: Kind
    told: float = 0.0  # last; 0 = not accepted yet
    unlisted: list[float] = field(default_factory=list)  # reads that lacked it, one after another


@dataclass(frozen=True, slots=True)
class Ended:
    """What was proven gone, and on whose word."""

    id: str
    name: str
    kind: Kind
    evidence: str


class Books:
    """Where this home writes down what the guard does to its own runs. This one is for a home without a ledger."""

    def ending(self, provider: Provider, account: str, verdicts: Sequence[Verdict], now: datetime) -> None:
        """Note the intent, before the deed."""

    def ended(self, provider: Provider, ended: Ended, now: datetime) -> None:
        """Note a proof."""


class Post:
    """The guard's post at one account: what it saw, what it owes, what it could not do."""

    def __init__(
        self,
        provider: Provider,
        known: Known,
        clock: Callable[[], datetime],
        *,
        owed: Iterable[Owed] = (),
        books: Books | None = None,
    ) -> None:
        """`owed` is what an earlier pass left unproven."""
        self.provider = provider
        self.account = ""
        self.verdicts: list[Verdict] = []
        self.owed = {one.id: one for one in owed}
        self.ended: list[Ended] = []
        self.trouble = ""  # why the last round could not look, or could not end
        self.notes: list[str] = []
        self.reads = 0  # whole lists
        self.waits = False  # for a proof that may come soon
        self.known = known  # as of the last reading: a patrol may take minutes
        self._clock, self._books = clock, books or Books()
        self._begun = clock()  # the last look
        self._since: datetime | None = None  # the first round of this pass that owed something

    @property
    def skew(self) -> timedelta:
        """How far the vendor's clock is ahead of ours."""
        return self.provider.skew

    @property
    def astray(self) -> list[Owed]:
        """What is owed on another account than the key opens now: this one's list says nothing about it."""
        return [one for one in self.owed.values() if self.account and one.account != self.account]

    @property
    def may_bill(self) -> bool:
        """Whether something that should be gone is not proven gone, or nobody could look."""
        return bool(self.owed or self.trouble)

    def is_stale(self, ahead: float) -> bool:
        """Whether the last list will be too old so many seconds from now; a clock that was set back tells nothing."""
        age = seconds_between(self._begun, self._clock())
        return age < 0 or age + ahead > _AGAIN_SECONDS

    def look(self) -> Mapping[str, Allocation] | None:
        """List and judge; None = nobody could look."""
        begun = self._begun = self._clock()  # before the list: what is extended meanwhile is judged anew next time
        self.trouble = ""
        try:
            self.account = self.provider.account()
            listed = list(self.provider.allocations())
        except ProviderError as error:
            self.trouble = _words(error)
            return None
        if not timedelta(0) <= self._clock() - begun <= _TIMELY:
            self.trouble = "the computer slept over the list, or its clock was set: nobody knows how old it is"
            return None
        self.reads += 1
        self.verdicts = judge(listed, begun, self.skew, self.known, self.account)
        return {one.id: one for one in listed}

    def round(self) -> bool:
        """List, judge, settle, end. True = there is nothing that another round could settle soon."""
        listed = self.look()
        if listed is not None:
            self._settle(listed)
            self._end([verdict for verdict in self.verdicts if verdict.to_end and self._is_due(verdict)])
        self.waits = self._waits()
        return not self.waits

    def _waits(self) -> bool:
        now = self._clock()
        if len(self.owed) == len(self.astray):
            return False
        self._since = self._since or now
        traits = self.provider.traits
        patience = traits.ending_seconds + 2 * traits.list_lag_seconds
        return 0 <= seconds_between(self._since, now) < patience

    def _vendors_now(self) -> float:
        """Epoch seconds by the vendor's clock: a jump of ours must not stretch the reads."""
        return (self._clock() + self.skew).timestamp()

    def _settle(self, listed: Mapping[str, Allocation]) -> None:
        """Take what is owed off the list of debts where its end is proven."""
        now = (self._begun + self.skew).timestamp()
        # A vendor may drop the name of what it is ending: what has lost its mark was not given more time.
        spared = {one.allocation.id for one in self.verdicts if not one.to_end and one.kind is not Kind.FOREIGN}
        for one in [one for one in self.owed.values() if one.account == self.account]:
            row = listed.get(one.id)
            if one.id in spared and (one.kind is Kind.OVERDUE or self._lives(one.id)):
                self.notes.append(f"{one.name} ({one.id}) was given a later end meanwhile: left alone")
                del self.owed[one.id]
                continue
            evidence = self._evidence(one, row, now)
            if evidence:
                del self.owed[one.id]
                self._prove(Ended(one.id, one.name, one.kind, evidence))

    def _lives(self, allocation_id: str) -> bool:
        """Whether this home's ledger, where it can be read, says that an attempt is under way."""
        return any(one.ours and one.kind is Kind.LIVE and one.allocation.id == allocation_id for one in self.verdicts)

    def _evidence(self, one: Owed, row: Allocation | None, now: float) -> str:
        """Give the words that prove its end; "" = not yet."""
        if row is not None:
            one.unlisted.clear()
            return "" if row.billing else f"{self.provider.name}'s list calls it ended"
        one.unlisted.append(now)
        spread = one.unlisted[-1] - one.unlisted[0]
        if len(one.unlisted) < _READS or spread < self.provider.traits.list_lag_seconds:
            return ""
        return f"unlisted in {len(one.unlisted)} whole lists over {spread:.0f} s"

    def _is_due(self, verdict: Verdict) -> bool:
        """Whether it is to be told: not yet, not heard, or heard and not carried out."""
        one = self.owed.get(verdict.allocation.id)
        if one is None or not one.told:
            return True
        # A list that lags still shows what was told a moment ago: telling a thousand again would take minutes.
        traits = self.provider.traits
        patience = traits.ending_seconds if verdict.allocation.ending else traits.list_lag_seconds / 2
        return not 0 <= self._vendors_now() - one.told < patience

    def _end(self, due: Sequence[Verdict]) -> None:
        if not due:
            return
        self._note(self._books.ending, self.provider, self.account, due, self._begun)
        for verdict in due:
            row = verdict.allocation
            self.owed.setdefault(row.id, Owed(row.id, self.account, str(row.mark), verdict.kind))
        try:
            self.provider.terminate([verdict.allocation.id for verdict in due])
        except ProviderError as error:
            self.trouble = _words(error)
            return
        now = self._vendors_now()
        for verdict in due:
            self.owed[verdict.allocation.id].told = now

    def _prove(self, ended: Ended) -> None:
        self.ended.append(ended)
        self._note(self._books.ended, self.provider, ended, utc(self._vendors_now()))

    def _note(self, write: Callable[..., None], *what: object) -> None:
        """Write it down; what can't be written is said, and keeps nobody from ending what bills."""
        from providers.errors import StateError

        try:
            write(*what)
        except StateError as error:
            self.notes.append(_words(error))


def patrol(posts: Sequence[Post], pause: Callable[[float], None]) -> None:
    """Go round all posts until none waits for a proof; one vendor's silence keeps no other waiting for long.

    A post with nothing to wait for is visited twice a minute as long as the patrol goes on: no other guard comes by.
    """
    waiting, waited = list(posts), 0.0
    while waiting:
        due = [post for post in posts if post in waiting or post.is_stale(2 * waited)]
        waiting = [post for post in due if not post.round()]
        if waiting:
            polls = [post.provider.traits.poll_seconds for post in waiting]
            most = [post.provider.traits.list_lag_seconds / 2 for post in waiting]
            waited = min(max(2 * waited, min(polls)), max(min(most), min(polls)))
            if len(waiting) < len(posts):
                waited = min(waited, _AGAIN_SECONDS)
            pause(waited)


def skew_note(post: Post) -> str:
    """Say that a clock is wrong; "" = it is not, by much."""
    seconds = post.skew / timedelta(seconds=1)
    if abs(seconds) <= SKEW_SECONDS:
        return ""
    which = "behind" if seconds > 0 else "ahead of"
    return f"this computer's clock is {abs(seconds):.0f} s {which} {post.provider.name}'s"


def _words(error: GpurunError) -> str:
    """What happened, and what to do about it."""
    return f"{'the key was not taken: ' if isinstance(error, CredentialsError) else ''}{error.in_a_line}"
