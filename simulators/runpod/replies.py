"""RunPod's problem envelope (RFC 9457) and its words.

Statuses, titles and details: the official OpenAPI document 2.0.0; capacity prose as seen live (2026-08), the words of
402 and 413 are ours: they are not documented.
"""

from __future__ import annotations

import json

from simulators.server import Reply

_TITLES = {
    400: "Bad Request",
    401: "Unauthorized",
    402: "Payment Required",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    409: "Conflict",
    410: "Gone",
    413: "Content Too Large",
    422: "Unprocessable Entity",
    429: "Too Many Requests",
    500: "Internal Server Error",
    502: "Bad Gateway",
    503: "Service Unavailable",
}
_DETAILS = {
    400: "request could not be processed",
    401: "missing bearer token",
    402: "insufficient balance to create this resource",
    403: "access denied",
    404: "resource not found",
    405: "The requested method is not allowed for this path.",
    409: "action is not valid for the current pod status",
    413: "request body exceeds 102400 bytes",
    422: "Request validation failed.",
    500: "internal server error",
    502: "bad gateway",
    503: "service unavailable",
}
# The first was seen on v2 (2026-08), the others on older ways in.
CAPACITY = (
    "There are no longer any instances available with the requested specifications. Please refresh and try again.",
    "There are no longer any instances available with the request specifications. Please try again later.",
    "There are no instances currently available",
)


class ProblemError(Exception):
    """An answer in the vendor's problem envelope."""

    def __init__(
        self, status: int, detail: str = "", *, errors: list[str] | None = None, headers: dict[str, str] | None = None
    ) -> None:
        self.status, self.detail = status, detail or _DETAILS[status]
        super().__init__(self.detail)
        content: dict[str, object] = {"title": _TITLES[status], "status": status, "detail": self.detail}
        if errors:
            content["errors"] = errors
        self.reply = Reply(status, json.dumps(content).encode(), "application/problem+json")
        self.reply.headers.update(headers or {})


def page(status: int) -> Reply:
    """Answer with a page of HTML, as what stands in front of an API does."""
    title = f"{status} {_TITLES[status]}"
    return Reply(status, f"<html><head><title>{title}</title></head><body>{title}</body></html>".encode(), "text/html")
