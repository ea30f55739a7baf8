"""The agent: runs one training inside its limits and writes down how it ended.

    python payload/agent.py <folder>

    job.json ──> agent ──> training (own session; output through a pipe)
    order.json ─>  └──> log.txt metrics.jsonl status.json … result.json (last)

It starts the training again after a death that nobody here caused, and starts a new watchdog when the old one is gone.
What it never does: go on past the deadline, run two trainings, or claim a file that it has not hashed.
Standard library only, Python 3.9. The wire contract is README.md beside this file.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Dict, List, Optional, Set

sys.path.insert(0, str(Path(__file__).resolve().parent))

import outcome
import processes as ps
from output import Output, plain

POLL = 0.05  # seconds between two looks at the training
LATE = 60.0  # at most so many seconds before the deadline the training is killed, to hash and write
DIVERGED_WAIT = 5.0  # seconds a diverged training gets to leave by itself; it must not save what it has


class Agent:
    """One attempt. The fields are its whole memory; the files are for the others."""

    def __init__(self, folder: Path, job: Dict[str, Any], clock: ps.Clock) -> None:
        self.folder = folder
        self.job = job
        self.clock = clock
        self.mark = str(job["mark"])
        if not self.mark or not job["command"]:
            raise ValueError("no mark, or no command")
        self.command = [sys.executable if part == "{python}" else str(part) for part in job["command"]]
        self.limits = ps.limits_of(job, ps.armed(folder, clock)[1])
        self.grace = max(0.0, ps.number(job.get("grace_seconds")) or 0.0)
        self.late = min(LATE, self.grace / 4)
        self.max_idle = ps.number(job.get("max_idle_seconds")) or 1800.0
        self.max_restarts = int(3 if job.get("max_restarts") is None else job["max_restarts"])
        self.tick = ps.number(job.get("tick_seconds")) or 1.0
        self.output = Output(folder, int(ps.number(job.get("log_limit_bytes")) or 64 * 2**20))
        self.tree = ps.Tree(self.mark)
        self.training: Optional["subprocess.Popen[bytes]"] = None
        self.watchdog: Optional["subprocess.Popen[bytes]"] = None
        self.copier: Optional[threading.Thread] = None
        self.started = clock.wall()
        self.phase = "starting"
        self.reason = ""  # why we end it; the first one counts
        self.detail = ""
        self.kill_at = math.inf  # steady seconds
        self.exit_code: Optional[int] = None
        self.restarts = 0
        self.step_at_restart = -1
        self.order = 0
        self.idle = 0.0
        self.moves = 0
        self.beaten = self.guarded = -math.inf  # steady seconds
        self.stopped_looks = 0
        self.terminated = False  # somebody sent us SIGTERM: as good as an order to stop

    # -- the whole life --

    def run(self) -> None:
        """Train until it is over, then write the result."""
        outcome.set_aside(self.folder)
        self.clear()
        while True:
            ended = self.train_once()
            self.clear()
            if not self.again(ended):
                break
        self.finish()

    def train_once(self) -> Optional[int]:
        """Start the training, follow it to its end; give its return code as `Popen` does, None = never started."""
        if self.time_left(self.grace) <= 0:
            self.reason, self.detail = "deadline", "no time was left to train"
            return None
        try:
            self.start()
        except (OSError, ValueError) as error:
            self.reason, self.detail, self.exit_code = "failed", f"can't start {self.command[0]!r}: {error}", 127
            return None
        training, before = self.training, self.clock.steady()
        assert training is not None  # noqa: S101 (for mypy: start() has just made it)
        self.phase = "running"
        while training.poll() is None:
            time.sleep(POLL)
            now = self.clock.steady()
            self.watch(now - before)
            before = now
            self.reap()
        return training.returncode

    def start(self) -> None:
        """Start the training in its own session, with its output through a pipe that a thread reads."""
        reader, writer = os.pipe()
        env = dict(os.environ, GPURUN_MARK=self.mark, PYTHONUNBUFFERED="1", **self.secrets())
        try:
            self.training = subprocess.Popen(
                self.command,
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
        self.idle, self.moves = 0.0, self.output.moves
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

    def secrets(self) -> Dict[str, str]:
        """Environment of the training that stands in no other file, no argv and no log."""
        return {str(key): str(value) for key, value in ps.read_json(self.folder / "secrets.json").items()}

    # -- while it runs --

    def watch(self, passed: float) -> None:
        """One look: orders, limits, progress, heartbeat, watchdog."""
        now = self.clock.steady()
        self.take_order()
        if self.terminated:
            self.stop("stopped", self.grace)
        if self.time_left(self.grace) <= 0:
            self.stop("deadline", self.grace)
        if self.output.diverged:
            self.stop("diverged", min(self.grace, DIVERGED_WAIT), politely=False)
        # A suspended computer or a stopped agent is no idle training: a look counts for a second at most.
        self.idle = 0.0 if self.output.moves != self.moves else self.idle + min(passed, 1.0)
        self.moves = self.output.moves
        if self.idle > self.max_idle:
            self.stop("hung", min(self.grace, 60.0))
        if now >= self.kill_at or self.time_left(self.late) <= 0:
            self.reason = self.reason or "deadline"
            self.kill()
        if now - self.beaten >= self.tick:
            self.beat()
            self.guard()

    def time_left(self, before: float) -> float:
        """Seconds left to the moment so long before the deadline."""
        return self.limits.left(self.limits.deadline - before, self.clock)

    def take_order(self) -> None:
        """Obey a new order once."""
        order = ps.read_json(self.folder / "order.json")
        count, deadline = ps.number(order.get("id")), ps.number(order.get("deadline"))
        if count is None or count <= self.order:
            return
        self.order = int(count)
        if order.get("kind") == "stop":
            self.stop("stopped", self.grace)
        elif order.get("kind") == "deadline" and deadline is not None:
            self.limits.move(deadline)

    def stop(self, reason: str, grace: float, *, politely: bool = True) -> None:
        """Ask the training to save and leave; past the grace it is killed. The first reason counts."""
        if self.reason:
            return
        self.reason, self.phase = reason, "ending"
        self.kill_at = self.clock.steady() + grace
        training = self.training
        if politely and training is not None and training.returncode is None:
            with contextlib.suppress(OSError):  # not reaped yet: its number is its own
                os.killpg(training.pid, signal.SIGTERM)

    def kill(self) -> None:
        """End the training and all that it left behind, by force."""
        self.tree.end(self.spared(), seconds=5.0, each=self.reap)

    def spared(self) -> Set[int]:
        """Whom no stroke of ours may hit: the watchdog."""
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

    def guard(self) -> None:
        """Start a new watchdog when the old one is gone; wake one that was stopped, or replace it."""
        lock, now = self.folder / ".watchdog.lock", self.clock.steady()
        if ps.held(lock):
            watchdog = ps.holder(lock)
            self.stopped_looks = self.stopped_looks + 1 if watchdog and watchdog.state in "Tt" else 0
            if watchdog and self.stopped_looks:
                ps.send(watchdog, signal.SIGCONT if self.stopped_looks < 5 else signal.SIGKILL)
        elif now - self.guarded > 2 * self.tick:
            self.guarded = now
            argv = [sys.executable, "-B", str(self.folder / "payload" / "watchdog.py"), str(self.folder)]
            env = dict(os.environ, GPURUN_MARK=self.mark)
            null = subprocess.DEVNULL
            with contextlib.suppress(OSError):
                self.watchdog = subprocess.Popen(
                    argv, stdin=null, stdout=null, stderr=null, cwd=self.folder, env=env, start_new_session=True
                )

    def beat(self) -> None:
        """Write the heartbeat; a full disk costs only the heartbeat."""
        self.beaten = self.clock.steady()
        beat = {
            "time": self.clock.wall(),
            "pid": os.getpid(),
            "phase": self.phase,
            "stage": self.output.stage,
            "step": self.output.step,
            "total_steps": self.output.total_steps,
            "loss": self.output.loss,
            "restarts": self.restarts,
            "exit_code": self.exit_code,
            "reason": self.reason,
            "detail": self.detail,
            "deadline": self.limits.deadline,
            "ceiling": self.limits.ceiling,
            "order": self.order,
        }
        with contextlib.suppress(OSError):
            ps.write_json(self.folder / "status.json", beat)

    # -- how it ended --

    def again(self, ended: Optional[int]) -> bool:
        """Judge an end (a return code as `Popen` gives it; None = never started); True = start the training again."""
        if ended is None:
            return False
        killed = -ended if ended < 0 else 0
        self.exit_code = 128 + killed if killed else ended
        at = f"at step {self.output.step}"
        if self.reason in {"hung", "diverged"} or ended == 3:
            self.reason = self.reason if self.reason == "hung" else "diverged"
            self.detail = self.words()
        elif killed and not self.reason:
            self.detail = f"killed by signal {killed}{' (out of memory?)' if killed == signal.SIGKILL else ''} {at}"
            if self.may_restart():
                return True
            self.reason = "failed"
        elif ended == 0:
            self.reason = "completed"
        elif self.reason or ended == 5:  # ordered; a 5 that we did not order, somebody else did
            self.reason = self.reason or "stopped"
            how = f"killed by signal {killed}" if killed else "saved and left" if ended == 5 else f"left with {ended}"
            self.detail = f"{how} {at}"
        else:
            self.reason, self.detail = "failed", self.words()
        return False

    def may_restart(self) -> bool:
        """Start again after a death that nobody here caused: a few times, and not twice at the same step."""
        moved = self.restarts == 0 or self.output.ever > self.step_at_restart
        if self.restarts >= self.max_restarts or not moved or self.time_left(self.grace) <= 0:
            return False
        self.restarts += 1
        self.step_at_restart = self.output.ever
        self.output.restart(f"… {self.detail}; started again ({self.restarts} of {self.max_restarts})\n")
        return True

    def words(self) -> str:
        """One line for a person on what went wrong."""
        if self.reason == "hung":
            stage = f" of stage {self.output.stage}" if self.output.stage else ""
            if not self.output.ever and not stage:
                return (
                    f'no step for {self.idle:.0f} s (a program tells its steps in lines like ::metrics {{"step": 1}})'
                )
            return f"no new step for {self.idle:.0f} s after step {self.output.step}{stage}"
        if self.reason == "diverged":
            on_whose_word = "" if self.output.diverged else "it left with exit code 3, which says that "
            return f"{on_whose_word}the loss is not finite at step {self.output.step}"
        return self.output.story or f"left with exit code {self.exit_code} without a word"

    def finish(self) -> None:
        """Hash what there is and write the result."""
        self.phase = "finishing"
        self.beat()
        artifacts, said = outcome.hash_artifacts(self.folder, self.pulse)
        if self.output.disk_error:
            said.append(f"part of the output was lost: {self.output.disk_error}")
        self.detail = "; ".join([self.detail, *said] if self.detail else said)
        own = {
            "exit_code": self.exit_code,
            "reason": self.reason,
            "detail": plain(self.detail.encode("utf-8", "replace")),
            "artifacts": artifacts,
            "restarts": self.restarts,
            "started": self.started,
            "ended": self.clock.wall(),
        }
        self.phase = "exited"
        self.beat()
        outcome.write(self.folder, outcome.gather(self.folder, self.mark, self.output.last, own), self.wait)

    def pulse(self) -> bool:
        """Stay visible while hashing; False = the deadline is too near to go on."""
        if self.clock.steady() - self.beaten >= self.tick:
            self.beat()
            self.guard()
        return self.time_left(self.late / 10) > 0

    def wait(self) -> None:
        """Wait a moment for room on the disk."""
        self.beat()
        self.guard()
        time.sleep(self.tick)


def main(argv: List[str]) -> int:
    """Read the command line and the job; leave at once when there is nothing to do."""
    if len(argv) != 2 or not Path(argv[1]).is_dir():
        print("usage: agent.py <folder>", file=sys.stderr)
        return 2
    folder = Path(argv[1]).resolve()
    job = ps.read_json(folder / "job.json")
    if job.get("mark"):
        ps.carry(str(job["mark"]), argv)
    lock = ps.hold(folder / ".agent.lock")
    if lock is None:
        print("agent: another one runs this job", file=sys.stderr)
        return 0
    if (folder / "result.json").exists() or (folder / "end.json").exists():
        return 0
    ps.deaf([signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2])
    ps.adopt_orphans()
    try:
        agent = Agent(folder, job, ps.Clock())
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        print(f"agent: job.json is wrong: {error!r}", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, lambda *_: setattr(agent, "terminated", True))
    agent.beat()
    agent.guard()
    agent.run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
