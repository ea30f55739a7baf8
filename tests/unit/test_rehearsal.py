"""A rehearsal: what it takes out of the environment, which homes it refuses, what it says of the bill."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest
from past import output

from orchestrator import rehearse
from providers.errors import StateError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

REAL = {
    "LAMBDA_API_KEY": "secret_real_0123456789abcdef",
    "RUNPOD_API_KEY": "rpa_real_0123456789abcdef",
    "HF_TOKEN": "hf_real_0123456789abcdef",
    "HUGGING_FACE_HUB_TOKEN": "hf_real_0123456789abcdef",
    "HF_TOKEN_PATH": "/home/me/token",
    "GPURUN_LAMBDA_URL": "https://cloud.lambda.ai/api/v1",
    "GPURUN_HOME": "/home/me/gpurun",
}
VENDOR = rehearse.Vendor("lambda", "http://127.0.0.1:1", {"LAMBDA_API_KEY": "fake", "GPURUN_LAMBDA_URL": "http://x"})


def test_no_real_key_and_no_real_home_is_left_inside(tmp_path: Path) -> None:
    made = rehearse.inside(VENDOR, tmp_path, {**REAL, "PATH": os.defpath, "EDITOR": "vi"})
    assert [name for name, value in made.items() if value in REAL.values()] == []
    assert (made["LAMBDA_API_KEY"], made["GPURUN_LAMBDA_URL"]) == ("fake", "http://x")
    assert (made["GPURUN_HOME"], made["CONTROL"], made["EDITOR"]) == (str(tmp_path), "http://127.0.0.1:1", "vi")
    assert not os.path.lexists(made["HF_TOKEN_PATH"])


def test_a_simulator_is_started_without_them_too() -> None:
    assert set(rehearse.clean_environment({**REAL, "PATH": "/bin"})) == {"PATH"}


def test_gpurun_is_found_inside_though_it_is_not_on_the_path(tmp_path: Path) -> None:
    made = rehearse.inside(VENDOR, tmp_path, {"PATH": str(tmp_path)})
    assert made["PATH"].split(os.pathsep)[0] == str(tmp_path)
    assert os.path.dirname(sys.executable) in made["PATH"].split(os.pathsep)  # noqa: PTH120 (as PATH has it)


def test_loopback_is_asked_past_any_proxy(tmp_path: Path) -> None:
    made = rehearse.inside(VENDOR, tmp_path, {"HTTPS_PROXY": "http://proxy", "NO_PROXY": "intra.net"})
    assert made["NO_PROXY"].split(",") == ["127.0.0.1", "localhost", "intra.net"]


def test_one_word_is_a_line_for_the_shell_and_several_are_a_program() -> None:
    assert rehearse.argv_of([], {"SHELL": "/bin/zsh"}) == ["/bin/zsh"]
    assert rehearse.argv_of([], {}) == ["/bin/sh"]
    assert rehearse.argv_of(["a && b"], {"SHELL": "/bin/zsh"}) == ["/bin/zsh", "-c", "a && b"]
    assert rehearse.argv_of(["a", "b c"], {"SHELL": "/bin/zsh"}) == ["a", "b c"]


def test_exit_codes_are_those_of_a_shell() -> None:
    for line, code in (("exit 7", 7), ("kill -9 $$", 137), ("true", 0)):
        assert rehearse.run(["sh", "-c", line], dict(os.environ)) == code
    with pytest.raises(UsageError, match="there is no program nonesuch"):
        rehearse.run(["nonesuch"], dict(os.environ))


# ── its home ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_home_of_its_own_goes_with_it_unless_it_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with rehearse.stage(None, keep=False) as gone:
        (gone / "runs").mkdir()
    with rehearse.stage(None, keep=True) as kept:
        (kept / "runs").mkdir()
    assert (gone.exists(), (kept / "runs").is_dir()) == (False, True)
    with rehearse.stage(kept, keep=False):
        pass
    assert kept.exists()


def test_a_home_that_may_hold_real_runs_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ledger.sqlite").write_text("")
    with pytest.raises(UsageError, match="its runs may be real"), rehearse.stage(tmp_path, keep=False):
        pass


def test_a_home_serves_one_rehearsal_at_a_time(tmp_path: Path) -> None:
    with (
        rehearse.stage(tmp_path / "new", keep=False) as home,
        pytest.raises(UsageError, match="another rehearsal is on"),
        rehearse.stage(home, keep=False),
    ):
        pass


def test_every_process_of_its_home_ends_with_it_and_no_other(tmp_path: Path) -> None:
    sleep = ["sleep", "60"]
    other = subprocess.Popen(sleep, env={**os.environ, "GPURUN_HOME": str(tmp_path / "other")})
    with rehearse.stage(tmp_path / "home", keep=False) as home:
        stubborn = ["sh", "-c", "trap '' TERM HUP; echo; while :; do sleep 0.1; done"]
        env = {**os.environ, "GPURUN_HOME": str(home)}
        with subprocess.Popen(sleep, env=env) as one, subprocess.Popen(stubborn, env=env, stdout=-1) as two:
            assert two.stdout is not None
            two.stdout.readline()
            rehearse.end_processes(home, seconds=0.3)
            assert None not in {one.poll(), two.poll()}
    with other:
        assert other.poll() is None
        other.kill()


# ── what is said ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_end_says_what_a_vendor_would_go_on_billing() -> None:
    rows = (
        {"id": "a1", "name": "my-box", "status": "active", "price": "1.29", "ended": None},
        {"id": "b2", "name": "gpurun-\x1b[2J0000", "status": "booting", "price": "3.29", "ended": None},
        {"id": "c3", "name": "", "status": "terminated", "price": "1.29", "ended": "2026-11-22T14:00:00.000Z"},
    )
    told = rehearse.verdict(rehearse.Meter(2, Decimal("0.0430"), rows)).splitlines()
    assert told[0].startswith("the rehearsal's meter: 2 STILL BILL at $4.58/h, $0.0430 in all.")
    assert told[2:] == ["  my-box (active, $1.29/h)", "  gpurun-0000 (booting, $3.29/h)"]
    assert "\x1b" not in "".join(told)
    assert rehearse.verdict(rehearse.Meter(0, Decimal(0), rows[2:])) == (
        "the rehearsal's meter: nothing bills any more, $0.00 in all"
    )


def test_a_meter_that_does_not_answer_is_an_error_and_not_zero() -> None:
    with pytest.raises(StateError, match="does not answer any more"):
        rehearse.read_meter(VENDOR)


def test_the_banner_keeps_to_80_columns(tmp_path: Path) -> None:
    told = rehearse.banner(VENDOR, tmp_path)
    assert all(len(line) <= 80 or "/" in line for line in told.splitlines())
    assert "curl $CONTROL/meter" in told


# ── what is refused before anything starts ───────────────────────────────────────────────────────────────────────────


def test_an_unknown_vendor_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = output(capsys, "rehearse", "lamda", "--", "true")
    assert (code, out) == (2, "")
    assert "there is no rehearsal of 'lamda'; there are: lambda" in err


@pytest.mark.parametrize(("there", "package"), [((), "openssh-client"), (("ssh",), "openssh-server")])
def test_a_missing_program_names_its_package(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    there: tuple[str, ...],
    package: str,
) -> None:
    for name in there:
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(rehearse, "_SYSTEM_FOLDERS", str(tmp_path))
    code, _, err = output(capsys, "rehearse", "--", "true")
    assert code == 3
    assert f"apt-get install {package}" in err


@pytest.mark.parametrize(
    ("option", "words"), [(["--faults", "{"], "--faults"), (["--faults", '{"unhelthy": 1}'], "unhealthy")]
)
def test_what_the_simulator_refuses_is_told_in_its_words(
    capsys: pytest.CaptureFixture[str], option: list[str], words: str
) -> None:
    code, _, err = output(capsys, "rehearse", *option, "--", "true")
    assert code == 2
    assert words in err


def test_the_exit_code_of_the_command_is_passed_on_and_stdout_is_its_own(capfd: pytest.CaptureFixture[str]) -> None:
    from orchestrator.cli import run

    code = run(["rehearse", "--", "curl -s $CONTROL/meter; echo $GPURUN_HOME >&2; exit 9"])
    told = capfd.readouterr()
    assert code == 9
    assert json.loads(told.out)["billing_now"] == 0
    home, verdict = told.err.splitlines()
    assert not os.path.lexists(home)
    assert verdict == "the rehearsal's meter: nothing bills any more, $0.00 in all"
