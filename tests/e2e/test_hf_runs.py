"""A job at Hugging Face from the first command to the vendor's own meter, with the simulator's exports alone.
What is looked at is what a stranger could see: the commands' output, the home, the vendor's meter, jobs and files.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from decimal import Decimal
from hashlib import sha256
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import requests

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

GPURUN = [sys.executable, "-m", "orchestrator.cli"]
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
    print("a line with \\u00e9 and \\x1b[31mcolour", flush=True)
    print("::metrics " + json.dumps({"stage": "train", "step": step, "total_steps": 1000}), flush=True)
    time.sleep(0.05)
data = random.Random(7).randbytes(2_000_000)
(folder / "model.bin").write_bytes(data)
(folder / "card.txt").write_text(hashlib.sha256(os.environ["WANDB_API_KEY"].encode()).hexdigest())
(kept / "sha256").write_text(hashlib.sha256(data).hexdigest())
"""


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


@dataclass
class Vendor:
    """The simulator, a folder to work in, and a person who has both."""

    control: str
    exports: dict[str, str]
    work: Path
    home: Path

    def gpurun(self, *args: str) -> Ended:
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            code = self.start(*args, out=out, err=err).wait(120)
            texts = []
            for file in (out, err):
                file.seek(0)
                texts.append(file.read().decode(errors="replace"))
        return Ended(code, *texts)

    def start(
        self, *args: str, out: Any = subprocess.DEVNULL, err: Any = subprocess.DEVNULL
    ) -> subprocess.Popen[bytes]:
        paths = os.pathsep.join(filter(None, sys.path))
        env = {**os.environ, **self.exports, "PYTHONPATH": paths, "WANDB_API_KEY": SECRET, "HF_HUB_OFFLINE": "0"}
        return subprocess.Popen([*GPURUN, *args], cwd=self.work, stdout=out, stderr=err, env=env)

    def ask(self, path: str) -> dict[str, Any]:
        return requests.get(self.control + path, timeout=30).json()

    def tell(self, path: str, wish: object) -> None:
        requests.post(self.control + path, json=wish, timeout=30).raise_for_status()

    def shown(self) -> dict[str, Any]:
        return json.loads(self.gpurun("show", "--json").out)

    def running(self, *, steps: int = 5) -> Path:
        """Wait until the run has come that far; gives its folder."""
        folder = wait_for(lambda: next(self.home.glob("runs/*/metrics.jsonl"), None), "a training").parent
        wait_for(lambda: (folder / "metrics.jsonl").read_text().count('"step"') > steps, f"{steps} steps")
        return folder

    def holder(self) -> int:
        """The process that holds the run."""
        with sqlite3.connect(self.home / "ledger.sqlite") as db:
            name = db.execute("SELECT lease_holder FROM runs").fetchone()[0]
        db.close()
        return int(name.split(":")[1]) if name else 0


def wait_for(look: Callable[[], Any], what: str, seconds: float = 90.0) -> Any:
    until = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < until, f"{what} never came"
        time.sleep(0.05)
    return found


@pytest.fixture
def vendor(tmp_path: Path, home: Path) -> Iterator[Vendor]:
    """A vendor that, at the end, bills nothing and keeps no file of a run that is over."""
    work = tmp_path / "work"
    work.mkdir()
    (work / "mine.py").write_text(SCRIPT)
    command = json.dumps(["{python}", "code/mine.py", str(work)])
    (work / "mine.yaml").write_text(
        f"name: mine\ntraining: {{method: script, code: mine.py, command: {command}}}\n"
        "limits: {max_hours: 0.2}\nsecrets: [WANDB_API_KEY]\n"
    )
    argv = [sys.executable, "-m", "simulators", "hf", "--boot", "10", "--pace", "40", "--with-stdin"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        vendor = Vendor(told["control"], told["exports"], work, home)
        try:
            yield vendor
            meter, state = vendor.ask("/meter"), vendor.ask("/state")
        finally:
            process.terminate()
            process.wait(30)
    assert meter["billing_now"] == 0
    assert state["troubles"] == []


def test_a_run_goes_from_one_command_to_files_at_home_with_nothing_billing_and_no_secret_anywhere(vendor):
    (vendor.work / "go").touch()
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
    assert low <= Decimal(row["usd"]) + Decimal("0.000005")  # the vendor's meter tells six places
    assert Decimal(row["usd"]) <= high + Decimal("0.000005")
    # Where the vendor shows it: labels, command, environment; where it lies here: ledger, log, bundle, everything.
    submit = next(one for one in vendor.ask("/requests")["requests"] if one["operation"] == "submit")["body"]
    open_parts = json.dumps({key: value for key, value in submit.items() if key != "secrets"})
    kept = b"".join(path.read_bytes() for path in vendor.home.rglob("*") if path.is_file())
    for secret in (SECRET, vendor.exports["HF_TOKEN"]):
        assert secret not in open_parts + ended.out + ended.err
        assert secret.encode() not in kept
    assert vendor.ask("/state")["buckets"]["alice/gpurun"] == []


def test_a_submit_whose_answer_was_lost_made_exactly_one_job_and_the_run_goes_on_with_it(vendor):
    (vendor.work / "go").touch()
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
    launched = vendor.start("launch", "mine.yaml", "--provider", "hf", "--gpu", "cpu", "-y", "--detach")
    assert launched.wait(60) == 0
    folder = vendor.running()
    assert vendor.gpurun("stop", folder.name).code == 0
    assert vendor.gpurun("wait", folder.name).code == 6
    assert vendor.shown()["reason"] == "stopped"
    assert (folder / "artifacts" / "deep dir" / "saved").read_text() == "saved"


def test_with_the_laptop_gone_the_job_ends_by_the_hub_s_limit_and_a_later_resume_brings_it_home(vendor):
    assert vendor.start("launch", "mine.yaml", "--provider", "hf", "--gpu", "cpu", "-y", "--detach").wait(60) == 0
    folder = vendor.running()
    os.kill(vendor.holder(), signal.SIGKILL)
    (vendor.work / "go").touch()
    jobs = lambda: vendor.ask("/state")["jobs"]  # noqa: E731 - asked again and again
    wait_for(lambda: jobs()[0]["stage"] == "COMPLETED", "its own end")
    assert vendor.ask("/meter")["billing_now"] == 0
    assert vendor.gpurun("resume", folder.name).code == 0
    model = (folder / "artifacts" / "deep dir" / "model.bin").read_bytes()
    assert sha256(model).hexdigest() == (vendor.work / "sha256").read_text()
    assert vendor.shown()["reason"] == "completed"
