"""A VM's Jupyter server over HTTP: small files, kernels. Every call has a deadline, and none believes an old token.

    Jupyter(door).put / get      contents, whole small files; what is large goes in parts: parts.py
    Jupyter(door).kernels / new_kernel / end_kernel      what runs on a kernel: kernels.py

401 and 404 may be the token's end: asked again with one minted just now, and only then believed. Nothing here follows
a redirect, or says a word of what it sends.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase

from providers.errors import ProviderError, RemoteError, UnreachableError, UsageError
from providers.http import CONNECT_SECONDS, READ_SECONDS, base_url, printable, read_body, trouble, user_agent

if TYPE_CHECKING:
    from collections.abc import Mapping

    from providers.colab.door import Door, Proxy

WORKERS = 4  # requests at once: one alone waits for the way there and back most of the time
TOKEN = "X-Colab-Runtime-Proxy-Token"  # noqa: S105 (a header's name)
_AGENT = "X-Colab-Client-Agent"
_SMALL = 2**20  # bytes
_PART_SECONDS = 180.0  # for some MiB on a line of 25 kB/s
_SECONDS = 60.0
_TRIES = 4
_PAUSE_SECONDS = 0.5
_MAY_PASS = frozenset({408, 425, 429, 500, 502, 503, 504})
_MAY_BE_THE_TOKEN = frozenset({401, 404})


class TooLargeError(RemoteError):
    """413: the way there takes no request as large as this."""


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer."""

    what: str
    status: int
    data: bytes

    def json(self) -> Any:
        """Parse it; None = it is no JSON."""
        try:
            return json.loads(self.data)
        except (ValueError, RecursionError):
            return None

    def ok(self) -> Reply:
        """Give it if it is a success.

        Raises:
            TooLargeError: 413.
            UnreachableError: any other refusal: it says nothing of what there is.
        """
        if 200 <= self.status < 300:
            return self
        if self.status == 413:
            raise TooLargeError(f"{self.what} answered 413: too large")
        said = self.json()
        words = printable(said.get("message") or "", 120) if isinstance(said, dict) else ""
        raise UnreachableError(f"{self.what} answered {self.status}{f': {words}' if words else ''}")


class _Token(AuthBase):
    """Writes the token into one request. As `auth`, it also keeps ~/.netrc from writing another one."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers[TOKEN] = self._proxy.token.reveal()
        return request


class _Body(io.BytesIO):
    """A body that is sent block by block: sent in one, all of it would have to leave within the time to connect."""

    def __init__(self, data: bytes, end: float) -> None:
        super().__init__(data)
        self._end = end

    def read(self, size: int | None = -1, /) -> bytes:
        """Give the next block.

        Raises:
            TimeoutError: the deadline has come.
        """
        if time.monotonic() > self._end:
            raise TimeoutError
        return super().read(size)


class Jupyter:
    """One VM's server. May be used by several threads at once; opens no connection before the first call."""

    def __init__(self, door: Door) -> None:
        self.door = door
        self._turn = threading.Lock()
        self._session = requests.Session()
        self._session.headers.update({"User-Agent": user_agent(), "Accept": "application/json", _AGENT: door.agent})
        for scheme in ("https://", "http://"):
            self._session.mount(scheme, HTTPAdapter(pool_connections=2, pool_maxsize=2 * WORKERS))

    # ── the way in ───────────────────────────────────────────────────────────────────────────────────────────────

    def proxy(self) -> Proxy:
        """Give the way in as it is now.

        Raises:
            UnreachableError: Colab does not list the VM now, or can't be asked.
        """
        return self._proxy(fresh=False)

    def after(self, refused: Proxy) -> Proxy:
        """Give a way in that was opened after this one was refused."""
        with self._turn:
            now = self._proxy(fresh=False)  # another thread may have asked already
            same = now.url == refused.url and now.token.reveal() == refused.token.reveal()
            return self._proxy(fresh=True) if same else now

    def _proxy(self, *, fresh: bool) -> Proxy:
        try:
            proxy = self.door.proxy(fresh)
            base_url(proxy.url, "the address that Colab gives for the VM")
        except (UnreachableError, RemoteError):
            raise
        except (ProviderError, UsageError) as error:
            words = f"the way to the VM can't be told: {error}"
            raise UnreachableError(words, hint=error.hint, allocation_id=self.door.endpoint) from error
        return proxy

    def close(self) -> None:
        """Let go of the connections."""
        self._session.close()

    # ── one request ──────────────────────────────────────────────────────────────────────────────────────────────

    def call(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: bytes | None = None,
        most: int = _SMALL,
        seconds: float = _SECONDS,
    ) -> Reply:
        """Ask, again where the answer may be better then: everything that is sent here may arrive twice.

        Raises:
            UnreachableError: no answer, or half of one.
        """
        end = time.monotonic() + seconds
        proxy, renewed = self.proxy(), False
        for left in reversed(range(_TRIES)):
            try:
                reply = self._send(proxy, method, path, params, body, most, end)
            except UnreachableError:
                if not left or time.monotonic() > end:
                    raise
            else:
                if reply.status in _MAY_BE_THE_TOKEN and left and not renewed:
                    proxy, renewed = self.after(proxy), True
                    continue
                if reply.status not in _MAY_PASS or not left or time.monotonic() > end:
                    return reply
            time.sleep(_PAUSE_SECONDS * 2.0 ** (_TRIES - 1 - left) / self.door.pace)
            proxy = self.proxy()
        raise AssertionError("the last try returns or raises")  # pragma: no cover

    def _send(
        self,
        proxy: Proxy,
        method: str,
        path: str,
        params: Mapping[str, str] | None,
        body: bytes | None,
        most: int,
        end: float,
    ) -> Reply:
        what = f"Colab's VM: {method} /{path.partition('?')[0][:120]}"
        wait = max(1.0, min(READ_SECONDS, end - time.monotonic()))
        data = None if body is None else _Body(body, end)
        headers = {} if body is None else {"Content-Type": "application/json"}
        url = f"{proxy.url.rstrip('/')}/{path}"
        request = requests.Request(
            method, url, params={"authuser": "0", **(params or {})}, data=data, headers=headers, auth=_Token(proxy)
        )
        try:
            prepared = self._session.prepare_request(request)
            settings = self._session.merge_environment_settings(url, {}, True, None, None)  # noqa: FBT003 (stream)
            adapter = self._session.get_adapter(url)
            with adapter.send(prepared, timeout=(CONNECT_SECONDS, wait), **settings) as response:  # type: ignore[arg-type]  # its stubs
                return Reply(what, response.status_code, read_body(response, end, what, most))
        except (OSError, urllib3.exceptions.HTTPError) as error:
            # From None: what requests raises holds the request, and that holds the token.
            words = f"{what}: {trouble(error, wait)}"
            raise UnreachableError(words, allocation_id=self.door.endpoint) from None

    # ── contents ─────────────────────────────────────────────────────────────────────────────────────────────────

    def put(self, path: str, data: bytes) -> None:
        """Write a file whole; `path` is below the contents' root. Some MiB at most: it is held in memory.

        Raises:
            TooLargeError, UnreachableError: it may have been written.
        """
        body = b'{"type":"file","format":"base64","content":"' + base64.b64encode(data) + b'"}'
        self.call("PUT", _contents(path), body=body, seconds=_PART_SECONDS).ok()

    def get(self, path: str, most: int = _SMALL) -> bytes | None:
        """Read a file of so many bytes at most; None = it is not there, by a token that was minted just now.

        Raises:
            UnreachableError: it can't be told.
        """
        params = {"type": "file", "format": "base64", "content": "1"}
        limit = most * 3 // 2 + _SMALL  # base64, with the ends of its lines escaped
        reply = self.call("GET", _contents(path), params=params, most=limit, seconds=_PART_SECONDS)
        if reply.status == 404:
            return None
        found = reply.ok().json()
        content = found.get("content") if isinstance(found, dict) else None
        try:
            if isinstance(content, str):
                return base64.b64decode(content)
        except (binascii.Error, ValueError):
            pass
        raise UnreachableError(f"{reply.what} answered with no file")

    # ── kernels ──────────────────────────────────────────────────────────────────────────────────────────────────

    def kernels(self) -> dict[str, str]:
        """Name the kernels and what each does: idle, busy, starting, dead."""
        reply = self.call("GET", "api/kernels").ok()
        found = reply.json()
        if not isinstance(found, list):
            raise UnreachableError(f"{reply.what} answered with no list")
        known = {str(one.get("id")): str(one.get("execution_state")) for one in found if isinstance(one, dict)}
        return {one: state for one, state in known.items() if _is_id(one)}

    def new_kernel(self) -> str:
        """Start a kernel; gives its id. Asked twice, there may be one too many: it costs memory, no more."""
        reply = self.call("POST", "api/kernels", body=b'{"name":"python3","path":null}', seconds=2 * _SECONDS).ok()
        found = reply.json()
        name = found.get("id") if isinstance(found, dict) else None
        if not isinstance(name, str) or not _is_id(name):
            raise UnreachableError(f"{reply.what} answered with no kernel")
        return name

    def end_kernel(self, kernel: str) -> None:
        """End a kernel; one that is gone already is no trouble."""
        reply = self.call("DELETE", f"api/kernels/{kernel}")
        if reply.status != 404:
            reply.ok()


def _contents(path: str) -> str:
    return f"api/contents/{quote(path.strip('/'))}"


def _is_id(text: str) -> bool:
    return 0 < len(text) < 100 and text.replace("-", "").isalnum()


def read_small(door: Door, path: str) -> bytes | None:
    """Read one small file of a VM, as the marker; None = it is not there. Raises `UnreachableError`."""
    jupyter = Jupyter(door)
    try:
        return jupyter.get(path)
    finally:
        jupyter.close()


def write_small(door: Door, path: str, data: bytes) -> None:
    """Write one small file of a VM, as the marker; safe to repeat. Raises `UnreachableError`."""
    jupyter = Jupyter(door)
    try:
        jupyter.put(path, data)
    finally:
        jupyter.close()
