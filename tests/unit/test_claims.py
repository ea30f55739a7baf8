"""What the controller may conclude: on whose word, from which account, of how many allocations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fakes import START
from worlds import RUN

from orchestrator.facts import Memory, Seen
from orchestrator.lifecycle import decide
from orchestrator.words import Launch, Reason, State
from providers.base import Observation, Phase, RemoteStatus

if TYPE_CHECKING:
    from worlds import World


def test_another_account_s_no_such_thing_is_no_absence(world: World) -> None:
    world.drive(until=lambda: world.memory.step > 5)
    account = world.cloud.account
    world.cloud.account = lambda: "acct-other"  # type: ignore[method-assign]
    world.cloud.faults["inspect"].extend(["absent"] * 200)  # what a key of another account would read
    stranger = world.controller()
    for _ in range(60):
        stranger.tick()
        world.clock.advance(5)
    assert not world.memory.is_done
    assert world.memory.absences == ()
    assert len(world.cloud.machines) == 1
    world.cloud.account = account  # type: ignore[method-assign]
    world.cloud.faults["inspect"].clear()
    world.drive()
    world.check_ended()


def test_nothing_is_rented_on_an_account_that_the_plan_did_not_name(world: World) -> None:
    world.cloud.account = lambda: "acct-other"  # type: ignore[method-assign]
    world.drive()
    assert world.memory.reason is Reason.CREDENTIALS
    assert world.cloud.machines == {}


def test_of_two_allocations_the_less_certain_end_counts(world: World) -> None:
    world.cloud.faults["launch"].append("twice")
    world.cloud.faults["terminate"].extend(["ignored"] * 6)
    world.drive(until=lambda: world.memory.state is State.TERMINATING)
    inspect, false_looks = world.cloud.inspect, [True, True]

    def one_ended_one_lagging(allocation_id: str) -> Observation:
        look = inspect(allocation_id)
        if allocation_id == "m-1":
            world.cloud.machines["m-1"].ended = world.cloud.machines["m-1"].ended or world.clock()
            return Observation(Phase.EXITED, billing=False, evidence="terminated")
        return Observation(Phase.ABSENT, billing=False, evidence="404") if false_looks and false_looks.pop() else look

    world.cloud.inspect = one_ended_one_lagging  # type: ignore[method-assign]
    world.drive(until=lambda: world.memory.state is not State.TERMINATING)
    assert world.cloud.billing_now == []


def test_a_launch_that_one_list_lacks_and_the_next_one_shows_is_found(world: World) -> None:
    world.cloud.faults["launch"].append("lost_reply")
    world.cloud.find = lambda _mark: []  # type: ignore[method-assign]
    world.drive()
    world.check_ended()
    assert list(world.cloud.machines) == ["m-1"]


def test_an_end_before_the_start_is_another_failure_than_an_end_after_it(world: World) -> None:
    seen = Seen(Observation(Phase.EXITED, billing=False, evidence="gone"), RemoteStatus(Phase.EXITED))
    rules = world.row.rules(world.cloud.traits)
    states = (State.PROVISIONING, State.STARTING, State.RUNNING)
    ends = [decide(Memory(state=state, launch=Launch.ACCEPTED), seen, START, rules).memory for state in states]
    assert {end.reason for end in ends} == {Reason.LOST}
    assert len({end.detail for end in ends}) == len(states)


def test_a_twin_that_is_listed_later_ends_both(world: World) -> None:
    world.cloud.faults["launch"].append("twice")
    world.cloud.hidden["m-2"] = 45.0
    world.drive()
    world.check_ended()
    assert len(world.cloud.machines) == 3, "one launch made two, and the next one made one"
    assert {one.id for one in world.ledger.allocations(RUN)} == {"m-1", "m-2", "m-3"}
