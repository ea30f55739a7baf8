"""A vendor of one machine, over real HTTP: it is asked about `m-1`, and ends it when it is told so.

with Vendor() as vendor:
    vendor.orders()          -> ender.json for it
    vendor.troubles = [503]  # answered before any sense: a status, or what to do instead
"""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    import ssl

KEY = "secret_ender_0123456789abcdef"


class Vendor:
    """`asked` holds (time, method, path, body) of all that came with the right key."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.status = "active"
        self.deaf = 0  # how often an order to end is taken and ignored
        self.troubles: list[Any] = []
        self.key = KEY
        self.asked: list[tuple[float, str, str, Any]] = []
        self.over = threading.Event()
        vendor = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                vendor.answer(self)

            do_POST = do_GET  # noqa: N815 (http.server's name)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = False
        self.port = self._server.server_address[1]
        self.scheme = "https" if context else "http"
        if context:
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
            self._server.handle_error = lambda *_: None  # a client that does not trust us says so by leaving
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        length = int(request.headers.get("Content-Length") or 0)
        body = json.loads(request.rfile.read(length)) if length else None
        if request.headers.get("Authorization") != f"Bearer {self.key}":
            reply(request, 401, {"error": {"code": "wrong-key"}})
            return
        self.asked.append((time.time(), request.command, request.path, body))
        trouble = self.troubles.pop(0) if self.troubles else None
        if callable(trouble):
            trouble(request)
        elif trouble is not None:
            reply(request, trouble, {"error": {"code": "trouble"}})
        elif request.command == "POST" and body == {"ids": ["m-1"]}:
            self.deaf -= 1
            self.status = "terminated" if self.deaf < 0 else self.status
            reply(request, 200, {"data": {}})
        elif request.path == "/machines/m-1":
            reply(request, 200, {"data": {"id": "m-1", "status": self.status}})
        else:
            reply(request, 404, {"error": {"code": "no-such-thing"}})

    def told(self) -> list[float]:
        """When it was told to end the machine."""
        return [at for at, method, *_ in self.asked if method == "POST"]

    def orders(self, **more: Any) -> dict[str, Any]:
        url = f"{self.scheme}://localhost:{self.port}"
        headers = {"Authorization": f"Bearer {KEY}", "User-Agent": "test"}
        return {
            "routes": [{"method": "POST", "url": f"{url}/end", "headers": headers, "body": {"ids": ["m-1"]}}],
            "look": {"method": "GET", "url": f"{url}/machines/m-1", "headers": headers},
            "alive": [{"status": [200], "at": ["data", "id"], "in": ["m-1"]}],
            "gone": [
                {"status": [200], "at": ["data", "status"], "in": ["terminated"]},
                {"status": [404], "at": ["error", "code"], "in": ["no-such-machine"]},
            ],
            "pace_seconds": 0.01,
            **more,
        }


def reply(request: BaseHTTPRequestHandler, status: int, content: Any, **headers: str) -> None:
    """Answer with JSON."""
    data = json.dumps(content).encode()
    request.send_response(status)
    for name, value in {"Content-Length": str(len(data)), **headers}.items():
        request.send_header(name, value)
    request.end_headers()
    request.wfile.write(data)
