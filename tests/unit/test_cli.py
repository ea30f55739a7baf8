"""The command line: quick to start, every error told once with its exit code, lists that put the dangerous first."""

from __future__ import annotations

import importlib
import inspect
import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING

import click
import pytest

from orchestrator import cli, glance, screens
from orchestrator.cli import COMMANDS, run
from orchestrator.cost import Spell
from orchestrator.home import Home
from orchestrator.ledger import Ledger
from orchestrator.lifecycle import Memory
from orchestrator.records import RunRow
from orchestrator.render import display_width
from orchestrator.words import Launch, Reason, State
from providers.base import Mark
from providers.errors import GpurunError, RefusedError

if TYPE_CHECKING:
    from pathlib import Path

HEAVY = ("paramiko", "fabric", "boto3", "pydantic", "requests", "huggingface_hub", "rich")
NOT_NEEDED = ("yaml", "asyncio", "email", "importlib.metadata", "psutil", "subprocess", "socket", "tomllib")
NOW = time.time()


def admit(home: Path, run_id: str, memory: Memory, *, age: float = 60.0, ended: bool = False, price: str = "0") -> None:
    """Enter a run as a controller would have left it."""
    home.mkdir(exist_ok=True)
    ledger = Ledger(home / "ledger.sqlite")
    begun = NOW - age
    plan = {
        "offer": {"provider": "local", "name": "cpu", "price": price},
        "quote": {"worst": "3.00", "seconds_likely": None},
    }
    ledger.admit(
        RunRow(
            run_id=run_id, template="demo", provider="local", created=begun, deadline=NOW + 3600, ceiling=NOW + 3600,
            grace_seconds=60, max_attempts=3, max_cost=None, worst=Decimal("3.00"), plan={**plan, "holders": []},
            memory=Memory(), seen=None, ended=None, lease_holder=None, lease_epoch=0, lease_until=None, spells=(),
        ),
        datetime.fromtimestamp(begun, UTC),
    )  # fmt: skip
    moment = datetime.fromtimestamp(NOW - (5 if ended else 1), UTC)
    lease = ledger.acquire(run_id, "elsewhere:1:1", moment, lambda _: True)
    assert lease is not None
    if price != "0":
        spell = Spell(Decimal(price), 1, begun, begun, None, None)
        ledger.open_allocation(f"i-{run_id}", Mark("0000", run_id, 1, moment), spell, provider="local", account="a")
        ledger.saw_billing("local", f"i-{run_id}", moment, None)
    ledger.save(lease, memory, moment, looked=True)
    ledger.close()


def done(reason: Reason, detail: str = "", evidence: str = "not listed") -> Memory:
    return Memory(state=State.DONE, reason=reason, detail=detail, evidence=evidence, step=9)


def output(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str, str]:
    code = run(list(args))
    told = capsys.readouterr()
    return code, told.out, told.err


def in_a_process(*args: str, code: str = "") -> subprocess.CompletedProcess[str]:
    script = code or "import sys; from orchestrator.cli import main; main(sys.argv[1:])"
    return subprocess.run(
        [sys.executable, "-c", script, *args], capture_output=True, text=True, timeout=60, check=False, env=os.environ
    )


# ── start-up and help ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("args", [["--help"], ["ps"], ["ps", "--json"]])
def test_help_and_ps_import_nothing_heavy(home: Path, args: list[str]) -> None:
    admit(home, "demo-261122-aaaaaa", done(Reason.COMPLETED), ended=True, price="1.20")
    probe = (
        "import sys\nfrom orchestrator.cli import run\n"
        f"assert run({args!r}) == 0\nprint(*sys.modules, file=sys.stderr, sep='\\n')"
    )
    result = in_a_process(code=probe)
    assert result.returncode == 0, result.stderr
    loaded = set(result.stderr.splitlines())
    assert "click" in loaded
    assert loaded & set(HEAVY) == set()
    assert loaded & set(NOT_NEEDED) == set()


def test_the_lines_of_help_are_the_first_lines_of_the_docstrings() -> None:
    for name, (module, about) in COMMANDS.items():
        command = getattr(importlib.import_module(f"orchestrator.cli.{module}"), name)
        assert (command.help or "").splitlines()[0] == about
        assert command.name == name


def every_command() -> list[tuple[str, click.Command]]:
    context = click.Context(cli.cli)
    found = []
    for name in COMMANDS:
        command = cli.cli.get_command(context, name)
        assert command is not None
        inner = command.commands.items() if isinstance(command, click.Group) else ()
        found += [(name, command), *((f"{name} {sub}", one) for sub, one in inner)]
    return found


@pytest.mark.parametrize(("name", "command"), every_command())
def test_every_command_shows_examples_of_itself(name: str, command: click.Command) -> None:
    assert "\b\nExamples:\n" in inspect.cleandoc(command.help or "")
    assert f"gpurun {name.split(maxsplit=1)[0]}" in (command.help or "")


@pytest.mark.parametrize("name", ["", *COMMANDS])
@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_keeps_to_80_columns(capsys: pytest.CaptureFixture[str], name: str, flag: str) -> None:
    code, out, _ = output(capsys, *filter(None, [name, flag]))
    assert code == 0
    assert out.startswith("Usage: gpurun")
    assert all(len(line) <= 80 for line in out.splitlines())


def test_version_prints_name_and_number(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = output(capsys, "--version")
    assert (code, out.split()[0], out.split()[1][0].isdigit()) == (0, "gpurun", True)


def test_no_command_shows_the_help_and_leaves_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = output(capsys)
    assert code == 2
    assert "Usage: gpurun" in out + err


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script_for_the_shell(capsys: pytest.CaptureFixture[str], shell: str) -> None:
    code, out, _ = output(capsys, "completion", shell)
    assert code == 0
    assert f"_GPURUN_COMPLETE={shell}_complete" in out


def test_completion_offers_commands_templates_and_runs(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    admit(home, "demo-261122-aaaaaa", done(Reason.COMPLETED), ended=True)
    monkeypatch.setenv("_GPURUN_COMPLETE", "bash_complete")
    for words, wanted in (
        ("gpurun la", "launch"),
        ("gpurun launch de", "demo"),
        ("gpurun show de", "demo-261122-aaaaaa"),
    ):
        monkeypatch.setenv("COMP_WORDS", words)
        monkeypatch.setenv("COMP_CWORD", str(len(words.split()) - 1))
        assert f"plain,{wanted}" in in_a_process().stdout.splitlines()


# ── errors ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["lunch"], "did you mean launch?"),
        (["xyzzy"], "Commands: launch ps"),
        (["ps", "--jsn"], "--json"),
        (["launch", "demo", "--provder", "local"], "--provider"),
        (["launch", "dmo"], "did you mean demo?"),
        (["launch", "--provider", "lokal"], "did you mean local?"),
        (["launch", "demo", "--max-hours", "soon"], 'limits.max_hours is "soon": a number is needed'),
        (["config", "set", "max-hour", "3"], "did you mean max-hours?"),
        (["show"], "there are no runs yet"),
        (["stop", "nope"], "there are no runs yet"),
        (["templates", "nope"], "there is no template"),
        (["completion", "tcsh"], "bash"),
    ],
)
def test_a_typo_leaves_with_2_and_says_what_was_meant(
    capsys: pytest.CaptureFixture[str], args: list[str], words: str
) -> None:
    code, out, err = output(capsys, *args)
    assert (code, out) == (2, "")
    assert err.startswith("gpurun: ")
    assert words in err
    assert "Traceback" not in err


def test_a_missing_secret_names_its_variable_and_its_page(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = output(capsys, "launch", "lora-8bit", "-y")
    assert code == 3
    assert "HF_TOKEN" in err
    assert "https://huggingface.co/settings/tokens" in err


def test_an_error_is_told_with_its_hint_and_what_may_bill(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise RefusedError("too dear\x1b[31m", hint="raise --max-cost", allocation_id="i-1")

    monkeypatch.setattr(glance, "runs", fails)
    code, out, err = output(capsys, "ps")
    assert (code, out) == (4, "")
    assert err == "gpurun: too dear\n  may still bill: allocation i-1\n  next: raise --max-cost\n"


def test_ctrl_c_leaves_with_130(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def pressed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(glance, "runs", pressed)
    code, _, err = output(capsys, "ps")
    assert (code, err.strip()) == (130, "gpurun: interrupted")


def test_a_reader_that_goes_away_is_no_error() -> None:
    ours = f'"{sys.executable}" -c "from orchestrator.cli import main; main([\'-h\'])"'
    result = subprocess.run(
        ["bash", "-c", f"{ours} | true; echo ${{PIPESTATUS[0]}}"], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() in {"0", "141"}
    assert result.stderr == ""


def test_a_home_that_can_not_be_made_is_told_with_the_way_out(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GPURUN_HOME", str(tmp_path / "file" / "home"))
    code, _, err = output(capsys, "launch", "loop", "--dry-run")
    assert code == 3
    assert "GPURUN_HOME" in err


def test_a_corrupt_ledger_is_told_and_left_as_it_is(capsys: pytest.CaptureFixture[str], home: Path) -> None:
    home.mkdir()
    (home / "ledger.sqlite").write_bytes(b"this is no database at all, whatever its name says" * 100)
    for command in ("ps", "show", "doctor"):
        code, out, err = output(capsys, command)
        assert code == 3
        assert "ledger" in out + err
    assert (home / "ledger.sqlite").read_bytes().startswith(b"this is no database")


def test_nobody_to_ask_is_a_refusal_that_names_the_flag(capsys: pytest.CaptureFixture[str], home: Path) -> None:
    code, _, err = output(capsys, "launch", "loop")
    assert code == 2
    assert "-y" in err
    assert list((home / "runs").iterdir()) == []


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
    assert code == 0
    assert names == [
        "old-261122-aaaaaa", "text-classification-261122-bbbbbb", "demo-261122-dddddd", "demo-261122-cccccc",
    ]  # fmt: skip
    assert "may still bill, at most $3.00" in out.splitlines()[2]


@pytest.mark.usefixtures("some_runs")
def test_ps_keeps_to_80_columns_and_shows_no_escape(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = output(capsys, "ps")
    assert all(display_width(line) <= 80 for line in out.splitlines())
    assert "\x1b" not in out


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
    assert "monthly-cap  25" in output(capsys, "config", "list")[1]
    assert output(capsys, "config", "unset", "monthly-cap")[0] == 0
    assert output(capsys, "config", "get", "monthly-cap")[:2] == (1, "")


def test_templates_lists_all_and_prints_one_to_start_from(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, out, _ = output(capsys, "templates")
    assert code == 0
    assert all(len(line) <= 80 for line in out.splitlines())
    names = [one["name"] for one in json.loads(output(capsys, "templates", "--json")[1])]
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
    assert plan["quote"]["worst"] == "0.00"
    assert plan["sentence"].startswith("Ends by")
    assert list((home / "runs").iterdir()) == []
    assert Ledger(home / "ledger.sqlite").runs() == []
