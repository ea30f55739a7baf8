"""Data sets on the Hub whose size is known here: rows and mean length, each with its source in data/datasets.csv.

How lengths spread round the mean nobody published: a lognormal, as texts that people wrote have it, and it is said.
"""

from __future__ import annotations

import csv
from functools import lru_cache
from importlib.resources import files
from math import exp
from statistics import NormalDist

from orchestrator.estimate.lengths import CHARACTERS_A_TOKEN, Lengths

_SPREAD = 0.7  # standard deviation of the logarithm: film reviews, chats (0.6 to 0.8)
_SAMPLED = 200


@lru_cache(maxsize=1)
def _table() -> dict[tuple[str, str], dict[str, str]]:
    text = files("orchestrator.estimate").joinpath("data/datasets.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(text.splitlines()))
    return {(name, row["split"]): row for row in rows for name in (row["name"], *row["aliases"].split(";")) if name}


def lengths(name: str, split: str, max_rows: int | None = None) -> Lengths | None:
    """Give the lengths of a data set on the Hub; None = its size is not known here."""
    row = _table().get((name, split))
    if row is None:
        return None
    mean, normal = float(row["mean_bytes"]) / CHARACTERS_A_TOKEN, NormalDist(0.0, _SPREAD)
    middle = mean * exp(-(_SPREAD**2) / 2)
    counts = tuple(max(1, round(middle * exp(normal.inv_cdf((at + 0.5) / _SAMPLED)))) for at in range(_SAMPLED))
    rows = min(int(row["rows"]), max_rows or int(row["rows"]))
    return Lengths(counts, rows, f"{rows:,} rows of {name}, {mean:.0f} tokens each by its card, their spread assumed")
