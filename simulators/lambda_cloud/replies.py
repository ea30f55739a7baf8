"""Lambda's envelope, its error codes, and the pages that are not Lambda's at all.

Codes, statuses and default texts: the official OpenAPI document 1.10.0; the rest as seen, with its source.
"""

from __future__ import annotations

from simulators.server import Reply, as_json

# code -> (status, message, suggestion)
_PROBLEMS = {
    "global/invalid-api-key": (
        401,
        "API key was invalid, expired, or deleted.",
        "Check your API key or create a new one, then try again.",
    ),
    "global/account-inactive": (
        403,
        "Your account is inactive.",
        (
            "Make sure you have verified your email address and have a valid payment method. "
            "Contact Support if problems continue."
        ),
    ),
    "global/invalid-address": (
        403,
        "Your billing address is invalid.",
        "Make sure your billing address is valid. Contact Support if problems continue.",
    ),
    "global/invalid-parameters": (400, "Invalid request data.", ""),
    "global/object-does-not-exist": (404, "Specified instance does not exist.", ""),
    "global/not-found": (404, "The requested resource was not found.", ""),
    "global/quota-exceeded": (400, "Quota exceeded.", "Contact Support to increase your quota."),
    "global/conflict": (409, "The request conflicts with the current state of the resource.", ""),
    "global/internal-error": (
        500,
        "An internal server error occurred.",
        "Try again later. Contact Support if the problem persists.",
    ),
    # Named in the document without a status.
    "provider/internal-unavailable": (503, "Provider unavailable", "Try again shortly"),
    # Seen in April 2024 on a terminate of instances that were terminating (SkyPilot PR 3410).
    "global/unknown": (400, "An unknown error occurred.", ""),
    # The suggestion was seen live (2026).
    "instance-operations/launch/insufficient-capacity": (
        400,
        "Not enough capacity to fulfill launch request.",
        "Choose an instance type with more availability, or try again later.",
    ),
}


class ProblemError(Exception):
    """An answer in the vendor's error envelope."""

    def __init__(self, code: str, message: str = "", *, suggestion: str = "", status: int = 0) -> None:
        usual, default, hint = _PROBLEMS[code]
        super().__init__(message or default)
        error = {"code": code, "message": message or default}
        if suggestion or hint:
            error["suggestion"] = suggestion or hint
        self.reply = as_json(status or usual, {"error": error})


def data(content: object, **beside: object) -> Reply:
    """Answer in the success envelope."""
    return as_json(200, {"data": content, **beside})


def too_many(body: str = "") -> Reply:
    """Answer 429: body, code and Retry-After are undocumented, so there are none."""
    return Reply(429, body.encode(), "text/plain")


def page(status: int, title: str) -> Reply:
    """Answer with a page of HTML, as what stands in front of an API does."""
    return Reply(status, f"<html><head><title>{title}</title></head><body>{title}</body></html>".encode(), "text/html")


def cloudflare() -> Reply:
    """Turn a client away before it reaches the API: "error code: 1010" was seen for `Python-urllib`."""
    return page(403, "Access denied | error code: 1010")
