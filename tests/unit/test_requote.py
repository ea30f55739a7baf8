"""requote.py: what a probe on the machine says at home, and nothing where it says nonsense."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest

from orchestrator import requote
from orchestrator.facts import Memory
from orchestrator.jobs import _probe
from orchestrator.records import RunRow
from providers.base import Offer

if TYPE_CHECKING:
    from pathlib import Path

TOLD = {
    "step": 21,
    "steps": 20,
    "total_steps": 512,
    "seconds_per_step": 0.7,
    "rest_seconds": 343.7,
    "after_seconds": 60,
    "left_seconds": 1800.0,
    "usd": 0.4049,
    "holds": True,
    "time": 1.0,
    "tokens_per_second": 900.0,
    "peak_memory_gib": 10.5,
}


def written(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_the_newest_probe_of_a_run_is_told_with_its_time_and_price(tmp_path: Path) -> None:
    rows = [{"step": 1, "loss": 2.0}, {"probe": {**TOLD, "holds": False}}, {"step": 22}, {"probe": TOLD}]
    found = requote.read(written(tmp_path / "metrics.jsonl", *rows))
    assert found is not None
    assert found.words() == "20 steps at 0.7 s each: 5 min 44 s more of 30 min left, about $0.40 in all: it went on"
    assert found.as_json()["tokens_per_second"] == 900.0


@pytest.mark.parametrize(
    "told",
    [
        [],
        "x",
        {},
        {**TOLD, "seconds_per_step": "NaN"},
        {**TOLD, "steps": 1e300},
        {**TOLD, "seconds_per_step": float("nan")},
        {**TOLD, "step": None},
    ],
)
def test_what_makes_no_sense_is_no_probe(told: object, tmp_path: Path) -> None:
    assert requote.read(written(tmp_path / "metrics.jsonl", {"probe": told}, {"a": "probe"})) is None


def test_a_run_without_metrics_has_no_probe(tmp_path: Path) -> None:
    assert requote.read(tmp_path / "metrics.jsonl") is None


def test_a_training_that_told_no_total_has_no_price_anew(tmp_path: Path) -> None:
    rows = {**TOLD, "total_steps": 0, "rest_seconds": None, "usd": None}
    found = requote.read(written(tmp_path / "metrics.jsonl", {"probe": rows}))
    assert found is not None
    assert found.words() == "20 steps at 0.7 s each; how many there are was not told"


def test_the_machine_is_told_the_steps_the_price_and_what_follows_the_last_step() -> None:
    stages = {"training": [1, 2, 3], "evaluation": [1, 5, 9], "checkpoints": [1, 2, 4]}
    offer = Offer("lambda", "gpu_1x_a10", "A10", 1, Decimal("1.29"))
    plan = {"probe_steps": 20, "quote": {"stages": stages}}
    row = RunRow("r", "t", "lambda", 0, 9, 9, 1, 1, None, Decimal(1), plan, Memory(offer=offer))
    assert _probe(row, 7.0) == {"steps": 20, "after_seconds": 7, "usd_per_hour": 1.29, "launched": 7.0}
