"""What would cost money if it went wrong: late machines, full disks, wrong clocks, keys that outlive their run."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from fakes import Clock
from worlds import RUN, START, Paused, World

from orchestrator.words import Reason, State
from providers.base import Observation, Phase
from providers.errors import LedgerError

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from fakes import Machine

    from providers.base import Job, Offer


def test_an_unclear_launch_that_shows_only_after_the_lists_own_lag_is_still_found(world: World) -> None:
    def listed(machine: Machine) -> bool:
        return machine.billing and (world.clock() - machine.since).total_seconds() >= 25

    world.cloud._listed = listed  # type: ignore[method-assign]
    world.cloud.faults["launch"].append("lost_reply")
    assert world.cloud.traits.list_lag_seconds == 10
    world.drive()
    world.check_ended()
    assert (world.memory.reason, len(world.cloud.machines)) == (Reason.COMPLETED, 1)


def test_a_controller_that_can_record_nothing_ends_the_run_at_its_deadline_and_leaves(fast_path: Path) -> None:
    world = World(fast_path, hours=100 / 3600)
    world.cloud.holder_on_machine = False
    world.drive(until=lambda: world.memory.state is State.RUNNING)
    controller = world.controller()
    world.ledger._db.execute("PRAGMA query_only = ON")

    def pause(seconds: float) -> None:
        world.clock.advance(seconds)
        assert (world.clock() - START).total_seconds() < 3600, "it never leaves"

    with pytest.raises(LedgerError):
        controller.run(pause)
    assert world.cloud.billing_now == []
    (machine,) = world.cloud.machines.values()
    assert machine.ended is not None
    assert (machine.ended - START).total_seconds() <= 100 + 70
    assert (world.clock() - machine.ended).total_seconds() >= 60  # it looked on for a while before it believed that


def test_what_was_rented_and_could_not_be_written_down_is_ended_at_the_deadline(fast_path: Path) -> None:
    world = World(fast_path, hours=100 / 3600)
    world.cloud.holder_on_machine = False
    controller, launch = world.controller(), world.cloud.launch

    def fill_the_disk(job: Job, offer: Offer) -> str:
        rented = launch(job, offer)
        world.ledger._db.execute("PRAGMA query_only = ON")
        return rented

    world.cloud.launch = fill_the_disk  # type: ignore[method-assign]

    def pause(seconds: float) -> None:
        world.clock.advance(seconds)
        assert (world.clock() - START).total_seconds() < 3600, "it never leaves"

    with pytest.raises(LedgerError):
        controller.run(pause)
    (machine,) = world.cloud.machines.values()
    assert machine.ended is not None
    assert (machine.ended - START).total_seconds() <= 100 + 70


def test_another_accounts_word_that_it_has_no_such_thing_ends_no_vigil(fast_path: Path) -> None:
    world = World(fast_path, hours=100 / 3600)
    world.cloud.holder_on_machine = False
    world.drive(until=lambda: world.memory.state is State.RUNNING)
    controller = world.controller()
    world.ledger._db.execute("PRAGMA query_only = ON")
    world.cloud.account = lambda: "acct-other"  # type: ignore[method-assign]
    world.cloud.inspect = lambda one: Observation(Phase.ABSENT, billing=False, evidence=one)  # type: ignore[method-assign]
    for _ in range(40):
        with pytest.raises(Paused):
            controller.run(world._pause_once)


@pytest.mark.parametrize("fault", ["credentials", "capacity"])
def test_a_run_that_could_rent_nothing_leaves_no_key_behind(fast_path: Path, fault: str) -> None:
    world = World(fast_path, max_attempts=1)
    world.cloud.traits = replace(world.cloud.traits, ssh=True)
    world.cloud.faults["launch"].append(fault)
    world.drive()
    assert world.memory.is_done
    assert not world.home.run(RUN).ssh.exists()


def test_no_key_outlives_its_run_wherever_the_controller_is_killed(fast_path: Path) -> None:
    for line in range(1, 40):
        world = World(fast_path / str(line))
        world.cloud.traits = replace(world.cloud.traits, ssh=True, list_lag_seconds=0.0)
        world.cloud.total_steps = 1
        world.drive(until=lambda world=world: world.memory.state is State.TERMINATING)
        assert world.home.run(RUN).ssh.exists()
        world.killer.at = {world.killer.passed + line}
        world.drive()
        assert world.memory.is_done
        assert not world.home.run(RUN).ssh.exists(), f"killed at line {line}"
        world.ledger.close()


class TheirClock(Clock):
    """The vendor's, which differs from ours."""

    def __init__(self, ours: Clock, ahead: timedelta) -> None:
        self.ours, self.ahead = ours, ahead

    @property
    def now(self) -> datetime:  # type: ignore[override]
        return self.ours.now + self.ahead


def behind_us(world: World, ahead: timedelta) -> None:
    """Let the vendor's clock differ, as the plan has learnt and a new process has not."""
    world.cloud.clock = TheirClock(world.clock, ahead)
    fault, by = world.cloud._fault, ahead.total_seconds()

    def hears(verb: str) -> str:
        told = fault(verb)
        world.cloud.skew = ahead
        return told

    world.cloud._fault = hears  # type: ignore[method-assign]
    query = "UPDATE runs SET created = created + ?, deadline = deadline + ?, ceiling = ceiling + ?, skew = ?"
    world.ledger._db.execute(query, (by, by, by, by))


@pytest.mark.parametrize("hours", [-3, 3])
def test_a_new_controller_goes_by_the_vendors_clock_before_it_has_heard_it(world: World, hours: int) -> None:
    behind_us(world, timedelta(hours=hours))
    world.drive(until=lambda: world.memory.state is State.RUNNING)
    world.cloud.skew = timedelta(0)
    controller = world.controller()
    world.cloud.faults["inspect"].extend(["unreachable"] * 3)
    for _ in range(3):
        with pytest.raises(Paused):
            controller.run(world._pause_once)
    world.drive()
    world.check_ended()
    assert world.memory.reason is Reason.COMPLETED
    assert world.row.skew == hours * 3600


def test_a_later_attempt_is_given_the_time_that_is_left_and_no_more(world: World) -> None:
    world.cloud.traits = replace(world.cloud.traits, list_lag_seconds=0.0)
    world.cloud.faults["inspect"].append("unhealthy")
    world.drive(until=lambda: world.memory.state is State.RUNNING)
    (_, second) = world.cloud.machines.values()
    assert second.job is not None
    assert second.since + timedelta(seconds=second.job.max_seconds) <= second.mark.ceiling
