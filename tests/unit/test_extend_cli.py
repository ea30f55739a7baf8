"""`gpurun extend`: the wish reaches the ledger, the answer of whoever holds the run is told, a refusal says why."""

from __future__ import annotations

import json
import re
import threading
import time
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from past import NOW, admit, done, output

from orchestrator import extend, glance, processes
from orchestrator.facts import Memory
from orchestrator.home import Home
from orchestrator.ledger import Ledger
from orchestrator.render import money, rfc3339
from orchestrator.words import Launch, Reason, State
from providers.base import utc

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

RUN = "demo-261122-aaaaaa"
RUNNING = Memory(state=State.RUNNING, launch=Launch.ACCEPTED, allocation_id="i-1")


@pytest.fixture
def running(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(glance.Run, "held", lambda *_: True)
    admit(home, RUN, RUNNING)
    with closing(Ledger(home / "ledger.sqlite")) as ledger, ledger._db.write():
        offer = {"provider": "fake", "name": "a10", "gpu": "a10", "gpu_count": 1, "price": "1.20", "seen_at": None}
        plan = {
            "offer": offer,
            "quote": {"worst": "3.00"},
            "holders": [{"name": "x", "place": "elsewhere", "proof": "proven"}],
        }
        ledger._db.execute("UPDATE runs SET plan = ?", (json.dumps(plan),))
    return home


@contextmanager
def controller(home: Path, refusal: str = "") -> Iterator[None]:
    """Answer the next wish, as a controller would: grant it, or refuse it in these words."""

    def hold() -> None:
        until = time.monotonic() + 30
        with closing(Ledger(home / "ledger.sqlite")) as ledger:
            before = ledger.run(RUN).memory
            while (wish := ledger.run(RUN).wish) is None or wish.id <= before.answered:
                assert time.monotonic() < until, "nobody asked"
                time.sleep(0.01)
            lease = ledger.acquire(RUN, "x:1:1", utc(NOW), lambda _: False)
            assert lease is not None
            answered = replace(before, answered=wish.id)
            ledger.save(lease, answered, utc(NOW), granted=None if refusal else wish)
            if refusal:
                ledger.note(RUN, 1, "controller", "extend", "failed", f"{wish.id}: {refusal}", utc(NOW))

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def test_a_granted_extension_tells_the_new_end_its_price_and_who_holds_it(
    capsys: pytest.CaptureFixture[str], running: Path
) -> None:
    with controller(running):
        code, out, err = output(capsys, "extend", "--hours", "2", "-y", "--json")
    assert (code, "cost at most $" in err) == (0, True)
    told = json.loads(out)
    assert told["granted"]
    assert told["deadline"] == told["ceiling"] == rfc3339(NOW + 3 * 3600)
    assert told["deadline_before"] == rfc3339(NOW + 3600)
    assert 3.7 < told["worst_usd"] < 3.9
    assert [one["name"] for one in told["holders"]] == ["x"]
    with controller(running):
        code, out, _ = output(capsys, "extend", RUN, "--hours", "1", "-y")
    assert code == 0
    for words in ("1 h later", "at most $", "x (elsewhere): proven"):
        assert words in out
    assert all(len(line) <= 80 for line in out.splitlines())


def test_after_an_extension_show_and_receipt_say_what_it_may_cost_now_beside_what_was_quoted(
    capsys: pytest.CaptureFixture[str], running: Path
) -> None:
    with controller(running):
        output(capsys, "extend", "--hours", "2", "-y")
    with closing(Ledger(running / "ledger.sqlite")) as ledger:
        now = money(ledger.run(RUN).worst)
    shown, receipt = (" ".join(output(capsys, command, RUN)[1].split()) for command in ("show", "receipt"))
    assert f"at most {now} (quoted $3.00)" in shown
    assert f"UTC, at most {now}" in shown, "the event's words are cut"
    assert f"at most {now}, as extended" in receipt
    assert "asked: to " in receipt
    assert "granted: ends by " in receipt


@pytest.mark.usefixtures("running")
def test_an_extension_says_what_it_may_cost_and_is_not_asked_for_unseen(
    capsys: pytest.CaptureFixture[str], home: Path
) -> None:
    code, out, err = output(capsys, "extend", RUN, "--hours", "2")
    assert (code, out, "add -y" in err) == (2, "", True)
    assert re.search(r"would end at .* UTC, and cost at most \$3\.\d\d; as it stands, \$3\.00", err)
    with closing(Ledger(home / "ledger.sqlite")) as ledger:
        assert ledger.run(RUN).wish is None


@pytest.mark.usefixtures("running")
def test_a_budget_with_no_room_is_refused_with_the_whole_command_that_has(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = output(capsys, "extend", RUN, "--hours", "1.5", "--max-cost", "0.50")
    assert code == 4
    assert re.search(rf"next: gpurun extend {RUN} --hours 1.5 --max-cost \d+\.\d\d$", err.strip())


def test_a_refused_extension_leaves_with_4_and_the_reason(capsys: pytest.CaptureFixture[str], running: Path) -> None:
    with controller(running, "fake can't move its own limit"):
        code, out, err = output(capsys, "extend", "--hours", "2", "-y", "--json")
    assert code == 4
    assert "fake can't move its own limit" in err
    told = json.loads(out)
    assert (told["granted"], told["deadline"]) == (False, told["deadline_before"])


def test_no_answer_is_no_grant(
    capsys: pytest.CaptureFixture[str], running: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extend, "PATIENCE_SECONDS", 0.0)
    code, out, err = output(capsys, "extend", "--hours", "2", "-y", "--json")
    assert (code, json.loads(out)["granted"]) == (3, None)
    assert "asked, and not granted yet" in err
    with closing(Ledger(running / "ledger.sqlite")) as ledger:
        assert ledger.run(RUN).deadline == pytest.approx(NOW + 3600)


@pytest.mark.usefixtures("running")
def test_a_run_that_nobody_holds_is_taken_up_for_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    spawned: list[str] = []
    monkeypatch.setattr(glance.Run, "held", lambda *_: False)
    monkeypatch.setattr(processes, "spawn_controller", lambda _home, run_id: spawned.append(run_id))
    monkeypatch.setattr(extend, "PATIENCE_SECONDS", 0.0)
    output(capsys, "extend", "--hours", "1", "-y")
    assert spawned == [RUN]


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["--hours", "0"], 2, "--hours"),
        (["--hours", "soon"], 2, "--hours"),
        ([], 2, "--hours"),
        (["--hours", "720"], 4, "longer than 720 h"),
        (["--hours", "1", "--max-cost", "much"], 2, '--max-cost is "much"'),
        (["--hours", "1", "--max-cost", "0.50"], 4, "the budget is $0.50"),
        (["--hours", "300"], 4, "the monthly cap is $300"),
    ],
)
@pytest.mark.usefixtures("running")
def test_what_can_not_be_granted_is_refused_before_it_is_asked(
    capsys: pytest.CaptureFixture[str], home: Path, args: list[str], code: int, words: str
) -> None:
    found, out, err = output(capsys, "extend", RUN, *args)
    assert (found, out) == (code, "")
    assert words in err
    with closing(Ledger(home / "ledger.sqlite")) as ledger:
        assert ledger.run(RUN).wish is None


def test_what_is_over_or_ending_is_not_extended(capsys: pytest.CaptureFixture[str], home: Path) -> None:
    admit(home, RUN, done(Reason.COMPLETED), ended=True)
    code, _, err = output(capsys, "extend", "--hours", "1")
    assert (code, "is over already: completed" in err) == (2, True)
    admit(home, "demo-261122-bbbbbb", Memory(state=State.TERMINATING, allocation_id="i-1"), age=5)
    code, _, err = output(capsys, "extend", "demo-261122-bb", "--hours", "1")
    assert (code, "is ending" in err) == (4, True)
    assert glance.find(Home(home), "demo-261122-bb", NOW).state == "terminating"
