"""A job's folder with a real watchdog and a real agent, small programs for trainings, and a look at who lives.

Nothing is faked: the processes are those of every machine, only with limits of seconds.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

from providers.base import Mark
from providers.wire import GUARDS

PAYLOAD = Path(__file__).parent.parent / "payload"
PATIENCE = 30.0  # seconds: a loaded machine is no bug


def until(fact, what: str, seconds: float = PATIENCE):
    """Wait for a fact and give it."""
    end = time.monotonic() + seconds
    while not (found := fact()):
        assert time.monotonic() < end, f"{what}: not within {seconds:.0f} s"
        time.sleep(0.02)
    return found


class Box:
    """One job's folder. `token` stands in the command line of everything that a test's training starts."""

    def __init__(self, folder: Path, *, deadline: float = 60, ceiling: float | None = None, **job) -> None:
        self.folder = folder
        self.token = uuid.uuid4().hex
        now = datetime.now(UTC)
        self.ceiling = now + timedelta(seconds=deadline if ceiling is None else ceiling)
        self.mark = str(Mark("beef", f"box-260101-{self.token[:6]}", 1, self.ceiling))
        self.limits = {
            "mark": self.mark,
            "deadline": (now + timedelta(seconds=deadline)).timestamp(),
            "ceiling": self.ceiling.timestamp(),
            "max_seconds": (self.ceiling - now).total_seconds(),
            "tick_seconds": 0.1,
            "margin_seconds": 0.5,
        }
        self.job = {"grace_seconds": 4.0, "max_idle_seconds": 60.0, "log_limit_bytes": 2**20, **self.limits, **job}
        folder.mkdir()
        (folder / "payload").mkdir()
        for name in GUARDS:
            shutil.copy(PAYLOAD / name, folder / "payload" / name)
        self.put("arm.json", {**self.limits, "end": ["processes"]})

    def put(self, name: str, content) -> None:
        aside = self.folder / f".{name}.test"
        aside.write_text(json.dumps(content))
        aside.replace(self.folder / name)

    def read(self, name: str) -> dict:
        try:
            return json.loads((self.folder / name).read_text())
        except FileNotFoundError:
            return {}

    def log(self) -> str:
        path = self.folder / "log.txt"
        return path.read_text(errors="replace") if path.exists() else ""

    def arm(self) -> subprocess.CompletedProcess[bytes]:
        """Start the watchdog as a provider does."""
        argv = [sys.executable, "-B", self.folder / "payload" / "watchdog.py", "--detach", self.folder]
        env = {**os.environ, "GPURUN_MARK": self.mark}
        return subprocess.run(argv, env=env, cwd=self.folder, capture_output=True, timeout=PATIENCE, check=False)

    def go(self, code: str, *args: str) -> Box:
        """Arm, and have a Python program trained; its argv ends with the token."""
        return self.go_argv("{python}", "-S", "-c", code, *args)

    def go_argv(self, *command: str) -> Box:
        assert self.arm().returncode == 0
        self.put("job.json", {**self.job, "command": [*command, self.token]})
        return self

    def result(self) -> dict:
        """Wait for the result, and for the silence after it."""
        result = until(lambda: self.read("result.json"), "result.json")
        self.silence()
        return result

    def silence(self, seconds: float = PATIENCE) -> None:
        """Nothing of this job lives, found by its own word on the command line or by the mark."""
        until(lambda: not self.living(), f"the end of {self.living()}", seconds)

    def story(self) -> str:
        """How the watchdog says that it ended."""
        return until(lambda: self.read("watchdog.json").get("ended"), "the watchdog's last word")

    def living(self) -> dict[int, str]:
        """Every process with our token or our mark, looked for in a way of the tests' own."""
        found = {}
        for path in Path("/proc").glob("[0-9]*"):
            try:
                command = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                marked = f"GPURUN_MARK={self.mark}".encode() in (path / "environ").read_bytes().split(b"\0")
            except OSError:
                continue
            if command and (marked or self.token in command):
                found[int(path.name)] = command[-120:]
        return found

    def training(self) -> int:
        """The process that carries the token and was started by the agent."""

        def look() -> int:
            return next((pid for pid in self.living() if f"PPid:\t{self.agent()}\n" in _status(pid)), 0)

        return until(look, "the training")

    def agent(self) -> int:
        return until(lambda: self.read("status.json").get("pid"), "the agent")

    def watchdog(self) -> int:
        return until(lambda: self.read("watchdog.json").get("pid"), "the watchdog")

    def step(self, step: int) -> None:
        until(lambda: self.read("status.json").get("step", 0) >= step, f"step {step}")

    def clean(self) -> list[str]:
        """Kill what is left, and name it."""
        left = self.living()
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        return list(left.values())


def _status(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return ""


def steps(*, seconds: float = 0.1, more: str = "") -> str:
    """A training that reports a step again and again; `more` runs before the first."""
    return f"""
import itertools, json, os, signal, sys, time
{more}
for step in itertools.count(1):
    print("::metrics " + json.dumps({{"step": step, "loss": 1 / step, "stage": "train"}}), flush=True)
    time.sleep({seconds})
"""


SAVES = """
def save(*_):
    os.makedirs("artifacts", exist_ok=True)
    open("artifacts/saved", "w").write("saved")
    sys.exit(5)
signal.signal(signal.SIGTERM, save)
"""

# What a training may leave behind: a child, one in its own session, one that forked twice, one with no environment.
STRAYS = """
import os, subprocess, sys, time
token = sys.argv[-1]
deaf = "import signal, time; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); time.sleep(99)"
hang = [sys.executable, "-S", "-c", deaf, token]
def daemon(env):
    if os.fork() == 0:
        os.setsid()
        if os.fork():
            os._exit(0)
        os.execve(sys.executable, hang, env)
subprocess.Popen(hang)
subprocess.Popen(hang, start_new_session=True)
daemon(dict(os.environ))
daemon({})
"""
