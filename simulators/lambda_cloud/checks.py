"""What Lambda demands of a launch, in its order: the shape (400), then what it names (404), then capacity."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from simulators.lambda_cloud.catalogue import KINDS, REGIONS, images
from simulators.lambda_cloud.instances import Order
from simulators.lambda_cloud.replies import ProblemError

if TYPE_CHECKING:
    from collections.abc import Mapping

_HOSTNAME = re.compile(r"[a-z0-9][0-9a-z-]{0,62}")
_TAG_KEY = re.compile(r"[a-z][a-z0-9-:]+")
_MOUNT_POINT = re.compile(r"(/home|/lambda/nfs|/data)[//a-zA-Z0-9-]*")
_LONGEST_USER_DATA_BYTES = 10**6
_REQUIRED = ("region_name", "instance_type_name", "ssh_key_names")
_OPTIONAL = ("name", "hostname", "image", "user_data", "tags", "file_system_names", "file_system_mounts")
_FIELDS = frozenset({*_REQUIRED, *_OPTIONAL, "firewall_rulesets", "quantity"})


def invalid(message: str) -> ProblemError:
    """Refuse a request for its shape."""
    return ProblemError("global/invalid-parameters", message)


def as_object(content: object) -> dict[str, object]:
    """Take a body that is a JSON object."""
    if not isinstance(content, dict):
        raise invalid("Input should be a valid dictionary")
    return content


def text(body: Mapping[str, object], field: str, longest: int, shortest: int = 0) -> str:
    """Take a text, or "" where there is none."""
    value = body.get(field, "")
    if not isinstance(value, str) or len(value) > longest or (field in body and len(value) < shortest):
        raise invalid(f"{field}: String should have {shortest} to {longest} characters")
    return value


def names(body: Mapping[str, object], field: str) -> list[str]:
    """Take a list of texts, or none."""
    value = body.get(field, [])
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise invalid(f"{field}: Input should be a valid list of strings")
    return value


def _objects(body: Mapping[str, object], field: str) -> list[dict[str, object]]:
    value = body.get(field, [])
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        raise invalid(f"{field}: Input should be a valid list of objects")
    return value


def shape(body: dict[str, object]) -> None:
    """Check all that needs no looking up.

    Raises:
        ProblemError: 400 global/invalid-parameters.
    """
    for field in _REQUIRED:
        if field not in body:
            raise invalid(f"{field}: Field required")
    if len(names(body, "ssh_key_names")) != 1:
        raise invalid("ssh_key_names: List should have exactly 1 item")
    quantity = body.get("quantity", 1)  # left the document, still taken when it is one (official docs' curl sample)
    if quantity != 1 or isinstance(quantity, bool):
        raise invalid("quantity: Input should be less than or equal to 1")
    text(body, "name", 64)
    if not _HOSTNAME.fullmatch(text(body, "hostname", 63) or "a"):
        raise invalid("hostname: String should match pattern '^[a-z0-9][0-9a-z-]{0,62}$'")
    if len(text(body, "user_data", _LONGEST_USER_DATA_BYTES).encode()) > _LONGEST_USER_DATA_BYTES:
        raise invalid("user_data: at most 1 MB")
    if unknown := body.keys() - _FIELDS:
        raise invalid(f"{min(unknown)}: Extra inputs are not permitted")
    for mount in _objects(body, "file_system_mounts"):
        if not _MOUNT_POINT.fullmatch(text(mount, "mount_point", 256)):
            raise invalid("file_system_mounts: mount_point should match the allowed folders")


def tags(body: Mapping[str, object]) -> tuple[tuple[str, str], ...]:
    """Take the tags."""
    taken = []
    for tag in _objects(body, "tags"):
        key, value = text(tag, "key", 55), text(tag, "value", 128)
        if not _TAG_KEY.fullmatch(key) or key.startswith("lambda-ai-") or tag.keys() != {"key", "value"}:
            raise invalid(f"tags: {key!r} is not allowed as a key")
        taken.append((key, value))
    return tuple(taken)


def order(body: dict[str, object], keys: Mapping[str, str], *, missing_status: int) -> Order:
    """Read a launch whose shape is right; `keys` are the registered ones by name.

    Raises:
        ProblemError: it names what does not exist.
    """

    def missing(what: str) -> ProblemError:
        return ProblemError(
            "global/object-does-not-exist",
            f"Specified {what} does not exist.",
            suggestion=f"Check the {what} and try again.",
            status=missing_status,
        )

    kind = KINDS.get(text(body, "instance_type_name", 256))
    if kind is None:
        raise missing("instance type")
    region = text(body, "region_name", 256)
    if region not in REGIONS:
        raise missing("region")
    key = names(body, "ssh_key_names")[0]
    if key not in keys:
        raise missing("SSH key")
    if not _image_exists(body.get("image"), region, kind.card.architecture):
        raise missing("image")
    if names(body, "file_system_names") or _objects(body, "file_system_mounts"):
        raise missing("filesystem")
    if _objects(body, "firewall_rulesets"):
        raise missing("firewall ruleset")
    return Order(
        kind,
        region,
        (key,),
        (keys[key],),
        name=text(body, "name", 64),
        hostname=text(body, "hostname", 63),
        user_data=text(body, "user_data", _LONGEST_USER_DATA_BYTES),
        tags=tags(body),
    )


def _image_exists(wish: object, region: str, architecture: str) -> bool:
    if wish is None:
        return True
    if not isinstance(wish, dict) or wish.keys() not in ({"id"}, {"family"}):
        raise invalid("image: Input should have either id or family")
    ((field, value),) = wish.items()
    rows = (row for row in images() if row["architecture"] == architecture)
    return any(
        row[field] == value and row["region"] == {"name": region, "description": REGIONS[region]} for row in rows
    )
