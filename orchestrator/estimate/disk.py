"""Disk and host memory that a job takes: downloads, caches, checkpoints, what is merged. GiB.

An offer whose disk or memory cannot hold them does not fit, whatever its GPU.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.estimate.memory import trained
from orchestrator.estimate.work import GIB

if TYPE_CHECKING:
    from orchestrator.estimate.work import Amount, Work

ENVIRONMENT_GIB = 7.0  # torch with CUDA unpacked and the rest (2026-11: wheels of 3.2 GB)
SYSTEM_GIB = 4.0  # logs, caches, what the image leaves little of
CHECKPOINTS_KEPT = 2
FILE_BYTES = 2  # of a parameter in the files of the Hub; the rare float32 ones take twice that
HOST_BASE_GIB = 6.0  # Python, torch and CUDA's host side


@dataclass(frozen=True, slots=True)
class Room:
    """GiB that the machine must have, by what takes it."""

    disk: dict[str, float]
    host: dict[str, float]

    @property
    def disk_gib(self) -> float:
        """All of the disk."""
        return sum(self.disk.values())

    @property
    def host_gib(self) -> float:
        """All of the host's memory."""
        return sum(self.host.values())


def download_bytes(work: Work) -> float:
    """Bytes of weights that are fetched; nothing where training begins from random ones."""
    return 0.0 if work.task == "pretrain" else float(work.model.checkpoint * FILE_BYTES)


def artifact_bytes(work: Work, *, merge: bool = False) -> float:
    """Bytes of what is brought home."""
    own = float(trained(work)) * (4 if work.master or not work.trains_all else 2)
    return own + (work.model.parameters * 2.0 if merge and not work.trains_all else 0.0)


def checkpoint_bytes(work: Work) -> float:
    """Bytes of one checkpoint: trained weights and two states of each."""
    each = 4 if work.master or not work.trains_all else 2
    states = 2.1 if "8bit" in work.optimizer else 2.0 * each
    return float(trained(work)) * (each + states)


def room(work: Work, amount: Amount, *, merge: bool = False, gpus: int = 1) -> Room:
    """Estimate what the job takes of disk and host memory."""
    disk = {
        "environment": ENVIRONMENT_GIB,
        "weights": download_bytes(work) / GIB,
        "data": 3 * amount.data_bytes / GIB,  # as it came, tokenised, and the cache between
        "checkpoints": CHECKPOINTS_KEPT * checkpoint_bytes(work) / GIB,
        "artifacts": artifact_bytes(work, merge=merge) / GIB,
        "system": SYSTEM_GIB,
    }
    model_gib = work.model.parameters * (4 if work.trains_all and work.master else 2) / GIB
    host = {
        "programs": HOST_BASE_GIB + 2.0 * (gpus - 1),
        "data": 2 * amount.data_bytes / GIB,
        "loading": model_gib * 0.3,
    }
    if merge and not work.trains_all:
        host["merge"] = work.model.parameters * 2.0 * 1.1 / GIB
    if work.offload:
        host["offloaded"] = work.micro_tokens * work.model.hidden * work.model.layers * 2.0 / GIB
    return Room({key: size for key, size in disk.items() if size}, {key: size for key, size in host.items() if size})
