"""Limits, quotes and the sentence a plan ends with; money is monotone and never below the truth."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.config import Limits
from orchestrator.cost import Bounds, Spell, accrued, charge, worst
from orchestrator.plan import Plan, Quote, choose, refuse_sole_holder, times
from providers.base import Holder, Offer, Place, Proof
from providers.errors import RefusedError

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
OFFER = Offer("fake", "gpu_1x_a10", "a10", 1, Decimal("1.20"))
WATCHDOG = Holder("the watchdog", Place.MACHINE, Proof.UNPROVEN)
HERE = Holder("the controller", Place.HERE, Proof.PROVEN)


def test_what_costs_nothing_is_limited_by_hours_alone() -> None:
    assert times(Limits(max_hours=2, max_cost=Decimal(1)), Decimal(0), NOW).deadline == NOW + timedelta(hours=2)


@pytest.mark.parametrize(("hours", "grace"), [(0.1, 72), (0.5, 360), (1, 600), (100, 600)])
def test_the_grace_is_a_fifth_of_the_run_and_ten_minutes_at_most(hours: float, grace: int) -> None:
    assert times(Limits(max_hours=hours), Decimal(0), NOW).grace_seconds == grace


def test_limits_have_room_for_a_wait_that_is_not_billed_and_hours_are_for_what_runs() -> None:
    plain, waits = (times(Limits(max_hours=1, max_cost=Decimal(9)), Decimal(1), NOW, queue_seconds=q) for q in (0, 900))
    assert (waits.deadline - plain.deadline, waits.ceiling - plain.ceiling) == (timedelta(seconds=900),) * 2
    assert waits.grace_seconds == plain.grace_seconds


def test_a_rented_machine_is_not_ended_minutes_early_for_nothing_to_save() -> None:
    assert times(Limits(max_hours=3), Decimal(1), NOW, saves=False).grace_seconds == 30


def test_the_ceiling_is_what_an_extension_may_reach() -> None:
    limits = times(Limits(max_hours=1, extendable_to_hours=3), Decimal(1), NOW)
    assert (limits.deadline, limits.ceiling) == (NOW + timedelta(hours=1), NOW + timedelta(hours=3))


def test_limits_that_leave_no_time_are_refused_with_the_flag() -> None:
    with pytest.raises(RefusedError) as caught:
        times(Limits(max_cost=Decimal("0.001")), Decimal(30), NOW)
    assert "--max-cost" in caught.value.hint


def test_limits_are_whole_seconds_because_a_mark_tells_no_less() -> None:
    limits = times(Limits(max_hours=0.0123), Decimal(0), NOW)
    assert limits.deadline.microsecond == limits.ceiling.microsecond == 0


def test_the_cheapest_offer_of_the_wanted_gpu_is_taken() -> None:
    offers = [
        replace(OFFER, name="dear", price=Decimal(3)),
        replace(OFFER, name="out", price=Decimal("0.1"), available=False),
        replace(OFFER, name="cheap", price=Decimal(1)),
        replace(OFFER, name="other", gpu="t4", price=Decimal("0.2")),
        replace(OFFER, name="cpu", gpu="", gpu_count=0, price=Decimal("0.05")),
    ]
    assert [one.name for one in choose(offers, "a10")] == ["cheap"]
    assert [one.name for one in choose(offers, "cpu")] == ["cpu"]
    with pytest.raises(RefusedError) as caught:
        choose(offers, "h100")
    assert "a10" in caught.value.hint


@pytest.mark.parametrize("typed", ["A6000", "rtx a6000", "RTX-A6000", "rtx_a6000"])
def test_a_gpu_is_found_as_people_type_it(typed: str) -> None:
    assert choose([replace(OFFER, gpu="rtx-a6000")], typed)


@pytest.mark.parametrize(
    ("typed", "found"),
    [
        ("a100", {"a100-40gb", "a100-80gb-pcie", "a100-80gb-sxm"}),
        ("a100-80gb", {"a100-80gb-pcie", "a100-80gb-sxm"}),
        ("A100 80GB SXM", {"a100-80gb-sxm"}),
        ("h100", {"h100-pcie"}),
        ("4090", {"rtx-4090"}),
        ("quadro rtx 6000", {"quadro-rtx-6000"}),
    ],
)
def test_a_name_is_a_family(typed: str, found: set[str]) -> None:
    cards = ["a100-40gb", "a100-80gb-pcie", "a100-80gb-sxm", "h100-pcie", "rtx-4090", "quadro-rtx-6000"]
    assert {one.gpu for one in choose([replace(OFFER, name=card, gpu=card) for card in cards], typed)} == found


def test_several_names_are_all_of_them_and_auto_is_any() -> None:
    offers = [replace(OFFER, name=gpu, gpu=gpu) for gpu in ("a10", "l4", "t4")]
    assert [one.gpu for one in choose(offers, ("l4", "a10"))] == ["a10", "l4"]
    assert len(choose(offers, "auto")) == 3


def test_a_card_that_is_in_no_table_goes_by_its_name() -> None:
    strange = replace(OFFER, gpu="x9000-48gb")
    assert choose([strange], "x9000") == [strange]


@pytest.mark.parametrize("typed", ["a600", "a100-80", "rtx"])
def test_half_a_name_is_no_gpu(typed: str) -> None:
    with pytest.raises(RefusedError):
        choose([replace(OFFER, gpu="rtx-a6000" if typed != "rtx" else "a10"), replace(OFFER, gpu="a100-80gb")], typed)


def test_without_a_wish_a_dear_gpu_comes_before_a_cheap_cpu() -> None:
    cpu = replace(OFFER, gpu="", gpu_count=0, name="cpu", price=Decimal("0.20"))
    assert [one.name for one in choose([cpu, OFFER], None)] == [OFFER.name]
    assert [one.name for one in choose([cpu], None)] == ["cpu"]


def test_like_offers_are_tried_in_price_order_and_none_that_is_twice_as_dear() -> None:
    offers = [
        replace(OFFER, name="c", price=Decimal("2.41")),
        replace(OFFER, name="a", price=Decimal("2.40")),
        replace(OFFER, name="b", price=Decimal("1.20")),
        replace(OFFER, name="two", gpu_count=2, price=Decimal("1.30")),
    ]
    assert [one.name for one in choose(offers, "a10")] == ["b", "a"]


def test_what_is_sold_out_is_refused_with_the_flag_that_waits_for_it() -> None:
    gone = replace(OFFER, available=False)
    with pytest.raises(RefusedError) as caught:
        choose([gone], "a10")
    assert "--wait-for-capacity" in caught.value.hint
    assert choose([gone], "a10", waiting=True) == [OFFER]


def test_on_equal_prices_a_gpu_comes_before_the_cpu() -> None:
    free = replace(OFFER, price=Decimal(0))
    assert choose([replace(free, gpu="", gpu_count=0, name="cpu"), free], None)[0].gpu == "a10"


@pytest.mark.parametrize("step", [1, 60])
@pytest.mark.parametrize("limits", [Limits(max_hours=3), Limits(max_cost=Decimal(2)), Limits(extendable_to_hours=9)])
def test_the_worst_case_of_an_estimate_is_that_of_the_limits_which_a_launch_sets(limits: Limits, step: int) -> None:
    held = times(limits, OFFER.price, NOW, step_seconds=step)
    seconds = (held.ceiling - NOW).total_seconds()
    told = Bounds.of(limits).worst(OFFER.price, step)
    assert told == worst(OFFER.price, seconds, step, held.attempts)
    assert told <= (limits.max_cost or 100)


def test_a_launch_that_only_this_computer_can_stop_is_refused_until_the_risk_is_accepted() -> None:
    with pytest.raises(RefusedError) as caught:
        refuse_sole_holder([HERE, replace(WATCHDOG, proof=Proof.ABSENT)], Decimal(1), accept_risk=False)
    assert "--accept-risk" in caught.value.hint
    refuse_sole_holder([HERE], Decimal(1), accept_risk=True)
    refuse_sole_holder([HERE], Decimal(0), accept_risk=False)
    refuse_sole_holder([HERE, WATCHDOG], Decimal(1), accept_risk=False)


def plan(holders: tuple[Holder, ...], offer: Offer = OFFER) -> Plan:
    limits = times(Limits(max_hours=2.5), offer.price, NOW)
    quoted = Quote(None, None, Decimal("3.00"), None, "")
    return Plan("r", "demo", "w", offer, (offer,), (), "acct", limits, quoted, holders, (), 0, (), "/x", NOW)


def test_the_sentence_names_the_holder_the_time_and_the_dollars() -> None:
    told = plan((WATCHDOG, HERE)).sentence()
    assert told.startswith("Ends by 14:32 UTC on 22 Nov at the latest ($3.00) if the watchdog, unproven until start,")
    proven = replace(WATCHDOG, proof=Proof.PROVEN, proven_at=NOW)
    assert "last proven 12:00 UTC" in plan((proven, HERE)).sentence()


def test_the_sentence_never_claims_an_end_that_nobody_holds() -> None:
    assert "only if this computer is awake" in plan((HERE,)).sentence()
    assert "only if this computer is awake" in plan((HERE, replace(WATCHDOG, proof=Proof.ABSENT))).sentence()


SPELLS = st.builds(
    lambda price, step, start, lag, seen, end: Spell(
        Decimal(price) / 100, step, start, start + lag, None if seen is None else start + lag + seen,
        None if end is None else start + lag + (seen or 0) + end,
    ),
    st.integers(0, 5000), st.sampled_from([1, 60, 3600]), st.integers(0, 1000), st.integers(0, 60),
    st.none() | st.integers(0, 5000), st.none() | st.integers(0, 5000),
)  # fmt: skip


@given(st.lists(SPELLS, max_size=4), st.integers(0, 20000), st.integers(0, 20000))
def test_accrued_is_an_interval_and_never_falls_with_time(spells: list[Spell], one: int, other: int) -> None:
    start = max((spell.start_high for spell in spells), default=0)
    early, late = (accrued(spells, start + at) for at in sorted((one, other)))
    assert Decimal(0) <= early.low <= early.high
    assert early.low <= late.low
    assert early.high <= late.high


@given(st.integers(1, 5000), st.integers(0, 10**6), st.sampled_from([1, 60, 3600]))
def test_a_charge_is_never_below_the_time_it_is_for(cents: int, seconds: int, step: int) -> None:
    price = Decimal(cents) / 100
    exact = price * seconds / 3600
    assert exact <= charge(price, seconds, step) + Decimal("1e-18") <= worst(price, seconds, step) + Decimal("1e-18")
    assert charge(price, seconds, step) - exact <= price * step / 3600 + Decimal("1e-18")
