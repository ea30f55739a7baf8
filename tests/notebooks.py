"""A notebook's ground: a real kernel in a process of its own, and the address at which a machine is released."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PATIENCE = 240.0  # seconds for a whole notebook: a loaded machine is no bug


@dataclass
class Runtime:
    """What listens at TBE_RUNTIME_ADDR; `answers` are the statuses of the next posts, then 200."""

    address: str = ""
    posted: list[str] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)


@contextmanager
def runtime() -> Iterator[Runtime]:
    """Listen on loopback."""
    facts = Runtime()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(404)

        def do_POST(self) -> None:
            facts.posted.append(self.path)
            self._answer(facts.answers.pop(0) if facts.answers else 200)

        def _answer(self, status: int) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    facts.address = f"127.0.0.1:{server.server_address[1]}"
    try:
        yield facts
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@dataclass(frozen=True)
class Executed:
    """How an execution ended: exit code, all that its cells printed, nbconvert's own words."""

    code: int
    printed: str
    words: str


def execute(notebook: Path, home: Path, address: str) -> Executed:
    """Run all cells as `jupyter nbconvert --execute` does, on a machine whose home is `home`."""
    home.mkdir(exist_ok=True)
    env = {**os.environ, "HOME": str(home), "TBE_RUNTIME_ADDR": address, "OMP_NUM_THREADS": "1"}
    env |= {f"JUPYTER_{name}_DIR": str(home / ".jupyter" / name) for name in ("RUNTIME", "CONFIG", "DATA")}
    env["IPYTHONDIR"] = str(home / ".ipython")
    target = notebook.with_name("executed.ipynb")
    argv = [sys.executable, "-m", "nbconvert", "--to", "notebook", "--execute", "--ExecutePreprocessor.timeout=-1"]
    argv += ["--output", target.name, str(notebook)]
    done = subprocess.run(
        argv, env=env, cwd=notebook.parent, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    return Executed(done.returncode, printed(target) if target.exists() else "", done.stderr)


def printed(executed: Path) -> str:
    """Give what the cells of an executed notebook printed."""
    cells: list[dict[str, Any]] = json.loads(executed.read_text())["cells"]
    return "".join("".join(out.get("text", "")) for cell in cells for out in cell.get("outputs", []))
