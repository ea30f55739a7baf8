"""One requests.Session for a vendor's API: it paces, waits, retries what is safe, and never follows a redirect.

    call() -> wait for a slot, shared by all processes of this user -> send -> Reply, whatever its status

What a status means is the adapter's to say. No answer, a redirect, a body without end are errors.
The key enters at the last moment, through `_Bearer`, and no exception, log line or repr ever holds it.
"""

from __future__ import annotations

import json
import logging
import random
import re
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from importlib import metadata
from ipaddress import ip_address
from math import inf
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import requests
import urllib3
from requests.auth import AuthBase

from providers.clocks import Ahead, steady
from providers.errors import ProviderError, UnreachableError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from providers.base import Secret
    from providers.pacing import Pacer

log = logging.getLogger("gpurun.http")

CONNECT_SECONDS = 10.0
READ_SECONDS = 20.0
_LEAST_READ_SECONDS = 5.0  # however hurried the vendor is, this computer may be slow
_BODY_LIMIT = 16 * 2**20  # bytes; an account with a thousand instances needs 2 MiB
_PIECE = 64 * 2**10
_SAFE = frozenset({"GET", "DELETE"})
_TRIES = 4
_BACK_OFF_SECONDS = 0.7
_PATIENCE_SECONDS = 25.0  # no further try begins after this: no verb waits for minutes
_SKEW_SECONDS = 2.0  # `Date` has whole seconds, and the answer took a while
_TOO_MANY = 429
_XSSI = b")]}'\n"  # stands before Google's JSON, so that no page can run it as a script
_WINDOW_SECONDS = 60.0  # the shortest window that a vendor counts our requests in
_SANE_SECONDS = 20.0  # a 429 that asks for more would keep us from ending what bills


@dataclass(frozen=True, slots=True)
class Reply:
    """What a vendor answered. `body` is None where it is no JSON object."""

    what: str  # "GET /instances"
    status: int
    body: Mapping[str, Any] | None
    kind: str  # the content type, for a person
    at: datetime  # by the vendor's clock where it tells, else by ours
    asked: float = 0.0  # steady seconds (clocks.py): when the first try was sent,
    heard: float = 0.0  # and when this answer was there

    @property
    def may_pass(self) -> bool:
        """Whether the same question may be answered a little later: too many requests, or the vendor's own trouble."""
        return self.status == _TOO_MANY or self.status >= 500


class _Bearer(AuthBase):
    """Writes the key into one request. As `auth`, it also keeps ~/.netrc from writing another one."""

    def __init__(self, key: Secret) -> None:
        self._key = key

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._key.reveal()}"
        return request


class Http:
    """A vendor's API under one base URL, with one key. Opens no connection before the first call."""

    def __init__(self, vendor: str, base: str, key: Secret, pacer: Pacer, *, pace: float = 1.0) -> None:
        self._vendor = vendor
        self._base = base.rstrip("/")
        self._key = key
        self._pacer = pacer
        self._pace = pace  # the vendor's waits are that many times shorter: a simulator in a hurry
        self._session = requests.Session()
        self._session.headers.update({"User-Agent": user_agent(), "Accept": "application/json"})
        self.skew = timedelta(0)  # the vendor's clock minus ours, at its last answer
        self.ahead = Ahead()  # the same by all its answers, between two bounds

    def call(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        lane: str = "",
        safe: bool | None = None,
        read_seconds: float = READ_SECONDS,
    ) -> Reply:
        """Ask; a safe verb again, a few times, where the answer may be better then. `path` is ours and quoted.

        Raises:
            UnreachableError: no answer, or half of one.
            ProviderError: it redirects.
        """
        safe = method in _SAFE if safe is None else safe
        if not safe:
            self._session.close()  # a kept connection may be dead by now, and then nobody knows whether this was sent
        end = time.monotonic() + _PATIENCE_SECONDS
        first = 0.0
        for left in reversed(range(_TRIES if safe else 1)):
            self._pacer.wait(lane)
            first = first or steady()
            wait = _BACK_OFF_SECONDS * 2.0 ** (_TRIES - 1 - left) * random.uniform(0.6, 1.4) / self._pace  # noqa: S311 (jitter)
            try:
                reply, rest = self._send(method, path, params, body, read_seconds)
            except UnreachableError:
                if not left or time.monotonic() + wait > end:
                    raise
            else:
                if reply.status == _TOO_MANY:
                    wait = max(wait, min(rest, _SANE_SECONDS / self._pace))
                    self._pacer.hold("", wait)
                if not reply.may_pass or not left or time.monotonic() + wait > end:
                    return replace(reply, asked=first)
            time.sleep(wait)
        raise AssertionError("the last try returns or raises")  # pragma: no cover

    def _send(
        self,
        method: str,
        path: str,
        params: Mapping[str, str] | None,
        body: Mapping[str, Any] | None,
        read_seconds: float,
    ) -> tuple[Reply, float]:
        """Send once; gives the answer and the seconds that it asks to wait."""
        what = f"{self._vendor}: {method} {path}"
        read = max(read_seconds / self._pace, _LEAST_READ_SECONDS)
        before = steady()
        try:
            with self._exchange(method, self._base + path, params, body, read) as response:
                data = read_body(response, time.monotonic() + read, what, _BODY_LIMIT)
        except (OSError, urllib3.exceptions.HTTPError) as error:
            # From None: what requests raises holds the request, and that holds the key.
            raise UnreachableError(f"{what}: {trouble(error, read)}", hint="gpurun doctor") from None
        heard = steady()
        at = self._read_clock(response, before, heard)
        self._pacer.spare(response.headers.get("RateLimit", ""), _WINDOW_SECONDS / self._pace)
        if 300 <= response.status_code < 400:
            place = _place(response.headers.get("Location", ""))
            raise ProviderError(f"{what} answered {response.status_code}, a redirect to {place}: not followed")
        kind = printable(response.headers.get("Content-Type", "no content type"), 60)
        reply = Reply(what, response.status_code, _object(data, self._key), kind, at, before, heard)
        return reply, _retry_after(response.headers.get("Retry-After", ""), at)

    def _exchange(
        self, method: str, url: str, params: Mapping[str, str] | None, body: Mapping[str, Any] | None, read: float
    ) -> requests.Response:
        """Send through the adapter: `Session.send` looks into redirects, and reads them whole, even if told not to."""
        request = requests.Request(method, url, params=params, json=body, auth=_Bearer(self._key))
        prepared = self._session.prepare_request(request)
        settings = self._session.merge_environment_settings(url, {}, True, None, None)  # noqa: FBT003 (stream)
        adapter = self._session.get_adapter(url)
        return adapter.send(prepared, timeout=(CONNECT_SECONDS, read), **settings)  # type: ignore[arg-type]  # its stubs

    def _read_clock(self, response: requests.Response, asked: float, heard: float) -> datetime:
        here = datetime.fromtimestamp(time.time() - (heard - asked) / 2, UTC)
        there = _date(response.headers.get("Date", ""))
        if there is None:
            return here
        if response.ok and not response.is_redirect:  # else it may be the clock of something in front
            self.ahead.hear(there, asked, heard)
        low, high = self.ahead.bounds
        told = there.timestamp() + 0.5 if low == -inf else (asked + heard + low + high) / 2
        skew = datetime.fromtimestamp(told, UTC) - here
        self.skew = skew if abs(skew) > timedelta(seconds=_SKEW_SECONDS) else timedelta(0)
        return here + self.skew


def base_url(text: str, variable: str) -> str:
    """Check where the key is to be sent: https, or this computer itself.

    Raises:
        UsageError: anything else; names the variable.
    """
    parts = urlsplit(text.strip())
    here = parts.hostname == "localhost" or _is_loopback(parts.hostname or "")
    plain = not (parts.username or parts.password or parts.query or parts.fragment)
    if not parts.hostname or not plain or (parts.scheme != "https" and not (parts.scheme == "http" and here)):
        raise UsageError(f"{variable} is no https address: a key is sent nowhere else", hint=f"unset {variable}")
    return text.strip().rstrip("/")


def user_agent() -> str:
    """Name ourselves: a nameless client is turned away by some vendors' front doors."""
    try:
        version = metadata.version("gpurun")
    except metadata.PackageNotFoundError:
        version = "0"
    return f"gpurun/{version} (+https://pypi.org/project/gpurun/)"


def printable(text: object, most: int = 300) -> str:
    """Make a vendor's words fit for a terminal: one line, no control characters, not too long."""
    words = " ".join("".join(char if char.isprintable() else " " for char in str(text)[: most * 4]).split())
    return words if len(words) <= most else words[: most - 1] + "…"


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _place(location: str) -> str:
    """Name where a redirect leads, without what may be secret in it."""
    try:
        target = urlsplit(location)
        return printable(f"{target.scheme}://{target.netloc.rpartition('@')[2]}", 100)
    except ValueError:
        return "nowhere that makes sense"


def read_body(response: requests.Response, end: float, what: str, most: int) -> bytes:
    """Read an answer whole, up to a moment of the monotonic clock.

    Raises:
        UnreachableError: it is larger than `most` bytes, or does not end.
    """
    data = bytearray()
    while piece := response.raw.read1(_PIECE, decode_content=True):  # what is there: `read` would wait for all of it
        data += piece
        if len(data) > most:
            raise UnreachableError(f"{what}: the answer is larger than {most >> 20} MiB")
        if time.monotonic() > end:
            raise UnreachableError(f"{what}: the answer does not end")
    return bytes(data)


def _object(data: bytes, key: Secret) -> dict[str, Any] | None:
    """Parse a JSON object; a vendor that quotes the key back is not quoted."""
    try:
        value = json.loads(data.removeprefix(_XSSI).replace(key.reveal().encode() or b"\0", b"..."))
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def trouble(error: Exception, read: float) -> str:
    """Say what went wrong in our words: an exception of requests may quote addresses, proxies, headers."""
    late, torn = f"no answer within {read:.0f} s", "the answer broke off"
    kinds = {
        requests.ConnectTimeout: f"no connection within {CONNECT_SECONDS:.0f} s",
        requests.Timeout: late,
        urllib3.exceptions.ReadTimeoutError: late,
        requests.exceptions.ProxyError: "the proxy does not let it through (HTTPS_PROXY, NO_PROXY)",
        requests.exceptions.SSLError: "its TLS certificate is not trusted (REQUESTS_CA_BUNDLE, a proxy?)",
        urllib3.exceptions.ProtocolError: torn,
        urllib3.exceptions.DecodeError: "the answer can't be decoded",
        requests.ConnectionError: "no connection, or it broke off",
    }
    words = next((words for kind, words in kinds.items() if isinstance(error, kind)), "it can't be asked")
    reason = getattr(error.args[0] if error.args else None, "reason", None)
    return "its name can't be resolved" if "NameResolution" in type(reason).__name__ else words


def _date(text: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(text)
        return date.astimezone(UTC) if date.tzinfo else date.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None


def _retry_after(text: str, at: datetime) -> float:
    """Seconds of the vendor's that a 429 asks us to wait; nonsense = 0."""
    if re.fullmatch(r"\d{1,6}(\.\d+)?", text.strip()):
        return float(text)
    date = _date(text)
    return 0.0 if date is None else (date - at).total_seconds()
