"""The first process of a simulated machine: starts cron and sshd, brings sshd back, and takes everything down.

    python -I -S init.py '{"root": …, "name": …, "sshd": [argv], "isolated": true, "small_disk": false}'

Runs until its standard input ends, so that a simulator that is killed leaves nothing behind. Orders are lines there:
`sshd` (start it), `reboot`, `fill` (the disk). SIGTERM from inside is a shutdown, SIGINT a reboot.
Isolated (as root, or where users may make namespaces): it is PID 1 of a PID namespace, so the kernel ends every
process with it, whatever it did, and processes outside can't be seen or hit from inside. Else it is a child subreaper:
a daemon that forked twice stays below it and is found by its ancestry. Standard library only; Linux only.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import selectors
import shutil
import signal
import socket
import sys
import time
import uuid
from pathlib import Path
from typing import Any

NOT_ISOLATED = 3  # exit code: no namespaces to be had here
_LIBC = ctypes.CDLL(None, use_errno=True)
# linux/sched.h, sys/mount.h, linux/prctl.h
_NEW_NS, _NEW_UTS, _NEW_USER, _NEW_PID = 0x00020000, 0x04000000, 0x10000000, 0x20000000
_MS_REMOUNT, _MS_BIND, _MS_REC, _MS_PRIVATE = 32, 4096, 16384, 1 << 18
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_END_SECONDS = 20.0  # a process that hangs in the kernel, or that became another user's, can't be waited for
_SSHD_PAUSE = 0.5  # seconds until a dead sshd is started again, as systemd would


def check(result: int) -> None:
    """Turn a C call's failure into OSError."""
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def mount(source: str, target: str, kind: str, flags: int = 0, data: str = "") -> None:
    """Mount a file system, or change one."""
    check(_LIBC.mount(source.encode(), os.fsencode(target), kind.encode(), ctypes.c_ulong(flags), data.encode()))


# ── becoming PID 1 ───────────────────────────────────────────────────────────────────────────────────────────────


def leave_host() -> None:
    """Leave this computer's processes, mounts and name: the next child is PID 1. Who is not root stays who he is.

    Raises:
        OSError: the kernel refuses.
    """
    user, group = os.getuid(), os.getgid()
    check(_LIBC.unshare(_NEW_PID | _NEW_NS | _NEW_UTS | (_NEW_USER if user else 0)))
    if user:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")


def die_with_parent() -> None:
    """Have the kernel kill us when the process that made us ends."""
    check(_LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0))


def isolate() -> None:
    """Go on as PID 1 of a fresh PID, mount and UTS namespace; the caller's process waits for it.

    Leaves with NOT_ISOLATED where the kernel refuses.
    """
    try:
        leave_host()
        child = os.fork()
    except OSError:
        os._exit(NOT_ISOLATED)
    if child:
        os.close(0)  # the orders are the child's
        _, status = os.waitpid(child, 0)
        os._exit(os.waitstatus_to_exitcode(status) & 0xFF)
    die_with_parent()
    try:
        mount("none", "/", "none", _MS_REC | _MS_PRIVATE)
        mount("proc", "/proc", "proc")
    except OSError:  # Ubuntu 24.04 lets users make namespaces that can do nothing
        os._exit(NOT_ISOLATED)


def furnish(root: Path) -> None:
    """Put the machine's own in place of what is the host's: what programs keep below /var/lib, and the name of a boot.

    Leaves with NOT_ISOLATED where the kernel refuses.
    """
    (root / "var" / "lib").mkdir(parents=True, exist_ok=True)
    name_boot(root)
    try:
        mount(str(root / "var" / "lib"), "/var/lib", "none", _MS_BIND)
        mount(str(root / "run" / "boot_id"), "/proc/sys/kernel/random/boot_id", "none", _MS_BIND)
    except OSError:
        os._exit(NOT_ISOLATED)


def name_boot(root: Path) -> None:
    """Name this boot as the kernel names its own: in the same file, so that a mount of it shows the new name."""
    (root / "run" / "boot_id").write_text(f"{uuid.uuid4()}\n")


# ── the machine ──────────────────────────────────────────────────────────────────────────────────────────────────


class Init:
    """Its processes, its disk, and what it tells in run/state."""

    def __init__(self, order: dict[str, Any]) -> None:
        self.root = Path(order["root"])
        self.isolated = bool(order["isolated"])
        self.argv: list[str] = order["sshd"]
        self.sshd = 0  # its pid
        self.sshd_at: float | None = None  # when it is to be started
        self.boots = 0
        self.told = ""

    def serve(self) -> None:
        """Obey until the orders end."""
        wake, waker = socket.socketpair()
        for one in (wake, waker):
            one.settimeout(0)
        signal.set_wakeup_fd(waker.fileno())
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
            signal.signal(number, lambda *_: None)
        selector = selectors.DefaultSelector()
        selector.register(wake, selectors.EVENT_READ)
        selector.register(0, selectors.EVENT_READ)
        self.tell("booting")
        while True:
            ready = {key.fd for key, _ in selector.select(self.patience())}
            if wake.fileno() in ready:
                self.signalled(wake.recv(4096))
            if 0 in ready:
                orders = os.read(0, 4096)
                if not orders:
                    break
                for line in orders.decode().split():
                    self.obey(line)
            self.reap()
            self.look_after_sshd()
        self.end_all()

    def obey(self, order: str) -> None:
        """Carry out one order."""
        if order == "sshd":
            self.start_cron()
            self.sshd_at = time.monotonic()
        elif order == "reboot":
            self.reboot()
        elif order == "fill":
            room = os.statvfs(self.root / "home")
            used = (room.f_blocks - room.f_bfree) * room.f_frsize
            mount("tmpfs", str(self.root / "home"), "tmpfs", _MS_REMOUNT, f"size={max(used, room.f_frsize)}")
            self.tell("full")

    def signalled(self, numbers: bytes) -> None:
        """Obey what the machine's own `shutdown` and `reboot` say."""
        if signal.SIGTERM in numbers:
            self.sshd, self.sshd_at = 0, None
            self.tell("off")  # first: once all is ended, who asks shall know why
            self.end_all()
        elif signal.SIGINT in numbers:
            self.reboot()

    def reboot(self) -> None:
        """End every process and start sshd again; files stay."""
        self.sshd, self.sshd_at = 0, None
        self.end_all()
        name_boot(self.root)
        self.tell("booting")
        self.start_cron()
        self.sshd_at = time.monotonic()

    def start_cron(self) -> None:
        """Start it as an init does: with nothing of a login's environment."""
        cron, null = str(self.root / "usr" / "bin" / "cron"), os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        files = [(os.POSIX_SPAWN_DUP2, null, number) for number in range(3)]
        usual = [signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGPIPE]
        try:
            os.posix_spawn(cron, [cron], {}, file_actions=files, setsid=True, setsigdef=usual)
        finally:
            os.close(null)

    # ── sshd

    def patience(self) -> float | None:
        """Say for how long nothing is to do."""
        if self.sshd_at is not None:
            return max(0.0, self.sshd_at - time.monotonic())
        return 0.01 if self.sshd and self.told == "booting" else None

    def look_after_sshd(self) -> None:
        """Start it when it is time, and tell when it listens: it writes its pid file then."""
        pid_file = self.root / "run" / "sshd.pid"
        if self.sshd_at is not None and self.sshd_at <= time.monotonic():
            self.sshd_at = None
            pid_file.unlink(missing_ok=True)
            self.sshd = self.start_sshd()
        if self.sshd and self.told == "booting" and pid_file.exists():
            self.boots += 1
            self.tell("up")

    def start_sshd(self) -> int:
        """Start it with nothing of our environment and no files of ours open."""
        log = os.open(self.root / "log" / "sshd.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        files = [(os.POSIX_SPAWN_DUP2, null, 0), (os.POSIX_SPAWN_DUP2, null, 1), (os.POSIX_SPAWN_DUP2, log, 2)]
        usual = [signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGPIPE]
        try:
            return os.posix_spawn(self.argv[0], self.argv, {}, file_actions=files, setsid=True, setsigdef=usual)
        finally:
            os.close(log)
            os.close(null)

    def reap(self) -> None:
        """Take note of every child that ended; a dead sshd comes back."""
        with contextlib.suppress(ChildProcessError):
            while (pid := os.waitpid(-1, os.WNOHANG)[0]) != 0:
                if pid == self.sshd:
                    self.sshd, self.sshd_at = 0, time.monotonic() + _SSHD_PAUSE

    # ── the end of processes

    def end_all(self) -> None:
        """SIGKILL everything but ourselves, until nothing is left."""
        stopped: set[int] = set()
        until = time.monotonic() + _END_SECONDS
        while time.monotonic() < until:
            self.reap()
            self.sshd_at = None
            found = set(others() if self.isolated else below())
            if not found:
                return
            # Stopped first, until a look finds nobody new: what is stopped forks no more.
            number = signal.SIGSTOP if found - stopped else signal.SIGKILL
            for pid in found:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, number)
            stopped |= found
            if number == signal.SIGKILL:
                time.sleep(0.005)

    def tell(self, state: str) -> None:
        """Write the state for the simulator to read."""
        self.told = state if state != "full" else self.told
        aside = self.root / "run" / ".state"
        aside.write_text(json.dumps({"state": self.told, "boots": self.boots, "full": state == "full"}))
        aside.replace(self.root / "run" / "state")


def others() -> list[int]:
    """List every process of the namespace but us; zombies are nobody."""
    return [pid for pid, _, state in everyone() if pid != os.getpid() and state != "Z"]


def below() -> list[int]:
    """List our descendants; zombies are nobody, but they may have children."""
    children: dict[int, list[int]] = {}
    states = {}
    for pid, parent, state in everyone():
        children.setdefault(parent, []).append(pid)
        states[pid] = state
    found, fresh = set[int](), [os.getpid()]
    while fresh:
        fresh = [child for pid in fresh for child in children.get(pid, ()) if child not in found]
        found.update(fresh)
    return [pid for pid in found if states[pid] != "Z"]


def everyone() -> list[tuple[int, int, str]]:
    """List (pid, parent, state) of every process that /proc shows."""
    found = []
    for name in os.listdir("/proc"):  # noqa: PTH208 (many times a second: no objects)
        if name.isdigit():
            with contextlib.suppress(OSError):
                # "pid (command) state parent …"; the command may hold spaces and brackets.
                text = Path(f"/proc/{name}/stat").read_bytes().rpartition(b")")[2].split()
                found.append((int(name), int(text[1]), text[0].decode()))
    return found


def main() -> None:
    """Become the machine's first process."""
    order = json.loads(sys.argv[1])
    root = Path(order["root"])
    if order["isolated"]:
        isolate()
        furnish(root)
        socket.sethostname(order["name"])
    else:
        check(_LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))
    if order["small_disk"]:  # only a mount of its own can be full while the simulator's disk is not
        mount("tmpfs", str(root / "home"), "tmpfs", 0, f"size=75%,mode=0700,uid={os.getuid()},gid={os.getgid()}")
    shutil.copytree(root / "etc" / "skel", root / "home", dirs_exist_ok=True)
    (root / "run" / "init.pid").write_text(str(os.getpid()))
    Init(order).serve()


if __name__ == "__main__":
    main()
