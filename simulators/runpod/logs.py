"""The logs of pods: lines as they come, told as server-sent events with ids from which a reader can go on.

    id: 2026-06-01T12:02:03Z/000000000001
    data: {"ts": "2026-06-01T12:02:03Z", "source": "container", "line": "…"}

Has a lock of its own: a container's words must never wait for the world's.
"""

from __future__ import annotations

import json
import threading
from datetime import datetime
from typing import TYPE_CHECKING

from simulators.runpod.pods import Line, Pod, stamp

if TYPE_CHECKING:
    from collections.abc import Iterator

    from simulators.clock import Clock

_KEEP_ALIVE_SECONDS = 15.0
_MOST_LINES = 20_000


class Logs:
    """What containers and their hosts said."""

    def __init__(self, clock: Clock, pace: float) -> None:
        self._clock = clock
        self._news = threading.Condition()
        self._nap_seconds = max(_KEEP_ALIVE_SECONDS / pace, 0.05)  # ours
        self._over = False

    def say(self, pod: Pod, source: str, text: str) -> None:
        """Add a line."""
        with self._news:
            pod.said += 1
            pod.lines.append(Line(self._clock.now(), source, text, pod.said))
            del pod.lines[:-_MOST_LINES]
            self._news.notify_all()

    def forget(self, pod: Pod) -> None:
        """Lose all of a pod's lines."""
        with self._news:
            pod.lines.clear()
            self._news.notify_all()

    def close(self) -> None:
        """End every stream."""
        with self._news:
            self._over = True
            self._news.notify_all()

    def start(self, pod: Pod, tail: int, since: float | None, last_id: str) -> int:
        """Give the number of the last line that a reader does not want."""
        with self._news:
            number = last_id.rpartition("/")[2]
            if last_id and number.isdecimal():
                return int(number)
            if since is not None:
                return next((line.number - 1 for line in pod.lines if line.when >= since), pod.said)
            return max(0, pod.said - tail)

    def flow(self, pod: Pod, after: int, source: str, most: int | None) -> Iterator[bytes]:
        """Give the events after a line, and those to come; an empty piece drops the connection."""
        sent = 0
        while not self._over:
            with self._news:
                lines = [line for line in pod.lines if line.number > after]
                if not lines and not self._over:
                    if not pod.alive:
                        return
                    self._news.wait(self._nap_seconds)
                    lines = [line for line in pod.lines if line.number > after]
            if not lines:
                yield b": keep-alive\n\n"
            for line in lines:
                after = line.number
                if source in {"", line.source}:
                    if most is not None and sent >= most:
                        yield b""
                        return
                    sent += 1
                    yield event(line)
        yield b""


def event(line: Line) -> bytes:
    """Spell a line as an event."""
    data = {"ts": stamp(line.when), "source": line.source, "line": line.text}
    return f"id: {stamp(line.when)}/{line.number:012d}\ndata: {json.dumps(data)}\n\n".encode()


def moment(text: str) -> float:
    """Read an RFC 3339 timestamp.

    Raises:
        ValueError: it is none.
    """
    return datetime.fromisoformat(text).timestamp()
