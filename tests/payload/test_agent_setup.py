"""The agent's first stage: what makes the environment, held to the same limits and orders as the training."""

from __future__ import annotations

import json
import os
import signal

import pytest
from boxes import until

# Leaves a python of its own that tells who it is, as setup.sh does; every run of it leaves a line.
MAKES = """
echo once more >>runs
mkdir -p env/bin
printf '#!/bin/bash\\nexport FROM_ENV=yes\\nexec %q "$@"\\n' "$0" >env/bin/python
chmod 755 env/bin/python
"""
WAITS = "echo begun; : >begun; sleep 99 & wait"


def setup(script: str, token: str = "") -> list[str]:
    return ["bash", "-c", script, "{python}", token]


def begun(each) -> None:
    until((each.folder / "begun").exists, "the setup")


def test_after_its_setup_a_command_runs_with_the_python_that_was_made(box):
    each = box(setup=setup(MAKES)).go("import os; print(os.environ['FROM_ENV'], os.environ['PATH'].split(':')[0])")
    assert each.result()["reason"] == "completed"
    assert each.log().splitlines()[-1] == f"yes {each.folder}/env/bin"


def test_a_setup_that_leaves_no_python_leaves_the_agents_own(box):
    each = box(setup=["true"]).go("import os; print(os.environ.get('FROM_ENV'))")
    assert each.result()["reason"] == "completed"
    assert each.log().splitlines()[-1] == "None"


def test_the_setups_output_and_stage_stand_in_the_log_and_its_stage_is_not_the_trainings(box):
    each = box(setup=setup("echo installing; echo words >&2")).go("print('trained')")
    result = each.result()
    assert each.log().splitlines() == [
        '::metrics {"stage": "setup"}',
        "installing",
        "words",
        "setup: done in 0 s",
        "trained",
    ]
    assert [json.loads(line) for line in (each.folder / "metrics.jsonl").read_text().splitlines()] == [
        {"stage": "setup"}
    ]
    assert result["metrics"] == {}


def test_while_it_runs_the_heartbeat_says_setup(box):
    each = box(setup=setup(WAITS)).go("print('trained')")
    until(lambda: each.read("status.json").get("stage") == "setup", "the stage")
    each.put("order.json", {"id": 1, "kind": "stop"})
    each.result()


def test_a_broken_machine_is_lost_with_the_setups_last_words(box):
    script = 'echo installing; echo "Traceback (most recent call last):"; echo "OSError: 5"; echo; '
    script += 'echo "CUDA error 802: system not yet initialized" >&2; exit 10'
    result = box(setup=setup(script)).go("print('trained')").result()
    assert (result["reason"], result["exit_code"]) == ("lost", 10)
    assert result["detail"] == "CUDA error 802: system not yet initialized"


@pytest.mark.parametrize(
    ("script", "code", "detail"),
    [
        ("echo setup: no torch can be had; exit 1", 1, "setup: no torch can be had"),
        ("echo no room left >&2; exit 4", 4, "setup: no room left"),
        ("exit 5", 5, "setup: left with exit code 5"),
        ("kill -KILL $$", 137, "setup: killed by signal 9"),
    ],
)
def test_any_other_end_of_a_setup_is_a_failure_that_names_it(box, script, code, detail):
    each = box(setup=setup(script)).go("print('trained')")
    result = each.result()
    assert (result["reason"], result["exit_code"], result["detail"]) == ("failed", code, detail)
    assert "trained" not in each.log()


def test_a_setup_that_is_not_there_is_a_failure_with_its_name(box):
    result = box(setup=["no-such-setup"]).go("print('trained')").result()
    assert (result["reason"], result["exit_code"]) == ("failed", 127)
    assert "no-such-setup" in result["detail"]


def test_a_setup_gets_no_secrets_and_is_told_the_gpus(box):
    each = box(setup=setup("echo ${KEY-none} $GPURUN_GPUS"), gpus=2)
    each.put("secrets.json", {"KEY": "hunter2"})
    each.go("import os; print(os.environ['KEY'][::-1])")
    assert each.result()["reason"] == "completed"
    assert [line for line in each.log().splitlines() if "setup" not in line] == ["none 2", "2retnuh"]


# ── limits and orders ─────────────────────────────────────────────────────────────────────────────────────────────


def test_a_setup_ends_with_an_order_to_stop(box):
    each = box(setup=setup(WAITS)).go("print('trained')")
    begun(each)
    each.put("order.json", {"id": 1, "kind": "stop"})
    result = each.result()
    assert (result["reason"], result["exit_code"]) == ("stopped", 143)
    assert result["detail"].startswith("while the environment was made")
    assert "trained" not in each.log()


def test_sigterm_to_the_agent_during_its_setup_is_an_order_to_stop(box):
    each = box(setup=setup(WAITS)).go("print('trained')")
    begun(each)
    os.kill(each.agent(), signal.SIGTERM)
    assert each.result()["reason"] == "stopped"


def test_a_stop_that_a_setup_does_not_hear_of_still_keeps_the_training_from_starting(box):
    each = box(setup=setup("trap '' TERM; : >begun; until [ -e go ]; do sleep 0.1; done")).go("print('trained')")
    begun(each)
    each.put("order.json", {"id": 1, "kind": "stop"})
    until(lambda: each.read("status.json").get("order") == 1, "the order")
    (each.folder / "go").touch()
    result = each.result()
    assert (result["reason"], result["exit_code"], "trained" in each.log()) == ("stopped", 0, False)


def test_before_the_deadline_a_setup_is_ended(box):
    each = box(setup=setup(WAITS), deadline=3, grace_seconds=2).go("print('trained')")
    result = each.result()
    assert (result["reason"], result["ended"] < each.limits["deadline"]) == ("deadline", True)


def test_a_setup_that_says_nothing_is_hung(box):
    result = box(setup=setup(WAITS), max_idle_seconds=0.7, grace_seconds=0.5).go("print('trained')").result()
    assert (result["reason"], result["detail"]) == ("hung", "while the environment was made: begun")


def test_a_setup_that_says_something_now_and_then_is_not_hung(box):
    script = "for i in 1 2 3 4 5 6; do echo $i; sleep 0.3; done"
    assert box(setup=setup(script), max_idle_seconds=0.9).go("print('trained')").result()["reason"] == "completed"


def test_with_an_agent_killed_during_its_setup_everything_ends(box):
    each = box()
    each.job["setup"] = setup(WAITS, each.token)
    each.go("print('trained')")
    begun(each)
    os.kill(each.agent(), signal.SIGKILL)
    assert "the agent is gone without a result" in each.story()
    each.silence()
    assert "trained" not in each.log()


# ── once ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_training_that_is_started_again_is_not_set_up_again(box):
    code = "import os, signal\nif not os.path.exists('died'):\n open('died', 'w').close(); os.kill(os.getpid(), 9)"
    each = box(setup=setup(MAKES)).go(code)
    result = each.result()
    assert (result["reason"], result["restarts"]) == ("completed", 1)
    assert (each.folder / "runs").read_text() == "once more\n"


def test_what_a_setup_leaves_running_is_ended_before_the_training_starts(box):
    each = box(setup=setup("setsid sleep 99 & echo $! >left; sleep 0.1"))
    each.go("import os; print('alive:', os.path.exists('/proc/' + open('left').read().strip()))")
    assert each.result()["reason"] == "completed"
    assert each.log().splitlines()[-1] == "alive: False"
