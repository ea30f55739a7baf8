"""How long a job takes from the order to the end of billing, stage by stage. Seconds; low, likely, high.

boot + setup + weights + data + first step + steps + evaluation + save + pull
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from orchestrator.estimate.disk import artifact_bytes, checkpoint_bytes, download_bytes
from orchestrator.estimate.footprint import Range
from orchestrator.estimate.learnt import GROUPS
from orchestrator.estimate.work import Amount

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator.estimate.learnt import Span
    from orchestrator.estimate.work import Work

# Seconds from launch to a machine that answers, (low, likely, high), while it bills. Lambda and RunPod: their docs and
# users' reports in reference notes of 2026-11; the high ends are not the worst that was seen.
BOOT = {
    "local": (0.0, 0.0, 0.0),
    "lambda": (120.0, 240.0, 600.0),
    "runpod": (30.0, 90.0, 300.0),
    "hf": (20.0, 60.0, 240.0),
    "colab": (5.0, 20.0, 60.0),
    "": (30.0, 120.0, 600.0),
}
# Wheels of 3.2 GB and their unpacking, or 172 MB where the image brings torch (measured with uv, 2026-11).
SETUP = (15.0, 60.0, 240.0)
FETCH_BYTES = (500e6, 200e6, 60e6)  # a second, from the Hub to a datacentre
HOME_BYTES = (40e6, 10e6, 2e6)  # a second, from there to a home line
ENDING = (3.0, 15.0, 60.0)  # from the last step to an end that the vendor took: looks, hashes, the order itself
LOAD_BYTES = (2e9, 1e9, 0.4e9)  # a second, from disk to the GPU
SAVE_BYTES = (1.5e9, 0.7e9, 0.2e9)
TOKENISED = (2e6, 0.8e6, 0.2e6)  # tokens a second, one process
FIRST_STEP = (3.0, 10.0, 40.0)  # kernels are loaded and chosen
FORWARD_SHARE = 0.35  # of a training step's time, for one evaluation pass
STEPS_A_CHECKPOINT = 200


@dataclass(frozen=True, slots=True)
class Stages:
    """Seconds of every stage, (low, likely, high)."""

    by_name: dict[str, tuple[float, float, float]]
    steps: int
    total: Range = field(init=False)  # seconds in all

    def __post_init__(self) -> None:
        """Sum them once: thousands of offers ask for it."""
        ends = (sum(values[end] for values in self.by_name.values()) for end in range(3))
        object.__setattr__(self, "total", Range(*ends))

    def learning(self, measured: Mapping[str, Span]) -> Stages:
        """Put measured stages in the place of the modelled ones that they are made of."""
        gone = {part for name in measured for part in GROUPS[name]}
        found = {name: span for name, span in self.by_name.items() if name not in gone} | dict(measured)
        order = [part for name, parts in GROUPS.items() for part in (name, *parts)]
        return Stages({name: found[name] for name in dict.fromkeys(order) if any(found.get(name, ()))}, self.steps)


def steps_of(work: Work, amount: Amount, gpus: int, *, packed: bool) -> int:
    """Count the optimizer's steps."""
    blocks = math.ceil(amount.tokens / work.sequence) if packed else amount.rows
    rows = work.micro_batch * work.accumulation * gpus
    total = max(1, round(amount.epochs * math.ceil(blocks / rows)))
    return min(total, amount.max_steps or total)


def computed_tokens(work: Work, amount: Amount, gpus: int, *, packed: bool) -> float:
    """Tokens that are computed in all, padding among them."""
    whole = amount.tokens * amount.epochs * amount.padding
    if not amount.max_steps:
        return whole
    all_steps = steps_of(work, Amount(amount.rows, amount.tokens, amount.epochs), gpus, packed=packed)
    return whole * min(1.0, amount.max_steps / all_steps)


def stages(work: Work, amount: Amount, pace: Range, gpus: int, provider: str = "", *, packed: bool = False) -> Stages:
    """Estimate each stage. `pace` is tokens a second of all GPUs together."""
    steps = steps_of(work, amount, gpus, packed=packed)
    tokens = computed_tokens(work, amount, gpus, packed=packed)
    weights, home = download_bytes(work), artifact_bytes(work)
    saves = max(1, steps // STEPS_A_CHECKPOINT)
    looked = amount.evaluated_tokens * max(1, math.ceil(amount.epochs)) * FORWARD_SHARE
    ends = (pace.high, pace.likely, pace.low)
    found = {
        "boot": BOOT.get(provider, BOOT[""]),
        "setup": SETUP if provider != "local" else (2.0, 5.0, 20.0),
        "weights": _over(weights, FETCH_BYTES),
        "load": _over(weights, LOAD_BYTES),
        "data": _over(float(amount.tokens), TOKENISED),
        "first step": FIRST_STEP,
        "training": _over(tokens, ends),
        "evaluation": _over(looked, ends),
        "checkpoints": _over(checkpoint_bytes(work) * saves + home, SAVE_BYTES),
        "bring home": _plus(_over(home, HOME_BYTES), ENDING) if provider != "local" else (0.0, 0.0, 0.0),
    }
    return Stages({name: values for name, values in found.items() if any(values)}, steps)


def _plus(one: Span, other: Span) -> Span:
    return one[0] + other[0], one[1] + other[1], one[2] + other[2]


def _over(amount: float, rates: tuple[float, float, float]) -> tuple[float, float, float]:
    return amount / rates[0], amount / rates[1], amount / rates[2]
