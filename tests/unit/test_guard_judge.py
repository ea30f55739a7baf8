"""The guard's judgement as a table: whose, since when, and by which clock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from orchestrator.guard import Kind, Known, judge
from providers.base import Allocation, Mark

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
OURS, THEIRS, ACCOUNT = "0aaa", "0bbb", "acct-1"
RUN, ENDED, ELSEWHERE = "live-261122-00000a", "over-261122-00000b", "away-261122-00000c"
KNOWN = Known(
    OURS,
    ended={(ENDED, 1), (ENDED, 2), (RUN, 1), (ELSEWHERE, 1)},
    live={(RUN, 2)},
    accounts={RUN: ACCOUNT, ENDED: ACCOUNT, ELSEWHERE: "acct-2"},
)
NO_LEDGER = Known()


def kind_of(
    home: str, run: str, attempt: int, seconds: float, *, skew: float = 0.0, known: Known = KNOWN, billing: bool = True
) -> Kind | None:
    """Judge one allocation whose ceiling is so many seconds ahead."""
    mark = Mark(home, run, attempt, NOW + timedelta(seconds=seconds))
    listed = [Allocation("i-1", mark, str(mark), billing=billing)]
    verdicts = judge(listed, NOW, timedelta(seconds=skew), known, ACCOUNT)
    return verdicts[0].kind if verdicts else None


@pytest.mark.parametrize(
    ("home", "run", "attempt", "seconds", "kind"),
    [
        (THEIRS, RUN, 1, 1, Kind.LIVE),
        (THEIRS, RUN, 1, 0, Kind.OVERDUE),
        (THEIRS, ENDED, 1, 1, Kind.LIVE),  # our ledger says nothing about another home's runs, whatever their names
        (OURS, RUN, 2, 1, Kind.LIVE),
        (OURS, RUN, 2, 0, Kind.OVERDUE),
        (OURS, RUN, 1, 1, Kind.ORPHAN),
        (OURS, ENDED, 2, 1, Kind.ORPHAN),
        (OURS, ENDED, 2, -1, Kind.OVERDUE),
        (OURS, RUN, 3, 1, Kind.UNKNOWN),  # a ledger that was restored from a backup
        (OURS, "new-261122-00000d", 1, 1, Kind.UNKNOWN),
        (OURS, "new-261122-00000d", 1, 0, Kind.OVERDUE),
        (OURS, ELSEWHERE, 1, 1, Kind.UNKNOWN),  # what ended on another account says nothing about this one
        (OURS, ELSEWHERE, 1, 0, Kind.OVERDUE),
    ],
)
def test_each_mark_is_judged_by_its_home_its_attempt_and_its_ceiling(
    home: str, run: str, attempt: int, seconds: float, kind: Kind
) -> None:
    assert kind_of(home, run, attempt, seconds) is kind


@pytest.mark.parametrize(("seconds", "kind"), [(1, Kind.LIVE), (0, Kind.OVERDUE)])
@pytest.mark.parametrize("home", [OURS, THEIRS])
def test_without_a_ledger_the_mark_alone_counts(home: str, seconds: float, kind: Kind) -> None:
    assert kind_of(home, ENDED, 1, seconds, known=NO_LEDGER) is kind


@pytest.mark.parametrize("skew", [-600, 600])
def test_where_clocks_differ_anothers_is_killed_late_and_ours_early(skew: float) -> None:
    assert kind_of(THEIRS, RUN, 2, 300, skew=skew) is Kind.LIVE
    assert kind_of(THEIRS, RUN, 2, -300, skew=skew) is (Kind.LIVE if skew < 0 else Kind.OVERDUE)
    assert kind_of(OURS, RUN, 2, -300, skew=skew) is Kind.OVERDUE
    assert kind_of(OURS, RUN, 2, 300, skew=skew) is (Kind.OVERDUE if skew > 0 else Kind.LIVE)


@pytest.mark.parametrize("name", ["", "my box", "gpurun", "gpurun-0aaa-live-261122-00000a-2", "GPURUN-0AAA"])
def test_what_carries_no_whole_mark_is_foreign_and_never_ended(name: str) -> None:
    (verdict,) = judge([Allocation("i-1", Mark.parse(name), name, billing=True)], NOW, timedelta(0), KNOWN, ACCOUNT)
    assert (verdict.kind, verdict.to_end, verdict.ours) == (Kind.FOREIGN, False, False)


def test_what_has_ended_is_not_judged() -> None:
    assert kind_of(THEIRS, RUN, 1, -1, billing=False) is None


def test_only_what_is_overdue_or_orphaned_is_ended() -> None:
    marks = [(THEIRS, RUN, 1, -1), (THEIRS, RUN, 2, 1), (OURS, RUN, 1, 1), (OURS, RUN, 2, 1), (OURS, RUN, 3, 1)]
    listed = [
        Allocation(str(number), Mark(home, run, attempt, NOW + timedelta(hours=hours)), "", billing=True)
        for number, (home, run, attempt, hours) in enumerate(marks)
    ]
    verdicts = judge([*listed, Allocation("x", None, "my box", billing=True)], NOW, timedelta(0), KNOWN, ACCOUNT)
    assert [one.allocation.id for one in verdicts if one.to_end] == ["0", "2"]
    assert [one.ours for one in verdicts] == [False, False, True, True, True, False]
