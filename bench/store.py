"""How quick results get into a store by a signed policy, as a ratio to boto3 with keys, and what that costs a training.

    python bench/store.py [--rounds N] [--mib M] [--steps S] [--cuts C]   # 5, 1024, 3000, 50
    python bench/store.py --only upload | step | cuts                     # writes bench/results/local/store.json, all

A real S3 server (SeaweedFS) on loopback, on the same cores but at the lowest priority: a rented machine runs none.
Both uploaders are processes of their own, with all that they check: ours sha256 and MD5 of each byte, boto3 its own.
They take turns, and begin in turns; the median of the rounds' own ratios counts. The training multiplies matrices on
one core, beside an uploader that is never out of work, and that is stopped and let go on in turns; each turn with it is
held against the turns without it right before and after. "Still" is what the same sum gives for turns without it alone:
what the computer's other work makes of a ratio that should be 1. The cuts end connections at a random byte, up or down;
after each, all that CHECKPOINT.json names is fetched and hashed.
Goals: 1 GiB <= 1.3 x boto3's upload_file; a step <= 1.02 x one without uploads; no cut leaves a half state.
"""

from __future__ import annotations

import argparse
import bisect
import hashlib
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "store")]

import seaweed  # noqa: E402 - found by the line above
from folders import RUN, Folder  # noqa: E402
from relay import Fault, Relay  # noqa: E402

from orchestrator.store import Ability, open_store, parse  # noqa: E402
from orchestrator.store_remote import StoreRemote  # noqa: E402
from providers.errors import RemoteError  # noqa: E402

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
FEW = 5  # steps of a turn that is worth a median


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
        ways = [
            ("policy", partial(ours, job.path)),
            ("boto3", partial(theirs, source, endpoint, f"bench/boto3-{number}")),
        ]
        for name, upload in ways if number % 2 else reversed(ways):
            seconds = upload()
            if number:
                times[name].append(seconds)
        store.delete([one.key for one in store.kept("bench/")])
    return times


def beside(folder: Path, endpoint: str, count: int) -> list[tuple[str, list[float]]]:
    """Seconds of each step, turn by turn: "on" = an uploader works that always has a checkpoint to bring."""
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
            for old in (folder / "busy" / "checkpoints").glob(f"step-{number - 3}"):
                shutil.rmtree(old)
            time.sleep(TURN / 3)
            if time.monotonic() - turns[-1][0] > TURN:
                works = turns[-1][1] == "off"
                uploader.send_signal(signal.SIGCONT if works else signal.SIGSTOP)
                turns.append((time.monotonic(), "on" if works else "off"))
        uploader.kill()
        uploader.communicate()
    found: list[tuple[str, list[float]]] = [(kind, []) for _, kind in turns]
    steps = [tuple(map(float, line.split())) for line in lines[0].splitlines()]
    for began, seconds in steps:
        at = bisect.bisect([moment for moment, _ in turns], began) - 1
        if at >= 0 and began + seconds < turns[at][0] + TURN:
            found[at][1].append(seconds)
    return [(kind, taken) for kind, taken in found[1:] if len(taken) >= FEW]  # while the first began, torch was loaded


def ratios(turns: list[tuple[str, list[float]]], kind: str) -> list[float]:
    """Hold each turn of a kind against the nearest two without uploads; medians, since a computer has other work."""
    medians = [(name, statistics.median(taken)) for name, taken in turns]
    still = [at for at, (name, _) in enumerate(medians) if name == "off"]
    found = []
    for at, (name, median) in enumerate(medians):
        before, after = [i for i in still if i < at][-1:], [i for i in still if i > at][:1]
        if name == kind and before and after:
            found.append(2 * median / (medians[before[0]][1] + medians[after[0]][1]))
    return found


def cut(folder: Path, endpoint: str, count: int) -> dict[str, int]:
    """Cut so many connections, each at a random byte; after each, before the next one, fetch and hash what is named."""
    rng, cuts, half, named, step = random.Random(50), 0, 0, 0, 0
    was_cut, asked, looked = False, threading.Event(), threading.Event()
    store = open_store(parse("s3://probe/cuts", endpoint))
    remote = StoreRemote(store.address, RUN, 1, store=store)

    def spoil(_number: int) -> Fault | None:
        nonlocal was_cut
        if was_cut:  # the connection before this one is over: nothing moves until somebody has looked
            asked.set()
            looked.wait(60)
            looked.clear()
        was_cut = rng.random() < 2 / 3
        if not was_cut:
            return None
        return Fault(cut_up=rng.randrange(120_000)) if rng.random() < 1 / 2 else Fault(cut_down=rng.randrange(300))

    with Relay(endpoint) as relay:
        relay.spoil = spoil
        job = Folder(folder / "cut")
        signed = open_store(parse("s3://probe/cuts", relay.endpoint))
        grant = json.loads(signed.grant(RUN, 1, datetime.now(UTC) + timedelta(hours=1), SURE).reveal())
        job.write("store.json", json.dumps({**grant, "part_bytes": 40_000}).encode())
        with job.uploader() as uploader:
            reader = threading.Thread(target=uploader.stdout.read)
            reader.start()
            while cuts < count:
                if remote.newest_step() >= step or not step:
                    step += 1
                    job.checkpoint(step)
                if not asked.wait(0.1):
                    continue
                asked.clear()
                cuts += 1
                names = [entry.name for entry in remote.manifest().entries]
                named += bool(names)
                try:
                    remote.fetch(names, folder / f"home-{cuts}")
                except RemoteError:
                    half += 1
                looked.set()
            uploader.kill()
            reader.join()
        looked.set()
    return {"cuts": cuts, "named": named, "half": half}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--cuts", type=int, default=50)
    parser.add_argument("--only", choices=["upload", "step", "cuts"])
    options = parser.parse_args()
    os.environ.update(AWS_ACCESS_KEY_ID=seaweed.KEY, AWS_SECRET_ACCESS_KEY=seaweed.SECRET, OMP_NUM_THREADS="1")
    report: dict[str, object] = {"cpus": os.cpu_count(), "load": os.getloadavg()[0]}
    goals: list[tuple[str, float, float]] = []
    with tempfile.TemporaryDirectory() as made, seaweed.running(nice=NICE) as endpoint:
        folder = Path(made)
        if options.only in {None, "upload"}:
            times = race(folder, endpoint, options.rounds, options.mib)
            rounds = [mine / other for mine, other in zip(times["policy"], times["boto3"], strict=True)]
            goals.append((f"{options.mib} MiB, policy / boto3", statistics.median(rounds), UPLOAD_MOST))
            report["upload"] = {"seconds": times, "ratios": rounds}
        if options.only in {None, "step"}:
            turns = beside(folder, endpoint, options.steps)
            on, still = ratios(turns, "on"), ratios(turns, "off")
            goals.append(("a step, uploads on / off", statistics.median(on), STEP_MOST))
            report["step"] = {"ratios": on, "still": statistics.median(still)}
            print(f"{'a step, off / off (still)':<30}{statistics.median(still):>10.3f}   {len(on)} turns")
        if options.only in {None, "cuts"} and options.cuts:
            found = cut(folder, endpoint, options.cuts)
            report["cuts"] = found
            goals.append((f"half states after {found['cuts']} cuts", found["half"], 0))
            print(f"{'cuts with checkpoints there':<30}{found['named']:>10} of {found['cuts']}")
    for name, got, most in goals:
        print(f"{name:<30}{got:>10.3f}   goal {most}  {'met' if got <= most else 'MISSED'}")
    report["goals"] = {name: {"got": got, "goal": most, "met": got <= most} for name, got, most in goals}
    if options.only is None:
        RESULTS.parent.mkdir(parents=True, exist_ok=True)
        RESULTS.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
