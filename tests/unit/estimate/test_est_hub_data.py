"""Data sets on the Hub whose size is bundled: sourced, and as long on average as they are said to be."""

import csv
from importlib.resources import files

import pytest

from orchestrator.estimate import hub_data

ROWS = list(
    csv.DictReader(files("orchestrator.estimate").joinpath("data/datasets.csv").read_text("utf-8").splitlines())
)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row['name']} {row['split']}")
def test_every_data_set_has_a_source_a_date_and_its_mean_length(row):
    assert row["source"].startswith("https://")
    assert row["as_of"]
    found = hub_data.lengths(row["name"], row["split"])
    assert found.rows == int(row["rows"])
    assert found.mean(10**6) == pytest.approx(float(row["mean_bytes"]) / 4, rel=0.02)
    assert "assumed" in found.basis


def test_a_data_set_that_nobody_measured_is_not_guessed():
    assert hub_data.lengths("somebody/chats", "train") is None
    assert hub_data.lengths("imdb", "unsupervised") is None


def test_fewer_rows_are_fewer():
    assert hub_data.lengths("imdb", "train", 100).rows == 100
