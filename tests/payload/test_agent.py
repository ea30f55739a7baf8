"""The agent, run for real below a real watchdog; trainings are small programs, limits are seconds."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from boxes import PATIENCE, SAVES, STRAYS, steps, until

# ── how it ended ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("code", "reason"),
    [(0, "completed"), (1, "failed"), (2, "failed"), (3, "diverged"), (4, "failed"), (5, "stopped"), (77, "failed")],
)
def test_an_exit_code_means_what_the_contract_says(box, code, reason):
    result = box().go(f"import sys; print('the last words'); sys.exit({code})").result()
    assert (result["exit_code"], result["reason"]) == (code, reason)


def test_a_failure_is_told_by_its_exception_not_by_the_noise_after_it(box):
    code = "import sys\ntry:\n raise ValueError('row 3 has no \x1b[31mtext')\nfinally:\n import atexit\n"
    code += " atexit.register(print, 'bye')"
    result = box().go(code).result()
    assert (result["reason"], result["detail"]) == ("failed", "ValueError: row 3 has no text")


def test_a_program_that_is_not_there_is_a_failure_with_its_name(box):
    result = box().go_argv("no-such-program").result()
    assert (result["reason"], result["exit_code"]) == ("failed", 127)
    assert "no-such-program" in result["detail"]


def test_the_log_is_what_was_printed_byte_by_byte(box):
    junk = bytes(range(256)) + b"\x1b[2J\x1b]0;title\x07\r\n\xff\xfe half a line"
    each = box().go(f"import os; os.write(1, {junk!r}); os.write(2, {junk!r})")
    each.result()
    assert (each.folder / "log.txt").read_bytes() == junk + junk


def test_the_result_holds_metrics_summary_and_hashed_artifacts(box):
    code = """
import json, os
print('::metrics {"step": 7, "loss": 0.5, "accuracy": 0.1}')
json.dump({"metrics": {"accuracy": 0.9}, "device": "cpu", "reason": "mine"}, open("summary.json", "w"))
os.makedirs("artifacts/deep")
open("artifacts/deep/a b\\n.bin", "wb").write(b"x" * 3000000)
os.symlink("deep/a b\\n.bin", "artifacts/inside")
os.symlink("/etc/passwd", "artifacts/outside")
os.mkfifo("artifacts/pipe")
"""
    result = box().go(code).result()
    digest = hashlib.sha256(b"x" * 3000000).hexdigest()
    assert [(entry["name"], entry["size"], entry["sha256"]) for entry in result["artifacts"]] == [
        ("artifacts/deep/a b\n.bin", 3000000, digest),
        ("artifacts/inside", 3000000, digest),
    ]
    assert result["metrics"] == {"step": 7, "loss": 0.5, "accuracy": 0.9}
    assert (result["reason"], result["device"], result["attempt"], result["restarts"]) == ("completed", "cpu", 1, 0)
    assert result["started"] <= result["ended"] <= time.time()


@pytest.mark.parametrize("loss", ["NaN", "-Infinity", '"nan"', '"inf"'])
def test_a_loss_that_is_not_finite_ends_the_training_as_diverged(box, loss):
    each = box(grace_seconds=0.3).go(
        steps(more=f"""print('::metrics {{"step": 3, "loss": {loss}}}', flush=True); time.sleep(99)""")
    )
    assert each.result()["reason"] == "diverged"
    for line in (each.folder / "metrics.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=pytest.fail)


def test_a_training_that_only_prints_is_hung(box):
    code = 'import time\nwhile True:\n print("busy", \'::metrics {"step": 1}\', sep="\\n", flush=True); time.sleep(.01)'
    result = box(max_idle_seconds=0.7, grace_seconds=0.5).go(code).result()
    assert result["reason"] == "hung"
    assert "step 1" in result["detail"]


def test_a_program_that_never_told_a_step_is_told_how_to(box):
    result = box(max_idle_seconds=0.7, grace_seconds=0.5).go("import time; time.sleep(60)").result()
    assert result["reason"] == "hung"
    assert "::metrics" in result["detail"]


def test_new_steps_keep_a_training_from_being_hung(box):
    each = box(max_idle_seconds=2, deadline=6, grace_seconds=1).go(steps(seconds=0.2, more=SAVES))
    assert each.result()["reason"] == "deadline"


# ── limits and orders ─────────────────────────────────────────────────────────────────────────────────────────────


def test_before_its_deadline_a_training_saves_and_leaves(box):
    each = box(deadline=6, grace_seconds=2).go(steps(more=SAVES))
    result = each.result()
    assert (result["reason"], result["exit_code"]) == ("deadline", 5)
    assert [entry["name"] for entry in result["artifacts"]] == ["artifacts/saved"]
    assert result["ended"] < each.limits["deadline"]


def test_one_that_will_not_leave_is_killed_before_the_deadline(box):
    each = box(deadline=6, grace_seconds=1.5).go(steps(more="signal.signal(signal.SIGTERM, signal.SIG_IGN)"))
    result = each.result()
    assert (result["reason"], result["exit_code"]) == ("deadline", 137)
    assert result["ended"] < each.limits["deadline"]


def test_a_job_that_comes_too_late_is_not_begun(box):
    each = box(deadline=2, grace_seconds=4).go("print('began')")
    result = each.result()
    assert (result["reason"], each.log()) == ("deadline", "")


def test_an_order_to_stop_saves_and_is_called_stopped(box):
    each = box().go(steps(more=SAVES))
    each.step(2)
    each.put("order.json", {"id": 1, "kind": "stop"})
    result = each.result()
    assert (result["reason"], result["exit_code"]) == ("stopped", 5)
    assert [entry["name"] for entry in result["artifacts"]] == ["artifacts/saved"]


def test_a_stopped_training_that_ignores_it_is_killed_after_the_grace(box):
    each = box(grace_seconds=0.5).go(steps(more="signal.signal(signal.SIGTERM, signal.SIG_IGN)"))
    each.step(2)
    each.put("order.json", {"id": 1, "kind": "stop"})
    assert each.result()["exit_code"] == 137


def test_sigterm_to_the_agent_is_an_order_to_stop(box):
    each = box().go(steps(more=SAVES))
    each.step(2)
    os.kill(each.agent(), signal.SIGTERM)
    assert each.result()["reason"] == "stopped"


def test_a_training_is_not_born_deaf_to_signals(box):
    each = box(grace_seconds=30).go_argv("sh", "-c", "sleep 99; : $0")
    each.training()
    each.put("order.json", {"id": 1, "kind": "stop"})
    result = each.result()
    assert (result["exit_code"], result["reason"]) == (128 + signal.SIGTERM, "stopped")


def test_a_new_deadline_is_obeyed_and_never_passes_the_ceiling(box):
    each = box(deadline=6, ceiling=9, grace_seconds=1.5).go(steps(more=SAVES))
    each.step(1)
    each.put("order.json", {"id": 1, "kind": "deadline", "deadline": time.time() + 1000})
    result = each.result()
    assert result["reason"] == "deadline"
    assert each.limits["deadline"] < result["ended"] < each.limits["ceiling"]
    assert each.read("status.json")["deadline"] == each.limits["ceiling"]


def test_an_earlier_deadline_ends_it_earlier(box):
    each = box(grace_seconds=0.8).go(steps(more=SAVES))
    each.step(1)
    each.put("order.json", {"id": 1, "kind": "deadline", "deadline": time.time() + 1})
    assert each.result()["reason"] == "deadline"


@pytest.mark.parametrize("order", ['{"id": 1', '{"id": "x", "kind": "stop"}', '{"id": 1, "kind": "dance"}', "[]", "5"])
def test_an_order_that_makes_no_sense_is_passed_over(box, order):
    each = box().go(steps(more="import threading; threading.Timer(0.6, os._exit, [0]).start()"))
    (each.folder / "order.json").write_text(order)
    assert each.result()["reason"] == "completed"


# ── death and restart ─────────────────────────────────────────────────────────────────────────────────────────────

DIES = """
import os, signal
n = len(os.listdir("checkpoints")) if os.path.isdir("checkpoints") else 0
os.makedirs(f"checkpoints/{n}")
for step in range(n * 2, n * 2 + 3):
    print('::metrics {"step": %d}' % step, flush=True)
if n < DEATHS:
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_training_that_was_killed_goes_on_from_its_checkpoint(box):
    each = box().go(DIES.replace("DEATHS", "2"))
    result = each.result()
    assert (result["reason"], result["restarts"], result["metrics"]["step"]) == ("completed", 2, 6)
    assert "killed by signal 9 (out of memory?) at step 2; started again (1 of 3)" in each.log()


def test_one_that_dies_again_without_a_new_step_is_given_up(box):
    result = box().go("import os, signal; os.kill(os.getpid(), signal.SIGKILL)").result()
    assert (result["reason"], result["restarts"], result["exit_code"]) == ("failed", 1, 137)
    assert result["detail"] == "killed by signal 9 (out of memory?) at step 0"


def test_restarts_are_counted(box):
    result = box(max_restarts=1).go(DIES.replace("DEATHS", "9")).result()
    assert (result["reason"], result["restarts"]) == ("failed", 1)


def test_a_second_agent_leaves_the_first_one_alone(box):
    each = box().go(steps(more=SAVES))
    each.step(1)
    argv = [sys.executable, each.folder / "payload" / "agent.py", each.folder]
    second = subprocess.run(argv, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (second.returncode, "another one" in second.stderr) == (0, True)
    before = each.read("status.json")["step"]
    each.step(before + 2)
    each.put("order.json", {"id": 1, "kind": "stop"})
    assert each.result()["restarts"] == 0


def test_an_agent_started_by_hand_carries_the_mark_for_all_to_see(box):
    each = box()
    each.put("job.json", {**each.job, "command": ["{python}", "-S", "-c", steps(more=SAVES), each.token]})
    argv = [sys.executable, each.folder / "payload" / "agent.py", each.folder]
    agent = subprocess.Popen(argv, stdout=subprocess.DEVNULL)
    each.step(1)
    assert f"GPURUN_MARK={each.mark}".encode() in Path(f"/proc/{agent.pid}/environ").read_bytes().split(b"\0")
    until(lambda: each.read("watchdog.json"), "its own watchdog")
    each.put("order.json", {"id": 1, "kind": "stop"})
    agent.wait(PATIENCE)
    assert each.result()["reason"] == "stopped"


def test_nothing_that_a_training_leaves_behind_outlives_it(box):
    each = box().go(STRAYS + "\nwhile open('log.txt').read().count('deaf') < 4: time.sleep(0.01)")
    until(lambda: each.read("result.json"), "the result")
    assert [line for line in each.living().values() if "agent.py" not in line and "watchdog.py" not in line] == []
    assert each.result()["reason"] == "completed"


# ── what it prints ────────────────────────────────────────────────────────────────────────────────────────────────


def test_megabytes_a_second_cost_neither_the_disk_nor_the_progress(box):
    code = """
for step in range(40):
    print("x" * 99 + "\\n", end="", flush=False)
    print(("y" * 99 + "\\n") * 10000, end="")
    print('::metrics {"step": %d}' % step, flush=True)
raise SystemExit("the very last word")
"""
    each = box(log_limit_bytes=100_000).go(code)
    result = each.result()
    log = each.log()
    assert len(log) < 400_000
    assert result["metrics"]["step"] == 39
    assert '::metrics {"step": 39}' in log
    assert "MB of output left out" in log
    assert log.endswith("the very last word\n")
    assert result["detail"] == "the very last word"


def test_a_full_disk_loses_log_lines_not_the_run(box):
    each = box()
    (each.folder / "log.txt").symlink_to("/dev/full")
    result = each.go('print("into the void"); print(\'::metrics {"step": 5}\')').result()
    assert (result["reason"], result["metrics"]["step"]) == ("completed", 5)
    assert "No space left on device" in result["detail"]


def test_a_secret_reaches_the_training_and_no_file_keeps_it(box):
    each = box()
    each.put("secrets.json", {"HF_TOKEN": "hf_s3cret"})
    result = each.go("import os; print(len(os.environ['HF_TOKEN']))").result()
    assert (result["reason"], each.log()) == ("completed", "9\n")
    files = [path for path in each.folder.rglob("*") if path.is_file()]
    assert [path.name for path in files if b"hf_s3cret" in path.read_bytes()] == []


def test_the_heartbeat_tells_where_the_training_is(box):
    each = box().go(steps(more=SAVES))
    each.step(2)
    beat = each.read("status.json")
    assert (beat["phase"], beat["stage"], beat["reason"]) == ("running", "train", "")
    until(lambda: each.read("status.json")["time"] > beat["time"], "the next beat")
    each.put("order.json", {"id": 1, "kind": "stop"})
    each.result()
    assert each.read("status.json")["phase"] == "exited"


def test_a_diverged_that_only_the_exit_code_tells_says_so(box):
    result = box().go("import sys; sys.exit(3)").result()
    assert result["detail"] == "it left with exit code 3, which says that the loss is not finite at step 0"
