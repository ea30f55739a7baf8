"""Hours and dollars: in order, at most what the limits allow, and quick for many offers."""

from decimal import Decimal

import pytest

from orchestrator.cost import Bounds
from orchestrator.estimate import gpus, lengths, models
from orchestrator.estimate.quote import Rental, estimate
from orchestrator.estimate.work import Amount, Loss, Work
from providers.errors import UsageError

WORK = Work(models.find("Qwen/Qwen2.5-7B"), method="lora", bits=4, loss=Loss.LINEAR, checkpointing=True, sequence=1024)
AMOUNT = Amount(rows=12_000, tokens=6_000_000)
CARD = gpus.card("4090")


def test_ranges_of_hours_and_dollars_are_in_order():
    found = estimate(WORK, CARD, 1, AMOUNT)
    assert 0 < found.seconds.low < found.seconds.likely < found.seconds.high
    dollars = found.price(Rental("runpod", Decimal("0.50")))
    assert 0 < dollars.low < dollars.likely < dollars.worst


def test_the_worst_is_what_the_limits_allow_and_nothing_is_above_it():
    bounds = Bounds.of_hours(1)
    dollars = estimate(WORK, CARD, 1, AMOUNT, bounds=bounds).price(Rental("lambda", Decimal("2.00"), step_seconds=60))
    assert (
        dollars.worst == bounds.worst(Decimal("2.00"), 60) == Decimal("2.16")
    )  # an hour, two minutes and two attempts
    assert dollars.likely <= dollars.worst


def test_minutes_begun_are_paid_whole():
    tiny = estimate(WORK, CARD, 1, Amount(rows=1, tokens=10), provider="local")
    assert tiny.price(Rental("lambda", Decimal(60), step_seconds=3600)).low == Decimal("60.00")


def test_what_a_budget_allows_is_the_worst_case_too():
    bounds = Bounds(3600 * 24, 3600 * 24, Decimal(3))
    dollars = estimate(WORK, CARD, 1, AMOUNT, bounds=bounds).price(Rental("lambda", Decimal("2.00"), step_seconds=60))
    assert Decimal("2.90") < dollars.worst <= 3


def test_twice_the_rows_take_nearly_twice_the_training():
    one, two = (
        estimate(WORK, CARD, 1, Amount(rows, rows * 500)).stages.by_name["training"][1] for rows in (5000, 10000)
    )
    assert two == pytest.approx(2 * one, rel=0.01)


def test_most_steps_end_the_training_early():
    found = estimate(WORK, CARD, 1, Amount(12_000, 6_000_000, max_steps=100)).stages
    assert found.steps == 100
    assert found.by_name["training"][1] < estimate(WORK, CARD, 1, AMOUNT).stages.by_name["training"][1] / 50


def test_without_an_amount_there_are_no_hours():
    found = estimate(WORK, CARD)
    assert found.stages is None
    assert found.price(Rental("runpod", Decimal(1))) is None
    assert found.as_json()["hours"] is None


def test_an_offer_of_a_known_kind_is_not_estimated_again():
    found = estimate(WORK, CARD, 1, AMOUNT)
    assert estimate(WORK, CARD, 1, AMOUNT) is found  # how quick that is: bench/quote.py
    assert found.price(Rental("lambda", Decimal("0.01"), 60)).worst == Decimal("0.05")


def test_json_has_the_parts_that_programs_read():
    found = estimate(WORK, CARD, 1, AMOUNT).as_json(Rental("runpod", Decimal("0.50")))
    for name in ("allocated", "reserved", "process"):
        assert set(found["memory_gib"][name]) == {"low", "likely", "high"}
    assert found["memory_gib"]["components"]["weights"] > 3
    assert found["fits"] == "fits"
    assert set(found["usd"]) == {"low", "likely", "worst"}
    assert set(found["tokens_per_second"]) == {"low", "likely", "high"}


# --- lengths


def test_padding_is_what_the_longest_of_a_batch_adds():
    found = lengths.of_counts([100, 100, 100, 500], 4000, "test")
    assert found.padding(1000, 1, packed=False) == 1
    assert found.padding(1000, 4, packed=False) == pytest.approx((100 * 0.75**4 + 500 * (1 - 0.75**4)) / 200)
    assert found.padding(100, 4, packed=False) == 1  # all are cut to one length


def test_packed_rows_waste_next_to_nothing():
    assert lengths.of_counts([10, 500], 2, "test").padding(1000, 8, packed=True) < 1.05


@pytest.mark.parametrize(("counts", "rows"), [([], 0), ([0, 0], 2), ([5], 0)])
def test_data_without_rows_or_text_are_refused(counts, rows):
    with pytest.raises(UsageError):
        lengths.of_counts(counts, rows, "test")
