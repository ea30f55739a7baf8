"""RunPod from the command line, on its simulator: a whole run, a pod that is restarted, a pod that ends itself."""

from __future__ import annotations

import json
import os
import re
import shutil
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

import psutil
import pytest
from desk import Desk, wait_for

if TYPE_CHECKING:
    from pathlib import Path

    from runpod_fixture import RunPodSim

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root for a container with a root of its own")

# Saves at every step and carries on; a second one at the same time would end at the lock.
SCRIPT = """
import fcntl, hashlib, json, os, pathlib, sys, time
lock = open("alone", "w")
fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
print("begun", os.getpid(), flush=True)
at = pathlib.Path("at")
step = int(at.read_text()) if at.exists() else 0
while step < 40:
    step += 1
    pathlib.Path("at.new").write_text(str(step))
    os.replace("at.new", at)
    print("::metrics " + json.dumps({"stage": "train", "step": step, "total_steps": 40}), flush=True)
    time.sleep(0.1)
pathlib.Path("artifacts").mkdir(exist_ok=True)
pathlib.Path("artifacts/model.bin").write_bytes(b"weights")
"""
TOKEN = "hf_" + "Qz7" * 11
LONG = SCRIPT.replace("40", "100000")
GPU = ("--provider", "runpod", "--gpu", "3090", "-y")


def desk_at(sim: RunPodSim, path: Path) -> Desk:
    for name in ("work", "home"):
        (path / name).mkdir(parents=True)
    return Desk(dict(sim.exports), path / "work", path / "home", sim.control)


def holding(needle: bytes, folder: Path) -> list[str]:
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    return [path.name for path in files if needle in path.read_bytes()]


def test_a_pod_is_rented_restarted_and_moved_and_what_it_made_comes_home_with_the_bill(start_runpod, tmp_path) -> None:
    sim = start_runpod(machines=True)
    sim.may_hurry = True
    sim.faults({"reply_500": 1, "capacity": 1})  # the first offer is gone; the second is made, and nobody says so
    desk = desk_at(sim, tmp_path)
    desk.environ["HF_TOKEN"] = TOKEN
    desk.write("mine", SCRIPT + 'assert os.environ["HF_TOKEN"].startswith("hf_Qz7")\n', secrets="HF_TOKEN")
    launched = desk.start("launch", "mine.yaml", *GPU, "--accept-risk")
    folder = desk.running()
    private = re.findall(rb"[\w+/=]{60,}", next(folder.glob("ssh/*/client_ed25519")).read_bytes())[1:]
    sim.faults({"container_restart": {"instance": "*", "after": 0}})
    wait_for(lambda: (folder / "log.txt").read_text().count("begun") == 2, "the training, once more")
    sim.faults({"port_change": {"instance": "*", "after": 0}})
    ended = launched.end()
    assert ended.code == 0, ended.err
    assert (folder / "artifacts" / "model.bin").read_bytes() == b"weights"
    log = (folder / "log.txt").read_text()
    assert (log.count("begun"), "BlockingIOError" in log) == (2, False)
    steps = [
        json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines() if '"step"' in line
    ]
    assert steps == sorted(set(steps))  # carried on from where it was, never twice at once
    meter, shown = sim.meter(), json.loads(desk.gpurun("ps", "--all", "--json").out)[0]
    assert (len(meter["allocations"]), meter["billing_now"], shown["attempt"]) == (1, 0, 1)
    low, high = (Decimal(str(shown[name])) for name in ("accrued_low_usd", "accrued_usd"))
    assert low <= Decimal(meter["usd"]) <= high
    # nothing that opens anything is where others look
    told = json.dumps(sim.asked()) + json.dumps(sim.state())
    for secret in (sim.key.encode(), TOKEN.encode(), *private):
        assert holding(secret, desk.home) == []
        assert secret.decode() not in told
    assert not (folder / "ssh").exists()


def test_with_the_laptop_gone_a_pod_ends_itself_where_its_key_may_and_else_by_a_guard(start_runpod, tmp_path) -> None:
    desks: dict[str, tuple[RunPodSim, Desk, datetime]] = {}
    for may in ("none", "graphql", "all"):
        sim = start_runpod(machines=True, faults={"pod_key": {"may": may}})
        sim.may_hurry = True  # the pods and this computer ask at once, each at its own pace
        desk = desk_at(sim, tmp_path / may)
        desk.write("mine", LONG, limits="max_hours: 0.016")
        done = desk.gpurun("launch", "mine.yaml", *GPU, "--detach", "--accept-risk")
        assert done.code == 0, done.err
        assert "watchdog (machine): unproven until start" in done.err
        desks[may] = sim, desk, datetime.fromisoformat(desk.shown()["deadline"])
    for may, (_, desk, _) in desks.items():
        proof = "absent" if may == "none" else "proven"
        wait_for(lambda desk=desk, proof=proof: _holder(desk).get("proof") == proof, f"{may}: {proof}")
        assert ("graphql → 200, alive" in _holder(desk)["evidence"]) == (may == "graphql")
        psutil.Process(wait_for(desk.holder, "a controller")).kill()
        shutil.rmtree(desk.home)
    for may in ("graphql", "all"):
        sim, _, deadline = desks[may]
        (row,) = wait_for(
            lambda sim=sim: [one for one in sim.meter()["allocations"] if one["ended"]], f"{may}: its end"
        )
        assert datetime.fromisoformat(row["ended"]) >= deadline
        assert row["ended_by"] == {"graphql": "podTerminate", "all": "delete"}[may]
    sim, _, ceiling = desks["none"]
    assert sim.meter()["billing_now"] == 1
    guard = desk_at(sim, tmp_path / "guard")
    wait_for(lambda: datetime.now(UTC) > ceiling + timedelta(seconds=2), "its ceiling")
    done = guard.gpurun("guard", "once")
    assert done.code == 0, done.err + done.out
    assert sim.meter()["billing_now"] == 0


def _holder(desk: Desk) -> dict:
    shown = desk.shown()
    return next((one for one in shown.get("holders", ()) if one["place"] == "machine"), {})
