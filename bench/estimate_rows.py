"""Published measurements in the estimator's own words: one row of a table -> Work.

What a row leaves out is assumed here, once.
"""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.estimate import gpus, models
from orchestrator.estimate.footprint import CONTEXT_GIB
from orchestrator.estimate.work import Attention, Kernels, Loss, Optimizer, Shape, Work
from providers.errors import UsageError

if TYPE_CHECKING:
    from orchestrator.estimate.gpus import Card

# What the CUDA context took: before CUDA 11.7 every kernel was loaded at once (transformers' "model memory anatomy",
# 2022: 1.3 GiB on a V100); a T4's modules are few (fitcheck-llm, 2026: 0.14).
OLD_CONTEXT_GIB, T4_CONTEXT_GIB = 1.3, 0.14
HERE = Path(__file__).parent
SHAPES = HERE / "data" / "shapes.csv"


@dataclass(frozen=True, slots=True)
class Row:
    """One measurement: the work, where it ran, what was read. GiB a GPU, tokens a second a GPU."""

    id: str
    source: str
    model: str
    method: str
    card: str
    gpus: int
    work: Work
    quality: str
    memory: float | None
    kind: str
    second: float | None
    second_kind: str
    speed: float | None
    note: str
    framework: str


def read(path: Path) -> list[Row]:
    """Read a table of measurements in the columns of bench/data/measured.csv."""
    extra = {}
    with SHAPES.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            shape = models.counted(models.from_row({**row}), {})
            extra[row["hub_id"].lower()] = shape
    with path.open(encoding="utf-8", newline="") as file:
        return [made for number, row in enumerate(csv.DictReader(file)) if (made := _row(row, extra, number))]


def card(name: str) -> Card | None:
    """Find the card of a row: of a family the one whose memory is nearest to what is stated, then the fastest."""
    found = gpus.family(name) or gpus.family(re.sub(r"-\d+GB$", "", name)) if name else ()
    size = re.search(r"(\d+)GB$", name)
    stated = float(size[1]) if size else 80.0
    return min(found, key=lambda one: (round(abs(one.memory_gib - stated) / 8), -one.bandwidth_gbps)) if found else None


def context_gib(row: Row) -> float:
    """Give what CUDA itself took in this row."""
    if "transformers 4.1" in row.framework or "transformers 4.2" in row.framework:
        return OLD_CONTEXT_GIB
    return T4_CONTEXT_GIB if row.card.startswith("T4") else CONTEXT_GIB


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None


def _row(row: dict[str, str], extra: dict[str, Shape], number: int) -> Row | None:
    # A limit is the longest batch's length where the corpus has rows beyond it; Alpaca's are far shorter than any.
    limit = re.search(r"max_seq_length (\d+)", row.get("note", "")) if "Alpaca" not in row.get("note", "") else None
    sequence = _number(row.get("seq_len")) or (float(limit[1]) if limit else None)
    micro = _number(row.get("micro_batch"))
    if not sequence or not micro:
        return None
    gpus = int(_number(row.get("n_gpus")) or 1)
    return Row(
        id=row.get("id") or str(number),
        source=row.get("source_key") or row.get("source") or "?",
        model=row["model"],
        method=row["method"],
        card=row.get("gpu") or "",
        gpus=gpus,
        work=work(row, shape(row, extra), int(sequence), int(micro), gpus),
        quality=row.get("quality") or "B",
        memory=_number(row.get("peak_mem_gb")),
        kind=row.get("mem_kind") or "unknown",
        second=_number(row.get("peak_mem_gb_2")),
        second_kind=row.get("mem_kind_2") or "",
        speed=_number(row.get("tokens_per_s_per_gpu")),
        note=row.get("note") or "",
        framework=row.get("framework") or "",
    )


def shape(row: dict[str, str], extra: dict[str, Shape]) -> Shape:
    """Find the model: bundled, in shapes.csv, an MPT by its size, else guessed from its size."""
    name, size = row["model"], (_number(row.get("params_b")) or 1.0) * 1e9
    key = name.lower()
    if key in extra:
        return extra[key]
    if name.startswith("mosaicml MPT"):
        return next(s for k, s in extra.items() if k.startswith(name.lower().split(" (")[0]))
    try:
        return models.find(name)
    except UsageError:
        return models.guessed(size, name)


TARGETS = {
    "": "all-linear",
    "all-linear": "all-linear",
    "all+head": "all-linear",
    "default (qkv)": ("qkv", "q", "k", "v"),
    "mlp": ("gate", "up", "down", "gate_up"),
}


def targets(text: str) -> tuple[str, ...] | str:
    """Read `q,k,v,o`, `all-linear` and the like."""
    if text in TARGETS:
        return TARGETS[text]
    found: list[str] = []
    for part in re.split(r"[,;/ ]+", text):
        found += TARGETS.get(part, (part.removesuffix("_proj"),)) if part == "mlp" else [part]
    return tuple(found)


LOSSES = {"liger": Loss.LINEAR, "unsloth": Loss.FUSED, "chunked": Loss.CHUNKED, "plain": Loss.PLAIN, "": Loss.PLAIN}


def loss(row: dict[str, str]) -> Loss:
    """Read the loss's kernel. transformers' short name for it differs by source."""
    text = row.get("loss_kernel", "")
    if not text and "llm-foundry" in row.get("framework", ""):
        return Loss.CHUNKED  # flash-attn's cross-entropy, its default: the gradient overwrites the short logits
    if row["method"] == "classify":
        return Loss.LABELS
    if "fused" in text:
        return Loss.FUSED
    return LOSSES.get(text, Loss.PLAIN)


def keeps_logits(framework: str) -> bool:
    """Before 4.46 transformers replaced the logits by their float32 copy; later ones hand out both."""
    found = re.search(r"transformers (\d+)\.(\d+)", framework)
    if found:
        return (int(found[1]), int(found[2])) >= (4, 46)
    return ("torchtune" not in framework and "202" not in framework) or "2025" in framework or "2026" in framework


def optimizer(row: dict[str, str]) -> Optimizer:
    """Read the optimizer. Where only "adamw" is said, the framework tells which of them."""
    text, framework = row.get("optimizer", ""), row.get("framework", "").lower()
    if "paged_adamw_8bit" in text:
        return Optimizer.PAGED_ADAMW_8BIT
    if "paged" in text:
        return Optimizer.PAGED_ADAMW
    if "8bit" in text:
        return Optimizer.ADAMW_8BIT
    if "adafactor" in text:
        return Optimizer.ADAFACTOR
    if "fused" in text:
        return Optimizer.FUSED_ADAMW
    if "torchtune" in framework:
        return Optimizer.FUSED_ADAMW
    found = re.search(r"transformers 4\.(\d+)", framework)
    if text == "adamw" and ("lit-gpt" in framework or (found and int(found[1]) < 46)):
        return Optimizer.ADAMW_LOOP  # transformers' own AdamW was its Trainer's default until 4.46
    return Optimizer.ADAMW


def kernels(row: dict[str, str]) -> Kernels:
    """Read whose kernels compute the layers."""
    text, framework = row.get("loss_kernel", ""), row.get("framework", "").lower()
    if "compile" in framework:
        return Kernels.COMPILED if "baseline" not in row.get("note", "") else Kernels.HF
    if text in {"liger", "unsloth"} or "foak" in text:
        return Kernels.FUSED
    if any(name in framework for name in ("lit-gpt", "litgpt", "llm-foundry", "torchtune")):
        return Kernels.NATIVE
    return Kernels.HF


def sharding(parallel: str) -> Any:
    """Read how several GPUs share the model: FSDP2 and HSDP share as FSDP does, ZeRO-1 nearly as ZeRO-2."""
    text = parallel.lower().replace("-", "").replace(" ", "")
    kinds = {"fsdp": "fsdp", "hsdp": "fsdp", "zero3": "zero3", "zero2": "zero2", "zero1": "zero2", "ddp": "ddp"}
    return next((kind for name, kind in kinds.items() if name in text), "none")


def work(row: dict[str, str], model: Shape, sequence: int, micro: int, gpus: int) -> Work:
    """Say a row in the estimator's words."""
    precision, framework = row.get("precision", ""), row.get("framework", "")
    method, note = row["method"], row.get("note", "")
    full = method in {"full", "pretrain", "classify"}
    short = "float32" if precision == "fp32" else "float16" if "fp16" in precision else "bfloat16"
    lean = any(name in framework.lower() for name in ("lit-gpt", "litgpt", "torchtune"))
    varying = row.get("packing") == "n" and ("truncated at seq_len" in note or "dynamic padding" in note)
    parallel = row.get("parallelism", "none") or "none"
    attention = row.get("attention", "")
    return Work(
        model=model,
        method="full" if full else "lora",
        task="classify" if method == "classify" else "dpo" if "dpo" in method else "causal",
        bits=4 if "nf4" in precision or method == "qlora" else 8 if "int8" in precision or method == "lora8" else 16,
        double_quantised="dq" in precision or "double quant" in note,
        master="mixed" in precision or precision == "fp32",
        autocast="plain PyTorch" not in framework and not lean and "weights bf16;" not in note.split(";", 1)[-1] + ";"
        if not full
        else "mixed" in precision,
        short=short,
        upcast="upcast to fp32" in note
        or "baseline-peft-bnb" in note
        or (
            method == "qlora"
            and any(name in framework for name in ("LLaMA-Factory", "ms-swift", "PEFT ex", "HF TRL"))
            and "Unsloth" not in framework
        ),
        optimizer=optimizer(row),
        step_in_backward="optimizer_in_bwd" in row.get("optimizer", ""),
        rank=int(_number(row.get("lora_rank")) or 16),
        targets=targets(row.get("lora_targets", "")),
        adapter_bytes=2 if lean else 4,
        sequence=sequence,
        micro_batch=micro,
        accumulation=int(_number(row.get("grad_accum")) or 1),
        checkpointing=row.get("checkpointing", "y").startswith(("y", "s")),
        # Unsloth moves what checkpointing keeps to host memory (April 2024: "100K context on 40 GB").
        host_weights="offload" in parallel or "WITH CPU offload" in note,
        offload="offload" in row.get("checkpointing", "") or row.get("loss_kernel") == "unsloth",
        attention=Attention.EAGER if attention == "eager" else Attention.FLASH if "fa" in attention else Attention.SDPA,
        loss=loss(row),
        keeps_logits=keeps_logits(framework),
        wide_loss=model.kind not in {"gpt2", "gpt_bigcode", "qwen"},
        experts_apart="transformers 4." in framework,
        keeps_inputs="bitsandbytes 0.41" in framework or "bnb 0.41" in framework,
        dropout="lit-gpt" in framework,
        kernels=kernels(row),
        sharding=sharding(parallel) if gpus > 1 else "none",
        loads_whole="lit-gpt" in framework,
        lengths_vary=varying,
    )
