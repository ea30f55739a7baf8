"""From a wish to a run in the ledger: what is not launched leaves nothing, and a quote knows only the same work."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from fakes import START, Clock, FakeCloud

from orchestrator import launch, templates
from orchestrator.home import Home
from orchestrator.ledger import Ledger
from providers.base import Mark
from providers.errors import RefusedError

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.launch import Prepared


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home").ensure()


@pytest.fixture
def ledger(home: Home) -> Ledger:
    return Ledger(home.ledger)


def prepare(home: Home, ledger: Ledger, *sets: str, gpu: str | None = None) -> Prepared:
    template = templates.load("loop", sets)
    return launch.prepare(home, ledger, FakeCloud(Clock()), template, gpu, START)


def folders(home: Home) -> list[str]:
    return [path.name for path in home.runs.iterdir()]


def test_a_dry_run_leaves_nothing_behind(home: Home, ledger: Ledger) -> None:
    prepared = prepare(home, ledger)
    assert folders(home) == [prepared.row.run_id]
    prepared.discard()
    assert folders(home) == []
    assert ledger.runs() == []


def test_a_refusal_leaves_nothing_behind(home: Home, ledger: Ledger) -> None:
    with pytest.raises(RefusedError):
        prepare(home, ledger, gpu="h100")
    with pytest.raises(RefusedError):
        prepare(home, ledger, "max_cost=0.0001")
    assert folders(home) == []


def test_a_run_is_whole_on_disk_before_the_ledger_knows_it(home: Home, ledger: Ledger) -> None:
    prepared = prepare(home, ledger)
    folder = home.run(prepared.row.run_id)
    assert all(path.is_file() for path in (folder.bundle, folder.config, folder.job))
    launch.commit(prepared, ledger, START)
    assert [row.run_id for row in ledger.runs(unfinished=True)] == [prepared.row.run_id]


def test_thinking_about_the_question_shortens_nothing(home: Home, ledger: Ledger) -> None:
    prepared = prepare(home, ledger)
    late = START + timedelta(minutes=5)
    row = ledger.run(launch.commit(prepared, ledger, late))
    assert row.deadline - row.created == prepared.row.deadline - START.timestamp()


def test_a_mark_names_the_run_the_attempt_and_the_ceiling_in_64_letters(home: Home, ledger: Ledger) -> None:
    row = prepare(home, ledger).row
    mark = Mark(ledger.home_id, row.run_id, 1, START + timedelta(hours=30 * 24))
    assert Mark.parse(str(mark)) == mark
    longest = replace(mark, run_id=launch.new_run_id("a" * 40, START), attempt=99, node=9)
    assert len(str(longest)) <= 64
    assert Mark.parse(str(longest)) == longest


@pytest.mark.parametrize(
    "name",
    ["gpurun-dev", "my-gpurun-abcd-demo-261122-abcdef-1-tzzzzzz", "", "gpurun-ABCD-demo-261122-abcdef-1-tzzzzzz"],
)
def test_a_name_that_is_no_mark_is_foreign(name: str) -> None:
    assert Mark.parse(name) is None
