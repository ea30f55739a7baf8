"""YAML as people mean it, with the line of every key.

PyYAML reads YAML 1.1, where `on`, `no` and `1:30` are not text and `2e-5` is. This loader keeps the 1.2 core schema:
`true false null`, integers, floats with or without a dot; all else is text. A key that stands twice is an error.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import yaml

from providers.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

Key = tuple[str | int, ...]


class _Loader(yaml.SafeLoader):
    """The 1.2 core schema; the table below replaces PyYAML's guesses."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 (as in the base class)


for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("int", r"[-+]?[0-9]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+0123456789.",
    ),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), list(_first))


def _float(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> float:
    text = str(loader.construct_scalar(node)).lower()
    return float(text.replace(".inf", "inf").replace(".nan", "nan"))


def _int(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    text = str(loader.construct_scalar(node))
    if len(text) > 40:  # Python itself refuses some thousands of digits
        raise yaml.constructor.ConstructorError(None, None, "the number is too long", node.start_mark)
    return int(text)  # 010 is ten: YAML 1.2 has no octals of that spelling


_Loader.add_constructor("tag:yaml.org,2002:float", _float)
_Loader.add_constructor("tag:yaml.org,2002:int", _int)


def read(path: Path) -> tuple[dict[str, Any], dict[Key, int]]:
    """Read a file that holds one mapping: its values, and the line (from 1) of every key and list item.

    Raises:
        ConfigError: it can't be read, is not YAML, or is not a mapping.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} can't be read: {getattr(error, 'strerror', None) or error}") from error
    try:
        value, lines = _parse(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}{_where(error)} is not YAML: {problem(error)}") from error
    except _TwiceError as error:
        raise ConfigError(
            f"{path} line {error.line}: {error.key} stands twice; the first is in line {error.first}"
        ) from error
    if not isinstance(value, dict):
        raise ConfigError(f"{path} is not a template: it must hold `key: value` lines", hint="gpurun templates")
    return value, lines


def scalar(text: str) -> Any:
    """Read the value of a `--set`: numbers, true, false, null, lists and quoted text as YAML; all else as it stands.

    Raises:
        yaml.YAMLError: brackets or quotes that don't close.
    """
    stripped = text.strip()
    if stripped[:1] in ("[", "{", '"', "'"):
        return _parse(stripped)[0]
    if not re.fullmatch(r"[\w.+~-]*", stripped, re.ASCII):
        return text  # blanks, semicolons, colons, line breaks: a text, never YAML's own syntax
    value = _parse(stripped)[0]
    return text if isinstance(value, (str, dict, list)) else value


class _TwiceError(Exception):
    def __init__(self, key: str, line: int, first: int) -> None:
        super().__init__(key)
        self.key, self.line, self.first = key, line, first


def _parse(text: str) -> tuple[Any, dict[Key, int]]:
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        lines: dict[Key, int] = {}
        if node is None:
            return None, lines
        _note_lines(node, (), lines, set())
        return loader.construct_document(node), lines
    except RecursionError:
        raise yaml.YAMLError("it is nested too deeply") from None
    finally:
        loader.dispose()


def _note_lines(node: yaml.Node, at: Key, lines: dict[Key, int], seen: set[int]) -> None:
    if id(node) in seen:
        return  # an alias of what was noted where it first stands
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            here = (*at, str(key.value))
            line = key.start_mark.line + 1
            if here in lines:
                raise _TwiceError(str(key.value), line, lines[here])
            lines[here] = line
            _note_lines(value, here, lines, seen)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            lines[(*at, index)] = value.start_mark.line + 1
            _note_lines(value, (*at, index), lines, seen)


def _where(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    return f" line {mark.line + 1}" if mark else ""


def problem(error: yaml.YAMLError) -> str:
    """Say what PyYAML met, in words for people."""
    words = str(getattr(error, "problem", None) or error)
    if "\\t" in words:
        return "a tab stands where blanks must indent"
    return "a bracket or a quote is not closed" if "stream" in words else words
