"""The watchdog: the first process on the machine. It starts the agent, and ends all of the job when its time is up.

    python payload/watchdog.py [--detach] <folder>

    arm.json ──> watchdog ──starts──> agent ──starts──> training
                    └── ends them: at the ceiling; at the deadline if the agent does not; when it dies; by end.json

It obeys no signal but SIGKILL, and needs no disk space, no agent and no right clock to end a job. `--detach` returns
once it is armed (exit 0) or can't be (exit 1). One per folder: a second one finds the lock taken and leaves.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any, Dict, List, Optional

sys.path.insert(0, str(Path(__file__).resolve().parent))

import processes as ps
from limits import Clock, limits_of, number

HANGS = 10.0  # seconds past the ceiling that the main thread gets before the last resort
MARGIN = 5.0  # seconds past the deadline that an agent gets to have obeyed
LEAVE = 10.0  # seconds after result.json until what still runs is ended
LAST_TICK = 0.1  # seconds between two looks once there is a result: somebody waits for the end
DEEP_EVERY = 10  # looks between two readings of every environment


class Watchdog:
    """One job's watchdog; `look_once` is one second of its life."""

    def __init__(self, folder: Path, arm: Dict[str, Any], clock: Clock) -> None:
        self.folder = folder
        self.clock = clock
        self.mark = str(arm["mark"])
        self.tick = number(arm.get("tick_seconds")) or 1.0
        self.margin = number(arm.get("margin_seconds")) or MARGIN
        self.tree = ps.Tree(self.mark)
        self.tree.known = listed(folder)  # by the one before us
        self.adopts = False
        self.armed_at, armed = ps.armed(folder, clock)
        self.limits = limits_of(arm, armed)
        self.limits.move(number(ps.read_json(folder / "status.json").get("deadline")) or self.limits.deadline)
        self.order = 0
        self.agent: Optional[int] = None  # pid, once started from here
        self.agent_end = ""  # how that one ended
        self.result_seen: Optional[float] = None
        self.looks = 0
        self.found: Dict[int, ps.Process] = {}
        self.listed: List[Dict[str, Any]] = []

    # -- one look --

    def look_once(self) -> str:
        """Reap, look, prove, judge; the reason to end it all, or "" to go on."""
        self.reap()
        self.found = self.tree.find(deep=self.looks % DEEP_EVERY == 0)
        self.looks += 1
        self.list_processes()
        self.prove("")
        return self.verdict()

    def verdict(self) -> str:
        """Why all must end now; "" = go on. Starts the agent when its time has come."""
        why = self.over()
        if why:
            return why
        # Alive is asked before the result: an agent that writes it and leaves in between is no dead one.
        alive = ps.held(self.folder / ".agent.lock")
        if (self.folder / "result.json").exists():
            return self.after_result(alive=alive)
        if not (self.folder / "job.json").exists() or alive:
            return ""
        if self.agent is None and not (self.folder / ".agent.lock").exists():
            self.start_agent()
            return ""
        if self.agent is not None and not self.agent_end:
            return ""  # on its way to the lock
        return f"the agent is gone without a result ({self.agent_end or 'seen dead by a later watchdog'})"

    def over(self) -> str:
        """Why time, an order or a missing folder end it: needs nothing to be readable but the clock."""
        if not (self.folder / "arm.json").exists() and not (self.folder / "job.json").exists():
            return "the folder is gone"
        if (self.folder / "end.json").exists():
            return "ended by order"
        self.take_order()
        if self.limits.left(self.limits.ceiling, self.clock) <= 0:
            return "the ceiling has come"
        if self.limits.left(self.limits.deadline, self.clock) <= -self.margin and not self.finishing():
            return "the deadline has passed"
        return ""

    def finishing(self) -> bool:
        """Only the agent is left: it obeyed, and hashes what there is. It may, to the ceiling."""
        agent = ps.holder(self.folder / ".agent.lock")
        if agent is None or agent.state in "Tt":
            return False
        return not set(self.found) - {os.getpid(), agent.pid}

    def after_result(self, *, alive: bool) -> str:
        """The job is over: go once nothing is left of it, and help the rest along."""
        now = self.clock.steady()
        self.result_seen = now if self.result_seen is None else self.result_seen
        if not alive and set(self.found) <= {os.getpid()}:
            return "done"
        return "done, with processes left over" if now - self.result_seen > LEAVE else ""

    def take_order(self) -> None:
        """A new deadline holds for the watchdog too."""
        order = ps.read_json(self.folder / "order.json")
        count, deadline = number(order.get("id")), number(order.get("deadline"))
        if count is not None and count > self.order:
            self.order = int(count)
            if order.get("kind") == "deadline" and deadline is not None:
                self.limits.move(deadline)

    def doze(self, until: float) -> None:
        """Sleep to a moment of the monotonic clock; a new file of the controller or the agent wakes us at once."""
        before = self.signs()
        while time.monotonic() < until and self.signs() == before:
            time.sleep(min(0.05, self.tick))

    def signs(self) -> List[bool]:
        """The files whose coming or going changes what is to do."""
        return [(self.folder / name).exists() for name in ("job.json", "result.json", "end.json", "arm.json")]

    # -- deeds --

    def start_agent(self) -> None:
        """Start the agent; tried again at the next look if the system can't now."""
        argv = [sys.executable, "-B", str(self.folder / "payload" / "agent.py"), str(self.folder)]
        env = dict(os.environ, GPURUN_MARK=self.mark)
        err = opened_log(self.folder / "agent.log")
        null = subprocess.DEVNULL
        with contextlib.suppress(OSError):
            child = subprocess.Popen(
                argv, stdin=null, stdout=err, stderr=err, cwd=self.folder, env=env, start_new_session=True
            )
            self.agent = child.pid
            child.returncode = 0  # reaped here, by `reap`
        os.close(err)

    def reap(self) -> None:
        """Bury the dead: every orphan of the job is our child."""
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                if pid == self.agent:
                    self.agent_end = ps.exit_of(status)[1] + self.last_words()

    def last_words(self) -> str:
        """What the agent wrote on its standard error last."""
        with contextlib.suppress(OSError):
            lines = (self.folder / "agent.log").read_bytes()[-2000:].decode("utf-8", "replace").split("\n")
            words = [line.strip() for line in lines if line.strip()]
            return ": " + words[-1][:200] if words else ""
        return ""

    def end(self, why: str) -> None:
        """End every process of the job, however long it takes; then say so."""
        told = [self.clock.steady()]

        def each() -> None:
            self.reap()
            if self.clock.steady() - told[0] > self.tick:
                told[0] = self.clock.steady()
                self.prove("", ending=why)

        agent = ps.holder(self.folder / ".agent.lock")
        while True:
            try:
                self.tree.end(set(), agent=agent.pid if agent else None, each=each)
            except (OSError, ValueError, MemoryError):  # no handle left to read /proc with: again
                time.sleep(0.1)
                continue
            break
        self.reap()
        with contextlib.suppress(OSError):
            (self.folder / "secrets.json").unlink()
        self.found = {}
        self.list_processes()
        self.prove(why)

    # -- words: each may fail on a full disk, and nothing depends on them --

    def list_processes(self) -> None:
        """Write down who is ours, for the one who comes after us."""
        listed = [{"pid": p.pid, "started": p.started} for p in self.found.values()]
        if listed != self.listed:
            with contextlib.suppress(OSError):
                ps.write_json(self.folder / "processes.json", listed)
                self.listed = listed

    def prove(self, ended: str, ending: str = "") -> None:
        """Write the proof that we live, and what we can do."""
        proof = {
            "time": self.clock.wall(),
            "pid": os.getpid(),
            "mark": self.mark,
            "armed_at": self.armed_at,
            "armed_steady": self.limits.armed,
            "boot": ps.BOOT,
            "deadline": self.limits.deadline,
            "ceiling": self.limits.ceiling,
            "powers": [*ps.means(), *(["subreaper"] if self.adopts else [])],
            "processes": len(self.found),
            "ending": ending,
            "ended": ended,
        }
        with contextlib.suppress(OSError):
            ps.write_json(self.folder / "watchdog.json", proof)


def watch(folder: Path, arm: Dict[str, Any], ready: int) -> int:
    """Arm, then look once a second until all is over."""
    if not arm.get("mark"):
        print(f"watchdog: {folder} has neither arm.json nor job.json with a mark", file=sys.stderr)
        return 2
    lock = ps.hold(folder / ".watchdog.lock")
    if lock is None:
        print("watchdog: another one watches this folder", file=sys.stderr)
        return 0
    try:
        dog = Watchdog(folder, arm, ps.CLOCK)
    except ValueError as error:
        print(f"watchdog: {error}", file=sys.stderr)
        return 2
    dog.adopts = ps.adopt_orphans()
    threading.Thread(target=last_resort, args=(dog,), daemon=True).start()
    why = ""
    while not why:
        started = time.monotonic()
        try:
            why = dog.look_once()
        except Exception:  # noqa: BLE001 (whatever fails while looking, the time limit must still be judged)
            with contextlib.suppress(OSError):  # nor may a full disk
                os.write(2, traceback.format_exc()[-2000:].encode() if dog.looks < 1000 else b"")
            why = dog.over()
        if ready >= 0:
            os.write(ready, b"armed")
            os.close(ready)
            ready = -1
        if not why:
            dog.doze(started + (dog.tick if dog.result_seen is None else min(dog.tick, LAST_TICK)))
    dog.end(why)
    return 0


def last_resort(dog: Watchdog) -> None:
    """End all by clock and kernel alone: a disk that hangs (a network volume) may hold the main thread for hours."""
    tree = ps.Tree(dog.mark)
    while dog.limits.left(dog.limits.ceiling, dog.clock) > -HANGS:
        time.sleep(1.0)
    tree.known = dict(dog.tree.known)
    while True:
        with contextlib.suppress(OSError, ValueError, MemoryError):
            tree.end(set(), seconds=5.0)
        time.sleep(1.0)


def listed(folder: Path) -> Dict[int, str]:
    """Read processes.json; a start time that is not true any more is passed over by who uses it."""
    try:
        entries = json.loads((folder / "processes.json").read_bytes())
        return {int(entry["pid"]): str(entry["started"]) for entry in entries}
    except (OSError, ValueError, TypeError, KeyError):
        return {}


def detach(folder: Path) -> int:
    """Fork away from whoever started us; in the child, give the handle on which to say that we are armed."""
    reader, writer = os.pipe()
    child = os.fork()
    if child:
        os.close(writer)
        armed = os.read(reader, 16)
        os._exit(0 if armed else 1)
    os.close(reader)
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    for target, source in ((0, null), (1, null), (2, opened_log(folder / "watchdog.log"))):
        os.dup2(source, target)
    return writer


def opened_log(path: Path) -> int:
    """Open a log to append to; where the disk does not let us, nothing is kept."""
    try:
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        return os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)


def main(argv: List[str]) -> int:
    """Read the command line."""
    if len(argv) < 2 or not Path(argv[-1]).is_dir():
        print("usage: watchdog.py [--detach] <folder>", file=sys.stderr)
        return 2
    folder = Path(argv[-1]).resolve()
    ps.deaf([signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT])
    ps.deaf([signal.SIGUSR1, signal.SIGUSR2, signal.SIGTSTP])
    arm = ps.read_json(folder / "arm.json") or ps.read_json(folder / "job.json")
    if arm.get("mark"):
        ps.carry(str(arm["mark"]), argv)
    ready = detach(folder) if "--detach" in argv else -1
    with contextlib.suppress(OSError):  # a leader already: then it has its own session
        os.setsid()
    return watch(folder, arm, ready)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
