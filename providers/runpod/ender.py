"""How a pod ends itself: payload/ender.py's orders, by the key that RunPod gives to every pod for itself.

What that key may do differs: REST refused and GraphQL open, all open, all refused were each seen (2026-09). So every
way is tried, terminating before stopping, and only an answer from inside the pod proves that any is open. The account's
key is never sent: a pod's environment, and its processes, are no place for it.
"""

from __future__ import annotations

import json
from typing import Any

from providers.base import Holder, Place, Proof
from providers.http import user_agent
from providers.wire import ENDER_OVERRUN_SECONDS

HOLDER = Holder(
    "watchdog",
    Place.MACHINE,
    Proof.UNPROVEN,
    extendable=True,
    worst_overrun_seconds=ENDER_OVERRUN_SECONDS,
    evidence="ends its pod by the pod's own key, whose rights differ; asks RunPod about it once it runs",
)
_PACE_SECONDS = 1.1
_ID = "{env:RUNPOD_POD_ID}"
_ERRORS = ["errors"]  # GraphQL says no with 200


def orders(url: str, pace: float) -> dict[str, Any]:
    """Spell the orders that end the pod they lie on; `url` is the API's bare address. Nothing in them is secret."""
    headers = {"Authorization": "Bearer {env:RUNPOD_API_KEY}", "User-Agent": user_agent()}

    def rest(method: str, path: str = "", body: object = None) -> dict[str, Any]:
        return {"method": method, "url": f"{url}/v2/pods/{_ID}{path}", "headers": headers, "body": body}

    def graphql(query: str) -> dict[str, Any]:
        body = {"query": query, "variables": {}}
        return {"method": "POST", "url": f"{url}/graphql", "headers": headers, "body": body}

    routes = [
        rest("DELETE"),
        rest("POST", "/action", {"action": "terminate"}),
        graphql(f'mutation {{ podTerminate(input: {{podId: "{_ID}"}}) }}'),
        # Stopped, its GPU bills no more, and a guard ends the rest.
        {**rest("POST", "/action", {"action": "stop"}), "last": True},
        {**graphql(f'mutation {{ podStop(input: {{podId: "{_ID}"}}) {{ id desiredStatus }} }}'), "last": True},
        {"argv": ["runpodctl", "pod", "delete", _ID], "last": True},
        {"argv": ["runpodctl", "remove", "pod", _ID], "last": True},
    ]
    # A 404 is no end here: a key that may not look gets it too, and who is gone asks nothing.
    first = {
        "look": rest("GET"),
        "alive": [{"status": [200], "at": ["id"], "in": [_ID]}],
        "gone": [{"status": [200], "at": ["status"], "in": ["TERMINATED"]}],
    }
    second = {
        "look": graphql(f'query {{ pod(input: {{podId: "{_ID}"}}) {{ id desiredStatus }} }}'),
        "alive": [{"status": [200], "at": ["data", "pod", "id"], "in": [_ID], "without": _ERRORS}],
        "gone": [{"status": [200], "at": ["data", "pod", "desiredStatus"], "in": ["TERMINATED"], "without": _ERRORS}],
    }
    return {**first, "more": [second], "routes": routes, "pace_seconds": _PACE_SECONDS / pace}


def as_text(url: str, pace: float) -> str:
    """Spell them as the machine keeps them, for one whose command could not."""
    return json.dumps(orders(url, pace))
