"""What is believed of what a machine says, by its own clock and by ours."""

from __future__ import annotations

from datetime import timedelta

import pytest

from providers import wire
from providers.base import Order, OrderKind, Phase, Proof, utc
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


PROBED = {
    "time": NOW - 1, "pid": 7, "ender": "alive", "ender_evidence": "GET x/instances/i → 200, alive",
    "ender_at": NOW - 60, "ender_failures": 0, "ender_user": "root",
}  # fmt: skip


@pytest.mark.parametrize(
    ("how", "proof", "words"),
    [
        ({}, Proof.PROVEN, "→ 200, alive, at 23:59:00 UTC, with a key readable to root only; its lock is held"),
        ({"ender_user": "ubuntu"}, Proof.PROVEN, "readable to ubuntu (no root was to be had)"),
        ({"ender": ""}, Proof.ABSENT, "no key on this machine: it ends its processes, not the bill"),
        ({"ender": "not asked yet", "ender_at": None, "ender_evidence": ""}, Proof.UNPROVEN, "not asked yet"),
        ({"ender": "there", "ender_at": None}, Proof.UNPROVEN, "whether it is obeyed can't be tried without ending it"),
        ({"ender": "refused", "ender_at": None, "ender_failures": 1}, Proof.UNPROVEN, "its ender: GET"),
        ({"ender": "refused", "ender_at": None, "ender_failures": 2}, Proof.ABSENT, "its ender: GET"),
        ({"ender": "refused", "ender_failures": 1}, Proof.PROVEN, "its ender: GET"),
        ({"ender": "refused", "ender_failures": 2}, Proof.ABSENT, "last good at 23:59:00 UTC"),
        ({"ender": "unclear", "ender_failures": 9}, Proof.PROVEN, "its ender: GET"),
        ({"ender": "unclear", "ender_failures": 90, "ender_at": NOW - 4000}, Proof.ABSENT, "last good at"),
        ({"time": NOW - 300}, Proof.ABSENT, "last alive at 23:55:00 UTC"),
        ({"time": "soon"}, Proof.UNPROVEN, "never looked"),
        ({"ender": 7, "ender_at": [], "ender_failures": "x", "ender_user": {}}, Proof.UNPROVEN, "its ender:"),
    ],
)
def test_on_a_rented_machine_only_an_ender_that_reached_its_vendor_is_proof(how, proof, words):
    said = {"watchdog": True, "agent": True, "proof": {**PROBED, **how}}
    holder = wire.status_of(said, NOW, rented=True).watchdog
    assert holder.proof is proof, holder
    assert words in holder.evidence
    assert (holder.proven_at is not None) is (proof is Proof.PROVEN)
    assert (holder.extendable, holder.worst_overrun_seconds) == (True, 60)
    assert wire.status_of({**said, "watchdog": False}, NOW, rented=True).watchdog.proof is Proof.ABSENT


def test_a_watchdog_whose_disk_is_full_still_shows_that_it_looks():
    said = {"watchdog": True, "looked": NOW - 1, "proof": {**PROBED, "time": NOW - 900}}
    assert wire.status_of(said, NOW, rented=True).watchdog.proof is Proof.PROVEN
    assert wire.status_of({**said, "looked": NOW - 800}, NOW, rented=True).watchdog.proof is Proof.ABSENT


def test_an_agent_that_died_with_its_machine_and_comes_back_has_not_exited():
    said = {"watchdog": True, "began": True, "restarting": True}
    assert wire.status_of(said, NOW).phase is Phase.READY
    assert wire.status_of({**said, "result": {"reason": "completed"}}, NOW).phase is Phase.EXITED


def test_an_order_carries_a_new_ceiling_with_a_new_deadline_only():
    later = Order(3, OrderKind.DEADLINE, utc(NOW), utc(NOW + 60))
    assert wire.order_json(later) == {"id": 3, "kind": "deadline", "deadline": NOW, "ceiling": NOW + 60}
    assert "ceiling" not in wire.order_json(Order(3, OrderKind.DEADLINE, utc(NOW)))
    assert wire.order_json(Order(3, OrderKind.STOP, utc(NOW), utc(NOW))) == {"id": 3, "kind": "stop"}
