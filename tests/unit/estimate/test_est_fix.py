"""The fix is found by search: what it says really fits, and nothing less painful does."""

from dataclasses import replace

import pytest

from orchestrator.estimate import fix, gpus, models
from orchestrator.estimate.quote import estimate
from orchestrator.estimate.work import Loss, Optimizer, Work

SEVEN = models.find("Qwen/Qwen2.5-7B")
FULL = Work(SEVEN, loss=Loss.LINEAR, sequence=2048, micro_batch=4, optimizer=Optimizer.ADAMW)


@pytest.mark.parametrize("card", ["t4", "4090", "a100-40gb", "h100-sxm"])
@pytest.mark.parametrize("method", ["full", "lora"])
def test_what_a_fix_says_really_fits(card, method):
    work = replace(FULL, method=method, micro_batch=32)
    found = estimate(work, gpus.card(card)).fix
    assert found is not None
    assert fix.judged(found.work, found.card, found.gpus) == fix.FITS


def test_the_least_painful_change_wins():
    card = gpus.card("4090")
    work = Work(SEVEN, method="lora", bits=4, loss=Loss.LINEAR, sequence=2048, micro_batch=16, checkpointing=True)
    assert fix.judged(work, card, 1) != fix.FITS
    found = fix.on_this_card(work, card, 1)
    assert found is not None
    assert str(found).startswith("batch 16 → ")
    assert found.work.micro_batch * found.work.accumulation == work.micro_batch * work.accumulation


def test_only_a_shorter_sequence_helps_where_one_long_row_is_too_long():
    work = Work(SEVEN, method="lora", bits=4, loss=Loss.LINEAR, sequence=131_072, checkpointing=True)
    found = fix.on_this_card(work, gpus.card("4090"), 1)
    assert found is not None
    assert str(found).startswith("sequence 131072 → ")
    assert found.work.sequence < work.sequence


def test_a_full_fine_tune_becomes_adapters_where_no_batch_is_small_enough():
    found = fix.on_this_card(FULL, gpus.card("4090"), 1)
    assert found is not None
    assert "LoRA instead of every weight" in found.changes


def test_nothing_is_said_where_nothing_helps():
    huge = Work(models.find("meta-llama/Llama-3.1-70B"), method="lora", bits=4, loss=Loss.LINEAR, sequence=1024)
    assert fix.on_this_card(huge, gpus.card("t4"), 1) is None
    assert estimate(huge, gpus.card("t4")).fix is not None  # another card


def test_more_of_the_same_card_are_looked_at_beside():
    found = fix.more_cards(replace(FULL, checkpointing=True, micro_batch=1), gpus.card("a100-80gb-sxm"), 1)
    assert found is not None
    assert found.gpus in {2, 4}
    assert str(found) == f"{found.gpus} × a100-80gb-sxm"


def test_what_fits_needs_no_fix():
    small = Work(models.find("Qwen2.5-0.5B"), method="lora", loss=Loss.LINEAR)
    found = estimate(small, gpus.card("a10"))
    assert (found.fits, found.fix, found.others) == ("fits", None, ())
