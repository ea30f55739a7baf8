"""The watchdog's hand on the uploader: started where there is a store, started anew when it dies, and heard.

    porter.tend(now)      # a look a second; never waits
    porter.state          # "" = no store; "busy"; "whole" = all is over and verified there; "sent" = not verifiable

Nothing here decides when the machine ends. Standard library only, Python 3.9.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import sys
from pathlib import Path
from typing import Any, Dict

sys.path.insert(0, str(Path(__file__).resolve().parent))

from helper import Helper

AGAIN = 5.0  # seconds until one that died is started anew
DONE = ("whole", "sent")
BUSY = "busy"


class Porter:
    """One job's uploader, as its watchdog sees it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.helper = Helper()
        self.said: Dict[str, Any] = {}
        self._next = -math.inf  # steady seconds

    @property
    def state(self) -> str:
        """How it stands."""
        if not self.said and not (self.folder / "store.json").exists():
            return ""
        said = str(self.said.get("state") or BUSY)
        return said if said in DONE else BUSY

    @property
    def is_busy(self) -> bool:
        """Whether something is on its way there."""
        return self.state == BUSY

    def tend(self, now: float) -> None:
        """See to it that it runs until all is there, and hear what it says."""
        for said in self.helper.hear():
            self.said = said
        if not self.helper.runs and self.state == BUSY and now >= self._next:
            self._next = now + AGAIN
            program = str(self.folder / "payload" / "upload.py")
            self.helper.start([sys.executable, "-S", "-B", program, str(self.folder)])

    def proof(self) -> Dict[str, Any]:
        """Say what is known of it, for watchdog.json."""
        if not self.state:
            return {}
        return {
            "store": self.state,
            **{f"store_{key}": self.said.get(key) for key in ("error", "failing", "step", "seconds", "until")},
        }

    def close(self) -> None:
        """End it: nothing is left to watch."""
        if self.helper.runs:
            with contextlib.suppress(OSError):
                os.kill(self.helper.pid, signal.SIGKILL)
            self.helper.close()
