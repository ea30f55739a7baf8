"""The machine behind a pod: its container as real processes, its folders, and the mapped port of its sshd.

    client ── public ip:port ── Link ── sshd ── shells     below PID 1, the pod's own command (cell.py)

Every start gives `22/tcp` another public port. A container whose command ends tells so by `on_exit`; whether it is
started again is the vendor's to say. Linux only, and it needs the kernel's namespaces: a pod has a root of its own.
"""

from __future__ import annotations

import getpass
import json
import os
import socket
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from simulators.folders import remove
from simulators.machine import image as stack
from simulators.machine import sshd
from simulators.machine.link import Link
from simulators.runpod import image
from simulators.server import free_port

if TYPE_CHECKING:
    from collections.abc import Callable

_PATIENCE_SECONDS = 60.0
_PORTS_TRIED = 5
_CELL = (sys.executable, "-I", "-S", str(Path(__file__).with_name("cell.py")))
_PASSED_ON = {"OMP_NUM_THREADS", "GPURUN_TEST_SESSION"}


@dataclass(frozen=True, slots=True)
class Plan:
    """What a pod's container is made of. `argv` none = the image's own command."""

    name: str
    ip: str
    argv: tuple[str, ...]
    env: dict[str, str]
    gpu: stack.Gpu
    is_official: bool
    volume_path: str  # "" = none
    faults: frozenset[str] = field(default=frozenset())


def check() -> None:
    """See whether this computer can have pods.

    Raises:
        RuntimeError: the kernel gives no namespaces, or no sshd is installed.
    """
    sshd.find_sshd()
    if subprocess.run([*_CELL, "--try"], capture_output=True, env={}, check=False).returncode:
        raise RuntimeError("a pod has a root of its own, and this computer's kernel gives it none (namespaces)")


class Container:
    """One pod's container, from its first start until it is destroyed."""

    def __init__(
        self, folder: Path, plan: Callable[[], Plan], on_line: Callable[[str], None], on_exit: Callable[[int], None]
    ) -> None:
        self._folder = folder
        self._plan_of = plan
        self._plan = plan()
        self._on_line, self._on_exit = on_line, on_exit
        self._process: subprocess.Popen[bytes] | None = None
        self._keeper: threading.Thread | None = None
        self._lock = threading.RLock()
        self.port: int | None = None  # the public one of 22/tcp
        self.link = Link((self._plan.ip, 0), (self._plan.ip, 0))

    # ── life ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def boot(self) -> None:
        """Make its disk where it has none, map a port, start its command.

        Raises:
            RuntimeError: no sshd is installed.
            OSError: no process or no port is to be had.
        """
        with self._lock:
            self._plan = self._plan_of()
            if not self._folder.exists():
                self._path = image.make(self._folder, self._plan.gpu, is_official=self._plan.is_official)
            elif not (self._folder / "disk").exists():
                image.make_disk(self._folder / "disk", is_official=self._plan.is_official)
            self._map()
            self._start()

    def reboot(self) -> None:
        """End every process and run the command again, behind another port; the disk stays."""
        with self._lock:
            self._end()
            self.boot()

    def wipe(self) -> None:
        """End every process and lose the container's disk, as a stop does; a volume stays."""
        with self._lock:
            self._end()
            remove(self._folder / "disk")

    def remap(self) -> None:
        """Map another public port; what runs goes on."""
        with self._lock:
            target = self.link.target
            self._map()
            self.link.target = target

    def destroy(self) -> None:
        """End every process, remove the folder, refuse connections. Safe twice, and before `boot`."""
        with self._lock:
            self._end()
            self.link.close()
            remove(self._folder)

    def fill_disk(self) -> None:
        """Let every further write fail with ENOSPC; the pod must have the fault `disk_full`.

        Raises:
            RuntimeError: it has not.
        """
        if "disk_full" not in self._plan.faults:
            raise RuntimeError(f"{self._plan.name} has a disk that can't be filled: make it with the fault disk_full")
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.write(b"fill\n")
            self._process.stdin.flush()

    # ── its parts ────────────────────────────────────────────────────────────────────────────────────────────────

    def _map(self) -> None:
        self.link.shut()
        for tried in range(1, _PORTS_TRIED + 1):
            port = free_port()
            self.link.listen = (self._plan.ip, port)
            try:
                if "sshd_never" not in self._plan.faults:
                    self.link.open()
                break
            except OSError:  # taken since it was found free
                if tried == _PORTS_TRIED:
                    raise
        self.port = port

    def _start(self) -> None:
        plan, inside = self._plan, self._folder / "image"
        environment = {"HOME": "/root", "PATH": self._path, **stack.environment(os.environ)}
        with socket.socket() as probe:
            probe.bind((plan.ip, 0))
            port = int(probe.getsockname()[1])
        image.write_sshd(
            inside,
            ip=plan.ip,
            port=port,
            user=getpass.getuser(),
            environment=environment,
            stranger="wrong_host_key" in plan.faults,
        )
        self.link.target = (plan.ip, port)
        mounts = {plan.volume_path: self._folder / "volume"} if plan.volume_path else {}
        for folder in mounts.values():
            folder.mkdir(exist_ok=True)
        passed_on = {name: value for name in _PASSED_ON if (value := os.environ.get(name)) is not None}
        order = {
            "root": str(self._folder / "disk"),
            "own": [*image.OWN, *(path.strip("/").split("/")[0] for path in mounts)],
            "binds": image.binds(self._folder, mounts, environment),
            "argv": plan.argv,
            "env": {**environment, **passed_on, **plan.env, **self._place()},
            "name": plan.name,
            "small": "disk_full" in plan.faults,
        }
        self._run(order)

    def _place(self) -> dict[str, str]:
        return {"RUNPOD_PUBLIC_IP": self._plan.ip, "RUNPOD_TCP_PORT_22": str(self.port)}

    def _run(self, order: dict[str, object]) -> None:
        path = self._folder / "order.json"
        path.touch(0o600)
        path.write_text(json.dumps(order))
        process = subprocess.Popen(
            [*_CELL, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={},
            start_new_session=True,  # a Ctrl-C is the simulator's
        )
        self._process = process
        self._keeper = threading.Thread(target=self._keep, args=(process,), name=self._plan.name, daemon=True)
        self._keeper.start()

    def _keep(self, process: subprocess.Popen[bytes]) -> None:
        """Pass its output on by lines, and tell when it ended by itself."""
        if process.stdout is not None:
            with process.stdout as output:
                for line in output:
                    self._on_line(line.decode(errors="replace").rstrip("\n"))
        code = process.wait()
        if self._process is process:
            self._on_exit(code)

    def _end(self) -> None:
        """End its first process by the end of its orders: the kernel ends the rest."""
        self.link.shut()
        process, self._process = self._process, None
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        try:
            process.wait(_PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if self._keeper is not None:
            self._keeper.join(_PATIENCE_SECONDS)
