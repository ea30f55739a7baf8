"""The watchdog: the first process on the machine. It starts the agent, and ends all of the job when its time is up.

    python payload/watchdog.py [--detach | --stand-by | --again] <folder>

    arm.json ──> watchdog ──starts──> agent ──starts──> training
                    ├── ends them: at the ceiling; at the deadline if the agent does not; when it dies; by end.json
                    └── ends the machine at its vendor, where it has an ender: at the deadline (limits.py says when)

It obeys no signal but SIGKILL, and needs no disk space, no agent and no right clock to end a job. `--detach` returns
once it is armed (exit 0) or can't be (exit 1). One per folder: a second one finds the lock taken and leaves, with
`--stand-by` (systemd's) waits for it, with `--again` (cron's) leaves without a word. After a reboot it carries on.
"""

from __future__ import annotations

import contextlib
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

import birth
import processes as ps
import rearm
from comeback import Comeback
from lever import Lever
from limits import END, FIRE, MARGIN, START, Clock, Facts, Verdict, judge, limits_of, number, out_of_time
from porter import Porter

HANGS = 10.0  # seconds past the ceiling that the main thread gets before the last resort
LAST_TICK = 0.1  # seconds between two looks once there is a result: somebody waits for the end
DEEP_EVERY = 10  # looks between two readings of every environment
DURABLE_EVERY = 60  # looks between two proofs that survive a power cut


class Watchdog:
    """One job's watchdog; `look_once` is one second of its life."""

    def __init__(self, folder: Path, arm: Dict[str, Any], clock: Clock) -> None:
        self.folder = folder
        self.clock = clock
        self.mark = str(arm["mark"])
        self.tick = number(arm.get("tick_seconds")) or 1.0
        self.margin = number(arm.get("margin_seconds")) or MARGIN
        self.tree = ps.Tree(self.mark)
        self.tree.known = ps.listed(folder)  # by the one before us
        self.adopts = False
        self.before = ps.read_json(folder / "watchdog.json")
        self.armed_at, armed = ps.armed(folder, clock)
        self.limits = limits_of(arm, armed)
        self.limits.move(number(ps.read_json(folder / "status.json").get("deadline")) or self.limits.deadline)
        self.order = 0
        self.obey(ps.read_json(folder / "limits.json"))
        self.agent: Optional[int] = None  # pid, once started from here
        self.agent_end = ""  # how that one ended
        self.result_seen: Optional[float] = None
        self.looks = 0
        self.found: Dict[int, ps.Process] = {}
        self.listed: List[Dict[str, Any]] = []
        self.ended = str(self.before.get("ended") or "")  # why the job's processes were ended
        self.fired = ""  # why the machine is ended
        self.resort: Optional[threading.Thread] = None
        self.resorting = self.leaving = False
        self.lever = Lever(self.mark)
        self.porter = Porter(folder)
        self.comeback = Comeback(folder, self.mark, arm.get("rearm"))

    # -- one look --

    def look_once(self) -> Verdict:
        """Reap, look, prove, judge."""
        self.reap()
        self.comeback.tend(over=bool(self.ended))
        if not self.fired:
            self.lever.tend(self.clock.steady())
        self.porter.tend(self.clock.steady())
        self.know_strangers()
        self.found = self.tree.find(deep=self.looks % DEEP_EVERY == 0)
        self.looks += 1
        self.list_processes()
        self.prove()
        self.take_order()
        return judge(self.facts(), self.margin)

    def facts(self) -> Facts:
        """Gather what is to be judged."""
        # Alive is asked before the result: an agent that writes it and leaves in between is no dead one.
        lock = self.folder / ".agent.lock"
        alive = ps.held(lock)
        result = (self.folder / "result.json").exists()
        if result and self.result_seen is None:
            self.result_seen = self.clock.steady()
        agent = ps.holder(lock) if alive else None
        return self.times()._replace(
            agent="alive" if alive else self.agent_is(lock),
            job=(self.folder / "job.json").exists(),
            result=result,
            since_result=self.clock.steady() - (self.result_seen or 0.0) if result else 0.0,
            # With an agent that can't be named nobody can say whether it is alone.
            alone=(not alive or agent is not None) and not set(self.found) - {os.getpid(), agent.pid if agent else 0},
            stopped=agent is not None and agent.state in "Tt",
            last_words=self.agent_end or "seen dead by a later watchdog",
        )

    def times(self) -> Facts:
        """Gather what needs nothing to be readable but the clock."""
        gone = not (self.folder / "arm.json").exists() and not (self.folder / "job.json").exists()
        return Facts(
            self.limits.left(self.limits.deadline, self.clock),
            self.limits.left(self.limits.ceiling, self.clock),
            job=False,
            folder=not gone,
            ordered=(self.folder / "end.json").exists(),
            ender=self.lever.there,
            over=self.ended,
            store=self.porter.state,
        )

    def agent_is(self, lock: Path) -> str:
        """Say what became of an agent that does not hold its lock."""
        if self.agent is not None:
            return "dead" if self.agent_end else "coming"
        if not lock.exists():
            return "none"
        earlier = ps.of_earlier_life(lock)
        if earlier is None:  # its lock has no text, since the disk was full
            earlier = self.before.get("boot") not in (None, ps.BOOT)
        return "none" if earlier else "dead"

    def over(self) -> str:
        """Why there is no more time; "" = there is."""
        return out_of_time(self.times(), self.margin)

    def take_order(self) -> None:
        """A new deadline, or ceiling, holds for the watchdog too, and for those who come after it."""
        order = ps.read_json(self.folder / "order.json")
        if self.obey(order):
            kept = {key: order[key] for key in ("id", "kind", "deadline", "ceiling") if key in order}
            with contextlib.suppress(OSError):
                ps.write_json(self.folder / "limits.json", kept, durable=True)

    def obey(self, order: Dict[str, Any]) -> bool:
        """Obey an order once; True = it moved the limits."""
        count, deadline = number(order.get("id")), number(order.get("deadline"))
        if count is None or count <= self.order:
            return False
        self.order = int(count)
        if order.get("kind") != "deadline" or deadline is None:
            return False
        self.limits.move(deadline, number(order.get("ceiling")))
        return True

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
        err = birth.opened_log(self.folder / "agent.log")
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
                    self.agent_end = ps.exit_of(status)[1] + birth.last_words(self.folder / "agent.log")

    def end(self, why: str) -> None:
        """End every process of the job, however long it takes; then say so. The machine's own end waits for none."""
        told = [self.clock.steady()]

        def each() -> None:
            self.reap()
            if self.lever.there and (self.fired or self.over()):
                self.pull()
            if self.clock.steady() - told[0] > self.tick:
                told[0] = self.clock.steady()
                self.prove(ending=why)

        agent = ps.holder(self.folder / ".agent.lock")
        while True:
            try:
                self.tree.end(set(), agent=agent.pid if agent else None, each=each)
            except (OSError, ValueError, MemoryError):  # no handle left to read /proc with: again
                each()
                time.sleep(0.1)
                continue
            break
        self.reap()
        with contextlib.suppress(OSError):
            (self.folder / "secrets.json").unlink()
        self.found = {}
        self.ended = why
        self.list_processes()
        self.prove()

    def fire(self, why: str) -> bool:
        """End the machine first, then what runs on it; False = the vendor insists that it is gone."""
        self.fired = self.fired or why
        going = self.pull()
        if not self.ended:
            self.end(why)
        return going

    def pull(self) -> bool:
        """See to it that the ender fires, and that nobody here takes it for a process of the job."""
        going = self.lever.pull(self.clock.steady())
        self.know_strangers()
        return going

    def know_strangers(self) -> None:
        """Tell our helpers from the job: they are below us too."""
        for helper in (self.lever.helper, self.comeback.helper, self.porter.helper):
            if helper.runs:
                self.tree.leave_out(helper.pid)

    def leave(self) -> None:
        """Undo what was installed: there is nothing to watch any more."""
        self.leaving = True
        self.porter.close()
        if self.resorting and self.resort is not None:
            self.resort.join()  # else it would end who undoes it
        if self.fired:
            self.lever.drop()
        self.comeback.remove()

    # -- words: each may fail on a full disk, and nothing depends on them --

    def list_processes(self) -> None:
        """Write down who is ours, for the one who comes after us."""
        listed = [{"pid": p.pid, "started": p.started} for p in self.found.values()]
        if listed != self.listed:
            with contextlib.suppress(OSError):
                ps.write_json(self.folder / "processes.json", listed)
                self.listed = listed

    def prove(self, ending: str = "") -> None:
        """Write the proof that we live, and what we can do."""
        proof = {
            "time": self.clock.wall(),
            "pid": os.getpid(),
            "mark": self.mark,
            "armed_at": self.armed_at,
            "armed_steady": self.limits.armed,
            "used": self.clock.steady() - self.limits.armed,
            "boot": ps.BOOT,
            "deadline": self.limits.deadline,
            "ceiling": self.limits.ceiling,
            "powers": [*ps.means(), *(["subreaper"] if self.adopts else [])],
            "processes": len(self.found),
            "helpers": self.tree.strangers,
            "ending": ending,
            "ended": self.ended,
            "fired": self.fired,
            **(self.comeback.proof() | self.lever.proof() | self.porter.proof()),
        }
        with contextlib.suppress(OSError):
            os.utime(self.folder / ".watchdog.lock")  # needs no room
        with contextlib.suppress(OSError):
            ps.write_json(self.folder / "watchdog.json", proof, durable=self.looks % DURABLE_EVERY == 1)


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
    dog.resort = threading.Thread(target=last_resort, args=(dog,), daemon=True)
    dog.resort.start()
    while True:
        started = time.monotonic()
        try:
            verdict = dog.look_once()
        except Exception:  # noqa: BLE001 (whatever fails while looking, the time limit must still be judged)
            with contextlib.suppress(OSError):  # nor may a full disk
                os.write(2, traceback.format_exc()[-2000:].encode() if dog.looks < 1000 else b"")
            verdict = judge(dog.times(), dog.margin)
        if ready >= 0:
            os.write(ready, b"armed")
            os.close(ready)
            ready = -1
        if not do(dog, verdict):
            break
        dog.doze(started + (dog.tick if dog.result_seen is None or dog.ended else min(dog.tick, LAST_TICK)))
    dog.leave()
    return rearm.OVER


def do(dog: Watchdog, verdict: Verdict) -> bool:
    """Do what was judged; False = nothing is left to watch."""
    if verdict.act == FIRE or dog.fired:
        return dog.fire(verdict.why)
    if verdict.act == START:
        dog.start_agent()
    elif verdict.act == END:
        if not dog.ended:
            dog.end(verdict.why)
        return dog.lever.there or (dog.porter.is_busy and not dog.over())  # it may still be fetched, at most until D
    return True


def last_resort(dog: Watchdog) -> None:
    """End all by clock and kernel alone: a disk that hangs (a network volume) may hold the main thread for hours."""
    tree, lever = ps.Tree(dog.mark), Lever(dog.mark)
    while dog.limits.left(dog.limits.ceiling, dog.clock) > -HANGS:
        time.sleep(1.0)
    dog.resorting, tree.known = True, dict(dog.tree.known)
    while not dog.leaving:
        with contextlib.suppress(OSError, ValueError, MemoryError):
            lever.pull(dog.clock.steady())
            for helper in (lever.helper, dog.lever.helper):
                tree.leave_out(helper.pid if helper.runs else 0)
            tree.end(set(), seconds=5.0)
        time.sleep(1.0)


def main(argv: List[str]) -> int:
    """Read the command line."""
    if len(argv) < 2 or not Path(argv[-1]).is_dir():
        print("usage: watchdog.py [--detach | --stand-by | --again] <folder>", file=sys.stderr)
        return 2
    folder, flag = Path(argv[-1]).resolve(), argv[1]
    if flag == "--stand-by":
        birth.stand_by(folder)
    elif flag == "--again" and ps.held(folder / ".watchdog.lock"):
        return 0
    if flag in ("--stand-by", "--again"):
        birth.take_environment(folder)
    ps.deaf([signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT])
    ps.deaf([signal.SIGUSR1, signal.SIGUSR2, signal.SIGTSTP])
    arm = ps.read_json(folder / "arm.json") or ps.read_json(folder / "job.json")
    if arm.get("mark"):
        ps.carry(str(arm["mark"]), argv)
    if arm.get("rearm") is True:
        birth.keep_environment(folder)
    ready = birth.detach(folder) if flag in ("--detach", "--again") else -1
    with contextlib.suppress(OSError):  # a leader already: then it has its own session
        os.setsid()
    return watch(folder, arm, ready)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
