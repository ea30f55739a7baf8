"""The guard's judgement as a table: whose, since when, by which clock; and what it takes for a proof."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from orchestrator.guard import Kind, Known, Owed, Post, judge, patrol
from providers.base import Allocation, Mark, Traits
from providers.errors import ProviderError

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


# ── what is believed: one post, lists as they are told ───────────────────────────────────────────────────────────────


class Vendor:
    """Answers with lists that were written beforehand, the last one for ever."""

    name = "scripted"
    skew = timedelta(0)
    traits = Traits(60.0, 300.0, 120.0, 5.0, 60)

    def __init__(self, *lists: list[Allocation] | ProviderError) -> None:
        self._lists = list(lists)
        self.key = ACCOUNT
        self.orders: list[list[str]] = []

    def account(self) -> str:
        return self.key

    def allocations(self) -> list[Allocation]:
        told = self._lists.pop(0) if len(self._lists) > 1 else self._lists[0]
        if isinstance(told, ProviderError):
            raise told
        return told

    def terminate(self, ids: list[str]) -> None:
        self.orders.append(ids)


class Hands:
    """A post at such a vendor, and a clock that is moved by hand."""

    def __init__(
        self, *lists: list[Allocation] | ProviderError, owed: tuple[Owed, ...] = (), known: Known = NO_LEDGER
    ) -> None:
        self.vendor, self.now = Vendor(*lists), NOW
        self.post = Post(self.vendor, known, lambda: self.now, owed=owed)  # type: ignore[arg-type]

    def after(self, seconds: float) -> list[str]:
        """Wait, make a round; gives the ids that are proven gone so far."""
        self.now += timedelta(seconds=seconds)
        self.post.round()
        return [one.id for one in self.post.ended]


def late(**more: bool) -> Allocation:
    return Allocation("i-1", Mark(THEIRS, RUN, 1, NOW - timedelta(seconds=1)), "", **{"billing": True, **more})


def test_nothing_is_proven_by_fewer_than_three_reads_that_lack_it() -> None:
    hands = Hands([late()], [])
    assert [hands.after(seconds) for seconds in (0, 1, 300)] == [[], [], []]
    assert hands.after(1) == ["i-1"]


def test_nothing_is_proven_by_reads_within_the_lists_lag() -> None:
    hands = Hands([late()], [])
    assert [hands.after(seconds) for seconds in (0, 1, 20, 20, 19)] == [[], [], [], [], []]
    assert hands.after(1) == ["i-1"]


def test_one_read_that_shows_it_again_begins_the_proof_anew() -> None:
    hands = Hands([late()], [], [], [late()], [])
    assert [hands.after(60) for _ in range(6)] == [[], [], [], [], [], []]
    assert hands.after(60) == ["i-1"]


def test_the_vendors_own_word_is_proof_at_once_and_an_accepted_order_is_none() -> None:
    hands = Hands([late()], [late(ending=True)], [late(ending=True)], [late(billing=False)])
    assert [hands.after(30) for _ in range(3)] == [[], [], []]
    assert hands.after(30) == ["i-1"]
    assert "calls it ended" in hands.post.ended[0].evidence


def test_a_read_that_failed_proves_nothing() -> None:
    hands = Hands([late()], *[ProviderError("no answer")] * 5, [])
    assert [hands.after(60) for _ in range(6)] == [[]] * 6
    assert hands.post.may_bill
    assert [hands.after(60) for _ in range(3)] == [[], [], ["i-1"]]
    assert not hands.post.may_bill


def test_another_accounts_lists_prove_nothing() -> None:
    hands = Hands([], owed=(Owed("i-1", "acct-2", "name", Kind.OVERDUE, told=1.0),))
    assert [hands.after(60) for _ in range(5)] == [[]] * 5
    assert hands.post.may_bill
    hands.vendor.key = "acct-2"
    assert [hands.after(60) for _ in range(3)] == [[], [], ["i-1"]]


def test_an_order_is_given_again_when_it_is_not_heard_and_later_when_it_is_not_carried_out() -> None:
    hands = Hands([late()])
    for _ in range(13):
        hands.after(5)
    assert len(hands.vendor.orders) == 3  # a list that lags shows it for half a minute
    hands = Hands([late()], [late(ending=True)])
    for _ in range(13):
        hands.after(30)
    assert len(hands.vendor.orders) == 3


def test_what_was_given_a_later_end_meanwhile_is_left_alone() -> None:
    moved = Allocation("i-1", Mark(THEIRS, RUN, 1, NOW + timedelta(hours=1)), "", billing=True)
    hands = Hands([late()], [moved])
    hands.after(0)
    hands.after(60)
    assert not hands.post.may_bill
    assert len(hands.vendor.orders) == 1


def test_an_orphan_that_was_told_to_end_stays_owed_though_the_ledger_can_not_be_read_any_more() -> None:
    orphan = Allocation("i-1", Mark(OURS, RUN, 1, NOW + timedelta(hours=1)), "", billing=True)
    owed = Owed("i-1", ACCOUNT, "name", Kind.ORPHAN, told=NOW.timestamp())
    hands = Hands([orphan], owed=(owed,))
    hands.after(60)
    assert hands.post.may_bill
    assert hands.post.notes == []
    alive = Known(OURS, live={(RUN, 1)}, accounts={RUN: ACCOUNT})
    hands = Hands([orphan], owed=(owed,), known=alive)
    hands.after(60)
    assert not hands.post.may_bill


def test_an_outage_at_one_vendor_costs_the_other_no_round() -> None:
    down, well = Hands(ProviderError("no answer"), owed=(Owed("i-9", "", "", Kind.OVERDUE),)), Hands([late()], [])
    paused = []

    def pause(seconds: float) -> None:
        paused.append(seconds)
        down.now = well.now = well.now + timedelta(seconds=seconds)
        assert len(well.vendor.orders) == 1

    patrol([down.post, well.post], pause)
    assert [one.id for one in well.post.ended] == ["i-1"]
    assert sum(paused) < 600
