"""The monthly cap: what of a month is spent, what open runs may come to, and one of two that race is refused."""

from __future__ import annotations

import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest

from orchestrator.caps import check_cap, committed
from orchestrator.cost import Spell
from orchestrator.facts import Memory, Wish
from orchestrator.ledger import Ledger
from orchestrator.records import RunRow
from orchestrator.words import State
from providers.base import utc
from providers.errors import RefusedError

if TYPE_CHECKING:
    from pathlib import Path

MONTH = datetime(2026, 12, 1, tzinfo=UTC)
BEGIN = MONTH.timestamp()
HOUR = 3600.0


def row(run_id: str, worst: str = "5.00", *, spell: tuple[float, float] | None = None, done: bool = False) -> RunRow:
    """A run at $1.00/h that billed from one hour of the month to another."""
    spells = (
        () if spell is None else (Spell(Decimal(1), 60, *[BEGIN + spell[0] * HOUR] * 2, None, BEGIN + spell[1] * HOUR),)
    )
    return RunRow(
        run_id=run_id, template="demo", provider="fake", created=BEGIN, deadline=BEGIN + HOUR, ceiling=BEGIN + HOUR,
        grace_seconds=60, max_attempts=1, max_cost=None, worst=Decimal(worst), plan={},
        memory=Memory(state=State.DONE if done else State.RUNNING), spells=spells,
    )  # fmt: skip


def test_a_run_counts_in_a_month_with_what_it_billed_there() -> None:
    over = [
        row("before", spell=(-9, -1), done=True),
        row("across", spell=(-2, 3), done=True),
        row("within", spell=(1, 2), done=True),
        row("never", done=True),
    ]
    assert committed(over, MONTH + timedelta(hours=5)) == (Decimal(4), Decimal(0))


def test_an_open_run_is_reserved_with_its_worst_case_or_what_it_cost_already() -> None:
    open_ = row("open", "1.00")
    long = replace(open_, spells=(Spell(Decimal(1), 60, BEGIN, BEGIN, BEGIN, None),))
    assert committed([open_], MONTH) == (Decimal(0), Decimal(1))
    assert committed([long], MONTH + timedelta(hours=4)) == (Decimal(0), Decimal(4))


def test_an_extension_is_reserved_from_the_moment_it_is_asked_for_until_it_is_refused() -> None:
    wish = Wish(1, utc(BEGIN + 2 * HOUR), utc(BEGIN + 2 * HOUR), Decimal(8))
    asked = replace(row("open"), wish=wish)
    assert committed([asked], MONTH)[1] == Decimal(8)
    refused = replace(asked, memory=replace(asked.memory, answered=1))
    assert committed([refused], MONTH)[1] == Decimal(5)


def test_a_month_is_one_of_utc_whatever_the_clock_on_the_wall() -> None:
    over = [row("yesterday", spell=(-2, -1), done=True)]
    tokyo = (MONTH - timedelta(minutes=5)).astimezone(timezone(timedelta(hours=9)))
    assert tokyo.month == 12
    assert committed(over, tokyo)[0] == Decimal(1)
    assert committed(over, MONTH)[0] == Decimal(0)


def test_the_refusal_says_what_is_spent_and_reserved_and_whose_ledger_that_is() -> None:
    rows = [row("over", spell=(1, 2), done=True), row("open")]
    check_cap(rows, "new", Decimal(4), MONTH + timedelta(hours=5), Decimal(10))
    with pytest.raises(RefusedError) as caught:
        check_cap(rows, "new", Decimal("4.01"), MONTH + timedelta(hours=5), Decimal(10))
    for words in ("$1.00 spent", "$5.00 reserved", "this home's ledger only"):
        assert words in str(caught.value)


RACER = """
import sys
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from orchestrator.facts import Memory
from orchestrator.ledger import Ledger
from orchestrator.records import RunRow
from providers.errors import RefusedError

ledger, now = Ledger(Path(sys.argv[1])), datetime.now(UTC)
row = RunRow("", "demo", "fake", now.timestamp(), 2e9, 2e9, 60, 1, None, Decimal(1), {}, Memory())
print("ready", flush=True)
sys.stdin.readline()
for number in range(8):
    try:
        ledger.admit(replace(row, run_id=f"{sys.argv[2]}-{number}"), now, monthly_cap=Decimal(9))
    except RefusedError:
        print("refused")
    else:
        print("admitted")
ledger.close()
"""


def test_of_launches_that_race_under_one_cap_no_more_are_admitted_than_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    Ledger(path).close()
    argv = [sys.executable, "-c", RACER, str(path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([*argv, "a"], **pipes) as one, subprocess.Popen([*argv, "b"], **pipes) as other:
        for racer in (one, other):
            assert racer.stdout is not None
            assert racer.stdout.readline() == "ready\n"
        for racer in (one, other):
            assert racer.stdin is not None
            racer.stdin.write("go\n")
            racer.stdin.flush()
        told = [racer.communicate(timeout=60)[0].split() for racer in (one, other)]
    assert [len(lines) for lines in told] == [8, 8]
    assert sum(lines.count("admitted") for lines in told) == 9
    with closing(Ledger(path)) as ledger:
        assert len(ledger.runs()) == 9
