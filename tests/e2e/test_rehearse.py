"""A rehearsal as a person goes through it: rent, log in, leave something running, adopt, and what is left of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import psutil
import pytest

if TYPE_CHECKING:
    from pathlib import Path

GPURUN = [sys.executable, "-m", "orchestrator.cli"]
QUICK = ["--boot", "20", "--pace", "10"]


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """A person's environment, with real keys in it and `gpurun` on the PATH."""
    (tmp_path / "bin").mkdir()
    script = tmp_path / "bin" / "gpurun"
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -m orchestrator.cli "$@"\n')
    script.chmod(0o755)
    path = os.pathsep.join(filter(None, sys.path))
    keys = {"LAMBDA_API_KEY": "secret_real_0123456789abcdef", "HF_TOKEN": "hf_real_0123456789abcdef"}
    return {**os.environ, **keys, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "PYTHONPATH": path}


def rehearse(
    environ: dict[str, str], line: str, *options: str, provider: str = "lambda"
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*GPURUN, "rehearse", provider, *QUICK, *options, "--", line],
        capture_output=True, text=True, timeout=240, check=False, env=environ,
    )  # fmt: skip


def left_over(folder: Path) -> list[str]:
    """Name what still runs of a rehearsal whose home is `folder`: controllers, simulator, machines."""
    found = []
    for process in psutil.process_iter():
        try:
            words = process.cmdline()
            if process.environ().get("GPURUN_HOME") == str(folder) or str(folder) in " ".join(words):
                found.append(" ".join(words)[:200])
        except psutil.Error:
            continue
    return found


def test_a_machine_is_rented_logged_in_to_and_ended_and_the_vendor_agrees(environ: dict[str, str]) -> None:
    line = """
        set -e
        gpurun doctor --json > $GPURUN_HOME/doctor.json
        gpurun rent --provider lambda --gpu a10 --hours 1 -y --accept-risk --detach
        until gpurun ssh -- true 2>/dev/null; do sleep 0.5; done
        gpurun ssh -- 'echo here: $(whoami); exit 7' || echo code $?
        gpurun stop -y > $GPURUN_HOME/end.txt || echo stop $?
        gpurun ps --json
        grep -h '"provider lambda"' -A2 $GPURUN_HOME/doctor.json >&2
        cat $GPURUN_HOME/end.txt >&2
        curl -s $CONTROL/meter >&2; echo >&2
    """
    done = rehearse(environ, line)
    assert done.returncode == 0, done.stderr
    here, code, listed = done.stdout.split("\n", 2)
    assert here.startswith("here: ")
    assert code == "code 7"
    (run,) = json.loads(listed)
    assert (run["provider"], run["state"], run["reason"]) == ("lambda", "done", "stopped")
    assert "the key opens the account" in done.stderr
    assert "nothing bills any more: " in done.stderr
    meter = json.loads(next(text for text in done.stderr.splitlines() if text.startswith('{"at"')))
    assert (meter["billing_now"], len(meter["allocations"])) == (0, 1)
    assert run["accrued_low_usd"] <= float(meter["usd"]) <= run["accrued_usd"]
    assert "the rehearsal's meter: nothing bills any more" in done.stderr


def test_a_pod_is_rented_restarted_found_again_and_ended_and_the_vendor_agrees(environ: dict[str, str]) -> None:
    line = """
        set -e
        gpurun rent --provider runpod --gpu 3090 --hours 1 -y --accept-risk --detach
        until gpurun ssh -- 'echo kept > note' 2>/dev/null; do sleep 0.5; done
        curl -sf $CONTROL/faults -d '{"container_restart": {"instance": "*", "after": 0}}' >/dev/null
        until curl -s $CONTROL/state | grep -q '"restarts": 1'; do sleep 0.2; done
        until gpurun ssh -- cat note 2>/dev/null; do sleep 0.5; done
        gpurun stop -y >/dev/null || echo stop $?
        gpurun ps --json
        curl -s $CONTROL/meter >&2; echo >&2
    """
    done = rehearse(environ, line, provider="runpod")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("kept\n")
    (run,) = json.loads(done.stdout[done.stdout.index("[") :])
    assert (run["provider"], run["state"], run["reason"]) == ("runpod", "done", "stopped")
    meter = json.loads(next(text for text in done.stderr.splitlines() if text.startswith('{"at"')))
    assert (meter["billing_now"], len(meter["allocations"])) == (0, 1)
    assert run["accrued_low_usd"] <= float(meter["usd"]) <= run["accrued_usd"]


def test_what_is_left_running_is_told_and_ended_with_the_rehearsal(environ: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "rehearsal"
    line = """
        gpurun rent --provider lambda --gpu a10 --hours 1 -y --accept-risk --detach
        until gpurun ssh -- true; do sleep 1; done
    """
    done = rehearse(environ, line, "--home", str(folder))
    assert done.returncode == 0
    assert "1 STILL BILLS at $1.29/h" in done.stderr
    assert "gpurun-" in done.stderr.split("STILL BILLS")[1]
    assert f"kept: {folder}" in done.stderr
    assert left_over(folder) == []
    assert (folder / "ledger.sqlite").exists()


def test_an_instance_started_by_hand_is_adopted_and_ended(environ: dict[str, str]) -> None:
    line = """
        set -e
        curl -sf $GPURUN_LAMBDA_URL/ssh-keys -H "Authorization: Bearer $LAMBDA_API_KEY" -d '{"name": "mine"}' >/dev/null
        curl -sf $CONTROL/launch -d '{"region_name": "us-east-1", "instance_type_name": "gpu_1x_a10",
            "ssh_key_names": ["mine"], "name": "my-box"}' >/dev/null
        until curl -s $CONTROL/state | grep -q '"active"'; do sleep 0.5; done
        gpurun adopt my-box --hours 3 -y
        gpurun ssh || true
        gpurun stop -y >/dev/null || true
        gpurun ps
    """
    done = rehearse(environ, line)
    assert done.returncode == 0, done.stderr
    assert "at most $3.96 from now on" in done.stderr
    assert "gpurun will end it at " in done.stderr
    assert "was started by hand: gpurun has no key to it" in done.stderr
    assert "stopped" in done.stdout
    assert "the rehearsal's meter: nothing bills any more" in done.stderr


def test_a_wrong_key_is_bad_and_a_missing_one_only_a_note(environ: dict[str, str]) -> None:
    line = "LAMBDA_API_KEY=secret_wrong_0123456789 gpurun doctor --json; LAMBDA_API_KEY= gpurun doctor --json >&2"
    done = rehearse(environ, line)

    def vendor(text: str) -> dict[str, str]:
        text = text[text.index("[") : text.rindex("]") + 1]
        return next(check for check in json.loads(text) if check["name"] == "provider lambda")

    assert vendor(done.stdout)["verdict"] == "bad"
    assert vendor(done.stderr)["verdict"] == "note"
    assert "LAMBDA_API_KEY" in vendor(done.stderr)["text"] + vendor(done.stderr)["next"]
    assert "0123456789" not in done.stdout + done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_rehearsal_that_is_ended_leaves_no_vendor_behind(
    environ: dict[str, str], tmp_path: Path, number: signal.Signals
) -> None:
    folder = tmp_path / "rehearsal"
    line = "echo $CONTROL; exec sleep 60"
    with subprocess.Popen(
        [*GPURUN, "rehearse", *QUICK, "--home", str(folder), "--", line], stdout=subprocess.PIPE, text=True, env=environ
    ) as process:
        assert process.stdout is not None
        control = process.stdout.readline().strip()
        vendor = next(
            child for child in psutil.Process(process.pid).children() if "simulators" in " ".join(child.cmdline())
        )
        process.send_signal(number)
        process.wait(30)
        gone, _ = psutil.wait_procs([vendor], timeout=30)
        assert gone, f"{control} still answers"
        if number is signal.SIGTERM:
            assert (process.returncode, left_over(folder)) == (143, [])
    until = time.monotonic() + 30
    while left_over(folder) and time.monotonic() < until:  # after a kill -9 its survivor ends the rest
        time.sleep(0.1)
    assert left_over(folder) == []
