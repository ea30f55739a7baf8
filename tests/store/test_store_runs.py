"""Runs with a store, from launch to another home: real processes, a real S3 server."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from folders import sha, until

STEPS = 800
ROOT = Path(__file__).parents[2]
LOOP = """\
name: looped
training:
  method: loop
  rows: 64
  layers: [4, 8, 2]
  epochs: 1000
  max_steps: {steps}
  batch_size: 8
  checkpoint_every_steps: 40
  log_every_steps: 50
"""


class Person:
    """Somebody at a computer with a home."""

    def __init__(self, home: Path, folder: Path) -> None:
        self.home, self.folder = home, folder
        folder.mkdir(exist_ok=True)

    def gpurun(self, *words: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "orchestrator.cli", *words]
        env = {**os.environ, "GPURUN_HOME": str(self.home), "PYTHONPATH": str(ROOT)}
        return subprocess.run(
            argv,
            env=env,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
            stdin=subprocess.DEVNULL,
        )

    def run_folder(self) -> Path:
        return next((self.home / "runs").iterdir())


@pytest.fixture
def person(home, tmp_path) -> Person:
    return Person(home, tmp_path / "work")


def test_a_run_leaves_everything_in_its_store_and_a_new_home_knows_it_again_from_there(
    person, bucket, tmp_path
) -> None:
    (person.folder / "loop.yaml").write_text(LOOP.format(steps=12))
    where = ["--store", bucket.address, "--s3-endpoint", bucket.endpoint]
    done = person.gpurun("launch", "loop.yaml", *where, "-y")
    assert done.returncode == 0, done.stderr
    assert bucket.address in done.stderr
    run_id = person.run_folder().name
    at = f"under/here/runs/{run_id}"
    result = json.loads(bucket.read(f"{at}/1/result.json"))
    assert result["reason"] == "completed"
    for entry in result["artifacts"]:
        assert sha(bucket.read(f"{at}/1/{entry['name']}")) == entry["sha256"]
        assert sha((person.run_folder() / entry["name"]).read_bytes()) == entry["sha256"]
    assert f"{at}/run.json" in bucket.names()
    until(lambda: not [name for name in bucket.names() if "/parts/" in name], "the end of parts that no seal names")

    shutil.rmtree(person.home)
    later = Person(tmp_path / "new-home", tmp_path / "work")
    listed = later.gpurun("store", "ls", bucket.address, "--s3-endpoint", bucket.endpoint, "--json")
    assert [(one["run_id"], one["whole"]) for one in json.loads(listed.stdout)] == [(run_id, True)]
    adopted = later.gpurun("adopt", "--store", bucket.address, "--s3-endpoint", bucket.endpoint)
    assert adopted.returncode == 0, adopted.stderr
    shown = " ".join(later.gpurun("show", run_id).stdout.split())
    assert "succeeded" in shown
    assert f"billing adopted from {bucket.address}: it ran on a computer of yours, which costs nothing" in shown
    assert "nothing bills any more" not in shown  # this home never saw its meter
    assert "::metrics" in (later.run_folder() / "log.txt").read_text()
    shutil.rmtree(later.run_folder() / "artifacts")
    pulled = later.gpurun("pull", run_id, "--to", "model")
    assert pulled.returncode == 0, pulled.stderr
    for entry in result["artifacts"]:
        assert sha((later.folder / "model" / Path(*Path(entry["name"]).parts[1:])).read_bytes()) == entry["sha256"]
    removed = later.gpurun("store", "rm", run_id, "--store", bucket.address, "--s3-endpoint", bucket.endpoint, "-y")
    assert removed.returncode == 0, removed.stderr
    assert bucket.names() == []


def weights(folder: Path) -> dict[str, str]:
    found = {path.name: sha(path.read_bytes()) for path in (folder / "artifacts").rglob("*.safetensors")}
    assert found
    return found


def signal_machine(home: Path, number: int, word: str = "") -> None:
    """Signal every process of a local machine, or those that have this word on their command line."""
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words, command = (path / "environ").read_bytes().split(b"\0"), (path / "cmdline").read_bytes()
        except OSError:
            continue
        ours = f"GPURUN_HOME={home}".encode() in words and any(one.startswith(b"GPURUN_MARK=") for one in words)
        if ours and word.encode() in command:
            os.kill(int(path.name), number)


def kill_machine(home: Path) -> None:
    """Kill all of a local machine at once, as a power cut does, and take its disk away."""
    for _ in range(3):
        signal_machine(home, signal.SIGKILL)
    for folder in home.glob("runs/*/attempts/*"):
        shutil.rmtree(folder)


def undisturbed(run: Path, folder: Path) -> Path:
    """Train the same in one go, with nobody around."""
    folder.mkdir()
    shutil.copy(run / "config.json", folder)
    script = ROOT / "payload" / "train_loop.py"
    subprocess.run([sys.executable, script, "config.json"], cwd=folder, check=True, capture_output=True, timeout=240)
    return folder


def test_a_run_whose_machine_and_home_lost_everything_goes_on_from_its_store_bit_by_bit(
    person, bucket, tmp_path
) -> None:
    (person.folder / "loop.yaml").write_text(LOOP.format(steps=STEPS))
    where = ["--store", bucket.address, "--s3-endpoint", bucket.endpoint]
    started = person.gpurun("launch", "loop.yaml", *where, "--max-attempts", "1", "--detach", "-y")
    assert started.returncode == 0, started.stderr
    run_id = person.run_folder().name
    seal = f"under/here/runs/{run_id}/1/CHECKPOINT.json"
    until(lambda: list(person.home.glob("runs/*/attempts/*/checkpoints/step-*/CHECKPOINT.json")), "a checkpoint")
    signal_machine(person.home, signal.SIGSTOP, "train_loop")
    until(lambda: seal in bucket.names(), "a checkpoint in the store")
    kill_machine(person.home)
    assert person.gpurun("wait").returncode == 1
    step = json.loads(bucket.read(seal))["checkpoints"][0]["step"]
    assert step < STEPS
    shutil.rmtree(person.run_folder() / "checkpoints", ignore_errors=True)

    resumed = person.gpurun("resume", run_id, "--provider", "local", "-y")
    assert resumed.returncode == 0, resumed.stderr
    assert "attempt 2, from step" in resumed.stderr
    assert weights(person.run_folder()) == weights(undisturbed(person.run_folder(), tmp_path / "plain"))
    log = (person.run_folder() / "log.txt").read_text()
    assert f"carrying on from step-{step}" in log
