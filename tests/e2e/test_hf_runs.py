"""A job at Hugging Face from the first command to the vendor's own meter, with the simulator's exports alone.
What is looked at is what a stranger could see: the commands' output, the home, the vendor's meter, jobs and files.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from decimal import Decimal
from hashlib import sha256
from typing import TYPE_CHECKING

import pytest
from desk import Desk, simulated, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SECRET = "wandb-made-up-0123456789abcdef"  # noqa: S105 - nobody's
# Steps until it is told to end, so that a test has its time in the middle; then files, of which it says the checksum.
SCRIPT = """
import hashlib, json, os, pathlib, random, signal, sys, time
kept = pathlib.Path(sys.argv[1])
folder = pathlib.Path("artifacts/deep dir")
folder.mkdir(parents=True)
def leave(*_):
    (folder / "saved").write_text("saved")
    sys.exit(5)
signal.signal(signal.SIGTERM, leave)
step = 0
while not (kept / "go").exists() or step < 3:
    step += 1
    if step == 3:
        point = pathlib.Path("checkpoints/step-3")
        point.mkdir(parents=True)
        (point / "state.bin").write_bytes(b"state" * 1000)
        facts = {"size": 5000, "sha256": hashlib.sha256(b"state" * 1000).hexdigest()}
        (point / "CHECKPOINT.json").write_text(json.dumps({"step": 3, "files": {"state.bin": facts}}))
    print("a line with \\u00e9 and \\x1b[31mcolour", flush=True)
    print("::metrics " + json.dumps({"stage": "train", "step": step, "total_steps": 1000}), flush=True)
    time.sleep(0.05)
data = random.Random(7).randbytes(2_000_000)
(folder / "model.bin").write_bytes(data)
(folder / "card.txt").write_text(hashlib.sha256(os.environ["WANDB_API_KEY"].encode()).hexdigest())
(kept / "sha256").write_text(hashlib.sha256(data).hexdigest())
"""


@pytest.fixture
def vendor(tmp_path: Path, home: Path) -> Iterator[Desk]:
    """A vendor that, at the end, bills nothing and keeps no file of a run that is over."""
    work = tmp_path / "work"
    work.mkdir()
    with simulated("hf", "--boot", "10", "--pace", "40") as told:
        desk = Desk(told["exports"], work, home, told["control"], {"WANDB_API_KEY": SECRET})
        desk.write("mine", SCRIPT, secrets="WANDB_API_KEY")
        yield desk


def test_a_run_goes_from_one_command_to_files_at_home_with_nothing_billing_and_no_secret_anywhere(vendor):
    vendor.go()
    ended = vendor.gpurun("launch", "mine.yaml", "--provider", "hf", "--gpu", "cpu", "-y")
    assert ended.code == 0, ended
    (folder,) = (vendor.home / "runs").iterdir()
    model = (folder / "artifacts" / "deep dir" / "model.bin").read_bytes()
    assert sha256(model).hexdigest() == (vendor.work / "sha256").read_text()
    assert (folder / "artifacts" / "deep dir" / "card.txt").read_text() == sha256(SECRET.encode()).hexdigest()
    shown = vendor.shown()
    assert (shown["state"], shown["reason"], shown["provider"]) == ("done", "completed", "hf")
    (row,) = vendor.ask("/meter")["allocations"]
    assert row["ended"]
    low, high = (Decimal(str(shown[name])) for name in ("accrued_low_usd", "accrued_usd"))
    assert low <= Decimal(row["usd"]) <= high
    # Where the vendor shows it: labels, command, environment; where it lies here: ledger, log, bundle, everything.
    submit = next(one for one in vendor.ask("/requests")["requests"] if one["operation"] == "submit")["body"]
    open_parts = json.dumps({key: value for key, value in submit.items() if key != "secrets"})
    kept = b"".join(path.read_bytes() for path in vendor.home.rglob("*") if path.is_file())
    for secret in (SECRET, vendor.environ["HF_TOKEN"]):
        assert secret not in open_parts + ended.out + ended.err
        assert secret.encode() not in kept
    assert vendor.ask("/state")["buckets"]["alice/gpurun"] == []


def test_a_submit_whose_answer_was_lost_made_exactly_one_job_and_the_run_goes_on_with_it(vendor):
    vendor.go()
    vendor.tell("/faults", {"reply_lost": 1})
    ended = vendor.gpurun("launch", "mine.yaml", "--provider", "hf", "--gpu", "cpu-basic", "-y")
    assert ended.code == 0, ended
    assert len(vendor.ask("/meter")["allocations"]) == 1
    assert vendor.ask("/faults")["struck"] == ["reply_lost"]


def test_a_refusal_for_want_of_credit_says_where_to_add_some_and_rents_nothing(vendor):
    vendor.tell("/faults", {"no_credit": {"times": None}})
    ended = vendor.gpurun("launch", "mine.yaml", "--provider", "hf", "--gpu", "cpu-basic", "-y")
    assert ended.code == 3
    assert "https://huggingface.co/settings/billing" in ended.out + ended.err
    assert vendor.ask("/meter")["allocations"] == []


def test_a_rehearsal_opens_an_account_that_doctor_can_read(vendor):
    line = f"{sys.executable} -m orchestrator.cli doctor --json"
    ended = vendor.gpurun("rehearse", "hf", "--pace", "100", "--", line)
    (check,) = [one for one in json.loads(ended.out) if one["name"] == "provider hf"]
    assert check["verdict"] == "ok"


def test_a_stop_lets_it_save_and_brings_what_it_saved_home(vendor):
    assert vendor.gpurun("launch", "mine.yaml", "--provider", "hf", "--gpu", "cpu", "-y", "--detach").code == 0
    folder = vendor.running()
    assert vendor.gpurun("stop", folder.name).code == 0
    assert vendor.gpurun("wait", folder.name).code == 6
    assert vendor.shown()["reason"] == "stopped"
    assert (folder / "artifacts" / "deep dir" / "saved").read_text() == "saved"


def test_with_the_laptop_gone_the_job_goes_on_and_ends_and_a_later_resume_brings_it_home(vendor):
    assert vendor.gpurun("launch", "mine.yaml", "--provider", "hf", "--gpu", "cpu", "-y", "--detach").code == 0
    folder = vendor.running()
    os.kill(vendor.holder(), signal.SIGKILL)
    vendor.go()
    jobs = lambda: vendor.ask("/state")["jobs"]  # noqa: E731 - asked again and again
    wait_for(lambda: jobs()[0]["stage"] == "COMPLETED", "its own end")
    assert vendor.ask("/meter")["billing_now"] == 0
    assert vendor.gpurun("resume", folder.name).code == 0
    model = (folder / "artifacts" / "deep dir" / "model.bin").read_bytes()
    assert sha256(model).hexdigest() == (vendor.work / "sha256").read_text()
    assert vendor.shown()["reason"] == "completed"


def test_with_the_laptop_gone_the_hub_ends_it_at_its_limit_and_a_later_resume_brings_its_last_checkpoint_home(vendor):
    assert vendor.gpurun("launch", "mine.yaml", "--provider", "hf", "--gpu", "cpu", "-y", "--detach").code == 0
    folder = vendor.running()

    # The Hub has no call that moves its limit: a later end is refused, with the reason, while the job lives.
    refused = vendor.gpurun("extend", folder.name, "--hours", "2", "-y")
    assert refused.code == 4, refused
    assert "hf can't move its own limit" in refused.err
    assert "old deadline" in refused.err

    whole = "checkpoints/step-3/CHECKPOINT.json"
    wait_for(
        lambda: any(name.endswith(whole) for name in vendor.ask("/state")["buckets"]["alice/gpurun"]), "a checkpoint"
    )
    os.kill(vendor.holder(), signal.SIGKILL)
    vendor.tell("/clock", {"advance": 800})
    job = lambda: vendor.ask("/state")["jobs"][0]  # noqa: E731 - asked again and again
    wait_for(lambda: job()["stage"] == "ERROR", "the Hub's limit")
    assert job()["message"] == "Job timeout"
    assert vendor.ask("/meter")["billing_now"] == 0
    resumed = vendor.gpurun("resume", folder.name)
    assert resumed.code == 4, resumed
    shown = vendor.shown()
    assert (shown["outcome"], shown["reason"]) == ("failed", "deadline")
    assert (folder / "checkpoints" / "step-3" / "state.bin").read_bytes() == b"state" * 1000
    (row,) = vendor.ask("/meter")["allocations"]
    assert Decimal(row["usd"]) <= Decimal(str(shown["accrued_usd"]))


def test_what_was_trained_is_pushed_to_the_hub_private_and_the_plan_says_so_and_which_image_it_takes(vendor):
    vendor.go()
    push = ("--push-to-hub", "alice/model")
    launch = ("launch", "mine.yaml", "--provider", "hf", "--gpu", "cpu")
    plan = vendor.gpurun(*launch, *push, "--dry-run")
    assert plan.code == 0, plan
    assert "ghcr.io/astral-sh/uv:python3.12-bookworm" in plan.out
    assert "alice/model on the Hub, private" in plan.out
    assert vendor.ask("/state")["repos"] == {}
    ended = vendor.gpurun(*launch, *push, "-y")
    assert ended.code == 0, ended
    repo = vendor.ask("/state")["repos"]["alice/model"]
    assert (repo["private"], repo["files"]["deep dir/model.bin"]) == (True, (vendor.work / "sha256").read_text())
    assert f"commit {repo['head'][:12]}" in ended.out
    kept = b"".join(path.read_bytes() for path in vendor.home.rglob("*") if path.is_file())
    assert vendor.environ["HF_TOKEN"].encode() not in kept
    submit = next(one for one in vendor.ask("/requests")["requests"] if one["operation"] == "submit")["body"]
    assert sorted(submit["secrets"]) == ["HF_TOKEN", "WANDB_API_KEY"]
    assert vendor.environ["HF_TOKEN"] not in json.dumps({**submit, "secrets": None})
