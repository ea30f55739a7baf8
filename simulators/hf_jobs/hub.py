"""The Hub's API as far as huggingface_hub's own client and the `hf` command ask it for jobs, buckets and who one is.

faults in front -> token -> the operation -> the fate of its reply            wire: docs of 2026-08, hub 2.4.0
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import unquote

from simulators.hf_jobs import operations
from simulators.hf_jobs.operations import ProblemError
from simulators.hf_jobs.repos import RepoOperations
from simulators.hf_jobs.scheduled_api import ScheduledOperations
from simulators.server import Reply, Request, as_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from simulators.hf_jobs.world import HubWorld

ROUTES = [
    ("GET", "/api/whoami-v2", "whoami"),
    ("GET", "/api/jobs/hardware", "hardware"),
    ("POST", "/api/jobs/{ns}", "submit"),
    ("GET", "/api/jobs/{ns}", "list"),
    ("GET", "/api/jobs/{ns}/{id}", "inspect"),
    ("POST", "/api/jobs/{ns}/{id}/cancel", "cancel"),
    ("GET", "/api/jobs/{ns}/{id}/logs", "logs"),
    ("GET", "/api/jobs/{ns}/{id}/metrics", "metrics"),
    ("PUT", "/api/jobs/{ns}/{id}/labels", "labels"),
    ("POST", "/api/buckets/{ns}/{id}", "create_bucket"),
    ("GET", "/api/buckets/{ns}/{id}", "bucket"),
    ("GET", "/api/buckets/{ns}/{id}/xet-write-token", "write_token"),
    ("GET", "/api/buckets/{ns}/{id}/xet-read-token", "read_token"),
    ("POST", "/api/buckets/{ns}/{id}/batch", "batch"),
    ("POST", "/api/buckets/{ns}/{id}/paths-info", "paths_info"),
    ("GET", "/api/buckets/{ns}/{id}/tree", "tree"),
    ("GET", "/api/buckets/{ns}/{id}/tree/{path}", "tree"),
    ("HEAD", "/buckets/{ns}/{id}/resolve/{path}", "head"),
    ("GET", "/buckets/{ns}/{id}/resolve/{path}", "resolve"),
    *ScheduledOperations.ROUTES,
    *RepoOperations.ROUTES,
]
_PARTS = {
    "{ns}": r"(?P<ns>[^/]+)",
    "{id}": r"(?P<id>[^/]+)",
    "{kind}": r"(?P<kind>models|datasets)",
    "{rev}": r"(?P<rev>[^/]+)",
    "{path}": r"(?P<path>.+)",
}


def _pattern(path: str) -> re.Pattern[str]:
    for part, pattern in _PARTS.items():
        path = path.replace(part, pattern)
    return re.compile(path)


_PATTERNS = [(method, _pattern(path), operation) for method, path, operation in ROUTES]
_READ_BY_ALL = {"repo", "repo_file", "repo_tree", "auth_check"}  # without a token, where a repository is public
_REFUSALS = {
    "no_credit": (
        402,
        "Pre-paid credit balance is insufficient - add more credits to your account to use Jobs.",
    ),
    "forbidden": (403, "You don't have the required permissions"),
    "unauthorized": (401, "Invalid username or password."),
    "rate_limited": (429, "We had to rate limit you"),
    "server_error": (500, "Internal Error - We're working hard to fix this as soon as possible!"),
}


class Hub:
    """Answers over a world."""

    def __init__(self, world: HubWorld, token: str, user: str) -> None:
        self._world = world
        self._token = token
        jobs = operations.Operations(world, user)
        self._repos = RepoOperations(jobs, world)
        self._operations = (jobs, ScheduledOperations(jobs, world.schedules), self._repos)

    def answer(self, request: Request) -> Reply:
        """Answer one request, and keep it in the journal."""
        world = self._world
        with world.lock:
            world.agenda.run_due()
            struck = len(world.faults.struck)
            operation, parts = _find(request)
            asked = request.headers.get("authorization", "").removeprefix("Bearer ")
            world.scope = world.tokens.get(asked)
            right = asked == self._token or (world.scope is not None and world.scope.admits(operation, parts))
            reply = self._answer(request, operation, parts, right=right)
            now = world.clock.now()
            skew = world.faults.take("clock_skew", of=operation)
            reply.date = now + (skew.number("seconds") if skew else 0)
            world.journal.add(
                request,
                reply,
                when=now,
                authorization="right" if right else "wrong" if "authorization" in request.headers else "none",
                operation=operation,
                faults=world.faults.struck[struck:],
            )
            return reply

    def _answer(self, request: Request, operation: str, parts: dict[str, str], *, right: bool) -> Reply:
        faults = self._world.faults
        try:
            open_to_all = operation in _READ_BY_ALL and "authorization" not in request.headers
            self._admit(operation, right=right or (open_to_all and self._repos.is_public(parts)))
            if faults.take("bad_gateway", of=operation) or (operation == "logs" and faults.take("logs_502", of="logs")):
                return Reply(502, b"<html>502 Bad Gateway</html>", "text/html")
            reply = self._do(operation)(request, parts)
        except ProblemError as problem:
            reply = problem.reply
        if reply.status == 200 and faults.take("reply_lost", of=operation):
            return Reply(200, drop=True)
        if reply.status == 200 and faults.take("reply_500", of=operation):
            return as_json(500, {"error": "Internal Error"})
        slow = faults.take("slow_reply", of=operation)
        if slow:
            reply.hold_seconds = slow.number("seconds") / self._world.pace
        return reply

    def _do(self, operation: str) -> Callable[[Request, dict[str, str]], Reply]:
        name = f"do_{operation}"
        found: Callable[[Request, dict[str, str]], Reply]
        found = next(getattr(one, name) for one in self._operations if hasattr(one, name))
        return found

    def _admit(self, operation: str, *, right: bool) -> None:
        if not operation:
            raise ProblemError(404, "Sorry, we can't find the page you are looking for.")
        if not right:
            raise ProblemError(401, "Invalid username or password.")
        for fault, (status, words) in _REFUSALS.items():
            if self._world.faults.take(fault, of=operation):
                raise ProblemError(status, words)


def _find(request: Request) -> tuple[str, dict[str, str]]:
    for method, pattern, operation in _PATTERNS:
        match = pattern.fullmatch(request.path)
        if match and method == request.method:
            return operation, {name: unquote(text) for name, text in match.groupdict().items()}
    return "", {}
