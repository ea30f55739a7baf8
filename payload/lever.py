"""The watchdog's hand on the ender: where its orders lie, who may read them, what it said last.

    put(mark, orders)      keep an ender's orders: for root only where root is to be had, else for this user only
    lever.tend(now)        have it look now and then, which proves that key, machine and network work
    lever.pull()           have it end the machine; again when it died

Nothing here decides when. Standard library only, Python 3.9. The ender itself is ender.py.
"""

from __future__ import annotations

import contextlib
import math
import os
import pwd
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Dict, List, Optional

sys.path.insert(0, str(Path(__file__).resolve().parent))

from helper import Helper

ROOT = Path("/var/lib/gpurun")  # a job's folder and its user's home may be emptied by a training
OWN = Path.home() / ".gpurun" / "ender"  # where no root is to be had
LOOKS_EVERY = 600.0  # seconds between two looks that went well
LOOKS_AGAIN = 20.0  # seconds after one that did not
LOOKS_SOON = 5.0  # seconds after the very first, which somebody waits for, when it did not
FIRES_AGAIN = 5.0  # seconds after one that did not start, or died without a word
PATIENCE = 60.0  # seconds that a look may take, sudo and Python's own start included

PYTHON = (sys.executable, "-I", "-S", "-B")


def put(mark: str, orders: bytes) -> str:
    """Keep the orders; gives whose eyes they are for: "root", or the user's name.

    Raises:
        OSError, subprocess.SubprocessError: they can be kept nowhere.
    """
    program = [*PYTHON, str(Path(__file__).with_name("ender.py")), "keep"]
    failed: Optional[subprocess.CalledProcessError] = None
    for sudo, base in ((as_root(), ROOT), ([], OWN)):
        if sudo is None:
            continue
        try:
            subprocess.run(
                [*sudo, *program, str(base / mark)], input=orders, capture_output=True, timeout=PATIENCE, check=True
            )
        except subprocess.CalledProcessError as error:  # a /var that can't be written
            failed = error
        else:
            return owner(base / mark / "ender.json")
    raise OSError(f"its orders can't be kept: {failed.returncode if failed else 'nobody may'}")


def as_root() -> Optional[List[str]]:
    """Give what makes a command root's: nothing as root, sudo where it asks for no password; None = neither."""
    if os.geteuid() == 0:
        return []
    try:
        done = subprocess.run(["sudo", "-n", "true"], capture_output=True, timeout=PATIENCE, check=False)
    except (OSError, subprocess.SubprocessError):
        return None
    return ["sudo", "-n"] if done.returncode == 0 else None


def owner(path: Path) -> str:
    """Name who owns a file."""
    uid = path.stat().st_uid
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def folder_of(mark: str) -> Optional[Path]:
    """Find an ender's folder; None = this machine can't end itself."""
    return next((base / mark for base in (ROOT, OWN) if (base / mark / "ender.json").exists()), None)


class Lever:
    """One machine's ender, as its watchdog sees it. No call waits for it; `now` is in steady seconds."""

    def __init__(self, mark: str) -> None:
        self.mark = mark
        self.verb = ""  # what it does, or did last
        self.helper = Helper()
        self.said: Dict[str, Any] = {}  # what it said last
        self.alive_at: Optional[float] = None  # epoch seconds: when the vendor last said that this machine lives
        self.failures = 0  # looks that went wrong, one after the other
        self._began = self._next = -math.inf
        self._judged = math.inf  # `_began` of the look whose word was heard

    @property
    def there(self) -> bool:
        """Whether this machine has an ender."""
        return folder_of(self.mark) is not None

    @property
    def runs(self) -> bool:
        """Whether it is at work."""
        return self.helper.runs

    def tend(self, now: float) -> None:
        """Have it look when it is time, and hear what it says."""
        if self.runs:
            self._hear(now)
            if self.runs and self.verb == "look" and now - self._began > PATIENCE:
                self.helper.close()
                self._judge({"said": "unclear", "evidence": f"no word within {PATIENCE:.0f} s"}, now)
        elif now >= self._next:
            self._start("look", now, LOOKS_AGAIN)

    def pull(self, now: float) -> bool:
        """Have it end the machine, from now on; False = the vendor insists that there is no such machine any more.

        One that does not start, or dies, is started anew.
        """
        if self.runs and self.verb == "fire":
            self._hear(now)
        if self.runs and self.verb == "fire":
            self.helper.wake()
            return True
        if self.verb == "fire" and self.said.get("said") == "gone":
            return False
        if self.verb != "fire" or now >= self._next:
            self._start("fire", now, FIRES_AGAIN)
        return True

    def drop(self) -> None:
        """Remove its orders: nobody needs the key any more."""
        folder = folder_of(self.mark)
        if folder is not None:
            with contextlib.suppress(OSError, subprocess.SubprocessError):
                subprocess.run(argv_of(folder, "drop"), capture_output=True, timeout=PATIENCE, check=False)

    def proof(self) -> Dict[str, Any]:
        """Say what is known of it, for watchdog.json."""
        folder = folder_of(self.mark)
        if folder is None:
            return {"ender": ""}
        try:
            user = owner(folder / "ender.json")
        except OSError:
            user = ""
        return {
            "ender": str(self.said.get("said") or "not asked yet"),
            "ender_evidence": str(self.said.get("evidence") or ""),
            "ender_at": self.alive_at,
            "ender_failures": self.failures,
            "ender_user": user,
        }

    def _start(self, verb: str, now: float, pause: float) -> None:
        folder = folder_of(self.mark)
        if folder is None:
            return
        self._began, self._next = now, now + pause
        self.helper.start(argv_of(folder, verb))
        self.verb = verb
        self.said = {} if verb == "fire" else self.said

    def _hear(self, now: float) -> None:
        """Take in what it says; one that ends without a word has failed."""
        for said in self.helper.hear():
            self._judge(said, now)
        if not self.runs and self.verb == "look" and self._began != self._judged:
            self._judge({"said": "unclear", "evidence": "it does not run: no word of it"}, now)
            self._next = now + FIRES_AGAIN

    def _judge(self, said: Dict[str, Any], now: float) -> None:
        self.said, self._judged = said, self._began
        if self.verb != "look":
            return
        if said.get("said") == "alive":
            self.alive_at, self.failures, self._next = time.time(), 0, now + LOOKS_EVERY
        elif said.get("said") == "there":  # no proof of a power, and no failure
            self.failures, self._next = 0, now + LOOKS_EVERY
        else:
            is_first = self.alive_at is None and not self.failures
            self.failures, self._next = self.failures + 1, now + (LOOKS_SOON if is_first else LOOKS_AGAIN)


def argv_of(folder: Path, verb: str) -> List[str]:
    """Spell the command; root's orders are root's to read."""
    with contextlib.suppress(OSError):
        if (folder / "ender.json").stat().st_uid == os.geteuid():
            return [*PYTHON, str(folder / "ender.py"), verb, str(folder)]
    sudo = [] if os.geteuid() == 0 else ["sudo", "-n"]
    return [*sudo, *PYTHON, str(folder / "ender.py"), verb, str(folder)]
