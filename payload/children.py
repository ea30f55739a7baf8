"""The processes that an agent starts: one training at a time, and a new watchdog when the old one is gone.

    child = Children(folder, mark, output)
    child.start(argv, env)          # own session; its output goes through a pipe that a thread reads
    while child.poll() is None: …   # then child.clear(): nothing of the job is left but us and the watchdog

Nothing here decides when to start or end anything; the agent does. Standard library only, Python 3.9.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Dict, List, Optional, Set

import processes as ps

if TYPE_CHECKING:
    from pathlib import Path

    from limits import Clock
    from output import Output

POLL = 0.05  # seconds between two looks


class Children:
    """What runs below one agent."""

    def __init__(self, folder: Path, mark: str, output: Output, clock: Clock) -> None:
        self.folder = folder
        self.mark = mark
        self.output = output
        self.clock = clock
        self.tree = ps.Tree(mark)
        self.training: Optional["subprocess.Popen[bytes]"] = None
        self.watchdog: Optional["subprocess.Popen[bytes]"] = None
        self.copier: Optional[threading.Thread] = None
        self.guarded = -float("inf")  # steady seconds: when a watchdog was started last
        self.stopped_looks = 0

    # -- the training --

    def start(self, command: List[str], more: Dict[str, str]) -> None:
        """Start a training in its own session, with `more` in its environment.

        Raises:
            OSError, ValueError: the system can't.
        """
        reader, writer = os.pipe()
        env = dict(os.environ, GPURUN_MARK=self.mark, PYTHONUNBUFFERED="1", **more)
        try:
            self.training = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=writer,
                stderr=writer,
                cwd=self.folder,
                env=env,
                start_new_session=True,
            )
        except (OSError, ValueError):
            os.close(reader)
            raise
        finally:
            os.close(writer)
        self.copier = threading.Thread(target=self.copy, args=(reader,), daemon=True)
        self.copier.start()

    def copy(self, reader: int) -> None:
        """Read the pipe to its end, come what may: a training whose pipe is full hangs."""
        try:
            self.output.copy(reader)
        finally:
            while os.read(reader, 1 << 16):
                pass
            os.close(reader)

    def poll(self) -> Optional[int]:
        """Give the training's return code as `Popen` does; None = it runs."""
        assert self.training is not None  # noqa: S101 (for mypy: asked only after a start)
        return self.training.poll()

    def ask(self) -> None:
        """Ask the training's whole process group to save and leave."""
        training = self.training
        if training is not None and training.returncode is None:
            with contextlib.suppress(OSError):  # not reaped yet: its number is its own
                os.killpg(training.pid, signal.SIGTERM)

    # -- their end --

    def kill(self) -> None:
        """End the training and all that it left behind, by force."""
        self.tree.end(self.spared(), seconds=5.0, each=self.reap)

    def spared(self) -> Set[int]:
        """Whom no stroke of ours may hit: the watchdog, and its helpers."""
        self.tree.leave_out_helpers(self.folder)
        watchdog = ps.holder(self.folder / ".watchdog.lock")
        return {watchdog.pid} if watchdog else set()

    def clear(self) -> None:
        """Leave no process of the job but ourselves and the watchdog: asked first, then made to."""
        spared = self.spared() | {os.getpid()}
        for pid, process in self.tree.find().items():
            if pid not in spared:
                ps.send(process, signal.SIGTERM)
        until = time.monotonic() + 1.0
        while time.monotonic() < until and set(self.tree.find()) - spared:
            self.reap()
            time.sleep(POLL)
        self.kill()
        if self.copier is not None:
            self.copier.join(5.0)  # the pipe is closed now, unless someone outside the job holds it

    def reap(self) -> None:
        """Bury orphans that came to us; the training and the watchdog are buried by their own `poll`."""
        if self.watchdog is not None:
            self.watchdog.poll()
        own = {child.pid for child in (self.training, self.watchdog) if child is not None}
        with contextlib.suppress(ChildProcessError):
            while hasattr(os, "waitid"):
                dead = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
                if dead is None or dead.si_pid in own:
                    if self.training is not None:
                        self.training.poll()
                    return
                os.waitpid(dead.si_pid, os.WNOHANG)

    # -- the watchdog --

    def guard(self, tick: float) -> None:
        """Start a new watchdog when the old one is gone; wake one that was stopped, or replace it."""
        lock, now = self.folder / ".watchdog.lock", self.clock.steady()
        if ps.held(lock):
            watchdog = ps.holder(lock)
            self.stopped_looks = self.stopped_looks + 1 if watchdog and watchdog.state in "Tt" else 0
            if watchdog and self.stopped_looks:
                ps.send(watchdog, signal.SIGCONT if self.stopped_looks < 5 else signal.SIGKILL)
        elif now - self.guarded > 2 * tick:
            self.guarded = now
            argv = [sys.executable, "-B", str(self.folder / "payload" / "watchdog.py"), str(self.folder)]
            env = dict(os.environ, GPURUN_MARK=self.mark)
            null = subprocess.DEVNULL
            with contextlib.suppress(OSError):
                self.watchdog = subprocess.Popen(
                    argv, stdin=null, stdout=null, stderr=null, cwd=self.folder, env=env, start_new_session=True
                )
