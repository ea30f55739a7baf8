"""One pace for all processes of a user, whatever becomes of the file that they share."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from providers.pacing import Pacer, pacer_for

ROOT = Path(__file__).parents[2]

PACED = """
import sys, time
from pathlib import Path
from providers.pacing import Pacer
pacer = Pacer(Path(sys.argv[1]), {"": 0.06, "launch": 0.0})
print("ready", flush=True)
sys.stdin.readline()
for _ in range(5):
    pacer.wait("")
    print(time.time(), flush=True)
"""


def test_two_processes_share_one_pace(tmp_path):
    argv = [sys.executable, "-c", PACED, str(tmp_path / "deep" / "pace.json")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "cwd": ROOT}
    with subprocess.Popen(argv, **pipes) as one, subprocess.Popen(argv, **pipes) as other:
        for process in (one, other):
            assert process.stdout.readline() == "ready\n"
        for process in (one, other):
            process.stdin.write("go\n")
            process.stdin.flush()
        moments = sorted(float(line) for process in (one, other) for line in process.stdout)
    assert len(moments) == 10
    assert moments[-1] - moments[0] >= 9 * 0.06 - 0.02


def test_threads_share_one_pace(tmp_path):
    pacer = Pacer(tmp_path / "pace.json", {"": 0.02})
    begun = time.monotonic()
    threads = [threading.Thread(target=pacer.wait, args=("",)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert time.monotonic() - begun >= 5 * 0.02


def test_a_lane_has_a_pace_of_its_own_beside_the_common_one(tmp_path):
    pacer = Pacer(tmp_path / "pace.json", {"": 0.0, "launch": 2.0})
    begun = time.monotonic()
    pacer.wait("launch")
    pacer.wait("")
    assert time.monotonic() - begun < 2.0
    pacer.wait("launch")
    assert time.monotonic() - begun >= 2.0


def test_ten_launches_at_once_take_ten_slots(tmp_path):
    waits = [Pacer(tmp_path / "pace.json", {"": 0.0, "launch": 13.0})._take("launch") for _ in range(10)]
    assert waits == pytest.approx([13.0 * number for number in range(10)], abs=1)


def test_the_next_process_waits_for_the_last_one_s_slot(tmp_path):
    Pacer(tmp_path / "pace.json", {"": 0.3}).wait("")
    assert 0.1 < Pacer(tmp_path / "pace.json", {"": 0.3})._take("") <= 0.3


@pytest.mark.parametrize(
    ("header", "wait"),
    [
        ('"minute";r=4;t=20, "hour";r=2800;t=1812', 4),
        ('"minute";r=0;t=12', 12),
        ('"minute";r=0;t=3000', 60),
        ('"minute";r=30;t=20', 0),
        ("", 0),
        ("r=nan;t=inf", 0),
    ],
)
def test_what_a_vendor_has_left_for_us_is_spread_over_its_window(tmp_path, header, wait):
    pacer = Pacer(tmp_path / "pace.json", {"": 0.0})
    pacer.spare(header, 60)
    assert pacer._take("") == pytest.approx(wait, abs=0.5)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b'{"": "soon"}',
        b'{"": NaN}',
        b'{"": 1e300}',
        b"\0" * 100,
        b'{"": true}',
        b'{"": 32503680000.5}',
    ],
)
def test_a_pace_file_that_makes_no_sense_stops_nobody(tmp_path, content):
    path = tmp_path / "pace.json"
    path.write_bytes(content)
    assert Pacer(path, {"": 0.1})._take("") == 0
    assert 0 < Pacer(path, {"": 0.1})._take("") <= 0.1


def test_a_clock_that_jumped_back_stops_nobody(tmp_path):
    path = tmp_path / "pace.json"
    path.write_text(json.dumps({"": time.time() + 3600}))
    assert Pacer(path, {"": 0.1})._take("") == 0


def test_a_process_that_froze_with_the_lock_stops_nobody(tmp_path, monkeypatch, caplog):
    import fcntl

    monkeypatch.setattr("providers.pacing._LOCK_SECONDS", 0.05)
    path = tmp_path / "pace.json"
    pacer = Pacer(path, {"": 0.1})
    pacer.wait("")
    with path.open("rb") as frozen:
        fcntl.flock(frozen, fcntl.LOCK_EX)
        assert pacer._take("") > 0  # this process still knows its own last slot
    assert "other processes' requests are not counted" in caplog.text


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_folder_that_can_not_be_written_paces_this_process(tmp_path):
    tmp_path.chmod(0o500)
    pacer = Pacer(tmp_path / "pace" / "pace.json", {"": 0.1})
    assert pacer._take("") == 0
    assert pacer._take("") > 0
    tmp_path.chmod(0o700)


def test_a_path_that_can_not_be_made_paces_this_process_and_says_so_once(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    pacer = Pacer(tmp_path / "file" / "pace.json", {"": 0.1})
    assert pacer._take("") == 0
    assert pacer._take("") > 0
    assert len(caplog.records) == 1


def test_a_link_in_the_pace_s_place_is_not_written_through(tmp_path):
    (tmp_path / "victim").write_text("mine")
    (tmp_path / "pace.json").symlink_to(tmp_path / "victim")
    Pacer(tmp_path / "pace.json", {"": 0.1}).wait("")
    assert (tmp_path / "victim").read_text() == "mine"


def test_each_vendor_and_key_has_a_pace_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    paths = {
        pacer_for(vendor, base, account, {"": 1.0})._path
        for vendor in ("lambda", "runpod")
        for base in ("https://a/api", "http://127.0.0.1:80/api")
        for account in ("k1", "../../k2")
    }
    assert len(paths) == 8
    assert {path.parent for path in paths} == {tmp_path / "gpurun" / "pace"}
