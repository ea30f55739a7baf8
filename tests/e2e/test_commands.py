"""The commands on real runs of this computer, as a user types them: watched, detached, interrupted, stopped, killed."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from typing import TYPE_CHECKING

import pytest

from orchestrator.home import Home
from orchestrator.ledger import Ledger

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

GPURUN = [sys.executable, "-m", "orchestrator.cli"]
SCRIPT = """
import json, pathlib, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))
steps = int(sys.argv[1])
print("\\x1b[31mred\\x1b[0m \\x1b]0;title\\x07plain", flush=True)
for step in range(1, steps + 1):
    metrics = {"stage": "train", "step": step, "total_steps": steps, "loss": 1 / step}
    print("::metrics " + json.dumps(metrics), flush=True)
    time.sleep(0.05)
pathlib.Path("artifacts").mkdir(exist_ok=True)
pathlib.Path("artifacts/model.bin").write_bytes(b"weights")
pathlib.Path("summary.json").write_text(json.dumps({"metrics": {"accuracy": 0.875, "majority_accuracy": 0.25}}))
"""


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A folder with a user's own script and its template."""
    (tmp_path / "mine.py").write_text(SCRIPT)
    (tmp_path / "bad.py").write_text("print('about to fail'); raise SystemExit('row 7 has no label')")
    for name, argv in (("short", ["mine.py", "10"]), ("long", ["mine.py", "2000"]), ("bad", ["bad.py"])):
        command = json.dumps(["{python}", f"code/{argv[0]}", *argv[1:]])
        training = f"{{method: script, code: {argv[0]}, command: {command}}}"
        (tmp_path / f"{name}.yaml").write_text(f"name: {name}\ntraining: {training}\nlimits: {{max_hours: 0.1}}\n")
    return tmp_path


def gpurun(work: Path, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*GPURUN, *args], cwd=work, capture_output=True, text=True, timeout=90, check=False, env=environ()
    )


def environ() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "TERM": "xterm"}


# Makes the terminal on standard input the controlling one, so that its Ctrl-C becomes a SIGINT; then becomes gpurun.
OWN_TERMINAL = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
)


class Typist:
    """A person at a terminal of 80 columns."""

    def __init__(self, work: Path, *args: str) -> None:
        self._terminal, inner = pty.openpty()
        termios.tcsetwinsize(inner, (24, 80))
        self._process = subprocess.Popen(
            [sys.executable, "-c", OWN_TERMINAL, *GPURUN, *args],
            cwd=work, env=environ(), stdin=inner, stdout=inner, stderr=inner, start_new_session=True,
        )  # fmt: skip
        os.close(inner)
        self.screen = ""

    def wait_for(self, pattern: str, seconds: float = 60.0) -> None:
        """Read the screen until it shows something."""
        until = time.monotonic() + seconds
        while not re.search(pattern, self.screen):
            assert time.monotonic() < until, f"{pattern!r} never came:\n{self.screen}"
            if select.select([self._terminal], [], [], 0.1)[0]:
                self.screen += os.read(self._terminal, 65536).decode(errors="replace")

    def type(self, keys: str) -> None:
        self.screen = ""
        os.write(self._terminal, keys.encode())

    def exit_code(self) -> int:
        while True:
            try:
                self.screen += os.read(self._terminal, 65536).decode(errors="replace")
            except OSError:  # Linux says EIO when the last writer is gone
                break
        os.close(self._terminal)
        return self._process.wait(timeout=30)


@pytest.fixture
def only_run(home: Path) -> Iterator[str]:
    """Nothing before; afterwards every run of the test must have been proven ended."""
    yield str(home)
    if (home / "ledger.sqlite").exists():
        ledger = Ledger(home / "ledger.sqlite")
        assert [row.run_id for row in ledger.runs(unfinished=True)] == []
        ledger.close()


@pytest.mark.usefixtures("only_run")
def test_a_launch_shows_plan_log_and_end_and_every_command_knows_the_run(work: Path, home: Path) -> None:
    done = gpurun(work, "launch", "short.yaml", "-y")
    assert done.returncode == 0, done.stderr
    assert "red plain" in done.stderr
    assert "\x1b" not in done.stderr + done.stdout
    assert "::metrics" not in done.stderr
    for words in (
        "succeeded: completed",
        "0.875 (the majority class alone: 0.250)",
        "$0.00",
        "nothing bills any more: ",
    ):
        assert words in done.stdout
    (run_id,) = [path.name for path in (home / "runs").iterdir()]

    assert gpurun(work, "ps").stdout.splitlines()[1].split()[:3] == [run_id, "completed", "local"]
    shown = json.loads(gpurun(work, "show", "--json").stdout)
    assert (shown["run_id"], shown["state"], shown["accrued_usd"]) == (run_id, "done", 0)
    assert {"launch", "start", "terminate"} <= {event["verb"] for event in shown["events"]}
    assert gpurun(work, "show", "short-").stdout.startswith(f"run      {run_id}\nstate    succeeded: completed")
    assert gpurun(work, "logs").stdout.splitlines()[0] == "red plain"
    assert gpurun(work, "logs", "--raw").stdout.startswith("\x1b[31mred")
    assert not (work / "model.bin").exists()
    assert gpurun(work, "pull", "--to", "out").returncode == 0
    assert (work / "out" / "model.bin").read_bytes() == b"weights"
    assert gpurun(work, "resume").returncode == 0


@pytest.mark.usefixtures("only_run")
def test_a_failed_training_leaves_with_1_and_its_own_words(work: Path, home: Path) -> None:
    done = gpurun(work, "launch", "bad.yaml", "-y", "--json")
    assert done.returncode == 1
    last = json.loads(done.stdout.splitlines()[-1])
    assert (last["outcome"], last["reason"], last["accrued_usd"]) == ("failed", "failed", 0)
    assert last["folder"] == str(Home(home).run(last["run_id"]).path)
    assert "row 7 has no label" in gpurun(work, "ps").stdout
    assert "row 7 has no label" in done.stderr


@pytest.mark.usefixtures("only_run")
def test_a_detached_run_goes_on_alone_and_can_be_waited_for(work: Path) -> None:
    launched = gpurun(work, "launch", "short.yaml", "-y", "--detach", "--json")
    assert launched.returncode == 0
    assert json.loads(launched.stdout.splitlines()[-1])["outcome"] is None
    followed = gpurun(work, "logs", "-f")
    assert (followed.returncode, followed.stdout.splitlines()[0]) == (0, "red plain")
    assert gpurun(work, "wait").returncode == 0


@pytest.mark.usefixtures("only_run")
def test_ctrl_c_asks_and_s_stops_with_6(work: Path) -> None:
    person = Typist(work, "launch", "long.yaml")
    person.wait_for(r"Launch\? \[Y/n\]")
    person.type("y\n")
    person.wait_for(r"train \d\d:\d\d  step \d+/2,000  ")
    person.type("\x03")
    person.wait_for(r"\[d\]etach.*\[s\]top.*\[c\]arry on")
    person.type("c\n")
    person.wait_for(r"step \d+/2,000")
    person.type("\x03")
    person.wait_for(r"\[s\]top")
    person.type("s\n")
    person.wait_for("nothing bills")
    assert person.exit_code() == 6


@pytest.mark.usefixtures("only_run")
def test_a_second_ctrl_c_detaches_and_stop_ends_the_run(work: Path) -> None:
    person = Typist(work, "launch", "long.yaml", "-y")
    person.wait_for(r"step \d+/2,000")
    person.type("\x03")
    person.wait_for(r"\[s\]top")
    person.type("\x03")
    person.wait_for("gpurun resume long-")
    assert person.exit_code() == 130
    assert "running" in gpurun(work, "ps").stdout
    stopped = gpurun(work, "stop", "-y")
    assert stopped.returncode == 0
    assert "outcome     stopped\n" in stopped.stdout
    assert gpurun(work, "wait").returncode == 6


@pytest.mark.usefixtures("only_run")
def test_a_no_launches_nothing(work: Path, home: Path) -> None:
    person = Typist(work, "launch", "short.yaml")
    person.wait_for(r"Launch\?")
    person.type("n\n")
    assert person.exit_code() == 6
    assert list((home / "runs").iterdir()) == []


@pytest.mark.usefixtures("only_run")
def test_the_next_command_takes_up_a_run_whose_controller_was_killed(work: Path, home: Path) -> None:
    assert gpurun(work, "launch", "long.yaml", "-y", "--detach").returncode == 0
    ledger = Ledger(home / "ledger.sqlite")
    until = time.monotonic() + 30
    while (row := ledger.runs()[0]).memory.state != "running":
        assert time.monotonic() < until
        time.sleep(0.1)
    assert row.lease_holder is not None
    os.kill(int(row.lease_holder.split(":")[1]), signal.SIGKILL)
    time.sleep(0.2)
    assert f"nobody held {row.run_id}" in gpurun(work, "ps").stderr
    while ledger.runs()[0].lease_epoch == row.lease_epoch:
        assert time.monotonic() < until + 30
        time.sleep(0.1)
    ledger.close()
    assert gpurun(work, "stop", "-y").returncode == 0


@pytest.mark.usefixtures("only_run")
def test_a_run_whose_ledger_is_lost_is_named_by_doctor_and_ended_by_what_it_says(work: Path, home: Path) -> None:
    assert gpurun(work, "launch", "long.yaml", "-y", "--detach").returncode == 0
    until = time.monotonic() + 30
    ledger = Ledger(home / "ledger.sqlite")
    while (row := ledger.runs()[0]).memory.state != "running":
        assert time.monotonic() < until
        time.sleep(0.1)
    ledger.close()
    assert row.lease_holder is not None
    os.kill(int(row.lease_holder.split(":")[1]), signal.SIGKILL)
    (folder,) = (home / "runs").iterdir()
    for path in home.glob("ledger.sqlite*"):
        path.rename(home / f"lost-{path.name}")
    (told,) = [check for check in json.loads(gpurun(work, "doctor", "--json").stdout) if check["name"] == "unknown"]
    assert (told["verdict"], folder.name in told["text"]) == ("bad", True)
    subprocess.run(["sh", "-c", told["next"]], check=True)
    while "unknown" in gpurun(work, "doctor", "--json").stdout:
        assert time.monotonic() < until


@pytest.mark.usefixtures("only_run")
def test_python_files_in_the_home_are_not_taken_for_gpurun_or_the_library(work: Path, home: Path) -> None:
    home.mkdir()
    for name in ("orchestrator.py", "providers.py", "sqlite3.py"):
        (home / name).write_text("raise SystemExit('somebody else')")
    assert gpurun(work, "launch", "short.yaml", "-y").returncode == 0


@pytest.mark.usefixtures("only_run")
def test_a_probe_goes_on_with_what_there_is_time_for_and_stops_the_rest(work: Path) -> None:
    (work / "endless.yaml").write_text((work / "long.yaml").read_text().replace("2000", "9000000"))
    (work / "middling.yaml").write_text((work / "short.yaml").read_text().replace('"10"', '"120"'))
    went = gpurun(work, "launch", "middling.yaml", "-y", "--probe")
    assert went.returncode == 0, went.stderr
    assert "20 steps there, then time and price anew" in went.stderr
    assert re.search(r"the probe: \d+ steps at [\d.]+ s each: .* until it must save: it goes on", went.stderr)
    stopped = gpurun(work, "launch", "endless.yaml", "-y", "--probe", "--json")
    assert stopped.returncode == 4, stopped.stderr
    last = json.loads(stopped.stdout.splitlines()[-1])
    assert (last["reason"], last["state"]) == ("deadline", "done")
    shown = " ".join(gpurun(work, "show").stdout.split())
    assert re.search(r"probe \d+ steps at [\d.]+ s each: .* left.*: stopped", shown)
