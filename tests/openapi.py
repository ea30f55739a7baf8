"""Exchanges held against the official OpenAPI document, strictly: what it does not name is an error, too.

    validate_exchange(record)      of `GET <control>/requests`: the request always, the reply when no fault struck

Newer than the saved document (1.10.0 as of May 2026) and told by clients of the live one: `LATER`, with dates.
"""

from __future__ import annotations

import copy
import functools
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonschema import Draft202012Validator
from jsonschema.validators import validator_for

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SPEC = Path(__file__).parent / "specs" / "lambda-cloud-1.10.0.json"

# Where -> {name: schema}; seen in clients that cite the live document.
LATER: dict[str, dict[str, Any]] = {
    "schema Instance": {
        "first_healthy": {"type": "string", "format": "date-time"},  # 2026-10
        "is_reserved": {"type": "boolean"},  # 2026-05: in the document's examples, not in its schema
    },
    "schema InstanceType": {"architecture": {"enum": ["x86_64", "arm64"]}},  # 2026-09
    "query GET /api/v1/instances": {  # 2026-10
        "page_size": {"type": "string", "pattern": "^[0-9]+$"},
        "page_token": {"type": "string"},
    },
    "reply GET /api/v1/instances": {"page_token": {"type": ["string", "null"]}},  # 2026-10
}
LATER_PATHS = {"/api/v1/filesystems": "/api/v1/file-systems"}  # GET under its new spelling, 2026-09

# What any operation may answer without the document saying so: its text promises the limits, and gateways are gateways.
UNDECLARED = {429}


class SpecError(AssertionError):
    """An exchange that the document does not allow."""


@functools.cache
def document() -> dict[str, Any]:
    """The official document with the later fields added, and every object closed to unknown names."""
    whole = json.loads(SPEC.read_text(encoding="utf-8"))
    for where, extra in LATER.items():
        kind, _, name = where.partition(" ")
        if kind == "schema":
            whole["components"]["schemas"][name]["properties"].update(extra)
        if kind == "reply":
            method, path = name.split()
            content = whole["paths"][path][method.lower()]["responses"]["200"]["content"]
            content["application/json"]["schema"]["properties"].update(extra)
    _close(whole)
    return whole


def _close(node: Any) -> None:
    if isinstance(node, dict):
        if node.get("type") == "object" and isinstance(node.get("properties"), dict):
            node.setdefault("additionalProperties", False)
        for value in node.values():
            _close(value)
    elif isinstance(node, list):
        for value in node:
            _close(value)


def operations() -> set[tuple[str, str]]:
    """Every (method, path) that the document knows."""
    verbs = {"get", "post", "put", "patch", "delete"}
    return {(verb.upper(), path) for path, item in document()["paths"].items() for verb in item if verb in verbs}


def operation_of(record: Mapping[str, Any]) -> tuple[str, str]:
    """Find the document's own name of what was asked: a path without variables wins.

    Raises:
        SpecError: the document has no such operation.
    """
    method, path = record["method"], record["path"]
    if method == "GET":
        path = LATER_PATHS.get(path, path)
    for known, template in sorted(operations(), key=lambda each: each[1].count("{")):
        if known == method and re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", template), path):
            return known, template
    raise SpecError(f"{method} {path} is not in the document")


def validate_exchange(record: Mapping[str, Any]) -> tuple[str, str]:
    """Hold one exchange against the document; gives the operation it was.

    Raises:
        SpecError: the request, or a reply that no fault spoilt, is not as documented.
    """
    method, path = operation_of(record)
    operation = document()["paths"][path][method.lower()]
    errors = [*_request_errors(record, operation, f"query {method} {path}")]
    if not record["faults"]:
        errors += _reply_errors(record, operation)
    if errors:
        raise SpecError(f"{method} {record['path']} -> {record['status']}:\n" + "\n".join(errors))
    return method, path


def _request_errors(record: Mapping[str, Any], operation: dict[str, Any], where: str) -> Iterator[str]:
    known = {each["name"]: each["schema"] for each in operation.get("parameters", []) if each["in"] == "query"}
    known.update(LATER.get(where, {}))
    for name, value in record["query"].items():
        if name not in known:
            yield f"query: {name} is not known"
        else:
            yield from _errors(value, known[name], f"query {name}")
    body = operation.get("requestBody")
    if body is None:
        if record["body"] is not None:
            yield "request: no body is known"
        return
    if record["headers"].get("content-type", "").split(";")[0] != "application/json":
        yield "request: the body is not sent as application/json"
    yield from _errors(record["body"], body["content"]["application/json"]["schema"], "request")


def _reply_errors(record: Mapping[str, Any], operation: dict[str, Any]) -> Iterator[str]:
    status = record["status"]
    if status in UNDECLARED:
        return
    declared = operation["responses"].get(str(status))
    if declared is None:
        yield f"reply: {status} is not declared"
    elif record["content_type"] != "application/json":
        yield f"reply: {record['content_type']}"
    else:
        yield from _errors(record["reply"], declared["content"]["application/json"]["schema"], "reply")


def _errors(value: Any, schema: dict[str, Any], what: str) -> Iterator[str]:
    whole = {**copy.copy(schema), "components": document()["components"]}  # so that "#/components/…" resolves
    checker = Draft202012Validator(whole, format_checker=validator_for(whole).FORMAT_CHECKER)
    for error in checker.iter_errors(value):
        best = min(error.context or [error], key=lambda each: -len(each.absolute_path))
        yield f"{what} {'/'.join(map(str, error.absolute_path))}: {best.message[:300]}"
