"""What was asked and what was answered, for whoever wants to check a client's manners.

The key itself is never kept, only whether it was the right one.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from simulators.clock import iso

if TYPE_CHECKING:
    from simulators.server import Reply, Request

_LONGEST_TEXT = 4000


class Journal:
    """Every request in order. Its owner holds the world's lock."""

    def __init__(self) -> None:
        self._records: list[dict[str, Any]] = []

    def add(
        self, request: Request, reply: Reply, *, when: float, authorization: str, operation: str, faults: list[str]
    ) -> None:
        """Keep one exchange; `faults` = what struck while it was answered."""
        kept = {name: value for name, value in request.headers.items() if name != "authorization"}
        self._records.append(
            {
                "n": len(self._records),
                "time": iso(when),
                "method": request.method,
                "path": request.path,
                "query": dict(request.query),
                "operation": operation,
                "headers": kept,
                "user_agent": request.headers.get("user-agent", ""),
                "authorization": authorization,
                "body": request.body,
                "status": None if reply.drop else reply.status,
                "content_type": reply.content_type,
                "reply": b"" if reply.drop else reply.body,
                "faults": faults,
            },
        )

    def since(self, number: int) -> list[dict[str, object]]:
        """Give the exchanges from that number on; bodies that are JSON are read."""
        return [
            {**record, "body": _content(record["body"]), "reply": _content(record["reply"])}
            for record in self._records[number:]
        ]


def _content(body: bytes) -> object:
    """Read JSON where it is JSON; else the beginning of the text."""
    if not body:
        return None
    try:
        return json.loads(body)
    except ValueError:
        return body[:_LONGEST_TEXT].decode(errors="replace")
