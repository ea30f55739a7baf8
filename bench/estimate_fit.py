"""Fit the estimator's few constants to measurements: coordinate descent on the mean error.

Each source weighs the square root of its rows, so that a long table does not drown the short ones.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING

from estimate_rows import card, context_gib

from orchestrator.estimate.footprint import Kept, footprint
from orchestrator.estimate.speed import tokens_per_second

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from estimate_rows import Row

# Where a fit starts, and what it leans to where nothing is measured: round physical guesses.
START = {
    "ampere": 0.75, "hopper": 0.65, "turing": 0.35, "volta": 0.4, "ada": 0.75,
    "ampere attention": 0.6, "hopper attention": 0.4, "turing attention": 0.2,
    "hf": 1.2, "fused": 0.7, "compiled": 0.4, "native": 0.8, "eager": 1.0,
    "adapters": 3.0, "dequantise": 0.5, "launch": 10.0, "old launch": 25.0, "gather": 0.3, "link": 100.0,
}  # fmt: skip
MOST = 0.92  # of a peak: nobody's matrix product does better
LEAN = 0.004
REPLAYED = Kept(same=1.17, varying=1.6)  # what torch's allocator keeps when it is replayed, without any measurement


def fit_speed(rows: Sequence[Row], sweeps: int = 12) -> dict[str, float]:
    """Fit the pace's constants to rows with a speed."""
    found, steps = dict(START), dict.fromkeys(START, 0.3)
    best = _speed_loss(found, rows)
    for _ in range(sweeps):
        narrower: dict[str, float] = {}
        for name, step in steps.items():
            for factor in (math.exp(step), math.exp(-step)):
                tried = {**found, name: found[name] * factor}
                if name in {"ampere", "hopper", "turing", "volta", "ada"} and tried[name] > MOST:
                    continue
                loss = _speed_loss(tried, rows)
                if loss < best:
                    found, best = tried, loss
                    break
            else:
                narrower[name] = step / 2
        steps |= narrower
    return found


def _speed_loss(constants: Mapping[str, float], rows: Sequence[Row]) -> float:
    counts = Counter(row.source for row in rows)
    total = weights = 0.0
    for row in rows:
        on = card(row.card)
        if on is None or row.speed is None:
            continue
        weight = 1 / math.sqrt(counts[row.source])
        total += weight * abs(math.log(tokens_per_second(row.work, on, row.gpus, constants) / row.speed))
        weights += weight
    return total / weights + LEAN * sum(math.log(constants[name] / START[name]) ** 2 for name in constants)


def fit_kept(rows: Sequence[Row]) -> Kept:
    """Fit what the allocator keeps to readings of reserved memory and of processes; replayed where there are none."""
    same = _best(
        [1.1 + 0.05 * step for step in range(11)], [row for row in rows if not row.work.lengths_vary], REPLAYED.same
    )
    varying = _best(
        [1.4 + 0.1 * step for step in range(13)], [row for row in rows if row.work.lengths_vary], REPLAYED.varying
    )
    return Kept(same, varying)


def _best(candidates: Sequence[float], rows: Sequence[Row], otherwise: float) -> float:
    readings = [(row, kind, size) for row in rows for kind, size in readings_of(row) if kind != "torch_allocated"]
    if not readings:
        return otherwise
    return min(
        candidates,
        key=lambda factor: sum(
            abs(memory_error(row, kind, size, Kept(factor, factor))) for row, kind, size in readings
        ),
    )


def readings_of(row: Row) -> list[tuple[str, float]]:
    """List what was read of a row's memory, by kind; readings of unknown kind are left out."""
    both = [(row.kind, row.memory), (row.second_kind, row.second)]
    return [
        (kind, size)
        for kind, size in both
        if size and kind in {"torch_allocated", "torch_reserved", "process", "nvidia_smi"}
    ]


def memory_error(row: Row, kind: str, size: float, kept: Kept) -> float:
    """Give the relative error of the likely figure, like with like."""
    on = card(row.card)
    found = footprint(row.work, row.gpus, on.memory_gib if on else math.inf, context_gib(row), kept)
    figure = {"torch_allocated": found.allocated, "torch_reserved": found.reserved}.get(kind, found.process)
    return (figure.likely - size) / size
