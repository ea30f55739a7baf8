"""A real HTTP server on loopback that answers by a script and keeps what it was asked: a vendor at its worst."""

from __future__ import annotations

import json
import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True)
class Answer:
    """One answer. `cut` = hang up after so many bytes of the body; `drip` = seconds between its bytes."""

    status: int = 200
    body: bytes = b'{"data": {}}'
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None
    drip: float = 0.0
    hang_up: bool = False

    @classmethod
    def data(cls, data, **more) -> Answer:
        return cls(200, json.dumps({"data": data, **more}).encode())

    @classmethod
    def error(cls, status: int, code: str, message: str = "no", **more) -> Answer:
        return cls(status, json.dumps({"error": {"code": code, "message": message}}).encode(), **more)


@dataclass(frozen=True)
class Asked:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    at: float
    port: int  # the client's: one a connection


class Scripted:
    """Answers the script in order; the last answer again and again."""

    def __init__(self) -> None:
        self.script: list[Answer] = [Answer()]
        self.asked: list[Asked] = []
        self._lock = threading.Lock()
        self._open: list[socket.socket] = []
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def handle_any(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                headers = {name.lower(): value for name, value in self.headers.items()}
                self.reply(
                    owner.next(Asked(self.command, self.path, headers, body, time.monotonic(), self.client_address[1]))
                )

            do_GET = do_POST = do_DELETE = handle_any  # noqa: N815 - the base class looks for these names

            def reply(self, answer: Answer) -> None:
                if answer.hang_up:
                    self.close_connection = True
                    return
                self.send_response_only(answer.status)
                for name, value in {"Content-Length": str(len(answer.body)), **answer.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.send(answer)

            def send(self, answer: Answer) -> None:
                body = answer.body if answer.cut is None else answer.body[: answer.cut]
                step = 1 if answer.drip else max(len(body), 1)
                for start in range(0, len(body), step):
                    self.wfile.write(body[start : start + step])
                    time.sleep(answer.drip)
                self.close_connection = self.close_connection or answer.cut is not None

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = False

            def process_request_thread(self, request, client_address) -> None:
                owner._open.append(request)
                super().process_request_thread(request, client_address)

            def handle_error(self, *_: object) -> None:
                pass  # the client hung up on a drip

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def next(self, asked: Asked) -> Answer:
        with self._lock:
            self.asked.append(asked)
            return self.script.pop(0) if len(self.script) > 1 else self.script[0]

    def close(self) -> None:
        self._server.shutdown()
        for connection in self._open:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._server.server_close()
        self._thread.join()
