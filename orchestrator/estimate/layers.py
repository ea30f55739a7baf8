"""A decoder or encoder layer as its linear maps and norms: what adapters attach to and what is kept for the backward.

One table of traits by transformers' model_type; a type that is not in it is taken for a Llama, and said to be.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestrator.estimate.work import Shape, Work


@dataclass(frozen=True, slots=True)
class Traits:
    """How a family's layer is made; the defaults are Llama's."""

    gated: bool = True  # two maps into the MLP, one multiplied on the other
    root_mean_square: bool = True  # RMSNorm as transformers writes it: keeps a float32 copy; else torch's LayerNorm
    joined_query: bool = False  # one map makes query, key and value
    joined_gate: bool = False  # one map makes gate and up
    norms: int = 2
    head_norms: bool = False  # norms of query and key
    wide_norm: bool = False  # the norm's weight is multiplied in float32
    encoder: bool = False  # both ways, with dropout, post-norm
    sdpa: bool = True  # transformers 5.23 runs it on torch's fused attention: `_supports_sdpa`; else eager
    rotary: bool = True  # queries and keys are turned, and so copied
    parallel: bool = False  # attention and MLP read one stream: their norms keep the same input
    activation: int = 0  # tensors as wide as the MLP that its activation keeps; 0 = 3 with a gate, 1 without
    capped: bool = False  # tanh on the scores of eager attention
    short_scores: bool = False  # its softmax is as short as the scores, not float32
    adapted_experts: bool = False  # to PEFT 0.21 "all-linear" means its experts and its router too


LLAMA = Traits()
_ENCODER = Traits(gated=False, root_mean_square=False, encoder=True)
_GPT = Traits(gated=False, root_mean_square=False, joined_query=True, rotary=False)
_STEPWISE = 4  # what transformers' NewGELUActivation keeps, operation by operation
TRAITS = {
    "qwen": Traits(joined_query=True),
    "qwen3": Traits(head_norms=True),
    "qwen3_moe": Traits(head_norms=True, adapted_experts=True),
    "mixtral": Traits(adapted_experts=True),
    "qwen3_5": Traits(head_norms=True),
    "qwen3_5_moe": Traits(head_norms=True),
    "gemma2": Traits(norms=4, wide_norm=True, sdpa=False, capped=True),
    # Gate and up in one, each clamped, the gate's sigmoid, the product with up + 1: modeling_gpt_oss.py.
    "gpt_oss": Traits(sdpa=False, wide_norm=True, activation=6, short_scores=True),
    "gemma3": Traits(norms=4, head_norms=True, wide_norm=True),
    "gemma3_text": Traits(norms=4, head_norms=True, wide_norm=True),
    "gemma4": Traits(norms=4, head_norms=True, wide_norm=True),
    "gemma4_unified": Traits(norms=4, head_norms=True, wide_norm=True),
    "phi3": Traits(joined_query=True, joined_gate=True),
    "olmo2": Traits(head_norms=True, wide_norm=True),
    "stablelm": Traits(root_mean_square=False),
    "gpt2": replace(_GPT, activation=_STEPWISE),
    "gpt_bigcode": _GPT,
    "gpt_neox": replace(_GPT, rotary=True, parallel=True),
    "falcon": replace(_GPT, rotary=True, norms=1),
    "mpt": replace(_GPT, sdpa=False),
    "phi": Traits(gated=False, root_mean_square=False, norms=1, activation=_STEPWISE),
    "bert": _ENCODER,
    "distilbert": _ENCODER,
    "roberta": _ENCODER,
    "deberta-v2": replace(_ENCODER, sdpa=False),
    "modernbert": Traits(root_mean_square=False, joined_query=True, joined_gate=True, encoder=True),
}

# What people and PEFT call the maps of a layer -> the role it plays here.
_ROLES = {
    "q": ("q_proj", "q", "query", "q_lin"),
    "k": ("k_proj", "k", "key", "k_lin"),
    "v": ("v_proj", "v", "value", "v_lin"),
    "qkv": ("qkv", "qkv_proj", "c_attn", "query_key_value", "Wqkv", "attn.c_attn"),
    "o": ("o_proj", "o", "out_proj", "attn_output", "out_lin", "dense", "Wo", "c_proj"),
    "gate": ("gate_proj", "gate", "w1", "mlp"),
    "up": ("up_proj", "up", "w3", "w2", "fc1", "c_fc", "dense_h_to_4h", "lin1", "mlp"),
    "gate_up": ("gate_up_proj", "gate_up", "Wi", "mlp"),
    "down": ("down_proj", "down", "w2", "fc2", "dense_4h_to_h", "lin2", "mlp"),
}


@dataclass(frozen=True, slots=True)
class Map:
    """One linear map of a layer. `reads` names the tensor it reads: maps that read the same share what is kept."""

    role: str
    inputs: int
    outputs: int
    reads: str
    copies: int = 1  # experts
    used: int = 1  # of them, by one token

    @property
    def weights(self) -> int:
        """Weights of all copies."""
        return self.inputs * self.outputs * self.copies


def traits(shape: Shape) -> Traits:
    """Give the family's traits; Llama's where it is unknown."""
    return TRAITS.get(shape.kind, LLAMA)


@lru_cache(maxsize=512)
def maps(shape: Shape) -> tuple[Map, ...]:
    """List the linear maps of one layer."""
    own, width, query, key_value = traits(shape), shape.hidden, shape.query, shape.key_value
    if own.joined_query:
        attention = [Map("qkv", width, query + 2 * key_value, "attention")]
    else:
        attention = [
            Map(role, width, size, "attention") for role, size in zip("qkv", (query, key_value, key_value), strict=True)
        ]
    inner = shape.expert_intermediate or shape.intermediate
    experts, used = max(shape.experts, 1), max(shape.experts_per_token, 1)
    if own.joined_gate:
        into = [Map("gate_up", width, 2 * inner, "mlp", experts, used)]
    else:
        roles = ("gate", "up") if own.gated else ("up",)
        into = [Map(role, width, inner, "mlp", experts, used) for role in roles]
    return (*attention, Map("o", query, width, "out"), *into, Map("down", inner, width, "down", experts, used))


def is_target(one: Map, targets: tuple[str, ...] | str) -> bool:
    """Tell whether adapters go on this map."""
    if isinstance(targets, str):  # all-linear
        return one.copies == 1 or one.role in {"q", "k", "v", "o", "qkv"}
    joined = {"qkv": {"q", "k", "v", "q_proj", "k_proj", "v_proj"}}.get(one.role, set())
    return any(name in _ROLES[one.role] or name in joined for name in targets)


def adapter_parameters(work: Work) -> int:
    """Count the trained weights of LoRA: rank x (inputs + outputs) for each target, in each layer.

    Source: Hu et al. 2021, https://arxiv.org/abs/2106.09685, section 4.1.
    """
    each = sum(one.inputs + one.outputs for one in maps(work.model) if is_target(one, work.targets))
    return work.model.layers * work.rank * (each + (_expert_ends(work.model) if adapts_experts(work) else 0))


def adapts_experts(work: Work) -> bool:
    """Tell whether PEFT adapts experts that lie in one tensor: it then makes the whole tensor anew, adapters added.

    peft/utils/transformers_weight_conversion.py, 0.21: what was nn.Linear in transformers 4 stays meant by all-linear.
    """
    everything = isinstance(work.targets, str) and not work.trains_all and not work.experts_apart
    return everything and work.model.experts > 0 and traits(work.model).adapted_experts


def expert_weights(model: Shape) -> int:
    """Weights of one layer's experts."""
    return sum(one.weights for one in maps(model) if one.copies > 1)


def _expert_ends(model: Shape) -> int:
    """Inputs and outputs of one layer's experts, gate and up fused at twice the rank, and of its router."""
    inner, width = model.expert_intermediate or model.intermediate, model.hidden
    return model.experts * (2 * (width + 2 * inner) + inner + width) + width + model.experts
