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
    """End all of a job's processes by force, until two looks running find none; gives those that would not die."""
    until, clean = time.monotonic() + seconds, 0
    while True:
        left = of_job(living(), mark, listed(folder))
        clean = 0 if left else clean + 1
        if clean == 2 or (left and time.monotonic() > until):
            return left
        for one in left:
            _kill(one)
        time.sleep(0.02)


def held(lock: Path) -> bool:
    """Tell whether a living process holds a lock of the job: true whatever the files say."""
    try:
        handle = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
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


def _kill(one: Living) -> None:
    """SIGKILL that very process, not a later one with its number."""
    import psutil

    with contextlib.suppress(psutil.Error, OSError):
        if not hasattr(os, "pidfd_open"):
            process = psutil.Process(one.pid)
            if _started(process) == one.started:
                process.kill()
            return
        handle = os.pidfd_open(one.pid)
        try:
            # Bound to whoever has the number now: once the start time agrees, it can't change hands under us.
            if _started(psutil.Process(one.pid)) == one.started:
                signal.pidfd_send_signal(handle, signal.SIGKILL)
        finally:
            os.close(handle)
