"""A pod's container: a root of its own, this computer's programs in it, and the pod's command as its first process.

    python -I -S cell.py <order.json>     lives as long as the command does, and leaves with its exit code
    python -I -S cell.py --try            leaves with 3 where the kernel gives no namespaces

The order: {"root": folder, "own": [names at the top], "binds": [[outside, inside], …],
"argv": […], "env": {…}, "name": …, "small": bool}. Lines on standard input: `fill` (the disk); its end is the end of
the container, so that a simulator that is killed leaves nothing behind. The command is PID 1 of a PID namespace: the
kernel ends all else with it, as it does in a real container. Standard library only; Linux only.
"""

from __future__ import annotations

import json
import os
import selectors
import shutil
import signal
import socket
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "machine"))

import init  # type: ignore[import-not-found]  # simulators/machine/init.py: its calls into the kernel

NOT_ISOLATED, NO_PROGRAM, ENDED = 3, 127, 137
_MS_REMOUNT, _MS_BIND, _MS_REC, _MS_PRIVATE = 32, 4096, 16384, 1 << 18
_SMALL_BYTES = 2**28  # of a disk that is to be filled, until it is


def make_small(order: dict[str, Any]) -> None:
    """Put a disk that can be filled in place of the real one; what is written there is gone with a restart."""
    disk = Path(order["root"])
    small = disk.with_name("small")
    small.mkdir(exist_ok=True)
    init.mount("tmpfs", str(small), "tmpfs", 0, f"mode=0755,size={_SMALL_BYTES}")
    shutil.copytree(disk, small, symlinks=True, dirs_exist_ok=True)
    order["root"] = str(small)


def furnish(order: dict[str, Any]) -> None:
    """Mount this computer's folders into the root, then what is the pod's own."""
    root = Path(order["root"])
    for entry in Path("/").iterdir():
        target = root / entry.name
        if entry.name in order["own"] or target.is_symlink():
            continue
        if entry.is_symlink():
            target.symlink_to(entry.readlink())
        elif entry.name == "proc":
            target.mkdir(exist_ok=True)
            init.mount("proc", str(target), "proc")
        elif entry.is_dir():
            target.mkdir(exist_ok=True)
            init.mount(str(entry), str(target), "none", _MS_BIND | _MS_REC)
    if (root / "dev" / "shm").is_dir():
        init.mount("tmpfs", str(root / "dev" / "shm"), "tmpfs", 0, "mode=1777")
    for outside, inside in order["binds"]:
        bind(Path(outside), root / inside.lstrip("/"))


def bind(outside: Path, inside: Path) -> None:
    """Show a file or folder at a place of the root."""
    if outside.is_dir():
        inside.mkdir(parents=True, exist_ok=True)
    elif not inside.exists():
        inside.parent.mkdir(parents=True, exist_ok=True)
        inside.touch()
    init.mount(str(outside), str(inside), "none", _MS_BIND | _MS_REC)


def become(order: dict[str, Any]) -> None:
    """Be PID 1: step into the root and become the pod's command."""
    init.die_with_parent()
    try:
        furnish(order)
        socket.sethostname(order["name"])
        os.chroot(order["root"])
        os.chdir("/")
    except OSError as error:
        print(f"no container: {error}", flush=True)  # noqa: T201 - as below
        os._exit(NOT_ISOLATED)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.setsid()
    try:
        os.execvpe(order["argv"][0], order["argv"], order["env"])  # noqa: S606 - to become it is the point
    except OSError as error:
        print(f"exec: {order['argv'][0]}: {error.strerror}", flush=True)  # noqa: T201 - the container's own words
        os._exit(NO_PROGRAM)


def fill(order: dict[str, Any]) -> None:
    """Leave no byte free on the small disk."""
    room = os.statvfs(order["root"])
    used = (room.f_blocks - room.f_bfree) * room.f_frsize
    init.mount("tmpfs", order["root"], "tmpfs", _MS_REMOUNT, f"size={max(used, room.f_frsize)}")


def keep(child: int, order: dict[str, Any]) -> int:
    """Wait for the command, or for the end of our orders; gives the exit code."""
    wake, waker = socket.socketpair()
    for one in (wake, waker):
        one.settimeout(0)
    signal.set_wakeup_fd(waker.fileno())
    signal.signal(signal.SIGCHLD, lambda *_: None)
    with selectors.DefaultSelector() as selector:
        selector.register(wake, selectors.EVENT_READ)
        selector.register(0, selectors.EVENT_READ)
        while True:
            pid, status = os.waitpid(child, os.WNOHANG)
            if pid:
                code = os.waitstatus_to_exitcode(status)
                return code if code >= 0 else 128 - code
            if 0 in {key.fd for key, _ in selector.select()}:
                words = os.read(0, 4096)
                if not words:
                    break
                if b"fill" in words:
                    fill(order)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return ENDED


def main() -> None:
    """Start the container and see it through."""
    is_try = sys.argv[1] == "--try"
    order = {"small": False} if is_try else json.loads(Path(sys.argv[1]).read_bytes())
    try:
        init.leave_host()
        init.mount("none", "/", "none", _MS_REC | _MS_PRIVATE)
        if is_try:
            return
        if order["small"]:
            make_small(order)
        child = os.fork()
    except OSError as error:
        print(f"no container: {error}", flush=True)  # noqa: T201 - the simulator reads it
        sys.exit(NOT_ISOLATED)
    if not child:
        become(order)
    null = os.open(os.devnull, os.O_WRONLY)
    for number in (1, 2):  # the command's own: their end is its end
        os.dup2(null, number)
    sys.exit(keep(child, order))


if __name__ == "__main__":
    main()
