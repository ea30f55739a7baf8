"""RunPod's public API: REST v2 as the official document 2.0.0 and what was seen describe it, GraphQL, and v1's grave.

    what stands in front -> size -> key -> rate limit -> leave -> the operation -> the fate of its reply

Newer than the saved document, each with its date beside it: pages of the list, entrypoint and cmd, sizes of a pod.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING
from urllib.parse import unquote

from simulators.runpod import checks, graphql, operations
from simulators.runpod.replies import ProblemError, page
from simulators.server import Reply, Request

if TYPE_CHECKING:
    from collections.abc import Callable

    from simulators.runpod.operations import Operations
    from simulators.runpod.pods import Pod
    from simulators.runpod.world import PodWorld

PREFIX = "/v2"
GRAPHQL = "/graphql"
_MOST_BYTES = 102_400

ROUTES = [
    ("GET", "/pods", "list"),
    ("POST", "/pods", "create"),
    ("GET", "/pods/{id}", "get"),
    ("PATCH", "/pods/{id}", "update"),
    ("DELETE", "/pods/{id}", "delete"),
    ("POST", "/pods/{id}/action", "action"),
    ("GET", "/pods/{id}/logs", "logs"),
    ("GET", "/catalog/gpus", "gpus"),
    ("GET", "/catalog/gpus/{id}", "gpu"),
    ("GET", "/catalog/datacenters", "data_centers"),
    ("GET", "/catalog/datacenters/{id}", "data_center"),
    ("GET", "/account/ssh-keys", "ssh_keys"),
    ("PUT", "/account/ssh-keys", "put_ssh_keys"),
    ("GET", "/billing/pods", "pod_billing"),
    ("GET", "/billing", "billing"),
]
_PATTERNS = [
    (method, re.compile(PREFIX + path.replace("{id}", "(?P<id>[^/]+)")), operation)
    for method, path, operation in ROUTES
]
_OF_A_POD = frozenset({"get", "delete", "action", "logs"})
_SUCCESS = frozenset({200, 201, 204})


class Api:
    """Answers the vendor's API over a world."""

    def __init__(self, world: PodWorld, key: str, user: str) -> None:
        self._world = world
        self._key = key
        self._operations: Operations = operations.Operations(world, user)
        self._graphql = graphql.Graph(world, user)
        world.launch_by_hand = self._launch_by_hand

    def answer(self, request: Request) -> Reply:
        """Answer one request, and keep it in the journal."""
        world = self._world
        with world.lock:
            world.agenda.run_due()
            before = len(world.faults.struck)
            operation, item = _find(request)
            known = len(world.pods)
            reply = self._fate(operation, self._answer(request, operation, item), born=len(world.pods) > known)
            now = world.clock.now()
            skew = world.faults.take("clock_skew", of=operation)
            reply.date = now + (skew.number("seconds") if skew else 0)
            reply.headers["x-request-id"] = world.word(20)
            world.journal.add(
                request,
                reply,
                when=now,
                authorization=self._authorization(request)[0],
                operation=operation,
                faults=world.faults.struck[before:],
            )
            return reply

    def _answer(self, request: Request, operation: str, item: str) -> Reply:
        try:
            turned_away = self._in_front(request, operation)
            if turned_away is not None:
                return turned_away
            pod = self._admit(request, operation, item)
            if operation == "graphql":
                reply = self._graphql.answer(request, pod)
            else:
                handle: Callable[[Request, str], Reply] = getattr(self._operations, f"do_{operation}")
                reply = handle(request, item)
            known = True
        except ProblemError as problem:
            reply, known = problem.reply, problem.status not in {401, 410, 413}
        if known and operation != "graphql":
            reply.headers.update(self._world.limits.headers())
        return reply

    def _in_front(self, request: Request, operation: str) -> Reply | None:
        """Let what stands before the API answer in its place."""
        world = self._world
        if world.outage.until > world.clock.now():
            return page(503)
        if world.faults.take("bad_gateway", of=operation):
            return page(502)
        if world.faults.take("redirect", of=operation):
            return Reply(301, headers={"Location": f"http://localhost:9{request.path}"}, content_type="text/html")
        return None

    def _admit(self, request: Request, operation: str, item: str) -> Pod | None:
        """Let a caller in; gives the pod whose own key it has, if it is one.

        Raises:
            ProblemError: it is not let in.
        """
        faults = self._world.faults
        if operation == "v1":  # since 2026-11-15
            raise ProblemError(410, "API v1 has been retired; use https://api.runpod.io/v2")
        if operation == "graphql" and faults.take("graphql_retired"):
            raise ProblemError(410, "the GraphQL API has been retired")
        if len(request.body) > _MOST_BYTES:
            raise ProblemError(413)
        who, pod = self._authorization(request)
        if who == "none" and operation == "graphql":
            return None  # GPU types are told to anybody
        if who in {"none", "wrong"} or faults.take("key_rejected", of=operation):
            raise ProblemError(401, "" if who == "none" else "invalid bearer token")
        self._limit(operation)
        for fault, status in (("server_error", 500), ("unavailable", 503)):
            if faults.take(fault, of=operation):
                raise ProblemError(status)
        if operation != "graphql":
            self._allow(request, operation, item, pod)
        return pod

    def _allow(self, request: Request, operation: str, item: str, pod: Pod | None) -> None:
        """Refuse what is not there, and what this key may not do."""
        if not operation:
            raise _no_such_path(request)
        if pod is not None:
            _refuse_others(pod, operation, item)
        if request.method not in {"GET", "HEAD"} and self._world.faults.take("read_only_key", of=operation):
            raise ProblemError(403)

    def _limit(self, operation: str) -> None:
        world = self._world
        hit = world.faults.take("rate_limited", of=operation)
        full = ("minute", int(hit.number("seconds"))) if hit else world.limits.ask()
        if full is not None:
            headers = {"Retry-After": str(full[1])} if full[1] else {}
            raise ProblemError(429, f"rate limit exceeded for the {full[0]} window", headers=headers)

    def _authorization(self, request: Request) -> tuple[str, Pod | None]:
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        if not key or scheme.lower() != "bearer":
            return "none", None
        if key == self._key:
            return "right", None
        pod = next((each for each in self._world.pods.values() if each.key == key and each.alive), None)
        return ("wrong", None) if pod is None else ("pod", pod)

    def _fate(self, operation: str, reply: Reply, *, born: bool) -> Reply:
        """Lose or spoil the answer to a deed that is done, or hold it back."""
        world = self._world
        if reply.status in _SUCCESS:
            for name, spoil in _SPOILT.items():
                hit = world.faults.take(name, of=operation)
                if hit is not None:
                    if born:
                        world.hide(list(world.pods.values())[-1], hit.number("hidden_seconds"))
                    reply = spoil()
                    break
        slow = world.faults.take("slow_reply", of=operation)
        if slow:
            reply.hold_seconds = slow.number("seconds") / world.clock.rate
        return reply

    def _launch_by_hand(self, wish: object) -> str:
        if errors := list(checks.violations(wish, checks.CREATE, "$")):
            raise ValueError("; ".join(errors))
        try:
            order = checks.order(wish if isinstance(wish, dict) else {}, self._world.capacity)
        except ProblemError as problem:
            raise ValueError(str(problem)) from problem
        return self._world.lives.create(order, faults={}).id


_SPOILT: dict[str, Callable[[], Reply]] = {
    "reply_lost": lambda: Reply(200, drop=True),
    "reply_500": lambda: ProblemError(500).reply,
    "reply_502": lambda: page(502),
    "reply_garbled": lambda: Reply(201, json.dumps({"id": "7h9k2m4n6p"}).encode()[:9]),
}


def _refuse_others(pod: Pod, operation: str, item: str) -> None:
    """Refuse what a pod's own key may not do: what it may is not documented, and was seen to differ (2026)."""
    may = pod.faults["pod_key"].text("may") if "pod_key" in pod.faults else "graphql"
    if may != "all" or operation not in _OF_A_POD or item != pod.id:
        raise ProblemError(403)


def _no_such_path(request: Request) -> ProblemError:
    allowed = sorted({method for method, pattern, _ in _PATTERNS if pattern.fullmatch(request.path)})
    return ProblemError(405, headers={"Allow": ", ".join(allowed)}) if allowed else ProblemError(404)


def _find(request: Request) -> tuple[str, str]:
    if request.path == GRAPHQL:
        return "graphql", ""
    if request.path.startswith("/v1/"):
        return "v1", ""
    for method, pattern, operation in _PATTERNS:
        match = pattern.fullmatch(request.path)
        if match and method == request.method:
            return operation, unquote(match.groupdict().get("id", ""))
    return "", ""
