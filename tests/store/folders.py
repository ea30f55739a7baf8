"""Jobs' folders as a training and its agent leave them, and the uploader at work on one."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

from decisions import in_state

from orchestrator.records import RunRow
from orchestrator.words import State

if TYPE_CHECKING:
    from orchestrator.store import Store

PAYLOAD = Path(__file__).parents[2] / "payload"
RUN = "demo-261122-abcdef"
PATIENCE = 100.0  # seconds


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class Folder:
    """One attempt's folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        self.write("log.txt", b"hello\n")

    def write(self, name: str, content: bytes) -> None:
        target = self.path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = target.with_name(f".{target.name}.aside")
        aside.write_bytes(content)
        aside.replace(target)

    def checkpoint(self, step: int, files: dict[str, bytes] | None = None) -> None:
        """Seal a checkpoint as checkpoint.py does."""
        files = files or {"state.pt": os.urandom(50_000), "more/settings.json": b"{}"}
        made = self.path / "checkpoints" / f".partial-{step}"
        for name, content in files.items():
            (made / name).parent.mkdir(parents=True, exist_ok=True)
            (made / name).write_bytes(content)
        seal = {"step": step, "files": {n: {"size": len(c), "sha256": sha(c)} for n, c in files.items()}}
        (made / "CHECKPOINT.json").write_text(json.dumps(seal))
        made.replace(self.path / "checkpoints" / f"step-{step}")

    def result(self, artifacts: dict[str, bytes] | None = None, reason: str = "completed") -> None:
        """Write result.json and what it names."""
        artifacts = {"artifacts/model.bin": os.urandom(9_000)} if artifacts is None else artifacts
        for name, content in artifacts.items():
            self.write(name, content)
        listed = [{"name": name, "size": len(content), "sha256": sha(content)} for name, content in artifacts.items()]
        self.write("summary.json", b"{}")
        self.write("result.json", json.dumps({"reason": reason, "exit_code": 0, "artifacts": listed}).encode())

    def grant(self, store: Store, until, ability, **more) -> None:
        grant = json.loads(store.grant(RUN, 1, until, ability).reveal()) | more
        self.write("store.json", json.dumps(grant).encode())

    def uploader(self, patch: str = "") -> subprocess.Popen[str]:
        """Start one; its waits are short."""
        start = f"import sys; sys.path.insert(0, {str(PAYLOAD)!r})\nimport upload\n"
        start += "upload.LEAST = upload.REFUSED = 0.02; upload.MOST = 0.1; upload.LOOK = 0.02; upload.LOG_EVERY = 0.2\n"
        start += f"{patch}\nsys.exit(upload.main(['upload.py', {str(self.path)!r}]))"
        return subprocess.Popen([sys.executable, "-S", "-B", "-c", start], stdout=subprocess.PIPE, text=True)

    def upload(self, patch: str = "") -> dict:
        """Let one run to its end; gives its last words."""
        with self.uploader(patch) as process:
            said = [json.loads(line) for line in process.stdout]
        assert process.returncode == 0
        return said[-1]


def run_row(run_id: str) -> RunRow:
    now = datetime.now(UTC).timestamp()
    return RunRow(run_id, "demo", "local", now, now + 60, now + 60, 5, 3, None, Decimal(1), {}, in_state(State.PENDING))


def until(look, what: str):
    """Wait for a true answer."""
    end = time.monotonic() + PATIENCE
    while not (found := look()):
        assert time.monotonic() < end, f"never: {what}"
        time.sleep(0.05)
    return found
