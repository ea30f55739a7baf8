"""What was paid: at the price of then, in the month in which it billed, as an interval where nobody saw the end."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from fakes import Clock, FakeCloud
from hypothesis import given
from hypothesis import strategies as some
from ledgers import NOW, past, two_months
from past import output

from orchestrator import accounts, bills, cost
from orchestrator.accounts import Answer, Whose
from orchestrator.cli import costs as commands
from orchestrator.cost import NOTHING, Interval, Spell
from orchestrator.costs import entries, periods, plotted, total
from providers import table
from providers.base import Allocation, Mark
from providers.errors import CredentialsError, UnreachableError
from providers.optional import Bill

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from orchestrator.records import RunRow

THEN = NOW.timestamp()


@pytest.fixture(autouse=True)
def _noon(monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands are typed when the ledger's last line was written."""
    monkeypatch.setattr(commands, "time", SimpleNamespace(time=NOW.timestamp))


@pytest.fixture
def rows(fast_path: Path) -> list[RunRow]:
    made = two_months(fast_path)
    found = made.ledger.runs()
    made.ledger.close()
    return found


def dollars(interval: Interval) -> tuple[str, str]:
    return f"{interval.low:.2f}", f"{interval.high:.2f}"


# ── the ledger's side ────────────────────────────────────────────────────────────────────────────────────────────────


def test_each_run_stands_beside_its_quote_the_newest_first(rows: list[RunRow]) -> None:
    each = {one.name.partition("-")[0]: one for one in entries(rows, "run", THEN)}
    assert list(each) == ["going", "free", "asleep", "over"]
    assert dollars(each["over"].paid) == ("2.40", "2.40")
    assert dollars(each["asleep"].paid) == ("0.20", "2.40")  # from the last "billing" to the first "free"
    assert dollars(each["going"].paid) == ("0.75", "0.75")  # the price that was read back, not the one offered
    assert (each["going"].unfinished, each["going"].at_most) == (1, Decimal("3.00"))
    assert (each["over"].likely, each["asleep"].likely) == (Decimal("2.10"), None)


def test_what_is_unknown_of_one_run_is_unknown_of_their_sum(rows: list[RunRow]) -> None:
    summed = total(entries(rows, "run", THEN))
    assert (summed.runs, summed.likely, summed.worst) == (4, None, Decimal("9.00"))
    assert dollars(summed.paid) == ("3.35", "5.55")
    assert summed.at_most == Decimal("5.55") - Decimal("0.75") + Decimal("3.00")
    assert [one.name for one in entries(rows, "provider", THEN)] == ["lambda", "local"]


def test_a_bill_across_the_end_of_a_month_counts_in_both(rows: list[RunRow]) -> None:
    november, october = entries(rows, "month", THEN)
    assert (november.name, november.runs, october.name, october.runs) == ("2026-11", 3, "2026-10", 1)
    assert dollars(october.paid) == ("1.20", "1.20")
    assert dollars(november.paid) == ("2.15", "4.35")
    assert november.at_most == Decimal("4.35") - Decimal("0.75") + Decimal("3.00")


def test_a_run_past_what_it_was_quoted_promises_no_most(rows: list[RunRow]) -> None:
    each = entries(rows, "run", THEN + 86400)
    assert each[0].at_most == each[0].paid.high > each[0].worst
    text = bills.costs_table(each, "run")
    assert "running: so far, and it may go on past what was quoted" in text
    assert "at most $" not in text


def test_history_keeps_the_price_that_was_paid(rows: list[RunRow]) -> None:
    before = entries(rows, "run", THEN)
    offers = {**rows[-1].plan["offer"], "price": "99.00"}
    dearer = [replace(row, plan={**row.plan, "offer": offers}) for row in rows]
    assert entries(dearer, "run", THEN) == before


@given(
    some.integers(0, 40 * 86400),
    some.integers(0, 600),
    some.integers(0, 40 * 86400),
    some.integers(0, 90000),
    some.sampled_from([1, 60]),
    some.booleans(),
)
def test_days_and_months_add_up_to_the_bill(
    begun: int, unclear: int, lasted: int, unseen: int, step: int, ended: object
) -> None:
    start = datetime(2026, 1, 15, tzinfo=UTC).timestamp() + begun
    end = start + unclear + lasted
    seen = max(start + unclear, end - unseen)
    spell = Spell(Decimal("1.29"), step, start, start + unclear, seen, end if ended else None)
    row = replace(_blank(), spells=(spell,), ended=end if ended else None)
    whole = cost.accrued([spell], end)
    for unit in ("day", "month"):
        parts = periods([row], unit, end).values()  # type: ignore[arg-type]
        assert sum(parts, NOTHING) == whole
        assert all(part.low >= 0 and part.high >= 0 for part in parts)


def _blank() -> RunRow:
    from orchestrator.facts import Memory
    from orchestrator.records import RunRow

    return RunRow("demo-260115-aaaaaa", "demo", "lambda", 0.0, 0.0, 0.0, 1, 1, None, Decimal(0), {}, Memory())


def test_a_plot_of_more_days_than_fit_is_one_of_months(rows: list[RunRow]) -> None:
    unit, bars = plotted(rows, THEN, by_month=False)
    assert (unit, min(bars), max(bars), len(bars)) == ("day", "2026-10-31", "2026-11-22", 23)
    assert bars["2026-11-05"] == NOTHING  # a day without a bill has its line
    late = THEN + 30 * 86400
    unit, bars = plotted(rows, late, by_month=False)  # the one under way has gone on for a month
    assert (unit, list(bars)) == ("month", ["2026-10", "2026-11", "2026-12"])


def test_the_plot_fits_80_columns_without_colour_and_shows_what_is_not_witnessed(rows: list[RunRow]) -> None:
    unit, bars = plotted(rows, THEN, by_month=False)
    text = bills.plot_of(bars, unit)
    assert all(len(line) <= 80 for line in text.splitlines())
    assert "\x1b" not in text
    lines = {line[:10]: line for line in text.splitlines()}
    assert lines["2026-11-20"].count("░") > lines["2026-11-20"].count("█") > 0
    assert lines["2026-10-31"].count("░") == 0
    assert bills.plot_of({"2026-11": NOTHING}, "month") == "paid by month (UTC): nothing"


# ── what the vendors say ─────────────────────────────────────────────────────────────────────────────────────────────


class Billing(FakeCloud):
    """A vendor that tells its bills."""

    told: Sequence[Bill] = ()
    billed_late = timedelta(0)

    def billed(self, since: datetime) -> Sequence[Bill]:
        if self._fault("billed"):
            raise UnreachableError("GET /billing: no answer")
        return [one for one in self.told if one.since >= since]


def listed(name: str, mark: Mark | None, price: str | None) -> Allocation:
    at = NOW - timedelta(minutes=42)
    return Allocation(name, mark, name, billing=True, price=None if price is None else Decimal(price), since=at)


def test_what_bills_now_counts_what_gpurun_did_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    cloud = FakeCloud(Clock())
    ours = Mark("abcd", "demo-261122-aaaaaa", 1, NOW)
    found = [
        listed("i-1", ours, "1.29"),
        listed("i-2", replace(ours, home="ffff"), "2.00"),
        listed("box\x1b[2J", None, "3.29"),
    ]
    monkeypatch.setattr(cloud, "allocations", lambda: [*found, replace(found[0], billing=False)])
    account = accounts.ask(cloud, "abcd", [], (), THEN)
    assert (account.price, [whose for _, whose in account.billing]) == (Decimal("6.58"), list(Whose))
    text = bills.account_lines(account, THEN)
    assert all(len(line) <= 80 for line in text.splitlines())
    for words in ("bills $6.58/h now", "this home's, for 42 min", "another home's", "also billing here: not gpurun's"):
        assert words in text
    assert "not told by Fake" in text
    assert "\x1b" not in text


def test_a_price_that_is_not_told_is_no_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    cloud = FakeCloud(Clock())
    monkeypatch.setattr(cloud, "allocations", lambda: [listed("i-1", None, None)])
    account = accounts.ask(cloud, "abcd", [], (), THEN)
    assert account.as_json()["usd_per_hour"] is None
    assert "1 at a price that is not told" in bills.account_lines(account, THEN)


def test_a_vendor_that_can_not_be_asked_is_never_shown_as_nothing(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def opening(name: str, _home: Path) -> FakeCloud:
        if name == "local":
            raise CredentialsError("no key for it: X is not set")
        cloud = FakeCloud(Clock())
        cloud.faults["allocations"].append("unreachable")
        return cloud

    monkeypatch.setattr(table, "PROVIDERS", {"local": ("", ""), "lambda": ("", "")})
    without, broken = accounts.ask_all(home, "abcd", [], (), THEN, opening)
    assert (without.answer, broken.answer) == (Answer.NO_KEY, Answer.FAILED)
    assert "CAN'T TELL what bills there: " in bills.account_lines(broken, THEN)
    assert "not asked: no key for it" in bills.account_lines(without, THEN)
    for one in (without, broken):
        assert (one.as_json()["usd_per_hour"], one.as_json()["allocations"]) == (None, None)
        assert "$0" not in bills.account_lines(one, THEN)


@pytest.mark.parametrize(
    ("usd", "verdict"), [("2.40", "the ledger agrees"), ("2.41", "the ledger agrees"), ("3.10", "the ledger DIFFERS")]
)
def test_a_vendors_own_bill_is_held_against_the_ledger(rows: list[RunRow], usd: str, verdict: str) -> None:
    cloud, (over,) = Billing(Clock()), [row for row in rows if row.run_id.startswith("over")]
    since = datetime.fromtimestamp(over.created, UTC)
    cloud.told = [Bill(since, NOW, Decimal(usd), "i-1"), Bill(since, NOW, Decimal("7.00"), "i-2")]
    account = accounts.ask(cloud, "abcd", [over], {"i-1"}, THEN)
    assert account.charged is not None
    assert (account.charged.usd, account.charged.others) == (Decimal(usd), Decimal("7.00"))
    text = bills.account_lines(account, THEN)
    assert verdict in " ".join(text.split())
    assert "$7.00 for what is not in this ledger" in " ".join(text.split())
    assert all(len(line) <= 80 for line in text.splitlines())


@pytest.mark.parametrize(
    ("usd", "late", "words"),
    [
        ("0.00", timedelta(days=99), "not all of it is in Fake's record yet: the ledger says: $2.40"),
        ("0.00", timedelta(seconds=1), "the ledger DIFFERS: $2.40"),
        ("3.10", timedelta(days=99), "the ledger DIFFERS: $2.40"),
        ("2.40", timedelta(days=99), "the ledger agrees: $2.40"),
    ],
)
def test_what_a_slow_record_does_not_have_yet_is_no_difference(
    rows: list[RunRow], usd: str, late: timedelta, words: str
) -> None:
    cloud, (over,) = Billing(Clock()), [row for row in rows if row.run_id.startswith("over")]
    cloud.billed_late = late
    cloud.told = [Bill(datetime.fromtimestamp(over.created, UTC), NOW, Decimal(usd), "i-1")]
    text = bills.account_lines(accounts.ask(cloud, "abcd", [over], {"i-1"}, THEN), THEN)
    assert words in " ".join(text.split())
    assert all(len(line) <= 80 for line in text.splitlines())


def test_a_bill_that_can_not_be_read_is_no_zero() -> None:
    cloud = Billing(Clock())
    cloud.faults["billed"].append("x")
    account = accounts.ask(cloud, "abcd", [], (), THEN)
    assert (account.tells_bills, account.charged) == (True, None)
    assert "its own bill: CAN'T TELL: GET /billing: no answer" in bills.account_lines(account, THEN)


# ── the command ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("by", ["run", "provider", "month"])
def test_costs_fit_80_columns_and_say_whose_ledger_they_are(
    capsys: pytest.CaptureFixture[str], home: Path, by: str
) -> None:
    two_months(home).ledger.close()
    code, out, _ = output(capsys, "costs", "--by", by, "--plot")
    assert code == 0
    assert all(len(line) <= 80 for line in out.splitlines())
    words = " ".join(out.split())
    for part in ("LIKELY", "QUOTED MOST", "so far; at most $", "This home's ledger only", "exactly $0.00", "█"):
        assert part in words
    assert "lambda not asked: no key for Lambda" in words
    assert "\x1b" not in out


def test_costs_as_json_hold_the_same(capsys: pytest.CaptureFixture[str], home: Path) -> None:
    two_months(home).ledger.close()
    told = json.loads(output(capsys, "costs", "--by", "month", "--json", "--plot")[1])
    assert set(told) == {"home", "scope", "as_of", "by", "entries", "total", "plot", "accounts"}
    assert told["scope"] == "this home's ledger only"
    assert [one["month"] for one in told["entries"]] == ["2026-11", "2026-10"]
    assert (told["entries"][1]["paid_low_usd"], told["entries"][1]["paid_usd"]) == (1.2, 1.2)
    assert told["plot"][0]["month"] == "2026-10"
    by_name = {one["provider"]: one for one in told["accounts"]}
    assert (by_name["local"]["usd_per_hour"], by_name["local"]["charged"]["usd"]) == (0.0, 0.0)
    assert (by_name["lambda"]["answer"], by_name["lambda"]["usd_per_hour"]) == ("no key", None)


def test_costs_of_a_home_in_which_nothing_ran_make_none(capsys: pytest.CaptureFixture[str], home: Path) -> None:
    code, out, _ = output(capsys, "costs")
    assert (code, out.splitlines()[0]) == (0, "no runs yet: gpurun launch demo")
    assert not home.exists()
    past(home).ledger.close()
    assert output(capsys, "costs", "--plot")[0] == 0


def test_no_runs_have_no_first_launch() -> None:
    assert total([]).as_json("provider")["first"] is None
