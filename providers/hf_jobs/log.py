"""A job's log: the client's stream of events, read by a thread, each line kept once, whatever drops.

    GET …/logs (SSE) ──client's generator──> thread ──> bytes from the log's own beginning ──> logs(offset)

Every connection replays the log from its start, and the generator dies of any HTTP status of 400 or more. So lines are
counted here: what a new generator repeats is passed over. That the job lives is told by others, never by this stream.
A generator that follows ends without a word where the stream was cut after the job's end (client 2.4.0). So the log of
a job that is over is read once more without following: such a reading raises when it is cut.
"""

from __future__ import annotations

import logging
import socket
import threading
from typing import TYPE_CHECKING

from providers.hf_jobs import hub

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx2

_log = logging.getLogger("gpurun.hf")
_SHORTEST, _LONGEST = 1.0, 30.0  # seconds between two streams of a Hub that refuses


class LogReader:
    """Reads one job's log for as long as it is wanted. `is_over` tells whether the job has ended."""

    def __init__(
        self,
        there: hub.Hub,
        namespace: str,
        job_id: str,
        is_over: Callable[[], bool],
        pace: float,
        take: Callable[[str], bool] = lambda _line: False,
    ) -> None:
        """`take` is shown each line once; what it takes is not the log's."""
        self._hub, self._namespace, self._job_id = there, namespace, job_id
        self._is_over = is_over
        self._pace = pace
        self._take = take
        self._seen = 0  # lines of the stream
        self._data = bytearray()
        self._news = threading.Condition()
        self._stopped = threading.Event()
        self._stream: httpx2.Response | None = None
        self._thread: threading.Thread | None = None
        self.lines = 0
        self.ended = False  # the last stream came to its end after the job's

    def read(self, offset: int, piece: int) -> bytes:
        """Give what is here from a byte offset."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._keep_reading, name=f"log {self._job_id}", daemon=True)
            self._thread.start()
        with self._news:
            return bytes(self._data[offset : offset + piece])

    def wait(self, lines: int, seconds: float) -> bool:
        """Wait for so many lines, or for the stream's end; False = neither came."""
        with self._news:
            return self._news.wait_for(lambda: self.lines >= lines or self.ended, seconds)

    def close(self) -> None:
        """Stop reading, in the midst of a silent stream too."""
        self._stopped.set()
        self._break_off(self._stream)
        if self._thread is not None:
            self._thread.join(2.0)

    def _keep_reading(self) -> None:
        hub.log_streams.keep = self._keep
        wait = _SHORTEST
        while not self._stopped.is_set():
            before, over = self._seen, self._is_over()
            whole = self._read_once(follow=not over)
            wait = _SHORTEST if self._seen > before else min(wait * 2, _LONGEST)
            if whole and over:
                with self._news:
                    self.ended = True
                    self._news.notify_all()
                return
            self._stopped.wait(wait / self._pace)

    def _read_once(self, *, follow: bool) -> bool:
        """Read one generator to its end; False = it died, or gave less than is known already."""
        seen = 0
        try:
            for line in self._hub.api.fetch_job_logs(job_id=self._job_id, namespace=self._namespace, follow=follow):
                seen += 1
                if seen > self._seen:
                    self._add(line)
                if self._stopped.is_set():
                    return False
        except hub.troubles() as error:
            if not self._stopped.is_set():
                _log.info("the log of %s: %s", self._job_id, self._hub.error_of("log", error))
            return False
        return seen >= self._seen

    def _add(self, line: str) -> None:
        with self._news:
            self._seen += 1
            if not self._take(line):
                self._data += line.encode("utf-8", "replace") + b"\n"
                self.lines += 1
            self._news.notify_all()

    def _keep(self, response: httpx2.Response) -> None:
        self._stream = response
        if self._stopped.is_set():
            self._break_off(response)

    @staticmethod
    def _break_off(response: httpx2.Response | None) -> None:
        """Shut the socket under a reader that waits: it wakes with an end."""
        stream = None if response is None else response.extensions.get("network_stream")
        raw = None if stream is None else stream.get_extra_info("socket")
        if raw is not None:
            try:
                raw.shutdown(socket.SHUT_RDWR)
            except OSError:
                return  # closed already
