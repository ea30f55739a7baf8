"""The closed words of a run: states, reasons, outcomes, and the exit code of each."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

ADOPTED = "adopted from"  # how the evidence of a run begins that is known from a store alone
STILL_BILLS = "IT STILL BILLS"  # and stands in it where another home's machine was listed


class State(StrEnum):
    """What we remember of a run."""

    PENDING = "pending"
    PROVISIONING = "provisioning"
    STARTING = "starting"
    RUNNING = "running"
    COLLECTING = "collecting"
    TERMINATING = "terminating"
    DONE = "done"


class Reason(StrEnum):
    """Why a run ended, or is ending."""

    COMPLETED = "completed"
    FAILED = "failed"
    HUNG = "hung"
    DIVERGED = "diverged"
    LOST = "lost"
    NO_CAPACITY = "no_capacity"
    CREDENTIALS = "credentials"
    PROVIDER = "provider"
    DEADLINE = "deadline"
    BUDGET = "budget"
    STOPPED = "stopped"


class Outcome(StrEnum):
    """How a run ended, in one word."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    STOPPED = "stopped"


EXIT_MAY_BILL = 5  # whatever else happened
_EXITS = {
    Reason.COMPLETED: 0,
    Reason.FAILED: 1,
    Reason.HUNG: 1,
    Reason.DIVERGED: 1,
    Reason.LOST: 1,
    Reason.NO_CAPACITY: 3,
    Reason.CREDENTIALS: 3,
    Reason.PROVIDER: 3,
    Reason.DEADLINE: 4,
    Reason.BUDGET: 4,
    Reason.STOPPED: 6,
}


def outcome_of(reason: Reason) -> Outcome:
    """Tell success, the user's own stop and everything else apart."""
    if reason is Reason.COMPLETED:
        return Outcome.SUCCEEDED
    return Outcome.STOPPED if reason is Reason.STOPPED else Outcome.FAILED


def verdict(outcome: str, reason: str) -> str:
    """`succeeded: completed`; one word where both are the same."""
    return outcome if outcome == reason else f"{outcome}: {reason}"


def exit_code(state: State, reason: Reason | None) -> int:
    """Give the command's exit code; a run that is not DONE may still bill."""
    if state is not State.DONE or reason is None:
        return EXIT_MAY_BILL
    return _EXITS[reason]


def is_unproven(state: str, *, freed: bool, overdue: bool) -> bool:
    """Whether a run may bill though it should not: its end is not proven, or it goes on past its ceiling (`overdue`).

    `freed` = nothing bills any more, and only what it left in the store is awaited.
    """
    return state != State.DONE and not freed and (state == State.TERMINATING or overdue)


_WAS = {"proven": "was proven", "absent": "was absent"}


def has_begun(state: str) -> bool:
    """Whether a training was seen to run, so that whoever is to stop it had the time to prove that it can."""
    return state not in {State.PENDING, State.PROVISIONING, State.STARTING}


def proof_words(one: Mapping[str, Any], *, begun: bool, over: bool = False) -> str:
    """Say what is known of a holder: before the start as planned, while it runs as read, after the end as it was."""
    proof, at = str(one.get("proof", "")), str(one.get("proven_at") or "")
    day = f"{datetime.fromisoformat(at).astimezone(UTC):%d %b %H:%M:%S} UTC" if at else ""
    if over:
        return f"was proven until {day}" if day else _WAS.get(proof, "was never proven")
    if proof.startswith("unproven"):
        proof = "unproven" if begun else proof
        return f"{proof}, last proven {day}" if day else proof
    return proof if not day else f"{proof}, {day}" if proof == "proven" else f"{proof}, last proven {day}"


class Launch(StrEnum):
    """How far this attempt's launch got."""

    NOT_YET = "not_yet"
    INTENDED = "intended"  # the intent is on disk; whether it was sent nobody knows until it is settled
    ACCEPTED = "accepted"


class Act(StrEnum):
    """The deed that a decision asks for; one a tick."""

    WAIT = "wait"
    LAUNCH = "launch"
    START = "start"
    FOLLOW = "follow"
    TELL_STOP = "tell_stop"
    EXTEND = "extend"
    COLLECT = "collect"
    TERMINATE = "terminate"
    FINISH = "finish"
