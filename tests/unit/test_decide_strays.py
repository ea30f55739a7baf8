"""What bills for a run and is not in its ledger: never two for one run, and no end while nobody could look."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from decisions import ABSENT_TWICE, DEADLINE, GONE, LAG, OFFER, STOP, T0, TRAINS, at, in_state, look, step, told

from orchestrator.facts import Memory, Seen
from orchestrator.lifecycle import launch_accepted
from orchestrator.words import Act, Launch, Reason, State
from providers.base import Allocation, Phase

WORDS = "what the ledger does not know bills for it"
NEW = Memory()
SENT = replace(NEW, state=State.PROVISIONING, launch=Launch.INTENDED, intended=T0, entered=T0, offer=OFFER)
ENDS = in_state(State.TERMINATING, reason=Reason.COMPLETED, terminate_sent=True, collected=True)
OVER = look(Phase.EXITED, billing=False)


def found(*names: str) -> tuple[Allocation, ...]:
    return tuple(Allocation(name, None, name, billing=True) for name in names)


@pytest.mark.parametrize("memory", [NEW, replace(NEW, attempt=2), replace(SENT, absences=ABSENT_TWICE)])
def test_a_stray_is_ended_before_anything_is_rented(memory: Memory) -> None:
    decision = step(memory, Seen(offers=(OFFER,), found=(), strays=("m-8", "m-9")), 3 * LAG)
    assert told(decision) == (State.TERMINATING, Act.TERMINATE, Reason.PROVIDER, WORDS)
    after = decision.memory
    assert (after.allocation_id, after.extra_ids, after.launch) == ("m-8", ("m-9",), Launch.ACCEPTED)
    assert after.reroll


@pytest.mark.parametrize("last", [1, 3])
def test_no_two_attempts_write_to_one_place_in_the_store_where_the_ledger_forgot_one(last: int) -> None:
    first = step(NEW, Seen(offers=(OFFER,), last_attempt=last))
    assert (first.act, first.memory.state, first.memory.attempt) == (Act.WAIT, State.PENDING, last + 1)
    assert step(first.memory, Seen(offers=(OFFER,), last_attempt=last)).act is Act.LAUNCH


def test_while_the_store_is_silent_nothing_is_rented_and_the_limits_hold() -> None:
    silent = Seen(offers=(OFFER,), last_attempt=None)
    assert step(replace(NEW, attempt=2), silent).act is Act.WAIT
    assert step(replace(NEW, attempt=2), silent, DEADLINE).memory.state is State.DONE


@pytest.mark.parametrize(
    ("more", "seconds", "state", "act"),
    [
        ({}, 0, State.PENDING, Act.WAIT),
        (STOP, 0, State.DONE, Act.FINISH),  # nothing was launched yet, so nothing is looked for
        ({}, DEADLINE, State.DONE, Act.FINISH),
        ({"attempt": 2}, 0, State.PENDING, Act.WAIT),
        ({"attempt": 2, **STOP}, 0, State.PENDING, Act.WAIT),
        ({"attempt": 2}, DEADLINE, State.PENDING, Act.WAIT),
    ],
)
def test_while_nobody_can_look_for_strays_nothing_is_rented_and_no_later_attempt_ends(
    more: dict[str, Any], seconds: float, state: State, act: Act
) -> None:
    decision = step(replace(NEW, **more), Seen(offers=(OFFER,), strays=None), seconds)
    assert (decision.memory.state, decision.act) == (state, act)


def test_an_unclear_launch_is_not_called_traceless_while_nobody_can_look_for_strays() -> None:
    decision = step(replace(SENT, absences=ABSENT_TWICE), Seen(found=(), strays=None), 3 * LAG)
    assert (decision.memory.launch, decision.act) == (Launch.INTENDED, Act.WAIT)


def test_a_list_that_names_one_twice_tells_of_one() -> None:
    decision = step(SENT, Seen(found=found("m-7", "m-7")))
    assert (decision.memory.allocation_id, decision.memory.extra_ids, decision.act) == ("m-7", (), Act.WAIT)


@pytest.mark.parametrize(
    ("known", "strays", "extra"),
    [
        ((), ("m-8",), ("m-8",)),
        (("m-2",), ("m-8", "m-9"), ("m-2", "m-8", "m-9")),
        (("m-2",), ("m-2", "m-8"), ("m-2", "m-8")),
        ((), ("m-1", "m-8"), ("m-8",)),
    ],
)
def test_a_run_does_not_end_before_its_strays(
    known: tuple[str, ...], strays: tuple[str, ...], extra: tuple[str, ...]
) -> None:
    memory = replace(ENDS, extra_ids=known, absences=ABSENT_TWICE)
    decision = step(memory, replace(GONE, strays=strays), LAG)
    assert decision.act is Act.TERMINATE
    assert decision.memory == replace(memory, extra_ids=extra, absences=())


@pytest.mark.parametrize(("seconds", "act"), [(100, Act.WAIT), (179, Act.WAIT), (180, Act.TERMINATE)])
def test_a_list_that_shows_what_is_absent_leaves_none_of_the_absences_in_a_row(seconds: float, act: Act) -> None:
    decision = step(replace(ENDS, absences=ABSENT_TWICE[:1]), replace(GONE, strays=("m-1",)), seconds)
    assert (decision.memory.absences, decision.act) == ((), act)
    after = step(replace(decision.memory, absences=ABSENT_TWICE), GONE, seconds)
    assert after.act is Act.FINISH


def test_what_the_vendor_calls_ended_is_ended_again_while_a_list_shows_it() -> None:
    decision = step(ENDS, Seen(OVER, strays=("m-1",)))
    assert (decision.memory.state, decision.act) == (State.TERMINATING, Act.TERMINATE)


def test_a_run_does_not_end_while_nobody_can_look_for_strays() -> None:
    assert step(ENDS, Seen(OVER, strays=None)).act is Act.WAIT
    assert step(ENDS, Seen(OVER, strays=())).act is Act.FINISH


def test_an_absence_is_as_old_as_the_question() -> None:
    memory = replace(ENDS, absences=ABSENT_TWICE)
    asked = replace(GONE, asked=at(LAG - 1))
    assert step(memory, asked, LAG * 100).act is Act.WAIT, "a computer may sleep between an answer and the look at it"
    assert step(memory, replace(GONE, asked=at(LAG)), LAG * 100).act is Act.FINISH


UNDER_WAY = (State.PROVISIONING, State.STARTING, State.RUNNING)


@pytest.mark.parametrize("state", UNDER_WAY)
@pytest.mark.parametrize(
    ("known", "strays", "extra"),
    [((), ("m-8",), ("m-8",)), (("m-2",), ("m-8", "m-2", "m-9"), ("m-2", "m-8", "m-9"))],
)
def test_a_twin_that_turns_up_late_is_ended_with_the_one_that_was_found(
    state: State, known: tuple[str, ...], strays: tuple[str, ...], extra: tuple[str, ...]
) -> None:
    decision = step(in_state(state, extra_ids=known), replace(TRAINS, strays=strays))
    words = f"one launch made {1 + len(extra)} allocations"
    assert told(decision) == (State.TERMINATING, Act.TERMINATE, Reason.PROVIDER, words)
    assert (decision.memory.allocation_id, decision.memory.extra_ids) == ("m-1", extra)
    assert decision.memory.reroll


def test_while_nobody_can_look_for_a_twin_the_run_goes_on() -> None:
    for strays in (None, ()):
        assert step(in_state(State.RUNNING), replace(TRAINS, strays=strays)).act is Act.FOLLOW


def test_files_come_home_before_a_twin_is_looked_after() -> None:
    collecting = in_state(State.COLLECTING, reason=Reason.COMPLETED)
    assert step(collecting, replace(TRAINS, strays=("m-8",))).act is Act.COLLECT


def test_a_launch_that_was_found_and_not_answered_is_remembered_as_unclear() -> None:
    assert step(SENT, Seen(found=found("m-7"))).memory.unclear
    assert not launch_accepted(SENT, "m-7").unclear


def test_a_twin_that_turns_up_while_the_first_is_ended_is_ended_at_once() -> None:
    ending = look(Phase.QUEUED, billing=True, ending=True)
    decision = step(replace(ENDS, unclear=True), Seen(ending, strays=("m-9",)))
    assert (decision.memory.state, decision.act) == (State.TERMINATING, Act.TERMINATE)
    assert decision.memory.extra_ids == ("m-9",)
