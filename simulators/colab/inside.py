"""What runs in a VM: a jupyter-server whose contents begin at `/`, with what Colab adds to it.

    python -I inside.py '{"door": "/run/jupyter.sock"}'

Everybody who gets as far as its unix socket was let in by the proxy. Added: /api/colab/resources, and /colab/tty, a
terminal whose frames are {"data": …} both ways and {"cols", "rows"} to resize.
"""

from __future__ import annotations

import fcntl
import json
import os
import pty
import shutil
import signal
import struct
import subprocess
import sys
import termios
from pathlib import Path
from typing import Any

# Checks the format of addresses in schemas for us, never; compiling its grammar is three quarters of the start.
sys.modules["rfc3987_syntax"] = None  # type: ignore[assignment]

from jupyter_server.serverapp import ServerApp  # noqa: E402 - after the line above
from tornado.ioloop import IOLoop  # noqa: E402
from tornado.web import RequestHandler  # noqa: E402
from tornado.websocket import WebSocketHandler  # noqa: E402
from traitlets.config import Config  # noqa: E402

KERNELS = "/root/.local/share/jupyter/kernels"


class Resources(RequestHandler):
    """GET /api/colab/resources."""

    def get(self) -> None:
        """Tell memory, disks and GPUs."""
        facts = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        memory = {"totalBytes": _bytes(facts["MemTotal"]), "freeBytes": _bytes(facts["MemAvailable"])}
        disk = shutil.disk_usage("/content")
        label = {"label": "/", "totalBytes": disk.total, "usedBytes": disk.used}
        self.finish({"memory": memory, "disks": [{"filesystem": label}], "gpus": _gpus()})


def _bytes(text: str) -> int:
    return int(text.split(maxsplit=1)[0]) * 1024


def _gpus() -> list[dict[str, Any]]:
    ask = ["nvidia-smi", "--query-gpu=name,memory.used,memory.total", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(ask, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    rows = [line.split(", ") for line in done.stdout.splitlines()]
    return [
        {
            "name": name,
            "memoryUsedBytes": int(used) << 20,
            "memoryTotalBytes": int(total) << 20,
            "gpuUtilization": 0.0,
            "memoryUtilization": 0.0,
            "everUsed": False,
        }
        for name, used, total in rows
    ]


class Terminal(WebSocketHandler):
    """/colab/tty: a shell, ended with its connection."""

    _pid = _fd = 0

    def check_origin(self, origin: str) -> bool:
        """Let every origin in: the proxy has looked."""
        del origin
        return True

    def open(self, *_: str, **__: str) -> None:
        """Start the shell."""
        self._pid, self._fd = pty.fork()
        if not self._pid:
            os.execvp("bash", ["bash"])  # noqa: S606 - to become it is the point
        IOLoop.current().add_handler(self._fd, self._said, IOLoop.READ)

    def _said(self, *_: object) -> None:
        """Pass its words on; without any more it has ended."""
        try:
            data = os.read(self._fd, 1 << 16)
        except OSError:
            data = b""
        if data:
            self.write_message({"data": data.decode(errors="replace")})
        else:
            self.close()

    def on_message(self, message: str | bytes) -> None:
        """Type what came, or resize."""
        frame = json.loads(message)
        if "data" in frame:
            os.write(self._fd, str(frame["data"]).encode())
        if "cols" in frame:
            size = struct.pack("HHHH", int(frame["rows"]), int(frame["cols"]), 0, 0)
            fcntl.ioctl(self._fd, termios.TIOCSWINSZ, size)

    def on_close(self) -> None:
        """End the shell."""
        if self._pid:
            IOLoop.current().remove_handler(self._fd)
            os.kill(self._pid, signal.SIGHUP)
            os.close(self._fd)
            os.waitpid(self._pid, 0)


def settings(door: str) -> Config:
    """Say how the server is: open to the proxy, quick to start."""
    config = Config()
    config.ServerApp.sock = door
    config.ServerApp.sock_mode = "0600"
    config.ServerApp.root_dir = "/"
    config.ServerApp.allow_root = True
    config.ServerApp.allow_remote_access = True
    config.ServerApp.allow_origin = "*"
    config.ServerApp.disable_check_xsrf = True
    config.ServerApp.open_browser = False
    config.ServerApp.jpserver_extensions = {}
    config.ServerApp.terminals_enabled = False
    config.ServerApp.log_level = "ERROR"
    config.IdentityProvider.token = ""
    config.ContentsManager.allow_hidden = True
    config.KernelManager.transport = "ipc"  # no port of this computer's is taken
    config.KernelSpecManager.ensure_native_kernel = False
    return config


def main() -> None:
    """Serve until the end."""
    order = json.loads(sys.argv[1])
    app = ServerApp(config=settings(order["door"]))
    app.initialize(argv=[], find_extensions=False)
    if app.kernel_spec_manager is not None:  # not this computer's own kernels, which an environment's server prefers
        app.kernel_spec_manager.kernel_dirs = [KERNELS]
    app.web_app.add_handlers(".*$", [("/api/colab/resources", Resources), ("/colab/tty", Terminal)])  # type: ignore[no-untyped-call]  # tornado's
    os.environ.pop("JPY_PARENT_PID", None)
    app.start()


if __name__ == "__main__":
    main()
