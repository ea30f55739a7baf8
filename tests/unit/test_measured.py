"""What a finished run measured: kept in the ledger, and quoted instead of what is modelled."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from fakes import START, FakeRemote
from quotes import launched, plan, rows_in

from orchestrator.cost import Spell
from orchestrator.estimate.learnt import MOST_ROWS, Measured, Past, bare, grouped
from orchestrator.facts import Memory
from orchestrator.home import Home
from orchestrator.ledger import Ledger
from orchestrator.measuring import measured
from orchestrator.plan import Quote
from orchestrator.words import Reason, State

if TYPE_CHECKING:
    from pathlib import Path

    from worlds import World

    from orchestrator.records import RunRow


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home").ensure()


@pytest.fixture
def ledger(home: Home) -> Ledger:
    return Ledger(home.ledger)


@pytest.fixture
def rows(tmp_path: Path) -> str:
    return rows_in(tmp_path)


def finished(row: RunRow, result: dict[str, Any], *, seconds: float = 600.0, reason: str = "completed") -> Measured:
    begun = START.timestamp()
    spell = Spell(Decimal("1.29"), 1, begun, begun + 2, begun + seconds, begun + seconds)
    memory = Memory(state=State.DONE, reason=Reason(reason), step=(row.plan["quote"]["steps"] or 1))
    found = measured(replace(row, memory=memory, spells=(spell,)), result)
    assert found is not None
    return found


def result_of(train: float = 300.0, **more: Any) -> dict[str, Any]:
    begun = START.timestamp()
    return {
        "started": begun + 50,
        "ended": begun + 580,
        "stage_seconds": {"load": 40.0, "train": train, "save": 5.0, "export": 2.0},
        "memory_gib": {"allocated": 9.0, "reserved": 10.0, "process": 10.5},
        "tokens_per_second": 1234.5,
        **more,
    }


def test_like_work_is_quoted_as_it_was_measured(home: Home, ledger: Ledger, rows: str, tmp_path: Path) -> None:
    row = launched(home, ledger, rows)
    ledger.keep_measured(finished(row, result_of()))
    again = plan(home, ledger, rows).quote
    assert again.measured == f"your run of {row.run_id}"
    assert again.memory_gib["process"][1] == 10.5
    assert again.stages["training"][1] == 300.0
    assert set(again.stages) == {"boot", "setup", "load", "training", "checkpoints", "bring home"}
    assert again.stages["boot"][1] == 50.0
    assert again.stages["checkpoints"][1] == 7.0
    assert again.stages["bring home"][1] == 20.0
    assert f"measured on your run of {row.run_id}" in again.basis
    more = tmp_path / "more.jsonl"
    more.write_text((tmp_path / "rows.jsonl").read_text() * 2)
    other = plan(home, ledger, f"data.train={more}").quote
    assert other.stages["training"][1] == pytest.approx(600.0, rel=0.01), "twice the rows at the pace that was measured"
    assert other.memory_gib["allocated"][1] == 9.0
    assert "weights" in other.stages, "the time to load is of the very same work alone"


def test_other_work_learns_boot_and_setup_of_the_same_offer_alone(home: Home, ledger: Ledger, rows: str) -> None:
    ledger.keep_measured(finished(launched(home, ledger, rows), result_of()))
    other = plan(home, ledger, rows, "max_length=512", "batch_size=2").quote
    assert other.stages["boot"][1] == 50.0
    assert other.stages["setup"][1] == 530.0 - 347.0
    assert other.stages["training"][1] != 300.0
    assert other.memory_gib["allocated"][1] != 9.0
    elsewhere = plan(home, ledger, rows, gpu="a100").quote
    assert elsewhere.measured == ""


def test_what_ran_with_smaller_batches_is_no_measure_of_what_was_quoted(home: Home, ledger: Ledger, rows: str) -> None:
    row = launched(home, ledger, rows)
    assert finished(row, result_of(micro_batch=row.plan["quote"]["micro_batch"])).like
    assert not finished(row, result_of(micro_batch=1)).like


def test_a_run_that_failed_tells_memory_and_pace_but_no_stages_of_the_same_work(
    home: Home, ledger: Ledger, rows: str
) -> None:
    ledger.keep_measured(finished(launched(home, ledger, rows), result_of(), reason="stopped"))
    again = plan(home, ledger, rows).quote
    assert again.memory_gib["allocated"][1] == 9.0
    assert "weights" in again.stages


def test_work_that_no_model_covers_is_quoted_by_runs_of_the_very_same(home: Home, ledger: Ledger) -> None:
    row = launched(home, ledger, name="loop")
    ledger.keep_measured(finished(row, result_of(), seconds=100.0))
    same = plan(home, ledger, "max_hours=6", name="loop").quote
    assert same.seconds_likely == 100.0
    assert same.likely == Decimal("0.0358")
    assert plan(home, ledger, "max_hours=6", "epochs=11", name="loop").quote.seconds_likely is None


@pytest.mark.parametrize(
    "nonsense",
    [
        {"memory_gib": "big", "stage_seconds": [1], "started": "yesterday"},
        {"memory_gib": {"allocated": float("nan")}, "stage_seconds": {"train": -1, "load": "x"}, "ended": None},
        {"started": 9e99, "ended": -5, "tokens_per_second": True},
    ],
)
def test_what_is_no_number_is_no_measurement(home: Home, ledger: Ledger, rows: str, nonsense: dict[str, Any]) -> None:
    found = finished(launched(home, ledger, rows), nonsense)
    assert found.memory_gib == {}
    assert found.tokens_per_second is None
    ledger.keep_measured(found)
    assert plan(home, ledger, rows).quote.likely is not None


def test_a_result_that_cant_be_read_keeps_no_run_open(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = {"result.json": b"{", "artifacts/model.bin": b"weights after 60"}
    whole = FakeRemote._files
    monkeypatch.setattr(FakeRemote, "_files", lambda self: broken if "result.json" in whole(self) else whole(self))
    world.drive()
    assert world.memory.is_done
    assert world.ledger.measured() == []


_WHOLE: tuple[Any, ...] = (True, "w", "like", "fake", "a10", 900.0)


def row(number: int, **more: Any) -> Measured:
    facts = {"stages": {"boot": 100.0 + number}, "memory_gib": {"allocated": 5.0}, "pace": 1000.0, **more}
    return Measured(f"r-{number}", float(number), *_WHOLE, **facts)


def test_only_the_newest_runs_count_and_more_of_them_narrow_the_band() -> None:
    learnt = [Past([row(one) for one in range(count)]).learnt(None, None, 0, ("fake", "a10"), "w") for count in (1, 9)]
    assert learnt[0] is not None
    assert learnt[1] is not None
    one, nine = dict(learnt[0].stages)["boot"], dict(learnt[1].stages)["boot"]
    assert (one[2] - one[0]) / one[1] > (nine[2] - nine[0]) / nine[1]
    assert nine[1] == 100.0 + 9 - 1 - MOST_ROWS // 2
    assert learnt[1].basis == "5 runs of yours, the last r-8"


def test_a_region_is_no_part_of_what_an_offer_is() -> None:
    assert bare("gpu_1x_a10@us-west-1") == "gpu_1x_a10"


def test_stages_are_grouped_by_the_names_under_which_they_are_measured() -> None:
    assert grouped({"weights": 2.0, "load": 3.0, "first step": 1.0, "training": 5.0, "boot": 7.0}) == {
        "boot": 7.0, "load": 5.0, "training": 6.0,
    }  # fmt: skip


def test_an_empty_quote_is_one_of_the_limits_alone() -> None:
    assert Quote(None, None, Decimal(1), None, "").stages == {}
