"""The guard in this home, with real means: its keys, its vendors, its lock, its notices, its heartbeat.

Not here: the judging (guard.py), the pass (guard_pass.py), the timer (guard_timer.py).
"""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from orchestrator import glance, guard_pass, guard_pulse, keys
from orchestrator.guard import Post
from orchestrator.guard_pass import FREE, Means, Memory
from orchestrator.ledger import Ledger
from orchestrator.words import EXIT_MAY_BILL
from providers.errors import CredentialsError, GpurunError, StateError, UnreachableError
from providers.table import looked_at, open_provider

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from orchestrator.guard_pass import Notice
    from orchestrator.guard_pulse import Pulse
    from orchestrator.home import Home
    from providers.base import Provider

    Looked = Post | tuple[str, GpurunError]  # an account, or its provider and why it can't be opened

WATCHED = "GPURUN_GUARD_WATCHED"  # set for the passes of `gpurun guard watch`
_LOCK = "guard.lock"


class Debt(NamedTuple):
    """What a guard told to end and did not prove gone yet."""

    provider: str
    id: str
    name: str
    kind: str


def once(home: Home) -> Pulse | None:
    """Make one pass; None = another one is under way."""
    with _alone(home, wait=False) as alone:
        return sweep(home) if alone else None


def after_others(home: Home) -> Pulse:
    """Make one pass, when the one that may be under way is over."""
    with _alone(home, wait=True):
        return sweep(home)


def sweep(home: Home, pause: Callable[[float], None] = time.sleep) -> Pulse:
    """Make one pass, tell what there is to tell, and give the sign of life."""
    from orchestrator import notify
    from orchestrator.notices import guard_says

    watched = bool(os.environ.get(WATCHED))
    unheard = notify.lost(home)
    means = Means(
        _now,
        pause,
        lambda: _tend(home),
        lambda one: _tell(home, one),
        lambda key: guard_says(key, "", "").key in unheard,
        watched,
    )
    pulse = guard_pass.once(home, vendors(home), means)
    if home.ledger.exists():
        notify.catch_up(home)
    notify.heartbeat(home, ok=pulse.is_well, text=guard_pulse.summary(pulse))
    return pulse


def look(home: Home) -> list[Looked]:
    """Judge all that bills now, and touch nothing; an account that can't be opened gives its name and why."""
    memory = _remember(home)
    found: list[Looked] = [(guard_pulse.HOME, StateError(text)) for text in memory.troubles]
    for name, one in vendors(home).items():
        if isinstance(one, GpurunError):
            expected = any(row.provider == name for row in memory.rented)
            found.append((name, UnreachableError(str(one), hint=one.hint) if expected else one))
            continue
        post = Post(one, memory.known, _now)
        post.look()
        found += [post, *((name, UnreachableError(text)) for text in guard_pass.strays(memory, post))]
    return found


def _remember(home: Home) -> Memory:
    damaged = ""
    try:
        guard_pulse.read(home)
    except StateError as error:
        damaged = str(error)
    if not home.ledger.exists():
        return Memory(troubles=(damaged,) if damaged else ())
    try:
        with closing(Ledger(home.ledger)) as ledger:
            return guard_pass.remember(ledger, damaged)
    except GpurunError as error:
        troubles = (damaged, f"judged by marks alone: {error.in_a_line}")
        return Memory(troubles=tuple(filter(None, troubles)))


def debts(home: Home, looked: Sequence[Looked]) -> list[Debt]:
    """Give what a guard told to end and did not prove gone, where these lists don't show it: one proves nothing."""
    try:
        pulse = guard_pulse.read(home)
    except StateError:
        return []  # look() says so
    listed = {verdict.allocation.id for post in looked if isinstance(post, Post) for verdict in post.verdicts}
    owed = [(name, one) for name, seen in (pulse.providers.items() if pulse else ()) for one in seen.unproven]
    return [Debt(name, one["id"], one["name"], one["kind"]) for name, one in owed if one["id"] not in listed]


def vendors(home: Home) -> dict[str, Provider | GpurunError]:
    """Open every account with the keys at hand: the environment's, else those stored in the home."""
    unread: StateError | None = None
    try:
        keys.take_up(home)
    except StateError as error:
        unread = error
    found: dict[str, Provider | GpurunError] = {}
    for name in looked_at(home.root):
        if name != FREE:
            try:
                found[name] = open_provider(name, home.root)
            except CredentialsError as error:
                found[name] = unread or error
            except GpurunError as error:
                found[name] = error
    return found


def _now() -> datetime:
    return datetime.now(UTC)


def _tend(home: Home) -> list[str]:
    now = time.time()
    return glance.tend(home, glance.runs(home, now, last=0), now)


def _tell(home: Home, notice: Notice) -> None:
    from orchestrator import notify
    from orchestrator.notices import guard_says

    notify.tell_guard(home, [guard_says(notice.key, notice.title, notice.text)])


@contextmanager
def _alone(home: Home, *, wait: bool) -> Iterator[bool]:
    """Let one pass at a time into a home; where no lock can be had, all: ending what bills comes first."""
    file = -1
    try:
        home.ensure()
        file = os.open(home.root / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        os.close(file)
        yield False
        return
    except (StateError, OSError):
        pass  # the pass says that its home can't be written
    try:
        yield True
    finally:
        if file >= 0:
            os.close(file)


def to_end(looked: Sequence[Looked]) -> int:
    """Count what a pass would end."""
    return sum(verdict.to_end for post in looked if isinstance(post, Post) for verdict in post.verdicts)


def exit_code(looked: Sequence[Looked], owed: Sequence[Debt]) -> int:
    """Give 5 where something may bill that should not, or nobody could look; 3 where only this home is damaged."""
    if to_end(looked) or owed or is_blind(looked):
        return EXIT_MAY_BILL
    return StateError.exit_code if any(is_of_home(one) for one in looked) else 0


def is_of_home(one: Looked) -> bool:
    """Whether it is a trouble of this home's, and no account."""
    return not isinstance(one, Post) and one[0] == guard_pulse.HOME


def is_blind(looked: Sequence[Looked]) -> bool:
    """Whether an account that has a key, or all, could not be looked at."""
    posts = [one for one in looked if isinstance(one, Post)]
    shut = [one for one in looked if not isinstance(one, Post) and not isinstance(one[1], CredentialsError)]
    blind = [one for one in shut if not is_of_home(one)]
    return bool(blind or not posts or any(post.trouble for post in posts))
