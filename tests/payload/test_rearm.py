"""What starts a watchdog again: a unit that systemd takes, lines run as cron runs them, and what it does then."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from boxes import SAVES, steps, until

MARK = "gpurun-beef-demo-260101-0123ab-1-tt8k3q1"
ANALYZE = shutil.which("systemd-analyze")


@pytest.fixture
def rearm(payload):
    return payload("rearm")


@pytest.fixture(autouse=True)
def _nobody_s_system(monkeypatch):
    """Put nothing into the systemd or the crontab of whoever runs the tests."""
    monkeypatch.setenv("GPURUN_REARM", "none")


def reboot(each) -> None:
    """End all of a box, and let its files say that it was another boot."""
    while living := each.living():
        for pid in living:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.01)
    lock = each.folder / ".agent.lock"
    if lock.exists():
        pid, started = lock.read_text().split()
        lock.write_text(f"{pid} another:{started.partition(':')[2]}\n")
    proof = each.read("watchdog.json")
    each.put("watchdog.json", {**proof, "boot": "another", "armed_steady": proof["armed_steady"] + 10**6})


def cron_runs(line: str, *, times: int = 1) -> None:
    """Run a crontab's line as cron does: by /bin/sh, with next to nothing in the environment."""
    command = line.split(" ", 5 if line.startswith("*") else 1)[-1].replace(r"\%", "%")
    env = ["HOME=" + os.environ["HOME"], "LOGNAME=nobody", "PATH=/usr/bin:/bin", "SHELL=/bin/sh"]
    each = [subprocess.Popen(["env", "-i", *env, "/bin/sh", "-c", command], cwd="/") for _ in range(times)]
    for one in each:
        one.wait(30)


def lines_of(each, rearm) -> list[str]:
    return rearm.cron_lines(rearm.argv_of(each.folder, "--again"), each.mark)


# ── texts ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_unit_says_what_systemd_must_do(rearm):
    text = rearm.unit(["/usr/bin/python3", '/home/u/it\'s "100%" $HOME/watchdog.py'], MARK, "ubuntu")
    assert '\nExecStart="/usr/bin/python3" "/home/u/it\'s \\"100%%\\" $$HOME/watchdog.py"\n' in text
    for line in (
        "User=ubuntu",
        "Restart=always",
        "KillMode=process",
        "StartLimitIntervalSec=0",
        "WantedBy=multi-user.target",
    ):
        assert f"\n{line}\n" in text
    assert "User=" not in rearm.unit(["/usr/bin/python3"], MARK, "")


@pytest.mark.skipif(not ANALYZE, reason="needs systemd-analyze")
@pytest.mark.parametrize("user", ["root", ""])
def test_systemd_takes_the_unit(rearm, tmp_path, user):
    folder = tmp_path / "it's 100% $HOME"
    folder.mkdir()
    path = tmp_path / rearm.unit_name(MARK)
    path.write_text(rearm.unit(["/bin/sh", str(folder / "watchdog.py"), "--stand-by", str(folder)], MARK, user))
    where = [] if user else ["--user"]
    env = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path), "SYSTEMD_LOG_LEVEL": "warning"}
    argv = [ANALYZE, *where, "verify", "--man=no", "--recursive-errors=no", path]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False, env=env)
    assert (done.returncode, [line for line in done.stderr.splitlines() if rearm.unit_name(MARK) in line]) == (0, [])


@pytest.mark.parametrize("spell", ["unit_word", "cron_lines"])
def test_a_line_break_can_stand_in_neither(rearm, spell):
    argument = "a\nb" if spell == "unit_word" else ["a\nb"]
    with pytest.raises(ValueError, match="line break"):
        getattr(rearm, spell)(*([argument] if spell == "unit_word" else [argument, MARK]))


def test_a_crontab_keeps_the_lines_that_are_not_ours(rearm):
    others = "# mine\n0 5 * * * backup # gpurun another\n@reboot x\n"
    ours = "".join(f"{line}\n" for line in rearm.cron_lines(["python3", "w"], MARK))
    assert rearm.crontab_without(others + ours, MARK) == others
    assert rearm.crontab_without(others, MARK) == others
    assert len(ours.splitlines()) == 2


# ── deeds, with a crontab of the test's own ───────────────────────────────────────────────────────────────────────


@pytest.fixture
def cron(tmp_path, monkeypatch):
    """A `crontab` that keeps its lines in a file, and a cron that lives; gives the file."""
    tab, programs = tmp_path / "tab", tmp_path / "programs"
    programs.mkdir()
    (programs / "crontab").write_text(
        f'#!/bin/sh\ncase $1 in\n-l) [ -e {tab} ] || {{ echo "no crontab for me" >&2; exit 1; }}; cat {tab} ;;\n'
        f"-) cat > {tab}.new && mv {tab}.new {tab} ;;\nesac\n"
    )
    (programs / "cron").write_text("#!/bin/sh\nread line\n")
    for path in programs.iterdir():
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GPURUN_REARM", "cron")
    with subprocess.Popen([programs / "cron"], stdin=subprocess.PIPE) as daemon:
        yield tab
        daemon.kill()


def test_cron_gets_two_lines_once_and_loses_them(rearm, cron, tmp_path):
    cron.write_text("0 5 * * * backup\n")
    for _ in range(2):
        assert rearm.install(tmp_path, MARK) == ("cron", "")
    assert len(cron.read_text().splitlines()) == 3
    rearm.remove(MARK)
    assert cron.read_text() == "0 5 * * * backup\n"
    rearm.remove(MARK)


def test_others_lines_stay_as_they_were_byte_by_byte(rearm, cron, tmp_path):
    others = b"# f\xfcr alle\n0 4 * * * a\x0cb\xe2\x80\xa8c\n\n"
    cron.write_bytes(others)
    rearm.by_cron(tmp_path, MARK)
    assert cron.read_bytes().startswith(others)
    assert len(cron.read_bytes()) > len(others)
    rearm.remove(MARK)
    assert cron.read_bytes() == others


def test_a_crontab_that_can_not_be_read_is_not_written(rearm, cron, tmp_path):
    cron.write_text("0 5 * * * backup\n")
    program = tmp_path / "programs" / "crontab"
    program.write_text(program.read_text().replace("-l)", "-l) echo 'not allowed' >&2; exit 1;;\n-k)"))
    assert rearm.install(tmp_path, MARK) == ("", "cron: not allowed")
    assert cron.read_text() == "0 5 * * * backup\n"


def test_without_any_means_it_says_why(rearm, tmp_path, monkeypatch):
    monkeypatch.setenv("GPURUN_REARM", "none")
    assert rearm.install(tmp_path, MARK) == ("", "GPURUN_REARM=none")


def test_the_watchdog_installs_it_while_it_arms_and_removes_it_when_all_is_over(box, cron):
    each = box()
    each.put("arm.json", {**each.limits, "rearm": True})
    each.go(steps(more=SAVES))
    until(lambda: each.read("watchdog.json").get("rearm") == "cron", "its lines")
    assert cron.read_text().count(each.mark) == 2
    each.put("order.json", {"id": 1, "kind": "stop"})
    assert each.result()["reason"] == "stopped"
    assert cron.read_text() == ""


# ── a machine that comes back ─────────────────────────────────────────────────────────────────────────────────────

COUNTS = """
import json, os, pathlib, time
with open("begun", "a") as file:
    file.write("x")
at = pathlib.Path("at")
step = int(at.read_text()) if at.exists() else 0
while True:
    step += 1
    pathlib.Path("at.new").write_text(str(step))
    os.replace("at.new", "at")
    print("::metrics " + json.dumps({"step": step, "stage": "train"}), flush=True)
    time.sleep(0.05)
"""


def test_after_a_reboot_cron_s_line_carries_the_training_on_once(box, rearm):
    each = box()
    each.put("arm.json", {**each.limits, "rearm": True})
    each.go(COUNTS)
    each.step(3)
    before = each.read("watchdog.json")
    reboot(each)
    at = int((each.folder / "at").read_text())
    cron_runs(lines_of(each, rearm)[0], times=3)
    until(lambda: int((each.folder / "at").read_text()) > at + 3, "more steps")
    assert (each.folder / "begun").read_text() == "xx"
    assert len(each.living()) == 3
    after = each.read("watchdog.json")
    assert (after["armed_at"], after["ceiling"], after["deadline"]) == (
        before["armed_at"], before["ceiling"], before["deadline"],
    )  # fmt: skip
    assert after["used"] >= before["used"]
    each.put("end.json", {})
    each.silence()


def test_a_machine_that_goes_down_in_order_ends_no_run_by_its_sigterm(box, rearm, tmp_path, monkeypatch):
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "systemctl").write_text("#!/bin/sh\necho stopping\nexit 1\n")
    (programs / "systemctl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    each = box().go(steps(more=SAVES + '\nopen("begun", "a").write("x")'))
    each.step(1)
    os.kill(each.agent(), signal.SIGTERM)  # everybody's
    until((each.folder / "artifacts" / "saved").exists, "its last checkpoint")
    until(lambda: len(each.living()) == 2, "the end of the training")
    until(lambda: each.read("status.json")["reason"] == "restarting", "its word")
    assert each.read("result.json") == {}
    reboot(each)
    cron_runs(lines_of(each, rearm)[0])
    until(lambda: (each.folder / "begun").read_text() == "xx", "the training, once more")
    each.put("order.json", {"id": 1, "kind": "stop"})
    assert each.result()["reason"] == "stopped"


def test_a_watchdog_killed_with_its_agent_comes_back_and_ends_what_is_left(box, rearm):
    """The machine was not restarted: an agent that died there had its day."""
    each = box().go(f"{COUNTS.replace('True', 'step < 2')}\ntime.sleep(99)")  # its output ends with the agent
    each.step(2)
    for pid in (each.watchdog(), each.agent()):
        os.kill(pid, signal.SIGKILL)
    until(lambda: len(each.living()) == 1, "the training alone")
    cron_runs(lines_of(each, rearm)[1])
    each.silence()
    assert "the agent is gone" in each.story()
    assert (each.folder / "begun").read_text() == "x"


def test_a_watchdog_that_lives_is_left_alone_without_a_word(box, rearm):
    each = box().go(COUNTS)
    each.step(1)
    pid = each.watchdog()
    for line in lines_of(each, rearm):
        cron_runs(line)
    assert each.watchdog() == pid
    assert (each.folder / "watchdog.log").read_text() == ""
    each.put("end.json", {})
    each.silence()


def test_what_was_ended_is_not_begun_again_by_a_reboot(box, rearm):
    each = box().go(COUNTS)
    each.step(1)
    os.kill(each.agent(), signal.SIGKILL)
    each.silence()
    reboot(each)
    cron_runs(lines_of(each, rearm)[0])
    each.silence()
    assert (each.folder / "begun").read_text() == "x"


def test_one_that_stands_by_takes_over_in_an_instant_and_is_of_no_job_before(box):
    each = box().go(COUNTS)
    each.step(1)
    argv = [sys.executable, "-B", each.folder / "payload" / "watchdog.py", "--stand-by", each.folder]
    env = {name: value for name, value in os.environ.items() if name != "GPURUN_MARK"}
    with subprocess.Popen(argv, env=env, cwd="/", start_new_session=True) as second:
        first = each.watchdog()
        time.sleep(0.3)
        assert (second.poll(), second.pid in each.living()) == (None, False)
        os.kill(first, signal.SIGKILL)
        until(lambda: each.watchdog() == second.pid, "the second one")
        at = each.read("status.json")["step"]
        each.step(at + 2)  # the training never noticed
        each.put("end.json", {})
        assert second.wait(30) == 75  # which tells systemd not to start it again
    each.silence()


def test_after_a_reboot_an_agent_gets_the_environment_of_the_first_start(box, rearm, monkeypatch):
    monkeypatch.setenv("CUDA_TEST", "of the login")
    each = box()
    each.put("arm.json", {**each.limits, "rearm": True})
    each.go('import os, time; open("seen", "a").write(os.environ.get("CUDA_TEST", "-") + ";"); time.sleep(99)')
    until(lambda: (each.folder / "seen").exists() and (each.folder / "seen").read_text(), "its start")
    reboot(each)
    cron_runs(lines_of(each, rearm)[0])
    until(lambda: (each.folder / "seen").read_text() == "of the login;" * 2, "its second start")
    each.put("end.json", {})
    each.silence()


def test_orders_are_known_to_those_who_come_after_a_reboot(box, rearm):
    each = box(deadline=60).go(COUNTS)
    each.step(1)
    moved = {"deadline": time.time() + 500, "ceiling": time.time() + 600}
    each.put("order.json", {"id": 1, "kind": "deadline", **moved})
    until(lambda: each.read("watchdog.json")["ceiling"] == moved["ceiling"], "the watchdog knows")
    until(lambda: each.read("status.json")["ceiling"] == moved["ceiling"], "the agent knows")
    each.put("order.json", {"id": 2, "kind": "nothing"})
    reboot(each)
    cron_runs(lines_of(each, rearm)[0])
    until(lambda: each.read("watchdog.json")["boot"] != "another", "a watchdog")
    until(lambda: (each.folder / "begun").read_text() == "xx", "the training")
    for name in ("watchdog.json", "status.json"):
        until(lambda name=name: each.read(name).get("ceiling") == moved["ceiling"], name)
        assert each.read(name)["deadline"] == moved["deadline"]
    assert json.loads(Path(each.folder / "limits.json").read_text())["id"] == 1
    each.put("end.json", {})
    each.silence()
