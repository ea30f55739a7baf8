"""Templates and run settings: what a person writes, checked before anything is rented.

    template.yaml + --set key=value  ->  Settings (pydantic, extra="forbid")  ->  config.json of the payload

Not here: the limits' arithmetic (plan.py) and where templates lie (templates.py).
"""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PositiveFloat, PositiveInt

MOST_HOURS = 24 * 30
MOST_IDLE_MINUTES = 60.0 * 24 * 31  # longer than any ceiling: where nothing can hang
MOST_DOLLARS = 100_000
MOST_ATTEMPTS = 9


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def _exact(value: object) -> object:
    """Read 3.5 as it was written; everything else in a template must have its very type."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return Decimal(str(value)) if number else value


Dollars = Annotated[Decimal, BeforeValidator(_exact)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]  # what NumPy takes


class Data(_Strict):
    """Where the rows are. A path is relative to the template or the working folder, and is shipped; else a hub name."""

    train: str
    eval: str | None = None
    eval_fraction: Fraction = 0.0  # held out of `train` when no `eval` is given
    split: str = "train"  # of a hub dataset
    eval_split: str = "test"
    text_field: str = "text"
    label_field: str = "label"
    format: Literal["auto", "text", "prompt_completion", "messages"] = "auto"
    max_rows: PositiveInt | None = None


class Limits(_Strict):
    """What stops a run whatever else happens; none is infinite."""

    max_hours: Annotated[float, Field(gt=0, le=MOST_HOURS)] = 4.0
    extendable_to_hours: Annotated[float, Field(gt=0, le=MOST_HOURS)] | None = None  # from the launch; None = max_hours
    max_cost: Annotated[Dollars, Field(gt=0, le=MOST_DOLLARS)] | None = None  # USD, the whole run; None = cost.FUSE
    max_idle_minutes: Annotated[float, Field(gt=0, le=MOST_IDLE_MINUTES)] = 30.0
    max_attempts: Annotated[int, Field(ge=1, le=MOST_ATTEMPTS)] = 3  # machines, one after another
    accept_risk: bool = False  # "this computer is the only holder" is fine with me


class _Training(_Strict):
    """What every method shares. One optimizer step sees batch_size * gradient_accumulation rows."""

    seed: Seed = 0
    epochs: PositiveFloat = 1.0
    max_steps: PositiveInt | None = None  # ends earlier than `epochs`
    batch_size: PositiveInt = 8
    gradient_accumulation: PositiveInt = 1
    learning_rate: PositiveFloat = 2e-5
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    warmup: Fraction = 0.0  # share of all steps
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    max_grad_norm: PositiveFloat = 1.0
    log_every_steps: PositiveInt = 10
    checkpoint_every_steps: PositiveInt = 200
    optimizer: Literal["auto", "adamw", "adamw_8bit", "paged_adamw_8bit"] = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    device: Literal["auto", "cpu"] = "auto"


class Lora(_Strict):
    """Low-rank adapters on the named projections, or on every linear layer."""

    r: PositiveInt = 16
    alpha: PositiveInt = 32
    dropout: Fraction = 0.05
    targets: list[str] | Literal["all-linear"] = "all-linear"


class Push(_Strict):
    """Where on the Hub the artifact goes; needs HF_TOKEN as a secret."""

    repo: str
    private: bool = True


class Loop(_Training):
    """`train_loop.py`: a small network on numeric rows, or on a made-up separable problem when `data` is absent."""

    method: Literal["loop"]
    data: Data | None = None
    layers: Annotated[list[PositiveInt], Field(min_length=2)] = [64, 128, 10]  # inputs, hidden…, classes
    rows: PositiveInt = 4096  # of the made-up problem
    batch_size: PositiveInt = 64
    learning_rate: PositiveFloat = 1e-3
    epochs: PositiveFloat = 10.0


class Pretrain(_Training):
    """`train_pretrain.py`: a small GPT from random weights on plain text, with a tokenizer trained on it."""

    method: Literal["pretrain"]
    data: Data
    layers: PositiveInt = 4
    hidden: PositiveInt = 256
    heads: PositiveInt = 4
    vocabulary: Annotated[int, Field(ge=300, le=200_000)] = 4096
    max_length: PositiveInt = 256
    compile: Literal["auto", "on", "off"] = "auto"
    batch_size: PositiveInt = 16
    learning_rate: PositiveFloat = 6e-4
    schedule: Literal["linear", "cosine", "constant"] = "cosine"
    weight_decay: Annotated[float, Field(ge=0)] = 0.1


class Classify(_Training):
    """`train_classify.py`: a pretrained encoder with a fresh head, best checkpoint kept."""

    method: Literal["classify"]
    model: str
    revision: str | None = None
    data: Data
    max_length: PositiveInt = 256
    epochs: PositiveFloat = 3.0
    batch_size: PositiveInt = 16
    push: Push | None = None


class Sft(_Training):
    """`train_sft.py`: supervised fine-tuning of a causal model: full, LoRA, 8-bit LoRA, QLoRA."""

    method: Literal["sft"]
    model: str
    revision: str | None = None
    data: Data
    quantization: Literal["none", "8bit", "4bit"] = "none"
    lora: Lora | None = None  # None = every weight is trained
    max_length: PositiveInt = 1024
    packing: bool = False
    completion_only_loss: bool | None = None  # None = yes where rows have a prompt and a completion
    activation_checkpointing: bool = False
    attention: Literal["auto", "sdpa", "eager", "flash_attention_2", "flash_attention_3"] = "auto"
    merge: bool = False  # fold the adapters into the un-quantised base at the end
    batch_size: PositiveInt = 4
    push: Push | None = None


class Export(_Strict):
    """`export.py`: merge adapters, or quantise a trained model to 4 bits; save with tokenizer and model card."""

    method: Literal["export"]
    model: str
    revision: str | None = None
    adapter: str | None = None  # folder with adapters to merge first
    quantization: Literal["none", "4bit"] = "none"
    seed: Seed = 0
    device: Literal["auto", "cpu"] = "auto"
    push: Push | None = None


Step = Annotated[Pretrain | Classify | Sft | Export, Field(discriminator="method")]


class Chain(_Strict):
    """`train_chain.py`: steps one after another; a later one names an earlier one's artifacts as `step:<name>`."""

    method: Literal["chain"]
    steps: Annotated[dict[str, Step], Field(min_length=1)]


class Script(_Strict):
    """The user's own program, with our limits, log and artifacts round it."""

    method: Literal["script"]
    command: Annotated[list[str], Field(min_length=1)]  # argv; "{python}" is the payload's interpreter
    code: str | None = None  # folder or file that is shipped as code/
    data: Data | None = None


Training = Annotated[Loop | Pretrain | Classify | Sft | Export | Chain | Script, Field(discriminator="method")]


class Settings(_Strict):
    """A whole template: what to do, on which data, within which limits."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", max_length=24)]
    about: str = ""  # one line for `gpurun templates`
    training: Training
    limits: Limits = Limits()
    secrets: list[str] = []  # names of environment variables the payload needs: HF_TOKEN, WANDB_API_KEY
