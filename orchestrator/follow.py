"""Bring the log home by byte offset, and read the metrics lines out of it.

    machine's log.txt --logs(offset)--> home's log.txt --lines--> home's metrics.jsonl

The home's log is the only memory of how far we are: its size less where this attempt began. Any chunking gives
the same lines, and a kill between any two writes loses nothing and repeats nothing. Standard library only.
"""

from __future__ import annotations

import json
import math
import os
from typing import TYPE_CHECKING, Any

from orchestrator.home import read_json, write_json

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from orchestrator.home import RunFolder
    from providers.base import Remote

PREFIX = b"::metrics "
_MAX_LINE = 64 * 1024  # a metrics line is short; what is longer is somebody's output


class Follower:
    """Copies one attempt's log into the run's folder. Cheap to make anew after any crash."""

    def __init__(self, folder: RunFolder, attempt: int) -> None:
        self._folder = folder
        self._attempt = attempt
        self._places = folder.path / "follow.json"

    def pull(self, remote: Remote, go_on: Callable[[], None] = lambda: None) -> int:
        """Append what is new, then bring the metrics up to date; gives the number of new bytes.

        `go_on` is called before each piece, since a machine may talk without end; what it raises ends the pull.

        Raises:
            RemoteError: the machine could not be asked; what came before is kept.
        """
        base = self._base()
        new = 0
        while True:
            go_on()
            offset = max(_size(self._folder.log) - base, 0)
            chunk = remote.logs(offset)
            if not chunk:
                break
            _write_at(self._folder.log, base + offset, chunk)
            new += len(chunk)
        self._metrics()
        return new

    def _base(self) -> int:
        """Where this attempt's log begins in the home's: fixed on disk before its first byte is written."""
        places = read_json(self._places) or {}
        key = str(self._attempt)
        if key not in places:
            if self._attempt > 1:
                self._end_line(f"── attempt {self._attempt} ──\n")
            places[key] = _size(self._folder.log)
            write_json(self._places, places)
        return int(places[key])

    def _end_line(self, heading: str) -> None:
        if not self._folder.log.exists():
            return
        data = self._folder.log.read_bytes()[-200:]
        if data.endswith(heading.encode()):
            return
        with self._folder.log.open("ab") as log:
            log.write((b"" if data.endswith(b"\n") or not data else b"\n") + heading.encode())

    def _metrics(self) -> None:
        """Append the metrics of all whole lines that were not read yet."""
        places = read_json(self._places) or {}
        start, size = int(places.get("metrics", 0)), int(places.get("metrics_size", 0))
        found, stop = metrics_between(self._folder.log, start)
        if stop == start:
            return
        with self._folder.metrics.open("ab") as file:
            file.truncate(size)  # a kill between the two writes below may have left lines that will come again
            file.seek(0, os.SEEK_END)
            for line in found:
                file.write(json.dumps(line).encode() + b"\n")
            file.flush()
            places.update(metrics=stop, metrics_size=file.tell())
        write_json(self._places, places)


def metrics_between(log: Path, start: int) -> tuple[list[dict[str, Any]], int]:
    """Read the metrics lines from byte `start` to the last line end; gives them and that end."""
    found: list[dict[str, Any]] = []
    stop = start
    if not log.exists():
        return found, stop
    with log.open("rb") as file:
        file.seek(start)
        for line in file:
            if not line.endswith(b"\n"):
                break
            stop += len(line)
            metrics = parse(line)
            if metrics is not None:
                found.append(metrics)
    return found, stop


def parse(line: bytes) -> dict[str, Any] | None:
    """Read one metrics line; None = it is something else. Never raises: the log is anybody's text."""
    if not line.startswith(PREFIX) or len(line) > _MAX_LINE:
        return None
    try:
        value = json.loads(line[len(PREFIX) :])
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def number(value: object) -> float | None:
    """Read a finite number out of a metrics value; None = it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _write_at(path: Path, place: int, data: bytes) -> None:
    """Write at a place, not at the end: a controller that slept since it read these bytes repeats nothing."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        while data:
            done = os.pwrite(handle, data, place)
            data, place = data[done:], place + done
    finally:
        os.close(handle)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
