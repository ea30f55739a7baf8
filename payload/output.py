"""What a training prints: copied to log.txt byte by byte, and read for progress.

    pipe ──> log.txt (append only; past its limit only metrics lines, and how much was left out)
         └─> metrics.jsonl, and the numbers that the agent judges: step, stage, loss, the last error line

What transformers' Trainer says by itself (spoken.py) is said again after it, as a metrics line: a log has one form.
Nothing here decides. It never stops reading: a training whose pipe is full would hang for our sake.
Standard library only, Python 3.9.
"""

from __future__ import annotations

import collections
import json
import math
import os
import re
import time
from pathlib import Path  # noqa: TC003 (Python 3.9 alone: nothing is gained)
from typing import Any, Deque, Dict, Optional, Tuple

from spoken import Spoken

PREFIX = b"::metrics "
LONGEST = 64 * 1024  # bytes of a line that are looked at
KEPT_KEYS = 200  # different metrics that are remembered
NOTICE_EVERY = 10.0  # seconds between two words on what is left out
TAIL = 64 * 1024  # bytes of left-out output that are kept for the end: the error stands there
_CONTROL = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b.|[\x00-\x08\x0a-\x1f\x7f-\x9f]")


def plain(line: bytes) -> str:
    """One line as a person may read it: no control characters, no escape codes, 300 characters."""
    text = line.decode("utf-8", "replace").rstrip("\r\n").rsplit("\r", 1)[-1]
    return _CONTROL.sub("", text.replace("\t", " ")).strip()[:300]


def finite(value: Any) -> Any:
    """Make a number that JSON can hold: "nan" and "inf" are words there."""
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else ("inf" if value > 0 else "-inf")
    if isinstance(value, dict):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [finite(item) for item in value]
    return value


def is_lost(loss: Any) -> bool:
    """Whether a loss is not finite, in any spelling."""
    if isinstance(loss, str):
        return loss.strip().lstrip("+-").lower() in ("nan", "inf", "infinity")
    return isinstance(loss, float) and not math.isfinite(loss)


class Output:
    """One job's output, over all restarts of its training. One thread feeds it; another may read its fields."""

    def __init__(self, folder: Path, limit: int) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        self._log = os.open(folder / "log.txt", flags, 0o644)
        self._metrics = os.open(folder / "metrics.jsonl", flags, 0o644)
        self.limit = limit
        self.written = os.fstat(self._log).st_size
        self.closed = self.written > limit  # full: metrics lines only
        self.left_out = 0  # bytes since the last notice
        self.unwritten = 0  # bytes that the disk refused
        self.disk_error = ""
        self._tail = b""
        self._notice_at = 0.0
        self._line = b""  # the unfinished line, or its beginning
        self._long = False  # it is longer than LONGEST: no metrics line
        self._fresh = True  # the log ends with a newline
        self._thinned_at = 0.0
        self._ragged = b""
        self._spoken = Spoken()
        self._added: Deque[bytes] = collections.deque()  # lines of the agent's own, to be put between two of these
        # what the agent reads
        self.step = 0
        self.best_step = 0  # of this stage and this start
        self.ever = 0  # the highest step of all starts
        self.total_steps = 0
        self.stage = ""
        self.loss: Any = None
        self.moves = 0  # grows with every new step and every new stage
        self.diverged = False
        self.tells = False  # it told a step in a metrics line of its own
        self.last: Dict[str, Any] = {}
        self.last_line = ""
        self.error = ""  # the last line of the last traceback, while little followed it
        self._in_traceback = False
        self._since_error = 0

    # -- bytes --

    def copy(self, pipe: int) -> None:
        """Copy a pipe until its last writer has closed it: the body of a thread."""
        while True:
            try:
                chunk = os.read(pipe, 1 << 16)
            except OSError:
                break
            if not chunk:
                break
            self.feed(chunk)
        self.finish()

    def add(self, lines: str) -> None:
        """Say whole lines of the agent's own: written by the thread that feeds, where a line of the training ends."""
        self._added.append(lines.encode())

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes, cut anywhere."""
        if self._added and not self._line and not self._long:
            chunk = self._added.popleft() + chunk
        kept, rest = self._split(chunk)
        if kept:
            self._write(kept)
            self._lines(kept, logged=True)
        if rest:
            self.left_out += len(rest)
            self._tail = (self._tail + rest)[-TAIL:]
            self._lines(rest, logged=False)
            self._notice()
        for found in self._spoken.feed(chunk):
            self._say_again(found)

    def finish(self) -> None:
        """The pipe is closed: judge the last half line, and keep the end of what was left out."""
        if self._line:
            self._judge(self._line, logged=not self.closed)
            self._line = b""
        self._long = False
        for found in self._spoken.finish():
            self._say_again(found)
        while self._added:
            self._write(b"" if self._fresh else b"\n")
            self.feed(b"")
        if self._tail:
            self._notice(now=True)
            cut = len(self._tail) == TAIL  # then its first line is but the end of one
            self._write(b"the last of it:\n" + (self._tail.split(b"\n", 1)[-1] if cut else self._tail))
            self._tail = b""

    def _split(self, chunk: bytes) -> Tuple[bytes, bytes]:
        """Cut a chunk where the log is full: at the end of a line where there is one."""
        if self.closed:
            return b"", chunk
        room = self.limit - self.written
        if len(chunk) <= room:
            return chunk, b""
        end = chunk.find(b"\n", max(room, 0))
        if end < 0 and len(chunk) - room < LONGEST:
            return chunk, b""
        self.closed = True
        end = max(room, 0) if end < 0 else end + 1
        return chunk[:end], chunk[end:]

    def _notice(self, *, now: bool = False) -> None:
        clock = time.monotonic()
        if self.left_out and (now or clock - self._notice_at > NOTICE_EVERY):
            self._notice_at = clock
            start = "" if self._fresh else "\n"
            self._write(f"{start}… {self.left_out / 1e6:.1f} MB of output left out\n".encode())
            self.left_out = 0

    def _write(self, data: bytes) -> None:
        if self.unwritten:
            notice = f"\n… {self.unwritten} bytes of output lost: {self.disk_error}\n".encode()
            self.unwritten = 0 if self._put(notice) == 0 else self.unwritten
        self.unwritten += self._put(data)

    def _put(self, data: bytes) -> int:
        """Write all that the disk takes; give the number of bytes it did not."""
        view = memoryview(data)
        while view:
            try:
                done = os.write(self._log, view)
            except OSError as error:
                self.disk_error = error.strerror or str(error)
                return len(view)
            self.written += done
            self._fresh = view[done - 1] == 0x0A
            view = view[done:]
        return 0

    # -- lines --

    def _lines(self, data: bytes, *, logged: bool) -> None:
        *whole, rest = data.split(b"\n")
        for part in whole:
            line = self._line + part if not self._long else self._line
            self._judge(line, logged=logged)
            self._line, self._long = b"", False
        if not self._long:
            self._line += rest
            if len(self._line) > LONGEST:
                self._line, self._long = self._line[:400], True

    def _judge(self, line: bytes, *, logged: bool) -> None:
        line = line.rstrip(b"\r").rsplit(b"\r", 1)[-1]  # a progress bar may stand before it, overwritten
        if line.startswith(PREFIX) and not self._long and len(line) <= LONGEST:
            found = self._parse(line[len(PREFIX) :])
            if found is not None:
                self.tells = self.tells or _count(found.get("step")) is not None
                self._take(found)
                self._keep(found, line, logged=logged)
                return
        if line.strip():
            self._remember(line)

    def _parse(self, text: bytes) -> Optional[Dict[str, Any]]:
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            return None
        return found if isinstance(found, dict) else None

    def _say_again(self, found: Dict[str, Any]) -> None:
        """Put what was understood into the log as a line of its own, after what it came from."""
        self._take(found)
        line = PREFIX + json.dumps(found).encode()
        self._keep(found, line if self._fresh else b"\n" + line, logged=False)

    def _keep(self, found: Dict[str, Any], line: bytes, *, logged: bool) -> None:
        """Write a metrics line down; far past the log's limit one a second must do."""
        if self.written > 2 * self.limit:
            if time.monotonic() - self._thinned_at < 1.0:
                return
            self._thinned_at = time.monotonic()
        try:
            text = self._ragged + json.dumps(finite(found)).encode() + b"\n"
            done = os.write(self._metrics, text)
            self._ragged = b"" if done == len(text) else b"\n"  # a disk that filled up in the midst of a line
        except (OSError, ValueError, RecursionError) as error:
            self.disk_error = getattr(error, "strerror", None) or str(error)
        if not logged:
            self._write(line + b"\n")

    def _take(self, found: Dict[str, Any]) -> None:
        """Read progress from one metrics object; what makes no sense is passed over."""
        stage = found.get("stage")
        if isinstance(stage, str) and plain(stage.encode("utf-8", "replace"))[:40] != self.stage:
            self.stage = plain(stage.encode("utf-8", "replace"))[:40]
            self.best_step = -1
            self.moves += 1
        step, total = _count(found.get("step")), _count(found.get("total_steps"))
        if step is not None:
            self.step = step
            self.moves += step > self.best_step
            self.best_step = max(self.best_step, step)
            self.ever = max(self.ever, step)
        if total is not None:
            self.total_steps = total
        if "loss" in found:
            self.loss = finite(found["loss"])
            self.diverged = self.diverged or is_lost(found["loss"])
        for key, value in found.items():
            if isinstance(value, (int, float, str)) and (key in self.last or len(self.last) < KEPT_KEYS):
                self.last[key[:80]] = finite(value)

    def _remember(self, line: bytes) -> None:
        """Keep the line that says what went wrong: the end of the last traceback, else the last line."""
        head = line[:400]
        self._since_error += 1
        if head.startswith(b"Traceback (most recent call last)"):
            self._in_traceback = True
        elif self._in_traceback and not head[:1].isspace():
            self._in_traceback = False
            self.error, self._since_error = plain(head), 0
        text = plain(head)
        if text:
            self.last_line = text

    @property
    def story(self) -> str:
        """The most telling line so far; "" = nothing was printed."""
        return self.error if self.error and self._since_error < 20 else self.last_line

    def restart(self, note: str) -> None:
        """A new start: its steps count from its checkpoint again, and the stage is its own to tell."""
        self._write(("" if self._fresh else "\n").encode() + note.encode())
        self.step = self.best_step = 0
        self.stage = ""
        self.last.pop("stage", None)
        self.moves += 1
        self.diverged = False


def _count(value: Any) -> Optional[int]:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return int(value) if 0 <= value < 2**53 else None
