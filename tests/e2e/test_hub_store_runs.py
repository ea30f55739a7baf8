"""A job of Hugging Face's whose results lie in a bucket of the user's: the laptop may be gone for good."""

from __future__ import annotations

import json
import os
import shutil
import signal
from dataclasses import replace
from hashlib import sha256
from typing import TYPE_CHECKING

import pytest
from desk import Desk, simulated, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

STORE = "hf://buckets/alice/kept/here"
SCRIPT = """
import hashlib, json, os, pathlib, random, sys, time
kept = pathlib.Path(sys.argv[1])
point = pathlib.Path("checkpoints/step-3")
point.mkdir(parents=True)
(point / "state.bin").write_bytes(b"state" * 1000)
facts = {"size": 5000, "sha256": hashlib.sha256(b"state" * 1000).hexdigest()}
(point / "CHECKPOINT.json").write_text(json.dumps({"step": 3, "files": {"state.bin": facts}}))
step = 0
while not (kept / "go").exists():
    step += 1
    print("::metrics " + json.dumps({"stage": "train", "step": step, "total_steps": 1000}), flush=True)
    time.sleep(0.05)
data = random.Random(7).randbytes(200_000)
folder = pathlib.Path("artifacts")
folder.mkdir()
(folder / "model.bin").write_bytes(data)
(kept / "sha256").write_text(hashlib.sha256(data).hexdigest())
"""


@pytest.fixture
def vendor(tmp_path: Path, home: Path) -> Iterator[Desk]:
    work = tmp_path / "work"
    work.mkdir()
    with simulated("hf", "--boot", "10", "--pace", "100") as told:
        desk = Desk(told["exports"], work, home, told["control"])
        desk.write("mine", SCRIPT)
        desk.tell("/bucket", {"id": "alice/kept"})
        yield desk


def test_a_job_leaves_everything_in_a_bucket_of_the_user_s_and_a_new_home_brings_it_from_there(vendor, tmp_path):
    launched = vendor.gpurun(
        "launch", "mine.yaml", "--provider", "hf", "--gpu", "cpu", "--store", STORE, "-y", "--detach"
    )
    assert launched.code == 0, launched.err
    assert STORE in launched.err
    assert "no token of it goes to the job" in launched.err
    folder = vendor.running()
    there = lambda: vendor.ask("/state")["buckets"]["alice/kept"]  # noqa: E731 - asked again and again
    at = f"here/runs/{folder.name}/1"
    wait_for(lambda: f"{at}/CHECKPOINT.json" in there(), "a checkpoint in the store")
    os.kill(vendor.holder(), signal.SIGKILL)
    shutil.rmtree(vendor.home)
    vendor.go()
    wait_for(lambda: vendor.ask("/state")["jobs"][0]["stage"] == "COMPLETED", "its own end")
    assert vendor.ask("/meter")["billing_now"] == 0
    assert f"{at}/result.json" in there()
    (submit,) = (one["body"] for one in vendor.ask("/requests")["requests"] if one["operation"] == "submit")
    assert vendor.environ["HF_TOKEN"] not in json.dumps(submit)

    later = replace(vendor, home=tmp_path / "later")
    adopted = later.gpurun("adopt", "--store", STORE)
    assert adopted.code == 0, adopted.err
    assert "completed" in later.gpurun("show", folder.name).out
    model = later.home / "runs" / folder.name / "artifacts" / "model.bin"
    assert sha256(model.read_bytes()).hexdigest() == (vendor.work / "sha256").read_text()
    listed = json.loads(later.gpurun("store", "ls", STORE, "--json").out)
    assert [(one["run_id"], one["whole"]) for one in listed] == [(folder.name, True)]
    assert later.gpurun("store", "rm", folder.name, "--store", STORE, "-y").code == 0
    assert there() == []
