"""The watchdog, for real: it ends the job whatever else is dead, stopped, deaf, full or wrong."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
from boxes import PATIENCE, SAVES, STRAYS, steps, until

DEAF = "signal.signal(signal.SIGTERM, signal.SIG_IGN)"


def test_the_agent_dies_and_all_below_it_is_ended_at_once(box):
    each = box().go(STRAYS + "\ntime.sleep(99)")
    until(lambda: len(each.living()) == 7, "the whole tree")  # watchdog, agent, training, its four
    os.kill(each.agent(), signal.SIGKILL)
    each.silence()
    assert "the agent is gone without a result (killed by signal 9)" in each.story()
    assert each.read("result.json") == {}


def test_the_ceiling_ends_a_job_whose_agent_is_stopped(box):
    each = box(deadline=2.5, grace_seconds=0.1).go(steps(more=DEAF))
    each.step(1)
    os.kill(each.agent(), signal.SIGSTOP)
    each.silence()
    assert each.story() == "the ceiling has come"
    assert time.time() >= each.limits["ceiling"]


def test_the_deadline_ends_a_job_whose_agent_does_not_obey_it(box):
    each = box(deadline=2.5, ceiling=60, grace_seconds=0.1).go(steps(more=DEAF))
    each.step(1)
    os.kill(each.agent(), signal.SIGSTOP)
    each.silence()
    assert each.story() == "the deadline has passed"
    assert time.time() < each.limits["ceiling"]


def test_a_moved_deadline_holds_for_the_watchdog_too(box):
    each = box(deadline=3, ceiling=60, grace_seconds=0.1).go(steps(more=DEAF))
    each.step(1)
    os.kill(each.agent(), signal.SIGSTOP)
    each.put("order.json", {"id": 1, "kind": "deadline", "deadline": time.time() + 8})
    time.sleep(4)
    assert len(each.living()) == 3
    each.silence()
    assert each.story() == "the deadline has passed"


def test_signals_from_others_do_not_end_it(box):
    each = box().go(steps(more=SAVES))
    each.step(1)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGUSR1):
        os.kill(each.watchdog(), number)
    pid, seen = each.watchdog(), each.read("watchdog.json")["time"]
    until(lambda: each.read("watchdog.json")["time"] > seen + 0.3, "a later proof")
    assert each.watchdog() == pid
    each.put("order.json", {"id": 1, "kind": "stop"})
    assert each.result()["reason"] == "stopped"


def test_a_killed_watchdog_is_replaced_and_the_new_one_guards_as_well(box):
    each = box().go(steps(more=DEAF))
    each.step(1)
    first, armed = each.watchdog(), each.read("watchdog.json")["armed_steady"]
    os.kill(first, signal.SIGKILL)
    until(lambda: each.watchdog() != first, "a new watchdog")
    assert each.read("watchdog.json")["armed_steady"] == armed
    before = each.read("status.json")["step"]
    each.step(before + 2)  # the training never noticed
    os.kill(each.agent(), signal.SIGKILL)
    each.silence()
    assert "the agent is gone" in each.story()


def test_a_stopped_watchdog_is_woken(box):
    each = box().go(steps(more=SAVES))
    each.step(1)
    os.kill(each.watchdog(), signal.SIGSTOP)
    stopped = time.time()
    until(lambda: each.read("watchdog.json")["time"] > stopped + 0.3, "it looks again")
    each.put("order.json", {"id": 1, "kind": "stop"})
    each.result()


def test_a_second_watchdog_leaves(box):
    each = box().go(steps(more=SAVES))
    each.step(1)
    argv = [sys.executable, each.folder / "payload" / "watchdog.py", each.folder]
    second = subprocess.run(argv, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (second.returncode, "another one" in second.stderr) == (0, True)
    before = each.read("status.json")["step"]
    each.step(before + 1)
    each.put("order.json", {"id": 1, "kind": "stop"})
    each.result()


def test_armed_but_never_given_a_job_it_leaves_at_the_deadline(box):
    each = box(deadline=1, ceiling=60)
    assert each.arm().returncode == 0
    each.silence()
    assert each.story() == "the deadline has passed"


def test_an_order_to_end_kills_whatever_it_is_doing(box):
    each = box().go(STRAYS + "\ntime.sleep(99)")
    until(lambda: len(each.living()) == 7, "the whole tree")
    each.put("end.json", {})
    each.silence()
    assert each.story() == "ended by order"


def test_a_job_whose_folder_is_removed_is_ended(box):
    each = box().go(steps(more=DEAF))
    each.step(1)
    until(lambda: not shutil.rmtree(each.folder, ignore_errors=True) and not each.folder.exists(), "its removal")
    each.silence()


def test_a_disk_that_takes_nothing_does_not_keep_it_from_ending(box):
    each = box(deadline=2.5, grace_seconds=0.1)
    for name in ("watchdog.json", "processes.json", "status.json", "result.json"):
        (each.folder / name).mkdir()  # nothing can be moved onto a folder: every write of these fails
    (each.folder / "result.json").rmdir()
    each.go(steps(more=DEAF))
    until(lambda: len(each.living()) == 3, "the training")
    agent = next(pid for pid, line in each.living().items() if "agent.py" in line)
    os.kill(agent, signal.SIGSTOP)
    each.silence()
    assert time.time() >= each.limits["ceiling"]


def test_a_disk_that_hangs_does_not_keep_it_from_ending(box):
    """Reads of an order that never comes (a pipe nobody writes to) stand for a network volume that is away."""
    each = box(deadline=2, grace_seconds=0.1)
    script = each.folder / "payload" / "watchdog.py"
    script.write_text(script.read_text().replace("HANGS = 10.0", "HANGS = 0.5"))
    each.go(steps(more=DEAF))
    each.step(1)
    os.mkfifo(each.folder / "order.json")
    until(lambda: len(each.living()) == 1, "only the watchdog is left, waiting")
    assert 0 <= time.time() - each.limits["ceiling"] < 5
    (each.folder / "order.json").rename(each.folder / "pipe")
    (each.folder / "pipe").write_text("{}")
    each.silence()


def test_every_process_is_listed_with_its_start_time(box):
    each = box().go(STRAYS + "\ntime.sleep(99)")
    until(lambda: len(each.living()) == 7, "the whole tree")
    until(lambda: {one["pid"] for one in each.read("processes.json")} == set(each.living()), "all of them listed")
    assert all(one["started"] for one in each.read("processes.json"))
    each.put("end.json", {})
    each.silence()


def test_after_the_result_it_leaves_by_itself(box):
    each = box().go("pass")
    each.result()
    assert each.story() == "done"


def test_an_agent_that_can_not_begin_is_told_of(box):
    each = box()
    each.job = {"mark": each.mark}
    each.go("pass")
    each.silence()
    assert "left with exit code 2" in each.story()
    assert "deadline must be a number" in each.story()


@pytest.mark.parametrize("arm", ["", "[]", '{"mark": "m"}', '{"mark": "m", "deadline": NaN, "ceiling": 1}'])
def test_without_sound_limits_it_does_not_arm(box, arm):
    each = box()
    (each.folder / "arm.json").write_text(arm)
    assert each.arm().returncode == 1
    assert "watchdog: " in (each.folder / "watchdog.log").read_text()


def test_it_does_not_wait_for_a_reader_of_its_output(box):
    each = box(deadline=8, ceiling=60)
    argv = [sys.executable, each.folder / "payload" / "watchdog.py", "--detach", each.folder]
    env = {**os.environ, "GPURUN_MARK": each.mark}
    subprocess.run(argv, env=env, capture_output=True, timeout=PATIENCE, check=True)
    assert time.time() < each.limits["deadline"]  # while it lives, its output has a writer
    each.put("end.json", {})
    each.silence()


# ── the clock ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def guards(payload):
    return payload("limits"), payload("watchdog")


class Hands:
    """Two clocks that a test sets."""

    def __init__(self) -> None:
        self.wall = 1_800_000_000.0
        self.steady = 500.0

    def pass_(self, seconds: float, *, jump: float = 0.0) -> None:
        self.wall += seconds + jump
        self.steady += seconds


def test_setting_the_clock_back_lengthens_nothing(guards, tmp_path):
    limits, watchdog = guards
    hands = Hands()
    clock = limits.Clock(lambda: hands.wall, lambda: hands.steady)
    arm = {"mark": "m", "deadline": hands.wall + 900, "ceiling": hands.wall + 1000, "max_seconds": 1000}
    (tmp_path / "arm.json").write_text("{}")
    dog = watchdog.Watchdog(tmp_path, arm, clock)
    hands.pass_(800, jump=-7200)
    assert dog.over() == ""
    hands.pass_(106)
    assert dog.over() == "the deadline has passed"
    hands.pass_(95)
    assert dog.over() == "the ceiling has come"


def test_setting_the_clock_forward_ends_it_early(guards, tmp_path):
    limits, watchdog = guards
    hands = Hands()
    clock = limits.Clock(lambda: hands.wall, lambda: hands.steady)
    arm = {"mark": "m", "deadline": hands.wall + 1000, "ceiling": hands.wall + 1000, "max_seconds": 1000}
    (tmp_path / "arm.json").write_text("{}")
    dog = watchdog.Watchdog(tmp_path, arm, clock)
    hands.pass_(1, jump=7200)
    assert dog.over() == "the ceiling has come"


def test_an_agent_judges_its_deadline_by_both_clocks(guards):
    module, _ = guards
    hands = Hands()
    clock = module.Clock(lambda: hands.wall, lambda: hands.steady)
    limits = module.Limits(hands.wall + 900, hands.wall + 1000, 1000, armed=hands.steady)
    hands.pass_(899, jump=-5000)
    assert limits.left(limits.deadline, clock) == pytest.approx(1)
    limits.move(hands.wall + 10**9)
    assert limits.deadline == limits.ceiling
    assert limits.left(limits.deadline, clock) == pytest.approx(101)


def test_a_watchdog_started_again_wins_no_time(guards, tmp_path):
    limits, watchdog = guards
    hands = Hands()
    clock = limits.Clock(lambda: hands.wall, lambda: hands.steady)
    arm = {"mark": "m", "deadline": hands.wall + 1000, "ceiling": hands.wall + 1000, "max_seconds": 1000}
    (tmp_path / "arm.json").write_text("{}")
    watchdog.Watchdog(tmp_path, arm, clock).prove("")
    hands.pass_(990, jump=-5000)
    again = watchdog.Watchdog(tmp_path, arm, clock)
    hands.pass_(11)
    assert again.over() == "the ceiling has come"


# ── whose a process is ────────────────────────────────────────────────────────────────────────────────────────────


def test_a_number_used_again_is_never_signalled(payload):
    processes = payload("processes")
    other = subprocess.Popen(["sleep", "99"])
    try:
        mine = processes.look(other.pid)
        assert not processes.send(mine._replace(started="another:1"), signal.SIGKILL)
        assert other.poll() is None
        assert processes.send(mine, signal.SIGKILL)
    finally:
        other.kill()
        other.wait()


def test_what_was_ours_is_forgotten_when_another_has_its_number(payload):
    processes = payload("processes")
    tree = processes.Tree("gpurun-none")
    tree.known = {1: "another:1"}
    assert 1 not in tree.find()


def test_the_caller_s_own_session_is_not_taken_for_the_job_s(payload):
    """An agent started by hand sits in the session of somebody's terminal."""
    processes = payload("processes")
    tree = processes.Tree("gpurun-none")
    assert os.getppid() not in tree.find()


def test_a_name_full_of_brackets_is_read_right(payload, tmp_path):
    processes = payload("processes")
    program = tmp_path / "a) Z 1 (b"
    shutil.copy(shutil.which("sleep"), program)
    child = subprocess.Popen([program, "99"])
    try:
        seen = processes.look(child.pid)
        assert (seen.parent, seen.state in "SRD") == (os.getpid(), True)
    finally:
        child.kill()
        child.wait()
