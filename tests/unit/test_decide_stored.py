"""What a store changes in the life of a run: what is verified there is ended at once, and a machine gone is no loss."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from decisions import DEADLINE, GONE, STOP, at, in_state, look, saw, step

from orchestrator.facts import Seen
from orchestrator.words import Act, Reason, State
from providers.base import Phase, RemoteStatus

if TYPE_CHECKING:
    from orchestrator.facts import Memory

DONE = RemoteStatus(Phase.EXITED, reason="completed", exit_code=0)
COMPLETED = {"reason": Reason.COMPLETED}


def test_what_is_verified_in_the_store_is_ended_before_it_is_brought_home() -> None:
    decision = step(in_state(State.COLLECTING, **COMPLETED), saw(Phase.READY, DONE, stored=True))
    assert (decision.act, decision.memory.reason, decision.memory.reroll) == (Act.TERMINATE, Reason.COMPLETED, False)
    assert not decision.memory.collected


def test_what_is_home_waits_for_the_store_while_that_moves_and_no_longer_than_the_deadline() -> None:
    memory = in_state(State.COLLECTING, **COMPLETED, collected=True)
    assert step(memory, saw(Phase.READY, DONE, storing=True)).act is Act.COLLECT
    assert step(memory, saw(Phase.READY, DONE)).act is Act.TERMINATE
    assert step(memory, saw(Phase.READY, DONE, storing=True), DEADLINE + 1).act is Act.TERMINATE


@pytest.mark.parametrize("state", [State.RUNNING, State.COLLECTING])
def test_a_machine_that_is_gone_is_not_lost_when_the_store_has_its_result(state: State) -> None:
    seen = replace(GONE, remote=DONE, stored=True)
    memory = in_state(state, absences=(at(0), at(15)), **(COMPLETED if state is State.COLLECTING else {}))
    decision = step(memory, seen)
    while decision.memory.state is not State.TERMINATING:
        decision = step(decision.memory, seen)
    assert (decision.memory.reason, decision.memory.reroll) == (Reason.COMPLETED, False)


def ending(**more: object) -> Memory:
    return in_state(State.TERMINATING, terminate_sent=True, absences=(at(0), at(15)), **more)


STORED, MUTE = replace(GONE, stored=True, remote=DONE), replace(GONE, mute=True)


def test_what_the_store_has_comes_home_once_nothing_bills() -> None:
    first = step(ending(**COMPLETED), STORED, 60)
    assert (first.act, first.memory.collected, first.memory.freed) == (Act.COLLECT, False, at(60))
    assert step(ending(**COMPLETED), saw(Phase.READY, stored=True)).act is not Act.COLLECT  # it bills
    assert step(replace(first.memory, collected=True), STORED, 70).act is Act.FINISH


@pytest.mark.parametrize(("seen", "act"), [(STORED, Act.COLLECT), (MUTE, Act.WAIT)])
def test_a_store_that_fails_is_asked_for_minutes_and_no_longer(seen: Seen, act: Act) -> None:
    memory = step(ending(**COMPLETED), seen, 60).memory
    asked = step(memory, seen, 60 + 290)
    assert asked.act is act
    given_up = step(asked.memory, seen, 60 + 310)
    assert (given_up.act, given_up.memory.reason) == (Act.FINISH, Reason.COMPLETED)
    assert given_up.memory.detail.endswith("gpurun pull brings them")


@pytest.mark.parametrize(("seen", "act"), [(STORED, Act.COLLECT), (MUTE, Act.WAIT)])
def test_patience_with_the_store_begins_anew_after_a_sleep_or_a_vendor_s_silence(seen: Seen, act: Act) -> None:
    first = step(ending(**COMPLETED), seen, 60).memory
    woken = step(first, seen, 1500)
    assert (woken.act, woken.memory.freed) == (act, at(1500))
    silent = step(first, Seen(), 3000).memory
    assert step(silent, seen, 3010).act is act
    brief = step(step(step(first, seen, 200).memory, Seen(), 210).memory, seen, 60 + 310)
    assert brief.act is Act.FINISH  # one look that failed prolongs nothing


def test_nothing_is_bought_again_before_the_store_has_said_what_it_holds() -> None:
    lost = step(ending(reason=Reason.LOST, reroll=True), MUTE, 60).memory
    assert step(lost, MUTE, DEADLINE - 1).memory.attempt == 1
    assert step(lost, GONE, 400).memory.attempt == 2
    still = step(step(lost, MUTE, 300).memory, MUTE, DEADLINE - 10).memory
    over = step(step(still, MUTE, DEADLINE + 280).memory, MUTE, DEADLINE + 300)
    assert over.memory.state is not State.TERMINATING
    stopped = step(replace(step(lost, MUTE, 300).memory, stop_requested=True), MUTE, 400)
    assert stopped.memory.reason is Reason.STOPPED


def test_a_result_in_the_store_overrules_lost_even_while_it_can_t_be_brought_home() -> None:
    memory = step(ending(reason=Reason.LOST, reroll=True), STORED, 60).memory
    assert (memory.reason, memory.reroll) == (Reason.COMPLETED, False)
    assert step(step(memory, MUTE, 300).memory, MUTE, 60 + 310).act is Act.FINISH


def test_without_a_result_in_the_store_a_machine_that_is_gone_is_lost_as_ever() -> None:
    decision = step(in_state(State.RUNNING, absences=(at(0), at(15))), GONE)
    assert (decision.memory.reason, decision.memory.reroll) == (Reason.LOST, True)


def test_a_stop_ends_the_wait_for_the_store_too() -> None:
    memory = in_state(State.COLLECTING, **COMPLETED, **STOP, collected=True, told_to_stop=at(0))
    late = step(memory, saw(Phase.READY, DONE, storing=True), 2000)
    assert late.act is Act.TERMINATE


def test_an_allocation_that_ended_by_itself_is_read_like_any_other() -> None:
    ended = replace(GONE, observation=look(Phase.ABSENT, billing=False, ended=True), remote=DONE, stored=True)
    assert step(in_state(State.RUNNING), ended).memory.state is State.COLLECTING
