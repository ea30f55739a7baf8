"""What is wrong with a template, in sentences: which key, where it stands, what was given, what is wanted.

pydantic's own words never reach a person: every error is turned round here, with the nearest valid key beside it.
"""

from __future__ import annotations

import difflib
import typing
from types import UnionType
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from orchestrator.config import Settings
from providers.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

    from orchestrator.yaml12 import Key

# What other tools call it. People bring these names with them.
ALIASES = {
    "lr": "learning_rate",
    "num_train_epochs": "epochs",
    "num_epochs": "epochs",
    "per_device_train_batch_size": "batch_size",
    "micro_batch_size": "batch_size",
    "gradient_accumulation_steps": "gradient_accumulation",
    "grad_accum": "gradient_accumulation",
    "max_seq_length": "max_length",
    "lr_scheduler_type": "schedule",
    "scheduler": "schedule",
    "warmup_ratio": "warmup",
    "optim": "optimizer",
    "bf16": "dtype",
    "fp16": "dtype",
    "torch_dtype": "dtype",
    "save_steps": "checkpoint_every_steps",
    "logging_steps": "log_every_steps",
    "lora_r": "r",
    "rank": "r",
    "lora_alpha": "alpha",
    "lora_dropout": "dropout",
    "target_modules": "targets",
    "load_in_8bit": "quantization",
    "load_in_4bit": "quantization",
    "gradient_checkpointing": "activation_checkpointing",
    "attn_implementation": "attention",
    "dataset": "data",
    "dataset_text_field": "text_field",
    "model_name": "model",
    "model_name_or_path": "model",
    "push_to_hub": "push",
}


# ── what may stand where ─────────────────────────────────────────────────────────────────────────────────────────────


def model_at(path: Key, raw: object) -> type[BaseModel] | None:
    """Find the model that describes the mapping at `path`; None where there is none, as for a plain value."""
    annotation: Any = Settings
    node = raw
    for key in path:
        node = node.get(key) if isinstance(node, dict) else None
        model = _model_of(annotation)
        if model is not None:
            if key not in model.model_fields:
                return None
            annotation = model.model_fields[str(key)].annotation
        elif typing.get_origin(annotation) is dict:
            annotation = typing.get_args(annotation)[1]
        else:
            return None
        annotation = _choose(annotation, node)
    return _model_of(annotation)


def _model_of(annotation: object) -> type[BaseModel] | None:
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def _choose(annotation: Any, node: object) -> Any:
    """Step into a union: the model whose `method` the mapping names, or the only model there is."""
    while typing.get_origin(annotation) is typing.Annotated:
        annotation = typing.get_args(annotation)[0]
    if typing.get_origin(annotation) not in (typing.Union, UnionType):
        return annotation
    models = [choice for choice in typing.get_args(annotation) if _model_of(choice)]
    if not any("method" in choice.model_fields for choice in models):
        return models[0] if models else annotation
    named = node.get("method") if isinstance(node, dict) else None
    return next((choice for choice in models if named in methods_of(choice)), None)


def methods_of(model: type[BaseModel]) -> tuple[str, ...]:
    """Give the values of `method` that choose this model."""
    return typing.get_args(model.model_fields["method"].annotation)


def places(raw: Mapping[str, Any], path: Key = ()) -> Iterator[tuple[Key, type[BaseModel]]]:
    """Every mapping that the template has or may have, with its model: `training`, `training.data`, and so on."""
    model = model_at(path, raw)
    node: Any = raw
    for key in path:
        node = node.get(key) if isinstance(node, dict) else None
    if model is None:
        keys: Collection[Any] = node if isinstance(node, dict) else ()
    else:
        yield path, model
        keys = model.model_fields
    for key in keys:
        inner = model_at((*path, key), raw)
        steps = isinstance(node, dict) and isinstance(node.get(key), dict)
        if inner is not None or steps:
            yield from places(raw, (*path, key))


# ── sentences ────────────────────────────────────────────────────────────────────────────────────────────────────────


def to_config_error(error: ValidationError, raw: Mapping[str, Any], origin: Callable[[Key], str]) -> ConfigError:
    """Turn pydantic's error into ours. `origin` tells where a key was written: a line of a file, or a `--set`."""
    found: dict[Key, tuple[str, str]] = {}
    for detail in error.errors(include_url=False):
        path = _path(detail["loc"], raw)
        if detail["type"] in ("union_tag_invalid", "union_tag_not_found"):
            path = (*path, "method")
        if path not in found or detail["type"] == "extra_forbidden":
            found[path] = _sentence(detail, path, raw)
    # A misspelt key also leaves its right name missing; the misspelling alone is worth telling.
    spelt = {path[:-1] for path, (_, kind) in found.items() if kind == "extra"}
    told = [(path, text) for path, (text, kind) in found.items() if kind != "missing" or path[:-1] not in spelt]
    lines = [f"{origin(path)}: {text}" for path, text in told[:5]]
    if len(told) > 5:
        lines.append(f"… and {len(told) - 5} more")
    return ConfigError("\n".join(lines))


def _path(loc: tuple[str | int, ...], raw: object) -> Key:
    """Drop from pydantic's location what no one wrote: the tags of unions."""
    path: list[str | int] = []
    node = raw
    for index, part in enumerate(loc):
        if isinstance(node, dict):
            if part not in node and part == node.get("method"):
                continue
            path.append(part)
            node = node.get(part)
        elif isinstance(node, list) and isinstance(part, int) and part < len(node):
            path.append(part)
            node = node[part]
        elif index == 0:
            path.append(part)
    return tuple(path)


def _sentence(detail: ErrorDetails, path: Key, raw: Mapping[str, Any]) -> tuple[str, str]:
    name = dotted(path)
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "extra_forbidden":
        return unknown_key(path, raw), "extra"
    if kind == "missing":
        return f"{name} is missing: {_wanted(path, raw)} is needed", "missing"
    if kind == "union_tag_not_found":
        return f"{name} is missing: one of {_methods(path)} is needed", "missing"
    if kind == "union_tag_invalid":
        given = str(context.get("tag", ""))
        guess = _guess(given, _methods(path).split())
        return f"{name} is {show(given)}: one of {_methods(path)} is needed{guess}", ""
    if kind == "string_pattern_mismatch":
        return f"{name} is {show(detail['input'])}: lower-case letters, digits and inner hyphens are needed", ""
    return f"{name} is {show(detail['input'])}: {_bounds(kind, context) or _wanted(path, raw)} is needed", ""


def _methods(path: Key) -> str:
    if "steps" in path:
        return "pretrain classify sft export"
    return "loop pretrain classify sft export chain script"


def _bounds(kind: str, context: Mapping[str, Any]) -> str:
    words = {
        "greater_than": ("a number above", "gt"),
        "greater_than_equal": ("a number from", "ge"),
        "less_than": ("a number below", "lt"),
        "less_than_equal": ("a number up to", "le"),
        "string_too_long": ("a text no longer than", "max_length"),
        "too_short": ("a length of at least", "min_length"),
    }
    if kind not in words:
        return ""
    word, key = words[kind]
    return f"{word} {context[key]:g}" if isinstance(context[key], float) else f"{word} {context[key]}"


def _wanted(path: Key, raw: Mapping[str, Any]) -> str:
    """Say what kind of value a key takes, read off its annotation."""
    inside = [part for part in path if isinstance(part, str)]
    model = model_at(tuple(inside[:-1]), raw)
    if model is None or not inside or inside[-1] not in model.model_fields:
        return "another value"
    words = _words(model.model_fields[inside[-1]].annotation)
    if isinstance(path[-1], int):
        return f"a {words.removeprefix('a list of ').split('s or ')[0].removesuffix('s')} in the list"
    return words


def _words(annotation: Any) -> str:
    while typing.get_origin(annotation) is typing.Annotated:
        annotation = typing.get_args(annotation)[0]
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return ("one of " if len(arguments) > 1 else "") + " ".join(map(str, arguments))
    if origin in (typing.Union, UnionType):
        return " or ".join(dict.fromkeys(_words(choice) for choice in arguments if choice is not type(None)))
    if origin is list:
        return f"a list of {_words(arguments[0]).removeprefix('a ')}s"
    plain = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
    return plain.get(
        annotation, "a number" if getattr(annotation, "__name__", "") == "Decimal" else "a mapping of keys"
    )


def unknown_key(path: Key, raw: Mapping[str, Any]) -> str:
    """Say that a key is not known, which one is meant, and what may stand there."""
    key, place = str(path[-1]), path[:-1]
    model = model_at(place, raw)
    valid = list(model.model_fields) if model else []
    elsewhere = next((dotted((*at, key)) for at, other in places(raw) if key in other.model_fields), "")
    within = f" in {dotted(place)}" if place else ""
    guess = _guess(key, valid)
    if not guess and elsewhere:
        guess = f"; {elsewhere} is."
    return f"{show(key)} is not a key{within}{guess or '.'} Keys here: {' '.join(valid)}"


def _guess(word: str, valid: Collection[str]) -> str:
    close = nearest(word, valid)
    return f"; did you mean {close}?" if close else ""


def nearest(word: str, valid: Collection[str]) -> str:
    """Give the valid word that was most likely meant, or nothing."""
    lowered = word.strip().lower().replace("-", "_")
    if ALIASES.get(lowered) in valid:
        return ALIASES[lowered]
    return next(iter(difflib.get_close_matches(lowered, valid, n=1, cutoff=0.6)), "")


def dotted(path: Key) -> str:
    """Spell a place as `--set` does."""
    return ".".join(map(str, path)) or "the template"


def show(value: object) -> str:
    """Quote a value as it would stand in YAML, short."""
    text = (
        {None: "empty", True: "true", False: "false"}.get(value) if isinstance(value, bool) or value is None else None
    )
    if text is None:
        text = f'"{value}"' if isinstance(value, str) else str(value)
    flat = " ".join(text.split())
    return flat if len(flat) <= 60 else flat[:59] + "…"
