"""probe.py: what the first steps say of the rest, and what the agent does then."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest
from boxes import SAVES

if TYPE_CHECKING:
    from pathlib import Path

TRAINS = """
import json, os, signal, sys, time
{saves}
for step in range(1, {stop} + 1):
    told = {{"step": step, "total_steps": {total}, "loss": 1.0, "stage": "train"}}
    print("::metrics " + json.dumps(told), flush=True)
    time.sleep(0.05)
print(os.environ.get("GPURUN_PROBE_STEPS"))
"""


def metrics_of(folder: Path) -> dict:
    lines = (json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines())
    return next(line["probe"] for line in lines if "probe" in line)


def test_a_training_that_its_deadline_cant_hold_is_stopped_and_saves(box) -> None:
    each = box(probe={"steps": 4, "after_seconds": 5, "usd_per_hour": 36.0, "launched": 0.0})
    result = each.go(TRAINS.format(saves=SAVES, stop=10**6, total=10**6)).result()
    assert (result["reason"], result["exit_code"]) == ("deadline", 5)
    assert re.match(r"the probe: \d+ steps at ", result["detail"])
    assert "saved and left" in result["detail"]
    assert [one["name"] for one in result["artifacts"]] == ["artifacts/saved"]
    assert ": stopped here\n" in each.log()
    found = metrics_of(each.folder)
    assert found["holds"] is False
    assert found["rest_seconds"] == pytest.approx((10**6 - found["step"]) * found["seconds_per_step"])
    assert "probe" not in result["metrics"]


def test_a_training_that_there_is_time_for_goes_on_to_its_end(box) -> None:
    each = box(probe={"steps": 4})
    result = each.go(TRAINS.format(saves="", stop=80, total=80)).result()
    assert (result["reason"], result["metrics"]["step"]) == ("completed", 80)
    assert "until it must save: it goes on\n" in each.log()
    assert each.log().endswith("4\n")  # the training knows for how many steps each is to be told
    assert metrics_of(each.folder)["holds"] is True


class Said:
    """What the agent's output knows of a training."""

    def __init__(self) -> None:
        self.step, self.total_steps, self.stage, self.last = 0, 0, "", {}


@pytest.fixture
def looks(payload, tmp_path):
    """A probe of three steps: `looks(said, [(step, stage, passed), …], left)` gives what it said."""

    def look(said: Said, seen: list[tuple[int, str, float]], left: float = 100.0) -> list[str]:
        judge = payload("probe").Probe(tmp_path, {"steps": 3, "after_seconds": 10})
        told = []
        for said.step, said.stage, passed in seen:
            told.append(judge.look(said, passed, left, left + 5, 0.0))
        return [words for words in told if words is not None]

    return look


STEPS = [(1, "train", 60.0), (2, "train", 2.0), (2, "eval", 50.0), (3, "train", 2.0), (4, "train", 2.0)]


def test_the_first_step_and_an_evaluation_between_are_not_the_pace(looks) -> None:
    said = Said()
    said.total_steps = 10
    words = "the probe: 3 steps at 2 s each: the other 6 take 12 s and 10 s after them; 1 min 40 s are left"
    assert looks(said, STEPS) == [f"{words} until it must save: it goes on"]


def test_what_follows_the_training_must_fit_before_the_end_too(looks) -> None:
    said = Said()
    said.total_steps = 10
    assert looks(said, STEPS, left=16.0)[0].endswith("16 s are all that is left until it must save: stopped here")


def test_it_is_judged_once_also_by_the_agent_after_a_reboot(looks) -> None:
    assert len(looks(Said(), [*STEPS, (9, "train", 9.0)])) == 1
    assert looks(Said(), STEPS) == []


def test_a_training_that_tells_no_total_is_never_stopped_for_it(looks) -> None:
    assert looks(Said(), STEPS, left=0.1) == [
        "the probe: 3 steps at 2 s each, and the training does not tell how many are to come (total_steps): it goes on"
    ]


def test_steps_that_begin_anew_are_counted_anew(looks) -> None:
    again = [(step, "train", 1.0) for step in (5, 6, 1, 2, 3, 4)]
    assert looks(Said(), again)[0].startswith("the probe: 3 steps at 1 s each")
