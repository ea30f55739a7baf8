"""An extension in the life cycle: from the outside in, answered once, and never past what can really be moved."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest
from worlds import RUN, START, World

from orchestrator.words import Reason
from providers.base import utc
from providers.errors import RefusedError

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.records import Event

LONG = 2000  # steps, one a second


@pytest.fixture
def long_world(fast_path: Path) -> World:
    world = World(fast_path)
    world.cloud.total_steps = LONG
    world.drive(until=lambda: world.memory.step >= 20)
    return world


def wish(world: World, seconds: float, **more: object) -> int:
    values = {"max_cost": None, "monthly_cap": None, **more}
    deadline = utc(world.row.deadline + seconds)
    return world.ledger.wish_extension(RUN, deadline=deadline, now=world.clock(), **values)  # type: ignore[arg-type]


def answers(world: World) -> list[Event]:
    return [one for one in world.ledger.events(RUN) if one.verb == "extend" and one.kind != "intent"]


def test_an_extension_moves_the_mark_then_the_machine_then_the_ledger(long_world: World) -> None:
    before = utc(long_world.row.ceiling)
    assert wish(long_world, 600) == 1
    long_world.drive()
    long_world.check_ended()
    machine = long_world.cloud.machines["m-1"]
    assert machine.mark.ceiling == before + timedelta(seconds=600)
    assert machine.ended is not None
    assert machine.ended > before, "it was ended as if nothing had been granted"
    assert [one.kind for one in answers(long_world)] == ["done"]
    assert utc(long_world.row.deadline) == before + timedelta(seconds=600)


def test_where_the_vendor_can_not_move_its_limit_the_wish_is_refused_and_nothing_changes(long_world: World) -> None:
    long_world.cloud.movable = False
    before = long_world.row.deadline
    wish(long_world, 600)
    long_world.drive()
    long_world.check_ended()
    assert [one.kind for one in answers(long_world)] == ["failed"]
    assert "can't move" in answers(long_world)[0].text
    assert long_world.row.deadline == before
    ended = long_world.cloud.machines["m-1"].ended
    assert ended is not None
    assert ended <= utc(before)


def test_up_to_the_ceiling_the_vendor_is_not_asked(fast_path: Path) -> None:
    world = World(fast_path)
    world.cloud.total_steps, world.cloud.movable = LONG, False
    world.ledger._db.execute("UPDATE runs SET ceiling = ceiling + 900")
    world.drive(until=lambda: world.memory.step >= 20)
    wish(world, 600)
    world.drive()
    world.check_ended()
    assert [one.kind for one in answers(world)] == ["done"]
    ended = world.cloud.machines["m-1"].ended
    assert ended is not None
    assert (ended - START).total_seconds() > 800


def test_nothing_is_granted_before_the_machine_has_taken_it_up(long_world: World) -> None:
    before = long_world.row.deadline
    long_world.cloud.faults["tell"].extend(["unreachable"] * 3)
    wish(long_world, 600)
    long_world.drive(until=lambda: not long_world.cloud.faults["tell"])
    assert long_world.row.deadline == before
    assert answers(long_world) == []
    long_world.drive()
    long_world.check_ended()
    assert [one.kind for one in answers(long_world)] == ["done"]


def test_an_order_that_nobody_takes_up_extends_nothing(long_world: World) -> None:
    long_world.cloud.deaf = True
    before = long_world.row.deadline
    wish(long_world, 600)
    long_world.drive()
    long_world.check_ended()
    assert answers(long_world) == []
    assert long_world.row.deadline == before
    ended = long_world.cloud.machines["m-1"].ended
    assert ended is not None
    assert ended <= utc(before + 30), "it went on though nothing was granted"


def test_a_stop_after_an_extension_is_a_newer_order(long_world: World) -> None:
    wish(long_world, 600)
    long_world.drive(until=lambda: bool(answers(long_world)))
    long_world.ledger.request_stop(RUN, long_world.clock())
    long_world.drive()
    long_world.check_ended()
    assert long_world.memory.reason is Reason.STOPPED
    assert long_world.home.run(RUN).result.is_file(), "the order was not obeyed"


def test_a_stop_whose_order_was_lost_is_told_again(long_world: World) -> None:
    long_world.cloud.faults["tell"].extend(["unreachable"] * 2)
    long_world.ledger.request_stop(RUN, long_world.clock())
    long_world.drive()
    long_world.check_ended()
    assert long_world.home.run(RUN).result.is_file(), "the training was never asked to save"


def test_a_wish_that_is_no_later_or_too_late_is_refused_at_once(long_world: World) -> None:
    with pytest.raises(RefusedError, match="no later"):
        wish(long_world, -60)
    long_world.ledger.request_stop(RUN, long_world.clock())
    with pytest.raises(RefusedError, match="is ending"):
        wish(long_world, 600)


def test_the_budget_and_the_monthly_cap_hold_for_an_extension_too(fast_path: Path) -> None:
    world = World(fast_path, max_cost=Decimal("0.15"))
    world.cloud.total_steps = LONG
    world.drive(until=lambda: world.memory.step >= 20)
    with pytest.raises(RefusedError, match=r"the budget is \$0\.15"):
        wish(world, 600)
    with pytest.raises(RefusedError, match=r"the monthly cap is \$0\.20"):
        wish(world, 600, max_cost=Decimal(1), monthly_cap=Decimal("0.20"))
    wish(world, 600, max_cost=Decimal(1), monthly_cap=Decimal(5))
    world.drive()
    world.check_ended()
    assert world.row.max_cost == Decimal(1)


def test_a_kill_at_any_line_of_an_extension_leaves_one_answer(fast_path: Path) -> None:
    for number in range(0, 60, 3):
        (fast_path / str(number)).mkdir()
        world = World(fast_path / str(number))
        world.cloud.total_steps = LONG
        world.drive(until=lambda: world.memory.step >= 10)  # noqa: B023
        wish(world, 300)
        world.killer.at = {world.killer.passed + number}
        world.drive()
        world.check_ended()
        assert [one.kind for one in answers(world)] == ["done"], number
        world.ledger.close()


def test_a_wish_that_was_refused_stays_refused_for_the_next_attempt(long_world: World) -> None:
    long_world.cloud.movable = False
    before = long_world.row.deadline
    wish(long_world, 600)
    long_world.drive(until=lambda: bool(answers(long_world)))
    long_world.cloud.movable = True
    long_world.cloud.machines["m-1"].ended = long_world.clock()  # the vendor took it back
    long_world.drive()
    long_world.check_ended()
    assert len(long_world.cloud.machines) > 1
    assert [one.kind for one in answers(long_world)] == ["failed"]
    assert long_world.row.deadline == before


def test_what_was_granted_is_answered_once_though_another_attempt_follows(long_world: World) -> None:
    wish(long_world, 600)
    long_world.drive(until=lambda: bool(answers(long_world)))
    long_world.cloud.machines["m-1"].ended = long_world.clock()
    long_world.drive()
    long_world.check_ended()
    assert len(long_world.cloud.machines) > 1
    assert [one.kind for one in answers(long_world)] == ["done"]
    assert long_world.cloud.machines["m-2"].mark.ceiling == utc(long_world.row.ceiling)


def test_a_wish_is_refused_while_another_is_being_carried_out(long_world: World) -> None:
    """The vendor's limit may be moved already: a nearer one in the ledger would be less than what may bill."""
    long_world.cloud.faults["tell"].extend(["unreachable"] * 3)
    wish(long_world, 600)
    long_world.drive(until=lambda: not long_world.cloud.faults["tell"])
    assert long_world.cloud.machines["m-1"].mark.ceiling > utc(long_world.row.ceiling)
    with pytest.raises(RefusedError, match="not answered yet"):
        wish(long_world, 60)
    long_world.drive(until=lambda: bool(answers(long_world)))
    assert wish(long_world, 60) == 2
    long_world.drive()
    long_world.check_ended()
    assert long_world.cloud.machines["m-1"].mark.ceiling == utc(long_world.row.ceiling)


def test_hours_that_were_added_while_nothing_was_to_be_had_count_from_the_launch_too(fast_path: Path) -> None:
    world = World(fast_path, wait_seconds=3600)
    world.cloud.total_steps, world.cloud.sold_out = LONG, {"gpu_1x_a10"}
    before = world.row.deadline
    world.drive(until=lambda: world.memory.rounds > 3)
    wish(world, 60)
    world.drive(until=lambda: world.memory.rounds > 12)
    world.cloud.sold_out.clear()
    world.drive(until=lambda: bool(answers(world)))
    waited = world.cloud.machines["m-1"].since - START
    assert waited.total_seconds() > 60
    assert world.row.deadline - before == pytest.approx(60 + waited.total_seconds(), abs=35)
    assert world.cloud.machines["m-1"].mark.ceiling == utc(world.row.ceiling)


def test_a_vendor_that_does_not_answer_an_extension_keeps_no_log_from_coming_home(long_world: World) -> None:
    step = long_world.memory.step
    long_world.cloud.faults["extend"].extend(["unreachable"] * 20)
    wish(long_world, 600)
    log = long_world.home.run(RUN).log
    size = log.stat().st_size
    long_world.drive(until=lambda: long_world.memory.step > step + 30)
    assert long_world.cloud.faults["extend"]
    assert log.stat().st_size > size
