"""Laws that hold for any work: more of something never takes less of it."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.estimate import gpus, kept, memory, models, speed
from orchestrator.estimate.footprint import footprint
from orchestrator.estimate.work import Attention, Kernels, Loss, Optimizer, Work

SHAPES = [
    models.find(name)
    for name in ("Qwen2.5-0.5B", "Llama-2-7b-hf", "pythia-70m", "bert-base-uncased", "Mixtral-8x7B-v0.1")
]
CARDS = [gpus.card(name) for name in ("t4", "4090", "a100-40gb", "h100-sxm")]

works = st.builds(
    Work,
    model=st.sampled_from(SHAPES),
    method=st.sampled_from(["full", "lora"]),
    bits=st.sampled_from([4, 8, 16]),
    master=st.booleans(),
    autocast=st.booleans(),
    optimizer=st.sampled_from(list(Optimizer)),
    rank=st.sampled_from([2, 16, 64]),
    sequence=st.sampled_from([128, 1024, 4096]),
    micro_batch=st.integers(1, 16),
    accumulation=st.integers(1, 8),
    checkpointing=st.booleans(),
    attention=st.sampled_from(list(Attention)),
    loss=st.sampled_from(list(Loss)),
    kernels=st.sampled_from(list(Kernels)),
    sharding=st.sampled_from(["none", "ddp", "fsdp", "zero2"]),
    lengths_vary=st.booleans(),
)


def needs(work):
    return memory.peak(work, 2).worst.total


@settings(deadline=None)
@given(works)
def test_longer_and_wider_batches_never_take_less(work):
    assert needs(work) <= needs(replace(work, sequence=work.sequence * 2))
    assert needs(work) <= needs(replace(work, micro_batch=work.micro_batch + 1))


@settings(deadline=None)
@given(works)
def test_checkpointing_never_keeps_more(work):
    assert kept.activations(replace(work, checkpointing=True)) <= kept.activations(replace(work, checkpointing=False))


@settings(deadline=None)
@given(works, st.sampled_from(CARDS))
def test_ranges_are_in_order_and_process_holds_what_is_reserved(work, card):
    found = footprint(work, 2, card.memory_gib)
    for one in (found.allocated, found.reserved, found.process):
        assert 0 < one.low <= one.likely <= one.high
    assert found.allocated.likely <= found.reserved.likely + 1e-9 < found.process.likely


@settings(deadline=None)
@given(works, st.sampled_from(CARDS))
def test_no_step_is_faster_than_the_cards_peak(work, card):
    times = speed.seconds(work, card, 2)
    operations = speed.products_a_token(work) * work.micro_tokens
    assert operations / times.total < card.teraflops(work.short) * 1e12


@settings(deadline=None)
@given(works, st.sampled_from(CARDS))
def test_small_steps_never_have_a_better_pace_than_large_ones(work, card):
    one, many = (speed.tokens_per_second(replace(work, micro_batch=size), card) for size in (1, 8))
    assert one <= many * 1.0001


@settings(deadline=None)
@given(works)
def test_a_rank_twice_as_high_trains_twice_as_many(work):
    lora = replace(work, method="lora")
    assert memory.trained(replace(lora, rank=2 * work.rank)) == 2 * memory.trained(lora)
