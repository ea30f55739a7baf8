"""A launch whose answer was lost, as tables: found by its mark, found twice, or proven to have left no trace."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from decisions import ABSENT_TWICE, GONE, LAG, OFFER, STOP, T0, at, in_state, step, told

from orchestrator.facts import Memory, Seen
from orchestrator.words import Act, Launch, Reason, State
from providers.base import Allocation

if TYPE_CHECKING:
    from worlds import World

SENT = Memory(state=State.PROVISIONING, launch=Launch.INTENDED, intended=T0, entered=T0, offer=OFFER)


def allocation(name: str) -> Allocation:
    return Allocation(name, None, name, billing=True)


def test_an_unclear_launch_that_is_found_is_followed() -> None:
    decision = step(replace(SENT, absences=(T0,)), Seen(found=(allocation("m-7"),)))
    expected = replace(SENT, launch=Launch.ACCEPTED, allocation_id="m-7", unclear=True)
    assert (decision.memory, decision.act) == (expected, Act.WAIT)


@pytest.mark.parametrize("extra", [("m-8",), ("m-8", "m-9")])
def test_an_unclear_launch_that_made_more_than_one_ends_them_all(extra: tuple[str, ...]) -> None:
    decision = step(SENT, Seen(found=tuple(map(allocation, ("m-7", *extra)))))
    words = f"one launch made {1 + len(extra)} allocations"
    assert told(decision) == (State.TERMINATING, Act.TERMINATE, Reason.PROVIDER, words)
    assert (decision.memory.allocation_id, decision.memory.extra_ids) == ("m-7", extra)
    assert decision.memory.reroll


@pytest.mark.parametrize(("seconds", "counted"), [(0, False), (LAG - 1, False), (LAG, True)])
@pytest.mark.parametrize(("memory", "seen"), [(SENT, Seen(found=())), (in_state(State.STARTING), GONE)])
def test_within_the_lists_lag_of_a_launch_an_absence_does_not_count(
    memory: Memory, seen: Seen, seconds: float, *, counted: bool
) -> None:
    assert bool(step(memory, seen, seconds).memory.absences) is counted


@pytest.mark.parametrize(
    ("absences", "found", "seconds", "settled"),
    [
        ((0, 1), (), 3 * LAG, True),
        ((0, 1), (), 3 * LAG - 1, False),  # what turns up after this nobody looks for
        ((0, 1), None, 3 * LAG, False),  # could not look
        ((0,), (), 3 * LAG, False),
    ],
)
def test_an_unclear_launch_left_no_trace_only_after_three_reads_over_thrice_the_lag(
    absences: tuple[int, ...], found: tuple[Allocation, ...] | None, seconds: float, *, settled: bool
) -> None:
    decision = step(replace(SENT, absences=tuple(map(at, absences)), step=7), Seen(found=found), seconds)
    assert decision.act is Act.WAIT
    if not settled:
        assert (decision.memory.state, decision.memory.launch) == (State.PROVISIONING, Launch.INTENDED)
        return
    assert decision.memory == Memory(
        attempt=2,
        entered=at(seconds),
        step=7,
        signatures=("provider: the launch left no trace (step 7)",),
        evidence="not found by its mark over thrice the list's lag",
    )


@pytest.mark.parametrize(("more", "reason"), [({}, Reason.PROVIDER), (STOP, Reason.STOPPED)])
def test_a_last_launch_that_left_no_trace_ends_the_run(more: dict[str, bool], reason: Reason) -> None:
    memory = replace(SENT, attempt=3, absences=ABSENT_TWICE, **more)
    decision = step(memory, Seen(found=()), 3 * LAG)
    assert told(decision) == (State.DONE, Act.FINISH, reason, "the launch left no trace")
    assert decision.memory.launch is Launch.NOT_YET


def test_a_launch_that_is_looked_for_counts_as_seen_once_the_vendor_answered(world: World) -> None:
    world.cloud.faults["launch"].append("lost_request")
    world.cloud.faults["find"].append("unreachable")
    world.drive(until=lambda: bool(world.memory.intended) and not world.cloud.faults["find"])
    assert (world.memory.launch, world.row.seen) == (Launch.INTENDED, None)
    world.drive(until=lambda: bool(world.memory.absences))
    assert (world.memory.launch, world.row.seen is None) == (Launch.INTENDED, False)
    world.drive()
    world.check_ended()
