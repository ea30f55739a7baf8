"""The corner of RunPod's GraphQL that REST v2 lacks: the balance, pods by their own keys, community with a public IP.

    {"query": "query { myself { clientBalance } }", "variables": {}}  ->  {"data": {"myself": {"clientBalance": 99.5}}}

What the application refuses is 200 with `errors`; what the schema does not know is 400; a key that is wrong is 401.
Deprecated by the vendor, to be retired "early 2027". stopAfter and terminateAfter are accepted and do nothing, as seen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from simulators.runpod import checks
from simulators.runpod.account import SPEND_LIMIT
from simulators.runpod.catalogue import COMMUNITY, KINDS
from simulators.runpod.query import Field, QueryError, parse
from simulators.runpod.replies import ProblemError
from simulators.server import Reply, Request, as_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from simulators.runpod.pods import Pod
    from simulators.runpod.world import PodWorld

_FORBIDDEN = "Unauthorized: this key has no access to the requested resource"
# RunPod's own names of PodFindAndDeployOnDemandInput that change nothing here.
_IGNORED = frozenset(
    {
        *("minDisk", "minDownload", "minUpload", "countryCode", "startSsh", "startJupyter"),
        *("stopAfter", "terminateAfter", "deployCost", "volumeKey", "compliance", "cudaVersion"),
    }
)
_TAKEN = frozenset(
    {
        *("cloudType", "gpuTypeId", "gpuCount", "name", "imageName", "dockerArgs", "env", "ports", "containerDiskInGb"),
        *("volumeInGb", "volumeMountPath", "minVcpuCount", "minMemoryInGb", "dataCenterId", "allowedCudaVersions"),
        *("minCudaVersion", "gpuTypeIdList", "networkVolumeId", "templateId", "containerRegistryAuthId"),
        "supportPublicIp",
    }
)


class RefusedError(Exception):
    """What the application answers with `errors`."""


class Graph:
    """Answers queries over a world. Called under its lock."""

    def __init__(self, world: PodWorld, user: str) -> None:
        self._world = world
        self._user = user
        self._roots: dict[str, Callable[[Field, Pod | None], Any]] = {
            "myself": self._myself,
            "pod": self._pod,
            "gpuTypes": self._gpu_types,
            "podFindAndDeployOnDemand": self._deploy,
            "podStop": self._stop,
            "podTerminate": self._terminate,
        }

    def answer(self, request: Request, pod: Pod | None) -> Reply:
        """Answer one request; `pod` = whose own key it came with."""
        known = "authorization" in request.headers
        try:
            fields = self._fields(request)
        except (QueryError, ValueError) as error:
            code = {"code": "GRAPHQL_VALIDATION_FAILED"}
            return as_json(400, {"errors": [{"message": str(error), "extensions": code}]})
        if not known and any(each.name != "gpuTypes" for each in fields):
            raise ProblemError(401)
        if self._world.faults.take("graphql_errors"):
            return _errors("Something went wrong. Please try again later or contact support.")
        try:
            return as_json(200, {"data": {each.alias: self._solve(each, pod) for each in fields}})
        except QueryError as error:
            return as_json(400, {"errors": [{"message": str(error)}]})
        except RefusedError as error:
            return _errors(str(error))

    def _fields(self, request: Request) -> tuple[Field, ...]:
        content = request.json()
        if not isinstance(content, dict) or not isinstance(content.get("query"), str):
            raise QueryError("Must provide query string.")
        fields = parse(content["query"], content.get("variables") or {})
        unknown = [each.name for each in fields if each.name not in self._roots]
        if unknown:
            raise QueryError(f'Cannot query field "{unknown[0]}" on type "Query".')
        return fields

    def _solve(self, field: Field, pod: Pod | None) -> Any:
        return _chosen(self._roots[field.name](field, pod), field)

    def _own(self, field: Field, pod: Pod | None) -> Pod | None:
        """Find the pod that is named, if the key may touch it."""
        wanted = str(field.arguments.get("input", {}).get("podId", ""))
        if pod is not None and ("pod_key" in pod.faults and pod.faults["pod_key"].text("may") == "none"):
            raise RefusedError(_FORBIDDEN)
        if pod is not None and pod.id != wanted:
            raise RefusedError(_FORBIDDEN)
        return self._world.found(wanted)

    # ── queries ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _myself(self, _field: Field, pod: Pod | None) -> dict[str, Any]:
        if pod is not None:
            raise RefusedError(_FORBIDDEN)
        world = self._world
        return {
            "id": "user_2simulated",
            "email": "simulated@example.com",
            "clientBalance": float(world.account.balance()),
            "currentSpendPerHr": float(world.account.meter.rate()),
            "spendLimit": float(SPEND_LIMIT),
            "notifyLowBalance": False,
            "notifyPodsStale": False,
            "pods": [self._spell(each) for each in world.listed()],
        }

    def _pod(self, field: Field, pod: Pod | None) -> dict[str, Any] | None:
        found = self._own(field, pod)
        return None if found is None else self._spell(found)

    def _spell(self, pod: Pod) -> dict[str, Any]:
        now, order = self._world.clock.now(), pod.order
        port = pod.public_port(now)
        ports = [] if port is None else [
            {"ip": pod.address, "isIpPublic": True, "privatePort": 22, "publicPort": port, "type": "tcp"}
        ]  # fmt: skip
        uptime = 0 if pod.container_since is None else int(now - pod.container_since)
        runtime = {"uptimeInSeconds": uptime, "ports": ports, "gpus": [], "container": None}
        intent = {"EXITED": "EXITED", "TERMINATED": "TERMINATED"}.get(pod.status, "RUNNING")
        return {
            "id": pod.id,
            "name": pod.name,
            "desiredStatus": intent,
            "costPerHr": float(pod.cost),
            "lastStatusChange": f"Rented by User: {pod.created:.0f}",
            "imageName": order.image,
            "gpuCount": order.count,
            "machineId": pod.machine,
            "podType": "RESERVED",
            "env": [f"{name}={value}" for name, value in order.env.items()],
            "ports": ",".join(order.ports),
            "uptimeSeconds": 0,
            "runtime": runtime if pod.status == "RUNNING" else None,
            "machine": {"podHostId": f"{pod.id}-{pod.machine}", "gpuDisplayName": order.kind.name, "location": "US"},
        }

    def _gpu_types(self, field: Field, _pod: Pod | None) -> list[dict[str, Any]]:
        wanted = field.arguments.get("input", {}).get("id")
        rows = []
        for kind in KINDS.values():
            places = self._world.capacity[kind.id]
            rows.append(
                {
                    "id": kind.id,
                    "displayName": kind.name,
                    "manufacturer": kind.manufacturer,
                    "memoryInGb": kind.gb,
                    "secureCloud": kind.secure is not None,
                    "communityCloud": kind.community is not None,
                    "maxGpuCount": max(kind.most),
                    "maxGpuCountSecureCloud": kind.most_of("SECURE"),
                    "maxGpuCountCommunityCloud": kind.most_of(COMMUNITY),
                    "securePrice": float(self._world.account.price(kind.id, "SECURE")) if kind.secure else None,
                    "communityPrice": float(self._world.account.price(kind.id, COMMUNITY)) if kind.community else None,
                    "secureSpotPrice": None,
                    "communitySpotPrice": None,
                    "lowestPrice": {
                        "stockStatus": "High" if places else None,
                        "minimumBidPrice": None,
                        "uninterruptablePrice": float(kind.secure or kind.community or 0),
                        "minVcpu": kind.vcpus,
                        "minMemory": kind.ram,
                        "availableGpuCounts": list(range(1, max(kind.most) + 1)) if places else [],
                    },
                }
            )
        return [row for row in rows if wanted in {None, row["id"]}]

    # ── mutations ────────────────────────────────────────────────────────────────────────────────────────────────

    def _deploy(self, field: Field, pod: Pod | None) -> dict[str, Any]:
        if pod is not None:
            raise RefusedError(_FORBIDDEN)
        wish, world = field.arguments.get("input", {}), self._world
        if unknown := wish.keys() - _TAKEN - _IGNORED:
            raise QueryError(f'Field "{min(unknown)}" is not defined by type "PodFindAndDeployOnDemandInput".')
        try:
            order = checks.order(_as_rest(wish), world.capacity)
        except ProblemError as problem:
            raise RefusedError(problem.detail) from problem
        where = {"type": order.kind.id, "region": order.data_center or COMMUNITY, "of": "create"}
        if world.faults.take("capacity", **where):
            raise RefusedError("There are no longer any instances available with the requested specifications.")
        if world.account.balance() < world.account.price(order.kind.id, order.cloud) * order.count:
            raise RefusedError("You do not have enough balance to rent this pod.")  # the words are ours
        faults = world.faults.take_for_instance(**where)
        if wish.get("supportPublicIp"):
            faults.pop("no_public_ip", None)
        return self._spell(world.lives.create(order, faults=faults))

    def _stop(self, field: Field, pod: Pod | None) -> dict[str, Any]:
        found = self._own(field, pod)
        if found is None or not found.alive:
            raise RefusedError("pod not found to stop")
        if found.status != "EXITED":
            self._world.lives.stop(found)
        return self._spell(found)

    def _terminate(self, field: Field, pod: Pod | None) -> None:
        found = self._own(field, pod)
        if found is None:
            raise RefusedError("pod not found to terminate")
        if found.alive:
            self._world.lives.terminate(found, "podTerminate")


def _as_rest(wish: dict[str, Any]) -> dict[str, Any]:
    """Say a deploy as a create of v2 says it."""
    cloud = {"ALL": "SECURE"}.get(wish.get("cloudType", "ALL"), wish.get("cloudType"))
    gpu = {"id": wish.get("gpuTypeId", ""), "count": wish.get("gpuCount", 1)}
    gpu |= {name: wish[name] for name in ("allowedCudaVersions", "minCudaVersion") if wish.get(name)}
    made: dict[str, Any] = {
        "name": wish.get("name", ""),
        "image": wish.get("imageName", ""),
        "gpu": gpu,
        "cloud": cloud,
        "disk": wish.get("containerDiskInGb", 20),
        "args": wish.get("dockerArgs") or "",
        "ports": [port for port in (wish.get("ports") or "").split(",") if port],
        "env": {pair["key"]: pair["value"] for pair in wish.get("env") or ()},
    }
    if wish.get("dataCenterId"):
        made["dataCenterIds"] = [wish["dataCenterId"]]
    if wish.get("volumeInGb"):
        path = wish.get("volumeMountPath", "/workspace")
        made["mounts"] = {"persistent": {"size": wish["volumeInGb"], "path": path}}
    return made


def _chosen(value: Any, field: Field) -> Any:
    """Keep of an answer what was asked for.

    Raises:
        QueryError: something was asked for that there is not.
    """
    if isinstance(value, list):
        return [_chosen(each, field) for each in value]
    if not isinstance(value, dict):
        return value
    if not field.fields:
        raise QueryError(f'Field "{field.name}" must have a selection of subfields.')
    for each in field.fields:
        if each.name not in value:
            raise QueryError(f'Cannot query field "{each.name}" on "{field.name}".')
    return {each.alias: _chosen(value[each.name], each) for each in field.fields}


def _errors(message: str) -> Reply:
    return as_json(200, {"errors": [{"message": message}], "data": None})
