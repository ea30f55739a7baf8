"""The ledger: two processes at once, a fenced lease, an append-only history, damage told."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from orchestrator.cost import Spell
from orchestrator.facts import Memory
from orchestrator.ledger import LEASE_SECONDS, Ledger
from orchestrator.records import RunRow
from orchestrator.words import Reason, State
from providers.base import Mark, Observation, Offer, Phase
from providers.errors import GpurunError, LeaseLostError, LedgerError, RefusedError, UsageError

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
RUN = "demo-261122-abcdef"
BILLS = Observation(Phase.RUNNING, billing=True, evidence="GET m-1 → active", price=Decimal(7200))
GONE = Observation(Phase.ABSENT, billing=False, evidence="GET m-1 → 404")


def at(seconds: int) -> datetime:
    return NOW + timedelta(seconds=seconds)


def row(run_id: str = RUN, worst: str = "1.50") -> RunRow:
    stamp = NOW.timestamp()
    return RunRow(run_id, "demo", "fake", stamp, stamp + 3600, stamp + 7200, 60, 3, None, Decimal(worst), {}, Memory())


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger.sqlite")


def nobody(_holder: str) -> bool:
    return False


def anybody(_holder: str) -> bool:
    return True


def test_memory_comes_back_as_it_was_saved(ledger: Ledger) -> None:
    ledger.admit(row(), NOW)
    lease = ledger.acquire(RUN, "a", NOW, nobody)
    assert lease is not None
    memory = Memory(
        state=State.RUNNING,
        attempt=2,
        entered=NOW,
        reason=Reason.LOST,
        absences=(NOW, NOW),
        extra_ids=("x",),
        signatures=("s",),
        offer=Offer("fake", "gpu_1x_a10", "a10", 1, Decimal("1.20"), seen_at=NOW),
        refused=("gpu_8x_a10",),
        retry_at=NOW,
        waiting_since=NOW,
    )
    ledger.save(lease, memory, NOW)
    assert ledger.run(RUN).memory == memory


def test_a_live_holder_keeps_its_lease_and_a_dead_one_loses_it_at_once(ledger: Ledger) -> None:
    ledger.admit(row(), NOW)
    assert ledger.acquire(RUN, "a", NOW, anybody) is not None
    assert ledger.acquire(RUN, "b", NOW, anybody) is None
    assert ledger.acquire(RUN, "b", NOW, nobody) is not None


def test_a_lease_that_ran_out_may_be_taken_from_a_sleeper(ledger: Ledger) -> None:
    ledger.admit(row(), NOW)
    sleeper = ledger.acquire(RUN, "a", NOW, anybody)
    later = NOW + timedelta(seconds=LEASE_SECONDS + 1)
    assert ledger.acquire(RUN, "b", later, anybody) is not None
    assert sleeper is not None
    with pytest.raises(LeaseLostError):
        ledger.save(sleeper, Memory(), later)


def test_a_stale_lease_can_begin_no_deed(ledger: Ledger) -> None:
    ledger.admit(row(), NOW)
    stale = ledger.acquire(RUN, "a", NOW, nobody)
    ledger.acquire(RUN, "b", NOW, nobody)
    assert stale is not None
    done = []
    with pytest.raises(LeaseLostError), ledger.deed(stale, 1, "launch", "", lambda: NOW):
        done.append("launched")
    assert done == []
    assert [event.verb for event in ledger.events(RUN)] == ["admit"]


def test_a_deed_that_fails_is_written_down_with_its_error(ledger: Ledger) -> None:
    ledger.admit(row(), NOW)
    lease = ledger.acquire(RUN, "a", NOW, nobody)
    assert lease is not None
    with pytest.raises(UsageError), ledger.deed(lease, 1, "terminate", "m-1", lambda: NOW):
        raise UsageError("no such thing")
    assert [(event.verb, event.kind) for event in ledger.events(RUN)][1:] == [
        ("terminate", "intent"),
        ("terminate", "failed"),
    ]


@pytest.mark.parametrize("statement", ["DELETE FROM events", "UPDATE events SET text = 'nothing happened'"])
def test_history_can_only_grow(ledger: Ledger, statement: str) -> None:
    ledger.admit(row(), NOW)
    with pytest.raises(sqlite3.IntegrityError):
        ledger._db.execute(statement)


def test_the_cap_counts_the_worst_case_of_open_runs_and_what_was_spent_this_month(ledger: Ledger) -> None:
    ledger.admit(row("a-261122-aaaaaa", "6"), NOW, monthly_cap=Decimal(10))
    with pytest.raises(RefusedError, match="monthly cap"):
        ledger.admit(row("b-261122-bbbbbb", "5"), NOW, monthly_cap=Decimal(10))
    ledger.admit(row("b-261122-bbbbbb", "4"), NOW, monthly_cap=Decimal(10))


def race(function: str, path: Path, count: int) -> list[str]:
    """Run a function of this module in so many processes at once; gives what each printed."""
    here = Path(__file__).resolve()
    code = f"import sys, test_ledger as t; print(t.{function}(t.Path(sys.argv[1]), int(sys.argv[2])))"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [here.parent, here.parents[1], here.parents[2]]))}
    argv = [sys.executable, "-c", code, str(path)]
    racers = [subprocess.Popen([*argv, str(n)], env=env, stdout=subprocess.PIPE, text=True) for n in range(count)]
    said = [racer.communicate(timeout=60)[0].strip() for racer in racers]
    assert [racer.returncode for racer in racers] == [0] * count
    return said


def try_to_admit(path: Path, number: int) -> str:
    try:
        Ledger(path).admit(row(f"r{number}-261122-abcdef", "6"), NOW, monthly_cap=Decimal(10))
    except RefusedError:
        return "refused"
    return "admitted"


def test_of_launches_that_race_under_one_cap_exactly_one_is_admitted(tmp_path: Path) -> None:
    assert sorted(race("try_to_admit", tmp_path / "ledger.sqlite", 4)) == ["admitted", *["refused"] * 3]


def open_many(path: Path, _number: int) -> list[str]:
    start = float(path.read_text())
    homes = []
    for count in range(20):
        while time.time() < start + 0.04 * count:  # all at one moment
            pass
        homes.append(Ledger(path.with_name(f"{count}.sqlite")).home_id)
    return homes


def test_a_new_ledger_opened_by_many_at_once_is_one_ledger(tmp_path: Path) -> None:
    (tmp_path / "start").write_text(str(time.time() + 0.8))
    assert len(set(race("open_many", tmp_path / "start", 4))) == 1


def take_turns(path: Path, number: int) -> str:
    ledger = Ledger(path)
    for turn in range(20):
        ledger.note(RUN, number, "test", "note", "note", str(turn), NOW)
    return "done"


def test_writers_at_once_lose_no_event_and_damage_nothing(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    Ledger(path).admit(row(), NOW)
    race("take_turns", path, 3)
    ledger = Ledger(path)
    ledger.check()
    assert len(ledger.events(RUN)) == 61


def test_money_is_an_interval_until_an_end_was_read(ledger: Ledger) -> None:
    ledger.admit(row(), NOW)
    mark = Mark("abcd", RUN, 1, NOW)
    start = NOW.timestamp()
    ledger.open_allocation(
        "m-1", mark, Spell(Decimal(3600), 1, start, start + 2, None, None), provider="fake", account="a"
    )
    ledger.saw_billing("fake", "m-1", NOW + timedelta(seconds=2), BILLS)
    ledger.saw_billing("fake", "m-1", NOW + timedelta(seconds=10), BILLS)
    interval = ledger.run(RUN).accrued(start + 60)
    assert (interval.low, interval.high) == (Decimal(16), Decimal(120))
    ledger.saw_free("fake", "m-1", NOW + timedelta(seconds=12), GONE)
    assert ledger.run(RUN).accrued(start + 9999).high == Decimal(24)


@pytest.fixture
def metered(ledger: Ledger) -> Ledger:
    """A run with one allocation at $1 a second, asked for at 0 and given at 2."""
    ledger.admit(row(), NOW)
    spell = Spell(Decimal(3600), 1, NOW.timestamp(), NOW.timestamp() + 2, None, None)
    ledger.open_allocation("m-1", Mark("abcd", RUN, 1, NOW), spell, provider="fake", account="a")
    return ledger


def dollars(ledger: Ledger, seconds: int) -> tuple[Decimal, Decimal]:
    interval = ledger.run(RUN).accrued(NOW.timestamp() + seconds)
    return interval.low, interval.high


def test_an_end_under_way_dates_the_end_once_it_is_proven(metered: Ledger) -> None:
    one = replace(BILLS, price=Decimal(3600))
    metered.saw_billing("fake", "m-1", at(2), one)
    metered.saw_billing("fake", "m-1", at(10), one)
    metered.saw_billing("fake", "m-1", at(12), replace(one, ending=True))
    metered.saw_billing("fake", "m-1", at(40), replace(one, ending=True))
    assert dollars(metered, 50) == (8, 50)  # not proven yet: it may bill on
    metered.saw_free("fake", "m-1", at(70), GONE)
    assert dollars(metered, 99) == (8, 12)


def test_an_end_that_was_taken_and_not_carried_out_is_none(metered: Ledger) -> None:
    one = replace(BILLS, price=Decimal(3600))
    metered.saw_billing("fake", "m-1", at(2), one)
    metered.saw_billing("fake", "m-1", at(12), replace(one, ending=True))
    metered.saw_billing("fake", "m-1", at(40), one)
    metered.saw_billing("fake", "m-1", at(50), replace(one, ending=True))
    metered.saw_free("fake", "m-1", at(70), GONE)
    assert dollars(metered, 99) == (38, 50)


def test_the_vendor_s_own_begin_and_end_are_believed(metered: Ledger) -> None:
    metered.saw_billing("fake", "m-1", at(30), replace(BILLS, price=Decimal(3600), billed_from=at(20)))
    metered.saw_free("fake", "m-1", at(70), replace(GONE, billed_until=at(31)))
    assert dollars(metered, 99) == (11, 11)


def test_a_record_that_is_only_so_exact_leaves_the_interval_that_wide(metered: Ledger) -> None:
    told = replace(BILLS, price=Decimal(3600), billed_from=at(20), billed_within=1.0)
    metered.saw_billing("fake", "m-1", at(30), told)
    metered.saw_free("fake", "m-1", at(70), replace(GONE, billed_until=at(31), billed_within=3.0))
    assert dollars(metered, 99) == (10, 14)


def test_what_was_over_when_it_was_found_costs_what_the_vendor_s_record_says(metered: Ledger) -> None:
    over = replace(GONE, price=Decimal(7200), billed_from=at(20), billed_until=at(31))
    metered.saw_free("fake", "m-1", at(70), over)
    assert dollars(metered, 99) == (22, 22)


def test_what_was_seen_to_bill_keeps_the_price_at_which_it_did(metered: Ledger) -> None:
    metered.saw_billing("fake", "m-1", at(30), replace(BILLS, price=Decimal(3600), billed_from=at(20)))
    metered.saw_free("fake", "m-1", at(70), replace(GONE, price=Decimal(7200), billed_until=at(31)))
    assert dollars(metered, 99) == (11, 11)


def test_a_read_may_be_as_old_as_the_vendors_list_lags(metered: Ledger) -> None:
    one = replace(BILLS, price=Decimal(3600), phase=Phase.READY)
    metered.saw_billing("fake", "m-1", at(5), one, lag=3.0)
    metered.saw_billing("fake", "m-1", at(40), one, lag=3.0)
    metered.saw_free("fake", "m-1", at(50), GONE)
    assert dollars(metered, 99) == (32, 50)  # what was read at 40 may have ended at 37


def test_what_is_queued_may_bill_or_may_not(metered: Ledger) -> None:
    queued = replace(BILLS, price=Decimal(3600), phase=Phase.QUEUED)
    metered.saw_billing("fake", "m-1", at(30), queued)
    assert dollars(metered, 40) == (0, 40)
    metered.saw_billing("fake", "m-1", at(35), replace(queued, phase=Phase.READY))
    assert dollars(metered, 40) == (0, 40)  # it came up between the two reads, or just now
    metered.saw_billing("fake", "m-1", at(39), replace(queued, phase=Phase.READY))
    assert dollars(metered, 40) == (4, 40)


def test_a_machine_first_seen_long_after_its_boot_may_have_come_up_just_now(metered: Ledger) -> None:
    up = replace(BILLS, price=Decimal(3600), phase=Phase.READY)
    metered.saw_billing("fake", "m-1", at(600), up)
    metered.saw_billing("fake", "m-1", at(610), up)
    assert dollars(metered, 620) == (10, 620)


def test_a_machine_that_never_passed_the_vendors_check_may_have_cost_nothing(metered: Ledger) -> None:
    sick = replace(BILLS, price=Decimal(3600), phase=Phase.READY, failure="unhealthy")
    metered.saw_billing("fake", "m-1", at(30), sick)
    metered.saw_billing("fake", "m-1", at(40), sick)
    metered.saw_free("fake", "m-1", at(50), GONE)
    assert dollars(metered, 99) == (0, 50)


def test_money_goes_by_the_vendor_s_clock(metered: Ledger) -> None:
    lease = metered.acquire(RUN, "h:1:1", NOW, lambda _holder: True)
    assert lease is not None
    metered.save(lease, Memory(), NOW, skew=3600.0)
    assert dollars(metered, 10)[1] == 3610


def test_limits_move_by_the_time_for_which_nothing_could_be_rented(metered: Ledger) -> None:
    lease, before = metered.acquire(RUN, "h:1:1", NOW, lambda _holder: True), metered.run(RUN)
    assert lease is not None
    metered.save(lease, Memory(), NOW, late=90)
    after = metered.run(RUN)
    assert (after.deadline - before.deadline, after.ceiling - before.ceiling) == (90, 90)


@pytest.mark.parametrize("damage", [b"not a database at all, but long enough to be one" * 30, b""])
def test_a_damaged_ledger_is_told_with_the_next_step(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "ledger.sqlite"
    ledger = Ledger(path)
    ledger.admit(row(), NOW)
    ledger.close()
    whole = path.read_bytes()
    path.write_bytes(damage or whole[: len(whole) // 2])
    with pytest.raises(LedgerError) as caught:
        Ledger(path).check()
    assert "ledger.sqlite" in str(caught.value)
    assert "gpurun sweep" in caught.value.hint


def test_an_empty_ledger_is_refused_and_gives_its_home_no_new_identity(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    path.touch()
    for _ in range(2):
        with pytest.raises(LedgerError, match="it is empty") as caught:
            Ledger(path)
    assert caught.value.hint == f"move it away, then see what still runs: mv {path} {path}.damaged && gpurun sweep"
    assert (path.stat().st_size, [one.name for one in tmp_path.iterdir()]) == (0, [path.name])


def test_a_new_ledger_appears_whole_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    Ledger(path).close()
    assert [one.name for one in tmp_path.iterdir()] == [path.name]
    assert Ledger(path).home_id == Ledger(path).home_id


def test_a_ledger_that_is_damaged_under_an_open_connection_is_told_as_damaged(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    ledger = Ledger(path)
    ledger.admit(row(), NOW)
    ledger._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    ledger._db.execute("PRAGMA shrink_memory")
    path.write_bytes(b"\xde\xad" * (path.stat().st_size // 2))
    with pytest.raises(LedgerError):
        ledger.run(RUN)
    with pytest.raises(LedgerError):
        ledger.check()


@pytest.mark.parametrize(
    ("fault", "words"), [("PRAGMA max_page_count = 1", "free some space"), ("PRAGMA query_only = ON", "yours to write")]
)
def test_a_ledger_that_only_can_not_be_written_is_not_to_be_moved_away(tmp_path: Path, fault: str, words: str) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    ledger._db.execute(fault)
    with pytest.raises(LedgerError) as caught:
        ledger.admit(replace(row(), plan={"much": "x" * 100_000}), NOW)
    assert words in caught.value.hint
    assert "mv" not in caught.value.hint


def test_a_ledger_of_a_newer_gpurun_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    Ledger(path).close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(LedgerError, match="newer"):
        Ledger(path)


def test_an_unknown_run_is_a_usage_error_that_names_the_command(ledger: Ledger) -> None:
    with pytest.raises(GpurunError) as caught:
        ledger.run("nothing")
    assert "gpurun ps" in caught.value.hint


def test_a_stop_is_seen_by_whoever_holds_the_run_and_is_not_overwritten(ledger: Ledger) -> None:
    ledger.admit(row(), NOW)
    lease = ledger.acquire(RUN, "a", NOW, nobody)
    memory = ledger.run(RUN).memory
    ledger.request_stop(RUN, NOW)
    assert lease is not None
    ledger.save(lease, replace(memory, state=State.RUNNING), NOW)
    assert ledger.run(RUN).memory.stop_requested
