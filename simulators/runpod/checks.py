"""What RunPod demands of a body: its schema (422 with every violation), then the rules across its fields (400)."""

from __future__ import annotations

import json
import re
import shlex
from typing import TYPE_CHECKING, Any

from simulators.runpod.catalogue import COMMUNITY, CUDA_VERSIONS, KINDS
from simulators.runpod.pods import Order
from simulators.runpod.replies import CAPACITY, ProblemError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from simulators.server import Request

_STRING: dict[str, Any] = {"type": "string"}
_STRINGS: dict[str, Any] = {"type": "array", "items": _STRING}
_FLAG: dict[str, Any] = {"type": "boolean"}
_CUDA: dict[str, Any] = {"type": "string", "pattern": r"^\d+\.\d+$"}


def _object(required: tuple[str, ...] = (), **properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": required, "properties": properties}


_MOUNTS = _object(
    persistent=_object(("size", "path"), size={"type": "integer", "minimum": 10}, path=_STRING),
    network={"type": "array", "maxItems": 1, "items": _object(("volumeId", "path"), volumeId=_STRING, path=_STRING)},
)
_CONTAINER: dict[str, Any] = {
    "args": _STRING,
    "disk": {"type": "integer", "minimum": 1},
    "env": {"type": "object", "values": _STRING},
    "image": _STRING,
    "ports": _STRINGS,
    "registry": {"type": "string", "null": True},
    "entrypoint": _STRINGS,  # since 2026-09, as `cmd`
    "cmd": _STRINGS,
    "name": {"type": "string", "minLength": 1, "maxLength": 191},
    "mounts": _MOUNTS,
    "globalNetworking": _FLAG,
    "templateId": {"type": "string", "minLength": 1},
}
CREATE = _object(
    ("name",),
    **_CONTAINER,
    cloud={"type": "string", "enum": ("SECURE", "COMMUNITY")},
    cpu=_object(("id", "vcpuCount"), id=_STRING, vcpuCount={"type": "integer", "minimum": 2}),
    dataCenterIds=_STRINGS,
    gpu=_object(
        ("id",),
        id=_STRING,
        count={"type": "integer", "minimum": 1},
        allowedCudaVersions={"type": "array", "items": _CUDA},
        minCudaVersion=_CUDA,
        minRamPerGpu={"type": "integer", "minimum": 1},  # since 2026-09, as the next
        minVcpuCountPerGpu={"type": "integer", "minimum": 1},
    ),
    startJupyter=_FLAG,
    startSsh=_FLAG,
)
UPDATE = _object((), **_CONTAINER, locked=_FLAG)
ACTION = _object(("action",), action={"type": "string", "enum": ("start", "stop", "restart", "terminate")})
KEYS = _object(("keys",), keys=_STRINGS)
_TYPES: dict[str, type | tuple[type, ...]] = {
    "string": str, "integer": int, "boolean": bool, "object": dict, "array": list
}  # fmt: skip
_MOST_ENV = 50
_MOST_HTTP_PORTS = 10


def body(request: Request, schema: Mapping[str, Any]) -> dict[str, Any]:
    """Read a body that follows its schema.

    Raises:
        ProblemError: 400 where it is no JSON, 422 with every violation.
    """
    try:
        content = request.json()
    except ValueError:
        raise ProblemError(400) from None
    if errors := list(violations(content, schema, "$")):
        raise ProblemError(422, errors=errors)
    return dict(content) if isinstance(content, dict) else {}


def violations(value: object, schema: Mapping[str, Any], where: str) -> Iterator[str]:
    """Name every way in which a value breaks a schema."""
    kind = schema["type"]
    if value is None and schema.get("null"):
        return
    if not isinstance(value, _TYPES[kind]) or (kind == "integer" and isinstance(value, bool)):
        yield f"{where}: got {_kind(value)}, want {kind}"
    elif isinstance(value, dict):
        yield from _object_violations(value, schema, where)
    elif isinstance(value, list):
        if len(value) > schema.get("maxItems", len(value)):
            yield f"{where}: maxItems: got {len(value)}, want {schema['maxItems']}"
        for index, item in enumerate(value):
            yield from violations(item, schema["items"], f"{where}[{index}]")
    elif isinstance(value, str):
        yield from _text_violations(value, schema, where)
    elif isinstance(value, int) and value < schema.get("minimum", value):
        yield f"{where}: minimum: got {value}, want {schema['minimum']}"


def _object_violations(value: dict[str, Any], schema: Mapping[str, Any], where: str) -> Iterator[str]:
    if "values" in schema:
        for name, item in value.items():
            yield from violations(item, schema["values"], f"{where}.{name}")
        return
    missing = [name for name in schema["required"] if name not in value]
    if missing:
        yield f"{where}: missing property {', '.join(map(repr, missing))}"
    unknown = [name for name in value if name not in schema["properties"]]
    if unknown:
        yield f"{where}: additional properties {', '.join(map(repr, unknown))} not allowed"
    for name, item in value.items():
        if name in schema["properties"]:
            yield from violations(item, schema["properties"][name], f"{where}.{name}")


def _text_violations(value: str, schema: Mapping[str, Any], where: str) -> Iterator[str]:
    if not schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", len(value)):
        yield f"{where}: length {len(value)} is out of bounds"
    if "enum" in schema and value not in schema["enum"]:
        yield f"{where}: value must be one of {', '.join(map(repr, schema['enum']))}"
    if "pattern" in schema and not re.search(schema["pattern"], value):
        yield f"{where}: {value!r} does not match pattern {schema['pattern']!r}"


def _kind(value: object) -> str:
    names = {str: "string", bool: "boolean", int: "number", float: "number", dict: "object", list: "array"}
    return names.get(type(value), "null")


# ── a create ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def order(wish: Mapping[str, Any], capacity: Mapping[str, list[str]]) -> Order:
    """Read a create whose shape is right, and find a place for it.

    Raises:
        ProblemError: 422 without an image, 404 for what it names, 400 for a rule, or for no capacity.
    """
    if "templateId" in wish:
        raise ProblemError(404, "template not found")
    if "image" not in wish:
        raise ProblemError(422, errors=["$: missing property 'image'"])
    if not re.fullmatch(r"[\w.\-/:]+(:[\w.\-]+)?(@sha256:[0-9a-f]{64})?", wish["image"]):
        raise ProblemError(422, "invalid image reference")
    _rules(wish)
    gpu = wish["gpu"]
    kind = KINDS.get(gpu["id"])
    if kind is None:
        raise ProblemError(400, f"gpu type '{gpu['id']}' not found")
    cloud, count, cuda = wish.get("cloud", "SECURE"), gpu.get("count", 1), _cuda(gpu)
    place = _place(wish, capacity[kind.id], cloud)
    fits = count <= kind.most_of(cloud) and gpu.get("minRamPerGpu", 0) <= kind.ram
    if not place or not fits or not cuda or gpu.get("minVcpuCountPerGpu", 0) > kind.vcpus:
        raise ProblemError(400, CAPACITY[0])
    mounts = wish.get("mounts", {})
    persistent = mounts.get("persistent", {})
    args, entrypoint, cmd = wish.get("args", ""), tuple(wish.get("entrypoint", ())), tuple(wish.get("cmd", ()))
    return Order(
        kind=kind,
        count=count,
        cloud=cloud,
        data_center=None if place == COMMUNITY else place,
        name=wish["name"],
        image=wish["image"],
        argv=command(args, entrypoint, cmd, wish["image"]),
        args=args,
        entrypoint=entrypoint,
        cmd=cmd,
        disk=wish.get("disk", 20),
        volume=persistent.get("size", 0),
        volume_path=persistent.get("path", ""),
        ports=tuple(wish.get("ports", ())),
        env=dict(wish.get("env", {})),
        mounts=mounts,
        cuda=cuda,
    )


def _rules(wish: Mapping[str, Any]) -> None:
    if ("gpu" in wish) == ("cpu" in wish):
        raise ProblemError(400, "exactly one of gpu or cpu must be set")
    mounts = wish.get("mounts", {})
    if "persistent" in mounts and "network" in mounts:
        raise ProblemError(400, "mounts.persistent and mounts.network are mutually exclusive")
    if "network" in mounts:
        raise ProblemError(404, "network volume not found")
    if "cpu" in wish:
        raise ProblemError(400, CAPACITY[0])  # none are simulated
    gpu = wish["gpu"]
    if gpu.get("allowedCudaVersions") and "minCudaVersion" in gpu:
        raise ProblemError(400, "allowedCudaVersions and minCudaVersion are mutually exclusive")
    if len(wish.get("env", {})) > _MOST_ENV:
        raise ProblemError(400, f"at most {_MOST_ENV} environment variables are allowed")
    ports = wish.get("ports", [])
    if not all(re.fullmatch(r"[0-9]{1,5}/(tcp|http)", port) for port in ports):
        raise ProblemError(400, "ports must be formatted as port/protocol")
    if sum(port.endswith("/http") for port in ports) > _MOST_HTTP_PORTS:
        raise ProblemError(400, f"at most {_MOST_HTTP_PORTS} HTTP ports are allowed")
    path = mounts.get("persistent", {}).get("path", "/workspace")
    if not re.fullmatch(r"/[\w.-]+", path):
        raise ProblemError(400, "mounts.persistent.path must be a folder at the top")  # ours: others are not simulated


def _cuda(gpu: Mapping[str, Any]) -> str:
    """Choose a host's CUDA version; "" = there is none."""
    allowed, least = gpu.get("allowedCudaVersions") or CUDA_VERSIONS, gpu.get("minCudaVersion", "0.0")
    return max((each for each in CUDA_VERSIONS if each in allowed and number(each) >= number(least)), default="")


def number(version: str) -> tuple[int, ...]:
    """Read a version so that 12.11 is above 12.2."""
    return tuple(int(part) for part in version.split("."))


def _place(wish: Mapping[str, Any], places: list[str], cloud: str) -> str:
    """Choose where it runs; "" = nowhere. The data centers are called preferred and are enforced (2026-08)."""
    pinned = wish.get("dataCenterIds") or []
    if cloud == "COMMUNITY":
        return COMMUNITY if COMMUNITY in places and not pinned else ""
    free = [place for place in places if place != COMMUNITY]
    return next((place for place in pinned or free if place in free), "")


def command(args: str, entrypoint: tuple[str, ...], cmd: tuple[str, ...], image: str) -> tuple[str, ...]:
    """Say what a container runs: Docker's rules, with `args` as the older way to say the same.

    Raises:
        ProblemError: 400 where both ways are used and differ.
    """
    if args.strip():
        old = _of_args(args)
        if (entrypoint or cmd) and old != (entrypoint, cmd):
            raise ProblemError(400, "args conflicts with entrypoint/cmd")
        entrypoint, cmd = old
    if entrypoint or cmd:
        return entrypoint + cmd
    return ("/start.sh",) if image.startswith("runpod/") else ("/bin/bash",)


def _of_args(args: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    try:
        told = json.loads(args)
    except ValueError:
        told = None
    if isinstance(told, dict) and told.keys() <= {"entrypoint", "cmd"}:
        return tuple(told.get("entrypoint") or ()), tuple(told.get("cmd") or ())
    try:
        return (), tuple(shlex.split(args))
    except ValueError as error:
        raise ProblemError(400, f"args: {error}") from None
