"""trainer.py: the order of rows and the sizes of micro-batches, as laws."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Callable

LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=300)


@pytest.fixture(scope="module")
def trainer(payload: Callable[[str], Any]) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return payload("trainer")


def order(trainer: Any, lengths: list[int], rows: int, seed: int, epoch: int) -> list[int]:
    sampler = trainer.SimilarLengths(lengths, rows, seed)
    sampler.set_epoch(epoch)
    return list(sampler)


@given(lengths=LENGTHS, rows=st.integers(1, 9), seed=st.integers(0, 99), epoch=st.integers(0, 5))
def test_an_epoch_sees_every_row_once_in_an_order_of_seed_and_epoch_alone(
    trainer: Any, lengths: list[int], rows: int, seed: int, epoch: int
) -> None:
    first = order(trainer, lengths, rows, seed, epoch)
    assert sorted(first) == list(range(len(lengths)))
    assert first == order(trainer, lengths, rows, seed, epoch)


def test_each_epoch_and_each_seed_has_its_own_order(trainer: Any) -> None:
    lengths = list(range(200))
    assert len({tuple(order(trainer, lengths, 8, seed, epoch)) for seed in (0, 1) for epoch in (0, 1)}) == 4


def test_rows_of_a_step_are_of_similar_length(trainer: Any) -> None:
    lengths = [number * 37 % 64 for number in range(640)]
    padded = {}
    for name, rows in (("similar", order(trainer, lengths, 8, 0, 0)), ("any", list(range(640)))):
        steps = [[lengths[row] for row in rows[start : start + 8]] for start in range(0, 640, 8)]
        padded[name] = sum(max(step) * len(step) - sum(step) for step in steps)
    assert padded["similar"] < padded["any"] / 5


@given(batch=st.integers(1, 64), accumulation=st.integers(1, 16))
def test_halving_goes_down_to_one_and_keeps_the_rows_of_a_step(trainer: Any, batch: int, accumulation: int) -> None:
    rows, micro = batch * accumulation, batch
    while micro > 1:
        smaller = trainer.half(micro, rows)
        assert smaller <= micro / 2 or smaller == 1
        assert rows % smaller == 0
        micro = smaller
