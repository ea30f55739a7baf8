"""What is worth telling of a run, and that it is told once: thresholds, deaths, ends, bills that may go on."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from orchestrator.cost import Spell
from orchestrator.facts import Memory
from orchestrator.notices import SILENT_SECONDS, Event, guard_is_silent, guard_says, worth_telling
from orchestrator.notify import told_of
from orchestrator.records import Event as Line
from orchestrator.records import RunRow
from orchestrator.words import Reason, State
from providers.base import Traits

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
RUN = "demo-261122-abcdef"
LAMBDA = Traits(60.0, 1200.0, 3600.0, 5.0, 60, console_url="https://cloud.example/instances", ending_seconds=180.0)
RUNNING = Memory(state=State.RUNNING, allocation_id="i-1")


def row(memory: Memory, *, hours: float = 0.0, max_cost: str | None = None, price: str = "1.00") -> RunRow:
    """A run that has billed for some hours by NOW; its worst case is $3.00."""
    end, begun = NOW.timestamp() + 7200, NOW.timestamp() - hours * 3600
    spells = (Spell(Decimal(price), 1, begun, begun, None, None),) if hours else ()
    budget = None if max_cost is None else Decimal(max_cost)
    plan = {"folder": f"/home/x/runs/{RUN}"}
    return RunRow(RUN, "demo", "lambda", begun, end, end, 60, 3, budget, Decimal(3), plan, memory, spells=spells)


def keys(run: RunRow, told: set[str] | None = None, now: datetime = NOW) -> list[str]:
    return [notice.key for notice in worth_telling(run, told or set(), now, LAMBDA)]


def done(reason: Reason, **more: object) -> Memory:
    return Memory(state=State.DONE, reason=reason, evidence="GET /instances/i-1 → terminated", **more)  # type: ignore[arg-type]


# ── the end ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_end_tells_outcome_cost_results_and_on_whose_word() -> None:
    (notice,) = worth_telling(row(done(Reason.COMPLETED), hours=0.5), (), NOW, LAMBDA)
    assert (notice.event, notice.urgent) == (Event.END, False)
    assert notice.title == f"{RUN} succeeded: completed"
    for words in (
        "cost $0.00\u20130.50",
        f"/home/x/runs/{RUN}",
        "GET /instances/i-1 → terminated",
        f"gpurun receipt {RUN}",
    ):
        assert words in notice.text
    facts = notice.as_json(NOW)
    assert (facts["event"], facts["outcome"], facts["cost_usd"], facts["time"]) == (
        *("end", "succeeded", 0.5),
        "2026-11-22T12:00:00Z",
    )


@pytest.mark.parametrize("reason", list(Reason))
def test_every_end_is_told_once_and_alone(reason: Reason) -> None:
    run = row(done(reason, signatures=("lost: vanished (step 3)",), attempt=2), hours=9)
    assert keys(run) == ["end"]
    assert keys(run, {"end"}) == []


def test_a_webhook_gets_the_same_keys_whatever_is_told() -> None:
    ends = worth_telling(row(done(Reason.LOST), hours=1), (), NOW)
    money = worth_telling(row(RUNNING, hours=2), (), NOW)
    told = [one.as_json(NOW) for one in (*ends, *money, guard_says("x", "a title", "a text"))]
    assert len({tuple(sorted(one)) for one in told}) == 1
    assert told[-1]["run_id"] is None


# ── deaths ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("reason", [Reason.LOST, Reason.FAILED, Reason.HUNG, Reason.DIVERGED])
@pytest.mark.parametrize("state", [State.COLLECTING, State.TERMINATING])
def test_a_death_is_told_before_the_end(reason: Reason, state: State) -> None:
    memory = Memory(state=state, reason=reason, detail="RuntimeError: CUDA out of memory", attempt=2, entered=NOW)
    (notice,) = worth_telling(row(memory), (), NOW, LAMBDA)
    assert (notice.key, notice.event, notice.urgent) == ("death-2", Event.DEATH, True)
    assert "CUDA out of memory" in notice.text


def test_a_death_whose_signature_is_kept_already_is_told_once() -> None:
    signatures = ("lost: gone (step 1)", "lost: vanished (step 7)")
    memory = Memory(state=State.TERMINATING, reason=Reason.LOST, attempt=2, entered=NOW, signatures=signatures)
    assert keys(row(memory)) == ["death-1", "death-2"]


@pytest.mark.parametrize("reason", [Reason.COMPLETED, Reason.STOPPED, Reason.DEADLINE, Reason.BUDGET])
def test_what_ends_as_it_should_has_not_died(reason: Reason) -> None:
    assert keys(row(Memory(state=State.COLLECTING, reason=reason, entered=NOW))) == []


def test_an_attempt_that_died_while_nobody_looked_is_told_when_the_next_one_runs() -> None:
    signatures = ("provider: never came up (step 0)", "lost: vanished (step 7)")
    run = row(replace(RUNNING, attempt=3, signatures=signatures))
    (notice,) = worth_telling(run, (), NOW)
    assert (notice.key, "vanished" in notice.text) == ("death-2", True)
    assert keys(run, {"death-2"}) == []


# ── the budget ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("hours", "told", "expected"),
    [
        (0.9, set(), []),
        (1.0, set(), ["budget-50-of-2"]),
        (1.0, {"budget-50-of-2"}, []),
        (1.6, {"budget-50-of-2"}, ["budget-80-of-2"]),
        (2.5, {"budget-80-of-2"}, ["budget-100-of-2"]),
        (2.5, set(), ["budget-100-of-2"]),  # in one jump: the lower ones say nothing any more
        (1.7, {"budget-100-of-2"}, []),  # an interval that was narrowed
        (1.0, {"budget-100-of-1"}, ["budget-50-of-2"]),  # it was extended: another budget
    ],
)
def test_each_share_of_the_budget_is_told_once(hours: float, told: set[str], expected: list[str]) -> None:
    assert keys(row(RUNNING, hours=hours, max_cost="2"), told) == expected


def test_without_a_budget_the_worst_case_that_was_quoted_stands_for_it() -> None:
    (notice,) = worth_telling(row(RUNNING, hours=1.5), (), NOW)
    assert notice.key == "budget-50-of-3"
    assert "of $3.00, the worst case that was quoted" in notice.text
    assert f"gpurun stop {RUN}" in notice.text


def test_what_costs_nothing_has_no_budget_to_tell_of() -> None:
    assert keys(replace(row(RUNNING, hours=5, price="0"), worst=Decimal(0))) == []


# ── an end that is not proven ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (200, []),  # an end takes Lambda so long, and its list lags
        (241, ["unproven-1-0"]),
        (241 + 3598, ["unproven-1-0"]),
        (241 + 3600, ["unproven-1-1"]),
        (241 + 5 * 3600, ["unproven-1-5"]),  # a laptop that slept tells once, not five times
    ],
)
def test_an_unproven_end_is_told_after_its_vendors_time_and_once_an_hour(seconds: int, expected: list[str]) -> None:
    memory = Memory(state=State.TERMINATING, reason=Reason.COMPLETED, entered=NOW, allocation_id="i-1")
    now = NOW + timedelta(seconds=seconds)
    assert keys(row(memory), now=now) == expected
    assert keys(row(memory), set(expected), now) == []


def test_an_unproven_end_names_what_may_bill_and_where_to_look() -> None:
    memory = Memory(state=State.TERMINATING, reason=Reason.COMPLETED, entered=NOW, allocation_id="i-1")
    (notice,) = worth_telling(row(memory), (), NOW + timedelta(hours=1), LAMBDA)
    assert (notice.title, notice.urgent) == (f"{RUN} MAY STILL BILL", True)
    assert "lambda i-1" in notice.text
    assert "https://cloud.example/instances" in notice.text


def test_nothing_bills_while_a_store_is_asked_for_what_is_not_home() -> None:
    memory = Memory(state=State.TERMINATING, reason=Reason.COMPLETED, entered=NOW, freed=NOW + timedelta(seconds=200))
    assert keys(row(memory), now=NOW + timedelta(seconds=400)) == []


def test_the_vendors_clock_tells_how_long_an_end_takes() -> None:
    memory = Memory(state=State.TERMINATING, reason=Reason.COMPLETED, entered=NOW + timedelta(hours=3))
    ahead = replace(row(memory), skew=3 * 3600.0)
    assert keys(ahead, now=NOW + timedelta(seconds=200)) == []
    assert keys(ahead, now=NOW + timedelta(seconds=300)) == ["unproven-1-0"]


# ── a guard ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_silent_guard_is_told_once_a_silence() -> None:
    pulse = NOW.timestamp() - SILENT_SECONDS
    notice = guard_is_silent(pulse, NOW)
    assert notice is not None
    later = guard_is_silent(pulse, NOW + timedelta(hours=1))
    assert later is not None
    assert notice.key == later.key
    assert guard_is_silent(pulse + 1, NOW) is None
    assert guard_is_silent(None, NOW) is None


def test_hostile_text_reaches_nobodys_screen_and_no_pipe_overflows() -> None:
    memory = Memory(state=State.COLLECTING, reason=Reason.FAILED, detail="\x1b[2J\u202e" + "x" * 10_000, entered=NOW)
    (notice,) = worth_telling(row(memory), (), NOW)
    assert len(notice.text) <= 900
    assert "\x1b" not in notice.text + guard_says("k", "\x1b]0;t\x07title", "text").title


# ── told once, whatever restarts ─────────────────────────────────────────────────────────────────────────────────────


def line(kind: str, text: str, age: float) -> Line:
    return Line(NOW.timestamp() - age, 1, "controller", "notify", kind, text)


@pytest.mark.parametrize(
    ("events", "told"),
    [
        ([], set()),
        ([line("intent", "end demo succeeded", 10)], {"end"}),  # its sender is on the way
        ([line("intent", "end demo succeeded", 600)], set()),  # cut off: told again
        ([line("intent", "end x", 900), line("intent", "end x", 600)], {"end"}),  # and not a third time
        ([line("intent", "end x", 900), line("done", "end ntfy", 890)], {"end"}),
        ([line("intent", "end x", 900), line("failed", "end ntfy: answered 500", 890)], {"end"}),
        ([Line(NOW.timestamp(), 1, "cli", "stop", "note", "end of it")], set()),
    ],
)
def test_what_was_told_is_read_from_the_ledger(events: list[Line], told: set[str]) -> None:
    assert told_of(events, NOW) == told


# ── a guard elsewhere ────────────────────────────────────────────────────────────────────────────────────────────────


def guarded(proof: str, minutes: float, *, planned: bool = True, place: str = "elsewhere") -> RunRow:
    """A run whose guard at box was last proven so many minutes before NOW."""
    last = (NOW - timedelta(minutes=minutes)).isoformat()
    box = {"name": "the guard at box", "place": place, "evidence": "no answer over ssh in 10 s"}
    run = row(Memory(state=State.RUNNING), hours=0.1)
    plan = {**run.plan, "holders": [{**box, "proof": "proven", "proven_at": last}] if planned else []}
    read = {**box, "proof": proof, "proven_at": None if planned else last}
    return replace(run, plan=plan, holders=(read,))


@pytest.mark.parametrize("planned", [True, False])
def test_a_guard_elsewhere_that_falls_silent_is_told_once_with_its_reason(*, planned: bool) -> None:
    run = guarded("absent", 6, planned=planned)
    (notice,) = worth_telling(run, (), NOW, LAMBDA)
    assert (notice.event, notice.urgent, notice.title) == (Event.GUARD, True, f"{RUN}: the guard at box is silent")
    assert "no answer over ssh in 10 s" in notice.text
    assert " " not in notice.key
    assert keys(run, {notice.key}) == []


NO_SILENCE = {"soon": guarded("absent", 4), "well": guarded("proven", 6), "here": guarded("absent", 6, place="here")}


@pytest.mark.parametrize("run", NO_SILENCE.values(), ids=NO_SILENCE)
def test_one_missed_answer_is_no_silence(run: RunRow) -> None:
    assert keys(run) == []
