"""Reads a GraphQL document, as far as RunPod's clients write them: one operation, fields, arguments, variables."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

_WORD = re.compile(r'\s*(?:,|#[^\n]*\n|("(?:[^"\\\n]|\\.)*"|\$?[A-Za-z_]\w*|-?\d+(?:\.\d+)?|[{}()\[\]:!=]))')
_CLOSING = {"{": "}", "(": ")", "[": "]"}


class QueryError(ValueError):
    """It is no query, or not one that the schema allows."""


@dataclass(frozen=True, slots=True)
class Field:
    """One field that is asked for."""

    name: str
    alias: str
    arguments: dict[str, Any] = field(default_factory=dict)
    fields: tuple[Field, ...] = ()


def parse(text: str, variables: Mapping[str, Any]) -> tuple[Field, ...]:
    """Read the fields of the one operation.

    Raises:
        QueryError: it can't be read.
    """
    return _Reader(_words(text), variables).operation()


def _words(text: str) -> list[str]:
    words, place = [], 0
    text = text.strip() + "\n"
    while text[place:].strip():
        match = _WORD.match(text, place)
        if match is None:
            raise QueryError(f"Syntax Error: unexpected character at {place}.")
        place = match.end()
        if match[1] is not None:
            words.append(match[1])
    return words


class _Reader:
    def __init__(self, words: list[str], variables: Mapping[str, Any]) -> None:
        self._words = words
        self._variables = variables

    def operation(self) -> tuple[Field, ...]:
        if self._peek() in {"query", "mutation"}:
            self._take()
            if self._peek() not in {"{", "("}:
                self._take()
            if self._peek() == "(":
                self._skip()
        fields = self._selection()
        if self._words:
            raise QueryError("Syntax Error: more than one operation.")
        return fields

    def _selection(self) -> tuple[Field, ...]:
        self._take("{")
        fields = []
        while self._peek() != "}":
            fields.append(self._field())
        self._take("}")
        return tuple(fields)

    def _field(self) -> Field:
        name = alias = self._name()
        if self._peek() == ":":
            self._take()
            name = self._name()
        arguments = self._pairs("(") if self._peek() == "(" else {}
        return Field(name, alias, arguments, self._selection() if self._peek() == "{" else ())

    def _pairs(self, opening: str) -> dict[str, Any]:
        self._take(opening)
        made = {}
        while self._peek() != _CLOSING[opening]:
            name = self._name()
            self._take(":")
            made[name] = self._value()
        self._take()
        return made

    def _value(self) -> Any:
        word = self._peek()
        if word == "{":
            return self._pairs("{")
        if word == "[":
            return self._list()
        self._take()
        if word.startswith("$"):
            return self._variables.get(word[1:])
        if word in {"true", "false", "null"} or not re.match(r"[A-Za-z_]", word):
            return json.loads(word)
        return word  # a word of an enum

    def _list(self) -> list[Any]:
        self._take("[")
        made = []
        while self._peek() != "]":
            made.append(self._value())
        self._take()
        return made

    def _name(self) -> str:
        name = self._take()
        if not re.fullmatch(r"[A-Za-z_]\w*", name):
            raise QueryError(f'Syntax Error: Expected Name, found "{name}".')
        return name

    def _skip(self) -> None:
        """Step over the definitions of variables: their types are not checked here."""
        depth = 0
        while True:
            word = self._take()
            depth += (word == "(") - (word == ")")
            if not depth:
                return

    def _peek(self) -> str:
        if not self._words:
            raise QueryError("Syntax Error: Unexpected <EOF>.")
        return self._words[0]

    def _take(self, wanted: str = "") -> str:
        word = self._peek()
        if wanted and word != wanted:
            raise QueryError(f'Syntax Error: Expected "{wanted}", found "{word}".')
        return self._words.pop(0)
