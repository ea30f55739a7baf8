"""The viewer: what an attached `launch`, `resume`, `wait` or `logs -f` does. It only reads; a controller does the work.

    ledger + runs/<id>/log.txt ──> log lines and a live line on stderr ──> at the end the summary on stdout

Killing it harms nothing. Where it sees that no live controller holds the run, it starts one in the background.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple, Protocol

from orchestrator import glance
from orchestrator.follow import parse
from orchestrator.home import read_json
from orchestrator.meter import Meter
from orchestrator.render import clean, live_line, size
from providers.errors import StateError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from orchestrator.glance import Run
    from orchestrator.home import Home
    from orchestrator.terminal import Terminal

POLL_SECONDS = 0.25
PLAIN_SECONDS = 10.0  # without a terminal, a progress line this often
_STILL_SECONDS = 50.0  # and where nothing moved, so much later
_CHUNK = 4 << 20
_BACKLOG = 1 << 20  # more than this at once is not read by anyone: its end is shown
_LONGEST_LINE = 4000  # characters shown of one line
_SPAWNS = 6
_BEFORE = ("pending", "provisioning", "starting")  # no log yet that could say what is wrong


class Tail:
    """The log's new lines since the last look, line ends included; a half line waits for its end."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._rest = b""

    def lines(self, *, last: bool = False) -> Iterator[bytes]:
        """Give whole new lines, byte for byte; with `last` the unended one too."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                while chunk := file.read(_CHUNK):
                    self._offset += len(chunk)
                    *whole, self._rest = (self._rest + chunk).split(b"\n")
                    yield from (line + b"\n" for line in whole)
                    if len(self._rest) > _BACKLOG:  # a line without an end must not eat the memory
                        yield self._rest
                        self._rest = b""
        except FileNotFoundError:
            return
        if last and self._rest:
            yield self._rest
            self._rest = b""


def decoded(line: bytes) -> str:
    """Read a line as UTF-8, whatever it is."""
    return line.decode("utf-8", "replace").rstrip("\r\n")


def readable(line: str) -> str:
    """Turn one line of the log into what may stand on a terminal: of a progress bar its last state, never an escape."""
    shown = clean(line.rsplit("\r", 1)[-1])
    return shown if len(shown) <= _LONGEST_LINE else shown[:_LONGEST_LINE] + "…"


class Watched(NamedTuple):
    """How watching ended."""

    run: Run
    detached: bool = False
    asked: bool = False  # the user chose to detach; else it was cut off


class Beside(Protocol):
    """What goes on beside a viewer, looked at as often as the run is: forwarded ports, a word on how to log in."""

    def look(self, run: Run, now: float) -> None:
        """Do what the run's state asks for; `now` is epoch seconds."""


class Keeper:
    """Sees to it that a live controller holds the run."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._spawned = 0
        self._next = 0.0

    def look(self, run: Run, now: float) -> None:
        """Start a controller where none lives.

        Raises:
            StateError: they keep dying; says their last word.
        """
        if run.held(now):
            self._spawned, self._next = 0, now + 3.0  # a new one needs a moment to take the lease
            return
        if now < self._next:
            return
        if self._spawned >= _SPAWNS:
            raise StateError(
                f"no controller stays with {run.run_id}: {_last_line(self._home.run(run.run_id).controller_log)}",
                hint=f"mend that, then: gpurun resume {run.run_id}",
                allocation_id=run.allocation_id,
            )
        # A fresh launch has one on its way already.
        if self._spawned or run.seconds(now) > 3.0:
            glance.tend(self._home, [run], now)
        self._spawned += 1
        self._next = now + min(3.0 * self._spawned, 15.0)


class Viewer:
    """Follows one run until nothing of it bills, or until the user goes."""

    def __init__(
        self,
        home: Home,
        run_id: str,
        terminal: Terminal,
        *,
        show_log: bool = True,
        ask: bool = False,
        beside: Sequence[Beside] = (),
    ) -> None:
        self._home = home
        self._run_id = run_id
        self._terminal = terminal
        self._show_log = show_log
        self._ask = ask
        self._tail = Tail(home.run(run_id).log)
        self._meter = Meter()
        self._keeper = Keeper(home)
        self._beside = beside
        self._next_plain = time.monotonic() + PLAIN_SECONDS
        self._told = ("", -1)
        self._why = ""
        self._stuck = ""

    def watch(self) -> Watched:
        """Look again and again; Ctrl-C asks."""
        run = glance.find(self._home, self._run_id, time.time())
        while True:
            try:
                run = self._look()
                if run.is_done:
                    return Watched(run)
                time.sleep(POLL_SECONDS)
            except StateError as error:  # the ledger went bad under a run that goes on
                error.allocation_id = error.allocation_id or run.allocation_id or run.run_id
                raise
            except KeyboardInterrupt:
                choice = self._terminal.ask_detach_stop_go() if self._ask else ""
                if choice == "stop":
                    request_stop(self._home, self._run_id)
                    self._terminal.say("stopping: it saves, its files come home, then the billing ends")
                elif choice != "go":
                    return Watched(run, detached=True, asked=choice == "detach")

    def _look(self) -> Run:
        now = time.time()
        run = glance.find(self._home, self._run_id, now)
        if not run.is_done:
            self._keeper.look(run, now)  # before a word: a terminal that takes none must not leave a run to nobody
        self._show(run, now)
        if not run.is_done:
            for one in self._beside:
                one.look(run, now)
        return run

    def _show(self, run: Run, now: float) -> None:
        fresh = []
        for line in self._tail.lines(last=run.is_done):
            metrics = parse(line)
            if metrics is not None:
                self._meter.add(metrics, now)
            elif self._show_log:
                fresh.append(decoded(line))
        for text in not_too_much(fresh, self._run_id):
            self._terminal.say(text)
        if run.is_done:
            self._terminal.clear()
        else:
            stuck = "\n".join(glance.store_troubles(self._home, [run]).get(run.run_id, ()))
            if stuck != self._stuck:  # else a person at a terminal learns of it at the deadline
                self._stuck = stuck
                self._terminal.say(stuck or "the store takes results again")
            if run.state in _BEFORE and run.detail != self._why:  # a start that fails is tried again, for minutes
                self._why = run.detail
                self._terminal.say(clean(f"{run.state}: {run.detail}"))
            self._show_progress(run, now)

    def _show_progress(self, run: Run, now: float) -> None:
        self._meter.state(run.state, now)
        progress = self._meter.progress(now, run.low, run.high)
        if run.state == "starting":
            progress = progress._replace(shipped=_shipped(self._home.run(run.run_id).shipping))
        if self._terminal.live:
            self._terminal.status(live_line(progress, self._terminal.width))
        elif time.monotonic() >= self._next_plain:
            where = (progress.stage, progress.step)
            if where != self._told or time.monotonic() >= self._next_plain + _STILL_SECONDS:
                self._told, self._next_plain = where, time.monotonic() + PLAIN_SECONDS
                self._terminal.say(live_line(progress))


def not_too_much(lines: list[str], run_id: str) -> Iterator[str]:
    """Clean lines for the terminal; of a flood only the end, and a word on where the rest is."""
    room, first = _BACKLOG, len(lines)
    while first and room > 0:
        first -= 1
        room -= len(lines[first]) + 1
    if first:
        left_out = sum(len(line) + 1 for line in lines[:first])
        yield f"… {size(left_out)} of log not shown; all of it: gpurun logs {run_id}"
    for line in lines[first:]:
        yield readable(line)


def _shipped(path: Path) -> tuple[int, int] | None:
    told = read_json(path) or {}
    done, whole = told.get("done"), told.get("whole")
    return (done, whole) if isinstance(done, int) and isinstance(whole, int) and whole else None


def _last_line(path: Path) -> str:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except OSError:
        return "it left no word"
    return clean(lines[-1]) if lines else "it left no word"


def request_stop(home: Home, run_id: str) -> None:
    """Leave the user's wish to stop in the ledger."""
    from datetime import UTC, datetime

    from orchestrator.ledger import Ledger

    ledger = Ledger(home.ledger)
    try:
        ledger.request_stop(run_id, datetime.now(UTC))
    finally:
        ledger.close()
