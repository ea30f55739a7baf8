"""kill -9 the command, the controller, the agent, the watchdog and the training at random moments of a real run.

    python bench/kill.py 20 [--seed N]

After the next `gpurun` command each run must end DONE, with no process left and with the metrics and the weights of
an uninterrupted run. Prints a line a run and a summary; exits 1 if any law was broken.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

TARGETS = ("command", "controller", "agent", "training", "watchdog")
JOB = ["loop", "--set", "epochs=60", "--set", "checkpoint_every_steps=100", "--set", "log_every_steps=20"]
LIMIT_SECONDS = 180
_TIMELY = {"time", "tokens_per_second", "samples_per_second", "peak_memory_gib", "flop_utilisation", "stage_seconds"}


@dataclass
class Watched:
    """One run in a home of its own."""

    home: Path
    command: subprocess.Popen[bytes]
    started: float

    @property
    def run_id(self) -> str:
        """The run's id, as soon as its folder is there."""
        runs = list((self.home / "runs").glob("loop-*")) if (self.home / "runs").is_dir() else []
        return runs[0].name if runs else ""

    def ledger(self, column: str) -> Any:
        """Read one column of the run; None while there is none. Reads the file itself: no code of ours is trusted."""
        path = self.home / "ledger.sqlite"
        if not path.exists():
            return None
        try:
            with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as db:
                db.row_factory = sqlite3.Row
                row = db.execute("SELECT * FROM runs").fetchone()
        except sqlite3.Error:
            return None
        return row[column] if row else None

    def pids(self, target: str) -> list[int]:
        """Find the processes of a role right now."""
        if target == "command":
            return [self.command.pid] if self.command.poll() is None else []
        if target == "controller":
            holder = self.ledger("lease_holder")
            return [int(holder.rsplit(":", 2)[1])] if holder else []
        found = []
        for process in marked(self.run_id):
            try:
                words = " ".join(process.cmdline())
            except psutil.Error:
                continue
            role = "agent" if "agent.py" in words else "watchdog" if "watchdog.py" in words else "training"
            if role == target:
                found.append(process.pid)
        return found


def marked(run_id: str) -> list[psutil.Process]:
    """List the living processes that carry a mark of this run."""
    found = []
    for process in psutil.process_iter():
        try:
            alive = process.status() != psutil.STATUS_ZOMBIE
            if alive and run_id and run_id in process.environ().get("GPURUN_MARK", ""):
                found.append(process)
        except psutil.Error:
            continue
    return found


def controllers(run_id: str) -> list[psutil.Process]:
    """List the living background controllers of this run."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if "orchestrator.hold" in words and run_id in words:
            found.append(process)
    return found


def gpurun(home: Path, *words: str) -> subprocess.Popen[bytes]:
    """Start a gpurun command as a user's shell would."""
    env = {**os.environ, "GPURUN_HOME": str(home), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "orchestrator.cli", *words],
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def launch(home: Path) -> Watched:
    return Watched(home, gpurun(home, "launch", *JOB, "-y"), time.monotonic())


def settle(run: Watched) -> bool:
    """Type the next command, and wait until the run is over."""
    deadline = time.monotonic() + LIMIT_SECONDS
    gpurun(run.home, "ps").wait()
    while time.monotonic() < deadline:
        if run.ledger("state") == "done":
            return True
        time.sleep(0.2)
    return False


def facts(run: Watched) -> dict[str, Any]:
    """Give what must equal an uninterrupted run's: metrics by step, and the artifacts' hashes."""
    folder = run.home / "runs" / run.run_id
    steps: dict[str, Any] = {}
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        metrics = json.loads(line)
        if "step" in metrics and ("loss" in metrics or "accuracy" in metrics):
            key = f"{metrics.get('stage')} {metrics['step']} {'accuracy' in metrics}"
            steps[key] = {name: value for name, value in metrics.items() if name not in _TIMELY}
    result = json.loads((folder / "result.json").read_text())
    weights = {a["name"]: a["sha256"] for a in result["artifacts"] if a["name"].endswith(".safetensors")}
    return {"steps": steps, "weights": weights, "accuracy": result["metrics"]["accuracy"]}


def attack(run: Watched, chance: random.Random, seconds: float) -> list[str]:
    """Kill some of the targets at random moments, some of them in one blow."""
    chosen = chance.sample(TARGETS, chance.randint(1, len(TARGETS)))
    at_once = chance.random() < 0.25
    moment = chance.uniform(0.3, seconds)
    moments = sorted((moment if at_once else chance.uniform(0.3, seconds), target) for target in chosen)
    done = []
    for moment, target in moments:
        time.sleep(max(run.started + moment - time.monotonic(), 0))
        for pid in run.pids(target):
            try:
                os.kill(pid, 9)
            except ProcessLookupError:
                continue
            done.append(f"{target}@{moment:.1f}s")
    run.command.poll()
    return done


def verdict(run: Watched, wanted: dict[str, Any]) -> str:
    """Judge a settled run; "" = all laws hold."""
    reason = run.ledger("reason")
    if reason != "completed":
        return f"ended {reason}"
    deadline = time.monotonic() + 10
    while marked(run.run_id) or controllers(run.run_id):
        if time.monotonic() > deadline:
            return f"left running: {[*marked(run.run_id), *controllers(run.run_id)]}"
        time.sleep(0.1)
    return "" if facts(run) == wanted else "metrics or weights differ"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=int, nargs="?", default=20)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    options = parser.parse_args()
    chance = random.Random(options.seed)
    root = Path(tempfile.mkdtemp(prefix="gpurun-kill-"))
    whole = launch(root / "whole")
    whole.command.wait()
    seconds = time.monotonic() - whole.started
    wanted = facts(whole)
    print(f"seed {options.seed}; the uninterrupted run took {seconds:.1f} s, {len(wanted['steps'])} metrics lines")
    broken = 0
    for number in range(1, options.runs + 1):
        run = launch(root / str(number))
        killed = attack(run, chance, seconds)
        if not run.run_id or run.ledger("state") is None:
            print(f"{number:3d}  killed before the run was admitted: {' '.join(killed)}")
            continue
        over = settle(run)
        wrong = verdict(run, wanted) if over else f"still {run.ledger('state')} after {LIMIT_SECONDS} s"
        broken += bool(wrong)
        attempt = json.loads(run.ledger("memory"))["attempt"]
        took = time.monotonic() - run.started
        print(f"{number:3d}  {took:5.1f} s  attempt {attempt}  {wrong or 'ok'}  {' '.join(killed)}", flush=True)
        if not wrong:
            shutil.rmtree(run.home)
    print(f"{options.runs} runs, {broken} broken" + (f"; their homes are kept in {root}" if broken else ""))
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
