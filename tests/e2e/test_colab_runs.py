"""Colab from the command line, on its simulator: a run through all that breaks, and the ways in which one ends."""

from __future__ import annotations

import json
import os
import random
import re
from decimal import Decimal
from hashlib import sha256
from typing import TYPE_CHECKING

import pytest
from desk import Desk, wait_for

if TYPE_CHECKING:
    from pathlib import Path

    from colab_fixture import ColabSim

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root for a container with a root of its own")

UNIT_USD = Decimal("0.0999")
# Prints a line a step until it is told to end; what it leaves says how far it came.
SCRIPT = """
import hashlib, json, pathlib, random, sys, time
step = 0
while step < STEPS:
    step += 1
    print(f"line {step} " + hashlib.sha256(str(step).encode()).hexdigest(), flush=True)
    print("::metrics " + json.dumps({"stage": "train", "step": step, "total_steps": STEPS}), flush=True)
    time.sleep(0.05)
pathlib.Path("artifacts").mkdir(exist_ok=True)
pathlib.Path("artifacts/model.bin").write_bytes(random.Random(7).randbytes(2_000_000))
"""
GPU = ("--provider", "colab", "--gpu", "t4", "-y", "--accept-risk")


def desk_at(sim: ColabSim, path: Path, steps: int) -> Desk:
    for name in ("work", "home"):
        (path / name).mkdir(parents=True)
    desk = Desk(dict(sim.exports), path / "work", path / "home", sim.control)
    desk.write("mine", SCRIPT.replace("STEPS", str(steps)))
    return desk


def agrees(desk: Desk, sim: ColabSim) -> None:
    """The ledger's interval holds the meter's dollars, which are its units'."""
    meter, shown = sim.meter(), json.loads(desk.gpurun("ps", "--all", "--json").out)[0]
    usd, units = Decimal(meter["usd"]), Decimal(meter["units"])
    assert abs(usd - units * UNIT_USD) < Decimal("0.00001")
    assert shown["accrued_low_usd"] <= usd <= shown["accrued_usd"]
    assert meter["billing_now"] == 0


def test_a_run_with_short_tokens_a_hanging_order_and_ten_cuts_comes_home_exact(start_colab, tmp_path) -> None:
    sim = start_colab(machines=True, pace=20, faults={"assign_hangs": True, "token_ttl": {"seconds": 40}})
    desk = desk_at(sim, tmp_path, 120)
    launched = desk.start("launch", "mine.yaml", *GPU)
    folder = desk.running()
    sim.faults({"websocket_cut": {"instance": "*", "after": 0, "count": 10, "every": 8}, "unassign_500": {"times": 3}})
    ended = launched.end()
    assert ended.code == 0, ended.err
    wanted = [f"line {step} {sha256(str(step).encode()).hexdigest()}" for step in range(1, 121)]
    log = (folder / "log.txt").read_text()
    assert re.findall(r"^line .*$", log, re.MULTILINE) == wanted
    assert (folder / "artifacts" / "model.bin").read_bytes() == random.Random(7).randbytes(2_000_000)
    meter = sim.meter()
    assert [(row["type"], row["ended_by"]) for row in meter["allocations"]] == [("T4", "unassign")]
    assert len({one["path"] for one in sim.asked("assign")}) == 1
    agrees(desk, sim)
    assert {"assign_hangs", "token_ttl", "unassign_500"} <= set(sim.ask("/faults")["struck"])
    assert len(sim.asked("channels")) > 10  # connected again after each cut
    told = json.dumps(sim.asked()) + json.dumps(sim.state())
    secrets = [sim.login["refresh_token"], sim.login["client_secret"]]
    held = b"".join(path.read_bytes() for path in desk.home.rglob("*") if path.is_file())
    assert [one for one in secrets if one in told or one.encode() in held] == []


def test_a_gpu_that_was_not_ordered_a_vm_that_vanishes_and_an_empty_balance_end_right(start_colab, tmp_path) -> None:
    # of the first kind one is ended at once; the next vanishes in the middle; the third is the one
    sim = start_colab(machines=True, pace=60, faults={"substituted": {"to": "L4", "times": 1}})
    desk = desk_at(sim, tmp_path / "vanish", 60)
    launched = desk.start("launch", "mine.yaml", *GPU)
    folder = desk.running()
    sim.faults({"vanish": {"instance": "*", "after": 0}})
    # and beside it: what was paid for is used up
    poor = start_colab(machines=True, pace=60)
    broke = desk_at(poor, tmp_path / "broke", 10_000)
    spending = broke.start("launch", "mine.yaml", *GPU, "--json")
    broke.running()
    poor.faults({"balance": {"units": 0, "free": 0}})
    ended = launched.end()
    assert ended.code == 0, ended.err
    meter = sim.meter()
    rows = [(row["type"], row["ended_by"]) for row in meter["allocations"]]
    assert rows == [("L4", "unassign"), ("T4", "vanished"), ("T4", "unassign")]
    assert (folder / "artifacts" / "model.bin").stat().st_size == 2_000_000
    agrees(desk, sim)
    over = spending.end()
    last = json.loads(over.out.strip().splitlines()[-1])
    assert (over.code, last["reason"]) == (3, "no_capacity"), over.err
    assert [row["ended_by"] for row in poor.meter()["allocations"]] == ["free quota"]
    assert wait_for(lambda: not broke.holder(), "its controller's end")


def test_a_launch_is_refused_with_the_fix_where_the_units_can_t_carry_it(start_colab, tmp_path) -> None:
    sim = start_colab(faults={"balance": {"units": 0.1, "free": 1.07}})
    desk = desk_at(sim, tmp_path, 1)
    refused = desk.gpurun("launch", "mine.yaml", *GPU)
    assert refused.code == 4, refused.err
    assert "holds $0.01 (0.10 compute units)" in refused.err
    assert "https://colab.research.google.com/signup" in refused.err
    sim.faults({"free_tier": {"units": 0.107}})
    refused = desk.gpurun("launch", "mine.yaml", *GPU)
    assert (refused.code, "--allow-free-tier" in refused.err) == (4, True), refused.err
    planned = desk.gpurun("launch", "mine.yaml", *GPU, "--allow-free-tier", "--dry-run")
    assert planned.code == 0, planned.err
    assert "ends by itself after 6 min" in planned.out  # of its twelve: as long as the quota lasts
    assert "one VM" in planned.out
    assert "THIS COMPUTER MUST STAY AWAKE" in planned.out
    assert sim.meter()["allocations"] == []
