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
    ahead = Ahead()
    assert ahead.between(ahead.note(START)) is None


@given(st.floats(-1e5, 1e5), st.lists(st.tuples(st.floats(0.1, 60), st.floats(0.001, 3)), min_size=1, max_size=40))
def test_the_truth_lies_between_the_bounds(by: float, answers: list[tuple[float, float]]) -> None:
    ahead, at, noted = Ahead(), START, []
    for wait, took in answers:
        at += wait
        told(ahead, at, by, took)
        at += took
        noted.append(ahead.note(at))
        for one in noted:
            between = ahead.between(one)
            assert between is not None
            low, high = (moment.timestamp() for moment in between)
            assert low - 1e-4 <= one.ours + by <= high + 1e-4
        assert high - low <= 1 + took + 1e-4


def test_a_dozen_answers_tell_a_tenth_of_a_second_and_of_what_was_noted_before_them_too() -> None:
    ahead = Ahead()
    told(ahead, START, 0.3)
    first = ahead.note(START)
    for number in range(12):
        told(ahead, START + 6.09 * number, 0.3)
    low, high = (moment.timestamp() for moment in ahead.between(first) or ())
    assert low <= START + 0.3 <= high
    assert high - low < 0.2


def test_a_clock_that_was_set_is_seen_at_the_next_answer_and_moves_nothing_of_before() -> None:
    ahead = Ahead()
    for number in range(12):
        told(ahead, START + 6.09 * number, 0.3)
    before = ahead.note(START + 80)
    told(ahead, START + 100, 40.0)
    assert ahead.bounds[0] <= 40 <= ahead.bounds[1]
    low, high = (moment.timestamp() for moment in ahead.between(before) or ())
    assert low <= START + 80.3 <= high


def test_old_words_are_forgotten() -> None:
    ahead = Ahead()
    for number in range(12):
        told(ahead, START + 6.09 * number, 0.3)
    told(ahead, START + 2000.03, 0.9)
    assert ahead.bounds[1] >= 0.9
