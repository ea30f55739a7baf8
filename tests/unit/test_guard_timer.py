"""What a guard's timer is made of: real files, the same whatever the home is called, and no key in any of them."""

from __future__ import annotations

import os
import plistlib
import shutil
import stat
import subprocess
import time
from typing import TYPE_CHECKING

import pytest
from nasty import NASTY

from orchestrator import guard_install, guard_pulse, guard_timer, keys
from orchestrator.guard_pulse import Pulse, Seen
from orchestrator.home import Home
from providers.errors import StateError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

KEY = "secret_unit_0123456789abcdef"


@pytest.fixture(params=[name for name in NASTY if name != "newline"])
def nasty_home(request: pytest.FixtureRequest, tmp_path: Path) -> Home:
    return Home(tmp_path / NASTY[request.param] / "100%").ensure()


def answering(home: Home, tmp_path: Path) -> Path:
    """Put a script in the place of the guard's that says with what it was called."""
    told = tmp_path / "told"
    (home.root / guard_timer.SCRIPT).write_text(f"#!/bin/sh\nenv > '{told}'\necho ran\n")
    return told


def test_the_crontabs_line_runs_the_script_of_any_home(nasty_home: Home, tmp_path: Path) -> None:
    told = answering(nasty_home, tmp_path)
    (line,) = guard_timer.install_cron(nasty_home, [])
    command = line.split(maxsplit=5)[5].replace("\\%", "%")  # as cron does
    subprocess.run(["/bin/sh", "-c", command], env={}, check=True, timeout=10)
    assert told.exists()
    assert (nasty_home.root / "guard.log").read_text() == "ran\n"


def test_another_line_of_the_crontab_is_left_as_it_was(home: Path) -> None:
    others = ["MAILTO=me", "", "0 4 * * * backup # gpurun-guard-00000000"]
    once = guard_timer.install_cron(Home(home), others)
    assert guard_timer.install_cron(Home(home), once) == once
    assert once[:-1] == others


def test_the_script_calls_this_gpurun_with_this_home_and_carries_no_key(nasty_home: Home) -> None:
    environ = {
        "LAMBDA_API_KEY": KEY,
        "GPURUN_API_TOKEN": KEY,
        "HTTPS_PROXY": f"http://me:{KEY}@proxy:8",
        "GPURUN_LAMBDA_URL": "http://127.0.0.1:1/it's here",
        "NO_PROXY": "127.0.0.1",
        "OTHER": "not ours",
    }
    text = guard_timer.script(nasty_home, environ)
    assert KEY not in text
    shown = text[: text.rindex("exec ")] + "env -0"
    done = subprocess.run(["/bin/sh", "-c", shown], env={}, capture_output=True, check=True, timeout=10)
    values = dict(each.split(b"=", 1) for each in done.stdout.split(b"\0") if b"=" in each)
    assert values[b"GPURUN_HOME"] == os.fsencode(nasty_home.root)
    assert values[b"GPURUN_LAMBDA_URL"] == b"http://127.0.0.1:1/it's here"
    assert b"OTHER" not in values
    assert text.rstrip().endswith("-P -m orchestrator.cli guard once --quiet")


def test_the_systemd_units_of_any_home_are_found_right(nasty_home: Home, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("needs systemd-analyze")
    answering(nasty_home, tmp_path)
    units = []
    for name, text in guard_timer.units(nasty_home).items():
        (tmp_path / name).write_text(text)
        units.append(tmp_path / name)
    env = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
    argv = ["systemd-analyze", "verify", "--user", *map(str, units)]
    done = subprocess.run(argv, capture_output=True, text=True, env=env, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    timer = units[1].read_text()
    assert "OnCalendar=*-*-* *:*:00" in timer
    assert "AccuracySec=1s" in timer


def test_the_plist_runs_the_script_each_minute_and_spares_its_controllers(nasty_home: Home) -> None:
    facts = plistlib.loads(guard_timer.plist(nasty_home))
    assert facts["ProgramArguments"] == ["/bin/sh", str(nasty_home.root / guard_timer.SCRIPT)]
    assert (facts["StartInterval"], facts["AbandonProcessGroup"]) == (60, True)


def test_a_line_break_in_a_homes_name_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="line break"):
        guard_timer.install(Home(tmp_path / NASTY["newline"]), "cron")
    assert list(tmp_path.iterdir()) == []


def test_two_homes_have_two_timers(tmp_path: Path) -> None:
    assert guard_timer.name_of(Home(tmp_path / "a")) != guard_timer.name_of(Home(tmp_path / "b"))


# ── tools of this computer, in a folder that the PATH names ──────────────────────────────────────────────────────────


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A crontab that keeps its lines in `tab`, and a systemctl whose `enable` fails."""
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    crontab = f'#!/bin/sh\nif [ "$1" = -l ]; then cat {tmp_path}/tab; else cat > {tmp_path}/tab; fi\n'
    systemctl = '#!/bin/sh\n[ "$2" != enable ] || { echo "no bus"; exit 1; }\n'
    for name, text in {"crontab": crontab, "systemctl": systemctl, "loginctl": "#!/bin/sh\n"}.items():
        (bin_ / name).write_text(text)
        (bin_ / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{bin_}:{os.environ['PATH']}")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path


def test_others_lines_in_a_crontab_stay_as_they_were_byte_by_byte(tools: Path, home: Path) -> None:
    others = "# f\xfcr den Laptop\n0 4 * * * a\x0cb\x85c\n\n".encode("latin-1") + "1 4 * * * naïve\u2028x\n".encode()
    (tools / "tab").write_bytes(others)
    here = Home(home).ensure()
    for _ in range(2):
        guard_timer.install(here, "cron")
    assert (tools / "tab").read_bytes().startswith(others)
    assert guard_timer.uninstall(here)
    assert (tools / "tab").read_bytes() == others


def test_a_line_that_was_commented_out_runs_nothing(tools: Path, home: Path) -> None:
    here = Home(home).ensure()
    guard_timer.install(here, "cron")
    assert guard_timer.find(here) is not None
    (tools / "tab").write_text("# " + (tools / "tab").read_text())
    assert guard_timer.find(here) is None


def test_an_install_that_fails_leaves_no_half_of_a_timer(tools: Path, home: Path) -> None:
    here = Home(home).ensure()
    (tools / "tab").write_text("")
    with pytest.raises(StateError, match="no bus"):
        guard_timer.install(here, "systemd")
    assert not guard_pulse.is_installed(here)
    assert guard_timer.find(here) is None


def test_an_install_that_fails_leaves_no_key_behind(tools: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tools / "tab").write_text("")
    keys.keep(Home(home), "HF_TOKEN", "kept")
    monkeypatch.setenv("LAMBDA_API_KEY", KEY)
    with pytest.raises(StateError, match="no bus"):
        guard_install.install(Home(home), "systemd", lambda _text: None)
    assert keys.stored(Home(home)) == {"HF_TOKEN": "kept"}


def test_where_no_unit_can_be_written_the_error_names_cron(
    tools: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tools / "tab").write_text("")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tools / "tab"))
    with pytest.raises(StateError, match="can't be written") as caught:
        guard_timer.install(Home(home).ensure(), "systemd")
    assert caught.value.hint == "gpurun guard install --way cron"


def test_an_install_that_fails_keeps_the_timer_of_another_way(tools: Path, home: Path) -> None:
    here = Home(home).ensure()
    (tools / "tab").write_text("")
    guard_timer.install(here, "cron")
    with pytest.raises(StateError, match="no bus"):
        guard_timer.install(here, "systemd")
    assert guard_pulse.is_installed(here)
    kept = guard_timer.find(here)
    assert kept is not None
    assert kept.way == "cron"


# ── keys ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_stored_key_is_its_owners_alone_and_what_is_set_wins(home: Path) -> None:
    keys.keep(Home(home), "LAMBDA_API_KEY", KEY)
    path = keys.path_of(Home(home))
    path.chmod(0o644)
    environ = {"HF_TOKEN": "set"}
    keys.take_up(Home(home), environ)
    assert environ == {"HF_TOKEN": "set", "LAMBDA_API_KEY": KEY}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    environ = {"LAMBDA_API_KEY": "another"}
    keys.take_up(Home(home), environ)
    assert environ == {"LAMBDA_API_KEY": "another"}
    assert keys.forget(Home(home), "LAMBDA_API_KEY")
    assert not path.exists()


@pytest.mark.parametrize("value", ["", "two words", "line\nbreak", "kéy"])
def test_what_can_be_no_key_is_not_stored(home: Path, value: str) -> None:
    with pytest.raises(UsageError, match="no key"):
        keys.keep(Home(home), "LAMBDA_API_KEY", value)
    assert not keys.path_of(Home(home)).exists()


@pytest.mark.parametrize("name", ["local", "GPURUN_HOME", "lamda", "path"])
def test_only_a_provider_or_a_variable_takes_a_key(name: str) -> None:
    with pytest.raises(UsageError, match="takes no key"):
        keys.variable_of(name)


# ── the pulse in one line ────────────────────────────────────────────────────────────────────────────────────────────

WELL = Seen("acct", {"live": 1})


@pytest.mark.parametrize(
    ("age", "seen", "line"),
    [
        (40, {"lambda": WELL}, "guard: 40 s ago, all well"),
        (10800, {"lambda": WELL}, "guard: silent for 3 h: gpurun guard status"),
        (-10800, {"lambda": WELL}, "guard: its last pulse is 3 h ahead of this clock: gpurun guard status"),
        (40, {"lambda": Seen(troubles=["no answer"])}, "guard: 40 s ago, CAN'T TELL: lambda: no answer"),
        (40, {"lambda": Seen("acct", {}, unproven=[{"id": "i-1"}])}, "guard: 40 s ago, 1 NOT PROVEN GONE"),
        (40, {}, "guard: 40 s ago, CAN'T TELL: no provider's key is at hand"),
    ],
)
def test_the_pulse_is_told_in_one_line(home: Path, age: float, seen: dict[str, Seen], line: str) -> None:
    here, now = Home(home).ensure(), time.time()
    (here.root / guard_pulse.SCRIPT).write_text("")
    guard_pulse.write(here, Pulse(now - age, "me", providers=seen))
    assert guard_pulse.line(here, now) == line


def test_where_no_guard_is_installed_that_is_said_where_it_matters(home: Path) -> None:
    here = Home(home).ensure()
    assert guard_pulse.line(here, 0) == "no guard installed: gpurun guard install"
    assert guard_pulse.line(here, 0, wanted=False) == ""
    (here.root / guard_pulse.SCRIPT).write_text("")
    assert "has not run yet" in guard_pulse.line(here, 0)


def test_a_pulse_that_can_not_be_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="can't be written"):
        guard_pulse.write(Home(tmp_path / "nowhere"), Pulse(0, "me"))
