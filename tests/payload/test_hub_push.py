"""hub_push.py: a training of any kind, then its artifacts on the simulated Hub; a push that fails loses nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from contextlib import ExitStack
from hashlib import sha256

import pytest
from harness import PAYLOAD
from hf_ground import hf_running

TRAIN = "import os; os.makedirs('artifacts/deep dir'); open('artifacts/deep dir/model.bin', 'wb').write(b'weights')"
TOKEN = "hf_a_token_made_up_here"  # noqa: S105 - nobody's


@pytest.fixture
def hub():
    with ExitStack() as running:
        yield running.enter_context(hf_running(rate=0.001, pace=1))


def start(folder, hub, train: str, *wish: str, **more: str) -> subprocess.Popen[str]:
    argv = [sys.executable, str(PAYLOAD / "hub_push.py"), *(wish or ("alice/model", "private"))]
    argv += ["--endpoint", hub.url, "--", sys.executable, "-c", train]
    env = {**os.environ, "HF_TOKEN": hub.exports["HF_TOKEN"], "HF_HUB_OFFLINE": "0", **more}
    return subprocess.Popen(
        argv, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, str, dict]:
    out, _ = process.communicate(timeout=60)
    told = [json.loads(line[10:]) for line in out.splitlines() if line.startswith("::metrics ")]
    return process.returncode, out, next((one for one in told if "push_repo" in one), {})


def test_what_a_training_made_is_on_the_hub_private_and_its_commit_is_told(tmp_path, hub):
    code, out, told = ended(start(tmp_path, hub, TRAIN))
    repo = hub.state()["repos"]["alice/model"]
    assert (code, repo["private"]) == (0, True)
    assert told == {"push_repo": "alice/model", "push_private": True, "push_commit": repo["head"], "push_error": ""}
    assert repo["files"]["deep dir/model.bin"] == sha256(b"weights").hexdigest()
    assert hub.exports["HF_TOKEN"] not in out


def test_what_a_user_s_own_script_left_in_its_folder_is_pushed_too(tmp_path, hub):
    own = "import os; os.chdir('code'); os.mkdir('outputs'); open('outputs/plot.svg', 'w').write('<svg/>')"
    (tmp_path / "code").mkdir()
    code, _, told = ended(start(tmp_path, hub, own, "alice/model", "public"))
    repo = hub.state()["repos"]["alice/model"]
    assert (code, told["push_error"], repo["private"]) == (0, "", False)
    assert "outputs/plot.svg" in repo["files"]


@pytest.mark.parametrize(
    ("faults", "more", "words"),
    [
        ({"read_only_token": {"times": None}}, {}, "403"),
        ({}, {"HF_TOKEN": TOKEN}, "401"),
        ({}, {"HF_HUB_OFFLINE": "1"}, "offline"),
        ({"server_error": {"of": "create_repo", "times": None}}, {}, "500"),
    ],
)
def test_a_push_that_fails_is_told_without_the_token_and_the_training_ended_well(tmp_path, hub, faults, more, words):
    if faults:
        hub.faults(faults)
    code, out, told = ended(start(tmp_path, hub, TRAIN, **more))
    assert (code, words in told["push_error"].lower()) == (0, True), out
    assert "push: failed, the artifacts are kept here" in out
    assert (tmp_path / "artifacts" / "deep dir" / "model.bin").read_bytes() == b"weights"
    assert TOKEN not in out
    assert "alice/model" not in hub.state()["repos"]


def test_a_public_repository_gets_nothing_that_was_to_be_private(tmp_path, hub):
    from huggingface_hub import HfApi

    HfApi(endpoint=hub.url, token=hub.exports["HF_TOKEN"]).create_repo("alice/model", private=False)
    code, _, told = ended(start(tmp_path, hub, TRAIN))
    assert (code, "is public" in told["push_error"]) == (0, True)
    assert list(hub.state()["repos"]["alice/model"]["files"]) == [".gitattributes"]


@pytest.mark.parametrize(
    ("train", "code"),
    [
        ("raise SystemExit(3)", 3),
        ("import os; os.kill(os.getpid(), 9)", -9),
        ("import os; os.kill(os.getpid(), 15)", -15),
    ],
)
def test_what_did_not_end_well_is_not_pushed_and_the_end_is_the_training_s_own(tmp_path, hub, train, code):
    assert ended(start(tmp_path, hub, train))[0] == code
    assert hub.state()["repos"] == {}


def test_an_order_to_stop_reaches_the_training_once_and_its_own_exit_code_counts(tmp_path, hub):
    train = (
        "import signal, sys, time\ntold = []\nsignal.signal(signal.SIGTERM, lambda *_: told.append(1))\n"
        "print('ready', flush=True)\nwhile not told: time.sleep(0.01)\ntime.sleep(0.3)\nprint(told)\nsys.exit(5)"
    )
    process = start(tmp_path, hub, train)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    os.killpg(process.pid, 15)
    out, _ = process.communicate(timeout=60)
    assert (process.returncode, out) == (5, "[1]\n")


def test_an_order_to_stop_ends_the_push_and_what_was_trained_counts(tmp_path, hub):
    hub.faults({"slow_reply": {"of": "create_repo", "seconds": 60}})
    process = start(tmp_path, hub, TRAIN)
    until = time.monotonic() + 30
    while not hub.asked("create_repo") and time.monotonic() < until:
        time.sleep(0.05)
    process.terminate()
    code, out, told = ended(process)
    assert (code, "there was no time left" in told["push_error"]) == (0, True), out
