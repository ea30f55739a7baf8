"""Processes of this computer that hold runs: name one, ask whether it lives, start a background controller.

A process is named `host:pid:start`, so that a number used again is not taken for its former owner.
"""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestrator.home import Home


def this_process() -> str:
    """Name the calling process."""
    return f"{socket.gethostname()}:{os.getpid()}:{_started(os.getpid())}"


def is_alive(holder: str | None) -> bool:
    """Tell whether a named process lives; one on another computer may, for all we know."""
    if not holder:
        return False
    host, pid, started = holder.rsplit(":", 2)
    if host != socket.gethostname():
        return True
    now = _started(int(pid))
    return now == started if now else False


def spawn_controller(home: Home, run_id: str) -> int:
    """Start a controller that outlives this command and its terminal; gives its pid."""
    import subprocess

    folder = home.run(run_id)
    folder.path.mkdir(parents=True, exist_ok=True)
    with folder.controller_log.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "orchestrator.hold", run_id],  # -P: the home is data, not code
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, "GPURUN_HOME": str(home.root)},
            cwd=home.root,
            start_new_session=True,
        )
    process.returncode = 0  # it is not ours to wait for: no "still running" warning when this command ends
    return process.pid


def _started(pid: int) -> str:
    """The kernel's start time of a process; "" = no such process."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except FileNotFoundError:
        if Path("/proc/self/stat").exists():
            return ""
        return _started_by_psutil(pid)
    except OSError:
        return ""
    return "" if fields[0] in {b"Z", b"X"} else fields[19].decode()


def _started_by_psutil(pid: int) -> str:
    """The same where there is no /proc (macOS)."""
    import psutil

    try:
        return str(int(psutil.Process(pid).create_time()))
    except psutil.Error:
        return ""
