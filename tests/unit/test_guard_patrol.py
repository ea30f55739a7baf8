"""A pass that takes minutes: no account is left alone meanwhile, and who is to hear of something hears it soon."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from fakes import START, FakeCloud
from scenes import Scene, mark

from orchestrator import guard_pass, guard_pulse
from orchestrator.guard_pass import Means
from orchestrator.words import State
from providers.errors import UnreachableError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from worlds import World

    from orchestrator.guard_pass import Notice
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


# ── what is told ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_account_that_can_not_be_looked_at_is_told_while_another_is_waited_for(scene: Scene) -> None:
    scene.bills(mark(-1))
    scene.cloud.faults["terminate"].extend(["ignored"] * 1000)
    second = scene.providers["second"] = scene.another("second")
    assert isinstance(second, FakeCloud)
    second.faults["allocations"].extend(["", *["unreachable"] * 1000])
    told: list[tuple[str, float]] = []

    def tell(notice: Notice) -> None:
        told.append((notice.title, scene.paused))

    pulse = guard_pass.once(scene.home, scene.providers, Means(scene.clock, scene.pause, tell=tell))
    (blind, seconds), (unproven, end) = told
    assert (blind, unproven) == ("gpurun's guard can't vouch for second", "NOT PROVEN GONE")
    assert seconds <= 30
    assert end == scene.paused > 120
    assert (len(pulse.alerted), pulse.under_way) == (2, False)


def test_an_end_that_is_proven_in_time_is_no_alarm(scene: Scene) -> None:
    scene.bills(mark(-1))
    assert scene.once().unproven == 0
    assert [notice.title for notice in scene.told] == ["gpurun's guard ended a machine"]


def test_what_lasts_is_told_each_hour_and_sooner_where_nobody_heard_it(scene: Scene) -> None:
    scene.providers["fake"] = UnreachableError("no answer")
    lost: set[str] = set()
    means = Means(scene.clock, scene.pause, tell=scene.told.append, lost=lost.__contains__)
    counts = []
    for minutes in (1, 30, 31, 1, 1, 61, 1):
        guard_pass.once(scene.home, scene.providers, means)
        scene.clock.advance(60 * minutes)
        counts.append(len(scene.told))
        lost.clear()
        if len(counts) == 4:  # its sender reached nobody
            lost.add(scene.told[-1].key)
    assert counts == [1, 1, 1, 2, 3, 3, 4]
    scene.providers["fake"] = scene.cloud
    assert scene.once().alerted == {}


def test_what_an_older_guard_had_told_is_not_told_again_at_once(scene: Scene) -> None:
    scene.providers["fake"] = UnreachableError("no answer")
    (key,) = scene.once().alerted
    value = json.loads(guard_pulse.path_of(scene.home).read_text())
    guard_pulse.path_of(scene.home).write_text(json.dumps({**value, "alerted": [key]}))
    assert list(scene.once().alerted) == [key]
    assert len(scene.told) == 1
