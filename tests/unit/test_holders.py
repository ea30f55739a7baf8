"""Who can stop the meter while a run goes on: proven, or the run does not go on."""

from __future__ import annotations

from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from past import admit, done, output
from worlds import RUN, START, World

from orchestrator.facts import Memory
from orchestrator.ledger import Ledger
from orchestrator.processes import this_process
from orchestrator.words import Reason, State, proof_words
from providers.base import Holder, Place, Proof, utc

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

HERE = Holder("the controller", Place.HERE, Proof.PROVEN)
DOG = Holder("the watchdog", Place.MACHINE, Proof.UNPROVEN)
GUARD = Holder("the guard on box", Place.ELSEWHERE, Proof.PROVEN)


def plan(*holders: Holder, **more: Any) -> dict[str, Any]:
    return {"holders": [asdict(one) for one in holders], **more}


def test_a_proof_is_read_and_noted_once(world: World) -> None:
    world.drive()
    assert [one["proof"] for one in world.row.holders] == ["proven"]
    assert [one.text for one in world.ledger.events(RUN) if one.verb == "holder"] == ["the watchdog: proven"]


def test_the_vendor_s_own_limit_is_proven_once_it_was_read_back(fast_path: Path) -> None:
    limit = Holder("the vendor's time limit", Place.SERVER, Proof.UNPROVEN)
    world = World(fast_path, plan=plan(limit, HERE))
    world.cloud.limit = replace(limit, proof=Proof.PROVEN, evidence="GET m-1 → timeout 600 s")
    world.drive()
    world.check_ended()
    (theirs,) = (one for one in world.row.holders if one["place"] == "server")
    assert (theirs["proof"], theirs["evidence"]) == ("proven", "GET m-1 → timeout 600 s")
    assert theirs["proven_at"]


def test_after_the_end_nobody_is_still_to_be_proven_or_absent() -> None:
    at = {"proven_at": "2026-11-22T12:01:35+00:00"}
    assert proof_words({"proof": "unproven until start"}, begun=False) == "unproven until start"
    assert proof_words({"proof": "unproven until start"}, begun=True) == "unproven"
    assert proof_words({"proof": "unproven until start"}, begun=True, over=True) == "was never proven"
    assert proof_words({"proof": "absent"}, begun=True, over=True) == "was absent"
    assert proof_words({"proof": "absent"} | at, begun=True) == "absent, last proven 22 Nov 12:01:35 UTC"
    assert proof_words({"proof": "absent"} | at, begun=True, over=True) == "was proven until 22 Nov 12:01:35 UTC"


def test_without_a_holder_on_the_machine_a_run_that_counts_on_it_alone_is_ended(fast_path: Path) -> None:
    world = World(fast_path, plan=plan(DOG, HERE))
    world.cloud.proof, world.cloud.total_steps = Proof.ABSENT, 300
    world.drive()
    world.check_ended()
    assert world.memory.reason is Reason.PROVIDER
    assert "nothing on the machine could stop the meter" in world.memory.detail
    assert len(world.cloud.machines) == 2, "the same failure is bought twice, and no third time"


def test_a_holder_elsewhere_or_the_accepted_risk_lets_it_go_on(fast_path: Path) -> None:
    for number, known in enumerate((plan(DOG, GUARD, HERE), plan(DOG, HERE, accept_risk=True), plan(HERE))):
        (fast_path / str(number)).mkdir()
        world = World(fast_path / str(number), plan=known)
        world.cloud.proof, world.cloud.total_steps = Proof.ABSENT, 200
        world.drive()
        world.check_ended()
        assert world.memory.reason is Reason.COMPLETED
        world.ledger.close()


def test_training_saves_in_time_though_the_machine_s_clock_is_slow(fast_path: Path) -> None:
    world = World(fast_path)
    world.cloud.total_steps, world.cloud.behind_seconds = 2000, 600
    world.drive()
    world.check_ended()
    assert world.memory.reason is Reason.DEADLINE
    assert world.home.run(RUN).result.is_file(), "nothing was saved before the end"
    ended = world.cloud.machines["m-1"].ended
    assert ended is not None
    assert (ended - START).total_seconds() <= 360


def test_a_deadline_that_the_money_sets_ends_for_want_of_money(fast_path: Path) -> None:
    world = World(fast_path, plan={"budget_bound": True})
    world.cloud.total_steps = 2000
    world.drive()
    world.check_ended()
    assert world.memory.reason is Reason.BUDGET


def test_hours_that_were_added_are_no_budget(fast_path: Path) -> None:
    world = World(fast_path, plan={"budget_bound": True})
    world.cloud.total_steps = 2000
    world.drive(until=lambda: world.memory.step >= 20)
    later = utc(world.row.deadline + 300)
    world.ledger.wish_extension(RUN, deadline=later, max_cost=None, now=world.clock(), monthly_cap=None)
    world.drive()
    world.check_ended()
    assert (utc(world.row.deadline), world.memory.reason) == (later, Reason.DEADLINE)


def test_a_training_whose_price_rose_saves_and_ends_and_is_not_bought_again(fast_path: Path) -> None:
    world = World(fast_path)
    world.cloud.total_steps = 2000
    world.drive(until=lambda: world.memory.step >= 20)
    world.cloud.machines["m-1"].price *= 10
    world.drive()
    world.check_ended()
    assert (world.memory.reason, len(world.cloud.machines)) == (Reason.PROVIDER, 1)
    assert "was agreed to" in world.memory.detail
    assert world.home.run(RUN).result.is_file(), "nothing was saved before the end"


def test_each_read_that_proves_the_end_is_kept(world: World) -> None:
    world.drive()
    reads = [one.text for one in world.ledger.events(RUN) if one.verb == "read"]
    assert len(reads) >= 3
    assert all(text == "m-1: GET m-1 → 404" for text in reads)


def test_of_two_the_one_that_is_merely_absent_is_believed_last(fast_path: Path) -> None:
    """One is told to be ended by the vendor itself; that proves nothing for the other."""
    world = World(fast_path)
    world.cloud.faults["launch"].append("twice")
    world.drive(until=lambda: bool(world.memory.extra_ids) and world.memory.terminate_sent)
    world.cloud.faults["inspect"].extend(["terminated", ""] * 20)
    world.drive(until=lambda: world.memory.attempt == 2)
    reads = [one.text for one in world.ledger.events(RUN) if one.verb == "read"]
    assert sum(text.startswith("m-2") for text in reads) >= 3
    world.cloud.faults.clear()
    world.drive()
    world.check_ended()


def shown(home: Path, capsys: pytest.CaptureFixture[str], *read: Holder) -> str:
    admit(home, "demo-261122-aaaaaa", Memory(state=State.RUNNING), price="1.10")
    ledger = Ledger(home / "ledger.sqlite")
    lease = ledger.acquire("demo-261122-aaaaaa", this_process(), datetime.now(UTC), lambda _: False)
    assert lease is not None
    ledger.save(lease, Memory(state=State.RUNNING), datetime.now(UTC), looked=True)
    if read:
        ledger.saw_holders(lease, 1, read, datetime.now(UTC))
    ledger.close()
    return output(capsys, "ps")[1] + output(capsys, "show")[1]


def test_ps_says_who_ends_it_when_and_whether_that_is_proven(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GPURUN_HOME", str(tmp_path / "home"))
    told = shown(tmp_path / "home", capsys, Holder("the watchdog", Place.MACHINE, Proof.PROVEN, evidence="GET → 200"))
    assert "held by the watchdog: proven" in told
    assert "GET → 200" in told


def test_ps_says_when_nobody_but_this_computer_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GPURUN_HOME", str(tmp_path / "home"))
    assert "held by this computer only" in shown(tmp_path / "home", capsys)


def test_ps_says_that_a_holder_is_absent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GPURUN_HOME", str(tmp_path / "home"))
    absent = Holder("the watchdog", Place.MACHINE, Proof.ABSENT, evidence="no key on the machine")
    assert "held by this computer only; the watchdog is absent" in shown(tmp_path / "home", capsys, absent)


def test_a_proof_that_fails_for_a_moment_ends_nothing(fast_path: Path) -> None:
    world = World(fast_path, plan=plan(DOG, HERE))
    world.cloud.total_steps = 200
    world.drive(until=lambda: world.memory.step >= 100)
    world.cloud.proof = Proof.ABSENT
    world.drive(until=lambda: world.memory.step >= 130)
    world.cloud.proof = Proof.PROVEN
    world.drive()
    world.check_ended()
    assert world.memory.reason is Reason.COMPLETED
    assert len(world.cloud.machines) == 1


def test_a_run_lasts_as_long_in_ps_as_in_show(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GPURUN_HOME", str(tmp_path / "home"))
    admit(tmp_path / "home", "demo-261122-aaaaaa", done(Reason.STOPPED), ended=True)
    listed, shown = (output(capsys, command)[1] for command in ("ps", "show"))
    assert "  55 s  " in listed
    assert "55 s" in shown
    assert "state    stopped, " in shown, "one word is enough"
