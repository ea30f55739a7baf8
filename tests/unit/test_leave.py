"""What a launch is allowed to do: the risk, the key on the machine, and the limits by flag, template and config."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from fakes import OFFER, START, Clock, FakeCloud
from past import output

from orchestrator import launch, settings_file, templates
from orchestrator.home import Home
from orchestrator.jobs import JobFile
from orchestrator.launch import Leave
from orchestrator.ledger import Ledger
from orchestrator.plan import CAP, GUARD_HERE
from orchestrator.plan_screen import plan_screen
from orchestrator.wish import Wish, monthly_cap, planned
from providers.base import Holder, Place, Proof
from providers.errors import ConfigError, RefusedError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.launch import Prepared

BOX = Holder("the guard at box", Place.ELSEWHERE, Proof.PROVEN, evidence="it saw key-1", proven_at=START)
TIMER = Holder(GUARD_HERE, Place.HERE, Proof.PROVEN, evidence="it saw key-1", proven_at=START)


@pytest.fixture
def made(tmp_path: Path) -> Home:
    return Home(tmp_path / "made").ensure()


def prepare(home: Home, *sets: str, leave: Leave | None = None, cloud: FakeCloud | None = None) -> Prepared:
    alone = cloud or FakeCloud(Clock(), holder_on_machine=False)
    template = templates.load("loop", sets)
    return launch.prepare(home, Ledger(home.ledger), alone, template, None, START, leave or Leave())


def watched_by(*guards: Holder) -> Leave:
    return Leave(guards=lambda _provider, _now: guards)


def screen(prepared: Prepared, **limits: Any) -> str:
    told = plan_screen(prepared.plan.as_json(), {"max_idle_minutes": 30, "max_attempts": 3, **limits})
    assert all(len(line) <= 80 or "/" in line for line in told.splitlines())
    return " ".join(told.split())


# ── who holds it ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_guard_on_another_machine_makes_a_launch_need_no_risk(made: Home) -> None:
    plan = prepare(made, leave=watched_by(BOX, TIMER)).plan
    assert not plan.accept_risk
    assert "if the guard at box, last proven 12:00 UTC, lives and your key works" in plan.sentence()


@pytest.mark.parametrize("guards", [(), (TIMER,), (replace(BOX, proof=Proof.ABSENT, evidence="silent for 9 min"),)])
def test_a_timer_here_and_a_silent_guard_are_no_other_holders(made: Home, guards: tuple[Holder, ...]) -> None:
    with pytest.raises(RefusedError) as caught:
        prepare(made, leave=watched_by(*guards))
    assert "--key-on-machine" not in caught.value.hint
    assert ("silent for 9 min" in str(caught.value)) == (guards != () and guards[0].place is Place.ELSEWHERE)
    assert "--accept-risk" in caught.value.hint
    assert "guard-elsewhere" in caught.value.hint
    assert list(made.runs.iterdir()) == []


def test_the_plan_says_of_a_timer_here_what_it_is_worth(made: Home) -> None:
    risky = "limits.accept_risk=true"
    with_timer, without = prepare(made, risky, leave=watched_by(TIMER)), prepare(made, risky)
    assert "should the controller die, the guard's timer here ends it, last proven 12:00 UTC" in screen(with_timer)
    assert "sleeps and dies with this computer" in screen(with_timer)
    for prepared in (with_timer, without):
        assert "Nobody else can stop it." in screen(prepared)
        assert prepared.plan.as_json()["accept_risk"]
    absent = replace(TIMER, proof=Proof.ABSENT, evidence="not installed: gpurun guard install")
    told = screen(prepare(made, risky, leave=watched_by(absent)))
    assert "absent: not installed: gpurun guard install" in told
    assert "the guard's timer" not in told


def test_what_costs_nothing_asks_no_guard(made: Home) -> None:
    def asked(*_: object) -> tuple[Holder, ...]:
        raise AssertionError

    free = FakeCloud(Clock(), stock=[replace(OFFER, price=Decimal(0))])
    plan = prepare(made, leave=Leave(guards=asked), cloud=free).plan
    assert plan.month is None
    assert plan.quote.worst == 0


# ── the key on the machine ───────────────────────────────────────────────────────────────────────────────────────────


def keyed() -> FakeCloud:
    cloud = FakeCloud(Clock())
    return replace(cloud, traits=replace(cloud.traits, key_on_machine=True))


def test_the_key_goes_only_where_a_machine_has_use_for_it(made: Home) -> None:
    with pytest.raises(UsageError, match="has no use on fake"):
        prepare(made, leave=Leave(key_on_machine=True), cloud=FakeCloud(Clock()))
    by_default = Leave(key_by_default=True)
    assert not prepare(made, leave=by_default, cloud=FakeCloud(Clock())).plan.key_on_machine
    assert prepare(made, leave=by_default, cloud=keyed()).plan.key_on_machine
    assert not prepare(made, cloud=keyed()).plan.key_on_machine


def test_a_plan_with_the_key_on_the_machine_says_the_risk_and_makes_such_jobs(made: Home) -> None:
    prepared = prepare(made, leave=Leave(key_on_machine=True), cloud=keyed())
    assert "YOUR ACCOUNT'S KEY GOES TO THE MACHINE" in screen(prepared)
    assert "It opens the whole account" in screen(prepared)
    folder = made.run(prepared.row.run_id)
    assert JobFile.read(folder).job(prepared.row, folder, "beef", {}).key_on_machine
    assert "KEY" not in screen(prepare(made, cloud=keyed()))
    with pytest.raises(RefusedError) as caught:
        prepare(made, cloud=replace(keyed(), holder_on_machine=False))
    assert "--key-on-machine" in caught.value.hint


def test_local_refuses_the_key_and_no_template_may_ask_for_it(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = output(capsys, "launch", "loop", "--key-on-machine", "--dry-run")
    assert code == 2
    assert "--key-on-machine has no use on local" in err
    assert output(capsys, "launch", "loop", "--set", "limits.key_on_machine=true", "--dry-run")[0] == 2


@pytest.mark.parametrize("text", ["true", "YES", "1", "no"])
def test_the_keys_default_is_set_by_the_word_yes_only(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.toml"
    with pytest.raises(ConfigError, match='the word "yes"'):
        settings_file.set_value(path, "key-on-machine", text)
    settings_file.set_value(path, "key-on-machine", "yes")
    assert settings_file.load(path) == {"key-on-machine": "yes"}


# ── limits by flag, template and config ──────────────────────────────────────────────────────────────────────────────


def limits_of(home: Path, **wished: Any) -> dict[str, Any]:
    with planned(Home(home), Wish("loop", None, None, (), **wished)) as plan:
        return plan.limits


def test_every_limit_has_a_flag_that_wins_and_a_default_below_the_template(home: Path) -> None:
    for key, value in {
        "max-hours": "9", "extendable-to": "12", "max-cost": "7.5", "max-idle": "20", "max-attempts": "2",
    }.items():  # fmt: skip
        settings_file.set_value(home / settings_file.NAME, key, value)
    found = limits_of(home)
    assert (found["max_hours"], found["max_idle_minutes"]) == (0.5, 5), "the template's own"
    assert (found["extendable_to_hours"], found["max_cost"], found["max_attempts"]) == (12, Decimal("7.5"), 2)
    found = limits_of(home, max_hours="1", extendable_to="3", max_cost="2", max_idle="9", max_attempts="1")
    assert list(found.values())[:5] == [1.0, 3.0, Decimal(2), 9.0, 1]


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--max-hours", "721"), ("--max-hours", "inf"), ("--extendable-to", "721"), ("--max-cost", "0"),
        ("--max-cost", "100001"), ("--max-idle", "44641"), ("--max-idle", ".inf"), ("--max-attempts", "10"),
        ("--max-attempts", "0"), ("--max-attempts", "1.5"),
    ],
)  # fmt: skip
def test_no_limit_is_infinite(capsys: pytest.CaptureFixture[str], flag: str, value: str) -> None:
    code, _, err = output(capsys, "launch", "loop", flag, value, "--dry-run")
    assert code == 2
    assert flag in err
    if value not in {"inf", ".inf"}:
        assert output(capsys, "config", "set", flag.removeprefix("--"), value)[0] == 2


def test_a_ceiling_that_was_typed_and_lies_before_the_deadline_is_refused(
    capsys: pytest.CaptureFixture[str], home: Path
) -> None:
    code, _, err = output(capsys, "launch", "loop", "--max-hours", "4", "--extendable-to", "2", "--dry-run")
    assert (code, "lies before the deadline of 4 h" in err) == (2, True)
    settings_file.set_value(home / settings_file.NAME, "extendable-to", "2")
    assert output(capsys, "launch", "loop", "--max-hours", "4", "--dry-run")[0] == 0


def test_the_budget_is_told_in_the_plan_and_bounds_the_row(made: Home) -> None:
    by_the_minute = replace(FakeCloud(Clock()).traits, billing_step_seconds=60)
    prepared = prepare(made, "max_cost=0.50", cloud=FakeCloud(Clock(), by_the_minute))
    values = prepared.plan.as_json()
    assert (values["budget_bound"], values["times"]["attempts"], prepared.row.max_attempts) == (True, 3, 3)
    assert prepared.row.max_cost == Decimal("0.50")
    assert prepared.row.worst <= Decimal("0.50")
    assert prepared.row.deadline - prepared.row.created == timedelta(minutes=24 - 2 - 2).total_seconds()
    assert "at most $0.50, which is as long as that lasts" in screen(prepared, max_cost="0.50")
    dear = FakeCloud(Clock(), stock=[replace(OFFER, price=Decimal(400))])
    assert "at most $100.00 (built in; more with --max-cost), which is as long" in screen(prepare(made, cloud=dear))
    small = prepare(made, "max_cost=0.20", cloud=FakeCloud(Clock()))
    assert (small.row.max_attempts, "one machine at most" in screen(small)) == (3, False)


def test_without_a_word_there_is_a_cap_and_the_plan_says_what_it_leaves(made: Home) -> None:
    assert monthly_cap({}) == CAP
    assert monthly_cap({"monthly-cap": Decimal(5)}) == Decimal(5)
    prepared = prepare(made, cloud=FakeCloud(Clock()))
    assert "cap $300.00: $0.00 spent, $0.00 reserved by open runs (this home's ledger only)" in screen(prepared)
    ledger = Ledger(made.ledger)
    launch.commit(prepared, ledger, START)
    assert f"${prepared.row.worst} reserved" in screen(prepare(made, cloud=FakeCloud(Clock())))
    tight = prepare(made, cloud=FakeCloud(Clock()), leave=Leave(monthly_cap=prepared.row.worst))
    assert f"OVER THE CAP with ${tight.row.worst} more" in screen(tight)
    with pytest.raises(RefusedError, match="monthly cap"):
        tight.check(ledger)
    with pytest.raises(RefusedError, match="monthly cap"):
        launch.commit(tight, ledger, START)


def test_what_this_computer_alone_could_end_is_planned_to_be_shown_and_refused_then(made: Home) -> None:
    shown, ledger = prepare(made, leave=Leave(alone=True)), Ledger(made.ledger)
    assert "$" in screen(shown)
    for refuse in (lambda: shown.check(ledger), lambda: launch.commit(shown, ledger, START)):
        with pytest.raises(RefusedError, match="only this computer could stop the meter") as caught:
            refuse()
        assert "gpurun guard install --on hf" in caught.value.hint
    assert ledger.runs() == []
