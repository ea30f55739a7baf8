"""Exchanges held against a vendor's official OpenAPI document, strictly: what it does not name is an error, too.

    validate_exchange(record)           of `GET <control>/requests` at Lambda: the request always, the reply when no
    RUNPOD.validate_exchange(record)    fault struck; of RunPod the same

Newer than the saved documents (Lambda 1.10.0 as of May 2026, RunPod 2.0.0 as of August 2026) and told by clients of the
live ones: `later`, with dates.
"""

from __future__ import annotations

import copy
import functools
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonschema import Draft202012Validator
from jsonschema.validators import validator_for

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

SPECS = Path(__file__).parent / "specs"
_STRINGS = {"type": "array", "items": {"type": "string"}}


class SpecError(AssertionError):
    """An exchange that the document does not allow."""


@dataclass(frozen=True, eq=False)
class Document:
    """An official document with its later fields, every object of it closed to unknown names.

    `later`: "schema Name", "query METHOD /path" or "reply METHOD /path" -> {name: schema}. `later_paths`: a GET under a
    newer spelling -> its older one. `undeclared`: what any operation may answer without the document saying so.
    """

    file: str
    later: Mapping[str, dict[str, Any]]
    later_paths: Mapping[str, str] = field(default_factory=dict)
    undeclared: frozenset[int] = frozenset()

    @functools.cached_property
    def content(self) -> dict[str, Any]:
        """The whole document."""
        whole = json.loads((SPECS / self.file).read_text(encoding="utf-8"))
        for where, extra in self.later.items():
            kind, _, name = where.partition(" ")
            if kind == "schema":
                _properties(whole["components"]["schemas"][name]).update(extra)
            if kind == "reply":
                method, path = name.split()
                content = whole["paths"][path][method.lower()]["responses"]["200"]["content"]
                content["application/json"]["schema"]["properties"].update(extra)
        for name, schema in whole["components"]["schemas"].items():
            _close(schema, is_part=name in _parts(whole))
        _close(whole["paths"], is_part=False)
        return whole

    @functools.cached_property
    def operations(self) -> set[tuple[str, str]]:
        """Every (method, path) that the document knows."""
        verbs = {"get", "post", "put", "patch", "delete"}
        return {(verb.upper(), path) for path, item in self.content["paths"].items() for verb in item if verb in verbs}

    def operation_of(self, record: Mapping[str, Any]) -> tuple[str, str]:
        """Find the document's own name of what was asked: a path without variables wins.

        Raises:
            SpecError: the document has no such operation.
        """
        method, path = record["method"], record["path"]
        if method == "GET":
            path = self.later_paths.get(path, path)
        for known, template in sorted(self.operations, key=lambda each: each[1].count("{")):
            if known == method and re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", template), path):
                return known, template
        raise SpecError(f"{method} {path} is not in the document")

    def validate_exchange(self, record: Mapping[str, Any]) -> tuple[str, str]:
        """Hold one exchange against the document; gives the operation it was.

        Raises:
            SpecError: the request, or a reply that no fault spoilt, is not as documented.
        """
        method, path = self.operation_of(record)
        operation = self.content["paths"][path][method.lower()]
        _refuse(record, self._request_errors(record, operation, f"{method} {path}"))
        return self.validate_reply(record)

    def validate_reply(self, record: Mapping[str, Any]) -> tuple[str, str]:
        """Hold a reply that no fault spoilt against the document; the request may be wrong on purpose.

        Raises:
            SpecError: the reply is not as documented.
        """
        method, path = self.operation_of(record)
        if not record["faults"]:
            _refuse(record, self._reply_errors(record, self.content["paths"][path][method.lower()]))
        return method, path

    def _request_errors(self, record: Mapping[str, Any], operation: dict[str, Any], where: str) -> Iterator[str]:
        parameters = [self._resolved(each) for each in operation.get("parameters", [])]
        known = {each["name"]: each["schema"] for each in parameters if each["in"] == "query"}
        known.update(self.later.get(f"query {where}", {}))
        for name, value in record["query"].items():
            if name not in known:
                yield f"query: {name} is not known"
            else:
                yield from self._errors(_read(value, self._resolved(known[name])), known[name], f"query {name}")
        body = operation.get("requestBody")
        if body is None:
            if record["body"] is not None:
                yield "request: no body is known"
            return
        if record["headers"].get("content-type", "").split(";")[0] != "application/json":
            yield "request: the body is not sent as application/json"
        yield from self._errors(record["body"], body["content"]["application/json"]["schema"], "request")

    def _reply_errors(self, record: Mapping[str, Any], operation: dict[str, Any]) -> Iterator[str]:
        status = record["status"]
        if status in self.undeclared:
            return
        responses = operation["responses"]
        declared = responses.get(str(status), responses.get("default") if status >= 400 else None)
        if declared is None:
            yield f"reply: {status} is not declared"
            return
        content = self._resolved(declared).get("content", {})
        if not content:
            if record["reply"] is not None:
                yield "reply: it has a body"
        elif record["content_type"] not in content:
            yield f"reply: {record['content_type']}"
        elif record["content_type"].endswith("json"):
            yield from self._errors(record["reply"], content[record["content_type"]]["schema"], "reply")

    def _resolved(self, node: dict[str, Any]) -> dict[str, Any]:
        if "$ref" not in node:
            return node
        found: Any = self.content
        for part in node["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        return dict(found)

    def _errors(self, value: Any, schema: dict[str, Any], what: str) -> Iterator[str]:
        whole = {**copy.copy(schema), "components": self.content["components"]}  # so that "#/components/…" resolves
        checker = Draft202012Validator(whole, format_checker=validator_for(whole).FORMAT_CHECKER)
        for error in checker.iter_errors(value):
            best = min(error.context or [error], key=lambda each: -len(each.absolute_path))
            yield f"{what} {'/'.join(map(str, error.absolute_path))}: {best.message[:300]}"


def _refuse(record: Mapping[str, Any], errors: Iterable[str]) -> None:
    if said := list(errors):
        raise SpecError(f"{record['method']} {record['path']} -> {record['status']}:\n" + "\n".join(said))


def _properties(schema: dict[str, Any]) -> dict[str, Any]:
    """Where a schema keeps its own properties, composed or not."""
    if "properties" in schema:
        return schema["properties"]
    return next(part["properties"] for part in reversed(schema["allOf"]) if "properties" in part)


def _parts(whole: dict[str, Any]) -> set[str]:
    """Name the schemas that others are composed of: closed they would shut out what stands beside them."""
    return set(re.findall(r'"\$ref": "#/components/schemas/(\w+)"', " ".join(_lists(whole))))


def _lists(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if "allOf" in node:
            yield json.dumps([each for each in node["allOf"] if "$ref" in each])
        for value in node.values():
            yield from _lists(value)
    elif isinstance(node, list):
        for value in node:
            yield from _lists(value)


def _close(node: Any, *, is_part: bool) -> None:
    """Shut an object out for unknown names, with all that is in it."""
    if isinstance(node, dict):
        is_object = node.get("type") == "object" and isinstance(node.get("properties"), dict)
        if (is_object or "allOf" in node) and not is_part and "additionalProperties" not in node:
            node.setdefault("unevaluatedProperties", False)
        for key, value in node.items():
            for each in value if key == "allOf" else [value]:
                _close(each, is_part=key == "allOf")
    elif isinstance(node, list):
        for value in node:
            _close(value, is_part=False)


def _read(text: str, schema: dict[str, Any]) -> Any:
    """Read a query's value as its schema means it; what can't be read stays text."""
    match schema.get("type"):
        case "integer" if re.fullmatch("-?[0-9]+", text):
            return int(text)
        case "boolean" if text in {"true", "false"}:
            return text == "true"
        case "array":
            return text.split(",")
    return text


LAMBDA = Document(
    "lambda-cloud-1.10.0.json",
    later={
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
    },
    later_paths={"/api/v1/filesystems": "/api/v1/file-systems"},  # GET under its new spelling, 2026-09
    undeclared=frozenset({429}),  # its text promises the limits, and gateways are gateways
)
RUNPOD = Document(
    "runpod-2.0.0.json",
    later={
        "schema CreatePodRequest": {"entrypoint": _STRINGS, "cmd": _STRINGS},  # 2026-09
        "schema UpdatePodRequest": {"entrypoint": _STRINGS, "cmd": _STRINGS},  # 2026-09
        "schema Pod": {"entrypoint": _STRINGS, "cmd": _STRINGS},  # 2026-09
        "schema CreateGpuConfig": {  # 2026-09
            "minRamPerGpu": {"type": "integer", "minimum": 1},
            "minVcpuCountPerGpu": {"type": "integer", "minimum": 1},
        },
        "schema GpuConfig": {"vcpuCount": {"type": "number"}, "memory": {"type": "number"}},  # 2026-09
        "schema ListPodsResponse": {  # 2026-09
            "pagination": {
                "type": "object",
                "required": ["nextCursor", "hasNextPage"],
                "properties": {"nextCursor": {"type": ["string", "null"]}, "hasNextPage": {"type": "boolean"}},
            }
        },
        "query GET /v2/pods": {  # 2026-09
            "limit": {"type": "integer", "minimum": 1, "maximum": 1000},
            "cursor": {"type": "string"},
        },
    },
)


def operations() -> set[tuple[str, str]]:
    """Every (method, path) that Lambda's document knows."""
    return LAMBDA.operations


def validate_exchange(record: Mapping[str, Any]) -> tuple[str, str]:
    """Hold one exchange against Lambda's document; gives the operation it was.

    Raises:
        SpecError: the request, or a reply that no fault spoilt, is not as documented.
    """
    return LAMBDA.validate_exchange(record)
