"""Lint's table held to the libraries of the tests: what it calls gone is, and what it puts there is there."""

from __future__ import annotations

import importlib
import inspect
import re

import pytest

from orchestrator.lint import rows


def parameters(place: str) -> set[str]:
    package, _, name = place.replace("*", "SFT").partition(".")
    return set(inspect.signature(getattr(importlib.import_module(package), name)).parameters)


@pytest.mark.filterwarnings("ignore")
def test_each_argument_that_is_called_gone_is_and_its_fix_is_there() -> None:
    wrong = []
    for row in rows.KEYWORDS:
        if row.place == "*.from_pretrained":  # hands what it does not know down to the model
            continue
        known = parameters(row.place)
        wrong += [row] if row.argument in known else []
        put = re.match(r"(\w+)=", row.fix)
        config, argument = re.match(r"(?:(\w+Config)\((\w+)=)?", row.fix).groups()
        wrong += [row] if put and put[1] not in known else []
        wrong += [row] if config and argument not in parameters(f"trl.{config}") else []
    assert wrong == []


@pytest.mark.filterwarnings("ignore")
def test_each_name_that_is_called_gone_is() -> None:
    there = []
    for row in rows.NAMES:
        package, _, name = row.place.partition(".")
        there += [row] if hasattr(importlib.import_module(package), name) else []
    assert there == []


@pytest.mark.filterwarnings("ignore")
def test_a_model_takes_no_bits_of_its_own_any_more() -> None:
    transformers = importlib.import_module("transformers")
    config = transformers.LlamaConfig(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
    for row in rows.KEYWORDS:
        if row.place == "*.from_pretrained" and row.argument.startswith("load_in"):
            with pytest.raises(TypeError, match=row.argument):
                transformers.LlamaForCausalLM(config, **{row.argument: True})
