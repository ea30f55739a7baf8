"""A guard in a job that a vendor starts by the clock: unpacks gpurun, makes pass after pass until its time is over.

    python3 -B <mount>/in/afar.py <mount>

    <mount>/in/   request.json gpurun.tar.gz         put there before; see README.md beside this file
    <mount>/out/  guard.json, the pulse of each pass, and what the next job has to go on from; trouble.json
    <home>        a local folder, gone with the job: gpurun's own home there, with no ledger

The vendors' keys are in the environment, as the job's secrets. Standard library only, Python 3.9; gpurun needs 3.11.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Dict, List, Optional

ARRIVAL = 120.0  # seconds that the mount may take to show what was put there before the start
PASS_LIMIT = 900.0  # seconds
CONFIG = "GPURUN_GUARD_CONFIG"  # config.toml: whom to tell, which may hold a token


class TroubleError(Exception):
    """There can be no guard here; the message says why."""


def read_json(path: Path) -> Dict[str, Any]:
    """Read a JSON object; {} = it is not there, or half of it is."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def write(path: Path, content: Dict[str, Any]) -> None:
    """Write a file of the mount in one go: there is no rename on it that can be trusted."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(json.dumps(content).encode())
        file.flush()
        os.fsync(file.fileno())


# ---- making it -------------------------------------------------------------------------------------------------------


def arrived(source: Path) -> Dict[str, Any]:
    """Wait until the mount shows the request and all of gpurun.

    Raises:
        TroubleError: it never does.
    """
    until = time.monotonic() + ARRIVAL
    while True:
        request = read_json(source / "request.json")
        with contextlib.suppress(OSError):
            data = (source / "gpurun.tar.gz").read_bytes()
            if request and hashlib.sha256(data).hexdigest() == request.get("sha256"):
                return request
        if time.monotonic() > until:
            raise TroubleError("the mounted folder never showed gpurun whole")
        time.sleep(0.5)


def unpack(archive: Path, into: Path) -> None:
    """Unpack plain files, below `into` alone.

    Raises:
        TroubleError: it holds what no archive of ours holds.
    """
    with tarfile.open(archive) as tar:
        for member in tar:
            source = tar.extractfile(member) if member.isreg() else None
            if source is None or member.name.startswith("/") or ".." in Path(member.name).parts:
                raise TroubleError(f"the archive's {member.name!r} is no plain file")
            path = into / member.name
            path.parent.mkdir(parents=True, exist_ok=True)
            with source, path.open("wb") as file:
                shutil.copyfileobj(source, file)


def is_here(requirement: str) -> bool:
    """Whether this Python has a package in the very version."""
    name, _, version = requirement.partition("==")
    try:
        return importlib.metadata.version(name) == version
    except importlib.metadata.PackageNotFoundError:
        return False


def install(requirements: List[str], into: Path) -> None:
    """Bring the packages that are not here.

    Raises:
        TroubleError: they can't be had.
    """
    lacking = [one for one in requirements if not is_here(one)]
    if not lacking:
        return
    pip = ["uv", "pip", "install", "--python", sys.executable] if shutil.which("uv") else []
    pip = pip or [sys.executable, "-m", "pip", "install", "--disable-pip-version-check"]
    argv = [*pip, "-q", "--no-deps", "--target", str(into), *lacking]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines() or [f"exit code {done.returncode}"]
        told = [line for line in said if "error" in line.lower() or "×" in line] or said
        raise TroubleError(f"{Path(pip[0]).name} can't install the guard's packages: {told[0].strip()[:300]}")


# ---- its passes ------------------------------------------------------------------------------------------------------


class Guard:
    """gpurun's guard in a home of its own; its pulse goes out to the mount."""

    def __init__(self, root: Path, mount: Path, request: Dict[str, Any]) -> None:
        self.home = root / "home"
        self.out = mount / "out" / "guard.json"
        self.post = str(request.get("post", ""))
        self.sent = b""  # the last pulse that went out, or came in
        paths = os.pathsep.join([str(root / "code"), str(root / "packages")])
        env = {name: value for name, value in os.environ.items() if name != CONFIG}
        self.env = {**env, "PYTHONPATH": paths, "GPURUN_HOME": str(self.home), "GPURUN_GUARD_WATCHED": "1"}
        self.home.mkdir(mode=0o700)
        with contextlib.suppress(OSError):  # what the last job's guard left unproven, and what it told already
            self.sent = self.out.read_bytes()
            (self.home / "guard.json").write_bytes(self.sent)
        if os.environ.get(CONFIG):
            config = self.home / "config.toml"
            config.touch(0o600)
            config.write_text(os.environ[CONFIG], encoding="utf-8")

    def once(self, ended: threading.Event) -> None:
        """Make one pass, a process of its own; what it says goes to the job's log."""
        argv = [sys.executable, "-P", "-m", "orchestrator.cli", "guard", "once", "--quiet"]
        with subprocess.Popen(argv, env=self.env, cwd=self.home, stdin=subprocess.DEVNULL) as process:
            until = time.monotonic() + PASS_LIMIT
            while process.poll() is None:
                self.send()
                if ended.wait(0.2) or time.monotonic() > until:
                    process.kill()
        self.send()

    def send(self) -> None:
        """Bring a new pulse out; what the mount does not take now it may take the next time."""
        with contextlib.suppress(OSError):
            data = (self.home / "guard.json").read_bytes()
            if data != self.sent:
                pulse = read_json(self.home / "guard.json")
                if pulse.get("when"):
                    write(self.out, {**pulse, "post": self.post})
                self.sent = data


def watch(mount: Path, root: Path, ended: threading.Event) -> int:
    """Make passes until the time is over."""
    request = arrived(mount / "in")
    until = time.monotonic() + float(request["seconds"])
    unpack(mount / "in" / "gpurun.tar.gz", root / "code")
    install([str(one) for one in request["requirements"]], root / "packages")
    guard = Guard(root, mount, request)
    while not ended.is_set() and time.monotonic() < until:
        begun = time.monotonic()
        guard.once(ended)
        ended.wait(max(begun + float(request["beat_seconds"]) - time.monotonic(), 0.0))
    return 0


def main(argv: List[str], ended: Optional[threading.Event] = None) -> int:
    """Read the command line; what keeps the guard from its passes is left where its owner looks."""
    if len(argv) != 2 or not Path(argv[1]).is_dir():
        print("usage: afar.py <mount>", file=sys.stderr)
        return 2
    mount, over = Path(argv[1]), ended or threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: over.set())
    with tempfile.TemporaryDirectory() as name:
        try:
            return watch(mount, Path(name), over)
        except (TroubleError, OSError, tarfile.TarError, ValueError, KeyError, TypeError) as error:
            print(f"gpurun: no guard: {error}", file=sys.stderr)
            post = read_json(mount / "in" / "request.json").get("post")
            write(mount / "out" / "trouble.json", {"time": time.time(), "post": post, "error": str(error)[:500]})
            return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv))
