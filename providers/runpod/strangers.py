"""An order for a stranger's machine with an address of its own: GraphQL alone can ask for one, as long as there is one.

    deploy() -> the answer, or None = GraphQL is gone or closed to this key: then by v2, whose pods may lack an address
    id_of()  -> one order, one pod, or it is unclear

A pod without an address can't be reached, and bills until it is given up: minutes that this saves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from providers.errors import NoCapacityError, QuotaError, UnclearError
from providers.http import printable
from providers.runpod import api, reading

if TYPE_CHECKING:
    from collections.abc import Mapping

    from providers.http import Reply
    from providers.runpod.api import Api

_ASK = "mutation($input: PodFindAndDeployOnDemandInput!) { podFindAndDeployOnDemand(input: $input) { id name } }"
_NOT_OPEN = frozenset({400, 401, 403, 404, 405, 410})  # 400: the schema knows no such order; nothing was made
_CLOSED = ("unauthorized", "forbidden", "no access", "permission")
_POOR = ("balance", "funds", "credit", "spend limit")


def deploy(runpod: Api, wish: Mapping[str, Any], read_seconds: float) -> Reply | None:
    """Send the order once; see the module's words.

    Raises:
        UnreachableError, ProviderError: no answer; it may have rented.
    """
    reply = runpod.graph(_ASK, {"input": _spelled(wish)}, read_seconds)
    words = _refusal(reply).lower()
    closed = any(word in words for word in _CLOSED)
    return None if reply.status in _NOT_OPEN or closed else reply


def id_of(reply: Reply, mark: str) -> str:
    """Read the id out of the answer.

    Raises:
        NoCapacityError, QuotaError: nothing was rented, in RunPod's own words.
        UnclearError: any other answer.
    """
    words = _refusal(reply)
    if words and any(known in words.lower() for known in api.CAPACITY):
        raise NoCapacityError(f"{reply.what}: {words}", hint="wait for it: --wait-for-capacity 2h")
    if words and any(known in words.lower() for known in _POOR):
        raise QuotaError(f"{reply.what}: {words}", hint="add credit at https://console.runpod.io/user/billing")
    data = (reply.body or {}).get("data")
    made = data.get("podFindAndDeployOnDemand") if isinstance(data, dict) else None
    made = made if isinstance(made, dict) else {}
    found = str(made.get("id") or "")
    if reply.status != 200 or words or made.get("name") != mark or not reading.is_id(found):
        raise UnclearError(
            f"{reply.what} answered {reply.status}{f': {words}' if words else ''}; it may have rented {mark}"
        )
    return found


def _spelled(wish: Mapping[str, Any]) -> dict[str, Any]:
    """Say an order of v2 as GraphQL says it, and that it must have an address."""
    return {
        "cloudType": wish["cloud"],
        "supportPublicIp": True,
        "gpuTypeId": wish["gpu"]["id"],
        "gpuCount": wish["gpu"]["count"],
        "minCudaVersion": wish["gpu"]["minCudaVersion"],
        "name": wish["name"],
        "imageName": wish["image"],
        "dockerArgs": wish["args"],
        "containerDiskInGb": wish["disk"],
        "volumeInGb": 0,
        "ports": ",".join(wish["ports"]),
        "env": [{"key": name, "value": value} for name, value in wish["env"].items()],
    }


def _refusal(reply: Reply) -> str:
    """Give the words of the application's own refusal; "" = there is none."""
    errors = (reply.body or {}).get("errors")
    first = errors[0] if isinstance(errors, list) and errors else None
    return printable(first.get("message") or "refused") if isinstance(first, dict) else ""
