"""Runs with a store, from launch to another home: real processes, a real S3 server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from folders import sha, until

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
  checkpoint_every_steps: 5
  log_every_steps: 1
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


def test_a_run_leaves_everything_in_its_store_and_another_home_brings_it_from_there(person, bucket, tmp_path) -> None:
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
