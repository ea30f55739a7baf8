"""The watchdog's hand on what starts it again: installed while it arms, removed when there is nothing left to watch.

    comeback.tend()       # a look a second: installs at the first, hears how it went; never waits
    comeback.remove()     # at the end

By what means, and in which order they are tried: rearm.py, a process of its own. Standard library only, Python 3.9.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Dict

sys.path.insert(0, str(Path(__file__).resolve().parent))

import rearm
from helper import Helper

SECONDS = 120.0  # that installing may take before its removal no longer waits for it


class Comeback:
    """One watchdog's way back after a kill or a reboot."""

    def __init__(self, folder: Path, mark: str, wish: Any) -> None:
        self.folder = folder
        self.mark = mark
        self.wished = wish is True
        self.said = {
            "rearm": wish if isinstance(wish, str) else ""
        }  # in words where the container's own command does it
        self.helper = Helper()  # it takes seconds, and nothing waits for it
        self._begun = False

    def tend(self, *, over: bool) -> None:
        """Have the system start us again, where that is wished and something is left to watch."""
        if self.wished and not self._begun and not over:
            self.helper.start(rearm.command("install", self.folder, self.mark))
        self._begun = True
        for said in self.helper.hear():
            self.said = {key: str(said.get(key)) for key in ("rearm", "rearm_failed")}

    def proof(self) -> Dict[str, Any]:
        """Say by what means we are started again, for watchdog.json."""
        return dict(self.said)

    def remove(self) -> None:
        """Undo what was installed."""
        if not self.wished:
            return
        until = time.monotonic() + SECONDS
        while self.helper.runs and time.monotonic() < until:
            self.helper.hear()
            time.sleep(0.05)
        argv = rearm.command("remove", self.folder, self.mark)
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            subprocess.run(argv, timeout=SECONDS, check=False)
