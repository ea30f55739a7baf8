"""One card for a recipe: one is quoted, and transformers' Trainer takes every card that it sees.

    cards.keep_one()    # before torch is imported; says so where there are more

A machine with several may be the cheapest that fits. Spread over them by the Trainer, a batch is another batch, and the
memory and the pace are none that were quoted. A script of one's own sees them all.
"""

import os
from pathlib import Path

VARIABLE = "CUDA_VISIBLE_DEVICES"  # torch heeds it on AMD's cards too


def keep_one(dev=Path("/dev")):
    """Let torch see the first card alone, of those that it was to see; says so when that hides one."""
    wish = os.environ.get(VARIABLE)
    shown = [name.strip() for name in wish.split(",")] if wish is not None else [""]
    there = len(shown) if wish is not None else len(list(dev.glob("nvidia[0-9]*")))
    if wish is None or len(shown) > 1:
        os.environ[VARIABLE] = shown[0] or "0"
    if there > 1:
        print(f"device: the first of {there} cards; a recipe trains on one", flush=True)
