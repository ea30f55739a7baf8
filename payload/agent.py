"""The agent: makes the environment, runs one training inside its limits and writes down how it ended.

    python payload/agent.py <folder>

    job.json ──> agent ──> setup, then training (own session each; output through a pipe)
    order.json ─>  └──> log.txt metrics.jsonl status.json … result.json (last)

It starts the training again after a death that nobody here caused, and starts a new watchdog when the old one is gone.
What it never does: go on past the deadline, run two trainings, or claim a file that it has not hashed.
Standard library only, Python 3.9. The wire contract is README.md beside this file.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any, Dict, List, Optional

sys.path.insert(0, str(Path(__file__).resolve().parent))

import outcome
import processes as ps
from children import POLL, Children
from limits import Clock, limits_of, number
from output import Output, plain
from probe import Probe

BROKEN = 10  # exit code of a setup: this machine can't do it, another one may
LATE = 60.0  # at most so many seconds before the deadline the training is killed, to hash and write
GOES_DOWN = 180.0  # seconds that a machine may take to go down: systemd gives everyone 90
DIVERGED_WAIT = 5.0  # seconds a diverged training gets to leave by itself; it must not save what it has


class Agent:
    """One attempt. The fields are its whole memory; the files are for the others."""

    def __init__(self, folder: Path, job: Dict[str, Any], clock: Clock) -> None:
        self.folder = folder
        self.job = job
        self.clock = clock
        self.mark = str(job["mark"])
        if not self.mark or not job["command"]:
            raise ValueError("no mark, or no command")
        self.command = [str(part) for part in job["command"]]
        self.setup = [str(part) for part in job.get("setup") or ()]
        self.limits = limits_of(job, ps.armed(folder, clock)[1])
        self.grace = max(0.0, number(job.get("grace_seconds")) or 0.0)
        self.late = min(LATE, self.grace / 4)
        self.max_idle = number(job.get("max_idle_seconds")) or 1800.0
        self.own = "script" in ps.read_json(folder / "config.json")  # a user's own script, which keeps no rules of ours
        self.max_restarts = int((0 if self.own else 3) if job.get("max_restarts") is None else job["max_restarts"])
        self.tick = number(job.get("tick_seconds")) or 1.0
        self.output = Output(folder, int(number(job.get("log_limit_bytes")) or 64 * 2**20))
        self.child = Children(folder, self.mark, self.output, clock)
        self.probe = Probe(folder, job.get("probe") or {})
        self.started = clock.wall()
        self.phase = "starting"
        self.reason = ""  # why we end it; the first one counts
        self.detail = ""
        self.kill_at = math.inf  # steady seconds
        self.exit_code: Optional[int] = None
        self.restarts = 0
        self.step_at_restart = -1
        self.order = 0
        self.obey(ps.read_json(folder / "limits.json"))  # as the agent before a reboot knew them
        self.idle = 0.0
        self.moves = 0
        self.preparing = False
        self.beaten = -math.inf  # steady seconds
        self.leaving = 0.0  # seconds that the last checkpoint took into the store, and half of that
        self.terminated = False  # somebody sent us SIGTERM: as good as an order to stop

    # -- the whole life --

    def run(self) -> None:
        """Prepare and train until it is over, then write the result."""
        outcome.set_aside(self.folder)
        self.child.clear()
        if self.prepare():
            while True:
                ended = self.run_once(self.resolved(self.command), self.environment())
                self.child.clear()
                if not (self.reason == "restarting" and self.outlasts()) and not self.again(ended):
                    break
        self.finish()

    def prepare(self) -> bool:
        """Make the environment, once; False = there is none, and why is written down."""
        if not self.setup:
            return True
        begun, self.preparing = self.clock.steady(), True
        self.output.feed(b'::metrics {"stage": "setup"}\n')
        gpus = number(self.job.get("gpus")) or 0
        ended = self.run_once(self.resolved(self.setup), {"GPURUN_GPUS": f"{gpus:.0f}"})
        self.child.clear()
        self.preparing = False
        if ended is not None and (ended or self.reason):
            self.spoiled(ended)
        if self.reason:
            return False
        self.output.restart(f"setup: done in {self.clock.steady() - begun:.0f} s\n")
        return True

    def run_once(self, command: List[str], more: Dict[str, str]) -> Optional[int]:
        """Start a command, follow it to its end; give its return code as `Popen` does, None = never started."""
        if self.time_left(self.grace) <= 0:
            self.reason, self.detail = "deadline", "no time was left to train"
            return None
        try:
            self.child.start(command, more)
        except (OSError, ValueError) as error:
            self.reason, self.detail, self.exit_code = "failed", f"can't start {command[0]!r}: {error}", 127
            return None
        self.phase, self.idle, self.moves, before = "running", 0.0, self.progress(), self.clock.steady()
        while True:
            ended = self.child.poll()
            if ended is not None:
                return ended
            time.sleep(POLL)
            now = self.clock.steady()
            self.watch(now - before)
            before = now
            self.child.reap()

    def resolved(self, command: List[str]) -> List[str]:
        """Put the interpreter in: the one that the setup left, else our own."""
        own = self.folder / "env" / "bin" / "python"
        python = str(own) if os.access(own, os.X_OK) else sys.executable
        return [python if part == "{python}" else part for part in command]

    def environment(self) -> Dict[str, str]:
        """Give the training its secrets, which stand in no other file, no argv and no log, and its commands."""
        secrets = {str(key): str(value) for key, value in ps.read_json(self.folder / "secrets.json").items()}
        commands = self.folder / "env" / "bin"
        path = {"PATH": f"{commands}{os.pathsep}{os.environ.get('PATH', os.defpath)}"} if commands.is_dir() else {}
        probe = {"GPURUN_PROBE_STEPS": str(self.probe.steps)} if self.probe.steps else {}
        return {**path, **probe, **secrets}

    # -- while it runs --

    def watch(self, passed: float) -> None:
        """One look: orders, limits, progress, heartbeat, watchdog."""
        now = self.clock.steady()
        self.take_order()
        if self.terminated and not self.reason:
            self.stop("restarting" if ps.going_down() else "stopped", self.grace)
        if self.time_left(self.grace + self.leaving) <= 0:
            self.stop("deadline", self.grace)
        if self.output.diverged:
            self.stop("diverged", min(self.grace, DIVERGED_WAIT), politely=False)
        # A suspended computer or a stopped agent is no idle training: a look counts for a second at most.
        self.idle = 0.0 if self.progress() != self.moves else self.idle + min(passed, 1.0)
        self.moves = self.progress()
        if self.idle > self.max_idle:
            self.stop("hung", min(self.grace, 60.0))
        if not self.preparing and not self.reason:
            self.judge_pace(passed)
        if now >= self.kill_at or self.time_left(self.late) <= 0:
            self.reason = self.reason or "deadline"
            self.child.kill()
        if now - self.beaten >= self.tick:
            self.beat()
            self.child.guard(self.tick)

    def judge_pace(self, passed: float) -> None:
        """Say what the first steps cost, where that was asked for; what can't be done in time is stopped now."""
        left, late = self.time_left(self.grace + self.leaving), self.time_left(self.late + self.leaving)
        told = self.probe.look(self.output, passed, left, late, self.clock.wall())
        if told is None:
            return
        self.output.add(f"{told}\n::metrics {json.dumps({'probe': ps.read_json(self.probe.file)})}\n")
        if self.probe.words:
            self.stop("deadline", self.grace)

    def progress(self) -> int:
        """Give a number that grows as it gets on: a training by new steps and stages, a setup by what it says.

        So does a user's own script, until it tells steps: nobody asked it to.
        """
        speaks = self.preparing or (self.own and not self.output.tells)
        return self.output.written if speaks else self.output.moves

    def time_left(self, before: float) -> float:
        """Seconds left to the moment so long before the deadline."""
        return self.limits.left(self.limits.deadline - before, self.clock)

    def take_order(self) -> None:
        """Look for a new order."""
        self.obey(ps.read_json(self.folder / "order.json"))

    def obey(self, order: Dict[str, Any]) -> None:
        """Obey an order once."""
        count, deadline = number(order.get("id")), number(order.get("deadline"))
        if count is None or count <= self.order:
            return
        self.order = int(count)
        if order.get("kind") == "stop":
            self.stop("stopped", self.grace)
        elif order.get("kind") == "deadline" and deadline is not None:
            self.limits.move(deadline, number(order.get("ceiling")))

    def stop(self, reason: str, grace: float, *, politely: bool = True) -> None:
        """Ask the training to save and leave; past the grace it is killed. The first reason counts."""
        if self.reason:
            return
        self.reason, self.phase = reason, "ending"
        self.kill_at = self.clock.steady() + grace
        if politely:
            self.child.ask()

    def beat(self) -> None:
        """Write the heartbeat; a full disk costs only the heartbeat."""
        self.beaten = self.clock.steady()
        took = number(ps.read_json(self.folder / "watchdog.json").get("store_seconds")) or 0.0
        self.leaving = self.limits.reserve(took, self.grace)  # what must leave is saved early enough
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
        at = "before its first step" if self.own and not self.output.ever else f"at step {self.output.step}"
        ours = None if self.own else ended  # what a script of its own leaves with means what it likes
        if self.reason in {"hung", "diverged"} or ours == 3:
            self.reason = self.reason if self.reason == "hung" else "diverged"
            self.detail = self.words()
        elif killed and not self.reason:
            self.detail = f"killed by signal {killed}{' (out of memory?)' if killed == signal.SIGKILL else ''} {at}"
            if self.may_restart():
                return True
            self.reason = "failed"
        elif ended == 0 and not (self.own and self.reason):  # told to end, a script may well leave with 0, half done
            self.reason = "completed"
        elif self.reason or ours == 5:  # ordered; a 5 that we did not order, somebody else did
            self.reason = self.reason or "stopped"
            how = f"killed by signal {killed}" if killed else "saved and left" if ended == 5 else f"left with {ended}"
            self.detail = f"{self.probe.words}; {how} {at}" if self.probe.words else f"{how} {at}"
        else:
            self.reason, self.detail = "failed", self.words()
        return False

    def spoiled(self, ended: int) -> None:
        """Judge a setup that did not end well, or did when all was over already."""
        self.exit_code = 128 - ended if ended < 0 else ended
        if self.reason:  # ordered, or the time was up
            self.detail = f"while the environment was made{f': {self.output.story}' if self.output.story else ''}"
        elif ended == BROKEN:
            self.reason, self.detail = "lost", self.output.last_line or "the setup calls the machine broken"
        else:
            how = f"killed by signal {-ended}" if ended < 0 else self.output.story or f"left with exit code {ended}"
            self.reason, self.detail = "failed", how if how.startswith("setup: ") else f"setup: {how}"

    def outlasts(self) -> bool:
        """Stay until the machine goes down, so that no result ends a run that carries on after it; True = it stayed up.

        What the training saved is there; the next boot's agent goes on from it.
        """
        until = self.clock.steady() + GOES_DOWN
        while self.clock.steady() < until and self.time_left(self.grace) > 0:
            self.wait()
        self.reason, self.terminated, self.kill_at = "", False, math.inf
        return self.time_left(self.grace) > 0

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
        if self.reason == "hung" and self.own and not self.output.tells:
            return f"it said nothing for {self.idle:.0f} s"
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
        if self.reason == "restarting":  # in the midst of the setup
            self.outlasts()
            self.reason = "stopped"
        self.phase = "finishing"
        self.beat()
        left = outcome.bring_in(self.folder) if self.own else []
        artifacts, said = outcome.hash_artifacts(self.folder, self.pulse)
        said = [*left, *said]
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
            self.child.guard(self.tick)
        return self.time_left(self.late / 10) > 0

    def wait(self) -> None:
        """Wait a moment: for room on the disk, or for the end of the machine."""
        self.beat()
        self.child.guard(self.tick)
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
        agent = Agent(folder, job, ps.CLOCK)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        print(f"agent: job.json is wrong: {error!r}", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, lambda *_: setattr(agent, "terminated", True))
    agent.beat()
    agent.child.guard(agent.tick)
    agent.run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
