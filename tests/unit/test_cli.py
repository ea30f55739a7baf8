"""The command line: quick to start, every error told once with its exit code, lists that put the dangerous first."""

from __future__ import annotations

import errno
import importlib
import inspect
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import click
import pytest
from past import admit, done, output

from orchestrator import cli, glance
from orchestrator.cli import COMMANDS
from orchestrator.words import Reason
from providers.errors import RefusedError

if TYPE_CHECKING:
    from pathlib import Path

HEAVY = ("paramiko", "fabric", "boto3", "pydantic", "requests", "huggingface_hub", "rich")
NOT_NEEDED = (
    *("yaml", "asyncio", "email", "importlib.metadata", "psutil", "subprocess", "socket", "tomllib"),
    *("orchestrator.estimate", "orchestrator.plan"),
)


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
    context = click.Context(cli.cli, **cli.cli.context_settings)
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
        (["xyzzy"], "Commands: launch rent"),
        (["ps", "--jsn"], "--json"),
        (["launch", "demo", "--provder", "local"], "--provider"),
        (["launch", "dmo"], "did you mean demo?"),
        (["launch", "--provider", "lokal"], "did you mean local?"),
        (["launch", "demo", "--max-hours", "soon"], '--max-hours: limits.max_hours is "soon": a number is needed'),
        (["config", "set", "max-hour", "3"], "did you mean max-hours?"),
        (["show"], "there are no runs yet"),
        (["stop", "nope"], "there are no runs yet"),
        (["templates", "nope"], "there is no template"),
        (["completion", "tcsh"], "bash"),
        (["compare", "nope"], "next: gpurun templates"),
        (["launch", "/"], "/ is a folder"),
        (["launch", "nope.py"], "next: ls "),
        (["launch", "--bogus"], "No such option '--bogus'.\n"),
        (["config", "set", "provider", "aws"], "next: for example: gpurun config set provider local"),
        (["config", "set", "monthly-cap", "abc"], "next: for example: gpurun config set monthly-cap 50"),
        (["config", "set", "monthly-cap", "-3"], "above 0"),
        (["config", "set", "python", "/nope"], "next: for example: gpurun config set python"),
        (["estimate", "--gpu", "a10", "--count", "0"], "next: gpurun estimate -h"),
        (["rehearse", "hf", "--faults", "{bad"], "next: gpurun rehearse hf --list-faults"),
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
    assert (code, out) == (5, "")  # 5 whatever else it is
    assert err == "gpurun: too dear\n  may still bill: allocation i-1\n  next: raise --max-cost\n"


def test_a_bug_is_told_as_one_and_never_looks_like_a_failed_training(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(*_: object, **__: object) -> None:
        raise KeyError("x")

    monkeypatch.setattr(glance, "runs", breaks)
    code, _, err = output(capsys, "ps")
    assert code == 3
    assert "a bug of gpurun's: KeyError: 'x'" in err
    assert "Traceback" not in err
    monkeypatch.setenv("GPURUN_TRACEBACK", "1")
    assert "Traceback" in output(capsys, "ps")[2]


def test_a_full_disk_is_told_by_its_name(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/home/x/runs")

    monkeypatch.setattr(glance, "runs", full)
    code, _, err = output(capsys, "ps")
    assert (code, err) == (3, "gpurun: /home/x/runs: No space left on device\n  next: gpurun doctor\n")


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


@pytest.mark.parametrize(
    ("args", "code", "reason"),
    [
        (["lop"], 2, "usage"),
        (["loop", "--set", "epocs=1"], 2, "usage"),
        (["loop", "--set", "epochs=x"], 2, "usage"),
        (["demo", "--set", "data.train=./none.jsonl"], 2, "usage"),
        (["loop", "--gpu", "h100"], 4, "refused"),
        (["lora-8bit"], 3, "credentials"),
    ],
)
def test_a_launch_as_json_ends_with_its_object_where_nothing_was_launched_too(
    capsys: pytest.CaptureFixture[str], home: Path, args: list[str], code: int, reason: str
) -> None:
    found, out, err = output(capsys, "launch", *args, "-y", "--json")
    last = json.loads(out.splitlines()[-1])
    assert (found, last["run_id"], last["outcome"], last["reason"]) == (code, None, "failed", reason)
    assert (last["accrued_usd"], last["folder"]) == (0, None)
    assert "\n  next: " in err
    assert list(home.glob("runs/*")) == []
