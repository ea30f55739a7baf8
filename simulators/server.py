"""Real HTTP/1.1 on loopback: sockets, keep-alive, threads. What is answered is somebody else's.

    socket -> Request -> answer(request) -> Reply -> socket      one thread a connection

A reply can be held back, or dropped with the connection. A server can stop listening (refused) and come back.
"""

from __future__ import annotations

import errno
import json
import random
import socket
import threading
import time
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, parse_qsl, urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

HOST = "127.0.0.1"
_POLL_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked. Header names are in lower case; a query name given twice keeps its last value."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    pairs: Sequence[tuple[str, str]] = ()  # the query as it stands, names given twice included

    def json(self) -> object:
        """Read the body.

        Raises:
            ValueError: it is no JSON.
        """
        return json.loads(self.body)


@dataclass(slots=True)
class Reply:
    """What is answered. `drop` = the connection is closed instead; `hold_seconds` are ours.

    `stream` gives pieces as they come, after the body; it may take its time, and is closed when the caller hangs up.
    `take_over` is given the connection, and ends it: nothing is sent but by it.
    """

    status: int
    body: bytes = b""
    content_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)
    date: float = 0.0  # epoch seconds
    hold_seconds: float = 0.0
    drop: bool = False
    stream: Iterator[bytes] | None = None
    take_over: Callable[[socket.socket], None] | None = None


def as_json(status: int, content: object) -> Reply:
    """Answer with JSON."""
    return Reply(status, json.dumps(content).encode())


def free_port() -> int:
    """Find a port that can be bound again later, on any address: no outgoing connection is given it by chance."""
    ports = random.sample(range(15000, 32000), 50)  # below the ephemeral ranges of Linux and macOS
    for port in ports:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("", port))
            except OSError:
                continue
            return port
    raise OSError("no free port between 15000 and 32000")


def nobody(_request: Request) -> Reply:
    """Answer for a server that nobody stands behind yet."""
    return Reply(503)


class Server:
    """One listener. `listen` and `fall_silent` may be called from any thread, an answering one as well."""

    def __init__(self, name: str, answer: Callable[[Request], Reply] = nobody) -> None:
        self.answer = answer
        self.name = name
        self.port = 0  # chosen at the first listen, the same ever after
        self._http: _Http | None = None
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://{HOST}:{self.port}"

    def listen(self) -> None:
        """Begin to answer."""
        with self._lock:
            while self._http is None:
                port = self.port or free_port()
                try:
                    self._http = _Http(self, port)
                except OSError as error:
                    if self.port or error.errno != errno.EADDRINUSE:
                        raise
                else:
                    self.port = port

    def fall_silent(self) -> None:
        """Refuse connections; what is being answered is still answered."""
        with self._lock:
            http, self._http = self._http, None
        if http is not None:
            http.close()

    def close(self) -> None:
        """Stop for good: no socket and no thread is left."""
        with self._lock:
            http, self._http = self._http, None
        if http is not None:
            http.close()
            http.join()


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, owner: Server, port: int) -> None:
        super().__init__((HOST, port), _Handler)
        self.owner = owner
        self.closing = threading.Event()
        self.connections: dict[socket.socket, bool] = {}  # -> is it being answered
        self.guard = threading.Lock()
        self._workers: list[threading.Thread] = []
        self._loop = threading.Thread(target=self.serve_forever, args=(_POLL_SECONDS,), name=owner.name, daemon=True)
        self._loop.start()

    def process_request_thread(self, request: socket.socket, client_address: tuple[str, int]) -> None:  # type: ignore[override]
        with self.guard:
            self._workers = [worker for worker in self._workers if worker.is_alive()]
            self._workers.append(threading.current_thread())
            self.connections[request] = False
        super().process_request_thread(request, client_address)

    def shutdown_request(self, request: socket.socket) -> None:  # type: ignore[override]
        with self.guard:
            self.connections.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: object, client_address: object) -> None:
        """Let a caller hang up whenever it likes; anything else is a bug of ours and is told."""
        import sys

        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]

    def close(self) -> None:
        self.closing.set()
        self.shutdown()
        self.server_close()
        with self.guard:
            for connection, busy in self.connections.items():
                if not busy:
                    _hang_up(connection)

    def join(self) -> None:
        with self.guard:
            workers = list(self._workers)
        for worker in [self._loop, *workers]:
            if worker is not threading.current_thread():
                worker.join(5)


def _hang_up(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # the other side was quicker


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body leave in one piece
    disable_nagle_algorithm = True
    server: _Http
    date = 0.0

    def _handle(self) -> None:
        with self.server.guard:
            self.server.connections[self.connection] = True
        try:
            reply = self.server.owner.answer(self._request())
            self._send(reply)
        finally:
            with self.server.guard:
                if self.connection in self.server.connections:
                    self.server.connections[self.connection] = False
            self.close_connection = self.close_connection or self.server.closing.is_set()

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _handle  # noqa: N815 - the base class looks for these names

    def _request(self) -> Request:
        parts = urlsplit(self.path)
        length = int(self.headers.get("Content-Length") or 0)
        query = {name: values[-1] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
        headers = {name.lower(): value for name, value in self.headers.items()}
        pairs = parse_qsl(parts.query, keep_blank_values=True)
        return Request(self.command, parts.path, query, headers, self.rfile.read(length), pairs)

    def _send(self, reply: Reply) -> None:
        if reply.hold_seconds:
            self.server.closing.wait(reply.hold_seconds)
        if reply.drop:
            self.close_connection = True
            return
        if reply.take_over is not None:
            self.close_connection = True
            reply.take_over(self.connection)
            return
        self.date = reply.date
        self.send_response(reply.status)
        self.send_header("Content-Type", reply.content_type)
        if reply.stream is not None:
            self.send_header("Transfer-Encoding", "chunked")
        elif "Content-Length" not in reply.headers:
            self.send_header("Content-Length", str(len(reply.body)))
        for name, value in reply.headers.items():
            self.send_header(name, value)
        if self.server.closing.is_set():
            self.send_header("Connection", "close")
        self.end_headers()
        if reply.stream is not None:
            self._flow(reply.stream)
        elif self.command != "HEAD":
            self.wfile.write(reply.body)
        self.wfile.flush()

    def _flow(self, pieces: Iterator[bytes]) -> None:
        """Send pieces as they come; an empty one drops the connection in the midst."""
        for piece in pieces:
            if not piece or self.server.closing.is_set():
                self.close_connection = True
                return
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")

    def date_time_string(self, timestamp: float | None = None) -> str:
        """Date every reply by the vendor's clock."""
        return formatdate(timestamp or self.date or time.time(), usegmt=True)

    def version_string(self) -> str:
        """Hide Python's name: peers branch on it."""
        return "simulator"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Keep stderr clean; the journal has every request."""
