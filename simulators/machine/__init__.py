"""A simulated rented machine: a real private sshd, real processes, real files, and a wire that can be cut.

    machine = Machine(folder, name="m1", ip="127.9.0.1", port=2200, user=getpass.getuser(), authorized_keys=[…], …)
    machine.boot()                      # ssh -p 2200 127.9.0.1
    machine.link.cut(after_bytes=2**20)
    machine.destroy()

    client ── ip:port ── Link ── sshd ── shells     below init.py, which ends them all, also when the simulator dies

Faults by name: `wrong_host_key` `sshd_late` `sshd_never` `cuda_broken` `driver_old` `disk_full`. Linux only: it answers
on all of 127/8. The API in front of machines, their price and their moods are not here.
"""

from __future__ import annotations

import getpass
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from simulators.folders import remove
from simulators.machine import image, sshd
from simulators.machine.link import Link

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["FAULTS", "Link", "Machine"]

FAULTS = frozenset({"wrong_host_key", "sshd_late", "sshd_never", "cuda_broken", "driver_old", "disk_full"})
MARK = "GPURUN_SIMULATED_MACHINE"  # in the environment of every process of a machine
_PATIENCE_SECONDS = 60.0  # sshd is up in 0.1 s; a loaded computer is no fault
_NOT_ISOLATED = 3  # init.py's exit code where the kernel gives no namespaces


class Machine:
    """One machine, from its first boot until it is destroyed. Its files lie in `root`, the user's in `root/home`."""

    def __init__(
        self,
        root: Path,
        *,
        name: str,
        ip: str,
        port: int,
        user: str,
        authorized_keys: list[str],
        user_data: str,
        gpus: int,
        gpu_name: str,
        memory_mib: int,
        faults: frozenset[str],
        late_seconds: float = 20.0,
        isolated: bool | None = None,
    ) -> None:
        """`late_seconds`: how late `sshd_late` is. `isolated`: a PID namespace; None = where one is to be had.

        Raises:
            ValueError: a fault nobody knows, or a user who is not the one that runs the simulator.
        """
        if unknown := faults - FAULTS:
            raise ValueError(f"unknown fault {', '.join(sorted(unknown))}; known are {', '.join(sorted(FAULTS))}")
        if user != getpass.getuser():
            raise ValueError(f"a simulated machine's user is who runs the simulator: {getpass.getuser()}, not {user}")
        self.root, self.name, self.faults = root, name, faults
        self._ip, self._user = ip, user
        self._authorized_keys, self._user_data = authorized_keys, user_data
        self._gpu = image.Gpu(gpu_name, gpus, memory_mib, faults)
        self._late_seconds = late_seconds if "sshd_late" in faults else 0.0
        self._isolated = isolated
        self._mark = uuid.uuid4().hex
        self._init: subprocess.Popen[bytes] | None = None
        self._opener: threading.Thread | None = None
        self._gone = threading.Event()
        self._lock = threading.RLock()
        self.link = Link((ip, port), (ip, 0))

    @property
    def home(self) -> Path:
        """The home folder; with `disk_full` its files are seen from inside only."""
        return self.root / "home"

    @property
    def alive(self) -> bool:
        """Whether it is switched on: false before `boot`, after `destroy`, and after a shutdown from inside."""
        running = self._init is not None and self._init.poll() is None
        return running and self._state().get("state") not in {None, "off"}

    # ── life ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def boot(self) -> None:
        """Switch it on; returns when it answers SSH, or at once where the fault says late or never.

        Raises:
            RuntimeError: no sshd is installed, or it would not start.
            OSError: the address or the port can't be had.
        """
        with self._lock:
            self._furnish()
            self._start_init()
            if "sshd_never" in self.faults:
                return
            if self._late_seconds:
                self._opener = threading.Thread(target=self._open_late, name=f"late {self.name}", daemon=True)
                self._opener.start()
            else:
                self._open()

    def reboot(self) -> None:
        """End every process and start sshd again; files stay. Also after a shutdown from inside."""
        with self._lock:
            boots = self._state().get("boots", 0)
            self.link.shut()
            self._order("reboot")
            if "sshd_never" not in self.faults:
                self._await("it did not come back", lambda: self._state().get("boots", 0) != boots)
                self.link.open()

    def destroy(self) -> None:
        """End every process, remove the folder, refuse connections. Safe twice, and before `boot`."""
        self._gone.set()
        if self._opener is not None:
            self._opener.join()
        with self._lock:
            self.link.close()
            if self._init is not None:
                self._end_init(self._init)
            remove(self.root)

    def fill_disk(self) -> None:
        """Let every further write to the home fail with ENOSPC, until something there is deleted.

        Only a file system of its own can be full while the simulator's is not: with the fault `disk_full` the home is a
        tmpfs in the machine's own mount namespace, which is then shrunk to what it holds.

        Raises:
            RuntimeError: the machine was made without the fault.
        """
        if "disk_full" not in self.faults:
            raise RuntimeError(f"{self.name} has a disk that can't be filled: make it with the fault disk_full")
        with self._lock:
            self._order("fill")
            self._await("its disk could not be filled", lambda: bool(self._state().get("full")))

    # ── its parts ────────────────────────────────────────────────────────────────────────────────────────────────

    def _furnish(self) -> None:
        for folder in ("etc", "run", "log", "home"):
            (self.root / folder).mkdir(parents=True, mode=0o700)
        path = image.make(self.root, self._gpu)
        sshd.write_home(self.root / "etc" / "skel", self._authorized_keys, path)
        injected = "" if "wrong_host_key" in self.faults else self._user_data
        sshd.write_host_key(self.root / "etc" / "host_ed25519", injected)
        environment = {"HOME": str(self.home), "PATH": path, **image.environment(os.environ), MARK: self._mark}
        port = _free_port(self._ip)
        self._argv = sshd.write(self.root, ip=self._ip, port=port, user=self._user, environment=environment)
        self.link.target = (self._ip, port)

    def _start_init(self) -> None:
        """Start the first process, isolated where that is wished and possible."""
        small_disk = "disk_full" in self.faults
        # Without root a namespace lacks the group of terminals and `ssh -t` would fail: only where nothing else does.
        wish = (os.getuid() == 0 or small_disk) if self._isolated is None else self._isolated
        for isolated in [True, False] if wish else [False]:
            order = {"root": str(self.root), "name": self.name, "sshd": self._argv, "small_disk": small_disk}
            argv = [sys.executable, "-I", "-S", str(Path(__file__).with_name("init.py"))]
            with (self.root / "log" / "init.log").open("ab") as log:
                self._init = subprocess.Popen(
                    [*argv, json.dumps({**order, "isolated": isolated})],
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=log,
                    env={MARK: self._mark},
                    start_new_session=True,  # a Ctrl-C is the simulator's
                )
            self._await("it did not start", lambda: bool(self._state()) or self._init_ended())
            if self._init.poll() is None:
                return
            if self._init.returncode != _NOT_ISOLATED or small_disk:
                break
            self._close_orders(self._init)
        self._fail("its first process did not start")

    def _open(self) -> None:
        self._order("sshd")
        self._await("its sshd did not start", lambda: self._state().get("state") == "up")
        self.link.open()

    def _open_late(self) -> None:
        if not self._gone.wait(self._late_seconds):
            with self._lock:
                if not self._gone.is_set():
                    self._open()

    # ── init.py ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _order(self, word: str) -> None:
        if self._init is None or self._init.stdin is None or self._init.stdin.closed:
            raise RuntimeError(f"{self.name} was not booted, or is destroyed")
        self._init.stdin.write(f"{word}\n".encode())
        self._init.stdin.flush()

    def _state(self) -> dict[str, object]:
        try:
            found = json.loads((self.root / "run" / "state").read_text())
        except FileNotFoundError:
            return {}
        return dict(found)

    def _init_ended(self) -> bool:
        return self._init is None or self._init.poll() is not None

    def _await(self, what: str, fact: Callable[[], bool]) -> None:
        until = time.monotonic() + _PATIENCE_SECONDS
        while not fact():
            if self._init_ended() or time.monotonic() > until:
                self._fail(what)
            time.sleep(0.005)

    def _fail(self, what: str) -> None:
        logs = [self.root / "log" / name for name in ("init.log", "sshd.log")]
        lines = [line for log in logs if log.exists() for line in log.read_text(errors="replace").splitlines()]
        raise RuntimeError(f"simulated machine {self.name}: {what}: {'; '.join(lines[-3:]) or 'no word why'}")

    def _end_init(self, init: subprocess.Popen[bytes]) -> None:
        """End the first process by the end of its orders, and by force where it does not go."""
        self._close_orders(init)
        try:
            init.wait(_PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            init.kill()  # isolated, the kernel ends the rest with it
            init.wait()
        _end_marked(self._mark, self.root)

    @staticmethod
    def _close_orders(init: subprocess.Popen[bytes]) -> None:
        if init.stdin is not None:
            init.stdin.close()


def _end_marked(mark: str, root: Path) -> None:
    """Kill what still carries the mark: there is something only where a program killed its own machine's init.py.

    Then one that also shed its environment is not found: that is the limit, and only without a namespace.
    """
    wanted, config = f"{MARK}={mark}".encode(), f"{root}/".encode()  # its title is cut after that
    until = time.monotonic() + _PATIENCE_SECONDS
    while time.monotonic() < until and (found := [pid for pid in _pids() if _carries(pid, wanted, config)]):
        for pid in found:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.005)


def _pids() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


def _carries(pid: int, wanted: bytes, config: bytes) -> bool:
    """Tell a machine's process by its environment, and its sshd, which has none, by the configuration it names."""
    try:
        folder = Path(f"/proc/{pid}")
        words = (folder / "cmdline").read_bytes()
        is_sshd = b"sshd" in words and config in words
        return is_sshd or wanted in (folder / "environ").read_bytes().split(b"\0")
    except OSError:
        return False  # ended meanwhile, or another user's


def _free_port(ip: str) -> int:
    with socket.socket() as probe:
        probe.bind((ip, 0))
        return int(probe.getsockname()[1])
