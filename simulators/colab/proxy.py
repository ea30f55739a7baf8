"""The proxy in front of a VM's Jupyter server: a token is looked at, then everything passes, websockets as well.

    client ── Link ── Server ── token ── unix socket ── jupyter-server in the VM

A token that has ended, or that is another VM's, gets 404 (sometimes 401), and so does whoever looks for a VM that is
gone: from outside they can't be told apart. What is open already stays open when its token ends.
"""

from __future__ import annotations

import http.client
import os
import selectors
import socket
import threading
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from simulators.server import Reply, Request, Server, as_json

if TYPE_CHECKING:
    from pathlib import Path

    from simulators.colab.vms import Vm
    from simulators.colab.world import ColabWorld

HEADER, QUERY = "x-colab-runtime-proxy-token", "colab-runtime-proxy-token"
_READY_SECONDS = 90.0  # ours: for a VM that starts, on a loaded computer
_ANSWER_SECONDS = 600.0
_BLOCK = 1 << 16
_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "date", "server", "content-type"}
_KINDS = {"/api/contents": "contents", "/api/kernels": "kernels", "/api/colab/resources": "resources"}


class Proxy:
    """One VM's way in."""

    def __init__(self, vm: Vm, world: ColabWorld, door: Path) -> None:
        """`door` is the unix socket of the Jupyter server, seen from outside."""
        self._vm, self._world, self._door = vm, world, door
        self.ready = threading.Event()  # set when somebody is behind the door, or never will be
        self._pairs: set[socket.socket] = set()
        self._guard = threading.Lock()
        self.server = Server(f"proxy {vm.endpoint}", self._answer)

    def close(self) -> None:
        """Answer no more."""
        self.ready.set()
        self.cut()
        self.server.close()

    def cut(self) -> None:
        """Cut every websocket in the midst of whatever it carries."""
        with self._guard:
            for one in self._pairs:
                _hang_up(one)

    # ── who is let in ────────────────────────────────────────────────────────────────────────────────────────────

    def _answer(self, request: Request) -> Reply:
        kind = _kind(request)
        world = self._world
        with world.lock:
            world.agenda.run_due()
            before = len(world.faults.struck)
            token = request.headers.get(HEADER) or request.query.get(QUERY, "")
            ends = self._vm.tokens.get(token)
            right = self._vm.alive and ends is not None and ends > world.clock.now()
            reply, hold = self._turned_away(request, kind, right=right)
            if right:
                self._vm.active = world.clock.now()
            struck = world.faults.struck[before:]
        if reply is None:
            reply = (
                self._join(request)
                if "websocket" in request.headers.get("upgrade", "").lower()
                else self._pass(request)
            )
        reply.hold_seconds = hold
        with world.lock:
            reply.date = world.clock.now()
            who = "right" if right else ("none" if not token else "wrong")
            world.journal.add(
                _told(request), Reply(reply.status), when=reply.date, authorization=who, operation=kind, faults=struck
            )
        return reply

    def _turned_away(self, request: Request, kind: str, *, right: bool) -> tuple[Reply | None, float]:
        """Give the answer to who is not let in, and for how long an answer is held back."""
        faults = self._world.faults
        if not right:
            return as_json(401 if faults.take("token_401") else 404, {"message": "Not Found"}), 0.0
        if faults.take("proxy_error", of=kind):
            return Reply(502, b"<html><title>502</title></html>", content_type="text/html"), 0.0
        if kind == "contents":
            hit = faults.take("contents_413") if request.body else None
            if hit is not None and len(request.body) > hit.number("bytes"):
                return as_json(413, {"message": "Request Entity Too Large"}), 0.0
            slow = faults.take("contents_slow")
            return None, slow.number("seconds") / self._world.clock.rate if slow else 0.0
        return None, 0.0

    # ── what passes ──────────────────────────────────────────────────────────────────────────────────────────────

    def _pass(self, request: Request) -> Reply:
        """Ask the Jupyter server the same, and give its answer."""
        self.ready.wait(_READY_SECONDS)
        connection = _Inside(self._door)
        headers = {name: value for name, value in request.headers.items() if name not in {HEADER, *_HOP}}
        if "content-type" in request.headers:
            headers["content-type"] = request.headers["content-type"]
        try:
            connection.request(
                request.method, _target(request), request.body or None, {**headers, "connection": "close"}
            )
            answer = connection.getresponse()
            body = answer.read()
        except (OSError, http.client.HTTPException):
            return as_json(404 if not self._vm.alive else 502, {"message": "no answer from the VM"})
        finally:
            connection.close()
        kept = {name: value for name, value in answer.getheaders() if name.lower() not in _HOP}
        kind = answer.getheader("content-type") or "application/json"
        return Reply(answer.status, body, content_type=kind, headers=kept)

    def _join(self, request: Request) -> Reply:
        """Let a websocket through: its handshake is the Jupyter server's own."""
        self.ready.wait(_READY_SECONDS)
        try:
            inside = knock(self._door)
        except OSError:
            return as_json(404 if not self._vm.alive else 502, {"message": "no answer from the VM"})
        lines = [f"{request.method} {_target(request)} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in request.headers.items() if name != HEADER]
        head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
        return Reply(101, take_over=lambda outside: self._pump(outside, inside, head))

    def _pump(self, outside: socket.socket, inside: socket.socket, head: bytes) -> None:
        """Carry bytes both ways until one side ends."""
        pair = {outside: inside, inside: outside}
        with self._guard:
            self._pairs |= pair.keys()
        try:
            inside.sendall(head)
            with selectors.DefaultSelector() as selector:
                for one in pair:
                    selector.register(one, selectors.EVENT_READ)
                self._carry(selector, pair, outside)
        except OSError:
            pass  # one of them was cut
        finally:
            with self._guard:
                self._pairs -= pair.keys()
            _hang_up(outside)
            inside.close()

    def _carry(
        self, selector: selectors.BaseSelector, pair: dict[socket.socket, socket.socket], outside: socket.socket
    ) -> None:
        while True:
            for key, _ in selector.select():
                one = key.fileobj
                if not isinstance(one, socket.socket):
                    continue
                data = one.recv(_BLOCK)
                if not data:
                    return
                pair[one].sendall(data)
                if one is outside:
                    self._vm.active = self._world.clock.now()


class _Inside(http.client.HTTPConnection):
    """HTTP over the unix socket of a VM."""

    def __init__(self, door: Path) -> None:
        super().__init__("localhost", timeout=_ANSWER_SECONDS)
        self._door = door

    def connect(self) -> None:
        self.sock = knock(self._door)
        self.sock.settimeout(_ANSWER_SECONDS)


def knock(door: Path) -> socket.socket:
    """Connect to a unix socket, however long its path: the kernel takes 107 characters."""
    folder = os.open(door.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    one = socket.socket(socket.AF_UNIX)
    try:
        one.connect(f"/proc/self/fd/{folder}/{door.name}")
    except OSError:
        one.close()
        raise
    finally:
        os.close(folder)
    return one


def busy(door: Path) -> bool:
    """Whether a kernel of the VM is busy; one that does not answer is not."""
    connection = _Inside(door)
    try:
        connection.request("GET", "/api/kernels")
        return b'"execution_state": "busy"' in connection.getresponse().read()
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _hang_up(one: socket.socket) -> None:
    try:
        one.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # the other side was quicker


def _kind(request: Request) -> str:
    if request.path.endswith("/channels"):
        return "channels"
    if request.path.startswith("/colab/tty"):
        return "tty"
    return next((kind for start, kind in _KINDS.items() if request.path.startswith(start)), "vm")


def _target(request: Request) -> str:
    query = urlencode([pair for pair in request.pairs if pair[0] != QUERY])
    return f"{request.path}?{query}" if query else request.path


def _told(request: Request) -> Request:
    """What the journal keeps: neither tokens nor files."""
    hidden = {HEADER, "authorization"}
    headers = {name: value for name, value in request.headers.items() if name not in hidden}
    query = {name: value for name, value in request.query.items() if name not in {QUERY, "token"}}
    return Request(request.method, request.path, query, headers, b"")
