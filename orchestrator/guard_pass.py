"""One pass of the guard in this home: keys at hand, the ledger if there is one, the patrol, the pulse, the notices.

    ledger (may be missing or corrupt) ─┐
    last pulse: what is owed ───────────┼─> posts -> patrol (guard.py) -> pulse -> notices
    providers whose key is at hand ─────┘

Also gives this home's unfinished runs that nobody holds to controllers of their own.
"""

from __future__ import annotations

import contextlib
import socket
from collections import Counter
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple

from orchestrator import guard, guard_pulse
from orchestrator.cost import Spell
from orchestrator.guard import Books, Ended, Kind, Known, Owed, Post
from orchestrator.guard_pulse import Pulse, Seen
from orchestrator.jobs import offer_of
from orchestrator.ledger import Ledger
from orchestrator.safeguard import ids_of
from orchestrator.words import EXIT_MAY_BILL, Launch
from providers.base import Mark, Observation, Phase, seconds_between
from providers.errors import CredentialsError, GpurunError, StateError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from datetime import datetime

    from orchestrator.guard import Verdict
    from orchestrator.home import Home
    from orchestrator.records import RunRow
    from providers.base import Provider


REPEAT_SECONDS = 3660.0  # after which what lasts is told again; notify.py lets each through once an hour
FREE = "local"  # this computer: nothing bills, and its agent and watchdog end what is to end


class Notice(NamedTuple):
    """Something to tell the user at once. `key` is the same as long as it lasts: told once an hour."""

    key: str
    title: str
    text: str


@dataclass(frozen=True, slots=True)
class Means:
    """What a pass needs of the world; a simulation hands in its own."""

    clock: Callable[[], datetime]
    pause: Callable[[float], None]
    tend: Callable[[], list[str]] = list  # gives unheld runs to controllers; names them
    tell: Callable[[Notice], None] = lambda _notice: None
    lost: Callable[[str], bool] = lambda _key: False  # whether what was told last under a notice's key reached nobody
    watched: bool = False  # another pass follows by itself, without a timer


@dataclass(frozen=True, slots=True)
class Memory:
    """What this home remembers, as far as it can be read."""

    known: Known = field(default_factory=Known)
    rented: tuple[RunRow, ...] = ()  # unfinished, and may bill
    troubles: tuple[str, ...] = ()


def once(home: Home, providers: Mapping[str, Provider | GpurunError], means: Means) -> Pulse:
    """Make one pass; `providers` holds why not where an account can't be opened.

    A key that is missing where this guard never had one and no run of this home is, is no trouble.
    """
    before, damaged = None, ""
    try:
        before = guard_pulse.read(home)
    except StateError as error:
        damaged = str(error)
    try:
        with closing(_open_ledger(home)) as ledger:
            memory = remember(ledger, damaged)
            return _Pass(home, providers, means, before, memory, ledger).run()
    except _NoLedgerError as missing:
        troubles = tuple(text for text in (damaged, *missing.troubles) if text)
        return _Pass(home, providers, means, before, Memory(troubles=troubles), None).run()


class _NoLedgerError(Exception):
    """There is no ledger to go by: marks alone count. `troubles` is empty where there never was one."""

    def __init__(self, *troubles: str) -> None:
        super().__init__()
        self.troubles = troubles


def _open_ledger(home: Home) -> Ledger:
    try:
        home.ledger.stat()
        return Ledger(home.ledger)
    except FileNotFoundError:
        raise _NoLedgerError from None
    except (OSError, GpurunError) as error:
        raise _NoLedgerError(f"judged by marks alone: {error}") from error


def remember(ledger: Ledger, damaged: str = "") -> Memory:
    """Read what the ledger knows; one that can't be read leaves the marks."""
    troubles = (damaged,) if damaged else ()
    try:
        home, ended, rows = ledger.home_id, ledger.ended_attempts(), ledger.runs()
    except GpurunError as error:
        return Memory(troubles=(*troubles, f"judged by marks alone: {error}"))
    live = frozenset((row.run_id, row.memory.attempt) for row in rows if not row.memory.is_done)
    accounts = {row.run_id: str(row.plan.get("account", "")) for row in rows}
    rented = tuple(row for row in rows if not row.memory.is_done and row.memory.launch is not Launch.NOT_YET)
    return Memory(Known(home, frozenset(ended), live, accounts), rented, troubles)


def strays(memory: Memory, post: Post) -> list[str]:
    """Name this home's runs that the key can't show: of them nothing is known, least of all that they are gone."""
    return [
        f"{row.run_id} is unknown: it runs on {row.plan.get('account')}, and the key opens {post.account}"
        for row in memory.rented
        if row.provider == post.provider.name and post.account and row.plan.get("account") != post.account
    ]


class LedgerBooks(Books):
    """The guard's deeds in this home's ledger: its own runs only."""

    def __init__(self, ledger: Ledger, known: Known) -> None:
        self._ledger, self.known = ledger, known

    def ending(self, provider: Provider, account: str, verdicts: Sequence[Verdict], now: datetime) -> None:
        """Note each intent; an orphan's money is counted again."""
        for verdict in verdicts:
            one, mark = verdict.allocation, verdict.allocation.mark
            if not verdict.ours or mark is None or mark.run_id not in self.known.accounts:
                continue
            self._ledger.note(mark.run_id, mark.attempt, "guard", "guard", "intent", f"{verdict.kind}: {one.id}", now)
            known = {rented.id for rented in self._ledger.allocations(mark.run_id)}
            if one.id not in known or (mark.run_id, mark.attempt) in self.known.ended:
                self._reopen(provider, account, verdict, now + provider.skew)

    def ended(self, provider: Provider, ended: Ended, now: datetime) -> None:
        """Note the proof."""
        mark = Mark.parse(ended.name)
        if mark is None or mark.home != self.known.home or mark.run_id not in self.known.accounts:
            return
        text = f"{ended.kind}: {ended.id}: {ended.evidence}"
        self._ledger.note(mark.run_id, mark.attempt, "guard", "guard", "done", text, now - provider.skew)
        memory = self._ledger.run(mark.run_id).memory
        if memory.is_done or ended.id not in ids_of(memory):  # else its controller reads it back itself
            gone = Observation(Phase.ABSENT, billing=False, evidence=ended.evidence)
            self._ledger.saw_free(provider.name, ended.id, now, gone)

    def _reopen(self, provider: Provider, account: str, verdict: Verdict, now: datetime) -> None:
        """Count what bills on though its attempt is over: by what was seen, never less."""
        one, mark = verdict.allocation, verdict.allocation.mark
        if mark is None:  # pragma: no cover - only a mark makes an orphan
            return
        ended = [known.spell.ended for known in self._ledger.allocations(mark.run_id) if known.id == one.id]
        fresh = any(end is not None and now.timestamp() - end <= provider.traits.list_lag_seconds for end in ended)
        if fresh or (one.ending and ended and ended[0] is not None):
            return  # proven gone, and the list is older than that, or shows it as going still
        row = self._ledger.run(mark.run_id)
        began = row.created if one.since is None else one.since.timestamp()
        price = offer_of(row).price if one.price is None else one.price
        spell = Spell(price, provider.traits.billing_step_seconds, began, now.timestamp(), None, None)
        self._ledger.open_allocation(one.id, mark, spell, provider=provider.name, account=account)
        # A list does not say whether it waits in a queue, where it may not bill yet.
        look = Observation(Phase.QUEUED, billing=True, evidence="listed", price=one.price, ending=one.ending)
        self._ledger.saw_billing(provider.name, one.id, now, look, lag=provider.traits.list_lag_seconds)


class _Pass:
    """What one pass gathers."""

    def __init__(
        self,
        home: Home,
        providers: Mapping[str, Provider | GpurunError],
        means: Means,
        before: Pulse | None,
        memory: Memory,
        ledger: Ledger | None,
    ) -> None:
        self._home, self._means, self._memory, self._ledger = home, means, memory, ledger
        self._before = before or Pulse(0.0, "")
        self._begun = means.clock()
        self._troubles = list(memory.troubles)
        self._tended: list[str] = []
        self._alerted = dict(self._before.alerted)
        self._books = None if ledger is None else LedgerBooks(ledger, memory.known)
        self._posts = [
            Post(one, memory.known, means.clock, owed=self._owed(name), books=self._books)
            for name, one in providers.items()
            if not isinstance(one, GpurunError)
        ]
        self._shut = {
            name: one
            for name, one in providers.items()
            if isinstance(one, GpurunError) and (not isinstance(one, CredentialsError) or self._expects(name))
        }

    def run(self) -> Pulse:
        """Tend, patrol, leave the pulse, tell."""
        try:
            self._tended = self._means.tend()
        except (GpurunError, OSError) as error:
            self._troubles.append(f"runs that nobody holds can't be carried on: {error}")
        guard.patrol(self._posts, self._breathe)
        pulse = self._pulse()
        lasting = self._alert(pulse)
        for name, seen in pulse.providers.items():
            for one in seen.ended:
                text = f"ended {one['name']} ({one['kind']}): {one['evidence']}"
                self._tell(Notice(f"{name} {one['id']} ended", "gpurun's guard ended a machine", text))
        return self._leave(replace(pulse, alerted={key: self._alerted[key] for key in lasting}))

    def _owed(self, name: str) -> list[Owed]:
        seen = self._before.providers.get(name)
        try:
            return [Owed(**{**one, "kind": Kind(one["kind"])}) for one in (seen.unproven if seen else ())]
        except (TypeError, ValueError, KeyError) as error:
            self._troubles.append(f"what the last pass left unproven can't be read: {error}")
            return []

    def _expects(self, name: str) -> bool:
        """Whether this guard has to do with a vendor: it did before, or a run of this home is there."""
        return name in self._before.providers or any(row.provider == name for row in self._memory.rented)

    def _breathe(self, seconds: float) -> None:
        """Tell what is new, show that it lives, then wait."""
        pulse = self._pulse()
        self._alert(pulse, {one.id for post in self._posts if post.waits for one in post.owed.values()})
        with contextlib.suppress(StateError):  # said once, at the end
            guard_pulse.write(self._home, replace(pulse, alerted=self._alerted, under_way=True))
        self._means.pause(seconds)
        self._remember_again()

    def _remember_again(self) -> None:
        """Read what this home launched and ended while the pass went on; what can't be read stays as it was."""
        if self._ledger is None or self._books is None:
            return
        memory = remember(self._ledger)
        if not memory.troubles:
            self._memory, self._books.known = memory, memory.known
            for post in self._posts:
                post.known = memory.known

    def _leave(self, pulse: Pulse) -> Pulse:
        try:
            guard_pulse.write(self._home, pulse)
        except StateError as error:
            return replace(pulse, troubles=[*pulse.troubles, str(error)])
        return pulse

    def _alert(self, pulse: Pulse, awaited: Collection[str] = ()) -> list[str]:
        """Tell what is new, lasts for another hour, or reached nobody; gives the keys of all that lasts.

        `awaited` are ids whose proof the pass still waits for.
        """
        alarms = _alarms(pulse, awaited)
        for notice in alarms:
            told = self._alerted.get(notice.key)
            lately = told is not None and 0 <= pulse.when - told < REPEAT_SECONDS
            if not lately or (told == self._before.alerted.get(notice.key) and self._means.lost(notice.key)):
                self._alerted[notice.key] = pulse.when
                self._tell(notice)
        return [notice.key for notice in alarms]

    def _tell(self, notice: Notice) -> None:
        try:
            self._means.tell(notice)
        except (GpurunError, OSError) as error:
            self._troubles.append(f"nobody could be told: {error}")

    def _pulse(self) -> Pulse:
        now = self._means.clock()
        seen = {post.provider.name: self._seen(post) for post in self._posts}
        for name, error in self._shut.items():
            last = self._before.providers.get(name, Seen())
            seen[name] = Seen(last.account, unproven=last.unproven, troubles=[error.in_a_line])
        for name, last in self._before.providers.items():
            if name not in seen and last.unproven:
                seen[name] = Seen(last.account, unproven=last.unproven, troubles=["it is not looked at any more"])
        lost = {row.provider for row in self._memory.rented} - seen.keys() - {FREE}
        troubles = [*self._troubles, *(f"no provider is called {name}, and a run is there" for name in sorted(lost))]
        seconds = max(seconds_between(self._begun, now), 0.0)
        host, watched = socket.gethostname(), self._means.watched
        return Pulse(now.timestamp(), host, seconds, seen, troubles, self._tended, watched=watched)

    def _seen(self, post: Post) -> Seen:
        troubles = [post.trouble] if post.trouble else []
        opens = f"and the key opens {post.account}"
        troubles += [f"{one.name}: to be ended on {one.account}, {opens}" for one in post.astray]
        skew = guard.skew_note(post)
        return Seen(
            account=post.account,
            counts=dict(Counter(verdict.kind.value for verdict in post.verdicts)) if post.reads else None,
            ended=[asdict(one) for one in post.ended],
            unproven=[asdict(one) for one in post.owed.values()],
            troubles=troubles + strays(self._memory, post),
            notes=[*post.notes, *([skew] if skew else [])],
            skew_seconds=post.skew / timedelta(seconds=1),
            console_url=post.provider.traits.console_url,
            unknown=[str(one.allocation.mark) for one in post.verdicts if one.kind is Kind.UNKNOWN],
        )


def _alarms(pulse: Pulse, awaited: Collection[str]) -> list[Notice]:
    """What is to be told as long as it lasts."""
    damaged, on = "gpurun's guard: its home is damaged", f"on {pulse.host}"
    found = [Notice(f"home: {text.partition(':')[0]}", damaged, f"{text} ({on})") for text in pulse.troubles]
    for name, seen in pulse.providers.items():
        blind = f"gpurun's guard can't vouch for {name}"
        found += [Notice(f"{name}: {text.partition(':')[0]}", blind, f"{text} ({on})") for text in seen.troubles]
        found += [
            Notice(f"{name} {one['id']}", "NOT PROVEN GONE", f"{one['name']} ({one['kind']}) at {name} may still bill")
            for one in seen.unproven
            if one["id"] not in awaited
        ]
        found += [
            Notice(f"{name} {mark}", "a machine that nobody knows", f"{mark} bills at {name}; this ledger lacks it")
            for mark in seen.unknown
        ]
        if abs(seen.skew_seconds) > guard.SKEW_SECONDS:
            found.append(Notice(f"{name} skew", "a wrong clock", "; ".join(seen.notes)))
    return list({notice.key: notice for notice in found}.values())


def exit_code(pulse: Pulse) -> int:
    """Give 5 where something may bill that should not, or nobody could look; 3 where this home is damaged."""
    if pulse.may_bill:
        return EXIT_MAY_BILL
    return StateError.exit_code if pulse.troubles else 0
