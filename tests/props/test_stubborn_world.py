"""A vendor that forgets thirty orders to end and answers nobody for an hour: it ends, and that is proven."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from oracle import judge
from story import Computers, Story, Wished
from vendors import Nature
from world import BEGIN, World

if TYPE_CHECKING:
    from pathlib import Path

    from oracle import Told

HOUR = 3600.0
NATURE = Nature(
    jobs=False, records=False, bills_boot=True, lag=5.0, boot=20.0, queue=0.0, linger=0.0, step=60, poll=15.0,
    ignores=30, flaws=0.0, pages=False,
)  # fmt: skip
WISH = Wished(
    home=0, at=0.0, minutes=10.0, more=0.0, steps=100_000, every=60, attempts=1, offers=1, max_cost=None, wait=0.0,
    key=False, risk=True,
)  # fmt: skip
STORY = Story(
    seed=30,
    nature=NATURE,
    computers=Computers(ahead=(0.0,), guarded=(True,), homes=(0,), keys=("acct-a",), watcher=False),
    wishes=(WISH,),
    incidents=((540.0, "API down", {"seconds": HOUR}),),
    lies=0.0,
    late_launches=0.0,
    deaths=((),),
    guard_deaths=(),
    foreign=1,
    quiet=540.0 + HOUR,
)


def play(story: Story, root: Path) -> tuple[World, Told]:
    world = World(story, root, telling=True)
    history = world.play()
    assert judge(history).violations == []
    (told,) = history.told
    return world, told


def ends(world: World) -> list[float]:
    """Seconds from the beginning, of ours."""
    ours = [one for one in world.vendor.things.values() if one.name.startswith("gpurun-")]
    return [(math.inf if one.ended is None else one.ended) - BEGIN for one in ours]


def test_thirty_ignored_orders_and_an_hour_of_silence_end_in_a_proof(tmp_path: Path) -> None:
    world, told = play(STORY, tmp_path)
    (end,) = ends(world)
    assert 540 + HOUR < end < 540 + HOUR + 30 * 60
    assert world.vendor.counts["terminate ignored"] == 30
    assert (told.state, all(evidence for _, evidence in told.known)) == ("done", True)


def test_without_them_the_same_run_ends_at_its_deadline(tmp_path: Path) -> None:
    world, told = play(replace(STORY, nature=replace(NATURE, ignores=0), incidents=(), quiet=600.0), tmp_path)
    (end,) = ends(world)
    assert 480 <= end < 600 + 120  # its training is told to save two minutes before
    assert (told.state, told.reason) == ("done", "deadline")
