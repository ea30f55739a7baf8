"""GPU memory of one training step: what is alive at each moment, and the largest of them.

    loss        weights + optimizer + what the forward pass kept + logits
    backward    weights + optimizer + what is still kept or the gradients so far + one layer taken apart
    step        weights + optimizer + gradients + the optimizer's own temporaries
    load        only where the whole model stands on the GPU before it is sharded

Not a sum of everything: gradients do not exist when the logits peak, and the optimizer's temporaries come when all
activations are gone. Bytes are counted operation by operation; tests/unit/estimate holds them to real models on CPU.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from orchestrator.estimate.layers import Map, adapter_parameters, is_target, maps, traits
from orchestrator.estimate.work import Attention, Kernels, Loss, Optimizer

if TYPE_CHECKING:
    from orchestrator.estimate.work import Work

# bitsandbytes, functional.py: one float32 scale for 64 weights of nf4; with double quantisation one byte for 64 and
# one float32 for 64 x 256. int8: a byte a weight and a float32 scale for each row.
NF4_BYTES = 0.5 + 4 / 64
NF4_DOUBLE_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)
EIGHT_BIT_STATE_BYTES = 1 + 4 / 256  # a state of AdamW in 8 bits: one float32 scale for a block of 256
CHUNK_TOKENS = 1024  # TRL 1.16 and cut cross-entropy work on 256 to 1024 tokens at a time
TORCHTUNE_CHUNKS = 8


@dataclass(frozen=True, slots=True)
class Moment:
    """What is alive at one moment, bytes by component."""

    name: str
    parts: dict[str, float]

    @property
    def total(self) -> float:
        """Bytes in all."""
        return sum(self.parts.values())

    @property
    def by_tokens(self) -> float:
        """Bytes of them whose sizes follow the batch."""
        return sum(self.parts.get(name, 0.0) for name in ("activations", "layer", "logits"))


@dataclass(frozen=True, slots=True)
class Peak:
    """All moments of a step. `allocated` is the largest; `churn` are bytes that come and go within a step."""

    moments: tuple[Moment, ...]

    @property
    def worst(self) -> Moment:
        """Give the moment with the most."""
        return max(self.moments, key=lambda moment: moment.total)

    @property
    def resident(self) -> float:
        """Bytes that stay from step to step."""
        parts = self.moments[0].parts
        return parts["weights"] + parts["optimizer"] + parts["adapters"]


def peak(work: Work, gpus: int = 1) -> Peak:
    """Compute every moment of a training step on one of so many GPUs."""
    fixed = _resident(work, gpus)
    gradients = _gradients(work, gpus)
    held = gradients if work.accumulation > 1 or work.sharding == "ddp" else 0.0
    kept, layer = activations(work), taken_apart(work)
    gathered = _gathered(work, gpus)
    casts = _cast_weights(work, gpus)
    first = kept + _head_gradient(work, gpus) + _held_twice(work)
    moments = [
        _moment("loss", fixed, gradients=held, activations=kept, logits=_logits(work), working=gathered + casts),
        _moment("backward", fixed, gradients=max(held, 0.0), activations=first, layer=layer, working=gathered),
        _moment("backward end", fixed, gradients=max(held, gradients), layer=layer, working=gathered),
        _moment("step", fixed, gradients=gradients, working=_step_temporary(work, gpus)),
    ]
    if work.loads_whole and gpus > 1:
        moments.append(_loading(work, gpus))
    return Peak(tuple(moments))


def _moment(name: str, fixed: dict[str, float], **parts: float) -> Moment:
    return Moment(name, {**fixed, **{key: value for key, value in parts.items() if value}})


# --- what stays


def base_bytes(work: Work) -> float:
    """Bytes of the model's weights on one GPU, before they are shared out."""
    model = work.model
    if work.trains_all:
        return model.parameters * (4 if work.master or work.compute_bytes == 4 else 2)
    rest = model.parameters - model.linear
    if work.bits >= 16:
        return model.parameters * work.bits / 8
    each = {4: NF4_DOUBLE_BYTES if work.double_quantised else NF4_BYTES, 8: 1.0}[work.bits]
    scales = 4.0 * model.layers * sum(one.outputs * one.copies for one in maps(model)) if work.bits == 8 else 0.0
    return model.linear * each + scales + rest * (4 if work.upcast_here else 2)


def trained(work: Work) -> int:
    """Count the weights that are trained."""
    return work.model.parameters if work.trains_all else adapter_parameters(work)


def _trained_bytes(work: Work) -> int:
    if work.trains_all:
        return 4 if work.master or work.compute_bytes == 4 else 2
    return work.adapter_bytes


def _resident(work: Work, gpus: int) -> dict[str, float]:
    weights = base_bytes(work) * (2 if work.reference else 1) / _ways(work, gpus, "weights")
    adapters = 0.0 if work.trains_all else adapter_parameters(work) * work.adapter_bytes
    states = optimizer_bytes(work) / _ways(work, gpus, "optimizer")
    return {"weights": weights, "adapters": adapters / _ways(work, gpus, "weights"), "optimizer": states}


def optimizer_bytes(work: Work) -> float:
    """Bytes of the optimizer's states on the GPU for all that is trained.

    Paged states lie in memory that CUDA moves to the host when it must: torch never counts them.
    """
    count, each = trained(work), _trained_bytes(work)
    kind = work.optimizer
    if kind in {Optimizer.PAGED_ADAMW, Optimizer.PAGED_ADAMW_8BIT, Optimizer.SGD}:
        return 0.0
    if kind is Optimizer.ADAFACTOR:  # a row and a column of each matrix
        return 4.0 * count / max(work.model.hidden, 1) * 2
    if kind is Optimizer.ADAMW_8BIT:
        whole = work.model.embedding if work.trains_all else 0  # transformers keeps embeddings' states in 32 bits
        return 2 * EIGHT_BIT_STATE_BYTES * (count - whole) + 8.0 * whole
    return 2.0 * each * count


def _gradients(work: Work, gpus: int) -> float:
    whole = float(trained(work) * _trained_bytes(work))
    if work.step_in_backward:
        return _largest(work) * _trained_bytes(work)
    return whole / _ways(work, gpus, "gradients")


def _largest(work: Work) -> float:
    """Weights of the largest single tensor that is trained."""
    matrix = max(one.inputs * one.outputs for one in maps(work.model))
    if work.trains_all:
        return float(max(matrix, work.model.inputs))
    return float(work.rank * max(one.outputs + one.inputs for one in maps(work.model)))


def _ways(work: Work, gpus: int, what: str) -> int:
    """Into how many parts something is shared out."""
    shared = {
        "fsdp": {"weights", "optimizer", "gradients"},
        "zero3": {"weights", "optimizer", "gradients"},
        "zero2": {"optimizer", "gradients"},
    }.get(work.sharding, set())
    return gpus if what in shared else 1


def _step_temporary(work: Work, gpus: int) -> float:
    """What the optimizer's step needs beside its states.

    torch.optim's foreach AdamW takes the root of all second moments at once (adam.py, _multi_tensor_adam): one more
    number for each weight. The fused kernel needs nothing; a loop needs one tensor's worth.
    """
    if work.step_in_backward:
        return _largest(work) * _trained_bytes(work)
    if work.optimizer is Optimizer.ADAMW:
        return trained(work) * _trained_bytes(work) / _ways(work, gpus, "optimizer")
    if work.optimizer in {Optimizer.ADAMW_LOOP, Optimizer.ADAFACTOR}:
        return 2.0 * _largest(work) * 4
    return 0.0


def _cast_weights(work: Work, gpus: int) -> float:
    """Autocast keeps the short copies of float32 weights until the forward pass is over."""
    doubled = work.trains_all and work.master and work.autocast and work.compute_bytes == 2
    return 2.0 * work.model.linear if doubled and _ways(work, gpus, "weights") == 1 else 0.0


def _head_gradient(work: Work, gpus: int) -> float:
    return work.model.head * _trained_bytes(work) / _ways(work, gpus, "gradients") if work.trains_all else 0.0


def _gathered(work: Work, gpus: int) -> float:
    """FSDP and ZeRO-3 gather two layers at a time; the root, embedding and head, stays gathered through the step."""
    if _ways(work, gpus, "weights") == 1:
        return 0.0
    model = work.model
    each = base_bytes(work) / model.parameters if work.bits < 16 and not work.trains_all else work.compute_bytes
    return 2 * each * (model.parameters - model.embedding) / model.layers + work.compute_bytes * model.embedding


def _loading(work: Work, gpus: int) -> Moment:
    """The whole model, the shards made of it so far, and the unit at hand."""
    whole = base_bytes(work)
    return Moment("load", {"weights": whole + whole / gpus, "adapters": 0.0, "optimizer": 0.0, "working": whole / 8})


# --- what the forward pass keeps


def stream_bytes(work: Work) -> int:
    """Bytes of a number between the layers: float32 where the embeddings are, since sums take the wider type."""
    if work.trains_all:
        return 4 if work.compute_bytes == 4 or (work.master and work.autocast and work.sharding == "none") else 2
    return 4 if work.upcast_here or work.bits == 32 else 2


def activations(work: Work) -> float:
    """Bytes that the forward pass keeps for the backward, all layers."""
    model, tokens = work.model, work.micro_tokens
    if not work.checkpointing:
        return tokens * model.layers * kept_a_token(work) + _ends(work)
    boundary = float(tokens * model.hidden * stream_bytes(work))
    layers = float(model.layers)
    if work.offload:
        layers = 2.0
    return boundary * layers + _ends(work)


def _held_twice(work: Work) -> float:
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
    return own.norms / 2 * each * width + dropped + (heads if own.head_norms and where == "attention" else 0.0)


def _attention(work: Work) -> float:
    model, short = work.model, work.state_bytes
    kept = float(short * (2 * model.query + 2 * model.key_value) + 4 * model.heads)
    if traits(model).joined_query or work.kernels is Kernels.NATIVE:
        kept += short * (model.query + model.key_value)  # the values are a view: they hold what was made with them
    if work.attention is Attention.EAGER:
        # Keys and values are repeated for each head. Of the scores softmax keeps its float32 result, the product its
        # short copy; an encoder's dropout a mask.
        each = (4 if short == 4 else 4 + short) + ((5 if short == 4 else 1) if traits(model).encoder else 0)
        kept = float(short * 4 * model.query + model.heads * work.sequence * each)
    return kept


def _mlp(work: Work) -> float:
    """What the activation and the product keep: gate, act(gate) and up; without a gate the activation's input."""
    model, short = work.model, work.state_bytes
    inner = (model.expert_intermediate or model.intermediate) * max(model.experts_per_token, 1)
    if not traits(model).gated:
        return float(short * inner)
    return float(short * inner * (2 if work.kernels is Kernels.COMPILED else 3))


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
    return work.micro_tokens * max(largest, 0.0) + dequantised


def _mlp_gradients(work: Work) -> float:
    """Gradients of the product, of gate and of up at once, while what the product read is let go."""
    model, short = work.model, work.state_bytes
    own = traits(model)
    inner = model.expert_intermediate or model.intermediate
    width = inner * max(model.experts_per_token, 1) / max(model.experts, 1)
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


# --- the loss


def _logits(work: Work) -> float:
    """Bytes of tokens x vocabulary at the loss's peak.

    Plain: the short logits are still handed out while log-softmax's result, its gradient and the gradient of the
    shifted copy are alive, 12 bytes beside them.
    """
    model, tokens = work.model, work.micro_tokens
    if work.loss is Loss.LABELS:
        return 0.0
    whole = float(tokens * model.vocabulary)
    short = 4 if work.compute_bytes == 4 or (work.upcast_here and not work.autocast) else 2
    if work.loss is Loss.LINEAR:
        return min(tokens, CHUNK_TOKENS) * model.vocabulary * (4 + 4 + 4) + tokens * model.hidden * 4.0
    states = tokens * model.hidden * 2.0 * 2
    if work.loss is Loss.CHUNKED:
        return whole * short + whole / TORCHTUNE_CHUNKS * 12 + states
    wide = 12 if work.loss is Loss.PLAIN else 8
    if not work.wide_loss:  # everything as short as the logits, or cast by autocast from a shifted copy
        wide = wide + 4 if work.autocast else wide // 2
        return whole * (wide + short) + states if work.autocast else whole * (wide // 1 + short) + states
    return whole * (wide + (short if work.keeps_logits or short == 4 else 0)) + states


def halved(work: Work) -> Work:
    """The same step with half the rows at a time."""
    return replace(work, micro_batch=max(1, work.micro_batch // 2), accumulation=work.accumulation * 2)
