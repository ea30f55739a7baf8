"""A receipt: quoted, paid, who could stop it, and each read-back of its end, with its time and on whose word."""

from __future__ import annotations

import json
from datetime import timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from ledgers import HELD, NOW, Past, past, two_months
from past import output

from orchestrator import receipt
from orchestrator.cli import costs as commands
from orchestrator.facts import Memory
from orchestrator.words import Reason, State
from providers.base import Holder, Place, Proof

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

RUN = "loop-261122-abcdef"
ONE = "897e628b5b068456f8f5002045827418"


def at(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


@pytest.fixture(autouse=True)
def _noon(monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands are typed when the ledger's last line was written."""
    monkeypatch.setattr(commands, "time", SimpleNamespace(time=NOW.timestamp))


@pytest.fixture
def made(home: Path) -> Past:
    """A run whose end was asked for three times, and read back."""
    made = past(home)
    made.admit(RUN, NOW, low="0.10", likely="0.20", worst="0.65")
    made.rent(RUN, ONE, NOW, price="1.29")
    made.billing(ONE, at(90), price="1.29")
    lease = made.ledger.acquire(RUN, HELD, at(90), lambda _: False)
    assert lease is not None
    proven = Holder("watchdog", Place.MACHINE, Proof.PROVEN, evidence="lives, and may end it", proven_at=at(95))
    made.ledger.saw_holders(lease, 1, [proven], at(95))

    def note(seconds: float, verb: str, kind: str, text: str, actor: str = "controller") -> None:
        made.ledger.note(RUN, 1, actor, verb, kind, text, at(seconds))

    made.ledger.save(lease, Memory(state=State.TERMINATING, reason=Reason.COMPLETED), at(100))
    for second in (100, 110, 120):
        note(second, "terminate", "intent", ONE)
        note(second + 1, "terminate", "failed", "UnreachableError: no answer")
    note(130, "terminate", "intent", ONE)
    note(131, "terminate", "done", "")
    note(135, "read", "note", f"{ONE}: GET /instances/{ONE} → terminating")
    note(140, "read", "note", f"{ONE}: GET /instances/{ONE} → terminated")
    made.free(ONE, at(140))
    evidence = f"GET /instances/{ONE} → terminated"
    made.ledger.save(lease, Memory(state=State.DONE, reason=Reason.COMPLETED, evidence=evidence), at(141))
    note(142, "notify", "intent", f"end {RUN} succeeded: completed")
    note(143, "notify", "done", "end ntfy ntfy.sh/my-t…", "notifier")
    note(144, "notify", "failed", "end webhook hooks.example: answered 500", "notifier")
    return made


def test_a_receipt_says_what_was_quoted_and_paid_and_how_the_end_was_read_back(
    made: Past, capsys: pytest.CaptureFixture[str]
) -> None:
    made.ledger.close()
    code, out, _ = output(capsys, "receipt")
    assert code == 0
    assert all(len(line) <= 80 for line in out.splitlines())
    words = " ".join(out.split())
    for part in (
        "low $0.10 likely $0.20 at most $0.65 price $1.20/h basis measured on 2 runs of yours",
        f"attempt 1 {ONE} price $1.29/h, in begun steps of 1 min",
        "from 2026-11-22 12:00:00 UTC at the earliest, 12:00:02 UTC at the latest",
        "steps 2 to 3",
        "budget $2.50",
        "watchdog (machine): was proven until 22 Nov 12:01:35 UTC: lives, and may end it",
        "12:01:41 terminate failed: UnreachableError: no answer (3 times, until 22 Nov 12:02:01)",
        f"12:02:11 terminate accepted: {ONE}",
        f"12:02:15 read GET /instances/{ONE} → terminating",
        f"12:02:21 state terminating -> done: GET /instances/{ONE} → terminated",
        "end ntfy ntfy.sh/my-t…: told",
        "end webhook hooks.example: answered 500",
        f"Nothing bills any more: GET /instances/{ONE} → terminated (as of 2026-11-22 12:02:21 UTC)",
    ):
        assert part in words, part


def test_a_receipt_as_json_holds_every_read_back_with_its_time(made: Past, capsys: pytest.CaptureFixture[str]) -> None:
    made.ledger.close()
    told = json.loads(output(capsys, "receipt", "--json")[1])
    assert (told["run_id"], told["final"], told["outcome"]) == (RUN, True, "succeeded")
    assert list(told["quoted"].values()) == [0.1, 0.2, 0.65, "measured on 2 runs of yours"]
    (allocation,) = told["allocations"]
    assert (allocation["id"], allocation["usd_per_hour"], allocation["steps_most"]) == (ONE, 1.29, 3)
    assert (allocation["paid_low_usd"], allocation["paid_usd"]) == (told["paid_low_usd"], told["paid_usd"])
    assert [one["kind"] for one in told["read_backs"] if one["verb"] == "terminate"].count("failed") == 3
    assert [one["time"] for one in told["read_backs"] if one["verb"] == "read"] == [
        *("2026-11-22T12:02:15Z", "2026-11-22T12:02:20Z"),
    ]
    assert (told["holders"][0]["proof"], len(told["notices"])) == ("proven", 2)
    assert told["at_most_usd"] == told["paid_usd"]


def test_a_run_under_way_has_a_receipt_that_promises_nothing(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    two_months(home).ledger.close()
    words = " ".join(output(capsys, "receipt", "going")[1].split())
    assert "of nobody yet" in words
    assert "SO FAR $0.75, at most $3.00. MAY STILL BILL." in words
    assert "Nothing bills any more" not in words


def test_a_run_whose_end_is_not_proven_has_no_bound(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = two_months(home)
    made.save("going-261122-dddddd", Memory(state=State.TERMINATING, allocation_id="i-going"), NOW)
    made.ledger.close()
    words = " ".join(output(capsys, "receipt", "going")[1].split())
    assert "SO FAR $0.75; $3.00 was quoted. MAY STILL BILL." in words
    assert json.loads(output(capsys, "receipt", "going", "--json")[1])["at_most_usd"] is None
    assert "terminating: so far, and it may go on past what was quoted" in output(capsys, "costs")[1]


def test_an_end_that_nobody_witnessed_is_told_as_the_interval_that_it_is(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    two_months(home).ledger.close()
    words = " ".join(output(capsys, "receipt", "asleep")[1].split())
    assert "until 2026-11-20 12:00:00 UTC at the latest; last seen billing 2026-11-20 10:10:00 UTC" in words
    assert "$0.20\u20132.40 (between: not all of it was witnessed)" in words


def test_a_run_that_rented_nothing_has_a_receipt_too(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    two_months(home).ledger.close()
    words = " ".join(output(capsys, "receipt", "free")[1].split())
    assert "$0.00: nothing was rented" in words


def test_an_order_whose_answer_was_never_noted_is_shown_as_one(home: Path) -> None:
    made = past(home)
    made.admit(RUN, NOW)
    made.ledger.note(RUN, 1, "controller", "terminate", "intent", "i-1\x1b[2J", NOW)
    text = receipt.screen(receipt.read(made.ledger, RUN, NOW.timestamp()))
    made.ledger.close()
    assert "ordered: i-1; no answer was noted" in " ".join(text.split())
    assert "\x1b" not in text
