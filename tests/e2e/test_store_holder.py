"""Training ends at night and the laptop is gone: what is in the store is enough, and nothing bills for waiting."""

from __future__ import annotations

import json
import os
import subprocess
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
from seaweed import SECRET
from test_machine_holder import GPURUN, Desk, command_lines, desk, holding, job_folder, wait_for

if TYPE_CHECKING:
    import pytest
    from seaweed import Bucket

__all__ = ["desk"]  # a fixture
OF_THE_HUB = "hf_of_this_computer_alone"


def environments(mark: str) -> list[bytes]:
    """What the processes of a job on its machine have in their environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            found.append(path.read_bytes())
        except OSError:
            continue
    return [each for each in found if f"GPURUN_MARK={mark}".encode() in each.split(b"\0")]


def test_with_the_laptop_gone_everything_is_in_the_store_and_the_machine_ends_itself_at_once(
    desk: Desk,
    bucket: Bucket,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_TOKEN", OF_THE_HUB)
    where = ["--store", bucket.address, "--s3-endpoint", bucket.endpoint]
    desk.launch(1.0, "--key-on-machine", *where)
    wait_for((desk.work / "begun").exists, "the training")
    folder = job_folder(desk)
    wait_for(lambda: desk.holder().get("proof") == "proven", "a proof")
    run_id = desk.shown()["run_id"]
    key, secret, root = desk.sim.key.encode(), SECRET.encode(), folder.parents[3]
    wait_for((folder / "store.json").exists, "its leave to write")
    assert (folder / "store.json").stat().st_mode & 0o077 == 0
    assert [path.name for path in holding(key, root)] == ["ender.json"]
    assert holding(secret, root) == []
    assert holding(OF_THE_HUB.encode(), root) == []
    held = environments(desk.meter()["name"])
    assert len(held) >= 3  # watchdog, agent, training
    assert not [each for each in held if key in each or secret in each or OF_THE_HUB.encode() in each]

    psutil.Process(wait_for(desk.controller, "a controller")).kill()
    desk.home.rename(desk.home.with_name("gone"))
    (desk.work / "go").touch()
    seen = command_lines()
    wait_for(lambda: desk.meter()["ended"] is not None, "the end of the bill")
    row = desk.meter()
    assert row["ended_by"] == "terminate"
    assert datetime.fromisoformat(row["ended"]) < datetime.now(UTC)  # an hour was left
    assert (key in seen, secret in seen, OF_THE_HUB.encode() in seen) == (False, False, False)
    result = json.loads(bucket.read(f"under/here/runs/{run_id}/1/result.json"))
    assert result["reason"] == "completed"

    env = {**os.environ, **desk.sim.exports, "GPURUN_HOME": str(tmp_path / "new")}
    for words in (["adopt", "--store", bucket.address, "--s3-endpoint", bucket.endpoint], ["pull", "--to", "model"]):
        done = subprocess.run([*GPURUN, *words], capture_output=True, text=True, env=env, cwd=tmp_path, check=False)
        assert done.returncode == 0, done.stderr
    pulled = [path for path in (tmp_path / "model").rglob("*") if path.is_file()]
    sums = {path.relative_to(tmp_path / "model").as_posix(): sha256(path.read_bytes()).hexdigest() for path in pulled}
    assert sums == {one["name"].removeprefix("artifacts/"): one["sha256"] for one in result["artifacts"]}
    assert sums == {"model.bin": sha256(b"weights").hexdigest()}
    wait_for(lambda: not root.exists(), "the end of the machine")


def test_a_computer_that_is_awake_ends_the_machine_and_brings_the_files_from_the_store_after_it(
    desk: Desk, bucket: Bucket
) -> None:
    desk.launch(1.0, "--accept-risk", "--store", bucket.address, "--s3-endpoint", bucket.endpoint)
    wait_for((desk.work / "begun").exists, "the training")
    (desk.work / "go").touch()
    done = desk.gpurun("wait", "--json")
    assert done.returncode == 0, done.stderr
    assert desk.meter()["ended_by"] == "terminate"
    folder = next((desk.home / "runs").iterdir())
    assert (folder / "artifacts" / "model.bin").read_bytes() == b"weights"
    assert b'"step": 3' in (folder / "log.txt").read_bytes()
    assert json.loads((folder / "result.json").read_bytes())["reason"] == "completed"
    assert json.loads(bucket.read(f"under/here/runs/{folder.name}/1/result.json"))["reason"] == "completed"
