"""From the files to the proof, and on: situation -> state, act, reason, words; and what deeds bring back."""

from __future__ import annotations

import math
from dataclasses import replace
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
    POOR,
    RULES,
    SAVE_BY,
    STOP,
    T0,
    at,
    in_state,
    look,
    saw,
    step,
    told,
)

from orchestrator import lifecycle
from orchestrator.facts import Memory, Seen, Wish
from orchestrator.homecoming import files_home
from orchestrator.words import Act, Launch, Reason, State
from providers.base import Phase, RemoteStatus

PATIENCE = GRACE + 5.0
RUNS = in_state(State.RUNNING)
HOME = in_state(State.COLLECTING, reason=Reason.COMPLETED)
LOST = in_state(State.COLLECTING, reason=Reason.LOST, detail="unhealthy")
ENDS = in_state(State.TERMINATING, reason=Reason.COMPLETED, terminate_sent=True, collected=True)
WHOLE = saw(Phase.READY, Phase.EXITED)
OUT = State.TERMINATING, Act.TERMINATE


def word(reason: str, detail: str = "step 9: nan") -> RemoteStatus:
    return RemoteStatus(Phase.EXITED, reason=reason, detail=detail)


# ── the payload's own word ───────────────────────────────────────────────────────────────────────────────────────────

ENDINGS = [
    ("completed", None, {}, Reason.COMPLETED, ""),
    ("failed", None, {}, Reason.FAILED, "step 9: nan"),
    ("hung", Reason.DEADLINE, {}, Reason.HUNG, "step 9: nan"),
    ("diverged", None, {}, Reason.DIVERGED, "step 9: nan"),
    ("deadline", None, {}, Reason.DEADLINE, "step 9: nan"),
    ("deadline", None, BOUND, Reason.BUDGET, "step 9: nan"),
    ("stopped", None, {}, Reason.STOPPED, "step 9: nan"),
    ("stopped", Reason.STOPPED, {}, Reason.STOPPED, "step 9: nan"),
    ("stopped", Reason.BUDGET, {}, Reason.BUDGET, "step 9: nan"),  # we told it to stop, because of that
    ("stopped", Reason.DEADLINE, {}, Reason.DEADLINE, "step 9: nan"),
    ("stopped", Reason.DEADLINE, BOUND, Reason.BUDGET, "step 9: nan"),
    ("", Reason.STOPPED, {}, Reason.LOST, "step 9: nan"),
    ("exploded", None, {}, Reason.LOST, "step 9: nan"),  # a word made up later is no ending that we know
]


@pytest.mark.parametrize(("said", "before", "rules", "reason", "detail"), ENDINGS)
def test_the_payload_s_own_word_is_believed(
    said: str, before: Reason | None, rules: dict[str, object], reason: Reason, detail: str
) -> None:
    decision = step(replace(RUNS, reason=before), saw(Phase.READY, word(said)), rules=rules)
    assert told(decision) == (State.COLLECTING, Act.COLLECT, reason, detail)


def test_who_left_no_word_is_lost_and_it_is_said_where() -> None:
    for state in (State.STARTING, State.RUNNING):
        expected = State.COLLECTING, Act.COLLECT, Reason.LOST, f"ended without a result while {state}"
        assert told(step(in_state(state), saw(Phase.READY, word("", "")))) == expected


# ── files on their way home ──────────────────────────────────────────────────────────────────────────────────────────

WAITS = State.COLLECTING, Act.COLLECT
SPOILED = "its files would not come home"


@pytest.mark.parametrize(
    "row",
    [
        (HOME, WHOLE, 100, {}, (*WAITS, Reason.COMPLETED, "")),
        (HOME, saw(), 3000, {}, (*WAITS, Reason.COMPLETED, "")),
        (HOME, GONE, 100, {}, (*WAITS, Reason.COMPLETED, "")),
        (replace(HOME, collected=True), WHOLE, 100, {}, (*OUT, Reason.COMPLETED, "")),
        (replace(LOST, collected=True), WHOLE, 100, {}, (*OUT, Reason.LOST, "unhealthy")),
        (replace(HOME, collected=True, reason=None), WHOLE, 100, {}, (*OUT, Reason.LOST, "")),
        # it went away: whatever was achieved is not here
        (replace(HOME, absences=ABSENT_TWICE), GONE, LAG, {}, (*OUT, Reason.LOST, "gone before its files were home")),
        (replace(HOME, absences=ABSENT_TWICE), GONE, LAG - 1, {}, (*WAITS, Reason.COMPLETED, "")),
        (replace(HOME, absences=(*ABSENT_TWICE, at(LAG))), saw(), LAG + 1, {}, (*WAITS, Reason.COMPLETED, "")),
        (HOME, replace(WHOLE, broken="another key"), 100, {}, (*OUT, Reason.LOST, "another key")),
        (LOST, replace(WHOLE, broken="another key"), 61, {}, (*OUT, Reason.LOST, "another key")),
        # a lost one is waited for a minute
        (LOST, saw(), 60, {}, (*WAITS, Reason.LOST, "unhealthy")),
        (LOST, saw(), 61, {}, (*OUT, Reason.LOST, "unhealthy")),
        (replace(LOST, entered=None), saw(), 61, {}, (*WAITS, Reason.LOST, "unhealthy")),
        # the deadline, while it may bill
        (HOME, WHOLE, DEADLINE - 1, {}, (*WAITS, Reason.COMPLETED, "")),
        (HOME, WHOLE, DEADLINE, {}, (*OUT, Reason.DEADLINE, "")),
        (HOME, WHOLE, DEADLINE, BOUND, (*OUT, Reason.BUDGET, "")),
        (HOME, saw(), DEADLINE, {}, (*OUT, Reason.DEADLINE, "")),
        (HOME, Seen(look(Phase.EXITED, billing=False)), DEADLINE, {}, (*WAITS, Reason.COMPLETED, "")),
        (replace(HOME, reason=None, detail="x"), saw(), DEADLINE, {}, (*OUT, Reason.DEADLINE, "x")),
        (replace(HOME, reason=Reason.FAILED, detail="nan"), saw(), DEADLINE, {}, (*OUT, Reason.FAILED, "nan")),
        # the user's stop: as long as a training gets to save
        (replace(HOME, **STOP), WHOLE, 900, {}, (*WAITS, Reason.COMPLETED, "")),
        (replace(HOME, told_to_stop=at(50), **STOP), WHOLE, 50 + PATIENCE, {}, (*WAITS, Reason.COMPLETED, "")),
        (replace(HOME, told_to_stop=at(50), **STOP), WHOLE, 51 + PATIENCE, {}, (*OUT, Reason.STOPPED, SPOILED)),
        (replace(HOME, told_to_stop=at(-50), **STOP), WHOLE, PATIENCE, {}, (*WAITS, Reason.COMPLETED, "")),
        (replace(HOME, told_to_stop=at(-50), **STOP), WHOLE, 1 + PATIENCE, {}, (*OUT, Reason.STOPPED, SPOILED)),
        (replace(HOME, told_to_stop=T0, entered=None, **STOP), WHOLE, 130, {}, (*OUT, Reason.STOPPED, SPOILED)),
        (replace(HOME, told_to_stop=T0), WHOLE, 1 + PATIENCE, {}, (*WAITS, Reason.COMPLETED, "")),  # told for a limit
        (
            replace(HOME, told_to_stop=T0, reason=Reason.FAILED, detail="nan", **STOP), WHOLE, 1 + PATIENCE, {},
            (*OUT, Reason.STOPPED, f"{SPOILED} · nan"),
        ),
        (HOME, replace(WHOLE, accrued_high=POOR["max_cost"]), 100, POOR, (*WAITS, Reason.COMPLETED, "")),
    ],
)  # fmt: skip
def test_files_are_waited_for_as_long_as_that_is_worth_it(row: tuple[Any, ...]) -> None:
    memory, seen, seconds, rules, expected = row
    assert told(step(memory, seen, seconds, rules)) == expected


def test_a_stop_while_files_come_counts_from_when_it_was_first_seen() -> None:
    first = step(replace(HOME, **STOP), WHOLE, 900).memory
    assert first.told_to_stop == at(900)
    assert step(first, WHOLE, 900 + PATIENCE).act is Act.COLLECT
    assert step(first, WHOLE, 901 + PATIENCE).act is Act.TERMINATE


@pytest.mark.parametrize(
    ("memory", "seen", "seconds", "again"),
    [
        (replace(LOST, collected=True), WHOLE, 100, True),
        (replace(HOME, collected=True), WHOLE, 100, False),
        (LOST, saw(), 61, True),
        (replace(HOME, absences=ABSENT_TWICE), GONE, LAG, True),
        (replace(HOME, told_to_stop=T0, **STOP), WHOLE, 1 + PATIENCE, False),
        (HOME, WHOLE, DEADLINE, False),
    ],
)
def test_only_a_lost_attempt_is_tried_again(memory: Memory, seen: Seen, seconds: float, *, again: bool) -> None:
    assert step(memory, seen, seconds).memory.reroll is again


# ── the end, told until it is proven ─────────────────────────────────────────────────────────────────────────────────

ENDING = Seen(look(Phase.RUNNING, ending=True))
OVER = Seen(look(Phase.EXITED, billing=False, evidence="GET m-1 → terminated"))


@pytest.mark.parametrize(
    ("memory", "seen", "seconds", "act"),
    [
        (ENDS, saw(), 10, Act.TERMINATE),  # who can't look repeats it
        (ENDS, saw(Phase.RUNNING), 10, Act.TERMINATE),
        (ENDS, saw(Phase.EXITED), 10, Act.TERMINATE),  # exited and free are different facts
        (ENDS, ENDING, 179, Act.WAIT),
        (ENDS, ENDING, 180, Act.TERMINATE),
        (replace(ENDS, entered=None), ENDING, 10, Act.TERMINATE),
        (ENDS, GONE, 10, Act.WAIT),
        (ENDS, saw(Phase.ABSENT), 10, Act.TERMINATE),
        (replace(ENDS, terminate_sent=False), GONE, 10, Act.TERMINATE),
        (replace(ENDS, terminate_sent=False), ENDING, 10, Act.TERMINATE),
        (replace(ENDS, terminate_sent=False), OVER, 10, Act.TERMINATE),  # it is told at least once
        (ENDS, OVER, 10, Act.FINISH),
        (replace(ENDS, absences=ABSENT_TWICE), GONE, LAG, Act.FINISH),
        (replace(ENDS, absences=ABSENT_TWICE), GONE, LAG - 1, Act.WAIT),
        (ENDS, Seen(look(Phase.ABSENT, billing=False, ended=True)), 10, Act.FINISH),
        (ENDS, Seen(look(Phase.RUNNING, billing=False, billed_until=T0)), 10, Act.FINISH),
    ],
)
def test_an_end_is_told_until_it_is_proven(memory: Memory, seen: Seen, seconds: float, act: Act) -> None:
    assert step(memory, seen, seconds).act is act


def test_an_end_is_believed_on_the_word_that_proved_it() -> None:
    memory = step(replace(ENDS, evidence="GET m-0 → 404"), OVER).memory
    assert (memory.state, memory.reason, memory.evidence) == (State.DONE, Reason.COMPLETED, "GET m-1 → terminated")


def test_what_outlived_the_process_comes_home_once() -> None:
    first = step(replace(ENDS, collected=False), OVER)
    assert (first.act, first.memory.collected) == (Act.COLLECT, True)
    assert step(first.memory, OVER).act is Act.FINISH
    assert step(replace(ENDS, collected=False, absences=ABSENT_TWICE), GONE, LAG).act is Act.FINISH


@pytest.mark.parametrize(
    ("more", "reason", "state"),
    [
        ({"reason": Reason.LOST, "reroll": True}, None, State.PENDING),
        ({"reason": Reason.LOST, "reroll": True, **STOP}, Reason.STOPPED, State.DONE),
        ({"reason": Reason.PROVIDER, **STOP}, Reason.STOPPED, State.DONE),
        ({"reason": Reason.LOST}, Reason.LOST, State.DONE),
        ({"reason": Reason.FAILED, **STOP}, Reason.FAILED, State.DONE),
        ({"reason": Reason.COMPLETED, **STOP}, Reason.COMPLETED, State.DONE),
        ({"reason": Reason.PROVIDER}, Reason.PROVIDER, State.DONE),
    ],
)
def test_the_proven_end_is_the_last_or_the_next_attempt_s_begin(
    more: dict[str, Any], reason: Reason | None, state: State
) -> None:
    memory = step(replace(ENDS, **more), OVER).memory
    assert (memory.state, memory.reason) == (state, reason)


def test_the_next_attempt_knows_how_far_the_last_got_how_it_failed_what_was_answered_and_nothing_else() -> None:
    last = replace(ENDS, reason=Reason.LOST, reroll=True, attempt=2, step=40, signatures=("a", "b"), detail="gone")
    decision = step(replace(last, extra_ids=("m-2",), moved=3, answered=3, start_failures=1), OVER)
    assert decision.act is Act.WAIT
    kept = {"step": 40, "signatures": ("a", "b"), "answered": 3, "evidence": "GET m-1 → terminated"}
    assert decision.memory == Memory(attempt=3, entered=at(100), **kept)  # type: ignore[arg-type]


def test_what_is_done_stays_done() -> None:
    done = in_state(State.DONE, reason=Reason.COMPLETED)
    assert step(done, saw(), DEADLINE * 2).memory == done


# ── whether another attempt is worth it ──────────────────────────────────────────────────────────────────────────────

VANISHES, SIGNATURE = replace(RUNS, absences=ABSENT_TWICE, step=40), "lost: vanished (step 40)"


@pytest.mark.parametrize(
    ("more", "seconds", "again"),
    [
        ({}, LAG, True),
        ({"signatures": ("lost: vanished (step 39)",)}, LAG, True),
        ({"signatures": (SIGNATURE,)}, LAG, False),  # the same failure would only be bought again
        ({"signatures": (SIGNATURE, "provider: never came up (step 0)")}, LAG, False),
        ({"attempt": 2}, LAG, True),
        ({"attempt": 3}, LAG, False),
        (STOP, LAG, False),
        ({}, DEADLINE - GRACE - 1, True),
        ({}, DEADLINE - GRACE, False),  # it could not save what it made
    ],
)
def test_another_attempt_is_made_where_it_may_help(more: dict[str, Any], seconds: float, *, again: bool) -> None:
    memory = step(replace(VANISHES, **more), GONE, seconds).memory
    assert (memory.reason, memory.reroll) == (Reason.LOST, again)
    assert memory.signatures == (*more.get("signatures", ()), SIGNATURE)


def test_a_failure_s_signature_says_what_broke_and_not_which_machine_it_was() -> None:
    words = "%s:22 showed SHA256:%s and not that of %s"
    details = [words % ("203.0.113.7", "Zm9v+/=", "0123456789abcdef"), words % ("10.0.0.9", "YmFy", "f" * 32)]
    memories = [step(RUNS, Seen(look(Phase.QUEUED), broken=detail)).memory for detail in details]
    assert [memory.detail for memory in memories] == details
    (signature,) = {memory.signatures for memory in memories}
    assert signature == ("lost: … showed … and not that of … (step 0)",)


# ── what deeds bring back ────────────────────────────────────────────────────────────────────────────────────────────


def test_an_accepted_launch_may_bill_from_here_on() -> None:
    before = Memory(state=State.PROVISIONING, launch=Launch.INTENDED, intended=T0, absences=(T0,))
    accepted = {"launch": Launch.ACCEPTED, "allocation_id": "m-1", "absences": ()}
    assert lifecycle.launch_accepted(before, "m-1") == replace(before, **accepted)  # type: ignore[arg-type]
    assert lifecycle.launch_accepted(before, "m-1", ("m-2",)).extra_ids == ("m-2",)


def test_a_launch_that_was_refused_for_good_ends_the_run_on_the_vendor_s_words() -> None:
    before = Memory(state=State.PROVISIONING, launch=Launch.INTENDED, intended=T0)
    after = lifecycle.launch_refused(before, Reason.CREDENTIALS, "401: no such key", at(9))
    assert (after.state, after.reason, after.detail) == (State.DONE, Reason.CREDENTIALS, "401: no such key")
    assert (after.launch, after.entered, after.evidence) == (Launch.NOT_YET, at(9), "refused: 401: no such key")


def test_a_wish_whose_limits_were_moved_is_not_answered_yet() -> None:
    wish = Wish(5, T0, T0, RULES.candidates[0].price)
    memory = replace(RUNS, moved=3, answered=4)
    assert lifecycle.extended(memory, wish, moved=True) == replace(memory, moved=5)
    assert lifecycle.extended(memory, wish, moved=False) == replace(memory, answered=5)


@pytest.mark.parametrize(
    ("detail", "permanent", "theirs", "failures"),
    [
        ("disk full", False, True, 3),
        ("no such file", False, True, 1),  # other words: another failure
        ("disk full", False, False, 0),  # ours, or the way's: as long as a start may take
        ("disk full", True, False, 0),
    ],
)
def test_a_machine_s_failures_to_start_count_while_it_says_the_same(
    detail: str, failures: int, *, permanent: bool, theirs: bool
) -> None:
    before = in_state(State.STARTING, detail="disk full", start_failures=2)
    after = lifecycle.start_failed(before, detail, permanent=permanent, theirs=theirs)
    assert after == replace(before, detail=detail, hopeless=permanent, start_failures=failures)


@pytest.mark.parametrize(
    ("before", "remote", "rules", "reason", "detail", "reroll"),
    [
        (Reason.LOST, word("completed"), {}, Reason.COMPLETED, "", False),
        (Reason.LOST, word("failed"), {}, Reason.FAILED, "step 9: nan", False),
        (Reason.LOST, word("deadline"), BOUND, Reason.BUDGET, "step 9: nan", False),
        (Reason.DEADLINE, word("completed"), {}, Reason.COMPLETED, "", False),
        (Reason.BUDGET, word("completed"), {}, Reason.COMPLETED, "", False),
        (Reason.BUDGET, word("stopped"), {}, Reason.BUDGET, "step 9: nan", False),
        (Reason.LOST, word(""), {}, Reason.LOST, "before", True),
        (Reason.LOST, word("exploded"), {}, Reason.LOST, "before", True),
        (Reason.LOST, None, {}, Reason.LOST, "before", True),
        (Reason.STOPPED, word("completed"), {}, Reason.STOPPED, "before", True),
        (Reason.FAILED, word("completed"), {}, Reason.FAILED, "before", True),
        (None, word("completed"), {}, None, "before", True),
    ],
)
def test_a_result_that_turned_up_late_overrules_lost_and_a_limit(
    before: Reason | None,
    remote: RemoteStatus | None,
    rules: dict[str, Any],
    reason: Reason | None,
    detail: str,
    *,
    reroll: bool,
) -> None:
    memory = replace(HOME, reason=before, detail="before", reroll=True)
    after = files_home(memory, remote, replace(RULES, **rules))
    assert after == replace(memory, reason=reason, detail=detail, reroll=reroll, collected=True)


def test_an_allocation_without_a_job_is_ended_with_nothing_to_collect() -> None:
    memory = replace(RUNS, detail="adopted")
    assert told(step(memory, saw(Phase.READY), DEADLINE, BARE)) == (*OUT, Reason.DEADLINE, "adopted")


@pytest.mark.parametrize(
    ("now", "seconds"),
    [(0, SAVE_BY), (SAVE_BY - 1, 1), (SAVE_BY, DEADLINE - SAVE_BY), (DEADLINE - 1, 1), (DEADLINE, math.inf)],
)
def test_nobody_sleeps_past_the_time_to_save_or_to_end(now: float, seconds: float) -> None:
    assert lifecycle.seconds_to_limit(at(now), RULES) == seconds
