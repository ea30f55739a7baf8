"""A user's own script under the agent: it keeps none of the rules of our trainings, and loses nothing for it."""

from __future__ import annotations

import json
import shutil

import pytest
from boxes import PAYLOAD, until

WAITS = "time.sleep(60)"
SAVES = """
def save(*_):
    print("saving", flush=True)
    os.makedirs("outputs/last")
    open("outputs/last/weights", "w").write("saved")
    sys.exit(0)
signal.signal(signal.SIGTERM, save)
"""


@pytest.fixture
def own(box):
    """Start a box whose training is a script: `own(code, limits…)`."""

    def start(code: str, *arguments: str, **limits):
        each = box(**limits)
        shutil.copy(PAYLOAD / "own_script.py", each.folder / "payload")
        (each.folder / "code").mkdir()
        (each.folder / "code" / "-my script.py").write_text(f"import os, signal, sys, time\n{code}")
        config = {"method": "script", "script": "-my script.py", "arguments": [*arguments, each.token]}
        each.put("config.json", config)
        return each.go_argv("{python}", "payload/own_script.py", "config.json")

    return start


def artifacts(each) -> dict[str, str]:
    """What the result names, with what is in it."""
    listed = [one["name"] for one in each.result()["artifacts"]]
    return {name: (each.folder / name).read_text() for name in listed}


def test_it_runs_in_its_own_folder_with_its_arguments_and_what_it_leaves_there_is_the_jobs(own):
    code = "print(sys.argv[1:-1], os.path.basename(os.getcwd()))\n"
    code += "os.mkdir('artifacts'); open('artifacts/a', 'w').write('1')\n"
    code += "os.makedirs('outputs/deep'); open('outputs/deep/b', 'w').write('2'); open('elsewhere', 'w').write('3')"
    each = own(code, "--rate", "1e-4 ; echo", "")
    assert artifacts(each) == {"artifacts/a": "1", "artifacts/outputs/deep/b": "2"}
    assert each.log().splitlines() == ["['--rate', '1e-4 ; echo', ''] code"]
    assert each.read("result.json")["reason"] == "completed"


def test_what_a_script_that_failed_has_left_comes_home(own):
    each = own("os.mkdir('outputs'); open('outputs/x', 'w').write('1'); raise ValueError('row 7')")
    assert artifacts(each) == {"artifacts/outputs/x": "1"}
    assert (each.read("result.json")["reason"], each.read("result.json")["detail"]) == ("failed", "ValueError: row 7")


def stop(each, ready: str) -> None:
    """Order it to stop, once it has come so far."""
    until((each.folder / "code" / ready).exists, ready)
    each.put("order.json", {"id": 1, "kind": "stop"})


def test_told_to_stop_it_may_save_and_is_not_called_done_though_it_leaves_with_0(own):
    each = own(f"{SAVES}open('ready', 'w').close(); {WAITS}", grace_seconds=20)
    stop(each, "ready")
    assert artifacts(each) == {"artifacts/outputs/last/weights": "saved"}
    assert (each.read("result.json")["reason"], each.read("result.json")["exit_code"]) == ("stopped", 0)


def test_one_that_does_not_listen_is_killed_and_what_it_saved_before_comes_home(own):
    code = "signal.signal(signal.SIGTERM, signal.SIG_IGN); os.makedirs('outputs/checkpoint-1')\n"
    code += "open('outputs/checkpoint-1/x', 'w').write('1'); open('ready', 'w').close()\n"
    each = own(f"{code}{WAITS}", grace_seconds=0.5)
    stop(each, "ready")
    assert artifacts(each) == {"artifacts/outputs/checkpoint-1/x": "1"}
    assert (each.read("result.json")["reason"], each.read("result.json")["exit_code"]) == ("stopped", 137)


@pytest.mark.parametrize("code", [1, 2, 3, 5, 10])
def test_whatever_code_it_leaves_with_means_that_it_failed(own, code):
    result = own(f"print('last words'); sys.exit({code})").result()
    assert (result["reason"], result["exit_code"], result["detail"]) == ("failed", code, "last words")


def test_one_that_was_killed_is_not_started_again(own):
    each = own("print('::metrics {\"step\": 1}', flush=True); os.kill(os.getpid(), signal.SIGKILL)")
    assert (each.result()["reason"], each.read("result.json")["restarts"]) == ("failed", 0)
    assert each.log().count("step") == 1 + each.log().count("at step")


def test_one_that_only_talks_is_not_hung(own):
    each = own("for i in range(14): print(i, end='', flush=True); time.sleep(0.25)", max_idle_seconds=2.5)
    assert each.result()["reason"] == "completed"


def test_one_that_says_nothing_is(own):
    result = own(f"print('begun', flush=True); {WAITS}", max_idle_seconds=0.8, grace_seconds=0.5).result()
    assert (result["reason"], result["detail"]) == ("hung", "it said nothing for 1 s")


def test_one_that_tells_steps_is_judged_by_them(own):
    code = "print('::metrics {\"step\": 3}', flush=True)\nwhile True: print('.', flush=True); time.sleep(0.1)"
    result = own(code, max_idle_seconds=0.8, grace_seconds=0.5).result()
    assert (result["reason"], "after step 3" in result["detail"]) == ("hung", True)


def test_a_folder_that_is_a_link_stays_where_it_is_and_is_told(own, tmp_path):
    (tmp_path / "secret").write_text("secret")
    each = own(f"os.symlink({str(tmp_path)!r}, 'outputs'); os.mkdir('artifacts'); open('artifacts/a', 'w').write('1')")
    assert artifacts(each) == {"artifacts/a": "1"}
    assert each.read("result.json")["detail"] == "outputs is a link: what it leads to stays there"


def test_a_trainers_own_words_are_progress_loss_and_divergence(own):
    code = (
        "sys.stderr.write('\\r  0%|          | 0/8 [00:00<?, ?it/s]\\r      \\r'); print({'loss': '1.5'}, flush=True)\n"
    )
    code += "sys.stderr.write('\\r 25%|##        | 2/8 [00:00<00:00, 9.1it/s]\\r   \\r'); sys.stderr.flush()\n"
    each = own(f"{code}time.sleep(0.3); print({{'loss': 'nan'}}, flush=True); {WAITS}", grace_seconds=1)
    result = each.result()
    assert (result["reason"], result["metrics"]["step"], result["metrics"]["total_steps"]) == ("diverged", 2, 8)
    first = json.loads((each.folder / "metrics.jsonl").read_text().splitlines()[0])
    assert first == {"stage": "train", "step": 2, "total_steps": 8, "loss": 1.5}
