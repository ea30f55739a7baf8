"""Boxes for the tests of agent and watchdog; a test that leaves a process of its box fails."""

from __future__ import annotations

import importlib
import sys

import pytest
import tiny
from boxes import Box
from harness import PAYLOAD


@pytest.fixture(scope="session")
def payload():
    """Import a payload script by name, as its neighbours do."""
    if str(PAYLOAD) not in sys.path:
        sys.path.insert(0, str(PAYLOAD))
    return importlib.import_module


@pytest.fixture(autouse=True)
def _holds_to_nothing():
    """Let no training of a test keep to what another's chose."""
    yield
    if "checkpoint" in sys.modules:
        sys.modules["checkpoint"].HOLDS.clear()


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """A folder with tiny models (bert/, llama/, chat/) and rows for them, made once a session."""
    folder = tmp_path_factory.mktemp("models")
    tiny.make_models(folder)
    train = tiny.rows("train.jsonl", 54)
    known = {row["label"] for row in train}
    tiny.write(folder / "train.jsonl", train)
    tiny.write(folder / "eval.jsonl", [row for row in tiny.rows("eval.jsonl", 100) if row["label"] in known][:24])
    tiny.write(folder / "glosses.jsonl", tiny.rows("glosses.jsonl", 54))
    return folder


@pytest.fixture
def box(tmp_path):
    """Make boxes: `box(deadline=5)`."""
    boxes = []

    def make(**limits) -> Box:
        boxes.append(Box(tmp_path / f"box{len(boxes)}", **limits))
        return boxes[-1]

    yield make
    left = [line for each in boxes for line in each.clean()]
    assert left == []
