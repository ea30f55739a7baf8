"""Time and processes of a simulated world: one heap of moments, one greenlet a process. Nothing sleeps.

    heap: (moment, number, what) --> jump there --> a process goes on until it sleeps, calls out, or is killed

Everything is deterministic: who runs next is settled by the moment and the order in which it was asked for.
Not here: what a computer, a vendor or a machine is.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import TYPE_CHECKING

from greenlet import getcurrent, greenlet

if TYPE_CHECKING:
    from collections.abc import Callable


class Killed(BaseException):
    """kill -9: no error, so nothing may catch it."""


class Process(greenlet):
    """One process: goes on where it left off when its moment comes, unless its computer is asleep or it is dead."""

    def __init__(self, engine: Engine, computer: object, name: str, body: Callable[[], object], home: str) -> None:
        super().__init__(self._live, engine.loop)
        self.engine, self.computer, self.name, self.body = engine, computer, name, body
        self.home = home  # id of the one it works in; "" = none
        self.alive, self.turn = True, 0
        self.die_at = -1  # the step at which it is killed; -1 = not
        self.steps = 0
        self.error: BaseException | None = None

    def _live(self, *_: object) -> None:
        try:
            self.body()
        except Killed:
            pass
        except Exception as error:  # noqa: BLE001 (a process that fails is dead; who watches it looks at `error`)
            self.error = error
        self.alive = False

    def step(self) -> None:
        """Pass one of the places at which it can die."""
        self.steps += 1
        if self.steps == self.die_at:
            self.alive = False
            raise Killed

    def kill(self) -> None:
        """End it now, wherever it is."""
        if not self.alive:
            return
        self.alive = False
        if self is getcurrent():
            raise Killed
        if self:  # begun, and not over
            self.parent = getcurrent()  # where control comes back to once it is dead
            self.throw(Killed)

    def let_go(self) -> None:
        """Forget the world: a dead greenlet is kept for a while, and thousands of worlds are played."""
        del self.body, self.computer, self.engine


class Engine:
    """The heap of moments."""

    def __init__(self, now: float) -> None:
        self.now = now
        self.loop = getcurrent()
        self._heap: list[tuple[float, int, Callable[[], object]]] = []
        self._number = 0
        self.processes: list[Process] = []

    def at(self, moment: float, what: Callable[[], object]) -> None:
        """Have something done at a moment; one that is past means now."""
        self._number += 1
        heappush(self._heap, (max(moment, self.now), self._number, what))

    def after(self, seconds: float, what: Callable[[], object]) -> None:
        """Have something done in so many seconds."""
        self.at(self.now + seconds, what)

    def run(self, until: float, over: Callable[[], bool] = lambda: False) -> None:
        """Go from moment to moment."""
        while self._heap and not over():
            moment, _, what = heappop(self._heap)
            if moment > until:
                break
            self.now = moment
            what()

    def close(self) -> None:
        """End every process that is left."""
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.let_go()
        self.processes.clear()
        self._heap.clear()

    # ── processes ───────────────────────────────────────────────────────────────────────────────

    def spawn(self, computer: object, name: str, body: Callable[[], object], home: str = "") -> Process:
        """Start a process; it runs from the next moment on."""
        process = Process(self, computer, name, body, home)
        self.processes.append(process)
        self._wake_at(self.now, process)
        return process

    def sleep(self, seconds: float) -> None:
        """Let the present process wait: anything else may happen meanwhile, its own death too."""
        process = getcurrent()
        assert isinstance(process, Process), "only a process can wait"
        self._wake_at(self.now + max(seconds, 0.0), process)
        self.loop.switch()
        process.step()

    def _wake_at(self, moment: float, process: Process) -> None:
        process.turn += 1
        turn = process.turn
        self.at(moment, lambda: self._go_on(process, turn))

    def _go_on(self, process: Process, turn: int) -> None:
        if not process.alive or process.turn != turn:
            return
        asleep = getattr(process.computer, "asleep_until", None)
        if asleep is not None and asleep > self.now:
            self._wake_at(asleep, process)
            return
        process.switch()


def current() -> Process | None:
    """Give the process that runs now; None = the world itself."""
    here = getcurrent()
    return here if isinstance(here, Process) else None
