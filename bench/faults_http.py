"""Every fault of a simulated vendor in one `gpurun launch` each: how it ends, what it costs, what is left.

    python bench/faults_http.py [--provider NAME] [--jobs 2] [--only CASE …]   # CASE = the beginning of a case's name

Each has a simulator and a home of its own, and a real training: steps, checkpoints, an artifact. Exits 1 unless every
one ends as the table in fault_cases.py (or fault_cases_NAME.py) says, within its number of machines and never with two
at once, with nothing billing, the meter within the ledger's interval, no process left and no secret in any file.
Writes bench/results/local/faults_http.json, faults_runpod.json or faults_colab.json.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import fault_cases
import fault_cases_colab
import fault_cases_runpod
import psutil
from fault_cases import Case
from vendor import Vendor, leaked, today, usd

BOOT_SECONDS = 60.0
LIMIT_SECONDS = 120.0
RESULTS = Path(__file__).parent / "results" / "local"
TABLES = {
    "lambda": (fault_cases.cases, "faults_http.json"),
    "runpod": (fault_cases_runpod.cases, "faults_runpod.json"),
    "colab": (fault_cases_colab.cases, "faults_colab.json"),
}
_STEP_SECONDS = {"lambda": 60, "runpod": 1}  # what is begun is billed
GPURUN = [sys.executable, "-m", "orchestrator.cli"]
TEMPLATE = """name: tiny
training: {{method: script, code: tiny.py, command: ["{{python}}", code/tiny.py, "{steps}"]}}
limits: {{max_hours: 0.5, max_idle_minutes: 5}}
"""
TRAINING = '''"""A training in small: every step depends on all before it; what is saved is carried on from."""
import fcntl, hashlib, json, pathlib, signal, sys, time

alone = open("alone", "w")
fcntl.flock(alone, fcntl.LOCK_EX | fcntl.LOCK_NB)  # two at once would end here, and be seen
done, state, asked = 0, "", []
signal.signal(signal.SIGTERM, lambda *_: asked.append(1))


def save(step):
    folder = pathlib.Path(f"checkpoints/step-{step}")
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"step": step, "state": state}).encode()
    (folder / "state.json").write_bytes(text)
    files = {"state.json": {"size": len(text), "sha256": hashlib.sha256(text).hexdigest()}}
    (folder / "seal.part").write_text(json.dumps({"step": step, "files": files}))
    (folder / "seal.part").rename(folder / "CHECKPOINT.json")


for seal in pathlib.Path("checkpoints").glob("step-*/CHECKPOINT.json"):
    if json.loads(seal.read_text())["step"] > done:
        done, state = json.loads((seal.parent / "state.json").read_text()).values()
for step in range(done + 1, int(sys.argv[1]) + 1):
    time.sleep(0.1)
    state = hashlib.sha256(f"{state} {step}".encode()).hexdigest()
    print("::metrics " + json.dumps({"step": step, "stage": "train", "loss": 1 / step}), flush=True)
    if asked or step % 4 == 0:
        save(step)
    if asked:
        sys.exit(5)
pathlib.Path("artifacts").mkdir(exist_ok=True)
pathlib.Path("artifacts/model.txt").write_text(state)
'''


@dataclass
class Outcome:
    """How a case went; `wrong` is empty when it went as expected."""

    name: str
    expected: str
    got: str = ""
    seen: str = ""
    meter: str = ""
    ledger: str = ""
    machines: int = 0
    seconds: float = 0.0
    wrong: list[str] = field(default_factory=list)


def conduct(case: Case, folder: Path) -> Outcome:
    """Launch once under the case's faults, judge everything that is left, and leave nothing."""
    try:
        return conducted(case, folder)
    finally:
        end_all(folder / "home")


def conducted(case: Case, folder: Path) -> Outcome:
    home = folder / "home"
    outcome = Outcome(case.name, f"{case.reason} {case.exit}")
    begun = time.monotonic()
    with Vendor(
        folder, pace=case.pace, boot=BOOT_SECONDS, linger=case.linger, faults=case.faults, provider=case.provider
    ) as vendor:
        code, said = launch(case, folder, vendor)
        (folder / "said.json").write_text(json.dumps(said))
        outcome.got = f"{said.get('reason')} {code}"
        rows = json.loads(gpurun(vendor, home, "ps", "--json").stdout)
        judge_end(outcome, case, vendor, rows)
        judge_run(outcome, case, home, vendor)
        outcome.wrong += [f"left: {one}" for one in vendor.left(home)]
        outcome.wrong += leaked(home, vendor.secrets())
        outcome.wrong += [f"trouble: {one}" for one in vendor.ask("/state")["troubles"]]
        (folder / "requests.json").write_text(json.dumps(vendor.ask("/requests"), indent=1))
    outcome.seconds = round(time.monotonic() - begun, 1)
    return outcome


def launch(case: Case, folder: Path, vendor: Vendor) -> tuple[int | None, dict[str, Any]]:
    """Type the command, arm what strikes while it runs, wait; gives its exit code and last line."""
    home = folder / "home"
    (folder / "tiny.py").write_text(TRAINING)
    (folder / "tiny.yaml").write_text(TEMPLATE.format(steps=case.steps))
    words = ["launch", str(folder / "tiny.yaml"), "--provider", case.provider, "--gpu", case.gpu]
    with (folder / "out.txt").open("wb") as out, (folder / "err.txt").open("wb") as err:
        process = subprocess.Popen(
            [*GPURUN, *words, "-y", "--accept-risk", "--json"],
            stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=vendor.environ(home),
        )  # fmt: skip
        end = time.monotonic() + LIMIT_SECONDS
        to_arm = case.running
        while process.poll() is None and time.monotonic() < end:
            if to_arm is not None and steps(home) >= 6:
                vendor.ask("/faults", to_arm)
                to_arm = None
            time.sleep(0.05)
        if process.poll() is None:
            process.kill()
            process.wait()
            return None, {"reason": f"nothing after {LIMIT_SECONDS:.0f} s"}
    lines = (folder / "out.txt").read_text().splitlines()
    return process.returncode, dict(json.loads(lines[-1])) if lines else {}


def end_all(home: Path) -> None:
    """End what still works on a home: the background controller of a run that did not end."""
    for one in psutil.process_iter():
        try:
            if one.environ().get("GPURUN_HOME") == str(home):
                one.kill()
        except psutil.Error:
            continue


def steps(home: Path) -> int:
    """Count the steps whose metrics have come home."""
    return sum('"step"' in line for path in home.glob("runs/*/metrics.jsonl") for line in path.read_text().splitlines())


def gpurun(vendor: Vendor, home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    argv = [*GPURUN, *words]
    return subprocess.run(argv, capture_output=True, text=True, env=vendor.environ(home), timeout=60, check=False)


def judge_end(outcome: Outcome, case: Case, vendor: Vendor, rows: list[dict[str, Any]]) -> None:
    """Judge the ending, the money and the machines."""
    meter = vendor.meter()
    low, high = usd(rows)
    outcome.machines = len(meter["allocations"])
    outcome.meter, outcome.ledger = meter["usd"], f"{low}-{high}"
    if outcome.got != outcome.expected:
        outcome.wrong.append(f"ended {outcome.got}")
    if outcome.machines != case.machines:
        outcome.wrong.append(f"{outcome.machines} machines, not {case.machines}")
    if meter["billing_now"] or any(row["state"] != "done" for row in rows):
        outcome.wrong.append(f"{meter['billing_now']} still billing, runs {[row['state'] for row in rows]}")
    if not low <= Decimal(meter["usd"]) <= high:
        outcome.wrong.append(f"the meter's {meter['usd']} lies outside {outcome.ledger}")
    step = sum(Decimal(row["price"]) for row in meter["allocations"]) * _STEP_SECONDS.get(case.provider, 0) / 3600
    if case.name == "none" and step and high - low > step + Decimal("1e-8"):
        outcome.wrong.append(f"{outcome.ledger} is wider than a billing step, {step}")
    if vendor.overlap():
        outcome.wrong.append("two machines at once")
    wanted = [name for wish in (case.faults, case.running or {}) for name in list(wish)[:1]]
    struck = vendor.ask("/faults")["struck"]
    if case.running is None and [name for name in wanted if name not in struck]:
        outcome.wrong.append(f"{wanted} never struck")


def judge_run(outcome: Outcome, case: Case, home: Path, vendor: Vendor) -> None:
    """Judge what the run says of itself and what it brought home."""
    memory, folder = memory_of(home)
    told = [*memory.get("signatures", []), memory.get("detail", "")]
    struck = vendor.ask("/faults")["struck"]
    outcome.seen = next((one for one in told if one), "") or " ".join(
        f"{n}x{struck.count(n)}" for n in sorted({*struck})
    )
    if case.words and not any(case.words in one for one in told):
        outcome.wrong.append(f"no word of {case.words!r} in {told}")
    if folder is None:
        return
    if (folder / "ssh").exists():
        outcome.wrong.append("the keys are still there")
    if case.reason == "completed" and case.exit == 0:
        state = ""
        for step in range(1, case.steps + 1):
            state = hashlib.sha256(f"{state} {step}".encode()).hexdigest()
        model = folder / "artifacts" / "model.txt"
        if not model.exists() or model.read_text() != state:
            outcome.wrong.append("not the artifact of an uninterrupted run")
        metrics = folder / "metrics.jsonl"
        text = metrics.read_text() if metrics.exists() else ""
        there = {json.loads(line).get("step") for line in text.splitlines()}
        if missing := {*range(1, case.steps + 1)} - there:
            outcome.wrong.append(f"no metrics of steps {sorted(missing)}")


def memory_of(home: Path) -> tuple[dict[str, Any], Path | None]:
    """Read what the ledger remembers of the run; nothing where it was never admitted."""
    path = home / "ledger.sqlite"
    if not path.exists():
        return {}, None
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as database:
        row = database.execute("SELECT run_id, memory FROM runs").fetchone()
    database.close()
    return (json.loads(row[1]), home / "runs" / row[0]) if row else ({}, None)


_OF_NO_LAUNCH = {"bills_late", "volume_charged"}  # `gpurun costs` alone meets them: tests/unit/runpod


def untried(provider: str, cases: list[Case]) -> list[str]:
    """Name the faults that the simulator knows and the table lacks."""
    argv = [sys.executable, "-m", "simulators", provider, "--list-faults"]
    listed = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    own = next(part for part in listed.split("\n\n") if part.startswith(f"{provider}\n"))
    known = {line.split()[0] for line in own.splitlines()[1:] if not line.startswith(" ")}
    return sorted(
        known - _OF_NO_LAUNCH - {name for case in cases for wish in (case.faults, case.running or {}) for name in wish}
    )


def line(outcome: Outcome) -> str:
    head = f"{outcome.name:28} {outcome.expected:14} {outcome.got:14} {outcome.machines:2} {outcome.seconds:5.1f} s"
    return f"{head}  {outcome.meter:>7} {outcome.ledger:>17}  {outcome.seen[:60]}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--provider", choices=list(TABLES), default="lambda")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", action="append", metavar="NAME", help="cases whose name begins so; repeatable")
    parser.add_argument("--keep", action="store_true", help="keep every home, not only those that went wrong")
    options = parser.parse_args()
    table, results = TABLES[options.provider]
    if missing := untried(options.provider, table()):
        print(f"no case has {', '.join(missing)}")
        return 1
    chosen = [case for case in table() if not options.only or case.name.startswith(tuple(options.only))]
    root = Path(tempfile.mkdtemp(prefix="gpurun-faults-"))
    begun, done = time.monotonic(), []
    print(f"{'fault':28} {'expected':14} {'got':14}  n  seconds    meter            ledger  seen")
    with ThreadPoolExecutor(options.jobs) as pool:
        folders = [root / str(number) for number in range(len(chosen))]
        for outcome, folder in zip(pool.map(conduct, chosen, folders), folders, strict=True):
            print(line(outcome), flush=True)
            for wrong in outcome.wrong:
                print(f"    WRONG: {wrong}  [{folder}]", flush=True)
            if not outcome.wrong and not options.keep:
                shutil.rmtree(folder)
            done.append(outcome)
    broken = sum(bool(outcome.wrong) for outcome in done)
    print(f"{today()}: {len(done)} launches, {broken} not as expected, {time.monotonic() - begun:.0f} s")
    if not options.only:
        RESULTS.mkdir(parents=True, exist_ok=True)
        (RESULTS / results).write_text(
            json.dumps({"date": today(), "launches": [asdict(one) for one in done]}, indent=1) + "\n"
        )
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
