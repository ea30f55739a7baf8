"""The guard over HTTP with the real command line: it needs a key and nothing else, and the vendor's meter agrees."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
import requests
from desk import GPURUN, Desk, wait_for
from simulators_fixture import PUBLIC_KEY

from providers.base import Mark

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from simulators_fixture import LambdaSim

NO_SYSTEMD = {"XDG_RUNTIME_DIR": "/nonexistent", "DBUS_SESSION_BUS_ADDRESS": "unix:path=/nonexistent"}


@dataclass
class Post(Desk):
    """A computer with a home and the key of an account."""

    sim: LambdaSim = field(kw_only=True)

    def bills(self, *names: str) -> list[str]:
        """Somebody launched these by hand; gives their ids."""
        if not self.sim.state()["keys"]:
            self.sim.data("POST", "/ssh-keys", {"name": "key", "public_key": PUBLIC_KEY})
        usual = {"region_name": "us-west-1", "instance_type_name": "gpu_1x_a10", "ssh_key_names": ["key"]}
        return self.sim.tell("/launch", [{**usual, "name": name} for name in names])["ids"]

    def alive(self) -> set[str]:
        """Ids of what the meter still bills."""
        return {row["id"] for row in self.sim.meter()["allocations"] if row["ended"] is None}


def mark(hours: float, number: int = 0) -> str:
    return str(Mark("0bad", f"unit-261122-{number:06x}", 1, datetime.now(UTC) + timedelta(hours=hours)))


def post_at(sim: LambdaSim, home: Path) -> Post:
    return Post(sim.exports, home.parent, home, sim=sim)


@pytest.fixture
def desk(lambda_sim: LambdaSim, home: Path) -> Post:
    lambda_sim.may_bill = True  # each test says what may be left
    return post_at(lambda_sim, home)


def test_a_laptop_that_is_gone_leaves_a_machine_that_any_guard_ends_after_its_ceiling(
    desk: Post, tmp_path: Path
) -> None:
    options = ["--provider", "lambda", "--gpu", "a10", "--max-hours", "0.01", "-y", "--accept-risk", "--detach"]
    launched = desk.gpurun("launch", "loop", *options)
    assert launched.code == 0, launched.err
    wait_for(desk.alive, "a machine")
    psutil.Process(wait_for(desk.holder, "a controller")).kill()
    ceiling = Mark.parse(desk.sim.meter()["allocations"][0]["name"]).ceiling
    shutil.rmtree(desk.home)

    elsewhere = post_at(desk.sim, tmp_path / "elsewhere")
    early = elsewhere.gpurun("guard", "once")
    if datetime.now(UTC) < ceiling:
        assert early.code == 0, early
        assert "1 live" in early.out
        assert len(desk.alive()) == 1
    time.sleep(max((ceiling - datetime.now(UTC)).total_seconds(), 0) + 0.1)
    late = elsewhere.gpurun("guard", "once")
    assert late.code == 0, late
    assert "(overdue): unlisted in" in late.out
    (row,) = desk.sim.meter()["allocations"]
    assert row["ended_by"] == "terminate"
    assert datetime.fromisoformat(row["ended"]) >= ceiling
    assert not (elsewhere.home / "ledger.sqlite").exists()


def test_a_run_that_nobody_holds_is_given_to_a_controller_that_outlives_the_guards_pass(desk: Post) -> None:
    options = ["--provider", "lambda", "--gpu", "a10", "--max-hours", "1", "-y", "--accept-risk", "--detach"]
    assert desk.gpurun("launch", "loop", *options).code == 0
    wait_for(desk.alive, "a machine")
    killed = wait_for(desk.holder, "a controller")
    psutil.Process(killed).kill()
    tended = desk.gpurun("guard", "once")
    assert tended.code == 0, tended
    assert "1 live" in tended.out
    assert "background controllers were started" in tended.out
    wait_for(lambda: desk.holder() not in {0, killed}, "another controller")
    assert desk.gpurun("stop", "-y").code == 0
    assert desk.alive() == set()


def test_a_thousand_marked_machines_on_many_pages_are_judged_in_one_pass(desk: Post) -> None:
    names = [mark(-1 if number % 2 else 1, number) for number in range(1000)]
    ids = desk.bills(*names, *(f"box {number}" for number in range(50)))
    overdue = {ids[number] for number in range(1000) if number % 2}
    desk.sim.faults({"second_page": {"size": 100}})
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = desk.gpurun("guard", "once", "--json")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.code == 0, done.err
    seen = json.loads(done.out)["providers"]["lambda"]
    assert {one["id"] for one in seen["ended"]} == overdue
    assert seen["counts"] == {"live": 500, "foreign": 50}
    assert desk.alive() == set(ids) - overdue
    orders = [one for one in desk.sim.asked() if one["operation"] == "terminate"]
    assert len(orders) == 25
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 5


def test_a_sweep_shows_all_that_bills_and_ends_only_what_should_be_gone(desk: Post) -> None:
    overdue, live, foreign = desk.bills(mark(-1), mark(1), "my own box")
    shown = desk.gpurun("sweep")
    assert (shown.code, desk.alive()) == (2, {overdue, live, foreign})  # nobody was there to say yes
    lines = shown.out.splitlines()
    words = ("OVERDUE", "live, of another home", "also billing here")
    assert all(word in line for word, line in zip(words, lines[1:4], strict=True)), shown.out  # then what has no key
    as_data = desk.gpurun("sweep", "--json")
    assert (as_data.code, desk.alive()) == (5, {overdue, live, foreign})
    assert [row["verdict"] for row in json.loads(as_data.out)["allocations"]] == ["overdue", "live", "foreign"]
    swept = desk.gpurun("sweep", "-y")
    assert swept.code == 0, swept
    assert desk.alive() == {live, foreign}
    assert (desk.gpurun("sweep").code, desk.alive()) == (0, {live, foreign})


@pytest.fixture
def crontab() -> Iterator[Callable[[], list[str]]]:
    """The user's own crontab, put back afterwards."""
    if os.getuid() or shutil.which("crontab") is None:
        pytest.skip("needs root and cron")
    before = subprocess.run(["crontab", "-l"], capture_output=True, text=True, check=False)

    def lines() -> list[str]:
        done = subprocess.run(["crontab", "-l"], capture_output=True, text=True, check=False)
        return done.stdout.splitlines()

    try:
        yield lines
    finally:
        if before.returncode:
            subprocess.run(["crontab", "-r"], capture_output=True, check=False)
        else:
            subprocess.run(["crontab", "-"], input=before.stdout, text=True, check=True)


def as_cron_would(line: str) -> int:
    """Run a crontab's line: five fields, a command in which \\% is %, next to no environment."""
    command = line.split(maxsplit=5)[5].replace("\\%", "%")
    bare = {"HOME": str(Path.home()), "LOGNAME": "root", "SHELL": "/bin/sh", "PATH": "/usr/bin:/bin"}
    return subprocess.run(["/bin/sh", "-c", command], env=bare, timeout=120, check=False).returncode


def test_an_installed_guards_cron_line_ends_what_is_overdue_with_an_empty_environment(
    desk: Post, crontab: Callable[[], list[str]], tmp_path: Path
) -> None:
    desk.home = tmp_path / "a home, 100% mine"
    others = crontab()
    for _ in range(2):
        installed = desk.gpurun("guard", "install", **NO_SYSTEMD)
        assert installed.code == 0, installed.err
        assert "cron, each minute" in installed.out
    (line,) = [one for one in crontab() if one not in others]
    assert (desk.home / "credentials").stat().st_mode & 0o777 == 0o600
    files = [desk.home / "guard.sh", desk.home / "guard.json"]
    assert not any(desk.sim.key in text for text in (line, *(path.read_text() for path in files)))

    (overdue, live) = desk.bills(mark(-1), mark(1))
    assert as_cron_would(line) == 0, (desk.home / "guard.log").read_text()
    assert desk.alive() == {live}
    assert overdue not in desk.alive()
    status = desk.gpurun("guard", "status", "--json", **NO_SYSTEMD)
    told = json.loads(status.out)
    assert (status.code, told["installed"]["way"], told["providers"]["lambda"]["counts"]) == (0, "cron", {"live": 1})
    assert "guard: " in desk.gpurun("ps", **NO_SYSTEMD).err

    removed = desk.gpurun("guard", "uninstall", **NO_SYSTEMD)
    assert (removed.code, crontab()) == (0, others)
    assert not (desk.home / "guard.sh").exists()


def test_an_install_whose_key_is_refused_fails_and_says_so(desk: Post, crontab: Callable[[], list[str]]) -> None:
    others = crontab()
    wrong = desk.gpurun("guard", "install", LAMBDA_API_KEY="secret_wrong_0123456789", **NO_SYSTEMD)
    assert wrong.code == 3
    assert "the key was not taken" in wrong.err
    assert "the timer stays installed" in wrong.err
    assert len(crontab()) == len(others) + 1
    without = desk.gpurun("login", "lambda", "--forget")
    assert without.code == 0
    none = desk.gpurun("guard", "install", LAMBDA_API_KEY="", **NO_SYSTEMD)
    assert (none.code, "gpurun login lambda" in none.err) == (3, True)
    assert desk.gpurun("guard", "uninstall", **NO_SYSTEMD).code == 0
    assert crontab() == others


def test_a_guard_whose_key_was_revoked_or_whose_vendor_is_down_says_so_and_leaves_with_5(desk: Post) -> None:
    (overdue,) = desk.bills(mark(-1))
    revoked = desk.gpurun("guard", "once", "--quiet", LAMBDA_API_KEY="secret_revoked_0123456789")
    assert (revoked.code, desk.alive()) == (5, {overdue})
    assert "CAN'T TELL: lambda: the key was not taken" in revoked.out
    desk.sim.faults({"unavailable": 100})
    down = desk.gpurun("guard", "once", "--quiet")
    assert (down.code, desk.alive()) == (5, {overdue})
    assert "all well" not in down.out
    assert "CAN'T TELL" in desk.gpurun("guard", "status").out
    assert desk.alive() == {overdue}


def test_a_stored_key_was_tried_and_is_used_where_none_is_set(desk: Post) -> None:
    refused = desk.gpurun("login", "lambda", "--from-env", LAMBDA_API_KEY="secret_wrong_0123456789")
    assert (refused.code, (desk.home / "credentials").exists()) == (3, False)
    stored = desk.gpurun("login", "lambda", "--from-env")
    assert stored.code == 0, stored.err
    assert desk.sim.key not in stored.err
    assert desk.gpurun("guard", "once", LAMBDA_API_KEY="").code == 0
    assert desk.gpurun("guard", "once", LAMBDA_API_KEY="secret_wrong_0123456789").code == 5


def on_a_terminal(desk: Post, *args: str) -> str:
    """What a person sees."""
    ours, theirs = os.openpty()
    env = {**os.environ, **desk.sim.exports, "GPURUN_HOME": str(desk.home), "TERM": "xterm"}
    with open(ours, "rb", buffering=0) as reader:  # noqa: PTH123 (a descriptor)
        process = subprocess.Popen([*GPURUN, *args], stdout=theirs, stderr=subprocess.DEVNULL, env=env)
        os.close(theirs)
        said = b""
        try:
            while piece := reader.read(4096):
                said += piece
        except OSError:  # how Linux tells that the other side is closed
            pass
        process.wait(60)
    return said.decode()


def test_what_is_not_proven_gone_stands_first_in_red_with_its_console_and_every_look_leaves_with_5(
    start_lambda: Callable[..., LambdaSim], home: Path
) -> None:
    desk = post_at(start_lambda(pace=100), home)
    desk.sim.faults({"terminate_ignored": 10**6})
    launched = desk.gpurun(
        "launch", "loop", "--provider", "lambda", "--gpu", "a10", "-y", "--accept-risk", "--max-hours", "1", "--detach"
    )
    assert launched.code == 0, launched.err
    wait_for(desk.alive, "a machine")
    assert desk.gpurun("stop", "-y", "--detach").code == 0
    wait_for(lambda: "terminating" in desk.gpurun("ps").out, "the order to end it")
    for words in (["ps"], ["ps", "--json"], ["show"], ["doctor"]):
        assert desk.gpurun(*words).code == 5, words
    shown = desk.gpurun("ps").out.splitlines()
    assert "terminating" in shown[1]
    assert any("https://cloud.lambda.ai/instances" in line for line in shown[2:4])
    assert "\x1b[31m" in on_a_terminal(desk, "ps").splitlines()[1]

    requests.delete(desk.sim.control + "/faults", timeout=30).raise_for_status()
    desk.sim.faults({"terminate_ignored": 3, "api_down": {"seconds": 60}})
    done = desk.gpurun("wait", "--json")
    assert (done.code, json.loads(done.out)["state"]) == (6, "done")
    assert desk.alive() == set()
    assert desk.gpurun("ps").code == 0
