"""Whose a process is, seen from outside of the job, and how all of a job's processes are ended.

A process is the job's by one of: it carries GPURUN_MARK=<mark> in its environment; the watchdog listed it by pid *and*
start time; it descends from one of these; it sits in a session that one of these leads. No other is ever signalled.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    import psutil

_PROC = Path("/proc")
_FREEZE_SECONDS = 2.0  # that stopping may take before killing begins anyhow


@dataclass(frozen=True, slots=True)
class Living:
    """One living process; `started` is the watchdog's spelling of its start time."""

    pid: int
    parent: int
    session: int
    started: str
    mark: str  # what it carries; "" = nothing, or not ours to read


def living() -> dict[int, Living]:
    """Look at every living process of this computer."""
    if sys.platform.startswith("linux"):
        boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()[:8]
        looks = (_look_up(int(path.name), boot) for path in _PROC.iterdir() if path.name.isdigit())
        return {one.pid: one for one in looks if one is not None}
    import psutil

    found = {}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            one = _look(process)
            if one is not None:
                found[one.pid] = one
    return found


def of_job(everyone: Mapping[int, Living], mark: str, listed: Iterable[tuple[int, str]]) -> list[Living]:
    """Pick one job's processes, oldest first: watchdog and agent go before what they would start again."""
    ours = {pid for pid, started in listed if pid in everyone and everyone[pid].started == started}
    ours |= {one.pid for one in everyone.values() if mark and one.mark == mark}  # "" is what everyone else carries
    grown = True
    while grown:
        # A session that is led by one of ours holds only what that leader, or its children, started.
        sessions = {pid for pid in ours if everyone[pid].session == pid}
        more = {one.pid for one in everyone.values() if one.parent in ours or one.session in sessions}
        grown = not more <= ours
        ours |= more
    ours.discard(os.getpid())
    return sorted((everyone[pid] for pid in ours), key=lambda one: (len(one.started), one.started))


def listed(folder: Path) -> list[tuple[int, str]]:
    """Read what the watchdog wrote down; [] = nothing, or nothing that makes sense."""
    try:
        entries = json.loads((folder / "processes.json").read_bytes())
        return [(int(entry["pid"]), str(entry["started"])) for entry in entries]
    except (OSError, ValueError, TypeError, KeyError):
        return []


def end(mark: str, folder: Path, seconds: float) -> list[Living]:
    """End all of a job's processes by force, until two looks running find none; gives those that would not die.

    Stopped first, until a look finds nobody new: what is stopped does not fork, and every child still has the parent
    by which it is known. Watchdog and agent are not stopped, so that the job is guarded if we die in the midst.
    """
    begun, clean = time.monotonic(), 0
    known = listed(folder)
    stopped: set[Living] = set()
    while True:
        left = of_job(living(), mark, known)
        known = [*listed(folder), *((one.pid, one.started) for one in left)]
        clean = 0 if left else clean + 1
        if clean == 2 or (left and time.monotonic() - begun > seconds):
            return left
        guards = {_holder(folder / name) for name in (".watchdog.lock", ".agent.lock")}
        fresh = [one for one in left if one not in stopped and (one.pid, one.started) not in guards]
        if fresh and time.monotonic() - begun < _FREEZE_SECONDS:
            for one in fresh:
                _send(one, signal.SIGSTOP)
            stopped.update(fresh)
            continue
        for one in left:
            _send(one, signal.SIGKILL)
        time.sleep(0.02)


def _holder(lock: Path) -> tuple[int, str]:
    """Read who wrote itself into a lock; it counts only together with its start time."""
    try:
        pid, started = lock.read_text().split()
        return int(pid), started
    except (OSError, ValueError):
        return 0, ""


def held(lock: Path) -> bool:
    """Tell whether a living process holds a lock of the job: true whatever the files say."""
    try:
        handle = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
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


def marks(everyone: Mapping[int, Living]) -> Collection[str]:
    """Every mark that a living process carries."""
    return {one.mark for one in everyone.values() if one.mark}


def born(pid: int) -> float:
    """Give the start of a process in epoch seconds, 0 when it is gone."""
    import psutil

    try:
        return psutil.Process(pid).create_time()
    except psutil.Error:
        return 0.0


def _look_up(pid: int, boot: str) -> Living | None:
    """Look at one process by /proc; None = gone or dead."""
    try:
        fields = (_PROC / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None
    try:
        variables = (_PROC / str(pid) / "environ").read_bytes().split(b"\0")
    except OSError:
        variables = []  # another user's: it may be ours by descent all the same
    if len(fields) < 20 or (fields[0] in {b"Z", b"X"} and int(fields[17]) < 2):
        return None  # dead; a dead leader whose other threads live on still is a process
    carried = next((one for one in variables if one.startswith(b"GPURUN_MARK=")), b"=").partition(b"=")[2]
    return Living(
        pid, int(fields[1]), int(fields[3]), f"{boot}:{fields[19].decode()}", carried.decode(errors="replace")
    )


def _look(process: psutil.Process) -> Living | None:
    import psutil

    parent = process.ppid()
    if process.status() in {psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD} and process.num_threads() < 2:
        return None  # dead; a dead leader whose other threads live on still is a process
    try:
        mark = process.environ().get("GPURUN_MARK", "")
    except (psutil.AccessDenied, OSError):
        mark = ""
    return Living(process.pid, parent, os.getsid(process.pid), _started(process), mark)


def _started(process: psutil.Process) -> str:
    """Spell a start time as payload/processes.py does: boot and clock ticks, whatever the clock was set to since."""
    if not sys.platform.startswith("linux"):
        return f"epoch:{int(process.create_time())}"
    boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()[:8]
    return f"{boot}:{(_PROC / str(process.pid) / 'stat').read_bytes().rpartition(b')')[2].split()[19].decode()}"


def _send(one: Living, number: signal.Signals) -> None:
    """Signal that very process, not a later one with its number."""
    import psutil

    with contextlib.suppress(psutil.Error, OSError):
        if not hasattr(os, "pidfd_open"):
            process = psutil.Process(one.pid)
            if _started(process) == one.started:
                process.send_signal(number)
            return
        handle = os.pidfd_open(one.pid)
        try:
            # Bound to whoever has the number now: once the start time agrees, it can't change hands under us.
            if _started(psutil.Process(one.pid)) == one.started:
                signal.pidfd_send_signal(handle, number)
        finally:
            os.close(handle)
