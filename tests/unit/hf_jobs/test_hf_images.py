"""Which image a job runs in: a large one where it saves minutes of a rented card, else a small one; and why."""

from __future__ import annotations

import pytest

from providers.hf_jobs.images import VARIABLE, image_for

SFT = ("{python}", "payload/train_sft.py", "config.json")
OWN = ("{python}", "payload/own_script.py", "config.json")
PUSHED = ("{python}", "payload/hub_push.py", "you/model", "private", "--")


@pytest.mark.parametrize(
    ("command", "gpus", "image", "reason"),
    [
        (SFT, 1, "huggingface/trl", "training stack"),
        ((*PUSHED, *SFT), 1, "huggingface/trl", "training stack"),
        (OWN, 2, "huggingface/trl", "asks for torch"),
        (SFT, 0, "ghcr.io/astral-sh/uv:", "lock"),
        (OWN, 0, "ghcr.io/astral-sh/uv:", "the script names"),
        (("{python}", "code/mine.py"), 1, "ghcr.io/astral-sh/uv:", "no training of ours"),
    ],
)
def test_an_image_is_as_large_as_it_saves_minutes(command, gpus, image, reason):
    chosen = image_for(command, gpus, {})
    assert chosen.name.startswith(image)
    assert reason in chosen.reason


def test_who_names_an_image_gets_it():
    chosen = image_for(SFT, 1, {VARIABLE: "me/mine:1"})
    assert chosen == ("me/mine:1", "GPURUN_HF_IMAGE names it")
