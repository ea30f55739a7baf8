"""device.py: the attention that a class of transformers has, tried on tiny real models."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import ModuleType

SIZES = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "pad_token_id": 0,
}


@pytest.mark.parametrize(
    ("kind", "task", "attention"),
    [
        ("gemma2", "CausalLM", "eager"),
        ("gpt_oss", "CausalLM", "eager"),
        ("deberta-v2", "SequenceClassification", "eager"),
        ("gemma2", "SequenceClassification", "eager"),
        ("llama", "CausalLM", "sdpa"),
        ("bert", "SequenceClassification", "sdpa"),
    ],
)
def test_a_model_loads_and_learns_with_the_attention_that_is_chosen_for_its_class(
    kind: str, task: str, attention: str, tmp_path: Path, payload: Callable[[str], ModuleType]
) -> None:
    import torch
    import transformers

    device, export = payload("device"), payload("export")
    auto = getattr(transformers, f"AutoModelFor{task}")
    config = transformers.AutoConfig.for_model(kind, **SIZES, **({"num_local_experts": 4} if kind == "gpt_oss" else {}))
    auto.from_config(config).save_pretrained(tmp_path)
    found = SimpleNamespace(source=str(tmp_path), revision=None)
    chosen = device.choose({"device": "cpu"}, model_class=export.class_of(found, task)).attention
    assert chosen == attention
    model = auto.from_pretrained(tmp_path, attn_implementation=chosen)
    ids = torch.arange(1, 9).view(1, 8)
    model(input_ids=ids, labels=ids if task == "CausalLM" else torch.tensor([1])).loss.backward()
    assert any(weight.grad is not None for weight in model.parameters())


def test_sdpa_as_a_wish_gives_way_where_the_class_has_none(payload: Callable[[str], ModuleType]) -> None:
    from transformers import DebertaV2ForSequenceClassification, LlamaForCausalLM

    device = payload("device")
    assert device._attention("sdpa", (8, 0), DebertaV2ForSequenceClassification)[0] == "eager"
    assert device._attention("flash_attention_2", (9, 0), DebertaV2ForSequenceClassification) == (
        "eager",
        "DebertaV2ForSequenceClassification has no flash_attention_2",
    )
    assert device._attention("sdpa", (8, 0), LlamaForCausalLM)[0] == "sdpa"


def test_a_type_that_no_class_serves_is_left_to_the_loading_to_refuse(
    tmp_path: Path, payload: Callable[[str], ModuleType]
) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "of-our-own"}')
    assert payload("export").class_of(SimpleNamespace(source=str(tmp_path), revision=None), "CausalLM") is None
