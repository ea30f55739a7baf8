"""Who can stop the meter while a run goes on: proven, or the run does not go on."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from worlds import RUN, START, World

from orchestrator.words import Reason
from providers.base import Holder, Place, Proof

if TYPE_CHECKING:
    from pathlib import Path

HERE = Holder("the controller", Place.HERE, Proof.PROVEN)
DOG = Holder("the watchdog", Place.MACHINE, Proof.UNPROVEN)
GUARD = Holder("the guard on box", Place.ELSEWHERE, Proof.PROVEN)


def plan(*holders: Holder, **more: Any) -> dict[str, Any]:
    return {"holders": [asdict(one) for one in holders], **more}


def test_a_proof_is_read_and_noted_once(world: World) -> None:
    world.drive()
    assert [one["proof"] for one in world.row.holders] == ["proven"]
    assert [one.text for one in world.ledger.events(RUN) if one.verb == "holder"] == ["the watchdog: proven"]


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
