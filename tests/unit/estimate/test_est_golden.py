"""What everybody knows about training a 7B, and what the formulas must therefore say."""

import pytest

from orchestrator.estimate import gpus, kept, memory, models
from orchestrator.estimate.fix import FITS, judged
from orchestrator.estimate.footprint import footprint
from orchestrator.estimate.layers import adapter_parameters
from orchestrator.estimate.work import GIB, Loss, Optimizer, Work

LLAMA = models.find("meta-llama/Llama-2-7b-hf")
USUAL = {"model": LLAMA, "loss": Loss.LINEAR, "sequence": 512, "checkpointing": True}


def test_rank_8_on_the_four_attention_maps_of_llama_2_7b_trains_8388608_weights():
    work = Work(LLAMA, method="lora", rank=8, targets=("q_proj", "k_proj", "v_proj", "o_proj"))
    assert adapter_parameters(work) == 8_388_608


def test_four_bit_weights_of_a_7b_are_about_four_gigabytes():
    work = Work(LLAMA, method="lora", bits=4)
    four_bits = memory.base_bytes(work) - 2 * (LLAMA.parameters - LLAMA.linear)
    assert four_bits == pytest.approx(LLAMA.linear * 4.127 / 8, rel=1e-3)
    assert 3.5 < memory.base_bytes(work) / 1e9 < 4.2


def test_a_7b_in_8_bit_lora_fits_16_gb():
    work = Work(**USUAL, method="lora", bits=8, rank=8, micro_batch=4)
    assert judged(work, gpus.card("t4"), 1) == FITS


@pytest.mark.parametrize("card", ["rtx-a4000", "t4"])
def test_a_7b_in_qlora_fits_12_to_16_gb(card):
    work = Work(**USUAL, method="lora", bits=4, micro_batch=2)
    assert judged(work, gpus.card(card), 1) == FITS
    assert footprint(work).process.high < 12


@pytest.mark.parametrize(
    ("changes", "bytes_a_parameter"),
    [
        ({}, 16),  # float32 weights and gradients, two float32 moments
        ({"master": False, "autocast": False}, 8),
        ({"optimizer": Optimizer.ADAMW, "master": False, "autocast": False}, 10),  # one foreach temporary beside
        ({"optimizer": Optimizer.ADAMW}, 20),
    ],
)
def test_a_full_step_holds_its_bytes_a_parameter(changes, bytes_a_parameter):
    found = memory.peak(Work(**{**USUAL, "sequence": 8}, **changes))
    step = next(moment for moment in found.moments if moment.name == "step")
    assert step.total == bytes_a_parameter * LLAMA.parameters


def test_eight_bit_states_of_a_linear_layer_take_a_quarter_of_float32_ones():
    plain = memory.optimizer_bytes(Work(LLAMA))
    small = memory.optimizer_bytes(Work(LLAMA, optimizer=Optimizer.ADAMW_8BIT))
    whole = 8 * LLAMA.embedding  # transformers keeps embeddings' states whole
    assert (small - whole) / (plain - whole) == pytest.approx(0.254, abs=0.001)


def test_gradients_and_logits_are_not_alive_together():
    found = memory.peak(Work(**USUAL))
    loss = next(moment for moment in found.moments if moment.name == "loss")
    assert "gradients" not in loss.parts
    assert loss.total < sum(sum(moment.parts.values()) for moment in found.moments)


def test_a_loss_that_makes_logits_whole_takes_fourteen_bytes_a_logit():
    plain, linear = (
        memory.peak(Work(**{**USUAL, "loss": loss, "sequence": 8192})) for loss in (Loss.PLAIN, Loss.LINEAR)
    )
    sizes = [next(m.parts["logits"] for m in found.moments if m.name == "loss") for found in (plain, linear)]
    assert sizes[0] == pytest.approx(14 * 8192 * LLAMA.vocabulary, rel=0.05)
    assert sizes[1] < 0.3 * sizes[0]


def test_eager_attention_takes_memory_with_the_square_of_the_length():
    def layer(sequence):
        return kept.taken_apart(Work(**{**USUAL, "sequence": sequence}, attention="eager", method="lora"))

    assert layer(8192) > 3 * layer(4096)


def test_sharding_over_more_cards_never_takes_more_of_one():
    sizes = [memory.peak(Work(**USUAL, sharding="fsdp"), count).worst.total / GIB for count in (2, 4, 8, 16)]
    assert sizes == sorted(sizes, reverse=True)
