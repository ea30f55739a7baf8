"""A machine with a store: its watchdog keeps the uploader alive, and ends the machine once all is verified there."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from boxes import PAYLOAD, Box, until
from vendor import KEY, Vendor

from orchestrator.store import Ability, open_store, parse
from orchestrator.store_remote import StoreRemote

RUN = "demo-261122-abcdef"
MAKES = """
import os
os.makedirs("artifacts")
open("artifacts/model", "wb").write(b"weights" * 1000)
"""


@pytest.fixture
def box(tmp_path):
    made: list[Box] = []

    def make(**job) -> Box:
        made.append(Box(tmp_path / "job", **job))
        for name in ("upload.py", "courier.py", "cargo.py", "loose.py"):
            shutil.copy(PAYLOAD / name, made[-1].folder / "payload" / name)
        return made[-1]

    yield make
    left = [one for each in made for one in each.clean()]
    assert left == []


def give_store(each: Box, bucket, endpoint: str = "") -> StoreRemote:
    store = open_store(parse(bucket.address, endpoint or bucket.endpoint))
    ability = Ability(policies=True, checksums=True)
    grant = store.grant(RUN, 1, datetime.now(UTC) + timedelta(hours=1), ability)
    each.put("store.json", json.loads(grant.reveal()))
    return StoreRemote(parse(bucket.address, bucket.endpoint), RUN, 1)


def give_ender(each: Box, vendor: Vendor, house: Path) -> Path:
    folder = house / ".gpurun" / "ender" / each.mark
    argv = [sys.executable, "-B", PAYLOAD / "ender.py", "keep", folder]
    subprocess.run(argv, input=json.dumps(vendor.orders()).encode(), check=True, timeout=30)
    program = folder / "ender.py"
    program.write_text(program.read_text().replace("LONGEST_WAIT = 15.0", "LONGEST_WAIT = 0.3"))
    return folder


@pytest.fixture
def house(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "house"))
    (tmp_path / "house" / ".gpurun").mkdir(parents=True)
    return tmp_path / "house"


def uploaders(each: Box) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words = (path / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if os.fsencode(each.folder / "payload" / "upload.py") in words:
            found.append(int(path.name))
    return found


def test_a_machine_whose_results_are_verified_in_the_store_waits_for_nobody(box, bucket, house) -> None:
    each = box(deadline=600)
    with Vendor() as vendor:
        folder = give_ender(each, vendor, house)
        remote = give_store(each, bucket)
        each.go(MAKES)
        each.silence(90)
        assert vendor.told()
    assert each.read("watchdog.json")["fired"] == "all is in the store"
    assert not folder.exists()
    assert remote.is_whole()
    assert remote.status().reason == "completed"
    assert KEY not in json.dumps(each.read("watchdog.json"))
    until(lambda: not uploaders(each), "the uploader's end")


def test_without_an_ender_the_watchdog_stays_until_all_is_there_and_leaves(box, bucket) -> None:
    each = box(deadline=600)
    remote = give_store(each, bucket)
    each.go(MAKES)
    until(lambda: uploaders(each), "an uploader")
    os.kill(uploaders(each)[0], signal.SIGKILL)
    each.silence(90)
    assert each.read("watchdog.json")["store"] == "whole"
    assert remote.is_whole()


def test_a_store_that_never_answers_holds_nothing_past_the_deadline(box, bucket) -> None:
    each = box(deadline=6)
    give_store(each, bucket, "http://127.0.0.1:9")
    each.go(MAKES)
    until(lambda: each.read("watchdog.json").get("store_error"), "its trouble")
    each.silence(60)
    assert each.read("watchdog.json")["store"] == "busy"
    until(lambda: not uploaders(each), "the uploader's end")
