"""A helper of the watchdog: a process that is not of the job, heard through a pipe, and never waited for.

    helper.start(argv)
    for said in helper.hear(): …      # its lines of JSON so far; `runs` is false once the pipe has ended

The watchdog buries every orphan of the job, so nobody here may wait for a pid. Standard library only, Python 3.9.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from typing import Any, Dict, List


class Helper:
    """One process at a time."""

    def __init__(self) -> None:
        self.pid = 0
        self._pipe = -1  # open = it lives
        self._heard = b""

    @property
    def runs(self) -> bool:
        """Whether it is at work."""
        return self._pipe >= 0

    def start(self, argv: List[str]) -> None:
        """Start it; where the system can't, `runs` stays false. The one before is no longer heard."""
        self.close()
        env = {name: value for name, value in os.environ.items() if name != "GPURUN_MARK"}  # it is not of the job
        null = subprocess.DEVNULL
        with contextlib.suppress(OSError, MemoryError):
            reader, writer = os.pipe()
            try:
                child = subprocess.Popen(
                    argv, stdin=null, stdout=writer, stderr=null, env=env, cwd="/", start_new_session=True
                )
            except (OSError, MemoryError):
                os.close(reader)
                raise
            finally:
                os.close(writer)
            child.returncode = 0  # buried by the watchdog, who buries everybody
            os.set_blocking(reader, False)
            self.pid, self._pipe, self._heard = child.pid, reader, b""

    def hear(self) -> List[Dict[str, Any]]:
        """Give what it said since; does not wait."""
        if not self.runs:
            return []
        try:
            heard = os.read(self._pipe, 1 << 16)
        except BlockingIOError:
            return []
        except OSError:
            heard = b""
        lines = (self._heard + heard).split(b"\n")
        self._heard = lines.pop()
        if not heard:
            self.close()
        return [said for said in map(read_line, lines) if said]

    def wake(self) -> None:
        """Let it go on if somebody stopped it, as who ends a job first stops all that may be of it."""
        if self.runs:
            with contextlib.suppress(OSError):  # dead, or root's, whom nobody here can have stopped
                os.kill(self.pid, signal.SIGCONT)

    def close(self) -> None:
        """Hear it no more; it goes on."""
        if self.runs:
            os.close(self._pipe)
            self._pipe = -1


def read_line(line: bytes) -> Dict[str, Any]:
    """Read an object; {} = it is none."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
