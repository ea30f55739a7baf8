"""How quick results get into a store by a signed policy, as a ratio to boto3 with keys, and what that costs a training.

    python bench/store.py [--rounds N] [--mib M] [--steps S]   # 3, 1024, 2000; writes bench/results/local/store.json

A real S3 server (SeaweedFS) on loopback, on the same cores but at the lowest priority: a rented machine runs none.
Both uploaders are processes of their own, with all that they check: ours sha256 and MD5 of each byte, boto3 its own.
They take turns; medians count. The training multiplies matrices on one core, beside an uploader that is never out of
work, and that is stopped and let go on in turns. On a computer that others use too its ratio says little.
Goals: 1 GiB <= 1.3 x boto3's upload_file; a step <= 1.02 x one without uploads.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "store")]

import seaweed  # noqa: E402 - found by the line above
from folders import RUN, Folder  # noqa: E402

from orchestrator.store import Ability, open_store, parse  # noqa: E402

RESULTS = Path(__file__).parent / "results" / "local" / "store.json"
MIB = 2**20
SURE = Ability(policies=True, checksums=True)
UPLOAD_MOST, STEP_MOST = 1.3, 1.02
BOTO = """
import sys
from orchestrator.store import open_store, parse
open_store(parse(sys.argv[1], sys.argv[2])).upload(sys.argv[3], sys.argv[4])
"""
STEPS = """
import sys, time
import torch
torch.set_num_threads(1)
a = torch.randn(700, 700)
for _ in range(int(sys.argv[1])):
    began = time.monotonic()
    for _ in range(3):
        a = torch.tanh(a @ a / 700)
    print(began, time.monotonic() - began, flush=True)
"""
NICE = 19  # of the server: where results come from it does not run
TURN = 1.5  # seconds for which the uploader works, or stands still


def folder_with(path: Path, source: Path, endpoint: str, attempt: int) -> Folder:
    """A job that is over, and its leave to write."""
    folder = Folder(path)
    target = path / "artifacts" / "model.bin"
    target.parent.mkdir(parents=True)
    os.link(source, target)
    with source.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    listed = [{"name": "artifacts/model.bin", "size": source.stat().st_size, "sha256": digest}]
    folder.write("result.json", json.dumps({"reason": "completed", "artifacts": listed}).encode())
    store = open_store(parse("s3://probe/bench", endpoint))
    grant = store.grant(RUN, attempt, datetime.now(UTC) + timedelta(hours=1), SURE)
    folder.write("store.json", grant.reveal().encode())
    return folder


def ours(folder: Path) -> float:
    argv = [sys.executable, "-S", "-B", str(ROOT / "payload" / "upload.py"), str(folder)]
    began = time.monotonic()
    said = subprocess.run(argv, stdout=subprocess.PIPE, check=True).stdout
    if json.loads(said.splitlines()[-1])["state"] != "whole":
        raise SystemExit("it did not get there")
    return time.monotonic() - began


def theirs(source: Path, endpoint: str, key: str) -> float:
    argv = [sys.executable, "-c", BOTO, "s3://probe/bench", endpoint, key, str(source)]
    began = time.monotonic()
    subprocess.run(argv, check=True, cwd=ROOT)
    return time.monotonic() - began


def race(folder: Path, endpoint: str, rounds: int, mib: int) -> dict[str, list[float]]:
    source = folder / "model.bin"
    with source.open("wb") as file:
        for _ in range(mib):
            file.write(os.urandom(MIB))
    times: dict[str, list[float]] = {"policy": [], "boto3": []}
    store = open_store(parse("s3://probe/bench", endpoint))
    for number in range(rounds + 1):  # the first touches the memory, and is not counted
        job = folder_with(folder / f"job-{number}", source, endpoint, number + 1)
        both = {"policy": ours(job.path), "boto3": theirs(source, endpoint, f"bench/boto3-{number}")}
        if number:
            for name, seconds in both.items():
                times[name].append(seconds)
        store.delete([one.key for one in store.kept("bench/")])
    return times


def beside(folder: Path, endpoint: str, count: int) -> dict[str, list[float]]:
    """Seconds of each step while an uploader works that always has a checkpoint to bring, and while it stands still."""
    times: dict[str, list[float]] = {"off": [], "on": []}
    job = Folder(folder / "busy")
    grant = open_store(parse("s3://probe/bench", endpoint)).grant(RUN, 90, datetime.now(UTC) + timedelta(hours=1), SURE)
    job.write("store.json", grant.reveal().encode())
    content, number, turns = os.urandom(8 * MIB), 0, [(time.monotonic(), "on")]
    with job.uploader() as uploader:
        training = subprocess.Popen([sys.executable, "-c", STEPS, str(count)], stdout=subprocess.PIPE, text=True)
        reader = threading.Thread(target=lambda: lines.append(training.communicate()[0]))
        lines: list[str] = []
        reader.start()
        while reader.is_alive():
            number += 1
            job.checkpoint(number, {"state.pt": content + str(number).encode()})
            time.sleep(TURN / 3)
            if time.monotonic() - turns[-1][0] > TURN:
                works = turns[-1][1] == "off"
                uploader.send_signal(signal.SIGCONT if works else signal.SIGSTOP)
                turns.append((time.monotonic(), "on" if works else "off"))
        uploader.kill()
        uploader.communicate()
    for line in lines[0].splitlines():
        began, seconds = map(float, line.split())
        turn = max((turn for turn in turns if turn[0] <= began), default=turns[0])
        if began + seconds < turn[0] + TURN:
            times[turn[1]].append(seconds)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--steps", type=int, default=2000)
    options = parser.parse_args()
    os.environ.update(AWS_ACCESS_KEY_ID=seaweed.KEY, AWS_SECRET_ACCESS_KEY=seaweed.SECRET, OMP_NUM_THREADS="1")
    with tempfile.TemporaryDirectory() as folder, seaweed.running(nice=NICE) as endpoint:
        race_times = race(Path(folder), endpoint, options.rounds, options.mib)
        step_times = beside(Path(folder), endpoint, options.steps)
    medians = {name: statistics.median(taken) for name, taken in {**race_times, **step_times}.items()}
    ratios = {
        f"{options.mib} MiB, policy / boto3": (medians["policy"] / medians["boto3"], UPLOAD_MOST),
        "a step, uploads on / off": (medians["on"] / medians["off"], STEP_MOST),
    }
    for name, seconds in medians.items():
        print(f"{name:<30}{seconds:>10.4f} s")
    for name, (ratio, most) in ratios.items():
        print(f"{name:<30}{ratio:>10.3f}   goal {most}  {'met' if ratio <= most else 'MISSED'}")
    report = {
        "cpus": os.cpu_count(), "load": os.getloadavg()[0], "seconds": {**race_times, **medians},
        "ratios": {name: {"ratio": got, "goal": most, "met": got <= most} for name, (got, most) in ratios.items()},
    }  # fmt: skip
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
