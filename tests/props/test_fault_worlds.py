"""The fault simulation in small: fresh seeds each time; a broken law prints its story and how to tell it again."""

from __future__ import annotations

import os
import random

import pytest
from player import play, retell

SEEDS = int(os.environ.get("GPURUN_FAULT_SEEDS", "500"))
CHUNKS = 10
FIRST = int(os.environ.get("GPURUN_FAULT_FROM", random.SystemRandom().randrange(10**6, 10**9)))


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_every_law_holds_in_fresh_worlds(chunk: int) -> None:
    size = SEEDS // CHUNKS
    for seed in range(FIRST + chunk * size, FIRST + (chunk + 1) * size):
        outcome = play(seed)
        assert not outcome.violations, "\n".join(retell(seed))


def test_a_seed_tells_the_same_story_twice() -> None:
    assert retell(7) == retell(7)
