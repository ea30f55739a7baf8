"""One pass of the guard in a home: what it ends, what it leaves alone, what it can't tell, what it tells once."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest
from fakes import START, FakeCloud, Machine
from scenes import Scene, mark
from worlds import RUN, World

from orchestrator import glance, guard_here, guard_pass, guard_pulse, guard_screens, notify, processes
from orchestrator.guard_pass import Means
from orchestrator.ledger import Ledger
from orchestrator.words import State
from providers.base import Mark
from providers.errors import ConfigError, CredentialsError, ProviderError, StateError

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.guard_pass import Notice
    from orchestrator.guard_pulse import Pulse


@pytest.fixture
def scene(fast_path: Path) -> Scene:
    return Scene(fast_path)


def test_what_is_past_its_ceiling_is_ended_and_proven_from_an_empty_home(scene: Scene) -> None:
    late, live, foreign = scene.bills(mark(-1)), scene.bills(mark(1)), scene.bills(None)
    pulse = scene.once()
    assert [one.id for one in scene.cloud.billing_now] == [live.id, foreign.id]
    (ended,) = pulse.providers["fake"].ended
    assert (ended["id"], ended["kind"]) == (late.id, "overdue")
    assert "unlisted in 3 whole lists" in ended["evidence"]
    assert scene.paused >= scene.cloud.traits.list_lag_seconds
    assert guard_pass.exit_code(pulse) == 0
    assert not scene.home.ledger.exists()
    assert guard_pulse.read(scene.home) == pulse


def test_another_homes_live_run_and_a_foreign_machine_are_never_touched(scene: Scene) -> None:
    scene.bills(mark(0.02)), scene.bills(None)
    for _ in range(3):
        assert guard_pass.exit_code(scene.once()) == 0
        scene.clock.advance(10)
    assert len(scene.cloud.billing_now) == 2


def test_a_terminate_that_is_ignored_is_ordered_again_until_it_is_carried_out(scene: Scene) -> None:
    scene.bills(mark(-1))
    scene.cloud.faults["terminate"].extend(["ignored"] * 100)
    codes = []
    while scene.cloud.billing_now and len(codes) < 100:
        codes.append(guard_pass.exit_code(scene.once()))
        scene.clock.advance(60)
    assert set(codes[:-1]) == {5}
    pulse = scene.once()
    assert (guard_pass.exit_code(pulse), pulse.unproven) == (0, 0)
    assert len([one for one in scene.told if "NOT PROVEN" in one.title]) == 1


def test_what_a_pass_left_unproven_is_proven_by_the_next(scene: Scene) -> None:
    late = scene.bills(mark(-1))
    scene.cloud.faults["allocations"].extend(["", *["unreachable"] * 100])
    pulse = scene.once()
    assert guard_pass.exit_code(pulse) == 5
    assert [one["id"] for one in pulse.providers["fake"].unproven] == [late.id]
    scene.cloud.faults["allocations"].clear()
    pulse = scene.once()
    assert [one["id"] for one in pulse.providers["fake"].ended] == [late.id]
    assert guard_pass.exit_code(pulse) == 0


def test_an_end_that_is_only_shown_is_not_believed(scene: Scene) -> None:
    scene.bills(mark(-1))
    scene.cloud.faults["terminate"].append("only shown")
    pulse = scene.once()
    for _ in range(10):
        if not scene.cloud.billing_now:
            break
        assert guard_pass.exit_code(pulse) == 5
        scene.clock.advance(60)
        pulse = scene.once()
    assert scene.cloud.billing_now == []
    assert guard_pass.exit_code(pulse) == 0


def test_another_account_says_nothing_about_what_is_owed_on_the_first(scene: Scene) -> None:
    scene.bills(mark(-1))
    scene.cloud.faults["terminate"].extend(["ignored"] * 100)
    assert guard_pass.exit_code(scene.once()) == 5
    scene.providers["fake"] = other = scene.another("fake")
    other.account = lambda: "acct-other"  # type: ignore[method-assign]
    for _ in range(4):
        pulse = scene.once()
        assert guard_pass.exit_code(pulse) == 5
        assert pulse.unproven == 1
        assert "the key opens acct-other" in pulse.providers["fake"].troubles[0]
    assert pulse.providers["fake"].ended == []


def test_a_provider_that_can_not_be_reached_is_never_all_well(scene: Scene) -> None:
    scene.cloud.faults["allocations"].extend(["unreachable"] * 3)
    for _ in range(3):
        pulse = scene.once()
        assert guard_pass.exit_code(pulse) == 5
        assert pulse.providers["fake"].counts is None
        assert "all well" not in guard_pulse.summary(pulse)
    assert guard_pass.exit_code(scene.once()) == 0
    assert [one.title for one in scene.told] == ["gpurun's guard can't vouch for fake"]


@pytest.mark.parametrize("error", [CredentialsError("401", hint="make a new one"), ProviderError("half a list")])
def test_a_revoked_key_or_a_list_that_was_not_followed_to_its_end_is_told_at_once(
    scene: Scene, error: ProviderError
) -> None:
    def allocations() -> list[object]:
        raise error

    scene.bills(mark(-1))
    scene.cloud.allocations = allocations  # type: ignore[method-assign, assignment]
    pulse = scene.once()
    assert guard_pass.exit_code(pulse) == 5
    assert len(scene.told) == 1
    assert str(error) in scene.told[0].text
    assert ("the key was not taken" in scene.told[0].text) == isinstance(error, CredentialsError)


def test_one_vendors_outage_keeps_no_other_waiting(scene: Scene) -> None:
    second = scene.providers["second"] = scene.another("second")
    assert isinstance(second, FakeCloud)
    scene.bills(mark(-1))
    scene.bills(mark(-1), second)
    scene.cloud.faults["allocations"].extend(["unreachable"] * 1000)
    pulse = scene.once()
    assert second.billing_now == []
    assert len(pulse.providers["second"].ended) == 1
    assert guard_pass.exit_code(pulse) == 5


def test_a_key_that_was_there_before_is_missed(scene: Scene) -> None:
    missing = CredentialsError("no key", hint="export it")
    scene.providers["second"] = missing
    assert guard_pass.exit_code(scene.once()) == 0
    scene.providers["fake"] = missing
    pulse = scene.once()
    assert guard_pass.exit_code(pulse) == 5
    assert pulse.blind == ["fake: no key: export it"]


def test_what_is_owed_at_a_vendor_that_is_looked_at_no_more_stays_owed(scene: Scene) -> None:
    scene.bills(mark(-1))
    scene.cloud.faults["terminate"].extend(["ignored"] * 100)
    scene.once()
    scene.providers = {"second": scene.another("second")}
    for _ in range(2):
        pulse = scene.once()
        assert (pulse.unproven, guard_pass.exit_code(pulse)) == (1, 5)


def test_a_guard_without_any_key_does_not_say_that_all_is_well(scene: Scene) -> None:
    scene.providers = {"fake": CredentialsError("no key")}
    pulse = scene.once()
    assert guard_pass.exit_code(pulse) == 5
    assert "no provider's key" in guard_pulse.summary(pulse)


@pytest.mark.parametrize("content", [b"", b"not SQLite at all" * 100])
def test_a_damaged_ledger_leaves_the_marks_and_is_said(scene: Scene, content: bytes) -> None:
    scene.home.ledger.write_bytes(content)
    scene.bills(mark(-1)), scene.bills(mark(1))
    for _ in range(2):
        pulse = scene.once()
        notify.catch_up(scene.home)  # as a guard does then
        assert len(scene.cloud.billing_now) == 1
        assert "by marks alone" in pulse.troubles[0]
        assert guard_pass.exit_code(pulse) == 3
    assert scene.home.ledger.read_bytes() == content


def test_a_wrong_clock_is_told_once_and_kills_nobody_early(scene: Scene) -> None:
    live = scene.bills(mark(0.1))
    scene.cloud.skew = timedelta(hours=1)
    for _ in range(2):
        pulse = scene.once()
        assert "3600 s behind fake's" in pulse.providers["fake"].notes[0]
    assert scene.cloud.billing_now == [live]
    assert [one.title for one in scene.told] == ["a wrong clock"]


def test_a_notifier_that_fails_disturbs_no_pass(scene: Scene) -> None:
    def fails(_notice: Notice) -> None:
        raise StateError("nobody listens")

    scene.bills(mark(-1))
    pulse = guard_pass.once(scene.home, scene.providers, Means(scene.clock, scene.pause, list, fails))
    assert scene.cloud.billing_now == []
    assert len(pulse.providers["fake"].ended) == 1


def test_a_damaged_pulse_is_said_and_written_anew(scene: Scene) -> None:
    guard_pulse.path_of(scene.home).write_text(json.dumps({"providers": [1]}))
    assert "is no pulse" in scene.once().troubles[0]
    assert guard_pass.exit_code(scene.once()) == 0


def test_a_pass_shows_that_it_lives_while_it_waits(scene: Scene) -> None:
    scene.bills(mark(-1))
    seen = []

    def pause(seconds: float) -> None:
        seen.append(guard_pulse.read(scene.home))
        scene.pause(seconds)

    guard_pass.once(scene.home, scene.providers, Means(scene.clock, pause))
    assert [one.unproven for one in seen if one] == [1] * len(seen)
    assert all("not proven gone yet" in guard_pulse.summary(one) for one in seen if one)
    assert [one.when for one in seen if one] == sorted({one.when for one in seen if one})


# ── with the home's own ledger ───────────────────────────────────────────────────────────────────────────────────────


def passes(world: World, **more: object) -> Pulse:
    def pause(seconds: float) -> None:
        world.clock.advance(seconds)

    return guard_pass.once(world.home, {"fake": world.cloud}, Means(world.clock, pause, **more))  # type: ignore[arg-type]


def test_an_orphan_of_this_home_is_ended_and_counted_in_its_ledger(world: World) -> None:
    world.drive()
    assert world.memory.state is State.DONE
    before = world.row.accrued(world.clock().timestamp()).high
    stray = Machine(
        "m-9", Mark(world.ledger.home_id, RUN, 1, START + timedelta(hours=9)), Decimal(6), world.clock(), 0.0
    )
    world.cloud.machines[stray.id] = stray
    world.clock.advance(600)
    pulse = passes(world)
    assert [one["kind"] for one in pulse.providers["fake"].ended] == ["orphan"]
    assert world.cloud.billing_now == []
    assert world.row.accrued(world.clock().timestamp()).high - before >= 1  # ten minutes at $6 an hour
    assert [(one.kind, one.text[:7]) for one in world.ledger.events(RUN) if one.verb == "guard"] == [
        ("intent", "orphan:"),
        ("done", "orphan:"),
    ]


def test_an_orphan_of_which_no_start_is_told_counts_from_the_launch_which_is_told_by_the_vendors_clock(
    world: World,
) -> None:
    world.drive()
    world.ledger._db.execute("UPDATE runs SET skew = 10800")
    end, told = START + timedelta(hours=9), world.cloud.allocations
    stray = Machine("m-9", Mark(world.ledger.home_id, RUN, 1, end), Decimal(6), world.clock(), 0.0)
    world.cloud.machines[stray.id] = stray
    world.cloud.allocations = lambda: [replace(one, since=None) for one in told()]  # type: ignore[method-assign]
    world.clock.advance(600)
    passes(world)
    (found,) = [one.spell for one in world.ledger.allocations(RUN) if one.id == stray.id]
    assert found.start_low == world.row.created


def test_an_attempt_that_the_ledger_does_not_know_is_left_until_its_ceiling(world: World) -> None:
    world.drive(until=lambda: world.memory.state is State.RUNNING)
    unknown = Machine(
        "m-9", Mark(world.ledger.home_id, RUN, 7, START + timedelta(hours=1)), Decimal(1), world.clock(), 0.0
    )
    world.cloud.machines[unknown.id] = unknown
    world.clock.advance(60)
    world.cloud.holder_on_machine = False
    pulse = passes(world)
    assert pulse.providers["fake"].counts == {"live": 1, "unknown": 1}
    world.clock.advance(3600)
    passes(world)
    assert unknown.ended is not None


def test_runs_of_this_home_on_another_account_are_unknown_never_gone(world: World) -> None:
    world.drive(until=lambda: world.memory.state is State.RUNNING)
    other = FakeCloud(world.clock)
    other.account = lambda: "acct-other"  # type: ignore[method-assign]
    pulse = guard_pass.once(world.home, {"fake": other}, Means(world.clock, world.clock.advance))
    assert guard_pass.exit_code(pulse) == 5
    assert pulse.blind == [f"fake: {RUN} is unknown: it runs on acct-fake, and the key opens acct-other"]
    assert max(map(len, guard_screens.pass_screen(pulse).split("\n"))) <= 80
    assert world.memory.state is State.RUNNING


def test_a_sweep_by_hand_never_says_nothing_bills_where_a_run_is_on_another_account(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.drive(until=lambda: world.memory.state is State.RUNNING)
    other = FakeCloud(world.clock)
    other.account = lambda: "acct-other"  # type: ignore[method-assign]
    for vendors, why in (
        ({"fake": other}, "it runs on acct-fake, and the key opens acct-other"),
        ({"fake": CredentialsError("no key"), "more": FakeCloud(world.clock, name="more")}, "fake: CAN'T TELL: no key"),
    ):
        monkeypatch.setattr(guard_here, "vendors", lambda _home, told=vendors: told)
        looked = guard_here.look(world.home)
        assert guard_here.is_blind(looked)
        assert why in " ".join(guard_screens.sweep_screen(looked).split())


def test_a_run_whose_vendor_has_no_key_here_is_missed(world: World) -> None:
    world.drive(until=lambda: world.memory.state is State.RUNNING)
    pulse = guard_pass.once(world.home, {"fake": CredentialsError("no key")}, Means(world.clock, world.clock.advance))
    assert pulse.blind == ["fake: no key"]


def test_runs_that_nobody_holds_are_given_to_controllers_even_where_no_vendor_answers(world: World) -> None:
    world.cloud.faults["allocations"].extend(["unreachable"] * 9)
    assert passes(world, tend=lambda: [RUN]).tended == [RUN]

    def fails() -> list[str]:
        raise OSError(28, "No space left on device")

    pulse = passes(world, tend=fails)
    assert "can't be carried on" in pulse.troubles[0]


def test_damaged_defaults_keep_no_machine_from_its_controller(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.drive(until=lambda: world.memory.state is State.RUNNING)
    world.ledger._db.execute("UPDATE runs SET lease_until = NULL, lease_holder = NULL")
    (world.home.root / "config.toml").write_text("max-hours = [")
    started: list[str] = []
    monkeypatch.setattr(processes, "spawn_controller", lambda _home, run_id: started.append(run_id))
    with pytest.raises(ConfigError, match="is not TOML"):
        glance.tend(world.home, glance.runs(world.home, 0.0), 0.0)
    assert started == [RUN]


def test_a_full_disk_keeps_no_guard_from_ending_what_bills(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.drive(until=lambda: world.memory.state is State.RUNNING)
    world.cloud.holder_on_machine = False
    world.clock.advance(3600)

    def full(*_: object) -> None:
        raise StateError("No space left on device")

    monkeypatch.setattr(Ledger, "note", full)
    monkeypatch.setattr(guard_pulse, "write", full)
    pulse = passes(world)
    assert world.cloud.billing_now == []
    assert guard_pass.exit_code(pulse) == 3
    assert any("No space" in text for text in pulse.troubles)
