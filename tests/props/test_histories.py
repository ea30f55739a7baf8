"""Any history ends once with nothing billing: random faults, kills, stops and lags on the shipped controller."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass, replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

from fakes import OFFER
from hypothesis import HealthCheck, Phase, event, given, settings
from hypothesis import strategies as st
from worlds import FAST, RUN, START, World

from orchestrator.words import Reason, State

FAULTS = {
    "launch": ["", "lost_reply", "lost_request", "capacity", "capacity", "unreachable"],
    "offers": ["", "unreachable"],
    "find": ["", "unreachable"],
    "inspect": ["", "", "unreachable", "absent", "unhealthy", "dearer"],
    "start": ["", "broken", "unreachable"],
    "status": ["", "", "unreachable", "other host key"],
    "logs": ["", "unreachable"],
    "manifest": ["", "unreachable"],
    "fetch": ["", "corrupt"],
    "tell": ["", "unreachable"],
    "terminate": ["", "ignored", "unreachable"],
    "tidy": ["", "unreachable"],
}


@dataclass(frozen=True)
class Story:
    """Drawn up front, so that a failing one can be read and told again."""

    faults: dict[str, list[str]]
    kills: frozenset[int]
    stop_at: int | None  # seconds after the launch
    agent_dies_at: int | None
    machine_vanishes_at: int | None
    machine_sickens_at: int | None
    lag: int
    linger: int
    hours: float
    offers: int
    sold_out_until: int  # seconds: all of them
    wait: int


def at_most_two_lies(faults: dict[str, list[str]]) -> dict[str, list[str]]:
    """A vendor that denies what exists in three reads running breaks the promise on which all proof rests."""
    kept: list[str] = []
    for kind in faults["inspect"]:
        kept.append("" if kept[-2:] == [kind, kind] == ["absent", "absent"] else kind)
    return {**faults, "inspect": kept}


stories = st.builds(
    Story,
    faults=st.fixed_dictionaries(
        {verb: st.lists(st.sampled_from(kinds), max_size=12) for verb, kinds in FAULTS.items()}
    ).map(at_most_two_lies),
    kills=st.frozensets(st.integers(1, 400), max_size=6),
    stop_at=st.none() | st.integers(0, 200),
    agent_dies_at=st.none() | st.integers(20, 150),
    machine_vanishes_at=st.none() | st.integers(0, 150),
    machine_sickens_at=st.none() | st.integers(0, 150),
    lag=st.sampled_from([0, 5, 20, 60]),
    linger=st.sampled_from([0, 0, 7, 40, 400]),
    hours=st.sampled_from([0.02, 0.05, 0.2]),
    offers=st.integers(1, 3),
    sold_out_until=st.sampled_from([0, 0, 0, 40, 200, 900]),
    wait=st.sampled_from([0, 0, 100, 600]),
)
OFFERS = tuple(replace(OFFER, name=f"a10@{n}", price=OFFER.price + Decimal(n) / 10) for n in range(3))


def play(story: Story, root: Path) -> World:
    world = World(root, hours=story.hours, candidates=OFFERS[: story.offers], wait_seconds=story.wait)
    world.cloud.total_steps = 40
    world.cloud.sold_out = {one.name for one in OFFERS} if story.sold_out_until else set()
    world.cloud.traits = replace(world.cloud.traits, list_lag_seconds=float(story.lag))
    for verb, kinds in story.faults.items():
        world.cloud.faults[verb].extend(kinds)
    world.cloud.linger_seconds = story.linger
    world.killer.at = set(story.kills)

    def age() -> float:
        return (world.clock() - START).total_seconds()

    todo = sorted(
        (at, what)
        for at, what in [
            (story.stop_at, "stop"),
            (story.agent_dies_at, "die"),
            (story.machine_vanishes_at, "vanish"),
            (story.machine_sickens_at, "sicken"),
            (story.sold_out_until or None, "open"),
        ]
        if at is not None
    )
    for at, what in todo:
        world.drive(until=lambda at=at: age() >= at)  # type: ignore[misc]
        if what == "stop":
            world.ledger.request_stop(RUN, world.clock())
        if what == "open":
            world.cloud.sold_out = set()
        for machine in world.cloud.billing_now:
            machine.sick = machine.sick or what == "sicken"
            if what == "die" and machine.job is not None:
                machine.died = world.clock()
            if what == "vanish":
                machine.ended = world.clock()
    world.drive()
    return world


LAWS = settings(
    max_examples=int(os.environ.get("GPURUN_HISTORIES", "40")),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
)


@LAWS
@given(stories)
def test_any_history_ends_once_with_nothing_billing(story: Story) -> None:
    with tempfile.TemporaryDirectory(dir=FAST) as folder:
        world = play(story, Path(folder))
        event(str(world.memory.reason))
        world.check_ended()
        assert world.cloud.most_billing <= 1, "two allocations billed for one run"
        for machine in world.cloud.machines.values():
            assert machine.ended is not None
            assert machine.ended <= machine.mark.ceiling, "billed past its ceiling though the holder on it lived"
            given = (machine.mark.ceiling - machine.since).total_seconds()
            assert given <= story.hours * 3600, "a wait for capacity bought time that nobody agreed to"
        if "dearer" not in story.faults["inspect"]:
            seconds = story.hours * 3600 + len(world.cloud.machines)  # each in begun seconds
            assert world.cloud.dollars() <= OFFERS[story.offers - 1].price * Decimal(seconds) / 3600
        last = max((at for at, _ in world.cloud.asked_for), default=0.0)
        if not world.cloud.machines:
            assert last <= max(story.wait, story.hours * 3600), "asked for a machine after the wait was over"
        if story.stop_at == 0:
            assert world.memory.reason in {Reason.STOPPED, Reason.NO_CAPACITY, Reason.DEADLINE}
        world.ledger.close()


@LAWS
@given(stories)
def test_without_a_holder_on_the_machine_the_controller_ends_it_soon_after_the_deadline(story: Story) -> None:
    with tempfile.TemporaryDirectory(dir=FAST) as folder:
        world = World(Path(folder), hours=story.hours)
        world.cloud.total_steps = 100_000
        world.cloud.holder_on_machine = False
        world.cloud.traits = replace(world.cloud.traits, list_lag_seconds=float(story.lag))
        world.killer.at = set(story.kills)
        world.drive()
        world.check_ended()
        assert world.memory.state is State.DONE
        for machine in world.cloud.machines.values():
            assert machine.ended is not None
            assert machine.ended - machine.mark.ceiling <= timedelta(seconds=60)
        world.ledger.close()
