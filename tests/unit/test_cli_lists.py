"""The lists and the ends: what may bill first, 80 columns, no escapes, the exit code of every end."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest
from past import NOW, admit, done, output

from orchestrator import checks, cli, glance, processes, screens
from orchestrator.facts import Memory
from orchestrator.home import Home
from orchestrator.ledger import Ledger
from orchestrator.render import display_width
from orchestrator.words import Launch, Reason, State
from providers.base import Offer
from providers.errors import GpurunError
from providers.table import CONSOLES

if TYPE_CHECKING:
    from pathlib import Path

# ── lists ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def some_runs(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(glance.Run, "held", lambda *_: True)  # their controllers live on another computer
    running = Memory(state=State.RUNNING, launch=Launch.ACCEPTED, allocation_id="i-2", step=120)
    ending = Memory(state=State.TERMINATING, reason=Reason.FAILED, allocation_id="i-1", detail="no\x1b[2J answer " * 20)
    admit(home, "old-261122-aaaaaa", ending, age=9000, price="1.20")
    admit(home, "text-classification-261122-bbbbbb", running, age=600, price="0.60")
    admit(home, "demo-261122-cccccc", done(Reason.COMPLETED), age=100, ended=True)
    admit(home, "demo-261122-dddddd", done(Reason.FAILED, "row 7 has no text"), age=50, ended=True)
    return home


@pytest.mark.usefixtures("some_runs")
def test_ps_puts_first_what_may_still_bill(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = output(capsys, "ps")
    names = [line.split()[0] for line in out.splitlines()[1:] if not line.startswith(" ")]
    assert code == 5
    assert names == [
        "old-261122-aaaaaa", "text-classification-261122-bbbbbb", "demo-261122-dddddd", "demo-261122-cccccc",
    ]  # fmt: skip
    assert "may still bill; $3.00 was quoted: no" in out.splitlines()[2]


@pytest.mark.usefixtures("some_runs")
def test_ps_keeps_to_80_columns_and_shows_no_escape(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = output(capsys, "ps")
    assert all(display_width(line) <= 80 for line in out.splitlines())
    assert "\x1b" not in out


def test_a_run_that_ends_while_it_is_listed_is_listed_once(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    admit(home, "demo-261122-aaaaaa", Memory(state=State.RUNNING, launch=Launch.ACCEPTED, allocation_id="i-1"))
    read = glance._run

    def ends_now(row: tuple[object, ...]) -> glance.Run:
        ledger = Ledger(home / "ledger.sqlite")
        ledger._db.execute("UPDATE runs SET state = 'done', reason = 'completed'")
        ledger.close()
        return read(row)

    monkeypatch.setattr(glance, "_run", ends_now)
    assert [run.run_id for run in glance.runs(Home(home), NOW)] == ["demo-261122-aaaaaa"]
    assert glance.find(Home(home), "demo", NOW).run_id == "demo-261122-aaaaaa"


@pytest.mark.usefixtures("some_runs")
def test_ps_json_has_every_run_with_its_money(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = output(capsys, "ps", "--json")
    runs = {run["run_id"]: run for run in json.loads(out)}
    assert len(runs) == 4
    running = runs["text-classification-261122-bbbbbb"]
    assert (running["state"], running["outcome"], running["step"]) == ("running", None, 120)
    assert 0.09 < running["accrued_low_usd"] <= running["accrued_usd"] < 0.2
    assert runs["demo-261122-cccccc"]["outcome"] == "succeeded"


def test_ps_lists_the_last_ten_that_are_over_unless_told_all(capsys: pytest.CaptureFixture[str], home: Path) -> None:
    for number in range(12):
        admit(home, f"demo-261122-{number:06x}", done(Reason.COMPLETED), age=100 - number, ended=True)
    assert len(output(capsys, "ps")[1].splitlines()) == 11
    assert len(output(capsys, "ps", "--all")[1].splitlines()) == 13


def test_ps_without_runs_says_what_to_type_and_makes_nothing(capsys: pytest.CaptureFixture[str], home: Path) -> None:
    code, out, _ = output(capsys, "ps")
    assert (code, out) == (0, "no runs yet: gpurun launch demo\n")
    assert output(capsys, "ps", "--json")[1].strip() == "[]"
    assert not home.exists()


def test_a_run_not_looked_at_for_hours_is_never_called_running(home: Path) -> None:
    admit(home, "demo-261122-aaaaaa", Memory(state=State.RUNNING), price="1.20")
    (seen,) = glance.runs(Home(home), NOW + 21600)
    shown = screens.runs_table([seen], NOW + 21600, {})
    assert "running?" in shown
    assert "seen 6 h ago; up to $7.22" in shown


def test_a_run_past_its_ceiling_stands_first_in_red_and_is_told_as_one_that_may_bill(
    capsys: pytest.CaptureFixture[str], home: Path
) -> None:
    admit(home, "late-261122-aaaaaa", Memory(state=State.RUNNING, launch=Launch.ACCEPTED), age=9000, price="1.20")
    admit(home, "free-261122-bbbbbb", Memory(state=State.RUNNING, launch=Launch.ACCEPTED), age=60)
    admit(home, "demo-261122-cccccc", Memory(state=State.PENDING), age=10)
    with closing(sqlite3.connect(home / "ledger.sqlite", isolation_level=None)) as ledger:
        ledger.execute("UPDATE runs SET lease_until = 9e9, provider = 'lambda'")
        ledger.execute("UPDATE runs SET ceiling = ? WHERE state = 'running'", (NOW - 3600,))
    code, out, _ = output(capsys, "ps", "--json")
    first, *others = json.loads(out)
    assert (code, first["run_id"], first["console_url"]) == (5, "late-261122-aaaaaa", CONSOLES["lambda"])
    assert [one["unproven"] for one in others] == [False, False]  # what costs nothing owes nothing
    shown = screens.runs_table(glance.runs(Home(home), NOW + 18000), NOW + 18000, {}, colour=True).splitlines()
    assert "running?" in shown[1]
    assert "seen 5 h ago; up to $9.0" in shown[2]
    assert "; past its ceiling, may still bill; $3.00 was quoted" in shown[2]
    assert CONSOLES["lambda"] in shown[3]
    assert [line.startswith("\x1b[31m") for line in shown[1:5]] == [True, True, True, False]
    assert output(capsys, "show", "late")[0] == 5
    assert "MAY STILL BILL" in output(capsys, "show", "late")[1]
    assert [one.text for one in checks._unfinished(Home(home)) if one.name == checks.UNPROVEN] == [
        "late-261122-aaaaaa may still bill, a controller holds it: it is running, past its ceiling"
    ]


def test_a_launch_that_nobody_settled_is_told_with_what_it_may_have_cost(
    capsys: pytest.CaptureFixture[str], home: Path
) -> None:
    offer = Offer("lambda", "gpu_1x_a10", "a10", 1, Decimal("1.20"))
    sent = datetime.fromtimestamp(NOW - 5400, UTC)
    unclear = Memory(state=State.PROVISIONING, launch=Launch.INTENDED, intended=sent, entered=sent, offer=offer)
    admit(home, "demo-261122-aaaaaa", unclear, age=5400)
    with closing(sqlite3.connect(home / "ledger.sqlite", isolation_level=None)) as ledger:
        ledger.execute("UPDATE runs SET lease_until = 9e9, seen = NULL")
    with closing(Ledger(home / "ledger.sqlite")) as known:
        assert glance.find(Home(home), None, NOW).high == known.run("demo-261122-aaaaaa").accrued(NOW).high > 0
    shown = screens.runs_table(glance.runs(Home(home), NOW), NOW, {})
    assert "provisioning?" in shown
    assert "launch not settled: it may have rented; up to $1.8" in shown
    assert "launch not settled" in output(capsys, "show")[1]
    assert "nothing was rented" not in output(capsys, "receipt")[1]


def test_a_run_whose_end_is_proven_and_whose_store_is_awaited_may_not_bill(
    capsys: pytest.CaptureFixture[str], home: Path
) -> None:
    freed = Memory(
        state=State.TERMINATING, launch=Launch.ACCEPTED, evidence="gone", freed=datetime.fromtimestamp(NOW, UTC)
    )
    admit(home, "demo-261122-aaaaaa", freed, age=600, price="1.20")
    with closing(sqlite3.connect(home / "ledger.sqlite", isolation_level=None)) as ledger:
        ledger.execute("UPDATE runs SET lease_until = 9e9, provider = 'lambda'")
    code, out, _ = output(capsys, "ps")
    assert (code, "may still bill" in out, "nothing bills any more" in out) == (0, False, True)
    for command in ("show", "receipt"):
        assert "nothing bills any more: gone" in " ".join(output(capsys, command)[1].split()).lower()


@pytest.mark.parametrize(
    ("prefix", "words"),
    [
        ("demo-261122-", "2 runs begin with"),
        ("nope", "no run is called"),
        ("dmo-261122-cccccc", "did you mean demo-261122-cccccc?"),
    ],
)
def test_a_run_is_found_by_a_beginning_that_fits_one(some_runs: Path, prefix: str, words: str) -> None:
    home = Home(some_runs)
    assert glance.find(home, "text", NOW).run_id == "text-classification-261122-bbbbbb"
    assert glance.find(home, None, NOW).run_id == "demo-261122-dddddd"
    with pytest.raises(GpurunError, match=words.replace("?", r"\?")) as caught:
        glance.find(home, prefix, NOW)
    assert caught.value.exit_code == 2
    assert caught.value.hint


@pytest.mark.parametrize(
    ("reason", "code"),
    [(Reason.COMPLETED, 0), (Reason.HUNG, 1), (Reason.PROVIDER, 3), (Reason.BUDGET, 4), (Reason.STOPPED, 6)],
)
def test_wait_leaves_with_the_runs_code(
    capsys: pytest.CaptureFixture[str], home: Path, reason: Reason, code: int
) -> None:
    admit(home, "demo-261122-aaaaaa", done(reason, evidence="gone\x1b[2J"), ended=True)
    got, out, _ = output(capsys, "wait")
    assert got == code
    assert "nothing bills any more: gone (as of 20" in " ".join(out.split())
    assert "\x1b" not in out


def test_wait_json_prints_one_object_last(capsys: pytest.CaptureFixture[str], home: Path) -> None:
    admit(home, "demo-261122-aaaaaa", done(Reason.COMPLETED), ended=True)
    _, out, _ = output(capsys, "wait", "--json")
    last = json.loads(out.splitlines()[-1])
    assert last["run_id"] == "demo-261122-aaaaaa"
    assert (last["outcome"], last["reason"], last["accrued_usd"]) == ("succeeded", "completed", 0)
    assert last["folder"] == str(home / "runs" / "demo-261122-aaaaaa")


def test_stopping_a_run_that_is_over_says_so(capsys: pytest.CaptureFixture[str], home: Path) -> None:
    admit(home, "demo-261122-aaaaaa", done(Reason.COMPLETED), ended=True)
    code, _, err = output(capsys, "stop", "-y")
    assert code == 2
    assert "is over already: completed" in err


def test_config_is_set_listed_and_forgotten(capsys: pytest.CaptureFixture[str]) -> None:
    assert output(capsys, "config", "set", "monthly-cap", "25")[0] == 0
    assert output(capsys, "config", "get", "monthly-cap")[:2] == (0, "25\n")
    assert json.loads(output(capsys, "config", "list", "--json")[1])["monthly-cap"] == 25
    assert "monthly-cap      25 " in output(capsys, "config", "list")[1]
    assert output(capsys, "config", "unset", "monthly-cap")[0] == 0
    assert output(capsys, "config", "get", "monthly-cap")[:2] == (1, "")


def test_templates_lists_all_and_prints_one_to_start_from(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, out, _ = output(capsys, "templates")
    assert code == 0
    assert all(len(line) <= 80 for line in out.splitlines())
    names = [one["name"] for one in json.loads(output(capsys, "templates", "--json")[1])]
    one = json.loads(output(capsys, "templates", "loop", "--json")[1])
    assert (one["name"], one["text"]) == ("loop", output(capsys, "templates", "loop")[1])
    assert set(names) <= set(out.split())
    mine = tmp_path / "mine.yaml"
    mine.write_text(output(capsys, "templates", "loop")[1])
    assert output(capsys, "launch", str(mine), "--dry-run")[0] == 0


def test_a_dry_run_shows_the_plan_as_data_and_leaves_nothing(capsys: pytest.CaptureFixture[str], home: Path) -> None:
    code, out, err = output(capsys, "launch", "demo", "--dry-run")
    assert (code, err) == (0, "")
    assert all(len(line) <= 80 or "/" in line for line in out.splitlines())
    for words in ("quote", "$0.00", "limits", "holders", "2 data files", "at the latest"):
        assert words in out
    plan = json.loads(output(capsys, "launch", "demo", "--dry-run", "--json")[1])
    assert plan["quote"]["worst"] == 0
    assert plan["sentence"].startswith("Ends by")
    assert list((home / "runs").iterdir()) == []
    assert Ledger(home / "ledger.sqlite").runs() == []


@pytest.mark.parametrize("args", [["ps"], ["show"], ["logs"], ["pull"], ["stop", "-y", "--detach"]])
def test_whatever_is_typed_next_takes_up_a_run_that_nobody_holds(
    home: Path, monkeypatch: pytest.MonkeyPatch, args: list[str]
) -> None:
    spawned: list[str] = []
    monkeypatch.setattr(processes, "spawn_controller", lambda _home, run_id: spawned.append(run_id))
    admit(home, "demo-261122-aaaaaa", Memory(state=State.RUNNING, launch=Launch.ACCEPTED, allocation_id="i-1"))
    monkeypatch.setattr(glance.Run, "held", lambda *_: False)
    cli.run(args)
    assert spawned == ["demo-261122-aaaaaa"]
