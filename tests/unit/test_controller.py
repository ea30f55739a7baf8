"""The controller on the fake cloud: each ending, each fault, and a kill at every single line."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest
from worlds import RUN, START, Paused, World, steps_of

from orchestrator.jobs import JobFile
from orchestrator.words import Reason, State
from providers.errors import LeaseLostError

if TYPE_CHECKING:
    from pathlib import Path

    from providers.base import Job, Offer


def metrics(world: World) -> list[int]:
    return steps_of(world.home.run(RUN).metrics)


def test_a_run_completes_and_nothing_bills(world: World) -> None:
    world.drive()
    world.check_ended()
    assert world.memory.reason is Reason.COMPLETED
    assert metrics(world) == list(range(1, 61))


def test_every_money_verb_has_an_intent_before_and_an_end_after(world: World) -> None:
    world.drive()
    kinds = [(event.verb, event.kind) for event in world.ledger.events(RUN) if event.verb in {"launch", "terminate"}]
    assert kinds == [("launch", "intent"), ("launch", "done"), ("terminate", "intent"), ("terminate", "done")]


def test_the_launch_intent_is_on_disk_before_the_vendor_hears_of_it(world: World) -> None:
    seen: list[tuple[State, str]] = []
    launch = world.cloud.launch

    def spy(*args: object) -> str:
        seen.append((world.memory.state, world.memory.launch))
        return launch(*args)  # type: ignore[arg-type]

    world.cloud.launch = spy  # type: ignore[method-assign,assignment]
    world.drive()
    assert seen == [(State.PROVISIONING, "intended")]


@pytest.mark.parametrize(("fault", "reason"), [("capacity", Reason.NO_CAPACITY), ("credentials", Reason.CREDENTIALS)])
def test_a_refused_launch_ends_the_run_and_costs_nothing(world: World, fault: str, reason: Reason) -> None:
    world.cloud.faults["launch"].append(fault)
    world.drive()
    world.check_ended()
    assert world.memory.reason is reason
    assert world.row.spells == ()


@pytest.mark.parametrize("lag", [0, 10, 90])
def test_a_launch_whose_reply_was_lost_is_found_by_its_mark_and_never_sent_again(world: World, lag: float) -> None:
    world.cloud.traits = type(world.cloud.traits)(lag, 600, 120, 5, 1)
    world.cloud.faults["launch"].append("lost_reply")
    world.drive()
    world.check_ended()
    assert world.memory.reason is Reason.COMPLETED
    assert len(world.cloud.machines) == 1


def test_a_launch_that_never_arrived_is_settled_before_the_next_attempt(world: World) -> None:
    world.cloud.faults["launch"].append("lost_request")
    world.drive()
    world.check_ended()
    assert world.memory.reason is Reason.COMPLETED
    assert world.memory.attempt == 2
    assert (world.cloud.machines["m-1"].since - START).total_seconds() >= world.cloud.traits.list_lag_seconds


def test_a_launch_that_was_never_found_may_have_billed_and_the_ledger_says_so(fast_path: Path) -> None:
    world = World(fast_path, hours=72 / 3600)
    world.cloud.traits = replace(world.cloud.traits, list_lag_seconds=60.0)
    world.cloud.faults["launch"].append("lost_reply")
    world.cloud.faults["find"].extend(["unreachable", "", *["unreachable"] * 5])
    world.drive()
    assert world.cloud.dollars() > 0
    assert world.memory.allocation_id == ""
    world.check_ended()


def test_one_launch_that_made_two_ends_both_and_tries_again(world: World) -> None:
    world.cloud.faults["launch"].append("twice")
    world.drive()
    world.check_ended()
    assert world.memory.reason is Reason.COMPLETED
    assert len(world.cloud.machines) == 3


def test_terminate_ignored_thirty_times_is_repeated_until_proven(world: World) -> None:
    world.cloud.faults["terminate"].extend(["ignored"] * 30)
    world.drive()
    world.check_ended()


def test_a_machine_that_sickens_while_it_trains_is_left_with_its_checkpoints_for_another(world: World) -> None:
    world.cloud.total_steps = 150
    world.drive(until=lambda: world.memory.step >= 30)
    world.cloud.machines["m-1"].sick = True
    world.drive()
    world.check_ended()
    assert (world.memory.reason, list(world.cloud.machines)) == (Reason.COMPLETED, ["m-1", "m-2"])
    assert world.cloud.machines["m-2"].first_step >= 28
    assert sorted(set(metrics(world))) == list(range(1, 151))


def test_an_end_that_was_taken_is_not_ordered_again_while_it_is_carried_out(world: World) -> None:
    world.cloud.linger_seconds = 90
    world.drive()
    world.check_ended()
    assert [event.kind for event in world.ledger.events(RUN) if event.verb == "terminate"] == ["intent", "done"]
    assert "terminating" not in world.memory.evidence


def test_an_end_under_way_for_minutes_is_ordered_again(world: World) -> None:
    world.cloud.linger_seconds = 400
    world.drive()
    world.check_ended()
    assert [event.kind for event in world.ledger.events(RUN) if event.verb == "terminate"].count("intent") > 5


def test_an_end_that_is_shown_and_not_carried_out_is_ordered_again_and_its_bill_is_in_the_ledger(world: World) -> None:
    world.cloud.traits = replace(world.cloud.traits, ending_seconds=60.0)
    world.cloud.faults["terminate"].append("only shown")
    world.drive()
    world.check_ended()
    (machine,) = world.cloud.machines.values()
    first = next(event.time for event in world.ledger.events(RUN) if event.verb == "terminate")
    assert machine.ended is not None
    assert 60 <= machine.ended.timestamp() - first <= 100


def test_the_ledger_knows_an_end_to_the_billing_step_however_long_it_takes_to_be_proven(world: World) -> None:
    world.cloud.linger_seconds = 90
    world.cloud.traits = replace(world.cloud.traits, billing_step_seconds=60)
    world.drive()
    money = world.row.accrued(world.clock().timestamp())
    assert money.high - money.low <= Decimal("1.20") / 60
    assert money.low <= world.cloud.dollars() <= money.high


def test_an_api_down_for_an_hour_never_becomes_an_absence(world: World) -> None:
    world.drive(until=lambda: world.memory.state is State.RUNNING)
    for verb in ("inspect", "terminate", "find", "allocations"):
        world.cloud.faults[verb].extend(["unreachable"] * 120)
    world.cloud.holder_on_machine = False
    world.drive()
    world.check_ended()


def test_one_false_absence_is_not_believed(world: World) -> None:
    world.drive(until=lambda: world.memory.step > 5)
    world.cloud.faults["inspect"].extend(["absent", "absent", "", ""])
    world.drive()
    world.check_ended()
    assert world.memory.attempt == 1
    assert world.memory.reason is Reason.COMPLETED


def test_an_unhealthy_machine_is_ended_and_the_next_attempt_succeeds(world: World) -> None:
    world.cloud.faults["inspect"].extend(["", "", "", "unhealthy"])
    world.drive()
    world.check_ended()
    assert world.memory.attempt == 2
    assert world.memory.reason is Reason.COMPLETED


def test_the_same_failure_twice_is_not_bought_a_third_time(world: World) -> None:
    world.cloud.boot_seconds = 10_000
    world.cloud.traits = type(world.cloud.traits)(10, 60, 60, 5, 1)
    world.drive()
    world.check_ended()
    assert world.memory.reason is Reason.PROVIDER
    assert len(world.cloud.machines) == 2


def test_machines_that_say_again_and_again_why_they_cannot_start_the_job_are_given_up_at_once(world: World) -> None:
    world.cloud.traits = replace(world.cloud.traits, start_limit_seconds=3600.0)
    world.cloud.faults["start"].extend(["broken"] * 400)
    world.drive()
    world.check_ended()
    assert world.memory.reason is Reason.PROVIDER
    assert "No space left" in world.memory.detail
    assert len(world.cloud.machines) == 2
    for machine in world.cloud.machines.values():
        assert machine.ended is not None
        assert (machine.ended - machine.since).total_seconds() <= machine.boot_seconds + 60


def test_a_start_that_does_not_get_through_is_tried_for_as_long_as_a_start_may_take(world: World) -> None:
    world.cloud.faults["start"].extend(["unreachable"] * 5)
    world.drive()
    world.check_ended()
    assert (world.memory.reason, len(world.cloud.machines)) == (Reason.COMPLETED, 1)


@pytest.mark.parametrize("gone", ["job.json", "bundle.tar.gz"])
def test_what_is_no_longer_there_to_ship_ends_the_run_in_words_and_rents_nothing(world: World, gone: str) -> None:
    (world.home.run(RUN).path / gone).unlink()
    world.drive()
    world.check_ended()
    assert world.memory.reason is Reason.PROVIDER
    assert f"{gone} is gone" in world.memory.detail
    assert world.cloud.machines == {}


def test_what_goes_away_while_the_machine_boots_is_the_reason_told(world: World) -> None:
    world.drive(until=lambda: bool(world.memory.allocation_id))
    world.home.run(RUN).bundle.unlink()
    world.drive()
    world.check_ended()
    assert "bundle.tar.gz is gone" in world.memory.detail
    assert len(world.cloud.machines) == 1


def test_a_secret_that_a_later_controller_lacks_ends_the_run_as_credentials(world: World) -> None:
    JobFile(("x",), (), 60, ("NO_SUCH_SECRET",)).write(world.home.run(RUN))
    world.drive()
    world.check_ended()
    assert world.memory.reason is Reason.CREDENTIALS
    assert "NO_SUCH_SECRET" in world.memory.detail
    assert world.row.spells == ()


def test_a_dead_agent_is_a_lost_attempt_and_the_next_carries_on_from_the_checkpoint(world: World) -> None:
    world.drive(until=lambda: world.memory.step > 30)
    (machine,) = world.cloud.billing_now
    machine.died = world.clock()
    world.drive()
    world.check_ended()
    assert world.memory.reason is Reason.COMPLETED
    assert world.cloud.machines["m-2"].first_step >= 21
    assert metrics(world) == list(range(1, 61))


def test_a_vanished_machine_is_a_lost_attempt(world: World) -> None:
    world.drive(until=lambda: world.memory.step > 30)
    (machine,) = world.cloud.billing_now
    machine.ended = world.clock()
    world.drive()
    world.check_ended()
    assert world.memory.attempt == 2


def test_a_stop_saves_first_and_ends_stopped(world: World) -> None:
    world.drive(until=lambda: world.memory.step > 20)
    world.ledger.request_stop(RUN, world.clock())
    world.drive()
    world.check_ended()
    assert world.memory.reason is Reason.STOPPED
    assert world.home.run(RUN).result.is_file()


def test_a_stop_while_it_boots_ends_it_without_a_start(world: World) -> None:
    world.drive(until=lambda: world.memory.state is State.PROVISIONING and bool(world.memory.allocation_id))
    world.ledger.request_stop(RUN, world.clock())
    world.drive()
    world.check_ended()
    assert world.memory.reason is Reason.STOPPED
    assert world.cloud.machines["m-1"].job is None


def test_a_stop_ends_the_billing_though_the_files_will_not_come_home(fast_path: Path) -> None:
    world = World(fast_path, hours=2)
    world.cloud.spoiled.add("artifacts/model.bin")
    world.drive(until=lambda: world.memory.state is State.COLLECTING)
    world.clock.advance(60)
    world.ledger.request_stop(RUN, world.clock())
    asked = world.clock()
    world.drive()
    world.check_ended()
    assert world.memory.reason is Reason.STOPPED
    (machine,) = world.cloud.machines.values()
    assert machine.ended is not None
    assert machine.ended - asked <= timedelta(seconds=world.row.grace_seconds + 60)


def test_the_deadline_ends_a_run_with_its_work_home(fast_path: Path) -> None:
    world = World(fast_path, hours=60 / 3600)
    world.cloud.total_steps = 10_000
    world.drive()
    world.check_ended()
    assert world.memory.reason is Reason.DEADLINE
    assert world.home.run(RUN).result.is_file()
    overrun = max(machine.ended for machine in world.cloud.machines.values() if machine.ended) - START
    assert overrun <= timedelta(seconds=60)


def test_the_controller_ends_it_at_the_deadline_even_if_the_machine_says_nothing(fast_path: Path) -> None:
    world = World(fast_path, hours=100 / 3600)
    world.cloud.holder_on_machine = False
    world.cloud.faults["status"].extend(["unreachable"] * 500)
    world.drive()
    world.check_ended()
    (machine,) = world.cloud.machines.values()
    assert machine.ended is not None
    assert (machine.ended - START).total_seconds() <= 100 + 70  # the slowest poll, twice


def test_a_budget_stops_the_run_before_it_is_passed(fast_path: Path) -> None:
    world = World(fast_path, max_cost=Decimal("0.02"))
    world.cloud.total_steps = 10_000
    world.drive()
    world.check_ended()
    assert world.memory.reason is Reason.BUDGET


def test_a_stale_controller_that_wakes_can_do_nothing(world: World) -> None:
    sleeper = world.controller()
    world.drive(until=lambda: world.memory.state is State.RUNNING)
    calls = len(world.cloud.machines)
    with pytest.raises(LeaseLostError):
        sleeper.tick()
    assert len(world.cloud.machines) == calls
    world.drive()
    world.check_ended()


def test_a_full_disk_does_not_keep_what_is_to_end_from_being_ended(fast_path: Path) -> None:
    world = World(fast_path, hours=24)
    world.cloud.faults["terminate"].append("unreachable")
    world.drive(until=lambda: world.memory.state is State.TERMINATING)
    controller = world.controller()
    world.ledger._db.execute("PRAGMA query_only = ON")  # every write fails from here on
    (world.home.run(RUN).path / "status.json").unlink()
    (world.home.run(RUN).path / "status.json").mkdir()
    for _ in range(5):
        with pytest.raises(Paused):
            controller.run(world._pause_once)
    assert world.cloud.billing_now == []
    world.ledger._db.execute("PRAGMA query_only = OFF")
    world.drive()
    world.check_ended()


def test_what_a_controller_rented_after_it_had_lost_its_lease_is_ended_at_once(world: World) -> None:
    sleeper, launch = world.controller(), world.cloud.launch

    def late(job: Job, offer: Offer) -> str:
        world.cloud.launch = launch  # type: ignore[method-assign]
        world.drive(until=lambda: world.memory.attempt == 2 and bool(world.memory.allocation_id))
        return launch(job, offer)

    world.cloud.launch = late  # type: ignore[method-assign]
    with pytest.raises(LeaseLostError):
        sleeper.tick()
    assert [machine.mark.attempt for machine in world.cloud.billing_now] == [2]
    world.drive()
    world.check_ended()


def test_a_job_that_can_never_start_is_not_tried_for_minutes_that_bill(world: World) -> None:
    world.cloud.faults["start"].append("changed data")
    world.drive()
    world.check_ended()
    assert world.memory.reason is Reason.FAILED
    assert "changed" in world.memory.detail
    assert len(world.cloud.machines) == 1


def test_a_corrupt_file_is_fetched_again_until_whole(world: World) -> None:
    world.cloud.faults["fetch"].extend(["", "corrupt", "corrupt", "", "corrupt"])
    world.drive()
    world.check_ended()
    assert world.memory.reason is Reason.COMPLETED


def test_a_kill_at_every_single_line_never_bills_twice_and_always_ends(fast_path: Path) -> None:
    whole = World(fast_path / "whole")
    whole.cloud.total_steps, whole.cloud.checkpoint_every = 12, 5
    whole.drive()
    lines = whole.killer.passed
    assert lines > 50
    for line in range(1, lines + 1):
        world = World(fast_path / str(line))
        world.cloud.total_steps, world.cloud.checkpoint_every = 12, 5
        world.killer.at = {line}
        world.drive()
        world.check_ended()
        assert world.cloud.most_billing <= 1, f"killed at line {line}: two billed"
        assert world.memory.reason is Reason.COMPLETED, f"killed at line {line}: {world.memory}"
        assert metrics(world) == list(range(1, 13)), f"killed at line {line}"
        world.ledger.close()
