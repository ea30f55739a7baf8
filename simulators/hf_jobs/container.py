"""A job's container: a real process with folders of its own, and nothing of ours in its environment.

    <root>/home    HOME, and where it starts      mounts ── folders of buckets, at their paths in a root of its own
    <root>/usr     python3, and on GPU flavors nvidia-smi and a torch that sees cards     output ── a pipe, by lines

Where the kernel gives no mount namespaces, and for a path below a folder that this computer has, the path is replaced
by the folder's own in the command and the environment: a program that has it written inside does not find it then.
Its processes are known by JOB_ID in their environment; all of them end with it.
"""

from __future__ import annotations

import functools
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from simulators.machine import image

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from simulators.hf_jobs.flavors import Flavor

_PATIENCE_SECONDS = 30.0


class Container:
    """One process tree. `on_line` gets each line of its output, `on_end` its exit code (negative = a signal)."""

    def __init__(self, job_id: str, root: Path, on_line: Callable[[str], None], on_end: Callable[[int], None]) -> None:
        self._id = job_id
        self._root = root
        self._on_line, self._on_end = on_line, on_end
        self._process: subprocess.Popen[bytes] | None = None
        self._keeper: threading.Thread | None = None

    def start(
        self, command: Sequence[str], environment: Mapping[str, str], mounts: Mapping[str, Path], flavor: Flavor
    ) -> None:
        """Start it.

        Raises:
            OSError: there is no such program.
        """
        home = self._root / "home"
        home.mkdir(parents=True)
        own = {
            "HOME": str(home),
            "PATH": self._path(flavor),
            "JOB_ID": self._id,
            "ACCELERATOR": flavor.name if flavor.count else "none",
            "CPU_CORES": str(flavor.cpus),
            "MEMORY": f"{flavor.ram}Gi",
            **image.environment(os.environ),
            **{name: os.environ[name] for name in ("OMP_NUM_THREADS", "GPURUN_TEST_SESSION") if name in os.environ},
        }
        entered = {path: folder for path, folder in mounts.items() if _can_enter() and _is_free(path)}
        replaced = {path: folder for path, folder in mounts.items() if path not in entered}
        given = {name: _replaced(value, replaced) for name, value in environment.items()}
        argv = [_replaced(part, replaced) for part in command]
        self._process = subprocess.Popen(
            _entering(argv, entered, self._root, home) if entered else argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=home,
            env={**own, **given},
            start_new_session=True,
        )
        keeper = threading.Thread(target=self._keep, args=(self._process,), name=f"job {self._id}", daemon=True)
        keeper.start()
        self._keeper = keeper  # whoever finds it there may wait for it

    def _path(self, flavor: Flavor) -> str:
        if flavor.count:
            (self._root / "etc").mkdir(parents=True)
            gpu = image.Gpu(flavor.card, flavor.count, flavor.card_mib, frozenset())
            return image.make(self._root, gpu)
        return f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"

    def _keep(self, process: subprocess.Popen[bytes]) -> None:
        """Wait for its first process; with it go all others, though one of them holds the pipe of its output."""
        reader = threading.Thread(target=self._read, args=(process,), name=f"output {self._id}", daemon=True)
        reader.start()
        code = process.wait()
        end_all(self._id)
        reader.join(_PATIENCE_SECONDS)
        self._on_end(code)

    def _read(self, process: subprocess.Popen[bytes]) -> None:
        if process.stdout is not None:
            with process.stdout as output:
                for line in output:
                    self._on_line(line.decode(errors="replace").rstrip("\n"))

    def ask(self) -> None:
        """Send its first process SIGTERM."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()

    def kill(self) -> None:
        """End every process of it, and wait until that is done."""
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.kill()
        end_all(self._id)
        if self._keeper is not None:
            self._keeper.join(_PATIENCE_SECONDS)


def _entering(argv: Sequence[str], mounts: Mapping[str, Path], root: Path, cwd: Path) -> list[str]:
    """Give the command that runs another one in a root of its own."""
    new = root / "root"
    new.mkdir(parents=True)
    folders = {path: str(folder) for path, folder in mounts.items()}
    order = {"root": str(new), "cwd": str(cwd), "mounts": folders, "argv": list(argv)}
    return [sys.executable, "-I", "-S", str(Path(__file__).with_name("enter.py")), json.dumps(order)]


@functools.cache
def _can_enter() -> bool:
    """Whether this computer gives a process a root of its own."""
    with tempfile.TemporaryDirectory() as name:
        argv = _entering(["true"], {}, Path(name), Path("/"))
        return subprocess.run(argv, capture_output=True, timeout=_PATIENCE_SECONDS, check=False).returncode == 0


def _is_free(path: str) -> bool:
    """Whether mounting there leaves no trace on this computer."""
    return Path(path).is_dir() or not Path("/", *Path(path).parts[1:2]).exists()


def _replaced(text: str, mounts: Mapping[str, Path]) -> str:
    """Put folders in the places of mount paths, where these stand as whole paths."""
    for path, folder in sorted(mounts.items(), key=lambda pair: -len(pair[0])):
        put = str(folder).replace("\\", r"\\")
        text = re.sub(rf"(?<![\w.-]){re.escape(path)}(?=/|$|[\s'\":])", put, text)
    return text


def end_all(job_id: str) -> None:
    """Kill whatever carries the job's id, until nothing does."""
    wanted = f"JOB_ID={job_id}".encode()
    until = time.monotonic() + _PATIENCE_SECONDS
    while time.monotonic() < until and (found := [pid for pid in _pids() if _carries(pid, wanted)]):
        for pid in found:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.005)


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208 - many times: no objects


def _carries(pid: int, wanted: bytes) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return stat[0] != b"Z" and wanted in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False  # ended meanwhile, or another user's
