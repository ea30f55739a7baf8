"""GPU memory of one training step: what is alive at each moment, and the largest of them.

    loss        weights + optimizer + what the forward pass kept + logits
    backward    weights + optimizer + what is still kept or the gradients so far + one layer taken apart
    step        weights + optimizer + gradients + the optimizer's own temporaries
    load        only where the whole model stands on the GPU before it is sharded

Not a sum of everything: gradients do not exist when the logits peak, and the optimizer's temporaries come when all
activations are gone. What activations take is kept.py's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.estimate.kept import activations, held_twice, taken_apart
from orchestrator.estimate.layers import adapter_parameters, maps
from orchestrator.estimate.work import Kernels, Loss, Optimizer

if TYPE_CHECKING:
    from orchestrator.estimate.work import Work

# bitsandbytes, functional.py: one float32 scale for 64 weights of nf4; with double quantisation one byte for 64 and
# one float32 for 64 x 256. int8: a byte a weight and a float32 scale for each row.
NF4_BYTES = 0.5 + 4 / 64
NF4_DOUBLE_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)
EIGHT_BIT_STATE_BYTES = 1 + 4 / 256  # a state of AdamW in 8 bits: one float32 scale for a block of 256
# TRL 1.16 (kernels/chunked_logprob.py) multiplies tiles of 4096 tokens by a stretch of the vocabulary; Liger takes as
# many tokens at a time as make about tokens x hidden logits. Both keep a float32 gradient of the hidden states.
TILE = 4096 * 8192
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
    first = kept + _head_gradient(work, gpus) + held_twice(work)
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
    if work.bits >= 16:
        return model.parameters * work.bits / 8
    linear = quantised(work)
    rest = model.parameters - linear
    each = {4: NF4_DOUBLE_BYTES if work.double_quantised else NF4_BYTES, 8: 1.0}[work.bits]
    scales = 4.0 * model.layers * sum(one.outputs for one in maps(model) if one.copies == 1) if work.bits == 8 else 0.0
    return linear * each + scales + rest * (4 if work.upcast_here else 2)


def quantised(work: Work) -> int:
    """Count the weights that bitsandbytes makes short: those of nn.Linear. Experts in one tensor stay as they are.

    Seen on Mixtral and Qwen3-MoE in transformers 5.23 with bitsandbytes 0.50.
    """
    if work.experts_apart:
        return work.model.linear
    whole = sum(one.weights for one in maps(work.model) if one.copies > 1)
    return work.model.linear - work.model.layers * whole


def trained(work: Work) -> int:
    """Count the weights that are trained."""
    return work.model.parameters if work.trains_all else adapter_parameters(work)


def _trained_bytes(work: Work) -> int:
    if work.trains_all:
        return 4 if work.master or work.compute_bytes == 4 else 2
    return work.adapter_bytes


def _resident(work: Work, gpus: int) -> dict[str, float]:
    if work.host_weights:  # what is gathered of them counts as working
        return {"weights": 0.0, "adapters": 0.0, "optimizer": 0.0}
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
    if work.step_in_backward or work.host_weights:
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
    if work.host_weights:
        return 0.0
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
        head = 4.0 * model.head if work.trains_all and work.sharding not in {"fsdp", "zero3"} else 0.0
        return 6.0 * min(TILE, whole) + tokens * model.hidden * 10.0 + head
    states = tokens * model.hidden * 2.0 * 2
    if work.loss is Loss.CHUNKED:  # compiled, the float32 copy and its softmax are never written: the gradient alone is
        return whole * short + whole / TORCHTUNE_CHUNKS * (short if work.kernels is Kernels.COMPILED else 12) + states
    wide = 12 if work.loss is Loss.PLAIN else 8
    if not work.wide_loss:  # everything as short as the logits, or cast by autocast from a shifted copy
        wide = wide + 4 if work.autocast else wide // 2
        return whole * (wide + short) + states if work.autocast else whole * (wide // 1 + short) + states
    return whole * (wide + (short if work.keeps_logits or short == 4 else 0)) + states
