"""The machine behind an instance: one thread does everything that is asked of it, in order.

A vendor's API answers at once; booting, breaking and burying a machine take their own time.
"""

from __future__ import annotations

import sys
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class Link(Protocol):
    """The road to a machine."""

    passed_bytes: int  # both ways

    def cut(self, *, after_bytes: int = 0, times: int = 1) -> None:
        """Reset every connection, now or after so many more bytes, and again after as many."""

    def blackhole(self, *, after_bytes: int = 0, for_seconds: float | None = None) -> None:
        """Let packets go nowhere."""

    def freeze(self, *, after_bytes: int = 0, for_seconds: float | None = None) -> None:
        """Stay connected and say nothing."""

    def heal(self) -> None:
        """Let everything pass again."""


class Machine(Protocol):
    """What `simulators.machine.Machine` is to us."""

    @property
    def link(self) -> Link:
        """The road to it."""

    def boot(self) -> None:
        """Start its sshd."""

    def reboot(self) -> None:
        """Kill everything on it and start its sshd again."""

    def destroy(self) -> None:
        """Kill everything on it."""

    def fill_disk(self) -> None:
        """Leave no byte free."""


class Host:
    """A machine and the thread that serves it. `troubles` keeps what went wrong there, for `GET <control>/state`."""

    def __init__(self, make: Callable[[], Machine], troubles: list[str]) -> None:
        self._make = make
        self._machine: Machine | None = None
        self._pool = ThreadPoolExecutor(1, "host")
        self._troubles = troubles
        self._ended = False

    def boot(self) -> None:
        """Make the machine and start its sshd."""
        self._do(self._boot)

    def reboot(self) -> None:
        """Restart it, if it was ever up."""
        self._do(lambda: None if self._machine is None else self._machine.reboot())

    def fill_disk(self) -> None:
        """Leave no byte free on it."""
        self._do(lambda: None if self._machine is None else self._machine.fill_disk())

    def do(self, deed: Callable[[], object]) -> None:
        """Do something else there, in its turn."""
        self._do(deed)

    def link(self, what: str, options: Mapping[str, float]) -> bool:
        """Do one of cut, blackhole, freeze, heal to its link; True once it is done."""
        done = self.link_soon(what, options)
        return done is not None and done.exception(30) is None

    def link_soon(self, what: str, options: Mapping[str, float]) -> Future[object] | None:
        """Do that to its link without waiting for it."""
        return self._do(lambda: self._machine and getattr(self._machine.link, what)(**options))

    def passed_bytes(self) -> int:
        """Bytes that its link has let through, both ways."""
        return 0 if self._machine is None else self._machine.link.passed_bytes

    def destroy(self) -> None:
        """End it; nothing more is done to it."""
        self._do(self._destroy)
        self._ended = True
        self._pool.shutdown(wait=False)

    def wait(self) -> None:
        """Wait until all that was asked is done."""
        self._pool.shutdown(wait=True)

    def _boot(self) -> None:
        self._machine = self._make()
        self._machine.boot()

    def _destroy(self) -> None:
        if self._machine is not None:
            self._machine.destroy()

    def _do(self, what: Callable[[], object]) -> Future[object] | None:
        if self._ended:
            return None
        done = self._pool.submit(what)
        done.add_done_callback(self._note)
        return done

    def _note(self, done: Future[object]) -> None:
        error = done.exception()
        if error is not None:
            self._troubles.append(f"{type(error).__name__}: {error}")
            print(f"simulated machine: {self._troubles[-1]}", file=sys.stderr)  # noqa: T201 - a bug of ours is told
