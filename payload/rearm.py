"""Have a machine start the watchdog again after a reboot, and after it was killed: systemd, else cron, else nobody.

    python rearm.py install <folder> <mark>    {"rearm": "systemd" | "user" (systemd's) | "cron" | "": the agent alone}
    python rearm.py remove <folder> <mark>     once the watchdog has done its work

A unit's watchdog stands by for the lock, so that it takes over in an instant; cron's looks each minute. Both may be
done again at any time. GPURUN_REARM names one of the means, or `none`. Standard library only, Python 3.9.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pwd
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Callable, Dict, Iterator, List, Tuple

sys.path.insert(0, str(Path(__file__).resolve().parent))

from lever import as_root

SYSTEM = Path("/etc/systemd/system")
SECONDS = 30.0  # for one command
OVER = 75  # the watchdog's exit code when there is nothing to watch any more: EX_TEMPFAIL, which nothing else here says


# ---- texts: pure -----------------------------------------------------------------------------------------------------


def unit_name(mark: str) -> str:
    """Name a job's unit."""
    return f"gpurun-watchdog-{mark}.service"


def unit(argv: List[str], mark: str, user: str) -> str:
    """Spell the unit; `user` = "" for a unit of the user's own.

    Killed, it must not take the training along: `KillMode=process`.
    """
    lines = [
        "[Unit]",
        f"Description=gpurun: ends {mark} when its time is up",
        "StartLimitIntervalSec=0",
        "",
        "[Service]",
        "Type=simple",
        *([f"User={user}"] if user else []),
        "ExecStart=" + " ".join(map(unit_word, argv)),
        "Restart=always",
        "RestartSec=1",
        f"SuccessExitStatus={OVER}",
        f"RestartPreventExitStatus={OVER}",
        "KillMode=process",
        "OOMPolicy=continue",
        "",
        "[Install]",
        f"WantedBy={'multi-user.target' if user else 'default.target'}",
    ]
    return "\n".join(lines) + "\n"


def unit_word(word: str) -> str:
    """Quote a word of a unit's command line (systemd.service, "Command lines").

    Raises:
        ValueError: a line break can't stand there.
    """
    if "\n" in word:
        raise ValueError("a line break can't stand in a unit")
    return '"' + word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$") + '"'


def cron_lines(argv: List[str], mark: str) -> List[str]:
    """Spell the lines of a crontab: cron hands them to /bin/sh, and takes a bare % for a line break.

    Raises:
        ValueError: a line break can't stand there.
    """
    command = " ".join(map(shlex.quote, argv)).replace("%", r"\%")
    if "\n" in command:
        raise ValueError("a line break can't stand in a crontab")
    return [f"{when} {command} >/dev/null 2>&1 # gpurun {mark}" for when in ("@reboot", "* * * * *")]


def crontab_without(crontab: str, mark: str) -> str:
    """Leave a job's lines out; all others stay as they are."""
    lines = crontab[:-1].split("\n") if crontab.endswith("\n") else crontab.split("\n") if crontab else []
    kept = [line for line in lines if not line.endswith(f" # gpurun {mark}")]
    return "".join(f"{line}\n" for line in kept)


# ---- deeds -----------------------------------------------------------------------------------------------------------


def install(folder: Path, mark: str) -> Tuple[str, str]:
    """Install by the first means that works; gives its name ("" = none), and why the others don't."""
    why = []
    wanted = os.environ.get("GPURUN_REARM", "")
    for name, deed in MEANS.items():
        if wanted not in ("", name):
            continue
        try:
            deed(folder, mark)
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            why.append(f"{name}: {said(error)}")
        else:
            return name, "; ".join(why)
    return "", "; ".join(why) or f"GPURUN_REARM={wanted}"


def said(error: Exception) -> str:
    """What went wrong, in a line."""
    if isinstance(error, subprocess.CalledProcessError):
        words = (error.stderr or b"").decode("utf-8", "replace").strip().split("\n")[-1]
        return words[:200] or f"{error.cmd[0]} left with {error.returncode}"
    return str(error)[:200]


def command(verb: str, folder: Path, mark: str) -> List[str]:
    """Spell how this program is run: a process of its own, since the watchdog buries every child."""
    return [sys.executable, "-B", str(folder / "payload" / "rearm.py"), verb, str(folder), mark]


def argv_of(folder: Path, flag: str) -> List[str]:
    """Spell how the watchdog is started by those who know nothing of ours."""
    return [sys.executable, "-B", str(folder / "payload" / "watchdog.py"), flag, str(folder)]


def by_systemd(folder: Path, mark: str) -> None:
    """A unit of the system's, for this user."""
    root = as_root() if runs_systemd() else None
    if root is None:
        raise OSError("no systemd, or no root")
    text = unit(argv_of(folder, "--stand-by"), mark, pwd.getpwuid(os.getuid()).pw_name)
    path = SYSTEM / unit_name(mark)
    run([*root, "sh", "-c", 'cat > "$1.new" && mv "$1.new" "$1"', "sh", str(path)], text)
    run([*root, "systemctl", "daemon-reload"])
    run([*root, "systemctl", "enable", "--now", "--no-block", path.name])


def by_user_unit(folder: Path, mark: str) -> None:
    """A unit of this user's, who need not be logged in."""
    if not runs_systemd():
        raise OSError("no systemd")
    path = user_units() / unit_name(mark)
    run(["systemctl", "--user", "show-environment"])
    run(["loginctl", "enable-linger"])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(unit(argv_of(folder, "--stand-by"), mark, ""))
    run(["systemctl", "--user", "daemon-reload"])
    run(["systemctl", "--user", "enable", "--now", "--no-block", path.name])


def by_cron(folder: Path, mark: str) -> None:
    """Two lines in this user's crontab."""
    if not any(name in ("cron", "crond") for name in names()):
        raise OSError("no cron runs")
    lines = cron_lines(argv_of(folder, "--again"), mark)
    change_crontab(lambda before: crontab_without(before, mark) + "".join(f"{line}\n" for line in lines))


MEANS: Dict[str, Callable[[Path, str], None]] = {"systemd": by_systemd, "user": by_user_unit, "cron": by_cron}


def remove(mark: str) -> None:
    """Remove whatever was installed; what fails stays, and starts a watchdog that leaves at once."""
    path = SYSTEM / unit_name(mark)
    root = as_root() if path.exists() else None
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        if root is not None:
            run([*root, "systemctl", "disable", path.name])
            run([*root, "rm", "-f", str(path)])
            run([*root, "systemctl", "daemon-reload"])
    own = user_units() / path.name
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        if own.exists():
            run(["systemctl", "--user", "disable", own.name])
            own.unlink()
            run(["systemctl", "--user", "daemon-reload"])
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        if f" # gpurun {mark}\n" in crontab():
            change_crontab(lambda before: crontab_without(before, mark))


def user_units() -> Path:
    """Where this user's units lie."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "systemd" / "user"


def runs_systemd() -> bool:
    """Whether systemd is the first process here: in a container its files may lie about."""
    try:
        return Path("/proc/1/comm").read_text().strip() == "systemd" and Path("/run/systemd/system").exists()
    except OSError:
        return False


def names() -> Iterator[str]:
    """Name every process."""
    for path in Path("/proc").glob("[0-9]*/comm"):
        with contextlib.suppress(OSError):
            yield path.read_text().strip()


def crontab() -> str:
    """Read this user's crontab; "" = there is none.

    Raises:
        OSError, subprocess.CalledProcessError: it can't be read, and so must not be written.
    """
    try:
        return run(["crontab", "-l"])
    except subprocess.CalledProcessError as error:
        if b"no crontab" in error.stderr or b"No such file" in error.stderr:
            return ""
        raise


def change_crontab(change: Callable[[str], str]) -> None:
    """Put another crontab in its place; two jobs of one user take turns."""
    handle = os.open(Path.home(), os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        run(["crontab", "-"], change(crontab()))
    finally:
        os.close(handle)


def run(argv: List[str], stdin: str = "") -> str:
    """Run a command that must succeed; gives what it says. Its environment has no mark: it is not of the job."""
    env = {**{name: value for name, value in os.environ.items() if name != "GPURUN_MARK"}, "LC_ALL": "C"}
    given = stdin.encode("utf-8", "surrogateescape")
    done = subprocess.run(argv, input=given, capture_output=True, timeout=SECONDS, check=True, env=env)
    return done.stdout.decode("utf-8", "surrogateescape")  # others' lines of a crontab are written back as they were


def main(argv: List[str]) -> int:
    """Read the command line."""
    if len(argv) != 4 or argv[1] not in ("install", "remove"):
        print("usage: rearm.py install|remove <folder> <mark>", file=sys.stderr)
        return 2
    if argv[1] == "remove":
        remove(argv[3])
    else:
        means, failed = install(Path(argv[2]), argv[3])
        print(json.dumps({"rearm": means, "rearm_failed": failed}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
