"""What is worth telling a person who is not looking, told once: ends, deaths, money, ends that can't be proven, guards.

    a run's row ──> worth_telling (pure) ──> event `notify` in the ledger ──> a process of its own ──> deliver.py

A controller and a guard call this; whatever fails here disturbs neither. The targets of a run may hold tokens: they lie
in `runs/<id>/notify.json` (0600) until its end was told, and reach the sender over a pipe.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

from orchestrator import guard_pulse, settings_file, targets
from orchestrator.home import Home, write_private
from orchestrator.ledger import Ledger
from orchestrator.notices import Notice, guard_is_silent, trial, worth_telling
from providers.errors import GpurunError, LedgerError, StateError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from orchestrator.records import Event, RunRow
    from orchestrator.targets import Target
    from providers.base import Traits

log = logging.getLogger("gpurun.notify")

HOME_WIDE = ""  # the run id of what concerns no run
_UNDER_WAY_SECONDS = 300.0  # an intent without an outcome for so long was cut off: told once more by the next process
_REPEAT = timedelta(hours=1)  # between two notices of the same trouble of a guard's
_STILL_SECONDS = 180.0  # awake, that a pulse must stand still: after a sleep the guard's timer needs a moment too
_CATCH_UP = (timedelta(minutes=2), timedelta(days=1))  # ends that old may have been cut off before they were told

_children: list[subprocess.Popen[bytes]] = []


class Herald:
    """Tells of one run, for its controller; `awake` counts the seconds that this computer was."""

    def __init__(
        self, home: Home, ledger: Ledger, traits: Traits | None = None, *, awake: Callable[[], float] = time.monotonic
    ) -> None:
        self._home = home
        self._ledger = ledger
        self._traits = traits
        self._awake = awake
        self._targets: tuple[Target, ...] | None = None
        self._told: dict[str, set[str]] = {}  # by run id
        self._pulse = (0.0, 0.0)  # when the guard's was written, and since when it stands so

    def look(self, row: RunRow, now: datetime) -> None:
        """Tell what is new; `now` is by our clock. Never raises, never waits."""
        with _undisturbed():
            if self._targets is None:
                self._targets = targets_of(self._home, row.run_id)
            if not self._targets:
                return
            told = self._known(row.run_id, now)
            for notice in worth_telling(row, told, now, self._traits):
                self._tell(row.run_id, row.memory.attempt, notice, now)
            silent = guard_is_silent(self._silent_since(now), now)
            if silent is not None and silent.key not in self._known(HOME_WIDE, now):
                self._tell(HOME_WIDE, 0, silent, now)

    def _known(self, run_id: str, now: datetime) -> set[str]:
        if run_id not in self._told:
            self._told[run_id] = told_of(self._ledger.events(run_id), now)
        return self._told[run_id]

    def _tell(self, run_id: str, attempt: int, notice: Notice, now: datetime) -> None:
        self._told[run_id].add(notice.key)
        tell(self._home, self._ledger, notice, self._targets or (), now, run_id=run_id, attempt=attempt)

    def _silent_since(self, now: datetime) -> float | None:
        """Say when the last pulse of a guard that is kept going was, if it stood still while this one was awake."""
        try:
            kept = guard_pulse.is_kept(self._home, guard_pulse.read(self._home))
        except StateError:
            kept = guard_pulse.is_installed(self._home)
        if not kept:
            return None
        try:
            written = guard_pulse.path_of(self._home).stat().st_mtime
        except FileNotFoundError:
            return None  # it has not run yet: its installation says whether it can
        if written != self._pulse[0]:
            self._pulse = (written, self._awake())
        stood = self._awake() - self._pulse[1]
        return written if stood >= _STILL_SECONDS and written < now.timestamp() else None


def tell_guard(home: Home, notices: Sequence[Notice], now: datetime | None = None) -> None:
    """Tell what a guard has to say, each key once an hour unless it reached nobody. Never raises, never waits."""
    now = now or datetime.now(UTC)
    with _undisturbed():
        places = everyone(home) if notices else ()
        if not places:
            return
        try:
            ledger = Ledger(home.ensure().ledger)
        except LedgerError as error:  # a damaged one is worth telling all the more
            log.warning("notify: %s", error)
            for notice in notices:
                send(home, notice, places, now)
            return
        with closing(ledger):
            events = ledger.events(HOME_WIDE)
            recent = [one for one in events if now.timestamp() - one.time < _REPEAT.total_seconds()]
            lately = {key_of(one) for one in recent if (one.verb, one.kind) == ("notify", "intent")}
            for notice in notices:
                if notice.key not in lately - lost_of(events, now):
                    tell(home, ledger, notice, places, now, actor="guard")


def lost(home: Home, now: datetime | None = None) -> set[str]:
    """Keys of what a guard told last and reached nobody, a while ago. Never raises."""
    with _undisturbed():
        if home.ledger.exists():
            with closing(Ledger(home.ledger)) as ledger:
                return lost_of(ledger.events(HOME_WIDE), now or datetime.now(UTC))
    return set()


def catch_up(home: Home, now: datetime | None = None) -> None:
    """Tell ends whose controller died between the end and its notice; for a guard's pass. Never raises."""
    now = now or datetime.now(UTC)
    soonest, latest = _CATCH_UP
    with _undisturbed(), closing(Ledger(home.ledger)) as ledger:
        for row in ledger.runs():
            ended = None if row.ended is None else now - datetime.fromtimestamp(row.ended, UTC)
            if row.memory.is_done and ended is not None and soonest < ended < latest:
                Herald(home, ledger).look(row, now)


def heartbeat(home: Home, *, ok: bool, text: str = "") -> None:
    """Ping the URL of the defaults, as healthchecks.io and its like take it; `ok=False` pings `URL/fail`. Never raises.

    Who watches there tells when the guard falls silent, for nothing here can.
    """
    with _undisturbed():
        url = settings_file.load(home.root / settings_file.NAME).get("heartbeat")
        if url:
            address = str(url) if ok else failing(str(url))
            spawn(home, {"heartbeat": address, "text": text[:1000]})


def failing(url: str) -> str:
    """Give the address that says "not well": `/fail` behind the path, and before what is asked with it."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/fail"))


# ── the targets ─────────────────────────────────────────────────────────────────────────────────


def keep(home: Home, run_id: str, places: Sequence[Target]) -> None:
    """Write down where a run's notices go. Before its controller starts."""
    if places:
        texts = [one.text for one in places]
        write_private(home.run(run_id).notify, json.dumps({"targets": texts}).encode() + b"\n")


def targets_of(home: Home, run_id: str) -> tuple[Target, ...]:
    """Read where a run's notices go."""
    try:
        return targets.all_of(json.loads(home.run(run_id).notify.read_bytes())["targets"])
    except FileNotFoundError:
        return ()


def of_defaults(home: Home) -> tuple[Target, ...]:
    """Read where notices go without `--notify`."""
    text = settings_file.load(home.root / settings_file.NAME).get("notify")
    return targets.several(str(text)) if text else ()


def everyone(home: Home) -> tuple[Target, ...]:
    """All who are to hear of what concerns no run: the defaults' targets and those of the unfinished runs."""
    found = list(of_defaults(home))
    with suppress(LedgerError):  # a damaged one is worth telling all the more
        found += _of_runs(home)
    return tuple(dict.fromkeys(found))[: targets.MOST_TARGETS]


def _of_runs(home: Home) -> list[Target]:
    if not home.ledger.exists():
        return []
    with closing(Ledger(home.ledger)) as ledger:
        return [place for row in ledger.runs(unfinished=True) for place in targets_of(home, row.run_id)]


def chosen(home: Home, texts: Sequence[str]) -> tuple[Target, ...]:
    """Read what was typed after `--notify`, else the defaults; before anything is rented.

    Raises:
        ConfigError: one is no target, or needs what is not installed.
    """
    found = targets.all_of(tuple(texts)) if texts else of_defaults(home)
    targets.need_apprise(found)
    return found


def test(home: Home, texts: Sequence[str]) -> dict[Target, str]:
    """Send a test notice and wait for it; gives for each target "" or why it was not told.

    Raises:
        UsageError: there is nobody to tell.
    """
    from orchestrator.deliver import deliver

    places = chosen(home, texts)
    if not places:
        raise UsageError("nobody is told of anything yet", hint="gpurun config set notify ntfy://my-topic")
    now = datetime.now(UTC)
    return deliver(trial(now).as_json(now), places)


# ── told once ───────────────────────────────────────────────────────────────────────────────────


def key_of(event: Event) -> str:
    """Name what an event `notify` is about."""
    return event.text.partition(" ")[0]


def told_of(events: Collection[Event], now: datetime) -> set[str]:
    """Keys that need no telling: told, failed for good, or under way."""
    ours = [one for one in events if one.verb == "notify"]
    intents = Counter(key_of(one) for one in ours if one.kind == "intent")
    over = {key_of(one) for one in ours if one.kind != "intent"}
    under_way = {key_of(one) for one in ours if now.timestamp() - one.time < _UNDER_WAY_SECONDS}
    return over | under_way | {key for key, count in intents.items() if count > 1}


def lost_of(events: Collection[Event], now: datetime) -> set[str]:
    """Keys whose last telling failed with every target, or was cut off, some minutes ago."""
    last: dict[str, tuple[float, set[str]]] = {}
    for one in events:
        if one.verb == "notify" and one.kind == "intent":
            last[key_of(one)] = (one.time, set())
        elif one.verb == "notify" and key_of(one) in last:
            last[key_of(one)][1].add(one.kind)
    old = now.timestamp() - _UNDER_WAY_SECONDS
    return {key for key, (time_, outcomes) in last.items() if time_ < old and "done" not in outcomes}


def tell(
    home: Home,
    ledger: Ledger,
    notice: Notice,
    places: Sequence[Target],
    now: datetime,
    *,
    run_id: str = HOME_WIDE,
    attempt: int = 0,
    actor: str = "controller",
) -> None:
    """Note that it is being told, then hand it to a sender."""
    try:
        ledger.note(run_id, attempt, actor, "notify", "intent", f"{notice.key} {notice.title}", now)
    except LedgerError as error:  # a full disk is worth telling all the more
        log.warning("notify: %s", error)
    send(home, notice, places, now, run_id=run_id, attempt=attempt)


def send(
    home: Home,
    notice: Notice,
    places: Sequence[Target],
    now: datetime,
    *,
    run_id: str = HOME_WIDE,
    attempt: int = 0,
) -> None:
    """Hand it to a sender."""
    scope = {"run_id": run_id, "attempt": attempt}
    spawn(home, {**scope, "notice": notice.as_json(now), "targets": [one.text for one in places]})


def spawn(home: Home, payload: dict[str, object]) -> None:
    """Start a sender that nobody waits for; it gets all over a pipe, which holds what it is given."""
    _children[:] = [child for child in _children if child.poll() is None]
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "orchestrator.deliver"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,  # how it went stands in the ledger; a traceback could hold a token
        env={**os.environ, "GPURUN_HOME": str(home.root)},
        cwd=home.root,
        start_new_session=True,
    )
    _children.append(process)
    if process.stdin is not None:
        with process.stdin:
            process.stdin.write(json.dumps(payload).encode())


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Let nothing out: who tells must never keep from ending what bills."""
    try:
        yield
    except GpurunError as error:
        log.warning("notify: %s", error)
    except Exception:
        log.exception("notify")
