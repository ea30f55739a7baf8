"""Where gpurun keeps what it knows: one home directory, one folder a run.

    GPURUN_HOME/ledger.sqlite   what was launched and what it cost (ledger.py)
    GPURUN_HOME/config.toml     the user's defaults
    GPURUN_HOME/runs/<run id>/  config.json log.txt metrics.jsonl status.json result.json artifacts/ checkpoints/ ssh/

Standard library only: `gpurun ps` comes through here.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from providers.errors import StateError


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The home's copy of one run. Names every file of it."""

    path: Path

    @property
    def log(self) -> Path:
        """All attempts' output, one after another."""
        return self.path / "log.txt"

    @property
    def metrics(self) -> Path:
        """Metrics lines of all attempts; a step may repeat, the last one counts."""
        return self.path / "metrics.jsonl"

    @property
    def status(self) -> Path:
        """What the agent last said, as of when."""
        return self.path / "status.json"

    @property
    def shipping(self) -> Path:
        """How much has been sent to the machine, while it is: `{"done", "whole"}` in bytes."""
        return self.path / "shipping.json"

    @property
    def result(self) -> Path:
        """Written last: every artifact named in it is whole."""
        return self.path / "result.json"

    @property
    def so_far(self) -> Path:
        """What a script of the user's had left when its machine was lost, in the words of result.json."""
        return self.path / "so_far.json"

    @property
    def config(self) -> Path:
        """The payload's settings."""
        return self.path / "config.json"

    @property
    def job(self) -> Path:
        """What the controller ships: command, blobs, names of secrets."""
        return self.path / "job.json"

    @property
    def bundle(self) -> Path:
        """Payload, code and config as one tar.gz."""
        return self.path / "bundle.tar.gz"

    @property
    def checkpoints(self) -> Path:
        """The newest whole checkpoints brought home."""
        return self.path / "checkpoints"

    @property
    def artifacts(self) -> Path:
        """What the user wanted."""
        return self.path / "artifacts"

    @property
    def ssh(self) -> Path:
        """This run's keys; removed when the run is over."""
        return self.path / "ssh"

    @property
    def notify(self) -> Path:
        """Where its notices go: may hold tokens, so it is its owner's alone, and removed once its end was told."""
        return self.path / "notify.json"

    @property
    def controller_log(self) -> Path:
        """What the background controller had to say."""
        return self.path / "controller.log"


@dataclass(frozen=True, slots=True)
class Home:
    """One `GPURUN_HOME`."""

    root: Path

    @classmethod
    def default(cls) -> Home:
        """`$GPURUN_HOME`, else the platform's folder for application data."""
        chosen = os.environ.get("GPURUN_HOME")
        if chosen:
            return cls(Path(chosen).expanduser().absolute())
        import platformdirs

        return cls(Path(platformdirs.user_data_dir("gpurun", appauthor=False)))

    @property
    def ledger(self) -> Path:
        """The SQLite file."""
        return self.root / "ledger.sqlite"

    @property
    def runs(self) -> Path:
        """The folder of all run folders."""
        return self.root / "runs"

    def run(self, run_id: str) -> RunFolder:
        """Name a run's folder; it need not exist."""
        return RunFolder(self.runs / run_id)

    def ensure(self) -> Home:
        """Make the home, readable by its owner only.

        Raises:
            StateError: it can't be made or written.
        """
        try:
            self.runs.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.root.chmod(0o700)
            probe = self.root / f".probe-{os.getpid()}"
            probe.write_bytes(b"")
            probe.unlink()
        except OSError as error:
            raise StateError(
                f"the home {self.root} can't be written: {error.strerror or error}",
                hint="free some space or set GPURUN_HOME to a folder of yours: export GPURUN_HOME=~/gpurun",
            ) from error
        return self


def write_aside(path: Path, data: bytes) -> None:
    """Write a file so that no reader ever sees half of it."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    with aside.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)


def write_private(path: Path, data: bytes) -> None:
    """The same for what only its owner may read, from its first byte on."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.unlink(missing_ok=True)
    with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)


def write_json(path: Path, value: Any) -> None:
    """Write JSON aside, then move it into place; a time is written as ISO 8601."""
    text = json.dumps(value, indent=1, ensure_ascii=False, default=lambda time: time.isoformat())
    write_aside(path, text.encode() + b"\n")


def read_json(path: Path) -> dict[str, Any] | None:
    """Read a JSON object; None = it is not there. Half a file can't be: writers write aside.

    Raises:
        StateError: it is there and is not a JSON object.
    """
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise StateError(f"{path} can't be read: {error}") from error
    if not isinstance(value, dict):
        raise StateError(f"{path} is not a JSON object")
    return value
