"""A guard elsewhere is asked again while the run goes on, and the ledger knows when it fell silent."""

from __future__ import annotations

import json
import os
import time
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from fakes import Clock, FakeCloud
from past import NOW, admit

from orchestrator import rounds, settings_file
from orchestrator.facts import Memory
from orchestrator.home import Home
from orchestrator.ledger import Ledger
from orchestrator.rounds import Rounds
from orchestrator.words import State
from providers.base import utc

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from orchestrator.records import Lease, RunRow

RUN = "demo-261122-aaaaaa"
BOX = {"name": "the guard at box", "place": "elsewhere", "proof": "proven"}


@pytest.fixture
def held(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Home, Lease, RunRow]:
    """A run that counts on a guard elsewhere, and an `ssh` that tells what lies in a file."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "ssh").write_text('#!/bin/sh\nexec cat "$(dirname "$0")/pulse"\n')
    (folder / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(rounds, "EVERY_SECONDS", 0.02)
    admit(home, RUN, Memory(state=State.RUNNING))
    settings_file.set_value(home / settings_file.NAME, "guard-elsewhere", "ssh://me@box")
    with closing(Ledger(home / "ledger.sqlite")) as ledger:
        with ledger._db.write():
            ledger._db.execute("UPDATE runs SET plan = json_set(plan, '$.holders', json(?))", (json.dumps([BOX]),))
        lease = ledger.acquire(RUN, "me:1:1", utc(NOW), lambda _: False)
        assert lease is not None
        return Home(home), lease, ledger.run(RUN)


def tell(tmp_path: Path, when: float) -> None:
    cloud = FakeCloud(Clock())
    pulse = {"when": when, "providers": {cloud.name: {"account": cloud.account(), "troubles": [], "counts": {}}}}
    aside = tmp_path / "aside"
    aside.write_text(json.dumps(pulse))
    aside.replace(tmp_path / "bin" / "pulse")


def wait_for(home: Home, look: Callable[[RunRow], bool]) -> RunRow:
    until = time.monotonic() + 30
    with closing(Ledger(home.ledger)) as ledger:
        while not look(row := ledger.run(RUN)):
            assert time.monotonic() < until, row.holders
            time.sleep(0.02)
        return row


def test_a_guard_elsewhere_that_falls_silent_is_seen_to_be_absent(
    held: tuple[Home, Lease, RunRow], tmp_path: Path
) -> None:
    home, lease, row = held
    tell(tmp_path, time.time())
    with Rounds(home, lease, row, FakeCloud(Clock())) as asking:
        wait_for(home, lambda row: [one["proof"] for one in row.holders] == ["proven"])
        tell(tmp_path, time.time() - 900)
        found = wait_for(home, lambda row: [one["proof"] for one in row.holders] == ["absent"])
    asking.join()
    assert "15 min" in found.holders[0]["evidence"]
    with closing(Ledger(home.ledger)) as ledger:
        told = [event.text for event in ledger.events(RUN) if event.verb == "holder"]
    assert [text.split(": ")[1].split()[0] for text in told] == ["proven", "absent"]


def test_a_run_that_counts_on_nobody_elsewhere_asks_nobody(held: tuple[Home, Lease, RunRow], tmp_path: Path) -> None:
    home, lease, row = held
    tell(tmp_path, time.time())
    row.plan["holders"] = []
    with Rounds(home, lease, row, FakeCloud(Clock())) as asking:
        pass
    asking.join()
    with closing(Ledger(home.ledger)) as ledger:
        assert ledger.run(RUN).holders == ()


def test_one_that_lost_its_lease_asks_no_more(held: tuple[Home, Lease, RunRow], tmp_path: Path) -> None:
    home, lease, row = held
    tell(tmp_path, time.time())
    with closing(Ledger(home.ledger)) as ledger:
        assert ledger.acquire(RUN, "other:1:1", utc(NOW), lambda _: False) is not None
    asking = Rounds(home, lease, row, FakeCloud(Clock())).__enter__()
    asking.join()
    with closing(Ledger(home.ledger)) as ledger:
        assert ledger.run(RUN).holders == ()
