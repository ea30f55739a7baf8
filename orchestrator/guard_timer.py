"""The guard's timer: systemd's user timer, launchd, or cron. Real files, named by the home; twice is as once.

    <home>/guard.sh  <── run each minute by ──  ~/.config/systemd/user/gpurun-guard-<hash>.{service,timer}
    (absolute paths, settings, no key)          ~/Library/LaunchAgents/gpurun-guard-<hash>.plist
                                                one line of the user's crontab

Not here: what the guard does. It is tried at once as the timer would run it, with nothing of this shell's environment.
"""

from __future__ import annotations

import hashlib
import os
import plistlib
import pwd
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.guard_pulse import SCRIPT
from orchestrator.home import write_aside
from providers.errors import StateError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator.home import Home

WAYS = ("systemd", "launchd", "cron")
_TRY_SECONDS = 600.0  # a pass that ends a thousand machines takes minutes
# Beside GPURUN_*: what reaches a vendor from here. No key, and no proxy that holds a password.
_PASSED = frozenset({"PATH", "LANG", "XDG_CACHE_HOME", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"})
_PASSED |= {"HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "https_proxy", "http_proxy", "no_proxy"}
_NOT_PASSED = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|^GPURUN_(HOME|MARK|TEST_SESSION|TRACEBACK|PYTHON_MARK)$")


@dataclass(frozen=True, slots=True)
class Timer:
    """What runs the guard of one home."""

    way: str
    files: tuple[Path, ...]
    note: str = ""  # why it may not run, as far as can be seen


def name_of(home: Home) -> str:
    """Name a home's timer: two homes have two."""
    return f"gpurun-guard-{hashlib.sha256(str(home.root).encode()).hexdigest()[:8]}"


def way_here() -> str:
    """Choose what this computer has.

    Raises:
        StateError: it has none of them.
    """
    if sys.platform == "darwin":
        return "launchd"
    if _quiet("systemctl", "--user", "show-environment"):
        return "systemd"
    if _there("crontab"):
        return "cron"
    hint = "on Debian and Ubuntu: apt-get install cron; or leave this running: gpurun guard watch"
    raise StateError("this computer has neither a systemd user session nor cron", hint=hint)


def install(home: Home, way: str = "") -> Timer:
    """Write the files and start the timer; what was installed another way before is removed.

    Raises:
        StateError: it can't be done; names the tool and what it said.
        UsageError: the home's name can't stand in a timer's file.
    """
    if "\n" in str(home.root):
        text = "a home with a line break in its name can't stand in a timer's file"
        raise UsageError(text, hint="gpurun guard watch")
    way, before = way or way_here(), find(home)
    _write(home.root / SCRIPT, script(home, os.environ), 0o700)
    try:
        timer = _INSTALL[way](home)
    except StateError:  # what was installed before goes on; half a timer must not pass for one
        if before is None or before.way != way:
            _REMOVE[way](home)
        if before is None:
            (home.root / SCRIPT).unlink(missing_ok=True)
        raise
    for other in WAYS:
        if other != way:
            _REMOVE[other](home)
    return timer


def uninstall(home: Home) -> list[str]:
    """Remove what `install` made, and nothing else; names what was removed."""
    removed = [path for way in WAYS for path in _REMOVE[way](home)]
    if (home.root / SCRIPT).exists():
        (home.root / SCRIPT).unlink()
        removed.append(str(home.root / SCRIPT))
    return removed


def find(home: Home) -> Timer | None:
    """Find what is installed for a home."""
    name = name_of(home)
    units = tuple(_units() / f"{name}.{kind}" for kind in ("service", "timer"))
    if all(path.is_file() for path in units):
        note = "" if _quiet("systemctl", "--user", "is-active", f"{name}.timer") else "its timer is not active"
        return Timer("systemd", units, note)
    if _plist(home).is_file():
        return Timer("launchd", (_plist(home),))
    if any(name in line and not line.lstrip().startswith("#") for line in _readable_crontab()):
        return Timer("cron", (), _cron_note())
    return None


def try_once(home: Home, way: str) -> tuple[int, str]:
    """Run the guard once in the timer's own environment; gives its exit code and its last words."""
    if way == "systemd":
        done = _run("systemctl", "--user", "start", f"{name_of(home)}.service", seconds=_TRY_SECONDS)
        words = _run("journalctl", "--user", "-n", "5", "-o", "cat", "-u", f"{name_of(home)}.service").stdout
        return done.returncode, (words or done.stderr).strip()
    user = pwd.getpwuid(os.getuid())
    bare = {"HOME": user.pw_dir, "LOGNAME": user.pw_name, "SHELL": "/bin/sh", "PATH": "/usr/bin:/bin"}  # as cron does
    done = _run("/bin/sh", "-c", _command(home), seconds=_TRY_SECONDS, env=bare)
    return done.returncode, (done.stderr or done.stdout).strip()


def script(home: Home, environ: Mapping[str, str]) -> str:
    """Spell what the timer runs: absolute paths, the settings that are in force now, no key."""
    passed = {name: value for name, value in environ.items() if is_passed(name, value)}
    exports = [f"export {name}={shlex.quote(value)}" for name, value in sorted(passed.items())]
    return "\n".join(
        [
            "#!/bin/sh",
            "# Written by `gpurun guard install`, removed by `gpurun guard uninstall`: run by a timer each minute.",
            f"export GPURUN_HOME={shlex.quote(str(home.root))}",
            *exports,
            f"exec {shlex.quote(sys.executable)} -P -m orchestrator.cli guard once --quiet",
            "",
        ]
    )


def is_passed(name: str, value: str) -> bool:
    """Whether a variable is a setting that a guard needs, and no secret."""
    if "\n" in value or _NOT_PASSED.search(name) or ("proxy" in name.lower() and "@" in value):
        return False
    return name in _PASSED or name.startswith("GPURUN_")


def _command(home: Home) -> str:
    return f"/bin/sh {shlex.quote(str(home.root / SCRIPT))}"


# ── systemd ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _units() -> Path:
    return Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser() / "systemd" / "user"


def units(home: Home) -> dict[str, str]:
    """Spell the two units by their file names."""
    name, path = name_of(home), str(home.root / SCRIPT)
    quoted = path.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    service = f"""# Written by `gpurun guard install`, removed by `gpurun guard uninstall`.
[Unit]
Description=gpurun guard: ends rented machines that are past their ceiling

[Service]
Type=oneshot
ExecStart=/bin/sh "{quoted}"
# The controllers that a pass starts for runs that nobody holds go on after it.
KillMode=process
TimeoutStartSec=900
"""
    timer = """# Written by `gpurun guard install`, removed by `gpurun guard uninstall`.
[Unit]
Description=gpurun guard, each minute

[Timer]
OnCalendar=*-*-* *:*:00
AccuracySec=1s
Persistent=true

[Install]
WantedBy=timers.target
"""
    return {f"{name}.service": service, f"{name}.timer": timer}


def _install_systemd(home: Home) -> Timer:
    files = []
    for name, text in units(home).items():
        _write(_units() / name, text, 0o644, "gpurun guard install --way cron")
        files.append(_units() / name)
    _must("systemctl", "--user", "daemon-reload")
    _must("systemctl", "--user", "enable", "--now", f"{name_of(home)}.timer")
    user = pwd.getpwuid(os.getuid()).pw_name
    lingers = _quiet("loginctl", "enable-linger", user)
    note = "" if lingers else f"it sleeps while you are logged out: sudo loginctl enable-linger {user}"
    return Timer("systemd", tuple(files), note)


def _remove_systemd(home: Home) -> list[str]:
    there = [_units() / name for name in units(home) if (_units() / name).exists()]
    if there:
        _quiet("systemctl", "--user", "disable", "--now", f"{name_of(home)}.timer")
        for path in there:
            path.unlink()
        _quiet("systemctl", "--user", "daemon-reload")
    return [str(path) for path in there]


# ── launchd ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _plist(home: Home) -> Path:
    return Path("~/Library/LaunchAgents").expanduser() / f"{name_of(home)}.plist"


def plist(home: Home) -> bytes:
    """Spell launchd's file."""
    facts = {
        "Label": name_of(home),
        "ProgramArguments": ["/bin/sh", str(home.root / SCRIPT)],
        "StartInterval": 60,
        "RunAtLoad": True,
        "AbandonProcessGroup": True,  # the controllers that a pass starts go on after it
        "ProcessType": "Background",
    }
    return plistlib.dumps(facts)


def _install_launchd(home: Home) -> Timer:
    path, domain = _plist(home), f"gui/{os.getuid()}"
    _write(path, plist(home).decode(), 0o644)
    _quiet("launchctl", "bootout", f"{domain}/{name_of(home)}")
    _must("launchctl", "bootstrap", domain, str(path))
    return Timer("launchd", (path,))


def _remove_launchd(home: Home) -> list[str]:
    path = _plist(home)
    if not path.exists():
        return []
    _quiet("launchctl", "bootout", f"gui/{os.getuid()}/{name_of(home)}")
    path.unlink()
    return [str(path)]


# ── cron ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def cron_line(home: Home) -> str:
    """Spell the crontab's line; a per cent sign would be a line's end there."""
    log = shlex.quote(str(home.root / "guard.log"))  # of the last pass: with --quiet only what is not well
    return f"* * * * * {_command(home)} >{log} 2>&1 # {name_of(home)}".replace("%", "\\%")


def install_cron(home: Home, lines: list[str]) -> list[str]:
    """Give a crontab's lines with this home's, once."""
    return [*(line for line in lines if name_of(home) not in line), cron_line(home)]


def _install_cron(home: Home) -> Timer:
    _set_crontab(install_cron(home, _crontab()))
    return Timer("cron", (), _cron_note())


def _remove_cron(home: Home) -> list[str]:
    lines = _readable_crontab()
    ours = [line for line in lines if name_of(home) in line]
    if ours:
        _set_crontab([line for line in lines if line not in ours])
    return [f"crontab: {line}" for line in ours]


def _readable_crontab() -> list[str]:
    try:
        return _crontab() if _there("crontab") else []
    except StateError:
        return []  # who may not read a crontab has none


def _crontab() -> list[str]:
    done = _run("crontab", "-l", errors="surrogateescape")  # others' lines are written back as they were, byte by byte
    if done.returncode == 0:
        return done.stdout.removesuffix("\n").split("\n") if done.stdout else []
    if "no crontab for" in done.stderr or "No such file" in done.stderr:  # the latter is busybox's word
        return []
    raise StateError(f"crontab -l: {done.stderr.strip()}", hint="gpurun guard watch")  # never write over what is there


def _set_crontab(lines: list[str]) -> None:
    _must("crontab", "-", text="".join(f"{line}\n" for line in lines), errors="surrogateescape")


def _cron_note() -> str:
    """Say that nobody reads the crontab, where that can be seen."""
    import psutil

    if any(process.info["name"] in {"cron", "crond", "busybox"} for process in psutil.process_iter(["name"])):
        return ""
    return "no cron daemon runs here, so nothing will run it: service cron start"


_INSTALL = {"systemd": _install_systemd, "launchd": _install_launchd, "cron": _install_cron}
_REMOVE = {"systemd": _remove_systemd, "launchd": _remove_launchd, "cron": _remove_cron}


# ── tools ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _there(tool: str) -> bool:
    import shutil

    return shutil.which(tool) is not None


def _run(
    *argv: str,
    text: str = "",
    seconds: float = 60.0,
    env: Mapping[str, str] | None = None,
    errors: str = "replace",
) -> subprocess.CompletedProcess[str]:
    how: dict[str, Any] = {"encoding": "utf-8", "errors": errors, "timeout": seconds, "env": env}
    try:
        return subprocess.run(argv, input=text, capture_output=True, check=False, **how)
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(argv, 127, "", f"{argv[0]}: {error}")


def _quiet(*argv: str) -> bool:
    return _run(*argv).returncode == 0


def _must(*argv: str, text: str = "", errors: str = "replace") -> None:
    done = _run(*argv, text=text, errors=errors)
    if done.returncode:
        words = (done.stderr or done.stdout).strip() or f"exit code {done.returncode}"
        raise StateError(f"{' '.join(argv)}: {words}", hint="leave this running instead: gpurun guard watch")


def _write(path: Path, text: str, mode: int, hint: str = "gpurun doctor") -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_aside(path, text.encode())
        path.chmod(mode)
    except OSError as error:
        raise StateError(f"{path} can't be written: {error.strerror}", hint=hint) from error
