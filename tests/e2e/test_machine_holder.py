"""The holder on the machine, from the command line to the vendor's meter: nobody here is needed to end the bill."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
import requests

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from simulators_fixture import LambdaSim

GPURUN = [sys.executable, "-m", "orchestrator.cli"]
# Carries on where it was, as every training of ours does, and says when it was begun.
SCRIPT = """
import json, os, pathlib, sys, time
kept = pathlib.Path(sys.argv[1])
with (kept / "begun").open("a") as file:
    file.write(f"{os.getpid()}\\n")
at = pathlib.Path("at")
step = int(at.read_text()) if at.exists() else 0
while not (kept / "go").exists() or step < 3:
    step += 1
    pathlib.Path("at.new").write_text(str(step))
    os.replace("at.new", at)
    print("::metrics " + json.dumps({"stage": "train", "step": step, "total_steps": 1000}), flush=True)
    time.sleep(0.1)
pathlib.Path("artifacts").mkdir(exist_ok=True)
pathlib.Path("artifacts/model.bin").write_bytes(b"weights")
"""


@dataclass
class Desk:
    """A computer with a home, the key of an account and a script."""

    sim: LambdaSim
    home: Path
    work: Path

    def gpurun(self, *args: str) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, **self.sim.exports}
        return subprocess.run(
            [*GPURUN, *args], capture_output=True, text=True, env=env, timeout=120, check=False, cwd=self.work
        )

    def launch(self, max_hours: float, *more: str) -> None:
        command = json.dumps(["{python}", "code/mine.py", str(self.work)])
        (self.work / "mine.py").write_text(SCRIPT)
        (self.work / "mine.yaml").write_text(
            f"name: mine\ntraining: {{method: script, code: mine.py, command: {command}}}\n"
            f"limits: {{max_hours: {max_hours}}}\n"
        )
        done = self.gpurun("launch", "mine.yaml", "--provider", "lambda", "--gpu", "a10", "-y", "--detach", *more)
        assert done.returncode == 0, done.stderr

    def shown(self) -> dict[str, Any]:
        return json.loads(self.gpurun("show", "--json").stdout)

    def controller(self) -> int:
        import sqlite3

        with closing(sqlite3.connect(self.home / "ledger.sqlite")) as db:
            name = db.execute("SELECT lease_holder FROM runs").fetchone()[0]
        return int(name.split(":")[1]) if name else 0

    def holder(self) -> dict[str, Any]:
        """The holder on the machine, as the ledger has it; {} = nothing is known yet."""
        import sqlite3

        with closing(sqlite3.connect(self.home / "ledger.sqlite")) as db:
            text = db.execute("SELECT holders FROM runs").fetchone()[0]
        return next((one for one in json.loads(text or "[]") if one["place"] == "machine"), {})

    def meter(self) -> dict[str, Any]:
        (row,) = self.sim.meter()["allocations"]
        return row


def wait_for(look: Callable[[], Any], what: str, seconds: float = 90.0) -> Any:
    until = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < until, f"{what} never came"
        time.sleep(0.1)
    return found


def job_folder(desk: Desk) -> Path:
    """Where the job lies on the machine, seen from outside: its watchdog names it."""
    name = desk.meter()["name"]

    def look() -> Path | None:
        for path in Path("/proc").glob("[0-9]*"):
            try:
                words = (path / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"--detach" in words and words[-2].decode().endswith(name):
                return Path(words[-2].decode())
        return None

    return wait_for(look, "its watchdog")


def holding(needle: bytes, folder: Path) -> list[Path]:
    """Every file below a folder that has this in it."""
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    return [path for path in files if path.stat().st_size < 2**22 and needle in path.read_bytes()]


def command_lines() -> bytes:
    texts = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            texts.append(path.read_bytes())
        except OSError:
            continue
    return b"\n".join(texts)


@pytest.fixture
def desk(start_lambda, home: Path, tmp_path: Path) -> Iterator[Desk]:
    sim = start_lambda(machines=True)
    sim.may_hurry = True  # the machine and this computer ask with one key, each at its own pace
    work = tmp_path / "work"
    work.mkdir()
    return Desk(sim, home, work)


def test_with_the_laptop_gone_for_good_the_machine_ends_its_own_bill_at_the_deadline(desk: Desk) -> None:
    desk.launch(0.012, "--key-on-machine")
    holder = wait_for(lambda: desk.holder().get("proof") == "proven" and desk.holder(), "a proof")
    assert "→ 200, alive" in holder["evidence"]
    deadline = datetime.fromisoformat(desk.shown()["deadline"])
    wait_for((desk.work / "begun").exists, "the training")
    folder, key = job_folder(desk), desk.sim.key.encode()
    root = folder.parents[3]
    (orders,) = holding(key, root)
    assert (orders.name, stat.S_IMODE(orders.stat().st_mode)) == ("ender.json", 0o600)
    assert not orders.is_relative_to(folder)

    psutil.Process(wait_for(desk.controller, "a controller")).kill()
    kept = desk.home.with_name("kept")
    desk.home.rename(kept)  # gone, but for what must not be in it
    betrayed = [path for path in holding(key, kept) if path.name != "credentials.json"]
    seen = command_lines()
    while (row := desk.meter())["ended"] is None:
        assert datetime.now(UTC) < deadline + timedelta(seconds=60), "it bills on"
        seen += command_lines()
        time.sleep(0.2)
    assert row["ended_by"] == "terminate"
    assert timedelta(0) <= datetime.fromisoformat(row["ended"]) - deadline < timedelta(seconds=20)
    asked = desk.sim.asked()
    assert asked[-1]["path"].startswith("/api/v1/instance")
    told = requests.get(desk.sim.control + "/requests", timeout=30).text + json.dumps(desk.sim.state())
    assert (betrayed, key in seen, key.decode() in told) == ([], False, False)
    wait_for(lambda: not root.exists(), "the end of the machine")
    shutil.rmtree(kept)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root for a machine with boots of its own")
def test_a_machine_that_is_restarted_carries_on_by_itself_and_never_twice(desk: Desk) -> None:
    desk.launch(0.2, "--key-on-machine")
    begun = desk.work / "begun"
    wait_for(begun.exists, "the training")
    folder = job_folder(desk)
    wait_for(lambda: json.loads((folder / "watchdog.json").read_text()).get("rearm") == "cron", "its re-arming")
    step = wait_for(lambda: (folder / "at").exists() and int((folder / "at").read_text()), "a step")
    before = json.loads((folder / "watchdog.json").read_text())
    desk.sim.data("POST", "/instance-operations/restart", {"instance_ids": [desk.meter()["id"]]})
    wait_for(lambda: len(begun.read_text().splitlines()) == 2, "the training, once more")
    wait_for(lambda: int((folder / "at").read_text()) > step + 5, "more steps")
    after = json.loads((folder / "watchdog.json").read_text())
    assert after["boot"] != before["boot"]
    assert (after["armed_at"], after["ceiling"]) == (before["armed_at"], before["ceiling"])
    assert after["used"] > before["used"]
    (desk.work / "go").touch()
    done = desk.gpurun("wait", "--json")
    assert done.returncode == 0, done.stderr
    shown = desk.shown()
    assert (shown["outcome"], shown["attempt"]) == ("succeeded", 1)
    assert len(begun.read_text().splitlines()) == 2
