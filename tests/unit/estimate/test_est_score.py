"""The goals against published measurements, with the constants as shipped; bench/estimate.py leaves sources out."""

import sys
from pathlib import Path

import pytest

from orchestrator.estimate.fix import NO, judged

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def bench():
    sys.path.insert(0, str(ROOT / "bench"))
    import estimate

    yield estimate
    sys.path.remove(str(ROOT / "bench"))


@pytest.fixture(scope="module")
def figures(bench):
    rows = bench.read(bench.TABLE)
    sources = sorted({row.source for row in rows})
    return bench.summary([one for name in sources for one in bench._score_source(rows, name, shipped=True)])


def test_memory_on_one_gpu_is_within_eight_hundredths_and_seldom_too_low(figures):
    assert figures["memory, one GPU"]["rows"] >= 190
    assert figures["memory, one GPU"]["mean"] <= 0.08
    assert figures["memory, one GPU"]["far too low"] <= 0.05


def test_memory_on_several_gpus_is_within_twelve_hundredths(figures):
    assert figures["memory, several GPUs"]["rows"] >= 100
    assert figures["memory, several GPUs"]["mean"] <= 0.12


def test_speed_is_within_a_fifth_and_nine_of_ten_lie_in_the_band(figures, bench):
    known = figures["speed, card and method known"]
    assert known["rows"] >= 290
    assert figures["speed"]["mean"] <= 0.20
    assert known["inside"] >= 0.90
    low, high = bench.band(known=True)
    assert low >= 0.70
    assert high <= 1.30


def test_a_table_of_ones_own_needs_few_columns(bench, tmp_path):
    path = tmp_path / "own.csv"
    path.write_text(
        "model,params_b,method,gpu,n_gpus,seq_len,micro_batch,checkpointing,peak_mem_gb,mem_kind,tokens_per_s_per_gpu\n"
        "Qwen/Qwen2.5-7B,7.6,qlora,RTX4090-24GB,1,2048,1,y,9.5,torch_allocated,2000\n"
        "someone/unheard-of,13,lora,L40S-48GB,1,1024,2,n,40,process,1500\n"
        "no/length,7,lora,,1,,,y,,,\n"
    )
    rows = bench.read(path)
    assert [row.model for row in rows] == ["Qwen/Qwen2.5-7B", "someone/unheard-of"]
    scored = bench._score_source(rows, rows[0].source, shipped=True)
    assert {one.what for one in scored} == {"memory", "speed"}


def test_what_somebody_ran_on_a_card_is_not_said_not_to_fit_there(bench):
    rows = [row for row in bench.read(bench.TABLE) if row.quality != "C" and bench.card(row.card)]
    refused = [row.id for row in rows if judged(row.work, bench.card(row.card), row.gpus) == NO]
    assert len(rows) > 350
    assert refused == []
