"""A relay in front of a server on loopback that spoils what goes through it: cuts, refuses, answers 500.

with Relay(endpoint) as relay:
    relay.spoil = lambda number: Cut(5000)      # asked for each connection, by its number from 0
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable

ERROR = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


@dataclass(frozen=True)
class Fault:
    """What happens to one connection."""

    cut_up: int | None = None  # after so many bytes to the server
    cut_down: int | None = None  # after so many bytes back
    error: bool = False  # answered with 500 at the first byte
    answer: bytes = b""  # or with this; what was on its way is taken
    of: bytes = b""  # only a request that begins so: b"POST"
    pause: float = 0.0  # seconds before each piece


def answer(status: int, code: str) -> bytes:
    """Spell what S3 says when it takes nothing."""
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{code}</Message></Error>".encode()
    head = f"HTTP/1.1 {status} No\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}\r\nConnection: close"
    return head.encode() + b"\r\n\r\n" + body


class Relay:
    """Listens on a port of its own."""

    def __init__(self, endpoint: str) -> None:
        parts = urlsplit(endpoint)
        self._target = (parts.hostname, parts.port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.spoil: Callable[[int], Fault | None] = lambda _number: None
        self.connections = 0
        self._threads: list[threading.Thread] = []
        self._closing = False

    def __enter__(self):
        self._start(self._accept)
        return self

    def __exit__(self, *_):
        self._closing = True
        for thread in list(self._threads):
            thread.join(30)
        self._listener.close()

    def _start(self, work, *args) -> None:
        thread = threading.Thread(target=work, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._closing:
            if select.select([self._listener], [], [], 0.1)[0]:
                client, _ = self._listener.accept()
                number, self.connections = self.connections, self.connections + 1
                self._start(self._carry, client, self.spoil(number) or Fault())

    def _carry(self, client: socket.socket, fault: Fault) -> None:
        with client, contextlib.suppress(OSError), socket.create_connection(self._target) as server:
            up = down = 0
            until = time.monotonic() + 60
            while not self._closing and time.monotonic() < until:
                for source in select.select([client, server], [], [], 0.1)[0]:
                    piece = source.recv(65536)
                    if not piece:
                        return
                    time.sleep(fault.pause)
                    if source is server:
                        piece = piece if fault.cut_down is None else piece[: max(fault.cut_down - down, 0)]
                        down += len(piece)
                        client.sendall(piece)
                        if fault.cut_down is not None and down >= fault.cut_down:
                            return
                        continue
                    if up == 0 and not piece.startswith(fault.of):
                        fault = Fault()
                    if (fault.error or fault.answer) and up == 0:
                        client.sendall(fault.answer or ERROR)
                        client.shutdown(socket.SHUT_WR)
                        client.settimeout(2)
                        while client.recv(65536):  # closed under its feet, the other side would not hear the answer
                            pass
                        return
                    piece = piece if fault.cut_up is None else piece[: max(fault.cut_up - up, 0)]
                    up += len(piece)
                    server.sendall(piece)
                    if fault.cut_up is not None and up >= fault.cut_up:
                        return
