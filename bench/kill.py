"""kill -9 the command, the controller, agent, watchdog, training, guard and sshd at random moments of a real run.

    python bench/kill.py 20 [--seed N] [--provider lambda] [--jobs 2]

With `--provider lambda` each run has a simulated vendor of its own and a guard beside it; the machine's sshd and its
sessions are killed too.
After the next `gpurun` command each run must end DONE, with no process left, with the metrics and the weights of
an uninterrupted run, and on the vendor's meter never two machines at once, none at the end. Prints a line a run and a
summary; exits 1 if any law was broken. All 50 of --provider lambda: bench/results/local/kill_lambda.json.
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
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
from vendor import Vendor, clean_environ, leaked, today, usd

if TYPE_CHECKING:
    from collections.abc import Iterator

TARGETS = {
    "local": ("command", "controller", "agent", "training", "watchdog"),
    "lambda": ("command", "controller", "agent", "training", "watchdog", "sessions", "sshd", "guard"),
}
SHORTER = ["--set", "epochs=20"]  # on a rented machine, which takes its time to come up
WHERE = {"local": ["-y"], "lambda": [*SHORTER, "--provider", "lambda", "--gpu", "a10", "--accept-risk", "-y"]}
PACE, BOOT_SECONDS = 40.0, 60.0
RESULTS = Path(__file__).parent / "results" / "local" / "kill_lambda.json"
JOB = ["loop", "--set", "epochs=60", "--set", "checkpoint_every_steps=100", "--set", "log_every_steps=20"]
LIMIT_SECONDS = 180
_WORDS = {"agent": "agent.py", "watchdog": "watchdog.py", "training": "train_"}
_TIMELY = {"time", "tokens_per_second", "samples_per_second", "peak_memory_gib", "flop_utilisation", "stage_seconds"}


@dataclass
class Watched:
    """One run in a home of its own."""

    home: Path
    command: subprocess.Popen[bytes]
    started: float
    vendor: Vendor | None = None
    guard: subprocess.Popen[bytes] | None = None

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
        if target == "guard":
            return [self.guard.pid] if self.guard is not None and self.guard.poll() is None else []
        if target in {"sessions", "sshd"}:
            listens = target == "sshd"
            return [one.pid for one in self.vendor.machines() if is_sshd(one, listens=listens)] if self.vendor else []
        found = []
        for process in marked(self.run_id):
            try:
                words = " ".join(process.cmdline())
            except psutil.Error:
                continue
            # A setup that is killed is a failed one by contract; only the training is begun again.
            role = next((name for name, word in _WORDS.items() if word in words), "")
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


def is_sshd(process: psutil.Process, *, listens: bool) -> bool:
    """Tell whether it is the sshd that listens, or one of a login's."""
    try:
        words = " ".join(process.cmdline())
    except psutil.Error:
        return False
    return "sshd" in words and process.name().startswith("sshd") and (" -D" in words) is listens


def gpurun(home: Path, vendor: Vendor | None, *words: str) -> subprocess.Popen[bytes]:
    """Start a gpurun command as a user's shell would."""
    env = vendor.environ(home) if vendor else {**clean_environ(), "GPURUN_HOME": str(home)}
    return subprocess.Popen(
        [sys.executable, "-m", "orchestrator.cli", *words],
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


@contextmanager
def launched(home: Path, provider: str) -> Iterator[Watched]:
    """Launch in a home of its own, at a vendor of its own."""
    if provider == "local":
        yield Watched(home, gpurun(home, None, "launch", *JOB, *WHERE[provider]), time.monotonic())
        return
    with Vendor(home.with_suffix(".vendor"), pace=PACE, boot=BOOT_SECONDS) as vendor:
        command = gpurun(home, vendor, "launch", *JOB, *WHERE[provider])
        guard = gpurun(home, vendor, "guard", "watch")
        try:
            yield Watched(home, command, time.monotonic(), vendor, guard)
        finally:
            leave(guard)


def leave(guard: subprocess.Popen[bytes] | None) -> None:
    """End the guard, and its pass if one is under way: it watches for ever."""
    if guard is not None and guard.poll() is None:
        for process in psutil.Process(guard.pid).children(recursive=True):
            process.kill()
        guard.kill()
        guard.wait()


def settle(run: Watched) -> bool:
    """Type the next command, and wait until the run is over."""
    deadline = time.monotonic() + LIMIT_SECONDS
    gpurun(run.home, run.vendor, "ps").wait()
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


def plan(chance: random.Random, provider: str, seconds: float) -> list[tuple[float, str]]:
    """Draw some of the targets and random moments for them, some of them in one blow."""
    targets = TARGETS[provider]
    chosen = chance.sample(targets, chance.randint(1, len(targets)))
    at_once = chance.random() < 0.25
    moment = chance.uniform(0.3, seconds)
    return sorted((moment if at_once else chance.uniform(0.3, seconds), target) for target in chosen)


def attack(run: Watched, moments: list[tuple[float, str]]) -> list[str]:
    """Kill as planned."""
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
    if facts(run) != wanted:
        return "metrics or weights differ"
    return "" if run.vendor is None else bill(run, run.vendor)


def bill(run: Watched, vendor: Vendor) -> str:
    """Judge what the vendor saw: one machine at a time, none left, the ledger's interval right, no secret kept."""
    meter = vendor.meter()
    listed = gpurun_json(run.home, vendor, "ps", "--json")
    low, high = usd(listed)
    wrong = [f"left: {one}" for one in vendor.left(run.home)] + leaked(run.home, vendor.secrets())
    if meter["billing_now"]:
        wrong.append(f"{meter['billing_now']} still billing")
    if vendor.overlap():
        wrong.append("two machines at once")
    if not low <= Decimal(meter["usd"]) <= high:
        wrong.append(f"the meter's {meter['usd']} lies outside {low}-{high}")
    return "; ".join(wrong)


def gpurun_json(home: Path, vendor: Vendor, *words: str) -> Any:
    argv = [sys.executable, "-m", "orchestrator.cli", *words]
    return json.loads(subprocess.run(argv, env=vendor.environ(home), capture_output=True, check=False).stdout)


def ordeal(number: int, root: Path, provider: str, moments: list[tuple[float, str]], wanted: dict[str, Any]) -> dict:
    """Launch one run, kill, type the next command, judge."""
    with launched(root / str(number), provider) as run:
        killed = attack(run, moments)
        told = {"run": number, "killed": killed, "attempts": 0, "wrong": ""}
        if not run.run_id or run.ledger("state") is None:
            run.command.wait()
            machines = run.vendor.meter()["allocations"] if run.vendor else []
            told["note"] = "killed before the run was admitted"
            told["wrong"] = f"not admitted, and {len(machines)} rented" if machines else ""
        else:
            over = settle(run)
            leave(run.guard)
            told["wrong"] = verdict(run, wanted) if over else f"still {run.ledger('state')} after {LIMIT_SECONDS} s"
            told["attempts"] = json.loads(run.ledger("memory"))["attempt"]
        told["seconds"] = round(time.monotonic() - run.started, 1)
        for process in [*controllers(run.run_id), run.command] if told["wrong"] else []:
            process.kill()
    if not told["wrong"]:
        shutil.rmtree(run.home, ignore_errors=True)
    return told


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=int, nargs="?", default=20)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--provider", choices=sorted(TARGETS), default="local")
    parser.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="gpurun-kill-"))
    with launched(root / "whole", options.provider) as whole:
        whole.command.wait()
        seconds = time.monotonic() - whole.started
        wanted = facts(whole)
    print(f"seed {options.seed}; the uninterrupted run took {seconds:.1f} s, {len(wanted['steps'])} metrics lines")
    chance = random.Random(options.seed)
    plans = [plan(chance, options.provider, seconds) for _ in range(options.runs)]

    def one(number: int) -> dict[str, Any]:
        return ordeal(number, root, options.provider, plans[number - 1], wanted)

    done = []
    with ThreadPoolExecutor(options.jobs) as pool:
        for told in pool.map(one, range(1, options.runs + 1)):
            done.append(told)
            head = f"{told['run']:3d}  {told['seconds']:5.1f} s  attempt {told['attempts']}"
            print(f"{head}  {told['wrong'] or told.get('note', 'ok')}  {' '.join(told['killed'])}", flush=True)
    broken = sum(bool(told["wrong"]) for told in done)
    print(f"{today()}: {options.runs} runs, {broken} broken" + (f"; their homes are kept in {root}" if broken else ""))
    if options.provider == "lambda" and options.runs >= 50:
        values = {"date": today(), "seed": options.seed, "seconds": round(seconds, 1), "runs": done}
        RESULTS.parent.mkdir(parents=True, exist_ok=True)
        RESULTS.write_text(json.dumps(values, indent=1) + "\n")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
