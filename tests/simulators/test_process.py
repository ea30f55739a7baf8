"""`python -m simulators` as a person or a rehearsal starts it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[2]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., tuple[subprocess.Popen[str], dict[str, Any]]]]:
    """Start a simulator whose temporary files lie in `tmp_path`; end what a test left."""
    started = []

    def begin(*options: str, vendor: str = "lambda") -> tuple[subprocess.Popen[str], dict[str, Any]]:
        process = subprocess.Popen(
            [sys.executable, "-m", "simulators", vendor, *options],
            cwd=ROOT,
            env={**os.environ, "TMPDIR": str(tmp_path)},
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process, json.loads(process.stdout.readline())

    yield begin
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_tells_where_it_is_in_one_line_and_leaves_nothing_at_a_signal(start, tmp_path, number) -> None:
    process, told = start("--no-machines", "--pace", "50", "--boot", "30", "--faults", '{"quota": 1}')
    assert told.keys() == {"provider", "url", "control", "exports"}
    assert told["provider"] == "lambda"
    assert told["exports"]["GPURUN_LAMBDA_URL"] == told["url"]
    assert told["exports"]["GPURUN_LAMBDA_PACE"] == "50"
    assert told["exports"]["LAMBDA_API_KEY"].startswith("secret_rehearsal_")
    assert all(isinstance(value, str) for value in told["exports"].values())
    assert int(told["exports"]["GPURUN_LAMBDA_SSH_PORT"]) > 1024
    key = {"Authorization": f"Bearer {told['exports']['LAMBDA_API_KEY']}"}
    assert requests.get(told["url"] + "/regions", headers=key, timeout=10).status_code == 200
    assert list(requests.get(told["control"] + "/faults", timeout=10).json()["armed"]) == ["quota"]
    assert requests.get(told["control"] + "/meter", timeout=10).json()["billing_now"] == 0
    assert list(tmp_path.glob("gpurun-simulator-lambda-*")) != []
    process.send_signal(number)
    assert process.wait(10) == 0
    assert process.stdout.read() == ""
    assert list(tmp_path.glob("gpurun-simulator-lambda-*")) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_no_machine_outlives_it_whichever_way_it_ends(start, number) -> None:
    process, told = start("--boot", "0")
    key = {"Authorization": f"Bearer {told['exports']['LAMBDA_API_KEY']}"}
    requests.post(told["url"] + "/ssh-keys", json={"name": "key"}, headers=key, timeout=10).raise_for_status()
    body = {"region_name": "us-west-1", "instance_type_name": "gpu_1x_a10", "ssh_key_names": ["key"]}
    launched = requests.post(told["url"] + "/instance-operations/launch", json=body, headers=key, timeout=10).json()
    one = launched["data"]["instance_ids"][0]
    assert settles(lambda: running(one) > 1)
    process.send_signal(number)
    process.wait(10)
    assert settles(lambda: running(one) == 0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_no_pod_outlives_it_whichever_way_it_ends(start, tmp_path, number) -> None:
    process, told = start("--boot", "0", vendor="runpod")
    key = {"Authorization": f"Bearer {told['exports']['RUNPOD_API_KEY']}"}
    image = "runpod/pytorch:1.0.2-cu1281-torch280-ubuntu2404"
    body = {"name": "p", "image": image, "gpu": {"id": "NVIDIA L4"}, "cmd": ["bash", "-c", "sleep 87654.3 & wait"]}
    requests.post(told["url"] + "/pods", json=body, headers=key, timeout=10).raise_for_status()
    assert settles(lambda: running("87654.3") > 1)
    process.send_signal(number)
    process.wait(30)
    assert settles(lambda: running("87654.3") == 0)
    if number == signal.SIGTERM:
        assert list(tmp_path.glob("gpurun-simulator-runpod-*")) == []


def running(word: str) -> int:
    """Count the processes with a word in their command line."""
    count = 0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            count += word.encode() in (folder / "cmdline").read_bytes()
        except OSError:
            continue
    return count


def settles(fact: Callable[[], bool], seconds: float = 30) -> bool:
    until = time.monotonic() + seconds
    while not fact() and time.monotonic() < until:
        time.sleep(0.05)
    return fact()


def test_a_seed_alone_draws_faults_and_a_seed_with_faults_does_not(start) -> None:
    _, told = start("--no-machines", "--seed", "7")
    drawn = requests.get(told["control"] + "/faults", timeout=10).json()["armed"]
    assert 1 <= len(drawn) <= 3
    _, told = start("--no-machines", "--seed", "7", "--faults", "[]")
    assert requests.get(told["control"] + "/faults", timeout=10).json()["armed"] == {}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--faults", '{"quoat": 1}'], "did you mean 'quota'"),
        (["--faults", "{"], "--faults"),
        (["--pace", "0"], "pace"),
        (["--boot", "-1"], "boot"),
    ],
)
def test_options_that_make_no_sense_are_refused_before_anything_starts(options: list[str], words: str) -> None:
    command = [sys.executable, "-m", "simulators", "lambda", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_the_faults_are_listed_for_a_person() -> None:
    command = [sys.executable, "-m", "simulators", "lambda", "--list-faults"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=True)
    assert "launch_capacity" in done.stdout
    assert "\n                     " in done.stdout
    assert tempfile.gettempdir() not in done.stderr


def test_what_the_control_does_not_know_is_told(lambda_sim) -> None:
    control = lambda_sim.control
    assert requests.get(control + "/nothing", timeout=10).status_code == 404
    for path, wish in (
        ("/clock", {"faster": 1}),
        ("/clock", {"advance": -1}),
        ("/clock", {"advance": "soon"}),
        ("/clock", {"rate": 0}),
        ("/clock", {"prices": {"gpu_1x_a10": "dear"}}),
        ("/clock", {"capacity": {"gpu_1x_a10": "us-west-1"}}),
        ("/clock", []),
        ("/faults", {"quoat": 1}),
        ("/link", {"instance": None, "do": "burn"}),
        ("/link", {"instance": None, "do": "heal", "times": 1}),
        ("/launch", {"region_name": "us-west-1"}),
    ):
        reply = requests.post(control + path, json=wish, timeout=10)
        assert (reply.status_code, bool(reply.json()["error"])) == (400, True), (path, wish)
    for path, wish in (("/clock", {"prices": {"gpu_9x": "1"}}), ("/link", {"instance": "nope", "do": "cut"})):
        assert requests.post(control + path, json=wish, timeout=10).status_code == 404
    lambda_sim.faults({"quota": 1})
    assert requests.delete(control + "/faults", timeout=10).json()["armed"] == {}


def test_what_a_killed_simulator_left_is_removed_by_the_next_one_and_nothing_else(start, tmp_path) -> None:
    old = time.time() - 3600
    dead, _ = start("--no-machines")
    (left,) = tmp_path.glob("gpurun-simulator-lambda-*")
    dead.kill()
    dead.wait()
    living, _ = start("--no-machines")
    (its,) = set(tmp_path.glob("gpurun-simulator-lambda-*")) - {left}
    (tmp_path / "gpurun-simulator-lambda-linked").symlink_to(ROOT)
    for each in (left, its):
        os.utime(each, (old, old))
    start("--no-machines")
    until = time.monotonic() + 10
    while left.exists() and time.monotonic() < until:
        time.sleep(0.02)
    assert not left.exists()
    assert its.exists()
    assert ROOT.exists()
    assert living.poll() is None
