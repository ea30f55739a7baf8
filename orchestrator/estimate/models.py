"""Models by name, by config.json, or by size: their dimensions, and parameter counts equal to the real class's.

    bundled table (data/models.csv, each row with its source)  ->  Shape
    config.json of a known model_type                          ->  Shape, counted
    a config.json of an unknown one                            ->  Shape counted as a Llama (`exact` is false)

Reading the Hub is hub.py's.
"""

from __future__ import annotations

import csv
import re
from dataclasses import replace
from functools import lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from orchestrator.estimate.layers import TRAITS, maps, traits
from orchestrator.estimate.work import Shape
from providers.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_COPIES = re.compile(r"(-unsloth)?(-bnb)?-4bit$|-(gptq|awq)(-int4)?$")  # quantised copies of the same weights
_ABSURD = 10**13  # parameters: beyond what anyone has trained


class NotModelledError(UsageError):
    """What the job takes can't be told beforehand, though nothing is wrong with it."""


@lru_cache(maxsize=1)
def table() -> dict[str, Shape]:
    """Read the bundled models, by hub id in lower case."""
    text = files("orchestrator.estimate").joinpath("data/models.csv").read_text(encoding="utf-8")
    return {row["hub_id"].lower(): from_row(row) for row in csv.DictReader(text.splitlines())}


def from_row(row: Mapping[str, str]) -> Shape:
    """Make a shape of a row of the table."""

    def number(name: str) -> int:
        return int(row[name] or 0)

    width, heads = number("hidden_size"), number("num_attention_heads")
    experts = number("num_experts")
    shape = Shape(
        name=row["hub_id"],
        kind=row["model_type"],
        layers=number("num_hidden_layers"),
        hidden=width,
        heads=heads,
        kv_heads=number("num_key_value_heads") or heads,
        head_dim=number("head_dim") or width // heads,
        intermediate=number("intermediate_size"),
        vocabulary=number("vocab_size"),
        tied=row["tie_word_embeddings"] == "true",
        parameters=number("params_total"),
        active=number("params_active"),
        embedding=number("params_embedding"),
        linear=number("params_linear"),
        checkpoint=number("params_checkpoint"),
        experts=experts,
        experts_per_token=number("experts_per_token"),
        expert_intermediate=number("moe_intermediate_size") if experts else 0,
        max_positions=number("max_position_embeddings"),
        gated=row["gated"] == "y",
        source=row["source"],
    )
    return replace(shape, linear=shape.linear + _experts(shape)) if experts else shape


def _experts(shape: Shape) -> int:
    """Weights of experts, which the table's count of nn.Linear leaves out."""
    return shape.layers * sum(one.weights for one in maps(shape) if one.copies > 1)


def find(name: str, among: Iterable[str] = ()) -> Shape:
    """Give the bundled model of that hub id, or of that name without its owner.

    Raises:
        UsageError: no bundled model is called that.
    """
    models, wanted = table(), name.strip().lower()
    if wanted in models:
        return models[wanted]
    named = {key.rpartition("/")[2]: key for key in reversed(models)}
    short = _COPIES.sub("", wanted.rpartition("/")[2])
    for ending in ("", "-hf", "-v0.1", "-instruct"):  # what a name's owner, or a person, leaves out
        if short + ending in named:
            found = models[named[short + ending]]
            return replace(found, name=name) if "/" in wanted else found
    from difflib import get_close_matches

    close = get_close_matches(wanted, [*models, *(key.rpartition("/")[2] for key in models), *among], n=3)
    raise UsageError(
        f"no bundled model is called {name}",
        hint=f"perhaps {' or '.join(close)}; or a path to its config.json" if close else "give its config.json instead",
    )


# --- config.json

# Names that classes give the same thing.
_NAMES = {
    "layers": ("num_hidden_layers", "n_layer", "n_layers", "num_layers"),
    "hidden": ("hidden_size", "n_embd", "d_model", "dim"),
    "heads": ("num_attention_heads", "n_head", "n_heads"),
    "kv_heads": ("num_key_value_heads", "num_kv_heads", "n_head_kv"),
    "head_dim": ("head_dim",),
    "intermediate": ("intermediate_size", "n_inner", "ffn_dim", "hidden_dim", "d_ff"),
    "vocabulary": ("vocab_size",),
    "experts": ("num_local_experts", "num_experts", "n_routed_experts"),
    "experts_per_token": ("num_experts_per_tok", "top_k_experts"),
    "expert_intermediate": ("moe_intermediate_size",),
    "positions": ("max_position_embeddings", "n_positions"),
}
_ALL_HEADS = {"gpt2", "gpt_neox", "bert", "distilbert", "roberta"}  # each query head has its own key and value
_UNTIED = {
    "llama",
    "mistral",
    "mixtral",
    "qwen2",
    "qwen3",
    "qwen3_moe",
    "phi3",
    "olmo2",
    "gpt_neox",
    "stablelm",
    "gpt_oss",
    "phi",
}


def from_config(config: Mapping[str, Any], name: str) -> Shape:
    """Make a shape of what a config.json holds.

    Raises:
        UsageError: a dimension is missing or absurd.
    """
    text = config.get("text_config")
    if isinstance(text, dict):
        config = {**text, "model_type": text.get("model_type", config.get("model_type"))}
    read = {key: _read(config, names) for key, names in _NAMES.items()}
    missing = [_NAMES[key][0] for key in ("layers", "hidden", "heads", "vocabulary") if not read[key]]
    if missing:
        raise UsageError(
            f"{name}: config.json has no {', '.join(missing)}", hint="it must be a transformer's config.json"
        )
    kind = str(config.get("model_type", ""))
    if read["hidden"] < read["heads"]:
        raise UsageError(f"{name}: a hidden size of {read['hidden']} cannot hold {read['heads']} heads")
    kv_heads = read["heads"] if kind in _ALL_HEADS else read["kv_heads"] or read["heads"]
    if kind == "falcon" and config.get("multi_query", True) and not config.get("new_decoder_architecture"):
        kv_heads = 1
    if kind == "gpt_bigcode" and config.get("multi_query", True):
        kv_heads = 1
    shape = Shape(
        name=name,
        kind=kind,
        layers=read["layers"],
        hidden=read["hidden"],
        heads=read["heads"],
        kv_heads=kv_heads,
        head_dim=read["head_dim"] or read["hidden"] // read["heads"],
        intermediate=read["intermediate"] or 4 * read["hidden"],
        vocabulary=read["vocabulary"],
        tied=bool(config.get("tie_word_embeddings", kind not in _UNTIED)),
        parameters=0,
        active=0,
        embedding=0,
        linear=0,
        checkpoint=0,
        experts=read["experts"],
        experts_per_token=read["experts_per_token"] or (2 if read["experts"] else 0),
        expert_intermediate=_expert_width(kind, read),
        max_positions=read["positions"],
        source="config.json",
    )
    return counted(shape, config)


def _expert_width(kind: str, read: Mapping[str, int]) -> int:
    if not read["experts"]:
        return 0
    return read["intermediate"] if kind == "mixtral" else read["expert_intermediate"] or read["intermediate"]


def _read(config: Mapping[str, Any], names: tuple[str, ...]) -> int:
    found = next((config[name] for name in names if isinstance(config.get(name), int)), 0)
    if found < 0:
        raise UsageError(f"config.json: {names[0]} is {found}, but must be positive")
    return int(found)


def counted(shape: Shape, config: Mapping[str, Any]) -> Shape:
    """Count a shape's parameters, exactly where its class is known."""
    linear = shape.layers * sum(one.weights for one in maps(shape))
    embedding = shape.inputs * (1 if shape.tied else 2)
    rest = shape.layers * _layer_rest(shape, config) + _model_rest(shape, config)
    total = linear + embedding + rest
    if not 0 < total < _ABSURD:
        raise UsageError(f"{shape.name}: {total:,} parameters cannot be right")
    idle = shape.layers * sum(
        one.weights * (one.copies - one.used) // one.copies for one in maps(shape) if one.copies > 1
    )
    return replace(
        shape,
        parameters=total,
        active=total - idle,
        embedding=embedding,
        linear=linear,
        checkpoint=total,
        exact=shape.kind in COUNTED,
    )


# Types whose counts the tests hold to the class in transformers.
COUNTED = frozenset(
    {
        "llama",
        "mistral",
        "mixtral",
        "qwen2",
        "qwen3",
        "qwen3_moe",
        "gemma2",
        "gemma3_text",
        "phi",
        "phi3",
        "smollm3",
        "gpt2",
        "gpt_bigcode",
        "gpt_neox",
        "olmo2",
        "falcon",
        "granite",
        "stablelm",
        "bert",
        "distilbert",
        "roberta",
    }
)


def _layer_rest(shape: Shape, config: Mapping[str, Any]) -> int:
    """Norms, biases and routers of one layer."""
    own, width = traits(shape), shape.hidden
    outputs = {one.role: one.outputs * one.copies for one in maps(shape)}
    norms = own.norms * width * (1 if own.root_mean_square else 2)
    if own.head_norms:
        norms += shape.query + shape.key_value if shape.kind == "olmo2" else 2 * shape.head_dim
    biased = _biased(shape, config)
    return norms + sum(outputs[role] for role in outputs if role in biased) + shape.experts * width


def _biased(shape: Shape, config: Mapping[str, Any]) -> frozenset[str]:
    """Which maps have a bias."""
    attention, into = frozenset({"q", "k", "v", "qkv"}), frozenset({"o", "gate", "up", "down", "gate_up"})
    if shape.kind == "qwen2":
        return attention
    if shape.kind in {"gpt2", "gpt_bigcode", "gpt_neox", "bert", "distilbert", "roberta", "phi"}:
        return attention | into
    if shape.kind == "stablelm":
        return attention if config.get("use_qkv_bias") else frozenset()
    if shape.kind == "falcon":
        return attention | into if config.get("bias") else frozenset()
    found = attention | {"o"} if config.get("attention_bias") else frozenset()
    return found | {"gate", "up", "down"} if config.get("mlp_bias") else found


def _model_rest(shape: Shape, config: Mapping[str, Any]) -> int:
    """Final norm, positions, and the heads of encoders."""
    width, kind = shape.hidden, shape.kind
    norm = width * (1 if traits(shape).root_mean_square else 2)
    if kind in {"gpt2", "gpt_bigcode"}:
        return norm + shape.max_positions * width
    if kind == "phi":
        return norm + shape.vocabulary  # its head has a bias
    if traits(shape).encoder and kind != "modernbert":
        types = int(config.get("type_vocab_size", {"bert": 2, "roberta": 1}.get(kind, 0)))
        transform = width * width + width + 2 * width + shape.vocabulary
        return norm + (shape.max_positions + types) * width + transform
    return norm


def guessed(parameters: float, name: str) -> Shape:
    """Guess a dense Llama of about so many parameters, where nothing else is known."""
    width = max(256, round((parameters / 3.2) ** (1 / 3) * 3.2 / 128) * 128)
    each = 12 * width * width
    layers = max(1, round((parameters - 64_000 * width) / each)) if parameters > 64_000 * width else 1
    heads = max(1, width // 64)
    shape = Shape(
        name=name, kind="llama", layers=layers, hidden=width, heads=heads, kv_heads=heads, head_dim=64,
        intermediate=int(2.7 * width), vocabulary=32_000, tied=False, parameters=0, active=0, embedding=0, linear=0,
        checkpoint=0, source="guessed from its size",
    )  # fmt: skip
    return replace(counted(shape, {}), exact=False)


KNOWN = frozenset(TRAITS) | COUNTED
