"""The watchdog of a machine that can end itself: real processes, a real ender, and a vendor over HTTP."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from boxes import PAYLOAD, SAVES, STRAYS, steps, until
from vendor import KEY, Vendor

DEAF = "signal.signal(signal.SIGTERM, signal.SIG_IGN)"


@pytest.fixture
def vendor():
    with Vendor() as vendor:
        yield vendor


@pytest.fixture
def house(tmp_path, monkeypatch):
    """The home of the machine's user: no root keeps this ender, whoever runs the test."""
    monkeypatch.setenv("HOME", str(tmp_path / "house"))
    (tmp_path / "house" / ".gpurun").mkdir(parents=True)
    return tmp_path / "house"


def give(each, house, orders) -> Path:
    """Give a box its ender, one that waits less between its rounds."""
    folder = house / ".gpurun" / "ender" / each.mark
    argv = [sys.executable, "-B", PAYLOAD / "ender.py", "keep", folder]
    subprocess.run(argv, input=json.dumps(orders).encode(), check=True, timeout=30)
    program = folder / "ender.py"
    program.write_text(program.read_text().replace("LONGEST_WAIT = 15.0", "LONGEST_WAIT = 0.3"))
    return folder


def gone(each, folder):
    """Wait until the vendor insisted, and nothing is left: no process, no key."""
    each.silence(90)
    assert not folder.exists()


def enders(folder) -> list[int]:
    """Every process that has to do with an ender's folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if os.fsencode(folder) in (path / "cmdline").read_bytes():
                found.append(int(path.name))
        except OSError:
            continue
    return found


def test_at_the_deadline_the_machine_is_ended_whatever_the_training_does(box, house, vendor):
    each = box(deadline=3, ceiling=60, grace_seconds=0.2)
    folder = give(each, house, vendor.orders())
    each.go(steps(more=DEAF))
    each.step(1)
    gone(each, folder)
    assert each.read("watchdog.json")["fired"] == "the deadline has passed"
    assert 0 <= vendor.told()[0] - each.limits["deadline"] < 30


def test_a_job_that_is_over_waits_to_be_emptied_until_the_deadline_and_no_longer(box, house, vendor):
    each = box(deadline=5, ceiling=60)
    folder = give(each, house, vendor.orders())
    each.go("pass")
    until(lambda: each.read("result.json"), "its result")
    until(lambda: each.read("watchdog.json").get("ended") == "done", "its end")
    assert len(each.living()) == 1  # the watchdog
    assert vendor.told() == []
    gone(each, folder)
    assert vendor.told()[0] >= each.limits["deadline"]


def test_without_an_agent_the_processes_go_at_once_and_the_machine_at_the_deadline(box, house, vendor):
    each = box(deadline=8, ceiling=60)
    folder = give(each, house, vendor.orders())
    each.go(STRAYS + "\ntime.sleep(99)")
    until(lambda: len(each.living()) == 7, "the whole tree")
    os.kill(each.agent(), signal.SIGKILL)
    until(lambda: len(each.living()) == 1, "only the watchdog")
    assert vendor.told() == []
    gone(each, folder)
    assert vendor.told()[0] >= each.limits["deadline"]


def test_armed_but_never_given_a_job_the_machine_goes_at_the_deadline(box, house, vendor):
    each = box(deadline=2, ceiling=60)
    folder = give(each, house, vendor.orders())
    assert each.arm().returncode == 0
    gone(each, folder)
    assert len(vendor.told()) >= 3


@pytest.mark.parametrize("how", ["its folder is removed", "by order"])
def test_where_nothing_is_left_to_fetch_the_machine_goes_at_once(box, house, vendor, how):
    each = box()
    folder = give(each, house, vendor.orders())
    each.go(steps(more=DEAF))
    each.step(1)
    if how == "by order":
        each.put("end.json", {})
    else:
        each.folder.rename(each.folder.with_name("elsewhere"))
    gone(each, folder)
    assert vendor.told()[0] < each.limits["deadline"]


def test_it_fires_again_when_its_ender_is_killed_and_when_it_is_killed_itself(box, house, vendor):
    each = box(deadline=1.5, ceiling=60)
    vendor.deaf = 10**6
    folder = give(each, house, vendor.orders())
    assert each.arm().returncode == 0
    until(vendor.told, "its first shot", 90)
    for victims in (lambda: enders(folder), lambda: [*enders(folder), each.watchdog()]):
        pids = victims()
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        told = len(vendor.told())
        if each.watchdog() in pids:  # as the system does where the agent is dead too
            until(lambda: not each.living(), "its end")
            assert each.arm().returncode == 0
        until(lambda told=told: len(vendor.told()) > told, "another shot")
    vendor.deaf = 0
    gone(each, folder)


def test_an_ender_that_was_stopped_goes_on(box, house, vendor):
    """As the agent may do that ends its training at the same moment: it stops all that may be of the job first."""
    each = box(deadline=1.5, ceiling=60)
    vendor.deaf = 10**6
    folder = give(each, house, vendor.orders())
    assert each.arm().returncode == 0
    until(vendor.told, "its first shot", 90)
    for pid in enders(folder):
        os.kill(pid, signal.SIGSTOP)
    vendor.deaf = 0
    gone(each, folder)


def test_a_vendor_that_is_away_at_the_deadline_is_asked_until_it_is_back(box, house, vendor):
    each = box(deadline=1.5, ceiling=60)
    orders = vendor.orders()
    vendor.troubles = [None, *[503] * 4]
    folder = give(each, house, orders)
    assert each.arm().returncode == 0
    gone(each, folder)
    assert vendor.status == "terminated"


def test_a_disk_that_takes_nothing_does_not_keep_it_from_firing(box, house, vendor):
    each = box(deadline=2.5, grace_seconds=0.1)
    for name in ("watchdog.json", "processes.json", "status.json"):
        (each.folder / name).mkdir()  # nothing can be moved onto a folder: every write of these fails
    folder = give(each, house, vendor.orders())
    each.go(steps(more=DEAF))
    gone(each, folder)
    assert 0 <= vendor.told()[0] - each.limits["ceiling"] < 30


def test_a_disk_that_hangs_does_not_keep_it_from_firing(box, house, vendor):
    each = box(deadline=6, grace_seconds=0.1)
    script = each.folder / "payload" / "watchdog.py"
    script.write_text(script.read_text().replace("HANGS = 10.0", "HANGS = 0.5"))
    folder = give(each, house, vendor.orders())
    each.go(steps(more=DEAF))
    each.step(1)
    os.mkfifo(each.folder / "order.json")  # a read that never comes back
    until(vendor.told, "its first shot", 90)
    until(lambda: vendor.status == "terminated" and len(each.living()) == 1, "only the watchdog is left, waiting", 90)
    (each.folder / "order.json").rename(each.folder / "pipe")
    (each.folder / "pipe").write_text("{}")
    gone(each, folder)


def test_its_proof_says_what_the_vendor_said_and_never_the_key(box, house, vendor):
    each = box(log_limit_bytes=2**20).go(steps(more=SAVES))
    until(lambda: "ender" in each.read("watchdog.json"), "a proof")
    assert each.read("watchdog.json")["ender"] == ""
    folder = give(each, house, vendor.orders())
    until(lambda: each.read("watchdog.json")["ender"] == "alive", "a look")
    proof = each.read("watchdog.json")
    assert proof["ender_evidence"] == "GET localhost/machines/m-1 → 200, alive"
    assert abs(proof["ender_at"] - time.time()) < 20
    assert vendor.told() == []
    seen = b"".join(path.read_bytes() for path in each.folder.rglob("*") if path.is_file())
    for pid in each.living():
        seen += Path(f"/proc/{pid}/cmdline").read_bytes() + Path(f"/proc/{pid}/environ").read_bytes()
    assert KEY.encode() not in seen
    each.put("end.json", {})
    gone(each, folder)


def test_a_key_that_is_refused_is_told(box, house, vendor):
    vendor.key = "another"
    each = box()
    folder = give(each, house, vendor.orders())
    each.go(steps(more=SAVES))
    until(lambda: each.read("watchdog.json").get("ender") == "refused", "a look")
    assert each.read("watchdog.json")["ender_failures"] == 1
    vendor.key = KEY
    each.put("end.json", {})
    gone(each, folder)


def test_a_training_that_ends_does_not_take_the_ender_along(box, house, vendor):
    """What cleans up behind a training must not take the watchdog's helpers for it."""
    each = box()
    looking = vendor.over
    vendor.troubles = [lambda _request: looking.wait(6)]
    folder = give(each, house, vendor.orders())
    each.go("import time; time.sleep(1)")
    helper = until(lambda: enders(folder), "its look")
    until(lambda: each.read("result.json"), "its result")
    assert enders(folder) == helper
    looking.set()
    each.put("end.json", {})
    gone(each, folder)
