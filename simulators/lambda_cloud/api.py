"""Lambda's public API, as the official document 1.10.0 and what was seen describe it.

    what stands in front -> rate limit -> key -> account -> the operation -> the fate of its reply

Newer than the saved document, each with its date beside it: pages of the list, `/filesystems`, some fields.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import TYPE_CHECKING

from simulators.lambda_cloud import checks, operations
from simulators.lambda_cloud.replies import ProblemError, cloudflare, page, too_many
from simulators.server import Reply, Request

if TYPE_CHECKING:
    from collections.abc import Callable

    from simulators.lambda_cloud.operations import Operations
    from simulators.lambda_cloud.world import LambdaWorld

PREFIX = "/api/v1"

ROUTES = [
    ("GET", "/instances", "list"),
    ("GET", "/instances/{id}", "get"),
    ("POST", "/instances/{id}", "rename"),
    ("POST", "/instance-operations/launch", "launch"),
    ("POST", "/instance-operations/restart", "restart"),
    ("POST", "/instance-operations/terminate", "terminate"),
    ("GET", "/instance-types", "types"),
    ("GET", "/regions", "regions"),
    ("GET", "/images", "images"),
    ("GET", "/ssh-keys", "keys"),
    ("POST", "/ssh-keys", "add_key"),
    ("DELETE", "/ssh-keys/{id}", "drop_key"),
    ("GET", "/file-systems", "filesystems"),
    ("GET", "/filesystems", "filesystems"),  # its spelling since 2026-09
    ("GET", "/firewall-rules", "firewall_rules"),
    ("GET", "/firewall-rulesets", "firewall_rulesets"),
    ("GET", "/firewall-rulesets/global", "firewall_global"),
]
_PATTERNS = [
    (method, re.compile(PREFIX + path.replace("{id}", "(?P<id>[^/]+)")), operation)
    for method, path, operation in ROUTES
]


class Api:
    """Answers the vendor's API over a world."""

    def __init__(self, world: LambdaWorld, key: str) -> None:
        self._world = world
        self._key = key
        self._operations: Operations = operations.Operations(world)
        world.launch_by_hand = self._launch_by_hand

    def answer(self, request: Request) -> Reply:
        """Answer one request, and keep it in the journal."""
        world = self._world
        with world.lock:
            world.agenda.run_due()
            before = len(world.faults.struck)
            operation, item = _find(request)
            reply = self._answer(request, operation, item)
            reply = self._fate(operation, reply)
            now = world.clock.now()
            skew = world.faults.take("clock_skew", of=operation)
            reply.date = now + (skew.number("seconds") if skew else 0)
            world.journal.add(
                request,
                reply,
                when=now,
                authorization=self._authorization(request),
                operation=operation,
                faults=world.faults.struck[before:],
            )
            return reply

    def _answer(self, request: Request, operation: str, item: str) -> Reply:
        try:
            turned_away = self._in_front(request, operation)
            if turned_away is not None:
                return turned_away
            self._admit(request, operation)
            handle: Callable[[Request, str], Reply] = getattr(self._operations, f"do_{operation}")
            return handle(request, item)
        except ProblemError as problem:
            return problem.reply

    def _in_front(self, request: Request, operation: str) -> Reply | None:
        """Let what stands before the API answer in its place."""
        world, agent = self._world, request.headers.get("user-agent", "")
        if not agent or agent.startswith("Python-urllib") or world.faults.take("cloudflare", of=operation):
            return cloudflare()
        if world.outage.until > world.clock.now():
            return page(503, "Service unavailable")
        if world.faults.take("bad_gateway", of=operation):
            return page(502, "502 Bad Gateway")
        if world.faults.take("redirect", of=operation):
            return Reply(301, headers={"Location": f"http://localhost:9{request.path}"}, content_type="text/html")
        limited = world.faults.take("rate_limited", of=operation)
        if limited:
            return too_many(limited.text("body"))
        within = world.limits.ask() and (operation != "launch" or world.limits.launch())
        return None if within else too_many()

    def _admit(self, request: Request, operation: str) -> None:
        authorization = self._authorization(request)
        if authorization == "none":
            raise ProblemError("global/invalid-api-key", "No API key was provided.")
        faults = self._world.faults
        if authorization == "wrong" or faults.take("key_rejected", of=operation):
            raise ProblemError("global/invalid-api-key")
        for fault, code in (
            ("account_inactive", "global/account-inactive"),
            ("server_error", "global/internal-error"),
            ("unavailable", "provider/internal-unavailable"),
        ):
            if faults.take(fault, of=operation):
                raise ProblemError(code)
        if not operation:
            raise ProblemError("global/not-found")

    def _authorization(self, request: Request) -> str:
        scheme, _, rest = request.headers.get("authorization", "").partition(" ")
        if not rest:
            return "none"
        given = {"bearer": [rest], "basic": [rest, _decoded(rest).removesuffix(":")]}.get(scheme.lower(), [])
        return "right" if self._key in given else "wrong"

    def _fate(self, operation: str, reply: Reply) -> Reply:
        """Lose or spoil the answer to a deed that is done, or hold it back."""
        world = self._world
        if reply.status == 200:
            for name, spoil in _SPOILT.items():
                hit = world.faults.take(name, of=operation)
                if hit is not None:
                    if operation == "launch":
                        world.hide(list(world.instances.values())[-1], hit.number("hidden_seconds"))
                    reply = spoil()
                    break
        slow = world.faults.take("slow_reply", of=operation)
        if slow:
            reply.hold_seconds = slow.number("seconds") / world.clock.rate
        return reply

    def _launch_by_hand(self, wish: object) -> str:
        try:
            body = checks.as_object(wish)
            checks.shape(body)
            keys = {key["name"]: key["public_key"] for key in self._world.keys.values()}
            return self._world.launch(checks.order(body, keys, missing_status=404), faults={}).id
        except ProblemError as problem:
            raise ValueError(str(problem)) from problem


_SPOILT: dict[str, Callable[[], Reply]] = {
    "reply_lost": lambda: Reply(200, drop=True),
    "reply_502": lambda: page(502, "502 Bad Gateway"),
    "reply_429": too_many,
    "reply_empty": lambda: Reply(200, b'{"data": {"instance_ids": []}}'),
    "reply_garbled": lambda: Reply(200, b'{"data": {"instance_ids": ["09205'),
}


def _find(request: Request) -> tuple[str, str]:
    for method, pattern, operation in _PATTERNS:
        match = pattern.fullmatch(request.path)
        if match and method == request.method:
            return operation, match.groupdict().get("id", "")
    return "", ""


def _decoded(text: str) -> str:
    try:
        return base64.b64decode(text, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return ""
