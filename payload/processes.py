"""What the agent and the watchdog share: processes, locks, clocks, files. No decision is taken here.

A process is *ours* by one of: it was seen to be ours before (pid and start time), it carries GPURUN_MARK=<mark> in its
environment, it descends from one of ours, or it sits in a session that one of ours leads. No other is ever signalled.
Standard library only, Python 3.9. Without /proc (macOS) processes come from `ps` and environments can't be read:
`means()` says what this computer has.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Set, Tuple

sys.path.insert(0, str(Path(__file__).resolve().parent))

from limits import Clock, armed_before, number

PROC = Path("/proc")
FREEZE = 2.0  # seconds that stopping may take before killing begins anyhow
HAS_PROC = (PROC / "self" / "stat").exists()


# ---- processes -------------------------------------------------------------------------------------------------------


class Process(NamedTuple):
    """One living process; `started` is opaque: two processes with one pid differ in it."""

    pid: int
    parent: int
    session: int
    started: str
    state: str  # one letter, as in ps: T = stopped


def boot_id() -> str:
    """Name this boot of this computer: a start time says nothing about another boot's."""
    try:
        return (PROC / "sys/kernel/random/boot_id").read_text().strip()[:8]
    except OSError:
        return "epoch"


BOOT = boot_id()


def look(pid: int) -> Optional[Process]:
    """Look at one process; None = gone, or a zombie."""
    if not HAS_PROC:
        return table().get(pid)
    try:
        stat = (PROC / str(pid) / "stat").read_bytes()
    except OSError:
        return None
    # The name in brackets may hold anything, brackets and newlines too: read on behind the last one.
    fields = stat[stat.rfind(b")") + 2 :].split()
    if len(fields) < 20:
        return None
    state, threads = fields[0].decode(), int(fields[17])
    if state in "ZXx" and threads < 2:  # a dead leader whose other threads live on still is a process
        return None
    return Process(pid, int(fields[1]), int(fields[3]), BOOT + ":" + fields[19].decode(), state)


def table() -> Dict[int, Process]:
    """Every living process of this computer."""
    if HAS_PROC:
        seen = (look(int(path.name)) for path in PROC.iterdir() if path.name.isdigit())
        return {process.pid: process for process in seen if process}
    argv = ["ps", "-axo", "pid=,ppid=,stat=,lstart="]
    lines = subprocess.run(argv, capture_output=True, text=True, check=False, env={"LC_ALL": "C", "PATH": os.defpath})
    processes = {}
    for line in lines.stdout.splitlines():
        pid, parent, state, started = line.split(None, 3)
        if state.startswith("Z"):
            continue
        with contextlib.suppress(OSError, ValueError):
            born = int(time.mktime(time.strptime(started.strip(), "%a %b %d %H:%M:%S %Y")))
            processes[int(pid)] = Process(int(pid), int(parent), os.getsid(int(pid)), f"epoch:{born}", state[0])
    return processes


def carries(pid: int, mark: str) -> bool:
    """Whether a process was started with our mark in its environment (Linux only)."""
    try:
        return b"GPURUN_MARK=" + mark.encode() in (PROC / str(pid) / "environ").read_bytes().split(b"\0")
    except OSError:  # gone, or another user's: then not ours
        return False


def send(process: Process, number: int) -> bool:
    """Signal that very process, not a later one with its number; False = it is gone or not ours to signal."""
    try:
        if not hasattr(os, "pidfd_open") or not hasattr(signal, "pidfd_send_signal"):
            now = look(process.pid)
            if now is None or now.started != process.started:
                return False
            os.kill(process.pid, number)
            return True
        handle = os.pidfd_open(process.pid)
    except OSError:
        return False
    try:
        # Bound to whoever has the number now: once the start time agrees, it can't change hands under us.
        now = look(process.pid)
        if now is None or now.started != process.started:
            return False
        signal.pidfd_send_signal(handle, number)
    except OSError:
        return False
    else:
        return True
    finally:
        os.close(handle)


class Tree:
    """The processes of one job, remembered from look to look, so that one that leaves the tree is still known."""

    def __init__(self, mark: str) -> None:
        self.mark = mark
        self.known: Dict[int, str] = {}  # pid -> start time
        self.leaders: Set[int] = set()  # sessions that one of ours was seen to lead
        self.strangers: Dict[int, str] = {}  # started from here but not of the job: pid -> start time
        self._checked: Dict[int, str] = {}  # looked at, carries nothing

    def find(self, *, deep: bool = True) -> Dict[int, Process]:
        """Find all that live now, the caller included. `deep` reads every environment again, not only new ones."""
        everyone = table()
        ours = {pid for pid, started in self.known.items() if pid in everyone and everyone[pid].started == started}
        ours.add(os.getpid())
        ours |= self._carriers(everyone, deep=deep)
        children: Dict[int, List[int]] = {}
        for process in everyone.values():
            children.setdefault(process.parent, []).append(process.pid)
        grown = True
        while grown:
            below = {child for pid in ours for child in children.get(pid, ())}
            self.leaders |= {pid for pid in ours if pid in everyone and everyone[pid].session == pid}
            # A session's number is not given out again while a member lives: with one of ours in it, it is still ours.
            sessions = {everyone[pid].session for pid in ours if pid in everyone} & self.leaders
            mates = {process.pid for process in everyone.values() if process.session in sessions}
            grown = not (below | mates) <= ours
            ours |= below | mates
        everywhere = self.strangers.items()
        self.strangers = {pid: born for pid, born in everywhere if pid in everyone and everyone[pid].started == born}
        fresh = set(self.strangers)
        while fresh:
            ours -= fresh
            fresh = {child for pid in fresh for child in children.get(pid, ()) if child in ours}
        found = {pid: everyone[pid] for pid in ours if pid in everyone}
        self.leaders &= {process.session for process in found.values()}
        self.known = {pid: process.started for pid, process in found.items()}
        return found

    def leave_out(self, pid: int) -> None:
        """Take a process, and all below it, for none of the job's."""
        process = look(pid)
        if process is not None:
            self.strangers[pid] = process.started

    def leave_out_helpers(self, folder: Path) -> None:
        """Take the watchdog's helpers, which it names in its proof, for none of the job's."""
        helpers = read_json(folder / "watchdog.json").get("helpers")
        with contextlib.suppress(TypeError, ValueError, AttributeError):
            self.strangers.update({int(pid): str(started) for pid, started in (helpers or {}).items()})

    def _carriers(self, everyone: Dict[int, Process], *, deep: bool) -> Set[int]:
        if not HAS_PROC or not self.mark:
            return set()
        skip = {} if deep else self._checked
        fresh = [p for p in everyone.values() if skip.get(p.pid) != p.started]
        carriers = {process.pid for process in fresh if carries(process.pid, self.mark)}
        self._checked = {p.pid: p.started for p in everyone.values() if p.pid not in carriers}
        return carriers

    def end(
        self,
        spare: Set[int],
        agent: Optional[int] = None,
        seconds: float = math.inf,
        each: Callable[[], None] = lambda: None,
    ) -> bool:
        """SIGKILL all but the caller and `spare`, until two looks running find none; False = some would not die.

        Stopped first, until a look finds nobody new: what is stopped does not fork, and every child still has the
        parent by which it is known. The agent is not stopped, so that a guard is left if we die in the midst; it is
        killed before the others, since it would take the training's death for an accident.
        """
        begun, clean = time.monotonic(), 0
        stopped: Set[Tuple[int, str]] = set()
        while clean < 2:
            others = [p for p in self.find().values() if p.pid != os.getpid() and p.pid not in spare]
            if others and time.monotonic() - begun > seconds:
                return False
            fresh = [p for p in others if p.pid != agent and (p.pid, p.started) not in stopped]
            if fresh and time.monotonic() - begun < FREEZE:
                for process in fresh:
                    send(process, signal.SIGSTOP)
                    stopped.add((process.pid, process.started))
                continue
            for process in sorted(others, key=lambda p: p.pid != agent):
                send(process, signal.SIGKILL)
            clean = 0 if others else clean + 1
            each()  # reaps: a zombie is nobody, but it keeps its number
            time.sleep(0.02 if time.monotonic() - begun < 5.0 else 0.5)
        return True


def listed(folder: Path) -> Dict[int, str]:
    """Read processes.json; a start time that is not true any more is passed over by who uses it."""
    try:
        entries = json.loads((folder / "processes.json").read_bytes())
        return {int(entry["pid"]): str(entry["started"]) for entry in entries}
    except (OSError, ValueError, TypeError, KeyError):
        return {}


def adopt_orphans() -> bool:
    """Become the parent of every orphan below (Linux): a double fork can't leave the tree then."""
    if not sys.platform.startswith("linux"):
        return False
    pr_set_child_subreaper = 36  # linux/prctl.h
    with contextlib.suppress(OSError, AttributeError):
        return bool(ctypes.CDLL(None, use_errno=True).prctl(pr_set_child_subreaper, 1, 0, 0, 0) == 0)
    return False


def carry(mark: str, argv: List[str]) -> None:
    """Carry the mark in the environment that others can read: started by hand without it, start over with it."""
    if os.environ.get("GPURUN_MARK") != mark:
        env = dict(os.environ, GPURUN_MARK=mark)
        os.execve(sys.executable, [sys.executable, *argv], env)  # noqa: S606 (no shell is wanted)


def deaf(numbers: List[int]) -> None:
    """Survive these signals. Handlers, since `SIG_IGN` would be inherited by the training and make it deaf as well."""
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    for one in numbers:
        signal.signal(one, lambda *_: None)


def means() -> List[str]:
    """Name the means of finding processes that this computer has."""
    return ["processes", *(["environ"] if HAS_PROC else []), *(["pidfd"] if hasattr(os, "pidfd_open") else [])]


# ---- locks -----------------------------------------------------------------------------------------------------------


def hold(path: Path, patience: float = 2.0) -> Optional[int]:
    """Take a lock for life; None = another holds it. Waits a moment: a probe holds it for an instant."""
    until = time.monotonic() + patience
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            if time.monotonic() > until:
                os.close(handle)
                return None
            time.sleep(0.02)
            continue
        me = look(os.getpid())
        with contextlib.suppress(OSError):  # a full disk: the lock holds without its text
            os.ftruncate(handle, 0)
            os.write(handle, f"{os.getpid()} {me.started if me else ''}\n".encode())
        return handle


def held(path: Path) -> bool:
    """Whether a living process holds the lock: true without any disk space and whatever files say."""
    try:
        handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: two who ask don't take each other for the holder
    except OSError:
        return True
    else:
        return False
    finally:
        os.close(handle)


def holder(path: Path) -> Optional[Process]:
    """Give the process that holds the lock, where its text tells."""
    with contextlib.suppress(OSError, ValueError):
        pid, started = path.read_text().split()
        process = look(int(pid))
        if process and process.started == started and held(path):
            return process
    return None


def of_earlier_life(path: Path) -> Optional[bool]:
    """Whether who last held a lock did so before this machine (or container) was restarted; None = it can't be told."""
    try:
        boot, _, ticks = path.read_text().split()[1].partition(":")
        first = look(1)
        return boot != BOOT or (first is not None and int(ticks) < int(first.started.partition(":")[2]))
    except (OSError, ValueError, IndexError):
        return None


def going_down() -> bool:
    """Whether the system is shutting down or restarting: then everybody gets SIGTERM, and nobody means us."""
    argv = ["systemctl", "is-system-running"]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        said = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=5, check=False)
        return said.stdout.strip() == b"stopping"
    return False


# ---- clocks ----------------------------------------------------------------------------------------------------------


def steady() -> float:
    """Seconds that no one can set; counts suspended time where the system can."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


CLOCK = Clock(time.time, steady)


def armed(folder: Path, clock: Clock) -> Tuple[float, float]:
    """When this job was first armed, by both clocks: being killed and started again must not win time."""
    before = read_json(folder / "watchdog.json")
    at = number(before.get("armed_at"))
    return clock.wall() if at is None else at, armed_before(before, BOOT, clock.wall(), clock.steady())


# ---- files -----------------------------------------------------------------------------------------------------------


def read_json(path: Path) -> Dict[str, Any]:
    """Read an object; {} when it is missing or broken: a reader decides by the keys it finds."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def write_json(path: Path, content: Any, *, durable: bool = False) -> None:
    """Write aside, then move into place: a reader never sees half. `durable` survives a power cut.

    Raises:
        OSError: nothing changed under the final name.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with aside.open("w", encoding="utf-8") as file:
            json.dump(content, file)
            file.write("\n")
            if durable:
                file.flush()
                os.fsync(file.fileno())
        aside.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            aside.unlink()
        raise
    if durable:
        with contextlib.suppress(OSError), opened(path.parent) as folder:
            os.fsync(folder)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[int]:
    """Open a folder for fsync."""
    handle = os.open(path, os.O_RDONLY)
    try:
        yield handle
    finally:
        os.close(handle)


def exit_of(status: int) -> Tuple[int, str]:
    """Turn a wait status into (exit code as a shell gives it, words)."""
    if os.WIFSIGNALED(status):
        return 128 + os.WTERMSIG(status), f"killed by signal {os.WTERMSIG(status)}"
    return os.WEXITSTATUS(status), f"left with exit code {os.WEXITSTATUS(status)}"
