"""What is rented when: like offers in price order, rounds while the user waits, and no machine that is not the one."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest
from fakes import OFFER, START, FakeCloud
from worlds import RUN, World

from orchestrator import adoption
from orchestrator.adopt import adopt
from orchestrator.home import Home
from orchestrator.ledger import Ledger
from orchestrator.words import Reason, State
from providers.base import Allocation, Mark
from providers.errors import LedgerError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

EAST = replace(OFFER, name="a10@east", price=Decimal("1.20"))
WEST = replace(OFFER, name="a10@west", price=Decimal("1.40"))
DEAR = replace(OFFER, name="a10@north", price=Decimal("1.50"))


@pytest.fixture
def world_of(fast_path: Path) -> Callable[..., World]:
    def make(**more: object) -> World:
        world = World(fast_path, **{"candidates": (EAST, WEST), **more})
        world.cloud.traits = replace(world.cloud.traits, list_lag_seconds=0.0)
        return world

    return make


def tried(world: World) -> list[str]:
    return [name for _, name in world.cloud.asked_for]


def test_what_has_no_capacity_is_followed_by_the_next_like_offer_at_its_own_price(world_of) -> None:
    world = world_of()
    world.cloud.sold_out = {"a10@east"}
    world.drive()
    world.check_ended()
    assert world.memory.reason is Reason.COMPLETED
    assert tried(world) == ["a10@east", "a10@west"]
    assert [spell.price for spell in world.row.spells] == [Decimal("1.40")]


def test_with_all_of_them_sold_out_the_run_ends_and_nothing_was_rented(world_of) -> None:
    world = world_of()
    world.cloud.sold_out = {"a10@east", "a10@west"}
    world.drive()
    world.check_ended()
    assert (world.memory.reason, world.row.spells) == (Reason.NO_CAPACITY, ())
    assert tried(world) == ["a10@east", "a10@west"]
    assert world.memory.detail == "no a10 left; tried a10@east, a10@west"


def opens_after(world: World, seconds: float) -> None:
    world.cloud.sold_out = {"a10@east", "a10@west"}
    world.drive(until=lambda: (world.clock() - START).total_seconds() >= seconds)
    world.cloud.sold_out = set()


def test_who_waits_gets_the_first_that_opens_and_only_looks_until_then(world_of) -> None:
    world = world_of(wait_seconds=1800)
    opens_after(world, 600)
    assert len(tried(world)) == 2  # while nothing is listed, nothing is asked for
    assert 15 <= world.cloud.offers_read <= 25  # a look each half a minute
    world.drive()
    world.check_ended()
    assert world.memory.reason is Reason.COMPLETED
    assert tried(world)[2:] == ["a10@east"]
    assert world.cloud.most_billing == 1


def test_limits_count_from_the_launch_however_long_the_wait(world_of) -> None:
    world = world_of(wait_seconds=1800, hours=0.05)  # three minutes of run after ten of waiting
    world.cloud.total_steps = 100_000
    opens_after(world, 600)
    world.drive()
    world.check_ended()
    (machine,) = world.cloud.machines.values()
    assert world.memory.reason is Reason.DEADLINE
    assert machine.ended is not None
    assert 130 <= (machine.ended - machine.since).total_seconds() <= 180
    assert machine.mark.ceiling - machine.since <= timedelta(seconds=180)


def test_a_wait_ends_when_it_was_said_to(world_of) -> None:
    world = world_of(wait_seconds=300)
    world.cloud.sold_out = {"a10@east", "a10@west"}
    world.drive()
    assert world.memory.reason is Reason.NO_CAPACITY
    assert 240 <= (world.clock() - START).total_seconds() <= 330


def test_who_sleeps_past_the_end_of_the_wait_rents_nothing_on_waking(world_of) -> None:
    world = world_of(wait_seconds=300, hours=5)
    opens_after(world, 100)
    world.clock.advance(3600)
    world.drive()
    assert (world.memory.reason, world.cloud.machines) == (Reason.NO_CAPACITY, {})
    assert "asked" in world.memory.detail


def test_a_wait_in_which_the_vendor_can_not_be_asked_ends_when_it_was_said_to(world_of) -> None:
    world = world_of(wait_seconds=300, hours=5)
    opens_after(world, 100)
    world.cloud.faults["offers"].extend(["unreachable"] * 60)
    world.drive()
    assert (world.memory.reason, world.cloud.machines) == (Reason.NO_CAPACITY, {})


def test_refusals_within_a_round_cost_nothing_of_the_time_that_is_paid_for(world_of) -> None:
    many = tuple(replace(OFFER, name=f"a10@{number}") for number in range(12))
    world = world_of(candidates=many, wait_seconds=3000, hours=0.05)
    world.cloud.traits = replace(world.cloud.traits, poll_seconds=3.5)
    world.cloud.faults["launch"].extend(["capacity"] * 300)
    world.drive(until=lambda: (world.clock() - START).total_seconds() >= 600)
    world.cloud.faults["launch"].clear()
    world.drive(until=lambda: bool(world.cloud.machines))
    (machine,) = world.cloud.machines.values()
    assert len(tried(world)) > 100
    first_round = 12 * 1.75
    assert 179 - first_round <= (machine.mark.ceiling - machine.since).total_seconds() <= 180


@pytest.mark.parametrize("count", [0, 2])
def test_what_opens_with_more_or_fewer_gpus_than_were_agreed_to_is_left(world_of, count: int) -> None:
    world = world_of(wait_seconds=300)
    world.cloud.sold_out = {"a10@east", "a10@west"}
    world.drive(until=lambda: world.memory.rounds > 0)
    world.cloud.stock.append(replace(EAST, name="other", gpu_count=count, price=Decimal("1.10")))
    world.drive()
    assert (world.memory.reason, world.cloud.machines) == (Reason.NO_CAPACITY, {})


def test_an_earlier_refusal_is_not_told_as_the_reason_of_what_was_rented_after_it(world_of) -> None:
    world = world_of(hours=2, max_attempts=1)
    world.cloud.sold_out = {"a10@east"}
    world.cloud.faults["status"].extend(["unreachable"] * 999)
    world.drive()
    assert world.memory.detail == "never came up"


def test_a_stop_ends_the_wait(world_of) -> None:
    world = world_of(wait_seconds=1800)
    world.cloud.sold_out = {"a10@east", "a10@west"}
    world.drive(until=lambda: world.memory.rounds > 2)
    world.ledger.request_stop(RUN, world.clock())
    world.drive()
    assert (world.memory.reason, world.cloud.machines) == (Reason.STOPPED, {})


def test_what_opens_at_a_higher_price_than_was_agreed_to_is_left(world_of) -> None:
    world = world_of(wait_seconds=300)
    world.cloud.sold_out = {"a10@east", "a10@west"}
    world.drive(until=lambda: world.memory.rounds > 0)
    world.cloud.stock.append(DEAR)
    world.drive()
    assert (world.memory.reason, world.cloud.machines) == (Reason.NO_CAPACITY, {})


def test_the_next_attempt_takes_what_is_there_by_then(world_of) -> None:
    world = world_of()
    world.cloud.faults["inspect"].append("unhealthy")
    world.drive(until=lambda: bool(world.cloud.machines))
    world.cloud.sold_out = {"a10@east"}
    world.drive()
    world.check_ended()
    assert world.memory.reason is Reason.COMPLETED
    assert tried(world) == ["a10@east", "a10@west"]


def test_an_allocation_dearer_than_agreed_is_ended_at_once(world_of) -> None:
    world = world_of()
    world.cloud.faults["inspect"].append("dearer")
    world.drive()
    world.check_ended()
    assert world.memory.reason is Reason.PROVIDER
    assert "was agreed to" in world.memory.detail
    assert len(world.cloud.machines) == 1


def test_a_machine_with_another_host_key_is_ended_and_the_next_one_tried(world_of) -> None:
    world = world_of()
    world.cloud.faults["status"].append("other host key")
    world.drive()
    world.check_ended()
    assert world.memory.reason is Reason.COMPLETED
    assert len(world.cloud.machines) == 2


@pytest.mark.parametrize("state", [State.RUNNING, State.COLLECTING])
def test_a_machine_that_changes_its_host_key_is_not_paid_to_the_deadline(world_of, state: State) -> None:
    world = world_of(hours=2, max_attempts=1)
    world.cloud.faults["fetch"].extend(["corrupt"] * 99)
    world.drive(until=lambda: world.memory.state is state)
    at = world.clock()
    world.cloud.faults["status"].extend(["other host key"] * 999)
    world.drive()
    world.check_ended()
    assert "another host key" in world.memory.detail
    assert (world.clock() - at).total_seconds() <= 60


def test_the_same_failure_twice_is_not_bought_a_third_time(world_of) -> None:
    world = world_of(max_attempts=9)
    world.cloud.faults["status"].extend(["other host key"] * 9)
    world.drive()
    world.check_ended()
    assert world.memory.reason is Reason.PROVIDER
    assert "another host key" in world.memory.detail
    assert len(world.cloud.machines) == 2


def test_a_machine_that_never_answers_is_ended_when_its_boot_is_over(world_of) -> None:
    world = world_of(hours=2, max_attempts=1)
    world.cloud.faults["status"].extend(["unreachable"] * 999)
    world.drive()
    world.check_ended()
    (machine,) = world.cloud.machines.values()
    assert (world.memory.reason, world.memory.detail) == (Reason.PROVIDER, "never came up")
    assert machine.ended is not None
    assert (machine.ended - machine.since).total_seconds() <= world.cloud.traits.boot_limit_seconds + 60


def test_an_agent_that_died_without_a_result_is_not_waited_for_while_it_bills(world_of) -> None:
    world = world_of()
    world.drive(until=lambda: world.memory.step >= 10)
    world.cloud.machines["m-1"].died = world.clock()
    world.drive(until=lambda: world.memory.attempt == 2)
    machine = world.cloud.machines["m-1"]
    assert machine.died is not None
    assert machine.ended is not None
    assert (machine.ended - machine.died).total_seconds() < 15


class Marker:
    """Renames a machine of the fake cloud."""

    def __init__(self, cloud: FakeCloud) -> None:
        self._cloud = cloud

    def adopt(self, allocation_id: str, mark: Mark) -> None:
        self._cloud.machines[allocation_id].mark = mark


@pytest.fixture
def adopted(world_of) -> World:
    """A machine that somebody started by hand, held for half an hour from now on."""
    world = world_of()
    world.drive()
    other = replace(next(iter(world.cloud.machines.values())), id="i-hand", since=world.clock(), ended=None)
    world.cloud.machines = {"i-hand": other}
    world.cloud.holder_on_machine = False
    world.clock.advance(3600)
    found = Allocation("i-hand", None, "my box", billing=True, price=other.price)
    ledger = Ledger(Home(world.home.root).ledger)
    world.run_id = adopt(world.home, ledger, world.cloud, Marker(world.cloud), found, hours=0.5, now=world.clock())
    ledger.close()
    return world


def test_an_adopted_instance_is_ended_at_its_hour_and_its_earlier_bill_is_not_ours(adopted: World) -> None:
    begin = adopted.clock()
    adopted.drive(most_seconds=20_000)
    (machine,) = adopted.cloud.machines.values()
    assert adopted.memory.state is State.DONE
    assert machine.ended is not None
    assert 1800 <= (machine.ended - begin).total_seconds() <= 1830
    assert Decimal("0.59") <= adopted.row.accrued(adopted.clock().timestamp()).high <= Decimal("0.63")


def test_an_adopted_instance_is_ended_at_once_when_a_stop_is_asked_for(adopted: World) -> None:
    begin = adopted.clock()
    adopted.ledger.request_stop(adopted.run_id, adopted.clock())
    adopted.drive(most_seconds=20_000)
    (machine,) = adopted.cloud.machines.values()
    assert adopted.memory.reason is Reason.STOPPED
    assert machine.ended is not None
    assert (machine.ended - begin).total_seconds() <= 10


def test_an_adopted_instance_that_vanishes_is_not_rented_again(adopted: World) -> None:
    adopted.cloud.machines["i-hand"].ended = adopted.clock()
    adopted.drive(most_seconds=20_000)
    assert (adopted.memory.reason, len(adopted.cloud.machines)) == (Reason.LOST, 1)


@pytest.fixture
def cut_off(adopted: World) -> tuple[World, Allocation]:
    """An adoption that died right after the mark was put on."""
    (machine,) = adopted.cloud.machines.values()
    for query in ("DELETE FROM allocations WHERE run_id = ?", "DELETE FROM runs WHERE run_id = ?"):
        adopted.ledger._db.execute(query, (adopted.run_id,))
    return adopted, Allocation(machine.id, machine.mark, "my box", billing=True, price=machine.price)


def test_an_adoption_that_was_cut_off_can_be_made_again(cut_off: tuple[World, Allocation]) -> None:
    world, found = cut_off
    vendor = Marker(world.cloud)
    vendor.allocations = lambda: [found]  # type: ignore[attr-defined]
    vendor.name, vendor.traits, vendor.skew = "fake", world.cloud.traits, timedelta(0)  # type: ignore[attr-defined]
    seen = adoption.look(vendor, "i-hand", 1, world.clock(), world.home)  # type: ignore[arg-type]
    assert seen.allocation == found
    again = adopt(world.home, world.ledger, world.cloud, vendor, found, hours=1, now=world.clock())
    assert again == world.run_id
    with pytest.raises(UsageError, match="carries a mark"):
        adoption.look(vendor, "i-hand", 1, world.clock(), world.home)  # type: ignore[arg-type]
    begin = world.clock()
    world.drive(most_seconds=20_000)
    (machine,) = world.cloud.machines.values()
    assert machine.ended is not None
    assert 3600 <= (machine.ended - begin).total_seconds() <= 3630


def test_an_adoption_that_can_not_be_written_down_says_that_the_mark_is_on(
    cut_off: tuple[World, Allocation],
) -> None:
    world, found = cut_off
    world.ledger._db.execute("PRAGMA query_only = ON")
    with pytest.raises(LedgerError, match="i-hand bears the mark gpurun-") as caught:
        adopt(world.home, world.ledger, world.cloud, Marker(world.cloud), found, hours=1, now=world.clock())
    assert caught.value.allocation_id == "i-hand"
    assert "adopt it again" in caught.value.hint


def test_an_adopted_instance_is_metered_though_the_adoption_was_cut_off_before_the_meter_was_opened(
    adopted: World,
) -> None:
    adopted.ledger._db.execute("DELETE FROM allocations WHERE run_id = ?", (adopted.run_id,))
    adopted.drive(most_seconds=20_000)
    assert Decimal("0.59") <= adopted.row.accrued(adopted.clock().timestamp()).high <= Decimal("0.63")
