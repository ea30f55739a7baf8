"""The machine behind an assignment: a root of its own with a real jupyter-server in it, and the way in.

    client ── Link ── Proxy ── unix socket ── jupyter-server ── kernels      below PID 1 (simulators/runpod/cell.py)
    kernel ── TBE_RUNTIME_ADDR ── the VM's own address, where it may end itself

Its disk is /, /root, /tmp, /content; python3 and nvidia-smi are the image's, all else is this computer's. Linux only,
and it needs the kernel's namespaces.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import threading
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING

from simulators.colab import proxy
from simulators.folders import remove
from simulators.machine import image as stack
from simulators.machine.link import Link
from simulators.server import HOST, Reply, Request, Server, free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from simulators.colab.vms import Vm
    from simulators.colab.world import ColabWorld

_HERE = Path(__file__).parent
_CELL = (sys.executable, "-I", "-S", str(_HERE.parent / "runpod" / "cell.py"))
_OWN = ("root", "tmp", "run", "var", "content", "srv", "media")  # at the top of the root; the rest is this computer's
_NEEDED = ("jupyter_server", "ipykernel", "terminado")
_PATIENCE_SECONDS = 60.0
_PASSED_ON = {"OMP_NUM_THREADS", "GPURUN_TEST_SESSION"}
_DOOR = "/run/jupyter/server.sock"  # as seen inside
_MACHINE_FAULTS = frozenset({"cuda_broken", "driver_old", "disk_full"})


def check() -> None:
    """See whether this computer can have VMs.

    Raises:
        RuntimeError: the kernel gives no namespaces, or there is no jupyter-server.
    """
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise RuntimeError(
            f"a VM runs a real jupyter-server: pip install jupyter-server ipykernel ({missing[0]} is not there)"
        )
    if subprocess.run([*_CELL, "--try"], capture_output=True, env={}, check=False).returncode:
        raise RuntimeError("a VM has a root of its own, and this computer's kernel gives it none (namespaces)")


class Machine:
    """One VM, from its boot until it is destroyed; its way in stays, and answers 404 from then on."""

    def __init__(self, folder: Path, vm: Vm, world: ColabWorld, unassign: Callable[[], None]) -> None:
        """`unassign` is what the VM's own address does."""
        self._folder, self._vm = folder, vm
        self._unassign = unassign
        self._disk = folder / "disk"
        self._process: subprocess.Popen[bytes] | None = None
        self._keeper: threading.Thread | None = None
        self._said: deque[str] = deque(maxlen=20)
        self._door = folder / "door" / Path(_DOOR).name  # a folder of its own, for the disk may be another's
        self._proxy = proxy.Proxy(vm, world, self._door)
        self._proxy.server.listen()
        self._runtime = Server(f"runtime {vm.endpoint}", self._asked_from_inside)
        self._runtime.listen()
        self.link = Link((HOST, 0), (HOST, self._proxy.server.port))
        self._open_link()
        self.url = f"http://{HOST}:{self.link.listen[1]}"

    def _open_link(self) -> None:
        while True:
            self.link.listen = (HOST, free_port())
            try:
                self.link.open()
            except OSError:
                continue  # taken since it was found free
            return

    # ── life ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def boot(self) -> None:
        """Make its disk and start its first process; returns when its Jupyter server answers.

        Raises:
            RuntimeError: it would not start.
        """
        try:
            path = self._furnish()
            self._run(path)
            self._await_door()
        finally:
            self._proxy.ready.set()

    def reboot(self) -> None:
        """Do nothing: no VM of Colab's comes back."""

    def destroy(self) -> None:
        """End every process, remove the folder. Safe twice, and before `boot`."""
        self._proxy.ready.set()
        self._proxy.cut()
        process, self._process = self._process, None
        if process is not None:
            _end(process)
        if self._keeper is not None:
            self._keeper.join(_PATIENCE_SECONDS)
        remove(self._folder)

    def close(self) -> None:
        """Answer no more, outside and inside."""
        self.link.close()
        self._proxy.close()
        self._runtime.close()

    def fill_disk(self) -> None:
        """Let every further write fail with ENOSPC; the VM must have the fault `disk_full`."""
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.write(b"fill\n")
            self._process.stdin.flush()

    def busy(self) -> bool:
        """Whether one of its kernels is at work."""
        return proxy.busy(self._door)

    def cut_websockets(self) -> None:
        """Cut every websocket."""
        self._proxy.cut()

    # ── its parts ────────────────────────────────────────────────────────────────────────────────────────────────

    def _asked_from_inside(self, request: Request) -> Reply:
        """Answer at TBE_RUNTIME_ADDR: what `google.colab.runtime.unassign()` posts to."""
        if (request.method, request.path) != ("POST", "/unassign"):
            return Reply(404)
        hit = self._vm.faults.get("runtime_refuses")
        if hit is not None and hit.number("status"):
            return Reply(int(hit.number("status")))
        self._unassign()
        return Reply(200)

    def _furnish(self) -> str:
        """Make its folders; gives the PATH that finds the image's commands first."""
        inside = self._folder / "image"
        (inside / "etc").mkdir(parents=True)
        kind, faults = self._vm.kind, frozenset(self._vm.faults) & _MACHINE_FAULTS
        path = stack.make(inside, stack.Gpu(kind.card, int(bool(kind.card)), kind.mib, faults))
        if not kind.card:
            (inside / "usr" / "bin" / "nvidia-smi").unlink()
        self._door.parent.mkdir(mode=0o700)
        for name in _OWN:
            (self._disk / name).mkdir(parents=True)
        (self._disk / "tmp").chmod(0o1777)
        (self._disk / "content" / "sample_data").mkdir()
        spec = self._disk / "root" / ".local" / "share" / "jupyter" / "kernels" / "python3"
        spec.mkdir(parents=True)
        spec.joinpath("kernel.json").write_text(json.dumps(_kernel_spec(inside)))
        return path

    def _run(self, path: str) -> None:
        environment = stack.environment(os.environ)
        lent = _lent(self._folder / "image", environment)
        passed_on = {name: value for name in _PASSED_ON if (value := os.environ.get(name)) is not None}
        server = [sys.executable, "-I", str(_HERE / "inside.py"), json.dumps({"door": _DOOR})]
        order = {
            "root": str(self._disk),
            "own": _OWN,
            "binds": [*((one, one) for one in lent), (str(self._door.parent), str(Path(_DOOR).parent))],
            "argv": ["/bin/sh", "-c", 'cd /content && "$@"; exit', "init", *server],  # sh, since PID 1 buries orphans
            "env": {**environment, **passed_on, **self._own_environment(path)},
            "name": self._vm.endpoint,
            "small": "disk_full" in self._vm.faults,
        }
        place = self._folder / "order.json"
        place.touch(0o600)
        place.write_text(json.dumps(order))
        process = subprocess.Popen(
            [*_CELL, str(place)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={},
            start_new_session=True,  # a Ctrl-C is the simulator's
        )
        self._process = process
        self._keeper = threading.Thread(target=self._keep, args=(process,), name=self._vm.endpoint, daemon=True)
        self._keeper.start()

    def _own_environment(self, path: str) -> dict[str, str]:
        return {
            "HOME": "/root",
            "PATH": path,
            "TBE_RUNTIME_ADDR": f"{HOST}:{self._runtime.port}",
            "COLAB_RELEASE_TAG": "release-colab-external_simulated",
            **({"COLAB_GPU": "1"} if self._vm.kind.card else {"COLAB_GPU": ""}),
        }

    def _keep(self, process: subprocess.Popen[bytes]) -> None:
        """Take its output, so that it is never held up; its last words are kept."""
        if process.stdout is not None:
            with process.stdout as output:
                for line in output:
                    self._said.append(line.decode(errors="replace").rstrip("\n"))

    def _await_door(self) -> None:
        until = time.monotonic() + _PATIENCE_SECONDS
        process = self._process
        while process is not None:
            try:
                proxy.knock(self._door).close()
            except OSError:
                if process.poll() is not None or time.monotonic() > until:
                    break
                time.sleep(0.01)
            else:
                return
        raise RuntimeError(f"{self._vm.endpoint}: its Jupyter server did not start: {'; '.join(list(self._said)[-3:])}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a first process by the end of its orders: the kernel ends the rest."""
    if process.stdin is not None:
        process.stdin.close()
    try:
        process.wait(_PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _kernel_spec(inside: Path) -> dict[str, object]:
    """Say how a kernel is started: the image's python3, with this computer's ipykernel where it has none."""
    spec = importlib.util.find_spec("ipykernel")
    packages = str(Path(spec.origin).parents[1]) if spec is not None and spec.origin else ""
    start = (
        f"import sys; sys.path.append({packages!r}); from ipykernel import kernelapp; kernelapp.launch_new_instance()"
    )
    argv = [str(inside / "usr" / "bin" / "python3"), "-c", start, "-f", "{connection_file}"]
    return {"argv": argv, "display_name": "Python 3", "language": "python", "metadata": {"debugger": False}}


def _lent(inside: Path, environment: Mapping[str, str]) -> list[str]:
    """Name what of this computer the VM needs, where folders of its own hide it."""
    packages = (inside / "etc" / "packages").read_text().splitlines()
    settings = [value for value in environment.values() if value.startswith("/") and Path(value).is_file()]
    bases = {os.path.realpath(sys.base_prefix), os.path.realpath(sys.prefix), sys.prefix, sys.base_prefix}
    resolvers = [os.path.realpath("/etc/resolv.conf")]
    wanted = [str(inside), str(_HERE), *sorted(bases), *packages, *settings, *resolvers]
    return [
        one
        for one in dict.fromkeys(wanted)
        if Path(one).exists() and Path(one).parts[1:2] and Path(one).parts[1] in _OWN
    ]
