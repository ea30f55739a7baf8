"""A pass that takes minutes: no account is left alone meanwhile, and what this home does meanwhile is known."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from fakes import START, FakeCloud
from scenes import Scene, mark

from orchestrator import guard_pass
from orchestrator.guard_pass import Means
from orchestrator.words import State

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from worlds import World

    from providers.base import Allocation


@pytest.fixture
def scene(fast_path: Path) -> Scene:
    return Scene(fast_path)


def timed(cloud: FakeCloud) -> list[float]:
    """Note when a cloud is listed, seconds after the start."""
    at: list[float] = []
    told: Callable[[], list[Allocation]] = cloud.allocations  # type: ignore[assignment]

    def allocations() -> list[Allocation]:
        at.append((cloud.clock() - START).total_seconds())
        return told()

    cloud.allocations = allocations  # type: ignore[method-assign]
    return at


def test_an_account_that_owes_nothing_is_listed_each_half_minute_while_another_is_waited_for(scene: Scene) -> None:
    second = scene.another("second")
    scene.providers["second"] = second
    scene.bills(mark(-1))
    scene.cloud.faults["terminate"].extend(["ignored"] * 1000)
    soon = scene.bills(mark(50 / 3600), second)
    lists = timed(second)
    pulse = scene.once()
    end = (scene.clock() - START).total_seconds()
    assert end > 120
    assert max(later - sooner for sooner, later in pairwise([*lists, end])) <= 30
    assert soon.ended is not None
    assert 50 <= (soon.ended - START).total_seconds() <= 80
    assert [one["id"] for one in pulse.providers["second"].ended] == [soon.id]
    assert pulse.unproven == 1


def test_where_nothing_is_owed_each_account_is_listed_once(scene: Scene) -> None:
    second = scene.another("second")
    scene.providers["second"] = second
    scene.bills(mark(1))
    lists = [timed(scene.cloud), timed(second)]
    scene.once()
    assert lists == [[0.0], [0.0]]


def test_what_this_home_launches_during_a_pass_is_no_machine_that_nobody_knows(world: World, scene: Scene) -> None:
    world.drive(until=lambda: world.memory.state is State.RUNNING)
    other = FakeCloud(world.clock, name="other", holder_on_machine=False)
    scene.bills(mark(-1), other)
    other.faults["terminate"].extend(["ignored"] * 1000)
    lists = timed(world.cloud)

    def pause(seconds: float) -> None:
        world.clock.advance(seconds)
        if len(world.cloud.machines) == 1:
            world.cloud.machines["m-1"].ended = world.clock()  # the vendor lost it: another attempt follows
            world.drive(until=lambda: len(world.cloud.machines) == 2)

    pulse = guard_pass.once(world.home, {"other": other, "fake": world.cloud}, Means(world.clock, pause))
    assert len(lists) > 1
    assert pulse.providers["fake"].counts == {"live": 1}
    assert pulse.providers["fake"].unknown == []
