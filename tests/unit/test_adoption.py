"""Before an instance is adopted: which one was meant, what is refused, and what the screen says will happen."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest
from fakes import START, Clock, FakeCloud
from past import output

from orchestrator import adoption
from providers.base import Allocation, Mark
from providers.errors import UnreachableError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

MARK = Mark("beef", "demo-261122-abcdef", 1, START)
BOX = Allocation("0920582c7ff041399e34823a0be62549", None, "my-box", billing=True, price=Decimal("1.29"), since=START)
OURS = Allocation("1111", MARK, str(MARK), billing=True, price=Decimal("1.29"))
TWIN = replace(BOX, id="2222", name="twin")


class Account(FakeCloud):
    """A cloud on which others rent too, and which can put a mark on what they rent."""

    def __init__(self, *listed: Allocation) -> None:
        super().__init__(Clock())
        self.listed = listed

    def allocations(self) -> Sequence[Allocation]:
        self._fault("allocations")
        return self.listed

    def adopt(self, allocation_id: str, mark: Mark) -> None:
        self.listed = tuple(replace(one, mark=mark) if one.id == allocation_id else one for one in self.listed)


@pytest.mark.parametrize("wanted", ["my-box", BOX.id, "0920"])
def test_an_instance_is_meant_by_its_name_its_id_or_the_beginning_of_it(wanted: str) -> None:
    found = adoption.look(Account(OURS, BOX, TWIN), wanted, 3, START)
    assert (found.allocation, found.until, found.price) == (BOX, START + timedelta(hours=3), Decimal("1.29"))
    assert found.worst == Decimal("3.96")  # a guard may take two minutes more


def test_the_screen_says_what_it_is_when_it_ends_and_what_it_may_cost() -> None:
    told = adoption.look(Account(BOX), "my-box", 3, START + timedelta(hours=1)).screen()
    flat = " ".join(told.split())
    for words in (
        f"fake {BOX.id}",
        "$1.29/h, since 2026-11-22 12:00:00 UTC (60 min ago)",
        "at most $3.96 from now on",
        "gpurun will end it at 16:00 UTC on 22 Nov",
        "while this computer is awake",
    ):
        assert words in flat
    assert all(len(line) <= 80 for line in told.splitlines())


def test_time_is_told_by_the_vendors_clock() -> None:
    account = Account(BOX)
    account.skew = timedelta(minutes=5)
    assert adoption.look(account, "my-box", 1, START).until == START + timedelta(minutes=65)


@pytest.mark.parametrize(
    ("listed", "wanted", "words"),
    [
        ((OURS, TWIN), "nope", 'bills no instance called "nope"; not of gpurun there: 2222'),
        ((), "nope", "not of gpurun there: none"),
        ((TWIN, replace(TWIN, id="3333")), "twin", 'instances of fake are called "twin"'),
        ((OURS,), "1111", "carries a mark of gpurun's already: gpurun-beef-demo-261122-abcdef-1"),
        ((replace(BOX, billing=False),), "my-box", "does not bill"),
        ((replace(BOX, price=None),), "my-box", "can't be metered"),
    ],
)
def test_what_can_not_be_adopted_is_refused_in_words(listed: tuple[Allocation, ...], wanted: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        adoption.look(Account(*listed), wanted, 3, START)


def test_an_account_that_does_not_answer_is_not_an_empty_one() -> None:
    account = Account()
    account.faults["allocations"].append("unreachable")
    with pytest.raises(UnreachableError):
        adoption.look(account, "my-box", 3, START)


def test_this_computer_has_nothing_that_can_be_adopted(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = output(capsys, "adopt", "x", "--provider", "local", "--hours", "1", "-y")
    assert code == 2
    assert "local has nothing that can be adopted" in err


@pytest.mark.parametrize("hours", ["0", "721", "soon", "nan", "-1", "\u0663"])
def test_hours_that_are_none_are_refused(capsys: pytest.CaptureFixture[str], hours: str) -> None:
    code, _, err = output(capsys, "adopt", "x", "--hours", hours, "-y")
    assert code == 2
    assert "--hours" in err
