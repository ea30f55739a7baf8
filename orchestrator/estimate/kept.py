"""What a forward pass keeps for the backward, and what one layer's backward pass holds besides. Bytes, by operation.

Counted on transformers' modules as they are written, and held to them on a CPU (tests/payload/test_est_memory_real.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.estimate.layers import Map, adapts_experts, expert_weights, is_target, maps, traits
from orchestrator.estimate.work import Attention, Kernels

if TYPE_CHECKING:
    from orchestrator.estimate.work import Work


def stream_bytes(work: Work) -> int:
    """Bytes of a number between the layers: float32 where the embeddings are, since sums take the wider type."""
    if work.trains_all:
        return 4 if work.compute_bytes == 4 or (work.master and work.autocast and work.sharding == "none") else 2
    return 4 if work.upcast_here or work.bits == 32 else 2


def activations(work: Work) -> float:
    """Bytes that the forward pass keeps for the backward, all layers."""
    model, tokens = work.model, work.micro_tokens
    if not work.checkpointing:
        return model.layers * (tokens * kept_a_token(work) + _made_anew(work)) + _ends(work)
    boundary = float(tokens * model.hidden * stream_bytes(work))
    layers = float(model.layers)
    if work.offload:
        layers = 2.0
    return boundary * layers + _ends(work)


def held_twice(work: Work) -> float:
    """With frozen weights FSDP holds in the backward pass each layer's output beside the next one's checkpoint.

    All but the first and the last: seen as the slope on batch size of 7B, 8B and 8x7B models with LoRA and QLoRA, on
    2 and 4 GPUs, PyTorch 2.4 (fms-acceleration, 2024-12 and 2025-02); full fine-tuning does not have it.
    """
    if work.trains_all or not work.checkpointing or work.sharding not in {"fsdp", "zero3"}:
        return 0.0
    return float(work.micro_tokens * work.model.hidden * stream_bytes(work) * max(work.model.layers - 2, 0))


def _ends(work: Work) -> float:
    """The last norm's input and output; the cosines and sines that all layers share."""
    rotary = 0 if traits(work.model).encoder else 8 * work.model.head_dim
    return float(work.micro_tokens * (work.model.hidden * (stream_bytes(work) + work.compute_bytes) + rotary))


def _made_anew(work: Work) -> float:
    """Bytes of one layer's experts with their adapters added: a copy of all of them, which the backward needs."""
    return float(work.compute_bytes * expert_weights(work.model)) if adapts_experts(work) else 0.0


def kept_a_token(work: Work) -> float:
    """Bytes that one layer keeps for a token."""
    return _kept_by_attention(work) + _kept_by_mlp(work)


def _kept_by_attention(work: Work) -> float:
    inputs = _inputs(work)
    return _norms(work, "attention") + _attention(work) + inputs.get("attention", 0.0) + inputs.get("out", 0.0)


def _kept_by_mlp(work: Work) -> float:
    inputs = _inputs(work)
    return _norms(work, "mlp") + _mlp(work) + inputs.get("mlp", 0.0) + inputs.get("down", 0.0)


def _norms(work: Work, where: str) -> float:
    """RMSNorm in transformers multiplies a float32 copy: that is kept, and the normalised one where its weight trains.

    A fused norm, a compiled one and torch's LayerNorm keep their input alone.
    """
    own, width = traits(work.model), work.model.hidden
    stream = stream_bytes(work)
    if own.root_mean_square and work.kernels in {Kernels.HF, Kernels.NATIVE}:
        each = 4.0 + ((4 if own.wide_norm else stream) if work.trains_all else 0)
        normal = (4 if own.wide_norm else work.compute_bytes) if work.trains_all else 0
        heads = (4.0 + normal) * (work.model.query + work.model.key_value)
    else:
        each, heads = float(stream), 2.0 * (work.model.query + work.model.key_value)
    dropped = width if own.encoder else 0  # a mask of a byte after each half of an encoder's layer
    read = 1 if own.parallel and work.kernels is Kernels.HF else own.norms
    return read / 2 * each * width + dropped + (heads if own.head_norms and where == "attention" else 0.0)


def _attention(work: Work) -> float:
    model, short = work.model, work.state_bytes
    kept = float(short * (2 * model.query + 2 * model.key_value) + 4 * model.heads)
    own = traits(model)
    if (own.joined_query and own.rotary) or work.kernels is Kernels.NATIVE:
        kept += short * (model.query + model.key_value)  # the values are a view: they hold what was made with them
    if work.attention is Attention.EAGER:
        # Keys and values are repeated for each head. Of the scores softmax keeps its float32 result, the product its
        # short copy; an encoder's dropout a mask.
        each = short if short == 4 or own.short_scores else 4 + short
        each += ((5 if short == 4 else 1) if own.encoder else 0) + (short if own.capped else 0)
        kept = float(short * 4 * model.query + model.heads * work.sequence * each)
    return kept


def _mlp(work: Work) -> float:
    """What the activation and the product keep: gate, act(gate) and up; without a gate the activation's input."""
    model, short = work.model, work.state_bytes
    own, used = traits(model), max(model.experts_per_token, 1)
    inner = (model.expert_intermediate or model.intermediate) * used
    tensors = own.activation or (3 if own.gated else 1)
    if work.kernels is not Kernels.HF:  # one kernel for all its steps
        tensors = min(tensors, (2 if work.kernels is Kernels.COMPILED else 3) if own.gated else 1)
    # Each expert's answer, until the router's weight is on it.
    weighted = model.hidden * used * max(short, stream_bytes(work)) if model.experts else 0
    return float(short * inner * tensors + weighted)


def _inputs(work: Work) -> dict[str, float]:
    """What linear maps keep of their inputs: frozen ones nothing, trained ones their input, adapters a copy each."""
    kept: dict[str, float] = {}
    for one in maps(work.model):
        if work.trains_all:
            size = _trained_input(work, one)
            kept[one.reads] = kept.get(one.reads, 0.0) + size if _casts(work, one) else size
            continue
        if work.bits == 8 or (work.bits == 4 and work.keeps_inputs):  # MatMul8bitLt keeps what it read, once a tensor
            kept[one.reads] = max(kept.get(one.reads, 0.0), float(work.compute_bytes * one.inputs))
        if is_target(one, work.targets):
            kept[one.reads] = kept.get(one.reads, 0.0) + _adapter_input(work, one)
        elif one.copies > 1 and adapts_experts(work):
            kept[one.reads] = max(kept.get(one.reads, 0.0), float(work.compute_bytes * one.inputs * one.used))
    return kept


def _casts(work: Work, one: Map) -> bool:
    """Autocast makes a copy for each map that reads a float32 tensor: a norm of a float32 stream."""
    return one.reads in {"attention", "mlp"} and stream_bytes(work) == 4 and work.compute_bytes == 2


def _trained_input(work: Work, one: Map) -> float:
    if one.reads == "out":
        return 0.0  # it reads the attention's output, which attention keeps anyway
    return float(work.compute_bytes * one.inputs * one.used)


def _adapter_input(work: Work, one: Map) -> float:
    """A float32 adapter reads a copy of its own, in float32 unless autocast shortens it; a short one shares."""
    wide = work.adapter_bytes if not work.autocast else work.compute_bytes
    copy = float(wide * one.inputs)
    if work.kernels is Kernels.COMPILED or work.adapter_bytes == work.compute_bytes:
        copy = 0.0 if one.role in {"k", "v", "up", "o"} else float(work.compute_bytes * one.inputs)
    mask = one.inputs * (1 + (work.compute_bytes if copy == 0 else 0)) if work.dropout else 0
    return copy + mask + wide * work.rank


# --- one layer in its backward pass


def taken_apart(work: Work) -> float:
    """Bytes of the layer whose backward pass runs: what it keeps (made again under checkpointing) and its gradients."""
    at_mlp = _kept_by_attention(work) + _kept_by_mlp(work) + _mlp_gradients(work)
    at_attention = _kept_by_attention(work) + _attention_gradients(work)
    largest = max(at_mlp, at_attention)
    if not work.checkpointing:  # what it keeps is counted with all the others
        largest -= kept_a_token(work)
    matrix = max(one.inputs * one.outputs for one in maps(work.model))
    dequantised = 2.0 * matrix if work.bits < 16 and not work.trains_all else 0.0
    anew = _made_anew(work) * (2 if work.checkpointing else 1)  # and the gradient of that copy
    return work.micro_tokens * max(largest, 0.0) + dequantised + anew


def _mlp_gradients(work: Work) -> float:
    """Gradients of the product, of gate and of up at once, while what the product read is let go."""
    model, short = work.model, work.state_bytes
    own = traits(model)
    inner = model.expert_intermediate or model.intermediate
    width = inner * max(model.experts_per_token, 1) / (max(model.experts, 1) if work.experts_apart else 1)
    grown = 3 if own.gated else 2
    freed = 1 if work.trains_all and work.kernels is not Kernels.COMPILED else 0
    wrapped = not work.trains_all and any(is_target(one, work.targets) for one in maps(model) if one.role == "down")
    extra = 2 if wrapped and work.kernels is Kernels.HF else 0
    return short * width * (grown - freed + extra) + model.hidden * (stream_bytes(work) + short)


def _attention_gradients(work: Work) -> float:
    """Of queries, keys, values and what they made; eager attention's scores are squares of these."""
    model, short = work.model, work.state_bytes
    gradients = float(model.hidden * (stream_bytes(work) + short) + short * 4 * model.query)
    if work.attention is Attention.EAGER:
        # Short: the product's gradient 2, softmax's in float32 4, and as short as it came 2. Float32: three of 4.
        gradients += model.heads * work.sequence * (13 if short == 4 else 9)
    return gradients
