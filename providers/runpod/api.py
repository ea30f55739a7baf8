"""RunPod's replies: JSON, or a problem (RFC 9457) `{"title", "status", "detail"}`, judged by status and words.

400 "no … instances"   NoCapacityError     401, 403   CredentialsError     402   QuotaError
429, 5xx               UnreachableError    409, 413, 422, other 400        ProviderError
What is no problem of RunPod's own (a proxy's page, Cloudflare's) says nothing about the account: UnreachableError.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import urllib3

from providers.errors import CredentialsError, NoCapacityError, ProviderError, QuotaError, UnreachableError
from providers.http import Http, printable
from providers.runpod import reading

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from datetime import datetime, timedelta

    from providers.clocks import Ahead
    from providers.http import Reply

KEY_VARIABLE = "RUNPOD_API_KEY"
KEY_PAGE = "https://console.runpod.io/user/settings"
NEW_KEY = f"make a key at {KEY_PAGE}, export {KEY_VARIABLE}=…, then: gpurun doctor"
CAPACITY = ("no longer any instances", "no instances", "not enough free gpus")  # seen on v2 and before (2026-08)
_PAGES = 200
_IDLE_SECONDS = 2.0  # that a log may be silent until it is taken for told
_LOG_BYTES = 4 * 2**20


class Api:
    """The endpoints that gpurun uses; `http` has the bare address, since GraphQL lies beside /v2."""

    def __init__(self, http: _Streams) -> None:
        self._http = http

    @property
    def skew(self) -> timedelta:
        """RunPod's clock minus ours."""
        return self._http.skew

    @property
    def ahead(self) -> Ahead:
        """The same, between two bounds."""
        return self._http.ahead

    def reply(self, method: str, path: str, **how: Any) -> Reply:
        """Ask, and leave the judging to the caller; see `Http.call`."""
        return self._http.call(method, f"/v2{path}", **how)

    def gpus(self, cloud: str, count: int, cuda: str) -> tuple[Any, datetime]:
        """Read the catalogue for so many GPUs on one cloud, and when it was told."""
        what = {"include": "AVAILABILITY", "product": "POD", "cloud": cloud, "count": str(count)}
        reply = self.reply("GET", "/catalog/gpus", params={**what, "minCudaVersion": cuda})
        return ok(reply), reply.at

    def pods(self) -> list[reading.Pod]:
        """List every pod of the account, every page of it."""
        return [reading.pod(row) for row in self._rows()]

    def _rows(self) -> Iterator[Any]:
        """Follow `pagination`, which the list got in 2026-09; one that was not followed to its end is an error."""
        params = {"includeClusterPods": "true"}
        seen: set[str] = set()
        while True:
            reply = self.reply("GET", "/pods", params=params)
            body = ok(reply)
            rows = body.get("pods")
            if not isinstance(rows, list):
                raise ProviderError(f"{reply.what} answered with something that is no list")
            yield from rows
            page = body.get("pagination")
            if not isinstance(page, dict) or not (page.get("hasNextPage") or page.get("nextCursor")):
                return
            cursor = page.get("nextCursor")
            if not isinstance(cursor, str) or not cursor or cursor in seen or len(seen) >= _PAGES:
                raise ProviderError(f"{reply.what}: the list goes on in a way that can't be followed")
            seen.add(cursor)
            params = {"includeClusterPods": "true", "cursor": cursor}

    def graphql(self, query: str) -> Mapping[str, Any]:
        """Ask what v2 has not; {} = it is not told, for whatever reason: GraphQL is retired in early 2027."""
        try:
            reply = self._http.call("POST", "/graphql", body={"query": query, "variables": {}}, safe=True)
        except ProviderError:
            return {}
        body = reply.body or {}
        data = body.get("data")
        return data if reply.status == 200 and not body.get("errors") and isinstance(data, dict) else {}

    def graph(self, query: str, variables: Mapping[str, Any], read_seconds: float) -> Reply:
        """Send an order by GraphQL, once, and leave the judging to the caller."""
        body = {"query": query, "variables": variables}
        return self._http.call("POST", "/graphql", body=body, read_seconds=read_seconds)

    def log(self, pod_id: str, enough: Callable[[str], bool] | None) -> list[str]:
        """Read the lines that its container printed, up to the first that is enough; [] = none are to be had.

        Raises:
            UnreachableError: it can't be asked.
        """
        lines: list[str] = []
        for event in self._http.events(f"/v2/pods/{pod_id}/logs", {"source": "container", "tail": "5000"}):
            line = _line_of(event)
            lines.append(line)
            if enough is not None and enough(line):
                break
        return lines


class _Streams(Http):
    """An API some of whose answers never end."""

    def events(self, path: str, params: Mapping[str, str]) -> Iterator[str]:
        """Give the data of server-sent events as they come; ends where the stream does, or rests.

        Raises:
            UnreachableError: it can't be asked.
        """
        self._pacer.wait("")
        wait = max(_IDLE_SECONDS / self._pace, 0.5)
        try:
            with self._exchange("GET", self._base + path, params, None, wait) as response:
                if response.status_code != 200:
                    return
                yield from _events(response.raw, time.monotonic() + 4 * wait)
        except (TimeoutError, urllib3.exceptions.ReadTimeoutError):
            return  # it rests
        except (OSError, urllib3.exceptions.HTTPError) as error:
            # From None: what requests raises holds the request, and that holds the key.
            raise UnreachableError(f"RunPod: GET {path}: {type(error).__name__}", hint="gpurun doctor") from None


def _events(raw: Any, end: float) -> Iterator[str]:
    kept, size = b"", 0
    while size < _LOG_BYTES and time.monotonic() < end and (piece := raw.read1(64 * 1024, decode_content=True)):
        size += len(piece)
        *lines, kept = (kept + piece).split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                yield line[5:].strip().decode("utf-8", "replace")


def _line_of(event: str) -> str:
    try:
        data = json.loads(event)
    except ValueError:
        return ""
    line = data.get("line") if isinstance(data, dict) and data.get("source") == "container" else ""
    return line if isinstance(line, str) else ""


def open_http(*args: Any, **how: Any) -> _Streams:
    """Make the connection; see `Http`."""
    return _Streams(*args, **how)


def ok(reply: Reply) -> Mapping[str, Any]:
    """Give the body of an answer that says yes.

    Raises:
        ProviderError: it is a refusal, or makes no sense.
    """
    if not 200 <= reply.status < 300:
        raise error_of(reply)
    if reply.body is None:
        raise ProviderError(f"{reply.what} answered with something that is no JSON object ({reply.kind})")
    return reply.body


def is_problem(reply: Reply, status: int) -> bool:
    """Whether RunPod itself refuses with this status: the body says it again."""
    return reply.status == status and problem(reply) is not None


def problem(reply: Reply) -> str | None:
    """Give the words of a problem of RunPod's own; None = it is none."""
    body = reply.body or {}
    detail = body.get("detail")
    if body.get("status") != reply.status or not isinstance(detail, str):
        return None
    errors = [one for one in body.get("errors") or () if isinstance(one, str)]
    errors.sort(key=lambda one: "missing" not in one)  # beside a missing property, right ones are called unknown too
    return printable("; ".join([detail, *errors]))


def error_of(reply: Reply) -> ProviderError:
    """Turn a refusal into an error of our tree."""
    words = problem(reply)
    text = f"{reply.what} answered {reply.status}{f': {words}' if words else ''}"
    if reply.may_pass or reply.status == 408:
        return UnreachableError(text, hint="try again shortly")
    if words is None:
        front = f"{text} with {reply.kind}: not RunPod's own words, but of something in front of it"
        return UnreachableError(front, hint="try another network, without a VPN or a proxy")
    if reply.status == 400 and any(known in words.lower() for known in CAPACITY):
        return NoCapacityError(text, hint="wait for it: --wait-for-capacity 2h")
    kinds: dict[int, tuple[type[ProviderError], str]] = {
        401: (CredentialsError, NEW_KEY),
        402: (QuotaError, "add credit at https://console.runpod.io/user/billing"),
        403: (CredentialsError, f"give the key the right to manage pods, or make another: {KEY_PAGE}"),
    }
    kind, hint = kinds.get(reply.status, (ProviderError, ""))
    return kind(text, hint=hint)
