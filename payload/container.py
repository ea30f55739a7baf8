"""A container's own start of the watchdog: what SSH starts dies with the container, what its command starts comes back.

    container.py, with REQUEST = {"mark", "files": {name: text}, "arm": arm.json, "ender": ender.json}

It comes in the container's command itself, so that the meter has a holder before anybody logs in. Run at each start,
and each minute: what lies there is left, who watches is left alone. Limits are absolute: a restart wins no time.
Standard library only, Python 3.9.
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict

ARMS = 30.0  # seconds for a watchdog to arm


def main(request: Dict[str, Any]) -> int:
    """See to it that a watchdog watches; says in a line that it did not."""
    mark = str(request["mark"])
    folder = Path.home() / ".gpurun" / "jobs" / mark
    if watched(folder):
        return 0
    place(folder, request)
    argv = [sys.executable, "-B", str(folder / "payload" / "watchdog.py"), "--detach", str(folder)]
    done = subprocess.run(
        argv,
        env={**os.environ, "GPURUN_MARK": mark},
        cwd=str(folder),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=ARMS,
        start_new_session=True,
        check=False,
    )
    if done.returncode:
        print(f"gpurun: the watchdog did not arm: {done.stderr.decode('utf-8', 'replace')[-300:]}", flush=True)
    return done.returncode


def watched(folder: Path) -> bool:
    """Whether a watchdog lives: it holds its lock, whatever files say."""
    try:
        handle = os.open(folder / ".watchdog.lock", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(handle)
    return False


def place(folder: Path, request: Dict[str, Any]) -> None:
    """Put there what is missing; the orders to end the machine go where a training has no business."""
    payload = folder / "payload"
    mask = os.umask(0o077)
    payload.mkdir(parents=True, exist_ok=True)
    os.umask(mask)
    for name, text in request["files"].items():
        write(payload / name, text)
    write(folder / "arm.json", json.dumps(request["arm"]))
    sys.path.insert(0, str(payload))
    import lever

    if lever.folder_of(str(request["mark"])) is None:
        try:
            lever.put(str(request["mark"]), json.dumps(request["ender"]).encode())
        except (OSError, subprocess.SubprocessError) as error:  # its proof will say so
            print(f"gpurun: this machine can't end itself: {type(error).__name__}", flush=True)


def write(path: Path, text: str) -> None:
    """Write aside, then move into place; what is there already, a later start has put there."""
    if path.exists():
        return
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.write_text(text, encoding="utf-8")
    aside.replace(path)


if __name__ == "__main__":
    sys.exit(main(REQUEST))  # type: ignore[name-defined]  # noqa: F821 (put there by whoever unpacks it)
