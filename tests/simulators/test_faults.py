"""Faults as people write them, and as a seed draws them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulators.faults import FaultError, Faults
from simulators.lambda_cloud.faults import BOOK


def armed(wish: object) -> Faults:
    faults = Faults(BOOK.on_instance)
    faults.arm(BOOK.parse(wish))
    return faults


@pytest.mark.parametrize(
    ("wish", "times"),
    [
        (["list_flicker"], 2),
        ({"list_flicker": True}, 2),
        ({"list_flicker": 5}, 5),
        ({"list_flicker": {"times": 3}}, 3),
        ({"list_flicker": 0}, 0),
        ({"list_flicker": False}, 0),
        ({"list_flicker": None}, 0),
    ],
)
def test_a_fault_strikes_as_often_as_it_is_written(wish: object, times: int) -> None:
    faults = armed(wish)
    assert [bool(faults.take("list_flicker", of="list")) for _ in range(times + 2)] == [True] * times + [False] * 2
    assert faults.struck == ["list_flicker"] * times


def test_always_is_written_as_null_times() -> None:
    faults = armed({"quota": {"times": None}})
    assert all(faults.take("quota") for _ in range(50))


def test_the_options_of_a_fault_are_read_back() -> None:
    hit = armed({"slow_boot": {"seconds": 300}}).take_for_instance(type="gpu_1x_a10", region="us-west-1")["slow_boot"]
    assert (hit.number("seconds"), hit.given("instance"), hit.text("seconds")) == (300.0, False, "300")


def test_arming_again_replaces_and_zero_disarms() -> None:
    faults = armed({"quota": 5})
    faults.arm(BOOK.parse({"quota": 1}))
    assert faults.armed()["quota"]["times"] == 1
    faults.arm(BOOK.parse({"quota": 0}))
    assert faults.armed() == {}


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        ({"reply_lots": 1}, "did you mean 'reply_lost'"),
        ({"quota": {"time": 1}}, "did you mean 'times'"),
        ({"quota": "often"}, "a number of times"),
        ({"quota": 1.5}, "a number of times"),
        ({"slow_boot": {"seconds": "long"}}, "seconds is a number"),
        ({"slow_boot": {"seconds": [1]}}, "seconds is a number"),
        ({"terminate_ignored": {"shows": 5}}, "shows is a word"),
        ({"quota": {"times": -1}}, "times"),
        ({"quota": -1}, "times"),
        ({"quota": {"times": True}}, "times is a number"),
        ({"rate_limited": {"of": "lunch"}}, "of is one of launch, terminate"),
        ({"api_down": {"how": "slowly"}}, "how is one of refused, 503"),
        ({"list_lag": {"get": "yes"}}, "get is a number"),
        ("quota", "a list of names"),
        ([1], "a list of names"),
    ],
)
def test_a_wish_that_makes_no_sense_is_refused_with_the_nearest_that_does(wish: object, words: str) -> None:
    with pytest.raises(FaultError, match=words):
        BOOK.parse(wish)


@given(st.integers())
def test_a_seed_always_draws_the_same_one_to_three_faults(seed: int) -> None:
    names = [hit.name for hit in BOOK.drawn(seed)]
    assert names == [hit.name for hit in BOOK.drawn(seed)]
    assert 1 <= len(set(names)) == len(names) <= 3
    assert all(BOOK.table[name].dice for name in names)


def test_different_seeds_reach_every_fault_that_may_be_drawn() -> None:
    reached = {hit.name for seed in range(2000) for hit in BOOK.drawn(seed)}
    assert reached == {name for name, row in BOOK.table.items() if row.dice}


def test_the_listing_names_every_fault_and_its_options() -> None:
    text = BOOK.listing()
    assert all(name in text for name in BOOK.table)
    assert "hidden_seconds=20" in text
