"""How far a vendor's clock is ahead of ours: many whole seconds together tell a tenth; one that was set is seen."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from providers.clocks import Ahead

START = 1_795_000_000.0


def told(ahead: Ahead, ours: float, by: float, took: float = 0.05) -> None:
    """Let the vendor, whose clock is ahead by so much, answer in the middle of the time that it took."""
    date = datetime.fromtimestamp(int(ours + took / 2 + by), UTC)
    ahead.hear(date, ours, ours + took)


def test_before_the_first_answer_nothing_is_known() -> None:
    assert (Ahead().earliest(START), Ahead().latest(START)) == (None, None)


@given(st.floats(-1e5, 1e5), st.lists(st.tuples(st.floats(0.1, 60), st.floats(0.001, 3)), min_size=1, max_size=40))
def test_the_truth_lies_between_the_bounds(by: float, answers: list[tuple[float, float]]) -> None:
    ahead, at = Ahead(), START
    for wait, took in answers:
        at += wait
        told(ahead, at, by, took)
        at += took
        low, high = ahead.earliest(at), ahead.latest(at)
        assert low is not None
        assert high is not None
        assert low.timestamp() - 1e-4 <= at + by <= high.timestamp() + 1e-4
        assert (high - low).total_seconds() <= 1 + took + 1e-4


def test_a_dozen_answers_tell_a_tenth_of_a_second() -> None:
    ahead = Ahead()
    for number in range(12):
        told(ahead, START + 6.09 * number, 0.3)
    low, high = ahead.bounds
    assert low <= 0.3 <= high
    assert high - low < 0.2


def test_a_clock_that_was_set_is_seen_at_the_next_answer_and_old_words_are_forgotten() -> None:
    ahead = Ahead()
    for number in range(12):
        told(ahead, START + 6.09 * number, 0.3)
    told(ahead, START + 100, 40.0)
    assert ahead.bounds[0] <= 40 <= ahead.bounds[1]
    told(ahead, START + 50, 40.0)  # ours went back
    assert ahead.bounds[0] <= 40 <= ahead.bounds[1]
    ahead = Ahead()
    for number in range(12):
        told(ahead, START + 6.09 * number, 0.3)
    told(ahead, START + 2000.03, 0.9)
    assert ahead.bounds[1] >= 0.9
