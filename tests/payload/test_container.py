"""A container's own start of the watchdog: before anybody logs in, after each restart, and never a second one."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
from boxes import PATIENCE, PAYLOAD

if TYPE_CHECKING:
    from pathlib import Path

FILES = {path.name: path.read_text() for path in PAYLOAD.glob("*.py")}
UNPACK = "import json;d=json.loads(%s);exec(compile(d['program'],'c','exec'),{'__name__':'__main__','REQUEST':d})"


@pytest.fixture
def pod(tmp_path):
    """A home, and a start of the container in it; whatever lives at the end is killed."""
    mark = "gpurun-beef-pod-260101-abcdef-1-tzzzzzz"
    now = time.time()
    arm = {"mark": mark, "deadline": now + 900, "ceiling": now + 1000, "max_seconds": 1000, "rearm": "its command"}
    ender = {"routes": [], "look": {"method": "GET", "url": "http://127.0.0.1:1/x"}, "alive": [], "gone": []}
    guards = {name: FILES[name] for name in FILES if not name.startswith("train")}
    program = FILES["container.py"]
    request = {"program": program, "mark": mark, "files": guards, "arm": arm, "ender": ender}
    (tmp_path / "request.json").write_text(json.dumps(request))
    pod = Pod(tmp_path, mark)
    yield pod
    pod.kill()


class Pod:
    def __init__(self, home: Path, mark: str) -> None:
        self.home, self.folder = home, home / ".gpurun" / "jobs" / mark

    def start(self) -> subprocess.CompletedProcess:
        """As PID 1 does; root's own folder is left out of it."""
        code = UNPACK % f"open({str(self.home / 'request.json')!r}, 'rb').read()"
        code = f"import os;os.geteuid=lambda: 1;{code}" if os.geteuid() == 0 else code
        env = {"HOME": str(self.home), "PATH": os.environ["PATH"]}
        argv = [sys.executable, "-I", "-S", "-B", "-c", code]
        return subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60, check=False)

    def proof(self) -> dict:
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            try:
                return json.loads((self.folder / "watchdog.json").read_text())
            except (OSError, ValueError):
                time.sleep(0.05)
        raise AssertionError("no proof")

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.proof()["pid"], signal.SIGKILL)


def test_the_watchdog_comes_first_stays_one_and_comes_back_with_its_time(pod):
    assert pod.start().returncode == 0
    first = pod.proof()
    assert (first["rearm"], first["ender"] != "") == ("its command", True)
    assert pod.start().returncode == 0
    assert pod.proof()["pid"] == first["pid"]
    os.kill(first["pid"], signal.SIGKILL)
    end = time.monotonic() + PATIENCE
    while pod.proof()["pid"] == first["pid"]:  # until the dead one's lock is free
        assert pod.start().returncode == 0
        assert time.monotonic() < end
    again = pod.proof()
    assert (again["armed_at"], again["ceiling"]) == (first["armed_at"], first["ceiling"])


def test_what_is_in_the_way_is_said_and_the_container_lives_on(pod):
    (pod.home / ".gpurun").mkdir()
    (pod.home / ".gpurun" / "jobs").write_text("not a folder")
    done = pod.start()
    assert done.returncode != 0
    (pod.home / ".gpurun" / "jobs").unlink()
    assert pod.start().returncode == 0
