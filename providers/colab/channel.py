"""One websocket to one kernel: an expression there, its value here. Jupyter's message protocol, JSON frames.

    execute_request(code, user_expressions) ──> the kernel ──> execute_reply, on the channel "shell"

Values come in the reply and not as output: a server drops output that comes too fast (1 MB/s), and spreads it over
frames that may be lost one by one. A reply is there or it is not. Asked silently, nothing is kept in any history.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import ssl
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

import websocket
from requests.utils import DEFAULT_CA_BUNDLE_PATH

from providers.colab.jupyter import TOKEN
from providers.errors import RemoteError, UnreachableError
from providers.http import CONNECT_SECONDS

if TYPE_CHECKING:
    from providers.colab.door import Proxy

_PING_SECONDS = 5.0  # without a word: then it is asked whether anybody is there
_PINGS = 4  # without a word after any of them: nobody is
_GLANCE_SECONDS = 0.01
_SEND_SECONDS = 20.0
_MOST = 96 * 2**20  # bytes of one answer
_ERRORS = (OSError, websocket.WebSocketException, ssl.SSLError)


class CutError(UnreachableError):
    """The connection broke off: what was asked may have been done, or be under way."""


class ShutError(UnreachableError):
    """401 or 404 at the door: the token has expired, or there is no such kernel."""


class DeadKernelError(UnreachableError):
    """The kernel died under the question."""


class Channel:
    """A connection that is open. One thread at a time."""

    def __init__(self, proxy: Proxy, kernel: str, agent: str) -> None:
        """Connect.

        Raises:
            ShutError: refused as one is whose token has expired, or whose kernel is gone.
            CutError: no connection.
        """
        self._session = secrets.token_hex(16)
        self._moved = time.monotonic()  # the last word, or ping
        self._pings = 0  # since the last word
        parts = urlsplit(proxy.url)
        scheme = "wss" if parts.scheme == "https" else "ws"
        path = f"{parts.path.rstrip('/')}/api/kernels/{kernel}/channels"
        address = urlunsplit((scheme, parts.netloc, path, f"session_id={self._session}", ""))
        header = {TOKEN: proxy.token.reveal(), "X-Colab-Client-Agent": agent}
        bundle = os.environ.get("REQUESTS_CA_BUNDLE") or DEFAULT_CA_BUNDLE_PATH
        # Strict UTF-8 is checked letter by letter in Python: seconds for a large answer; json.loads checks it too.
        trusted = {"ca_cert_path" if Path(bundle).is_dir() else "ca_certs": bundle}
        self._socket = websocket.WebSocket(sslopt=trusted, skip_utf8_validation=True)
        try:
            self._socket.settimeout(CONNECT_SECONDS)
            # No Origin: behind a proxy it is never the server's own, and a server refuses another's.
            self._socket.connect(address, header=header, suppress_origin=True, redirect_limit=0)  # type: ignore[no-untyped-call]  # its own
        except websocket.WebSocketBadStatusException as error:
            kind = ShutError if error.status_code in {401, 404} else CutError
            raise kind(f"Colab's VM: the kernel's channel answered {error.status_code}") from None
        except _ERRORS as error:
            raise CutError(f"Colab's VM: no channel to the kernel: {type(error).__name__}") from None

    def send(self, code: str, expression: str = "") -> str:
        """Have the kernel run code and value an expression; gives the question's id.

        Raises:
            CutError: it may not have arrived.
        """
        question = secrets.token_hex(16)
        header = {
            "msg_id": question,
            "username": "gpurun",
            "session": self._session,
            "date": datetime.now(UTC).isoformat(),
            "msg_type": "execute_request",
            "version": "5.3",
        }
        content = {
            "code": code,
            "silent": True,
            "store_history": False,
            "user_expressions": {"gpurun": expression} if expression else {},
            "allow_stdin": False,
            "stop_on_error": False,  # what another asked has nothing to do with what failed here
        }
        message = {"header": header, "parent_header": {}, "metadata": {}, "content": content, "channel": "shell"}
        try:
            self._socket.settimeout(_SEND_SECONDS)
            self._socket.send(json.dumps(message))
        except _ERRORS as error:
            raise CutError(f"Colab's VM: the channel broke off: {type(error).__name__}") from None
        self._moved, self._pings = time.monotonic(), 0
        return question

    def reply(self, question: str, until: float) -> dict[str, Any]:
        """Wait for the answer to a question, until a moment of the monotonic clock.

        Raises:
            CutError, DeadKernelError: it will not come this way.
            TimeoutError: it did not come in time.
        """
        while True:
            message = self._read(until)
            if message is None:
                continue
            content, parent = message.get("content"), message.get("parent_header")
            if not isinstance(content, dict):
                continue
            if message.get("msg_type") == "status" and content.get("execution_state") in {"dead", "restarting"}:
                raise DeadKernelError("Colab's VM: the kernel died")
            mine = isinstance(parent, dict) and parent.get("msg_id") == question
            if mine and message.get("msg_type") == "execute_reply":
                return content

    def tend(self) -> None:
        """Take what has come, which answers the server's pings too.

        Raises:
            CutError: it broke off.
        """
        until = time.monotonic() + _GLANCE_SECONDS
        with contextlib.suppress(TimeoutError):
            while True:
                self._read(until)

    def _read(self, until: float) -> dict[str, Any] | None:
        """Read one message; None = it was none, or none came and there is time left."""
        left = until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        try:
            self._socket.settimeout(min(_PING_SECONDS, left))
            code, data = self._socket.recv_data(control_frame=True)
        except websocket.WebSocketTimeoutException:
            self._wonder()
            return None
        except (*_ERRORS, ValueError) as error:
            raise CutError(f"Colab's VM: the channel broke off: {type(error).__name__}") from None
        self._moved, self._pings = time.monotonic(), 0
        if code == websocket.ABNF.OPCODE_CLOSE:
            raise CutError("Colab's VM: the channel was closed")
        if code != websocket.ABNF.OPCODE_TEXT:
            return None
        if len(data) > _MOST:
            raise RemoteError(f"the machine's answer is larger than {_MOST >> 20} MiB")
        try:
            message = json.loads(data)
        except (ValueError, RecursionError):
            return None
        if not isinstance(message, dict):
            return None
        header = message.get("header")
        return {"msg_type": header.get("msg_type"), **message} if isinstance(header, dict) else message

    def _wonder(self) -> None:
        """Ask whether anybody is there; a computer that slept asks before it judges."""
        if time.monotonic() - self._moved < _PING_SECONDS:
            return
        if self._pings >= _PINGS:
            raise CutError("Colab's VM: the channel is dead: no answer to a ping")
        self._moved, self._pings = time.monotonic(), self._pings + 1
        try:
            self._socket.ping()
        except _ERRORS as error:
            raise CutError(f"Colab's VM: the channel broke off: {type(error).__name__}") from None

    def close(self) -> None:
        """Let go; the kernel goes on."""
        with contextlib.suppress(*_ERRORS):
            self._socket.settimeout(1.0)
            self._socket.send_close()
        self._socket.shutdown()  # type: ignore[no-untyped-call]  # its own
