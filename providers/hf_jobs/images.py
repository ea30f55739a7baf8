"""Which image a job runs in, and why: minutes of a rented card are dearer than a large download of the Hub's own."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

VARIABLE = "GPURUN_HF_IMAGE"
UV = "ghcr.io/astral-sh/uv:python3.12-bookworm"  # the client's own default
_TRL = "huggingface/trl"  # CUDA, torch, transformers, peft, trl: what our trainings need
SETUP = ("bash", "payload/setup.sh")


class Image(NamedTuple):
    """An image, and the reason for it."""

    name: str
    reason: str


def image_for(command: Sequence[str], gpus: int, environ: Mapping[str, str] = os.environ) -> Image:
    """Choose the image for a command."""
    own = environ.get(VARIABLE, "").strip()
    if own:
        return Image(own, f"{VARIABLE} names it")
    if gpus and is_own(command):
        return Image(_TRL, "it has CUDA and torch: a script that asks for torch downloads none")
    if gpus and trains(command):
        return Image(_TRL, "it has CUDA, torch and the training stack: only what they lack is installed")
    if is_own(command):
        return Image(UV, "small, with uv, which brings the packages that the script names")
    if trains(command):
        return Image(UV, "small, with uv; the packages come from the lock, torch for the CPU")
    return Image(UV, "small, and the command is no training of ours")


def is_own(command: Sequence[str]) -> bool:
    """Whether a command runs a user's own script or notebook, whose packages own_setup.py brings."""
    return any(part.startswith("payload/own_") for part in command)


def trains(command: Sequence[str]) -> bool:
    """Whether a command is one of our trainings or the user's own, which need packages."""
    return any(part.startswith(("payload/train_", "payload/export", "payload/own_")) for part in command)
