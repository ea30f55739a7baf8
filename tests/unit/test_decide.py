"""The road from a launch to the files, as tables: situation -> state, act, reason, words. Ends: test_decide_ends.py."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from decisions import (
    ABSENT_TWICE,
    BARE,
    BOUND,
    DEADLINE,
    GONE,
    GRACE,
    LAG,
    OFFER,
    POOR,
    RULES,
    SAVE_BY,
    STOP,
    T0,
    TRAINS,
    UP,
    at,
    in_state,
    look,
    saw,
    step,
    told,
)

from orchestrator.facts import Memory, Seen, Wish
from orchestrator.lifecycle import is_overtaken
from orchestrator.words import Act, Launch, Reason, State
from providers.base import Holder, Observation, Phase, Place, Proof, RemoteStatus

UNHELD = "nothing on the machine could stop the meter"
WISH = Wish(2, at(7200), at(7200), Decimal(2))
RICH = {"accrued_high": Decimal("0.50")}
FAILED = RemoteStatus(Phase.EXITED, reason="failed", detail="out of memory")
RAN_OUT = RemoteStatus(Phase.EXITED, reason="deadline")
NEW = Memory()
WAITS = replace(NEW, waiting_since=T0, rounds=1, detail="no a10 left")
SENT = replace(NEW, state=State.PROVISIONING, launch=Launch.INTENDED, intended=T0, entered=T0, offer=OFFER)
BOOTS = in_state(State.PROVISIONING)
STARTS = in_state(State.STARTING)
RUNS = in_state(State.RUNNING)


# ── before anything bills ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("memory", "seconds", "reason"),
    [
        (replace(NEW, **STOP), 0, Reason.STOPPED),
        (replace(WAITS, **STOP), 0, Reason.STOPPED),
        (NEW, DEADLINE, Reason.DEADLINE),
        (NEW, DEADLINE - 1, None),
        (WAITS, DEADLINE, None),  # the limits count from the launch
    ],
)
def test_a_run_that_was_not_launched_ends_by_a_stop_or_its_deadline(
    memory: Memory, seconds: float, reason: Reason | None
) -> None:
    decision = step(memory, Seen(offers=(OFFER,)), seconds)
    assert decision.memory.reason is reason
    assert decision.act is (Act.FINISH if reason else Act.LAUNCH)
    assert decision.memory.evidence == ("nothing was launched" if reason else "")


def test_an_earlier_attempt_s_evidence_is_what_a_run_ends_on() -> None:
    decision = step(replace(NEW, attempt=2, evidence="GET m-1 → 404", **STOP), Seen())
    assert decision.memory.evidence == "GET m-1 → 404"


def test_what_earlier_attempts_cost_counts_for_the_budget_of_one_that_waits() -> None:
    assert step(replace(WAITS, attempt=2), Seen(**RICH), rules=POOR).memory.reason is Reason.BUDGET


# ── on its way ───────────────────────────────────────────────────────────────────────────────────────────────────────

ENDS, LEFT = State.TERMINATING, Act.TERMINATE
DEAR = "it costs $1.02/h, and $1.00/h was agreed to"


def priced(price: str | None) -> Seen:
    return Seen(look(Phase.QUEUED, price=None if price is None else Decimal(price)))


@pytest.mark.parametrize(
    "row",
    [
        (BOOTS, saw(Phase.QUEUED), 100, {}, (State.PROVISIONING, Act.WAIT, None, "")),
        (BOOTS, saw(), 100, {}, (State.PROVISIONING, Act.WAIT, None, "")),
        (BOOTS, UP, 100, {}, (State.STARTING, Act.START, None, "")),
        (BOOTS, saw(Phase.READY), 100, {}, (State.PROVISIONING, Act.WAIT, None, "")),  # up, and does not answer yet
        (BOOTS, saw(Phase.READY), 100, BARE, (State.RUNNING, Act.FOLLOW, None, "")),
        (STARTS, UP, 100, {}, (State.STARTING, Act.START, None, "")),
        (STARTS, saw(Phase.QUEUED, Phase.READY), 100, {}, (State.STARTING, Act.WAIT, None, "")),
        (STARTS, saw(), 100, {}, (State.STARTING, Act.WAIT, None, "")),
        (replace(STARTS, detail="ssh: no route"), TRAINS, 100, {}, (State.RUNNING, Act.FOLLOW, None, "")),
        (BOOTS, saw(Phase.RUNNING), 100, {}, (State.RUNNING, Act.FOLLOW, None, "")),  # a vendor's job
        (BOOTS, saw(Phase.EXITED), 100, {}, (State.PROVISIONING, Act.WAIT, None, "")),
        (BOOTS, saw(Phase.EXITED, FAILED), 100, {}, (State.COLLECTING, Act.COLLECT, Reason.FAILED, "out of memory")),
        (BOOTS, saw(Phase.EXITED, RAN_OUT), 100, BOUND, (State.COLLECTING, Act.COLLECT, Reason.BUDGET, "")),
        (BOOTS, GONE, 100, {}, (State.PROVISIONING, Act.WAIT, None, "")),
        # how long it may take
        (BOOTS, saw(Phase.QUEUED), 600, {}, (State.PROVISIONING, Act.WAIT, None, "")),
        (BOOTS, saw(Phase.QUEUED), 601, {}, (ENDS, LEFT, Reason.PROVIDER, "never came up")),
        (BOOTS, saw(), 601, {}, (ENDS, LEFT, Reason.PROVIDER, "never came up")),
        (STARTS, UP, 300, {}, (State.STARTING, Act.START, None, "")),
        (STARTS, UP, 301, {}, (ENDS, LEFT, Reason.PROVIDER, "the job would not start")),
        (replace(STARTS, detail="ssh: no route"), UP, 301, {}, (ENDS, LEFT, Reason.PROVIDER, "ssh: no route")),
        (replace(STARTS, entered=None), UP, 301, {}, (State.STARTING, Act.START, None, "")),
        # the vendor's words, and its price
        (BOOTS, Seen(look(Phase.QUEUED, failure="unhealthy")), 100, {}, (ENDS, LEFT, Reason.PROVIDER, "unhealthy")),
        (BOOTS, replace(UP, broken="another key"), 100, {}, (ENDS, LEFT, Reason.PROVIDER, "another key")),
        (BOOTS, priced("1.02"), 100, {}, (ENDS, LEFT, Reason.PROVIDER, DEAR)),
        (BOOTS, priced("1.01"), 100, {}, (State.PROVISIONING, Act.WAIT, None, "")),
        (BOOTS, priced(None), 100, {}, (State.PROVISIONING, Act.WAIT, None, "")),
        (replace(BOOTS, offer=None), priced("9"), 100, {}, (State.PROVISIONING, Act.WAIT, None, "")),
        # limits and the user
        (replace(BOOTS, detail="boots", **STOP), UP, 100, {}, (ENDS, LEFT, Reason.STOPPED, "boots")),
        (BOOTS, UP, DEADLINE, {"boot_limit_seconds": 1e9}, (ENDS, LEFT, Reason.DEADLINE, "")),
        (BOOTS, UP, DEADLINE, BOUND, (ENDS, LEFT, Reason.BUDGET, "")),
        (BOOTS, replace(UP, **RICH), 100, POOR, (ENDS, LEFT, Reason.BUDGET, "")),
        (BOOTS, replace(UP, accrued_high=Decimal("0.49")), 100, POOR, (State.STARTING, Act.START, None, "")),
        (replace(BOOTS, **STOP), replace(UP, **RICH), DEADLINE, POOR, (ENDS, LEFT, Reason.STOPPED, "")),
        # a start that failed
        (replace(STARTS, hopeless=True, detail="no code"), UP, 100, {}, (ENDS, LEFT, Reason.FAILED, "no code")),
        (replace(STARTS, start_failures=2), UP, 100, {}, (State.STARTING, Act.START, None, "")),
        (replace(STARTS, start_failures=3, detail="full"), UP, 100, {}, (ENDS, LEFT, Reason.PROVIDER, "full")),
    ],
)  # fmt: skip
def test_a_launch_is_followed_until_it_runs_or_may_not_go_on(row: tuple[Any, ...]) -> None:
    memory, seen, seconds, rules, expected = row
    assert told(step(memory, seen, seconds, rules)) == expected


def test_gone_before_it_ran_takes_three_reads() -> None:
    expected = (ENDS, LEFT, Reason.LOST, "gone before it ran")
    for memory in (BOOTS, STARTS):
        assert told(step(replace(memory, absences=ABSENT_TWICE), GONE, LAG)) == expected
        assert step(replace(memory, absences=ABSENT_TWICE), GONE, LAG - 1).act is Act.WAIT


@pytest.mark.parametrize(
    ("memory", "seen", "seconds", "again"),
    [
        (BOOTS, Seen(look(Phase.QUEUED, failure="unhealthy")), 100, True),
        (BOOTS, replace(UP, broken="another key"), 100, True),
        (BOOTS, saw(), 601, True),
        (replace(BOOTS, absences=ABSENT_TWICE), GONE, LAG, True),
        (replace(STARTS, start_failures=3), UP, 100, True),
        (BOOTS, priced("1.02"), 100, False),  # the next one costs no less
        (replace(STARTS, hopeless=True), UP, 100, False),
        (replace(BOOTS, reroll=True, **STOP), UP, 100, False),
    ],
)
def test_another_machine_is_tried_only_where_another_may_help(
    memory: Memory, seen: Seen, seconds: float, *, again: bool
) -> None:
    assert step(memory, seen, seconds).memory.reroll is again


# ── while it trains ──────────────────────────────────────────────────────────────────────────────────────────────────

HOLDS = Holder("the watchdog", Place.MACHINE, Proof.PROVEN)
HELD, SHOWS = saw(Phase.READY, RemoteStatus(Phase.RUNNING, watchdog=HOLDS)), {"needs_watchdog": True}
SICK = Seen(look(Phase.READY, failure="unhealthy"), RemoteStatus(Phase.RUNNING))
TOLD = replace(RUNS, told_to_stop=at(1000), reason=Reason.STOPPED, **STOP)
BLIND = replace(RUNS, unheld=at(200))
POORER = replace(RUNS, told_to_stop=at(1000), reason=Reason.BUDGET)
LATE = replace(TOLD, told_to_stop=at(SAVE_BY))
DEARER = replace(RUNS, told_to_stop=at(1000), reason=Reason.PROVIDER, detail=DEAR)
SAVED, WON = (RemoteStatus(Phase.EXITED, reason=reason) for reason in ("stopped", "completed"))
MUTE = "ended without a result while running"
ON, HOME = (State.RUNNING, Act.FOLLOW, None, ""), State.COLLECTING


def dear(price: str) -> Seen:
    return Seen(look(Phase.READY, price=Decimal(price)), RemoteStatus(Phase.RUNNING))


def unproven(proof: Proof) -> Seen:
    return saw(Phase.READY, RemoteStatus(Phase.RUNNING, watchdog=replace(HOLDS, proof=proof)))


@pytest.mark.parametrize(
    "row",
    [
        (RUNS, TRAINS, 100, {}, ON),
        (RUNS, saw(), 100, {}, ON),
        (RUNS, saw(Phase.READY), 100, {}, ON),  # up, and does not answer
        (RUNS, saw(Phase.READY), 100, BARE, (State.RUNNING, Act.WAIT, None, "")),
        (RUNS, GONE, 100, {}, ON),
        # the payload ended
        (RUNS, saw(Phase.READY, FAILED), 100, {}, (HOME, Act.COLLECT, Reason.FAILED, "out of memory")),
        (RUNS, saw(None, FAILED), 100, {}, (HOME, Act.COLLECT, Reason.FAILED, "out of memory")),
        (RUNS, saw(Phase.EXITED, Phase.RUNNING), 9, {}, (HOME, Act.COLLECT, Reason.LOST, MUTE)),
        (RUNS, saw(Phase.EXITED), 100, {}, ON),
        (RUNS, saw(Phase.READY, FAILED), DEADLINE, {}, (HOME, Act.COLLECT, Reason.FAILED, "out of memory")),
        # the machine is not what it was
        (RUNS, SICK, 100, {}, (HOME, Act.COLLECT, Reason.LOST, "unhealthy")),
        (RUNS, replace(SICK, remote=None), 100, {}, (ENDS, LEFT, Reason.LOST, "unhealthy")),
        (RUNS, SICK, 100, BARE, (State.RUNNING, Act.WAIT, None, "")),
        (RUNS, replace(UP, remote=None, broken="another key"), 100, {}, (ENDS, LEFT, Reason.LOST, "another key")),
        # who could stop it
        (RUNS, TRAINS, 61, SHOWS, ON),  # one look that finds none
        (BLIND, TRAINS, 260, SHOWS, ON),
        (BLIND, TRAINS, 261, SHOWS, (ENDS, LEFT, Reason.PROVIDER, UNHELD)),
        (BLIND, unproven(Proof.ABSENT), 261, SHOWS, (ENDS, LEFT, Reason.PROVIDER, UNHELD)),
        (BLIND, unproven(Proof.UNPROVEN), 261, SHOWS, (ENDS, LEFT, Reason.PROVIDER, UNHELD)),
        (BLIND, TRAINS, 261, {}, ON),
        (BLIND, HELD, 261, SHOWS, ON),
        (BLIND, saw(Phase.READY), 261, SHOWS, ON),  # who does not answer proves nothing
        (replace(BLIND, entered=at(230)), TRAINS, 290, SHOWS, ON),  # before it trained it had nothing to show
        (replace(BLIND, entered=at(230)), TRAINS, 291, SHOWS, (ENDS, LEFT, Reason.PROVIDER, UNHELD)),
        (replace(BLIND, entered=None), TRAINS, 261, SHOWS, ON),
        (replace(TOLD, unheld=T0), TRAINS, 1061, SHOWS, (*ON[:2], Reason.STOPPED, "")),  # it is ending as it is
        # limits and the user
        (replace(RUNS, **STOP), TRAINS, 100, {}, (State.RUNNING, Act.TELL_STOP, Reason.STOPPED, "")),
        (RUNS, replace(TRAINS, **RICH), 100, POOR, (State.RUNNING, Act.TELL_STOP, Reason.BUDGET, "")),
        (RUNS, TRAINS, SAVE_BY - 0.1, {}, ON),
        (RUNS, TRAINS, SAVE_BY, {}, (State.RUNNING, Act.TELL_STOP, Reason.DEADLINE, "")),
        (RUNS, TRAINS, SAVE_BY, BOUND, (State.RUNNING, Act.TELL_STOP, Reason.BUDGET, "")),
        (RUNS, TRAINS, SAVE_BY, BARE, (State.RUNNING, Act.WAIT, None, "")),  # there is nothing to save
        (RUNS, TRAINS, DEADLINE - 6.1, {"grace_seconds": 8}, ON),  # the margin is a quarter of a short grace
        (RUNS, TRAINS, DEADLINE - 6, {"grace_seconds": 8}, (State.RUNNING, Act.TELL_STOP, Reason.DEADLINE, "")),
        (RUNS, TRAINS, DEADLINE, BARE, (ENDS, LEFT, Reason.DEADLINE, "")),
        (replace(RUNS, detail="adopted", **STOP), TRAINS, 100, BARE, (ENDS, LEFT, Reason.STOPPED, "adopted")),
        # it was told, and does not obey
        (TOLD, TRAINS, 1000 + GRACE + 5, {}, (State.RUNNING, Act.FOLLOW, Reason.STOPPED, "")),
        (TOLD, TRAINS, 1001 + GRACE + 5, {}, (HOME, Act.COLLECT, Reason.STOPPED, "")),
        (TOLD, saw(), 1001 + GRACE + 5, {}, (HOME, Act.COLLECT, Reason.STOPPED, "")),
        (POORER, TRAINS, 1001 + GRACE + 5, {}, (HOME, Act.COLLECT, Reason.BUDGET, "")),
        (LATE, TRAINS, DEADLINE - 0.1, {}, (State.RUNNING, Act.FOLLOW, Reason.STOPPED, "")),
        (LATE, TRAINS, DEADLINE, {}, (HOME, Act.COLLECT, Reason.STOPPED, "")),
        (RUNS, TRAINS, DEADLINE, {}, (HOME, Act.COLLECT, Reason.DEADLINE, "")),  # we slept past the time to tell
    ],
)  # fmt: skip
def test_a_training_is_followed_until_it_ends_or_has_to(row: tuple[Any, ...]) -> None:
    memory, seen, seconds, rules, expected = row
    assert told(step(memory, seen, seconds, rules)) == expected


@pytest.mark.parametrize(
    "row",
    [
        (RUNS, dear("1.01"), 100, {}, ON),
        (RUNS, dear("1.02"), 100, {}, (State.RUNNING, Act.TELL_STOP, Reason.PROVIDER, DEAR)),
        (RUNS, dear("1.02"), 100, BARE, (ENDS, LEFT, Reason.PROVIDER, DEAR)),
        (replace(RUNS, **STOP), dear("1.02"), 100, {}, (State.RUNNING, Act.TELL_STOP, Reason.STOPPED, "")),
        (DEARER, dear("1.02"), 1100, {}, (State.RUNNING, Act.FOLLOW, Reason.PROVIDER, DEAR)),
        (DEARER, dear("1.02"), 1001 + GRACE + 5, {}, (HOME, Act.COLLECT, Reason.PROVIDER, DEAR)),
        (DEARER, replace(dear("1.02"), remote=SAVED), 1100, {}, (HOME, Act.COLLECT, Reason.PROVIDER, DEAR)),
        (DEARER, replace(dear("1.02"), remote=WON), 1100, {}, (HOME, Act.COLLECT, Reason.COMPLETED, "")),
    ],
)  # fmt: skip
def test_a_training_that_costs_more_than_was_agreed_to_saves_and_ends(row: tuple[Any, ...]) -> None:
    memory, seen, seconds, rules, expected = row
    assert told(step(memory, seen, seconds, rules)) == expected


def test_when_it_was_told_to_stop_is_remembered_from_the_first_time() -> None:
    first = step(replace(RUNS, **STOP), TRAINS, 1000).memory
    assert first.told_to_stop == at(1000)
    assert step(first, TRAINS, 1010).memory.told_to_stop == at(1000)


def test_since_when_nobody_there_could_end_it_counts_from_the_first_look_until_a_proof() -> None:
    looks = [(TRAINS, 100), (unproven(Proof.ABSENT), 110), (saw(), 120), (HELD, 130), (TRAINS, 140)]
    memory, since = RUNS, []
    for seen, seconds in looks:
        memory = step(memory, seen, seconds).memory
        since.append(memory.unheld)
    assert since == [at(100), at(100), at(100), None, at(140)]


def test_vanished_takes_three_reads() -> None:
    memory = replace(RUNS, absences=ABSENT_TWICE)
    assert told(step(memory, GONE, LAG)) == (ENDS, LEFT, Reason.LOST, "vanished")
    assert told(step(memory, GONE, LAG - 1)) == ON


@pytest.mark.parametrize(
    ("memory", "seen", "seconds", "rules"),
    [
        (replace(RUNS, absences=ABSENT_TWICE), GONE, LAG, {}),
        (RUNS, replace(SICK, remote=None), 100, {}),
        (RUNS, replace(UP, remote=None, broken="another key"), 100, {}),
        (BLIND, TRAINS, 261, SHOWS),
    ],
)
def test_a_machine_that_was_lost_is_replaced(
    memory: Memory, seen: Seen, seconds: float, rules: dict[str, object]
) -> None:
    assert step(memory, seen, seconds, rules).memory.reroll


def answers(seconds: float) -> Seen:
    return saw(Phase.READY, RemoteStatus(Phase.RUNNING, deadline=at(seconds), watchdog=HOLDS))


@pytest.mark.parametrize(
    ("more", "seen", "rules", "act", "granted"),
    [
        ({}, HELD, {}, Act.EXTEND, False),
        ({"answered": 1, "moved": 1}, HELD, {}, Act.EXTEND, False),
        ({"answered": 2}, HELD, {}, Act.FOLLOW, False),
        ({"moved": 2}, HELD, {}, Act.FOLLOW, False),  # the machine has not said what it goes by
        ({"moved": 2}, saw(), {}, Act.FOLLOW, False),
        ({"moved": 2}, answers(3600), {}, Act.FOLLOW, False),
        ({"moved": 2}, answers(7201), {}, Act.FOLLOW, False),
        ({"moved": 2}, answers(7200.9), {}, Act.FOLLOW, True),
        ({"moved": 2}, answers(7199.1), {}, Act.FOLLOW, True),
        ({}, HELD, BARE, Act.EXTEND, False),
        ({"moved": 2}, saw(Phase.READY), BARE, Act.WAIT, True),
    ],
)
def test_an_extension_is_granted_once_the_machine_goes_by_it(
    more: dict[str, int], seen: Seen, rules: dict[str, object], act: Act, *, granted: bool
) -> None:
    memory = replace(RUNS, **more)  # type: ignore[arg-type]
    decision = step(memory, seen, rules={**rules, "wish": WISH})
    assert (decision.act, decision.granted) == (act, WISH if granted else None)
    assert decision.memory == (replace(memory, answered=2) if granted else memory)


# ── a deed that takes hours, and a sleep ─────────────────────────────────────────────────────────────────────────────

LOST = in_state(State.COLLECTING, reason=Reason.LOST)


@pytest.mark.parametrize(
    "row",
    [
        (Act.FOLLOW, RUNS, TRAINS, 100, {}, False),
        (Act.FOLLOW, RUNS, TRAINS, SAVE_BY, {}, True),
        (Act.FOLLOW, RUNS, TRAINS, 100, {"wish": WISH}, False),  # an extension waits for the bytes
        (Act.FOLLOW, BLIND, TRAINS, 261, SHOWS, True),
        (Act.START, STARTS, UP, 301, {}, False),
        (Act.START, STARTS, UP, DEADLINE, {}, True),
        (Act.COLLECT, LOST, Seen(), 1000, {}, False),
        (Act.COLLECT, replace(LOST, entered=None), Seen(), 1000, {}, False),
        (Act.COLLECT, LOST, Seen(), DEADLINE, {}, True),
        (Act.COLLECT, replace(LOST, entered=at(DEADLINE)), Seen(), DEADLINE + 20, {}, False),
        (Act.COLLECT, replace(LOST, entered=at(DEADLINE)), Seen(), DEADLINE + 21, {}, True),
        (Act.COLLECT, replace(LOST, entered=at(DEADLINE - 1)), Seen(), DEADLINE + 1, {}, True),
        (Act.COLLECT, in_state(State.TERMINATING), Seen(), DEADLINE + 99, {}, False),  # nothing bills any more
        (Act.FOLLOW, replace(RUNS, entered=at(DEADLINE)), TRAINS, DEADLINE + 1, {}, True),
    ],
)
def test_what_moves_is_given_up_only_for_what_has_to_be_done(row: tuple[Any, ...]) -> None:
    act, memory, seen, seconds, rules, expected = row
    assert is_overtaken(act, memory, seen, at(seconds), replace(RULES, **rules)) is expected


def test_a_machine_is_seen_whole_and_its_step_remembered() -> None:
    seen = Seen(Observation(Phase.READY, billing=True, evidence=""), RemoteStatus(Phase.RUNNING, step=9))
    assert step(BOOTS, seen).memory.step == 9
