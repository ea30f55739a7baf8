"""A person at a desk, for end-to-end tests: a home, a folder to work in, and simulated vendors known by their exports.

with simulated("hf", "--pace", "40") as vendor:             # a process of its own, judged by its meter at the end
    desk = Desk({**vendor["exports"]}, work, home, vendor["control"])
    desk.gpurun("launch", …) -> Ended(code, out, err)         desk.start(…).end()         desk.ask("/meter")
"""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import requests

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

GPURUN = [sys.executable, "-m", "orchestrator.cli"]


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


class Typed:
    """A command under way. What it says goes to files: nobody reads a pipe meanwhile, and a full one would stop it."""

    def __init__(self, argv: list[str], folder: Path, env: dict[str, str], beside: Path) -> None:
        self._said = Path(tempfile.mkdtemp(prefix="typed-", dir=beside))
        with (self._said / "out").open("wb") as out, (self._said / "err").open("wb") as err:
            self.process = subprocess.Popen(argv, cwd=folder, stdout=out, stderr=err, env=env)

    def end(self, seconds: float = 120) -> Ended:
        code = self.process.wait(seconds)
        return Ended(code, *((self._said / name).read_text(errors="surrogateescape") for name in ("out", "err")))


@dataclass
class Desk:
    """A computer with a home, and the environment of whoever sits there."""

    environ: dict[str, str]
    work: Path
    home: Path
    control: str = ""  # of the one vendor, where there is but one
    more: dict[str, str] = field(default_factory=dict)

    def start(self, *args: str, **more: str) -> Typed:
        paths = os.pathsep.join(filter(None, sys.path))
        own = {"GPURUN_HOME": str(self.home), "PYTHONPATH": paths}
        if "HF_ENDPOINT" in self.environ:  # tests are offline, where nothing is simulated
            own["HF_HUB_OFFLINE"] = "0"
        env = {**os.environ, **self.environ, **own, **self.more, **more}
        return Typed([*GPURUN, *args], self.work, env, self.home.parent)

    def gpurun(self, *args: str, **more: str) -> Ended:
        return self.start(*args, **more).end()

    def ask(self, path: str) -> dict[str, Any]:
        return requests.get(self.control + path, timeout=30).json()

    def tell(self, path: str, wish: object) -> None:
        requests.post(self.control + path, json=wish, timeout=30).raise_for_status()

    def shown(self) -> dict[str, Any]:
        return json.loads(self.gpurun("show", "--json").out)

    def running(self, *, steps: int = 5) -> Path:
        """Wait until the run has come that far; gives its folder."""
        folder = wait_for(lambda: next(self.home.glob("runs/*/metrics.jsonl"), None), "a training").parent
        wait_for(lambda: (folder / "metrics.jsonl").read_text().count('"step"') > steps, f"{steps} steps")
        return folder

    def go(self) -> None:
        """Let the training come to its end."""
        (self.work / "go").touch()

    def holder(self) -> int:
        """The process that holds the run; 0 = nobody."""
        with closing(sqlite3.connect(self.home / "ledger.sqlite")) as db:
            name = db.execute("SELECT lease_holder FROM runs").fetchone()[0]
        return int(name.split(":")[1]) if name else 0

    def write(self, name: str, script: str, *, secrets: str = "", limits: str = "max_hours: 0.2") -> None:
        """Write a template `<name>.yaml` of a script that is given the folder it may look into."""
        (self.work / f"{name}.py").write_text(script)
        command = json.dumps(["{python}", f"code/{name}.py", str(self.work)])
        (self.work / f"{name}.yaml").write_text(
            f"name: {name}\ntraining: {{method: script, code: {name}.py, command: {command}}}\n"
            f"limits: {{{limits}}}\nsecrets: [{secrets}]\n"
        )


def wait_for(look: Callable[[], Any], what: str, seconds: float = 90.0) -> Any:
    until = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < until, f"{what} never came"
        time.sleep(0.05)
    return found


@contextmanager
def simulated(vendor: str, *options: str, may_bill: bool = False) -> Iterator[dict[str, Any]]:
    """Start a vendor in a process of its own; at the end it bills nothing and had no troubles."""
    argv = [sys.executable, "-m", "simulators", vendor, *options, "--with-stdin"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        try:
            yield told
            meter, state = (requests.get(told["control"] + path, timeout=30).json() for path in ("/meter", "/state"))
        finally:
            process.terminate()
            process.wait(30)
    assert may_bill or meter["billing_now"] == 0
    assert state["troubles"] == []
