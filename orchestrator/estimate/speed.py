"""Tokens a second of a training step on one GPU: arithmetic, memory traffic, launches and links, each from counts.

    time of a micro-step = max(arithmetic + traffic + dequantising + loss, launches) + gathering not hidden behind them
    time of a step       = accumulation x that + the optimizer's traffic

Arithmetic: 2 operations a weight and token forward, 2 backward for the activations, 2 for weights that are trained, 2
when a layer is computed again (Kaplan et al. 2020, https://arxiv.org/abs/2001.08361, section 2.1). A model moves its
activations through memory besides; that does not shrink with the matrix units' speed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.estimate.layers import adapter_parameters, is_target, maps, traits
from orchestrator.estimate.memory import NF4_BYTES, base_bytes, quantised, trained
from orchestrator.estimate.work import Attention, Kernels, Loss, Optimizer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator.estimate.gpus import Card
    from orchestrator.estimate.work import Work


# What measurements set: bench/estimate.py fits these to bench/data/measured.csv (295 speeds of 7 sources, 2022 to 2026)
# and scores them with each source left out in turn. None belongs to one source or row.
FITTED: dict[str, float] = {
    # share of the dense peak that large products reach within a training step, by architecture
    "ampere": 0.74,
    "hopper": 0.72,
    "turing": 0.28,
    "volta": 0.25,
    "ada": 0.86,
    # of that, what attention's kernels reach
    "ampere attention": 0.88,
    "hopper attention": 0.31,
    "turing attention": 0.2,
    # how often activations pass through memory, against transformers' own code
    "hf": 1.28,
    "fused": 0.74,
    "compiled": 0.44,
    "native": 0.88,
    "eager": 0.83,  # and eager attention's scores
    "adapters": 2.9,  # passes over inputs and outputs of what has an adapter
    "dequantise": 0.39,  # share of the bandwidth that kernels of quantised layers reach
    "launch": 10.0,  # microseconds from Python to a kernel
    "old launch": 23.0,  # on the slow hosts that T4 and V100 are rented with
    "gather": 0.57,  # milliseconds that a sharded layer waits for its weights, each time
    "link": 103.0,  # GB/s of a GPU's share in a gathering over NVLink
}
# Architectures that nobody published: the nearest measured relative's, a little lower.
RELATIVES = {"blackwell": ("hopper", 0.95), "cdna3": ("hopper", 0.7)}
# Watts a teraflop of the card that stands for its architecture: A100, H100, T4, V100 and RTX 4090.
WATTS_A_TERAFLOP = {"ampere": 400 / 312, "hopper": 700 / 989, "turing": 70 / 65, "volta": 300 / 125, "ada": 450 / 165.2}
STEP_SECONDS = 0.008  # of a micro-step beside its kernels: loader, bookkeeping, the loop itself
BANDWIDTH = 0.8  # of the memory's peak, for long streams
PCIE_GBPS = 12.0  # what NCCL moves between cards without NVLink
FP32_SHARE = 0.85  # of the peak that float32 products reach: they leave the memory time
EXPOSED = 0.3  # of the gathering that the arithmetic does not hide


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds of one micro-step on one GPU, by cause."""

    arithmetic: float
    traffic: float
    dequantising: float
    launches: float
    links: float
    optimizer: float  # its share of a micro-step

    @property
    def total(self) -> float:
        """Seconds in all."""
        busy = self.arithmetic + self.traffic + self.dequantising
        return max(busy, self.launches) + self.links + self.optimizer


def seconds(work: Work, card: Card, gpus: int = 1, constants: Mapping[str, float] = FITTED) -> Times:
    """Count what one micro-step takes."""
    peak, bandwidth = card.teraflops(work.short) * 1e12, card.bandwidth_gbps * 1e9 * BANDWIDTH
    share = matrix_share(card, work, constants)
    products = products_a_token(work) * work.micro_tokens / (peak * share)
    scores = _scores_a_token(work) * work.micro_tokens / (peak * share * _attention_share(work, card, constants))
    # However few tokens there are, the weights are read from memory in every pass.
    products = max(products, work.compute_bytes * work.model.linear * sum(_passes(work)) / bandwidth)
    old = card.family in {"turing", "volta", "pascal"}
    launch = constants["old launch" if old else "launch"] * 1e-6
    return Times(
        arithmetic=products + scores,
        traffic=_traffic_a_token(work, constants) * work.micro_tokens / bandwidth,
        dequantising=_dequantised(work) / (bandwidth * constants["dequantise"]),
        launches=_launches(work) * launch + STEP_SECONDS,
        links=_links(work, card, gpus, constants),
        optimizer=_stepped(work, gpus) / bandwidth / max(work.accumulation, 1),
    )


def matrix_share(card: Card, work: Work, constants: Mapping[str, float] = FITTED) -> float:
    """Share of the card's peak that large products reach."""
    if work.short == "float32":
        return FP32_SHARE
    family, less = (card.family, 1.0) if card.family in constants else RELATIVES.get(card.family, ("ampere", 0.9))
    return constants[family] * less * _power(card, family)


def _power(card: Card, family: str) -> float:
    """Cards that have less power for their peak than the one that was measured clock down under load.

    The square root is a guess between a card that holds its clock and one whose rate follows its power.
    """
    if not card.watts or not card.fp16_teraflops:
        return 1.0
    return float(min(1.0, (card.watts / card.fp16_teraflops / WATTS_A_TERAFLOP[family]) ** 0.5))


def _attention_share(work: Work, card: Card, constants: Mapping[str, float]) -> float:
    if work.attention is Attention.EAGER:
        return 0.7
    kind = {"turing": "turing", "volta": "turing", "hopper": "hopper", "blackwell": "hopper"}.get(card.family, "ampere")
    return constants[f"{kind} attention"]


def tokens_per_second(work: Work, card: Card, gpus: int = 1, constants: Mapping[str, float] = FITTED) -> float:
    """Tokens a second of one GPU, padding counted as tokens."""
    return work.micro_tokens / seconds(work, card, gpus, constants).total


def _passes(work: Work) -> tuple[int, int, int]:
    """Forward passes, backward passes for activations, and for weights."""
    return 2 if work.checkpointing else 1, 1, 1 if work.trains_all else 0


def _met(work: Work) -> float:
    """Weights of the layers that one token meets."""
    return float(work.model.layers * sum(one.inputs * one.outputs * one.used for one in maps(work.model)))


def products_a_token(work: Work) -> float:
    """Operations of all matrix products with weights, a token."""
    forward, back, weights = _passes(work)
    layers = 2.0 * _met(work) * (forward + back + weights)
    head = 0.0 if work.loss is Loss.LABELS else 2.0 * work.model.head * (1 + back + weights)
    adapters = 0 if work.trains_all else 2.0 * adapter_parameters(work) * (forward + 2)
    twice = 1.5 if work.task == "dpo" else 1.0  # the reference's forward pass
    return (layers + head + adapters) * twice


def _scores_a_token(work: Work) -> float:
    """Operations of attention itself: causal kernels skip half; backward is two and a half times forward."""
    forward, back, _ = _passes(work)
    whole = 4.0 * work.model.query * work.model.layers * work.sequence
    skipped = 1.0 if work.attention is Attention.EAGER or traits(work.model).encoder else 0.5
    return whole * skipped * (forward + 2.5 * back)


def _traffic_a_token(work: Work, constants: Mapping[str, float]) -> float:
    """Bytes that norms, rotations, activations, sums and casts read and write, a token.

    Counted on transformers' Llama: a norm goes six times over its row in mixed widths, 24 bytes a number; rotation 16;
    activation and product 10; sums 6. The backward pass moves twice the forward.
    """
    model, wide = work.model, stream_width(work)
    own = traits(model)
    inner = (model.expert_intermediate or model.intermediate) * max(model.experts_per_token, 1)
    rows: float = own.norms * 24 * model.hidden + 16 * (model.query + model.key_value) + 2 * 6 * model.hidden
    rows += (10 if own.gated else 6) * inner
    if own.encoder:
        rows += 2 * 8 * model.hidden
    if work.attention is Attention.EAGER:
        rows += 16 * model.heads * work.sequence * constants["eager"]
    if not work.trains_all:
        touched = [one for one in maps(model) if is_target(one, work.targets)]
        rows += constants["adapters"] * 2 * sum(one.inputs + one.outputs for one in touched)
    if model.experts:
        rows += 12 * model.hidden * model.experts_per_token  # sorted to the experts and back
    forward, back, _ = _passes(work)
    layers = rows * model.layers * wide * (forward + 2 * back) * constants[work.kernels]
    return layers + _loss_traffic(work)


def stream_width(work: Work) -> float:
    """How much wider than two bytes what flows between the operations is."""
    return 2.0 if work.compute_bytes == 4 or work.state_bytes == 4 else 1.3 if work.upcast_here else 1.0


def _loss_traffic(work: Work) -> float:
    each = {Loss.PLAIN: 44, Loss.FUSED: 24, Loss.CHUNKED: 24, Loss.LINEAR: 24, Loss.LABELS: 0}[work.loss]
    return float(each * work.model.vocabulary)


def _dequantised(work: Work) -> float:
    """Bytes moved to make short weights of quantised ones, each time a layer is used."""
    if work.bits >= 16 or work.trains_all:
        return 0.0
    forward, back, _ = _passes(work)
    read = NF4_BYTES if work.bits == 4 else 1.0
    return quantised(work) * (read + 2.0) * (forward + back)


def _launches(work: Work) -> float:
    """Kernels of a micro-step: about 45 a layer forward in transformers, twice that backward; adapters add theirs."""
    forward, back, _ = _passes(work)
    each = {Kernels.HF: 45.0, Kernels.FUSED: 30.0, Kernels.COMPILED: 15.0, Kernels.NATIVE: 30.0}[work.kernels]
    if not work.trains_all:
        each += 8 * sum(is_target(one, work.targets) for one in maps(work.model))
    if work.bits < 16 and not work.trains_all:
        each += (8 if work.upcast_here else 4) * len(maps(work.model))  # scales, short weights, casts there and back
    if work.model.experts:
        each += 10 * work.model.experts if work.experts_apart else 20
    return each * work.model.layers * (forward + 2 * back)


def _links(work: Work, card: Card, gpus: int, constants: Mapping[str, float]) -> float:
    """Seconds that a micro-step waits for other GPUs: what their gathering exposes, and each sharded unit's latency."""
    if gpus == 1:
        return 0.0
    rate = constants["link"] if card.nvlink else PCIE_GBPS
    moved = _linked(work, gpus) / (rate * 1e9)
    if work.sharding not in {"fsdp", "zero3"}:
        return moved * EXPOSED
    # Trained and frozen weights cannot lie in one flat tensor: each adapter is a unit of its own (PEFT's wrap policy).
    apart = 0 if work.trains_all else sum(is_target(one, work.targets) for one in maps(work.model))
    return moved * EXPOSED + constants["gather"] * 1e-3 * work.model.layers * (1 + apart) * (1 + _passes(work)[0])


def _linked(work: Work, gpus: int) -> float:
    """Bytes that a GPU gathers and scatters in a micro-step."""
    portion = (gpus - 1) / gpus
    if work.sharding in {"fsdp", "zero3"}:
        whole = base_bytes(work) if not work.trains_all else 2.0 * work.model.parameters
        return portion * (2 * whole + 2.0 * trained(work))
    return portion * 2 * 2.0 * trained(work) / max(work.accumulation, 1)


def _stepped(work: Work, gpus: int) -> float:
    """Bytes that the optimizer reads and writes."""
    each = {Optimizer.ADAMW_8BIT: 14, Optimizer.PAGED_ADAMW_8BIT: 14, Optimizer.SGD: 12}.get(work.optimizer, 28)
    ways = gpus if work.sharding in {"fsdp", "zero2", "zero3"} else 1
    short = 0.5 if work.trains_all and not work.master else 1.0
    return trained(work) * each * short / ways


# Chips and methods that stand in the measurements: there the band is narrower.
KNOWN = frozenset(
    (chip, method)
    for chip, methods in {
        "a100": ("full", "pretrain", "lora", "qlora"),
        "h100": ("pretrain",),
        "t4": ("lora", "qlora"),
        "v100": ("classify",),
        "rtx-4090": ("full", "lora", "qlora"),
    }.items()
    for method in methods
)


def chip(card: Card) -> str:
    """Name a card without its memory and form: `a100`, `rtx-4090`."""
    parts = card.name.split("-")
    return "-".join(parts[:2]) if parts[0] in {"rtx", "quadro"} else parts[0]


def band(*, known: bool) -> tuple[float, float]:
    """Give the low and high pace as shares of the likely one."""
    return (0.70, 1.30) if known else (0.55, 1.60)
