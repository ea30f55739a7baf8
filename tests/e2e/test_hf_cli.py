"""The vendor's own command, `hf`, unmodified, against the simulator: it must take it for the Hub."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HF = str(Path(sys.executable).parent / "hf")
COUNT = "import time\nfor n in range(3000):\n    print(f'line {n}', flush=True)\n    time.sleep(0.1)"
HELLO = '# /// script\n# dependencies = []\n# ///\nprint("hello from uv")\n'


@pytest.fixture
def hf(start_hf, tmp_path):
    """A function that runs the command in a folder with hello.py, and gives its output."""
    bench = start_hf(pace=50, schedule_seconds=10)
    (tmp_path / "hello.py").write_text(HELLO)
    env = {**os.environ, **bench.sim.exports, "HF_HUB_OFFLINE": "0", "NO_COLOR": "1"}

    def run(*args: str) -> str:
        done = subprocess.run(
            [HF, "jobs", *args], env=env, cwd=tmp_path, capture_output=True, text=True, timeout=180, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_the_hf_command_runs_lists_inspects_follows_and_cancels_jobs(hf):
    assert "a10g-small" in hf("hardware")
    assert "hi there" in hf("run", "python:3.12", "python3", "-c", "print('hi there')")
    job_id = hf("run", "-d", "-q", "python:3.12", "python3", "-c", COUNT).split()[-1]
    (told,) = json.loads(hf("inspect", job_id, "--format", "json"))
    assert told["id"] == job_id
    hf("cancel", job_id)
    assert "line 0" in hf("logs", job_id)
    listed = hf("ps", "-a", "--no-truncate")
    assert listed.count("COMPLETED") == listed.count("CANCELED") == 1


def test_the_hf_command_ships_a_script_through_its_bucket_and_runs_it_with_uv(hf):
    assert "hello from uv" in hf("uv", "run", "hello.py")


def test_the_hf_command_schedules_lists_suspends_and_deletes_jobs(hf):
    made = hf("scheduled", "run", "@hourly", "--format", "json", "python:3.12", "python3", "-c", "print('on time')")
    scheduled = json.loads(made)["id"]
    assert "@hourly" in hf("scheduled", "ps")
    assert "on time" in hf("scheduled", "inspect", scheduled, "--format", "json")
    hf("scheduled", "suspend", scheduled)
    assert "@hourly" not in hf("scheduled", "ls")
    hf("scheduled", "resume", scheduled)
    job_id = json.loads(hf("scheduled", "trigger", scheduled, "--format", "json"))["id"]
    assert "on time" in hf("logs", "-f", job_id)
    hf("scheduled", "delete", scheduled)
    assert "@hourly" not in hf("scheduled", "ls", "-a")
