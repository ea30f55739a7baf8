"""A tiny job whose only doors are its environment and its log: for scripts, where nothing can be shipped.

    GPURUN_INLINE=<base64 of a tar.xz> python3 -c '<unpack it, become this>'       in a folder of its own

    request.json  {"mark", "command", "setup", "deadline", "grace_seconds", "max_bytes"}    config.json code/ payload/
    log           what it prints, and lines of ours: ::gpurun {"file": name, "data": base64}, the last one
                  ::gpurun {"end": {"reason", "exit_code", "detail"}, "files": [{"name", "size", "sha256"}]}

No watchdog and no second start: the vendor's own limit ends it whatever happens here. Standard library only, 3.9.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Dict, List, Tuple

MARK = "::gpurun "
PIECE = 24_000  # bytes of a file in one line
KEPT = ("artifacts", "code/artifacts", "code/outputs")  # and as what they come home
NAMES = {"artifacts": "artifacts", "code/artifacts": "artifacts", "code/outputs": "artifacts/outputs"}


class Copier(threading.Thread):
    """Passes a child's output on, and ends its last line."""

    def __init__(self, pipe: int) -> None:
        super().__init__(daemon=True)
        self.pipe = pipe
        self.last = b"\n"

    def run(self) -> None:
        """Copy until nobody writes any more."""
        while True:
            piece = os.read(self.pipe, 1 << 16)
            if not piece:
                break
            self.last = piece[-1:]
            sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()
        if self.last != b"\n":
            sys.stdout.buffer.write(b"\n")
            sys.stdout.buffer.flush()


class Job:
    """One script inside its limits."""

    def __init__(self, request: Dict[str, Any]) -> None:
        self.request = request
        self.reason = ""  # why it was told to end
        self.told = threading.Event()  # the container is being ended
        self.save_at = float(request["deadline"]) - float(request["grace_seconds"])
        self.kill_at = float(request["deadline"]) - float(request["grace_seconds"]) / 4

    def run(self, command: List[str]) -> int:
        """Run one command to its end; gives its return code as `Popen` does."""
        own = Path("env/bin/python")
        python = str(own.absolute()) if own.exists() else sys.executable
        argv = [python if part == "{python}" else part for part in command]
        here, there = os.pipe()
        try:
            child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=there, stderr=there, start_new_session=True)
        finally:
            os.close(there)
        copier = Copier(here)
        copier.start()
        while child.poll() is None:
            self.look(child)
            time.sleep(0.05)
        end(child.pid, signal.SIGKILL)  # what it left running holds the pipe
        copier.join(10.0)
        return int(child.returncode)

    def look(self, child: subprocess.Popen[bytes]) -> None:
        """Tell it to save when the time has come, and end it when that is over."""
        now = time.time()
        reason = "stopped" if self.told.is_set() else "deadline" if now >= self.save_at else ""
        if reason and not self.reason:
            self.reason = reason
            end(child.pid, signal.SIGTERM)
        if now >= self.kill_at:
            end(child.pid, signal.SIGKILL)

    def outcome(self, code: int) -> Tuple[str, str]:
        """Judge an end as agent.py does: reason and detail."""
        if code == 0:
            return "completed", ""
        if self.reason:
            return self.reason, "saved and left" if code == 5 else f"left with {code}"
        if code == 5:
            return "stopped", "it stopped by itself"
        return "diverged" if code == 3 else "failed", f"left with exit code {code if code >= 0 else 128 - code}"


def end(leader: int, number: int) -> None:
    """Send a signal to a whole session, where there still is one."""
    try:
        os.killpg(leader, number)
    except (ProcessLookupError, PermissionError):
        return


def made() -> List[Tuple[str, Path]]:
    """Name what comes home: each file, and under which name."""
    paths = [(place, path) for place in KEPT for path in sorted(Path(place).rglob("*"))]
    plain = [(place, path) for place, path in paths if path.is_file() and not path.is_symlink()]
    return [(f"{NAMES[place]}/{path.relative_to(place).as_posix()}", path) for place, path in plain]


def say(content: Dict[str, Any]) -> None:
    """Say a line to the controller."""
    print(MARK + json.dumps(content), flush=True)


def send(name: str, data: bytes) -> Dict[str, Any]:
    """Print a file, and give its entry."""
    for start in range(0, max(len(data), 1), PIECE):
        say({"file": name, "data": base64.b64encode(data[start : start + PIECE]).decode()})
    return {"name": name, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def main() -> None:
    """Set up, run, bring everything out, leave as the training did."""
    job = Job(json.loads(Path("request.json").read_text(encoding="utf-8")))
    signal.signal(signal.SIGTERM, lambda *_: job.told.set())
    started, code = time.time(), 0
    for command in (job.request["setup"], job.request["command"]):
        code = job.run(command) if command and code == 0 and not job.reason else code
    reason, detail = job.outcome(code)
    entries, left = [], float(job.request["max_bytes"])
    for name, path in made():
        left -= path.stat().st_size
        if left >= 0:
            entries.append(send(name, path.read_bytes()))
    if left < 0:
        detail = f"{detail}; ".lstrip("; ") + "not all of artifacts/ fits into the log: the rest is lost"
    named = re.fullmatch(r"gpurun-[0-9a-f]{4}-(.+?)-(\d{1,2})(?:-n\d)?-t[0-9a-z]+", job.request["mark"])
    code = 128 - code if code < 0 else code
    result = {
        "run_id": named[1] if named else "",
        "attempt": int(named[2]) if named else 1,
        "metrics": {},
        "exit_code": code,
        "reason": reason,
        "detail": detail,
        "artifacts": list(entries),
        "restarts": 0,
        "started": started,
        "ended": time.time(),
    }
    entries.append(send("result.json", json.dumps(result).encode()))
    say({"end": {"reason": reason, "exit_code": code, "detail": detail}, "files": entries})
    sys.exit(code)


if __name__ == "__main__":
    main()
