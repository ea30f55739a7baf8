"""A VM as Colab gives it: a real jupyter-server in a root and a PID namespace of its own, behind a gate with tokens.

with Vm(folder) as vm, Gate(vm.socket) as gate:
    gate.door()              -> what providers/colab/remote.py gets of its money plane
    gate.uses = 8            # a token is good for so many requests
    gate.expire()            # every token given so far opens nothing any more: 404
    gate.cuts = [900, …]     # the next websockets break off after so many bytes from the kernel

For what is asked of the byte plane alone; the simulator has the money plane too.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from boxes import until
from grounds import steps, steps_job

from providers.base import Access, Blob, Job, Phase, Remote, Secret
from providers.colab.door import Door, Proxy
from providers.colab.remote import ColabRemote
from providers.errors import UnreachableError

_ENTER = Path(__file__).parent.parent / "simulators" / "hf_jobs" / "enter.py"
_NOT_FOUND = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class Runtime:
    """Who answers at TBE_RUNTIME_ADDR; `asked` holds (method, path)."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        runtime = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                runtime.asked.append((self.command, self.path))
                self.send_response(404 if self.command == "GET" else 200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            do_POST = do_GET  # noqa: N815 (http.server's name)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class Vm:
    """One VM: `/content` is its own, `home` is its root's home."""

    def __init__(self, folder: Path, runtime: str = "") -> None:
        self.folder = folder
        self.home, self.content = folder / "home", folder / "content"
        self._short = Path(tempfile.mkdtemp(prefix="vm-"))  # a socket's path is 107 letters at most
        self.socket = self._short / "jupyter"
        self._runtime = runtime

    def __enter__(self):
        lib, root = self.folder / "lib", self.folder / "root"
        for made in (self.home, self.content, lib, root):
            made.mkdir(parents=True)
        config = self.folder / "config.json"
        settings = {"sock": str(self.socket), "root_dir": "/", "allow_root": True, "open_browser": False}
        settings |= {"disable_check_xsrf": True, "terminals_enabled": False, "log_level": "ERROR"}
        config.write_text(json.dumps({"ServerApp": settings, "IdentityProvider": {"token": ""}}))
        argv = [sys.executable, "-m", "jupyter_server", f"--config={config}"]
        mounts = {"/content": str(self.content), "/var/lib": str(lib)}
        order = {"root": str(root), "cwd": "/content", "mounts": mounts, "argv": argv}
        user = [] if os.getuid() == 0 else ["--map-root-user"]
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "GPURUN_REARM": "none",
            "OMP_NUM_THREADS": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            "IPYTHONDIR": str(self.home / "ipython"),
            "MPLBACKEND": "module://ipykernel.pylab.backend_inline",
            **({"TBE_RUNTIME_ADDR": self._runtime} if self._runtime else {}),
        }
        unshared = ["unshare", *user, "--pid", "--fork", "--kill-child", "--mount-proc"]
        with (self.folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [*unshared, sys.executable, "-I", "-S", str(_ENTER), json.dumps(order)],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        until(self._is_up, "jupyter-server")
        return self

    def _is_up(self) -> bool:
        assert self._process.poll() is None, (self.folder / "log").read_text()
        with socket.socket(socket.AF_UNIX) as knock:
            return knock.connect_ex(str(self.socket)) == 0

    def __exit__(self, *_) -> None:
        self._process.kill()
        self._process.wait()
        shutil.rmtree(self._short)

    def silence(self, marks: set[str]) -> None:
        """End every process of these jobs; their enders would go on for ever, since nobody ends this VM."""
        home, wanted = f"HOME={self.home}".encode(), {f"GPURUN_MARK={mark}".encode() for mark in marks}
        for _ in range(50):  # a dying watchdog's agent starts another
            living = []
            for path in Path("/proc").glob("[0-9]*"):
                with contextlib.suppress(OSError):
                    values = (path / "environ").read_bytes().split(b"\0")
                    if home in values and wanted.intersection(values):
                        living.append(int(path.name))
            if not living:
                return
            for pid in living:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)
        raise AssertionError(f"{living} live on")

    def job(self, mark: object) -> Path:
        """The folder of a job there."""
        return self.home / ".gpurun" / "jobs" / str(mark)


class Gate:
    """Lets in who bears a token of today."""

    def __init__(self, target: Path, most: int = 0) -> None:
        self._target = str(target)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/vm"
        self.most = most  # bytes of a body that are taken; 0 = any
        self.cuts: list[int] = []
        self.uses = 0  # requests after which a token has expired; 0 = never
        self._used = 0
        self.minted = 0
        self.refused = 0
        self.kept_alive = 0
        self.listed = True
        self.heads: list[str] = []
        self._good = self._known = ""
        self._threads: list[threading.Thread] = []
        self._closing = False
        self.mint()

    def mint(self) -> Proxy:
        self.minted += 1
        self._used = 0
        self._good = self._known = f"proxy-token-{self.minted:04d}-secret"
        return self.now()

    def now(self) -> Proxy:
        return Proxy(self.url, Secret(self._known))

    def expire(self) -> None:
        """From here on only a token that is minted afresh is good."""
        self._good = "nobody has this one"

    def proxy(self, fresh: bool) -> Proxy:  # noqa: FBT001 (the seam's shape)
        if not self.listed:
            raise UnreachableError("the VM is not listed now")
        if fresh:
            self.mint()
        return self.now()

    def keep_alive(self) -> None:
        self.kept_alive += 1

    def door(self) -> Door:
        return Door("vm-1", self.proxy, self.keep_alive, pace=20.0)

    def __enter__(self):
        self._start(self._accept)
        return self

    def __exit__(self, *_) -> None:
        self._closing = True
        self._listener.close()
        for thread in self._threads:
            thread.join()

    def _start(self, work, *args) -> None:
        thread = threading.Thread(target=work, args=args)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._closing:
            ready, _, _ = select.select([self._listener], [], [], 0.05) if self._listener.fileno() >= 0 else ([], 0, 0)
            if ready:
                with contextlib.suppress(OSError):
                    self._start(self._serve, self._listener.accept()[0])

    def _serve(self, client: socket.socket) -> None:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with client, socket.socket(socket.AF_UNIX) as server, contextlib.suppress(OSError):
            data = b""
            while b"\r\n\r\n" not in data:
                piece = client.recv(65536)
                if not piece:
                    return
                data += piece
            head, _, rest = data.partition(b"\r\n\r\n")
            lines = head.decode().split("\r\n")
            self.heads.append(lines[0])
            fields = {line.partition(":")[0].lower(): line.partition(":")[2].strip() for line in lines[1:]}
            verb, path, _ = lines[0].split(" ")
            if fields.get("x-colab-runtime-proxy-token") != self._good or not path.startswith("/vm/"):
                self.refused += 1
                client.sendall(_NOT_FOUND)
                return
            self._used += 1
            if self._used == self.uses:
                self.expire()
            if self.most and int(fields.get("content-length", 0)) > self.most:
                client.sendall(_NOT_FOUND.replace(b"404 Not Found", b"413 Too Large"))
                return
            upgrade = "upgrade" in fields
            cut = self.cuts.pop(0) if upgrade and self.cuts else None
            kept = [line for line in lines[1:] if upgrade or not line.lower().startswith("connection:")]
            kept += [] if upgrade else ["Connection: close"]
            server.connect(self._target)
            server.sendall("\r\n".join([f"{verb} {path[3:]} HTTP/1.1", *kept, "", ""]).encode() + rest)
            self._pump(client, server, cut)

    def _pump(self, client: socket.socket, server: socket.socket, cut: int | None) -> None:
        down = 0
        while not self._closing:
            for ready in select.select([client, server], [], [], 0.05)[0]:
                data = ready.recv(65536)
                if ready is server:
                    if cut is not None and down + len(data) > cut:
                        client.sendall(data[: max(0, cut - down)])
                        return
                    down += len(data)
                if not data:
                    return
                (client if ready is server else server).sendall(data)


class Ground:
    """A VM behind a gate, and jobs to start on it."""

    def __init__(self, vm: Vm, runtime: Runtime, gate: Gate, path: Path) -> None:
        self.vm, self.runtime, self.gate, self.path = vm, runtime, gate, path
        self.remotes: list[ColabRemote] = []
        self.jobs: list[Job] = []

    def job(self, work: str = "short", *, command: tuple[str, ...] = (), **more) -> Job:
        folder = self.path / uuid.uuid4().hex
        folder.mkdir()
        self.jobs.append(steps_job(folder, command or steps(work), **more))
        return self.jobs[-1]

    def blob(self, name: str, data: bytes) -> Blob:
        path = self.path / f"blob-{uuid.uuid4().hex}"
        path.write_bytes(data)
        return Blob(sha256(data).hexdigest(), len(data), path, name)

    def remote(self, job: Job, folder: str = "ssh", **access) -> ColabRemote:
        remote = ColabRemote(self.gate.door(), job.mark, Access(self.path / folder, **access))
        self.remotes.append(remote)
        return remote

    def folder(self, job: Job) -> Path:
        return self.vm.job(job.mark)

    def read(self, job: Job, name: str) -> dict:
        return json.loads((self.folder(job) / name).read_bytes())

    def started(self, work: str = "short", **more) -> tuple[Job, ColabRemote]:
        job = self.job(work, **more)
        remote = self.remote(job)
        remote.start(job)
        return job, remote

    def ended(self, remote: ColabRemote) -> None:
        until(lambda: remote.status().phase is Phase.EXITED, "the end of the job")

    def close(self) -> None:
        for remote in self.remotes:
            remote.close()
        for job in self.jobs:
            if self.folder(job).exists():
                (self.folder(job) / "end.json").write_text("{}")  # for the kernel that waits
        self.vm.silence({str(job.mark) for job in self.jobs})


@contextlib.contextmanager
def at(vm, path: Path):
    """Reach the VM through a gate of one's own; in the end nothing of one's jobs lives there."""
    with Gate(vm[0].socket) as gate:
        ground = Ground(*vm, gate, path)
        yield ground
        ground.close()


def read_log(remote: Remote) -> bytes:
    log = b""
    while piece := remote.logs(len(log)):
        log += piece
    return log
