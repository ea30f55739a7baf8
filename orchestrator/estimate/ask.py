"""From a template's settings, or from flags, to the work that is estimated. Says what the payload will really do.

settings.training -> Work      as payload/train_*.py load it: dtype, optimizer, loss, attention
flags             -> the same settings, made here
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from orchestrator.estimate import fix, models
from orchestrator.estimate.layers import traits
from orchestrator.estimate.work import Amount, Attention, Kernels, Loss, Optimizer, Shape, Work

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator.config import Classify, Lora, Pretrain, Sft, Training
    from orchestrator.estimate.gpus import Card
    from orchestrator.estimate.lengths import Lengths

METHODS = ("full", "lora", "lora8", "qlora", "classify", "dpo")
_MOST_TOKENS = 2**40
_OPTIMIZERS = {
    "adamw": Optimizer.FUSED_ADAMW,
    "adamw_8bit": Optimizer.ADAMW_8BIT,
    "paged_adamw_8bit": Optimizer.PAGED_ADAMW_8BIT,
}
_ATTENTION = {
    "auto": Attention.SDPA,
    "sdpa": Attention.SDPA,
    "eager": Attention.EAGER,
    "flash_attention_2": Attention.FLASH,
    "flash_attention_3": Attention.FLASH,
}


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked: the work, how much of it, and how its rows are batched."""

    work: Work
    amount: Amount | None
    packed: bool
    merge: bool
    spreads: bool = True  # over all GPUs of a machine; gpurun's own recipes (payload/) train on one


def of_training(training: Training, find: Callable[[str, str | None], Shape], found: Lengths | None) -> Question:
    """Read a template's training as the payload will run it. `found` are the data's lengths, None where unknown.

    Raises:
        NotModelledError: nothing can be estimated of this method.
    """
    return replace(_of_training(training, find, found), spreads=False)


def _of_training(training: Training, find: Callable[[str, str | None], Shape], found: Lengths | None) -> Question:
    from orchestrator.config import Chain, Classify, Pretrain, Sft  # pydantic: flags alone do without it

    if isinstance(training, Chain):
        steps = [step for step in training.steps.values() if isinstance(step, Pretrain | Classify | Sft)]
        named = [step for step in steps if not isinstance(step, Pretrain) and step.model.startswith("step:")]
        made = next((step for step in steps if isinstance(step, Pretrain)), None)
        if made is None or len(named) + 1 < len(steps):
            steps = [step for step in steps if step not in named]
        if not steps:
            raise models.NotModelledError("no step of this chain trains a model that is known beforehand")
        return _of_training(steps[0], find, found)
    if isinstance(training, Sft):
        return _sft(training, find(training.model, training.revision), found)
    if isinstance(training, Classify):
        return _classify(training, find(training.model, training.revision), found)
    if isinstance(training, Pretrain):
        return _pretrain(training, found)
    raise models.NotModelledError(
        f"what a {training.method} takes is not known beforehand",
        hint="gpurun estimate --model NAME --method full|lora|lora8|qlora --gpu NAME",
    )


def _sft(training: Sft, model: Shape, found: Lengths | None) -> Question:
    lora: Lora | None = training.lora
    bits = {"none": 16, "8bit": 8, "4bit": 4}[training.quantization]
    usual = Optimizer.PAGED_ADAMW_8BIT if bits == 4 else Optimizer.FUSED_ADAMW
    work = Work(
        model=model,
        method="lora" if lora else "full",
        bits=bits,  # type: ignore[arg-type]
        optimizer=_OPTIMIZERS.get(training.optimizer, usual),
        rank=lora.r if lora else 16,
        targets=tuple(lora.targets) if lora and isinstance(lora.targets, list) else "all-linear",
        dropout=bool(lora and lora.dropout),
        sequence=_longest(training.max_length, found, packed=training.packing),
        micro_batch=training.batch_size,
        accumulation=training.gradient_accumulation,
        checkpointing=training.activation_checkpointing,
        attention=attention(model, training.attention),
        loss=Loss.LINEAR,  # TRL from 1.13 on never makes the logits whole
        lengths_vary=not training.packing,
        short=_short(training.dtype),
        autocast=training.dtype != "float32",
    )
    packed = training.packing
    amount = _amount(found, training.max_length, training, packed=packed, evaluated=_evaluated(training))
    return Question(work, amount, packed, training.merge)


def _classify(training: Classify, model: Shape, found: Lengths | None) -> Question:
    limit = min(training.max_length, model.max_positions or training.max_length)
    work = Work(
        model=model,
        task="classify",
        optimizer=_OPTIMIZERS.get(training.optimizer, Optimizer.FUSED_ADAMW),
        sequence=_longest(limit, found, packed=False),
        micro_batch=training.batch_size,
        accumulation=training.gradient_accumulation,
        attention=attention(model),
        loss=Loss.LABELS,
        lengths_vary=True,
        short=_short(training.dtype),
        autocast=training.dtype != "float32",
    )
    amount = _amount(found, limit, training, packed=False, evaluated=_evaluated(training))
    if amount:  # rows of one step are of similar length (payload/trainer.py): nearly nothing is padded
        amount = replace(amount, padding=1 + (amount.padding - 1) / 5)
    return Question(work, amount, packed=False, merge=False)


def _pretrain(training: Pretrain, found: Lengths | None) -> Question:
    wide = -(-8 * training.hidden // 3 // 64) * 64
    bare = Shape(
        "a GPT of its own", "llama", training.layers, training.hidden, training.heads, training.heads,
        training.hidden // training.heads, wide, training.vocabulary, tied=True,
        parameters=0, active=0, embedding=0, linear=0, checkpoint=0, source="the template",
    )  # fmt: skip
    work = Work(
        model=models.counted(bare, {}),
        task="pretrain",
        optimizer=_OPTIMIZERS.get(training.optimizer, Optimizer.FUSED_ADAMW),
        sequence=training.max_length,
        micro_batch=training.batch_size,
        accumulation=training.gradient_accumulation,
        kernels=Kernels.HF if training.compile == "off" else Kernels.COMPILED,
        short=_short(training.dtype),
        autocast=training.dtype != "float32",
    )
    amount = _amount(found, _MOST_TOKENS, training, packed=True, evaluated=_evaluated(training))
    return Question(work, amount, packed=True, merge=False)


def attention(model: Shape, wish: str = "auto") -> Attention:
    """Choose the attention as payload/device.py does: eager where the class of transformers has no fused one."""
    found = _ATTENTION[wish]
    return Attention.EAGER if found is Attention.SDPA and not traits(model).sdpa else found


def _short(dtype: str) -> Any:
    return "bfloat16" if dtype == "auto" else dtype


def _evaluated(training: Any) -> float:
    return float(training.data.eval_fraction)


def _longest(limit: int, found: Lengths | None, *, packed: bool) -> int:
    return limit if packed or found is None else found.longest(limit)


def _amount(found: Lengths | None, limit: int, training: Any, *, packed: bool, evaluated: float) -> Amount | None:
    if found is None:
        return None
    mean = found.mean(limit)
    trained = max(1, round(found.rows * (1 - evaluated)))
    return Amount(
        rows=trained,
        tokens=round(mean * trained),
        epochs=training.epochs,
        max_steps=training.max_steps,
        padding=found.padding(limit, training.batch_size, packed=packed),
        evaluated_tokens=round(mean * found.rows * evaluated),
        data_bytes=round(mean * found.rows * 4),
        basis=found.basis,
    )


# --- for a card


def for_card(work: Work, card: Card, count: int) -> Work:
    """Fit the work to a card as the payload does: float16 without bfloat16; several GPUs share if they must."""
    if work.short == "bfloat16" and not card.bf16:
        work = replace(work, short="float16")
    if count > 1 and work.sharding == "none":
        alike = replace(work, sharding="ddp")
        return alike if fix.judged(alike, card, count) == fix.FITS else replace(work, sharding="fsdp")
    return work
