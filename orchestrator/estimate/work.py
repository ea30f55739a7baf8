"""What is estimated: a model's shape, and the work of training it. Facts only; nothing here computes memory or time."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

GIB = 2**30


class Attention(StrEnum):
    """How scores are computed. `EAGER` keeps the whole square of them; the others never do."""

    EAGER = "eager"
    SDPA = "sdpa"
    FLASH = "flash"


class Loss(StrEnum):
    """How the loss meets the vocabulary: what of tokens x vocabulary is ever alive."""

    PLAIN = "plain"  # logits, their float32 copy, log-softmax and its gradient
    FUSED = "fused"  # logits and one float32 copy; the gradient overwrites it
    CHUNKED = "chunked"  # the logits in short, float32 only for a chunk of tokens
    LINEAR = "linear"  # Liger, cut cross-entropy, TRL >= 1.13: the logits are never whole
    LABELS = "labels"  # a head with a few labels: nothing to speak of


class Kernels(StrEnum):
    """What computes the layers: it decides what is kept for the backward pass, and the pace."""

    HF = "hf"  # transformers as it comes
    FUSED = "fused"  # Triton kernels for norm, rotary and activation: Liger, fms-acceleration, Unsloth
    COMPILED = "compiled"  # torch.compile
    NATIVE = "native"  # a lean loop on plain modules: lit-gpt, llm-foundry, a loop of one's own


class Optimizer(StrEnum):
    """Which states there are, and what a step needs beside them."""

    ADAMW = "adamw"  # torch's default on CUDA: foreach, one temporary of the weights' size
    FUSED_ADAMW = "adamw_fused"
    ADAMW_8BIT = "adamw_8bit"
    PAGED_ADAMW_8BIT = "paged_adamw_8bit"
    PAGED_ADAMW = "paged_adamw"
    ADAMW_LOOP = "adamw_loop"  # one weight after another: transformers' own of old, lit-gpt's
    ADAFACTOR = "adafactor"
    SGD = "sgd"


WITHOUT_SDPA = frozenset({"gemma2", "gpt_oss", "deberta-v2"})  # `_supports_sdpa` is false in transformers 5.23


@dataclass(frozen=True, slots=True)
class Shape:
    """A transformer's dimensions and counts. Counts are of the class that is trained, not of the file."""

    name: str
    kind: str  # transformers' model_type
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int
    tied: bool
    parameters: int
    active: int  # without the experts that a token does not meet
    embedding: int  # the table that is looked up, and an untied head
    linear: int  # weights of all linear layers, experts too, without the head
    checkpoint: int  # elements stored in the file: what is downloaded
    experts: int = 0
    experts_per_token: int = 0
    expert_intermediate: int = 0
    max_positions: int = 0
    gated: bool = False  # the Hub asks for a licence to be accepted
    exact: bool = True  # counted, not guessed from an unknown class
    source: str = ""

    @property
    def query(self) -> int:
        """Width of all query heads together."""
        return self.heads * self.head_dim

    @property
    def key_value(self) -> int:
        """Width of the keys, and of the values."""
        return self.kv_heads * self.head_dim

    @property
    def inputs(self) -> int:
        """Parameters of the table that is looked up."""
        return self.vocabulary * self.hidden

    @property
    def head(self) -> int:
        """Weights that make logits of hidden states, tied or not; encoders keep theirs small."""
        return self.vocabulary * self.hidden


@dataclass(frozen=True, slots=True)
class Work:
    """One way of training one model. Sizes are per GPU and micro-step unless they say otherwise."""

    model: Shape
    method: Literal["full", "lora"] = "full"
    task: Literal["causal", "classify", "dpo", "pretrain"] = "causal"
    bits: Literal[4, 8, 16, 32] = 16  # of the frozen weights; 32 = float32
    double_quantised: bool = True
    master: bool = True  # trained weights are float32 (16 bytes a parameter in all), else as short as the rest
    autocast: bool = True
    short: Literal["bfloat16", "float16", "float32"] = "bfloat16"  # what matrices are multiplied in
    upcast: bool = False  # PEFT's prepare_model_for_kbit_training: embeddings, head and norms in float32
    optimizer: Optimizer = Optimizer.FUSED_ADAMW
    step_in_backward: bool = False
    rank: int = 16
    targets: tuple[str, ...] | Literal["all-linear"] = "all-linear"
    dropout: bool = False  # of the adapters
    adapter_bytes: Literal[2, 4] = 4
    sequence: int = 1024  # tokens of the longest row of a micro-batch, padded or packed
    micro_batch: int = 1
    accumulation: int = 1
    checkpointing: bool = False
    offload: bool = False  # what checkpointing keeps lies in host memory
    host_weights: bool = False  # FSDP's CPU offload: weights, gradients and states wait in host memory
    attention: Attention = Attention.SDPA
    loss: Loss = Loss.PLAIN
    keeps_logits: bool = True  # transformers >= 4.46 hands the short logits out beside their float32 copy
    wide_loss: bool = True  # the model's code casts logits to float32; GPT-2-like classes of old left it to autocast
    experts_apart: bool = False  # each expert a module of its own, as in transformers 4; since 5 all are one tensor
    keeps_inputs: bool = False  # bitsandbytes < 0.42 kept what each 4-bit map reads
    kernels: Kernels = Kernels.HF
    sharding: Literal["none", "ddp", "fsdp", "zero2", "zero3"] = "none"
    reference: bool = False  # DPO with a second copy of the model
    loads_whole: bool = False  # the whole model stands on the GPU before it is sharded
    lengths_vary: bool = False  # padded to the longest row of each batch, not packed

    def __post_init__(self) -> None:
        """Take the words themselves too: `attention="eager"`; classes without SDPA compute eagerly."""
        for name, kind in (("optimizer", Optimizer), ("attention", Attention), ("loss", Loss), ("kernels", Kernels)):
            object.__setattr__(self, name, kind(getattr(self, name)))
        if self.attention is Attention.SDPA and self.model.kind in WITHOUT_SDPA:
            object.__setattr__(self, "attention", Attention.EAGER)

    @property
    def trains_all(self) -> bool:
        """Every weight is trained."""
        return self.method == "full"

    @property
    def micro_tokens(self) -> int:
        """Tokens of one forward pass on one GPU; DPO's pairs count twice."""
        return self.sequence * self.micro_batch * (2 if self.task == "dpo" else 1)

    @property
    def compute_bytes(self) -> int:
        """Bytes of a number in the matrix products."""
        return 4 if self.short == "float32" else 2

    @property
    def state_bytes(self) -> int:
        """Bytes of a number between operations; quantised layers answer in the float32 that they were asked in."""
        return 4 if self.upcast_here and not self.autocast else self.compute_bytes

    @property
    def upcast_here(self) -> bool:
        """The upcast lasts: FSDP's mixed precision shortens everything again."""
        return self.upcast and self.sharding not in {"fsdp", "zero3"}


@dataclass(frozen=True, slots=True)
class Amount:
    """How much is trained: rows and tokens of one epoch as they are, how often, and what padding adds."""

    rows: int
    tokens: int  # real tokens of one epoch, cut at the limit
    epochs: float = 1.0
    max_steps: int | None = None
    padding: float = 1.0  # tokens computed for one that is real
    evaluated_tokens: int = 0  # real tokens of one evaluation, once an epoch
    data_bytes: int = 0
    basis: str = ""  # where the lengths come from, in words
