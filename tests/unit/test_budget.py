"""A budget is what the vendor's meter may show, whoever ends the run: begun steps, attempts, tolerance, two minutes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.config import Limits
from orchestrator.cost import FUSE, OVERRUN_SECONDS, PRICE_TOLERANCE, Spell, affordable, charge, spent_since, worst
from orchestrator.lifecycle import PRICE_TOLERANCE as TOLERATED
from orchestrator.plan import Times, times
from providers.errors import RefusedError

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
CENTS = st.integers(1, 5000).map(lambda cents: Decimal(cents) / 100)
STEPS = st.sampled_from([1, 60, 3600])


def limited(cost: str | None, price: str = "3.00", hours: float = 10, **more: object) -> Times:
    limits = Limits(max_hours=hours, max_cost=None if cost is None else Decimal(cost), **more)  # type: ignore[arg-type]
    return times(limits, Decimal(price), NOW, step_seconds=60, poll_seconds=5)


def seconds(found: Times) -> tuple[float, float]:
    return (found.deadline - NOW).total_seconds(), (found.ceiling - NOW).total_seconds()


def test_a_budget_becomes_a_deadline_that_holds_with_the_laptop_off() -> None:
    found = limited("1.00", max_attempts=1)
    assert seconds(found) == (1020, 1020), "19 minutes at 1 % more than $3.00, less a guard's two"
    assert (found.budget_bound, found.max_cost) == (True, Decimal("1.00"))


def test_a_further_attempt_takes_a_begun_step_out_of_the_budget() -> None:
    assert seconds(limited("1.00", max_attempts=3))[0] == 1020 - 60, "a tenth of 19 steps is one"
    assert limited("1.00", max_attempts=3).attempts == 2
    assert limited("10.00", max_attempts=3).attempts == 3
    assert limited("0.40", max_attempts=3).attempts == 1, "a small budget is for one machine"


def test_a_small_budget_still_buys_minutes() -> None:
    assert seconds(limited("0.20", "1.29"))[0] == 9 * 60 - OVERRUN_SECONDS


def test_a_budget_that_buys_nothing_is_refused_with_one_that_does() -> None:
    with pytest.raises(RefusedError) as caught:
        limited("0.10")
    assert "2 minutes" in str(caught.value)
    assert caught.value.hint == "ten minutes of it need --max-cost 0.66"
    assert seconds(limited("0.66"))[0] == 600


def test_hours_that_come_first_leave_the_budget_unbound() -> None:
    found = limited("10", hours=1)
    assert (seconds(found)[0], found.budget_bound, found.max_cost) == (3600, False, Decimal(10))


def test_without_a_word_a_run_is_cut_at_the_fuse_and_has_no_budget_below_it() -> None:
    assert limited(None, hours=1).max_cost is None
    dear = limited(None, "50", hours=10)
    assert (dear.max_cost, dear.budget_bound) == (FUSE, True)
    assert seconds(dear)[1] < 2 * 3600
    assert limited(None, "0", hours=720).max_cost is None


def test_a_ceiling_is_cut_by_the_budget_where_the_deadline_is_not() -> None:
    found = limited("4.00", hours=1, extendable_to_hours=8, max_attempts=1)
    assert seconds(found) == (3600, 79 * 60 - OVERRUN_SECONDS)
    assert (found.budget_bound, found.max_cost) == (False, Decimal("4.00"))


def test_where_a_vendor_is_looked_at_rarely_the_deadline_lies_before_the_ceiling() -> None:
    found = times(Limits(max_cost=Decimal(1), max_attempts=1), Decimal(3), NOW, step_seconds=60, poll_seconds=100)
    assert seconds(found) == (1020 - 40, 1020)


def test_a_dearer_price_that_is_tolerated_is_reckoned_with() -> None:
    assert PRICE_TOLERANCE == TOLERATED


@given(CENTS, CENTS, STEPS, st.integers(1, 9), st.data())
def test_no_way_of_spending_what_a_budget_affords_passes_it(
    price: Decimal, cost: Decimal, step: int, wanted: int, data: st.DataObject
) -> None:
    lasts, attempts = affordable(price, cost, step, wanted)
    assert 1 <= attempts <= wanted
    if lasts <= 0:
        return
    assert worst(price, lasts, step, attempts) <= cost.quantize(Decimal("0.01")) or cost < Decimal("0.01")
    # Attempts one after another, until a guard that takes its whole time: each begins its own steps.
    left, metered = int(lasts) + OVERRUN_SECONDS, Decimal(0)
    for number in range(attempts):
        share = left if number == attempts - 1 else data.draw(st.integers(0, left))
        metered += charge(price * PRICE_TOLERANCE, share, step)
        left -= share
    assert metered <= cost + Decimal("1e-18")


@given(CENTS, st.integers(1, 40) | st.integers(1000, 10**5), STEPS, st.integers(1, 9))
def test_a_budget_is_used_up_but_for_a_step_and_a_tenth(price: Decimal, steps: int, step: int, wanted: int) -> None:
    cost = price * PRICE_TOLERANCE * steps * step / 3600
    lasts, _ = affordable(price, cost, step, wanted)
    assert lasts + OVERRUN_SECONDS >= (steps * 0.9 - 1) * step


def test_what_billed_before_the_month_is_not_of_it() -> None:
    begun, month = 1_000_000.0, 1_003_600.0
    spell = Spell(Decimal("1.20"), 60, begun, begun + 5, None, month + 1800)
    assert spent_since([spell], month, month + 9000) == Decimal("0.60")
    assert spent_since([spell], begun - 99, month + 9000) == Decimal("1.80")
    still = Spell(Decimal("1.20"), 60, begun, begun + 5, None, None)
    assert spent_since([still], month, month + 3600) == Decimal("1.20")
    assert spent_since([spell], month + 5000, month + 9000) == 0
    assert timedelta(seconds=OVERRUN_SECONDS) == timedelta(minutes=2)
