"""Rounds of the guard at one account: when it orders again, how long it waits, what it writes down, what it says."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from orchestrator.guard import Books, Ended, Kind, Known, Owed, Post, Verdict, judge, patrol, skew_note
from providers.base import Allocation, Mark, Traits, utc
from providers.errors import CredentialsError, LedgerError, ProviderError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
ACCOUNT, RUN = "acct-1", "over-261122-00000b"
LAG, ENDING = 60.0, 180.0
PATIENCE = ENDING + 2 * LAG


def mark(seconds: float, attempt: int = 1) -> Mark:
    return Mark("0bbb", RUN, attempt, NOW + timedelta(seconds=seconds))


def row(name: str = "i-1", seconds: float = -1, **more: bool) -> Allocation:
    """Give an allocation whose ceiling is so many seconds ahead."""
    return Allocation(name, mark(seconds), "", **{"billing": True, **more})


def debt(name: str, account: str = ACCOUNT) -> Owed:
    return Owed(name, account, f"mark of {name}", Kind.OVERDUE, told=NOW.timestamp())


class Vendor:
    """Lists what it is told to, and carries nothing out."""

    name = "scripted"

    def __init__(self, *rows: Allocation, poll_seconds: float = 5.0, lag: float = LAG) -> None:
        self.rows = list(rows)
        self.skew = timedelta(0)
        self.traits = Traits(lag, 300.0, 120.0, poll_seconds, 60, ending_seconds=ENDING)
        self.orders: list[list[str]] = []
        self.deaf: ProviderError | None = None  # what a list or an order is answered with
        self.meanwhile: Callable[[], None] = lambda: None

    def account(self) -> str:
        return ACCOUNT

    def allocations(self) -> list[Allocation]:
        self.meanwhile()
        if self.deaf and self.deaf.args[0] == "no list":
            raise self.deaf
        return self.rows

    def terminate(self, ids: list[str]) -> None:
        self.orders.append(ids)
        if self.deaf:
            raise self.deaf


class Diary(Books):
    """Keeps what is written, with how many orders the vendor had by then."""

    def __init__(self, *, full: bool = False) -> None:
        self.lines: list[tuple[object, ...]] = []
        self.full = full

    def ending(self, provider: Vendor, account: str, verdicts: Sequence[Verdict], now: datetime) -> None:  # type: ignore[override]
        self._write("ending", len(provider.orders), account, [one.allocation.id for one in verdicts], now)

    def ended(self, provider: Vendor, ended: Ended, now: datetime) -> None:  # type: ignore[override]
        self._write("ended", len(provider.orders), ended.id, now)

    def _write(self, *line: object) -> None:
        if self.full:
            raise LedgerError("the disk is full", hint="make room")
        self.lines.append(line)


class Hands:
    """A post at such a vendor, and a clock that is moved by hand."""

    def __init__(self, vendor: Vendor, *owed: Owed, books: Books | None = None, known: Known | None = None) -> None:
        self.vendor, self.now = vendor, NOW
        self.post = Post(vendor, known or Known(), lambda: self.now, owed=owed, books=books)  # type: ignore[arg-type]

    def at(self, seconds: float) -> bool:
        """Make a round so many seconds after noon; True = nothing to wait for."""
        self.now = NOW + timedelta(seconds=seconds)
        return self.post.round()


def test_what_has_ended_hides_nothing_behind_it_on_the_list() -> None:
    listed = [row("i-1", billing=False), row("i-2")]
    assert [one.allocation.id for one in judge(listed, NOW, timedelta(0), Known(), ACCOUNT)] == ["i-2"]


def test_before_its_first_look_a_post_claims_nothing() -> None:
    post = Hands(Vendor()).post
    assert (post.account, post.verdicts, post.ended, post.notes, post.reads) == ("", [], [], [], 0)
    assert (post.trouble, post.may_bill) == ("", False)
    post = Hands(Vendor(), debt("i-9", "acct-2")).post
    assert (post.astray, post.may_bill) == ([], True)
    post.look()
    assert [one.id for one in post.astray] == ["i-9"]


def test_only_whole_lists_are_counted_as_reads_and_a_good_one_ends_the_trouble() -> None:
    hands = Hands(Vendor(row(seconds=900)))
    hands.at(0)
    hands.vendor.deaf = ProviderError("no list", hint="try again")
    hands.at(1)
    assert (hands.post.reads, hands.post.trouble, hands.post.may_bill) == (1, "no list: try again", True)
    hands.vendor.deaf = None
    hands.at(2)
    assert (hands.post.reads, hands.post.trouble, hands.post.may_bill) == (2, "", False)


def test_a_ceiling_that_passes_while_the_list_is_read_is_judged_the_next_time() -> None:
    hands = Hands(Vendor(row(seconds=5)))

    def slowly() -> None:
        hands.now += timedelta(seconds=10)

    hands.vendor.meanwhile = slowly
    hands.at(0)
    assert [one.kind for one in hands.post.verdicts] == [Kind.LIVE]
    hands.at(5)
    assert [one.kind for one in hands.post.verdicts] == [Kind.OVERDUE]


@pytest.mark.parametrize(("seconds", "believed"), [(0, True), (300, True), (301, False), (-1, False)])
def test_a_list_that_nobody_can_date_is_not_believed(seconds: float, *, believed: bool) -> None:
    hands = Hands(Vendor(), debt("i-1"))

    def slowly() -> None:
        hands.now += timedelta(seconds=seconds)

    hands.vendor.meanwhile = slowly
    hands.at(0)
    assert (hands.post.reads, len(hands.post.owed["i-1"].unlisted)) == ((1, 1) if believed else (0, 0))
    words = "the computer slept over the list, or its clock was set: nobody knows how old it is"
    assert hands.post.trouble == ("" if believed else words)


# ── orders ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("ending", "later", "orders"),
    [
        (False, 0, 1),
        (False, 0.5, 1),
        (False, LAG / 2 - 1, 1),  # a list that lags still shows what was told a moment ago
        (False, LAG / 2, 2),
        (True, ENDING - 1, 1),
        (True, ENDING, 2),
        (False, -1, 2),  # a clock that was set back must not keep it from being told
        (True, -1, 2),
    ],
)
def test_an_order_is_repeated_when_it_is_not_heard_and_later_when_it_is_not_carried_out(
    later: float, orders: int, *, ending: bool
) -> None:
    hands = Hands(Vendor(row(ending=ending)))
    hands.at(0)
    hands.at(later)
    assert hands.vendor.orders == [["i-1"]] * orders


def test_nothing_to_end_is_no_order() -> None:
    hands = Hands(Vendor(row(seconds=900), Allocation("x", None, "my box", billing=True)))
    assert hands.at(0)
    assert hands.vendor.orders == []


def test_what_is_owed_is_known_by_its_mark_and_by_when_the_vendor_s_clock_said_it_was_told() -> None:
    hands = Hands(Vendor(row()))
    hands.vendor.skew = timedelta(seconds=40)
    hands.at(0)
    expected = Owed("i-1", ACCOUNT, str(mark(-1)), Kind.OVERDUE, told=NOW.timestamp() + 40)
    assert hands.post.owed == {"i-1": expected}
    hands.at(30)
    assert hands.post.owed["i-1"].told == NOW.timestamp() + 70


def test_an_order_that_was_not_taken_is_owed_said_and_given_again_at_once() -> None:
    hands = Hands(Vendor(row()))
    hands.vendor.deaf = CredentialsError("401", hint="make a new one")
    hands.at(0)
    assert hands.post.trouble == "the key was not taken: 401: make a new one"
    assert [(one.id, one.told) for one in hands.post.owed.values()] == [("i-1", 0.0)]
    hands.vendor.deaf = None
    hands.at(1)
    assert hands.vendor.orders == [["i-1"], ["i-1"]]
    assert (hands.post.trouble, hands.post.owed["i-1"].told) == ("", NOW.timestamp() + 1)


# ── proofs ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_each_debt_of_a_round_is_settled_by_its_own_row() -> None:
    hands = Hands(
        Vendor(row("later", 900), row("over", billing=False), row("bills")),
        *[debt(name) for name in ("later", "over", "bills", "unlisted")],
    )
    hands.at(1)
    assert hands.post.ended == [Ended("over", "mark of over", Kind.OVERDUE, "scripted's list calls it ended")]
    assert hands.post.notes == ["mark of later (later) was given a later end meanwhile: left alone"]
    assert list(hands.post.owed) == ["bills", "unlisted"]


HOME, OTHERS = "0bbb", "0ccc"


@pytest.mark.parametrize(
    ("known", "let_go"),
    [
        (Known(HOME, live={(RUN, 1)}, accounts={RUN: ACCOUNT}), True),
        (Known(HOME, accounts={RUN: ACCOUNT}), False),  # a ledger that was restored from a backup
        (Known(HOME, live={(RUN, 1)}), False),
        (Known(OTHERS, live={(RUN, 1)}, accounts={RUN: ACCOUNT}), False),
        (Known(), False),  # a ledger that can't be read
    ],
)
def test_an_orphan_that_is_owed_is_let_go_only_on_this_home_s_ledger_s_word(known: Known, *, let_go: bool) -> None:
    orphan = Owed("i-1", ACCOUNT, "mark of i-1", Kind.ORPHAN, told=NOW.timestamp())
    hands = Hands(Vendor(row(seconds=900)), orphan, known=known)
    hands.at(0)
    assert (list(hands.post.owed), len(hands.post.notes)) == (([], 1) if let_go else (["i-1"], 0))


def test_an_orphan_that_is_owed_is_not_let_go_for_another_that_lives() -> None:
    orphan = Owed("i-1", ACCOUNT, "mark of i-1", Kind.ORPHAN, told=NOW.timestamp())
    lives = Allocation("i-2", mark(900, attempt=2), "", billing=True)
    known = Known(HOME, live={(RUN, 2)}, accounts={RUN: ACCOUNT})
    hands = Hands(Vendor(row(seconds=900), lives), orphan, known=known)
    hands.at(0)
    assert list(hands.post.owed) == ["i-1"]


def test_what_lost_its_mark_after_it_was_told_to_end_is_owed_until_it_is_gone() -> None:
    hands = Hands(Vendor(row()))
    hands.at(0)
    hands.vendor.rows = [Allocation("i-1", None, "", billing=True)]
    hands.at(1)
    assert (hands.post.may_bill, hands.post.notes, hands.vendor.orders) == (True, [], [["i-1"]])
    hands.vendor.rows = [Allocation("i-1", None, "", billing=False)]
    hands.at(2)
    assert [one.id for one in hands.post.ended] == ["i-1"]


@pytest.mark.parametrize(
    ("reads", "evidence"),
    [
        ((0, LAG), None),
        ((0, LAG * 5), None),
        ((0, 1, LAG - 1), None),
        ((0, 1, LAG), "unlisted in 3 whole lists over 60 s"),
        ((0, 1, 2, LAG + 9), "unlisted in 4 whole lists over 69 s"),
    ],
)
def test_what_is_no_longer_listed_is_gone_after_three_reads_over_the_lag(
    reads: tuple[float, ...], evidence: str | None
) -> None:
    hands = Hands(Vendor(), debt("i-1"))
    for seconds in reads:
        assert hands.post.ended == []
        hands.at(seconds)
    assert [one.evidence for one in hands.post.ended] == ([] if evidence is None else [evidence])
    assert hands.post.may_bill is (evidence is None)


def test_reads_are_spread_by_the_vendor_s_clock() -> None:
    hands = Hands(Vendor(), debt("i-1"))
    hands.at(0)
    hands.at(1)
    hands.vendor.skew = timedelta(seconds=-1000)  # ours was set a thousand seconds ahead
    hands.at(1002)
    assert hands.post.ended == []
    assert hands.post.owed["i-1"].unlisted == [NOW.timestamp() + seconds for seconds in (0, 1, 2)]


def test_a_row_that_bills_again_takes_back_the_reads_that_lacked_it() -> None:
    hands = Hands(Vendor(), debt("i-1"))
    for seconds in (0, 30):
        hands.at(seconds)
    hands.vendor.rows = [row()]
    hands.at(60)
    hands.vendor.rows = []
    for seconds in (70, 90, 129):
        hands.at(seconds)
    assert hands.post.ended == []
    hands.at(130)
    assert [one.id for one in hands.post.ended] == ["i-1"]


# ── books ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_intent_is_written_before_the_deed_and_the_proof_by_the_vendor_s_clock() -> None:
    diary = Diary()
    hands = Hands(Vendor(row()), books=diary)
    hands.vendor.skew = timedelta(seconds=40)
    hands.at(0)
    hands.vendor.rows = [row(billing=False)]
    hands.at(1)
    proven = utc(NOW.timestamp() + 41)
    assert diary.lines == [("ending", 0, ACCOUNT, ["i-1"], NOW), ("ended", 1, "i-1", proven)]


def test_what_can_not_be_written_is_said_and_keeps_nobody_from_ending_it() -> None:
    hands = Hands(Vendor(row()), books=Diary(full=True))
    hands.at(0)
    assert hands.vendor.orders == [["i-1"]]
    hands.vendor.rows = []
    for seconds in (1, 2, 1 + LAG):
        hands.at(seconds)
    assert [one.id for one in hands.post.ended] == ["i-1"]
    assert hands.post.notes == ["the disk is full: make room"] * 2


# ── pauses ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("seconds", "over"),
    [(0, False), (PATIENCE - 1, False), (PATIENCE, True), (-1, True)],  # a clock set back must not stretch a pass
)
def test_a_pass_waits_for_a_proof_as_long_as_an_end_and_two_lags_may_take(seconds: float, *, over: bool) -> None:
    hands = Hands(Vendor(row()))
    assert hands.at(0) is False
    assert hands.at(seconds) is over


def test_a_pass_waits_from_the_first_round_that_owed_something() -> None:
    hands = Hands(Vendor())
    assert hands.at(0)
    hands.vendor.rows = [row()]
    assert hands.at(100) is False
    assert hands.at(99 + PATIENCE) is False
    assert hands.at(100 + PATIENCE)


def test_nothing_is_waited_for_on_another_account() -> None:
    assert Hands(Vendor(), debt("i-1", "acct-2")).at(0)
    assert not Hands(Vendor(), debt("i-1", "acct-2"), debt("i-2")).at(0)


def pauses(*vendors: Vendor) -> list[float]:
    """Give the first six pauses of a patrol in which nothing is ever carried out."""
    hands, paused = [Hands(one) for one in vendors], list[float]()

    def pause(seconds: float) -> None:
        paused.append(seconds)
        for one in hands:
            one.now += timedelta(seconds=seconds)

    patrol([one.post for one in hands], pause)
    return paused[:6]


def test_pauses_grow_from_the_vendor_s_pace_to_half_its_lag() -> None:
    assert pauses(Vendor(row(), poll_seconds=1)) == [1, 2, 4, 8, 16, 30]
    assert pauses(Vendor(row(), poll_seconds=40)) == [40] * 6


def test_of_two_vendors_the_quicker_one_sets_the_pace() -> None:
    slow, quick = Vendor(row(), poll_seconds=10), Vendor(row(), poll_seconds=2, lag=10)
    assert pauses(slow, quick) == [2, 4, 5, 5, 5, 5]


def test_a_round_that_leaves_nothing_to_wait_for_is_followed_by_no_pause() -> None:
    assert pauses(Vendor(row(seconds=900))) == []
    assert pauses() == []


# ── words ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("skew", "words"),
    [
        (0, ""),
        (60, ""),
        (-60, ""),
        (61, "this computer's clock is 61 s behind scripted's"),
        (-61, "this computer's clock is 61 s ahead of scripted's"),
    ],
)
def test_a_clock_that_is_far_off_is_told_and_which_one(skew: float, words: str) -> None:
    hands = Hands(Vendor())
    hands.vendor.skew = timedelta(seconds=skew)
    assert skew_note(hands.post) == words
