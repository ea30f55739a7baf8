"""Parameter counts beside the real classes, instantiated without memory on torch's meta device."""

import csv
from importlib.resources import files

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForMaskedLM

from orchestrator.estimate import inputs, models

ROWS = list(csv.DictReader(files("orchestrator.estimate").joinpath("data/models.csv").read_text("utf-8").splitlines()))
TEXT = {"gemma3", "gemma4", "gemma4_unified", "qwen3_5", "qwen3_5_moe"}  # the text part of a multimodal class
DIMENSIONS = (
    "num_hidden_layers",
    "hidden_size",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "intermediate_size",
    "vocab_size",
    "max_position_embeddings",
    "num_experts",
    "moe_intermediate_size",
)
BARE = {"BertModel", "DebertaV2Model"}


def gemma4(row, every, **more):
    layers = int(row["num_hidden_layers"])
    kinds = ["sliding_attention" if (number + 1) % every else "full_attention" for number in range(layers)]
    return {"layer_types": kinds, "global_head_dim": 512, "hidden_size_per_layer_input": 0, **more}


# What config.json says beside the dimensions of the table.
SAYS = {
    "Qwen/Qwen3.5-0.8B": lambda _: {"linear_num_value_heads": 16},
    "Qwen/Qwen3.5-2B": lambda _: {"linear_num_value_heads": 16},
    "Qwen/Qwen3.5-27B": lambda _: {"linear_num_value_heads": 48},
    "Qwen/Qwen3.6-27B": lambda _: {"linear_num_value_heads": 48},
    "google/gemma-4-E2B": lambda row: gemma4(
        row, 5, num_kv_shared_layers=20, use_double_wide_mlp=True, hidden_size_per_layer_input=256
    ),
    "google/gemma-4-E4B": lambda row: gemma4(row, 6, num_kv_shared_layers=18, hidden_size_per_layer_input=256),
    "google/gemma-4-26B-A4B": lambda row: gemma4(
        row, 6, attention_k_eq_v=True, num_global_key_value_heads=2, enable_moe_block=True, top_k_experts=8
    ),
    "google/gemma-4-31B": lambda row: gemma4(row, 6, attention_k_eq_v=True, num_global_key_value_heads=4),
    "google/gemma-4-12B": lambda row: gemma4(row, 6, attention_k_eq_v=True, num_global_key_value_heads=1),
    "microsoft/deberta-v3-base": lambda _: {
        "relative_attention": True,
        "position_buckets": 256,
        "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
        "pos_att_type": ["p2c", "c2p"],
        "position_biased_input": False,
        "type_vocab_size": 0,
    },
}


def config_of(row):
    """The config that the row's dimensions and notes describe."""
    kind = row["model_type"]
    named = kind if kind.endswith("_text") or kind not in TEXT else f"{kind}_text"
    numbers = {name: int(row[name]) for name in DIMENSIONS if row[name]}
    if row["num_experts"]:
        numbers["num_local_experts"] = int(row["num_experts"])
        numbers["num_experts_per_tok"] = int(row["experts_per_token"])
    numbers["tie_word_embeddings"] = row["tie_word_embeddings"] == "true"
    if kind == "gpt2":
        numbers = {"n_layer": numbers["num_hidden_layers"], "n_embd": numbers["hidden_size"]}
        numbers |= {"n_head": int(row["num_attention_heads"]), "vocab_size": int(row["vocab_size"])}
    if kind == "distilbert":
        numbers["n_layers"], numbers["hidden_dim"] = numbers["num_hidden_layers"], numbers["intermediate_size"]
    if kind == "stablelm":
        numbers["use_qkv_bias"] = "qkv bias" in row["other_params_note"]
    if kind == "roberta":
        numbers["type_vocab_size"] = 1
    if kind == "falcon":
        del numbers["head_dim"], numbers["num_key_value_heads"]
    if kind == "phi3":
        numbers["pad_token_id"] = 0
    family = row["hub_id"].removesuffix("-it").removesuffix("-Base")
    return AutoConfig.for_model(named, **numbers, **SAYS.get(family, lambda _: {})(row))


def real(row, config):
    """The class with all its shapes and none of its memory."""
    architecture = row["architecture"]
    made = AutoModelForMaskedLM if architecture.endswith("MaskedLM") else AutoModelForCausalLM
    with torch.device("meta"):
        return (AutoModel if architecture in BARE else made).from_config(config)


def alike(row):
    """Rows of the same dimensions are one model under several names."""
    return tuple(
        row[name] for name in (*DIMENSIONS, "model_type", "architecture", "tie_word_embeddings", "params_total")
    )


@pytest.mark.parametrize("kind", sorted({row["model_type"] for row in ROWS}))
def test_counts_of_every_bundled_model_are_the_real_classs(kind):
    once = {alike(row): row for row in ROWS if row["model_type"] == kind}
    for row in once.values():
        model = real(row, config_of(row))
        assert sum(one.numel() for one in model.parameters()) == int(row["params_total"]), row["hub_id"]


@pytest.mark.parametrize("kind", sorted({row["model_type"] for row in ROWS} & models.COUNTED))
def test_a_config_json_of_a_known_type_is_counted_as_the_real_class(kind):
    row = min((row for row in ROWS if row["model_type"] == kind), key=lambda row: int(row["params_total"]))
    if row["architecture"] in BARE:
        row = next(row for row in ROWS if row["model_type"] == kind and row["architecture"] not in BARE)
    config = config_of(row)
    shape = models.from_config(config.to_dict(), row["hub_id"])
    assert shape.exact
    assert shape.parameters == sum(one.numel() for one in real(row, config).parameters())


def test_a_tokenizer_beside_the_model_counts_the_tokens(tmp_path):
    words = Tokenizer(WordLevel({"word": 0, "?": 1}, unk_token="?"))  # noqa: S106 (a token of text)
    words.pre_tokenizer = Whitespace()
    words.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "rows.jsonl").write_text('{"text": "word word word"}\n{"text": "word"}\n')
    found = inputs.rows(tmp_path / "rows.jsonl", model_name=str(tmp_path))
    assert found.sampled == (1, 3)
    assert found.basis == "2 rows with the model's tokenizer"
