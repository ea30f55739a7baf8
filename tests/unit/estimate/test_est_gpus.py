"""The GPU table: families people type, and each provider's own words."""

import csv
from importlib.resources import files

import pytest

from orchestrator.estimate import gpus
from providers.errors import UsageError

ROWS = list(csv.DictReader(files("orchestrator.estimate").joinpath("data/gpus.csv").read_text("utf-8").splitlines()))


@pytest.mark.parametrize(
    ("typed", "cards"),
    [
        ("a100", {"a100-40gb", "a100-80gb-pcie", "a100-80gb-sxm"}),
        ("A100 80GB", {"a100-80gb-pcie", "a100-80gb-sxm"}),
        ("a100-sxm", {"a100-80gb-sxm"}),
        ("h100", {"h100-pcie", "h100-sxm", "h100-nvl"}),
        ("h200", {"h200-sxm", "h200-nvl"}),
        ("4090", {"rtx-4090"}),
        ("RTX 4090", {"rtx-4090"}),
        ("rtx4090", {"rtx-4090"}),
        ("NVIDIA GeForce RTX 4090", {"rtx-4090"}),
        ("3090", {"rtx-3090"}),
        ("4080", {"rtx-4080"}),
        ("t4", {"t4"}),
        ("Tesla T4", {"t4"}),
        ("v100", {"v100-16gb", "v100-32gb"}),
        ("rtx-pro-6000", {"rtx-pro-6000", "rtx-pro-6000-wk", "rtx-pro-6000-maxq"}),
        ("a6000", {"rtx-a6000"}),
        ("a10", {"a10"}),
        ("l40", {"l40"}),
        ("mi300x", {"mi300x"}),
    ],
)
def test_a_name_means_its_family(typed, cards):
    assert {card.name for card in gpus.family(typed)} == cards


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["name"])
def test_every_spelling_of_a_provider_leads_back_to_its_card(row):
    card = gpus.table()[row["name"]]
    for provider, word in card.spellings:
        assert gpus.spelt(provider, word) is card


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["name"])
def test_every_card_has_a_source_and_plausible_figures(row):
    card = gpus.table()[row["name"]]
    assert card.source
    assert 0.85 <= card.memory_gib / float(row["vram_gb"]) <= 1.07
    assert 20 <= card.fp16_teraflops <= 3000
    assert 200 <= card.bandwidth_gbps <= 9000
    assert card.bf16 == bool(card.bf16_teraflops)


def test_a_typo_gets_a_suggestion():
    with pytest.raises(UsageError, match="no GPU is called a1000") as raised:
        gpus.card("a1000")
    assert "a100" in raised.value.hint
