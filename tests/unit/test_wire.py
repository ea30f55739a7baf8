"""What is believed of what a machine says, by its own clock and by ours."""

from __future__ import annotations

from datetime import timedelta

import pytest

from providers import wire
from providers.base import Phase, Proof, utc
from providers.errors import IntegrityError

NOW = 1_767_225_600.0


def test_a_proof_is_fresh_by_the_machine_s_own_clock_and_told_by_ours():
    said = {"watchdog": True, "proof": {"time": NOW + 3600, "pid": 7}, "status": {"time": NOW + 3600, "deadline": NOW}}
    status = wire.status_of(said, NOW + 3601, ahead=3600)
    assert status.watchdog is not None
    assert (status.watchdog.proof, status.watchdog.proven_at) == (Proof.PROVEN, utc(NOW))
    assert (status.heartbeat, status.deadline) == (utc(NOW), utc(NOW))


@pytest.mark.parametrize(
    ("age", "held", "proof"), [(3, True, Proof.PROVEN), (40, True, Proof.ABSENT), (3, False, Proof.ABSENT)]
)
def test_a_watchdog_is_proven_by_its_lock_and_a_fresh_look(age, held, proof):
    holder = wire.status_of({"watchdog": held, "proof": {"time": NOW - age}}, NOW).watchdog
    assert holder is not None
    assert holder.proof is proof
    assert (holder.proven_at is not None) is (proof is Proof.PROVEN)


@pytest.mark.parametrize(
    ("said", "phase"),
    [
        ({"watchdog": True}, Phase.READY),
        ({"watchdog": True, "began": True}, Phase.EXITED),
        ({"watchdog": True, "began": True, "agent": True}, Phase.RUNNING),
        ({"agent": True, "result": {"reason": "completed"}}, Phase.EXITED),
        ({}, Phase.EXITED),
        ({"begun": False}, Phase.READY),
        ({"begun": False, "proof": {"ended": "the ceiling has come"}}, Phase.EXITED),
        ({"begun": True}, Phase.EXITED),
    ],
)
def test_who_lives_tells_the_phase(said, phase):
    assert wire.status_of(said, NOW).phase is phase


def test_words_of_a_machine_are_cut():
    status = wire.status_of({"result": {"reason": "x" * 10**6, "detail": ["no"]}}, NOW)
    assert (len(status.reason), status.detail) == (2000, "")


@pytest.mark.parametrize("value", ["1", None, True, float("nan"), float("inf"), 10**400, []])
def test_what_is_no_finite_number_is_none(value):
    assert wire.number(value) is None


def test_more_files_than_can_be_believed_are_an_error():
    entry = {"name": "a", "size": 1, "sha256": "0"}
    with pytest.raises(IntegrityError):
        wire.manifest_of([entry] * (wire.MAX_ENTRIES + 1), final=True)


def test_a_moment_beyond_the_calendar_is_none():
    said = {"status": {"time": 1e18, "deadline": -1e18}}
    status = wire.status_of(said, NOW, ahead=timedelta(days=1).total_seconds())
    assert (status.heartbeat, status.deadline) == (None, None)


@pytest.mark.parametrize("name", ["artifacts/\ud800", "\udfff/x"])
def test_a_name_that_no_disk_can_hold_is_an_error_of_the_machine(tmp_path, name):
    with pytest.raises(IntegrityError, match="on no disk"):
        wire.inside(tmp_path, name)
