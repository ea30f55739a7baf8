"""Many offers quoted for one job: order, marks, reasons, the frontier, and the time it takes."""

import json
from dataclasses import replace
from datetime import date
from decimal import Decimal
from xml.etree import ElementTree as ET

import pytest
from click.testing import CliRunner

from orchestrator.cli import cli
from orchestrator.estimate import catalogue, gpus, models
from orchestrator.estimate.ask import Question
from orchestrator.estimate.compare import compare, frontier
from orchestrator.estimate.scatter import svg
from orchestrator.estimate.work import Amount, Loss, Work
from orchestrator.market import _flagged
from providers.base import Offer
from providers.errors import UsageError

WORK = Work(models.find("Qwen/Qwen2.5-7B"), method="lora", bits=4, loss=Loss.LINEAR, checkpointing=True, sequence=2048)
ASKED = Question(WORK, Amount(rows=5000, tokens=2_500_000), packed=False, merge=False)
LISTED = catalogue.listed()


@pytest.fixture(autouse=True)
def _home(tmp_path, monkeypatch):
    monkeypatch.setenv("GPURUN_HOME", str(tmp_path))
    for name in ("LAMBDA_API_KEY", "HF_TOKEN", "GPURUN_HF_NAMESPACE"):
        monkeypatch.delenv(name, raising=False)


def run(command, *args):
    # Through the group: click keeps a command's help option as it was first asked for, with or without -h.
    return CliRunner().invoke(cli, [command, *map(str, args)], catch_exceptions=False, standalone_mode=False)


def test_what_fits_comes_first_by_likely_cost():
    quoted = compare(ASKED, LISTED, 4.0)
    fit = [one for one in quoted if one.fits]
    assert fit == quoted[: len(fit)]
    costs = [one.dollars.likely for one in fit]
    assert costs == sorted(costs)
    assert len(quoted) == len(LISTED)


def test_the_cheapest_the_fastest_and_the_best_value_are_marked_once():
    marks = [mark for one in compare(ASKED, LISTED, 4.0) for mark in one.marks]
    assert sorted(marks) == ["best value", "cheapest", "fastest"]


def test_what_is_not_done_in_time_is_told_and_never_marked():
    quoted = [one for one in compare(ASKED, LISTED, 1.0) if one.fits]
    late = [one for one in quoted if one.as_json(date(2026, 11, 22))["late"]]
    assert 0 < len(late) < len(quoted)
    assert all(one.found.seconds.likely > 3600 and not one.marks for one in late)
    assert sorted(mark for one in quoted for mark in one.marks) == ["best value", "cheapest", "fastest"]
    assert not [one.marks for one in compare(ASKED, LISTED, 0.01) if one.marks]


def test_what_does_not_fit_says_what_is_missing():
    full = replace(ASKED, work=replace(WORK, method="full", bits=16))
    reasons = {one.offer.card.name: one.why for one in compare(full, LISTED, 4.0) if not one.fits}
    assert reasons["t4"].endswith("GiB of GPU memory, has 15")
    assert "Turing or newer" in next(
        one.why for one in compare(ASKED, LISTED, 4.0) if one.offer.card.architecture == "volta"
    )


def test_an_offer_with_too_small_a_disk_does_not_fit():
    small = replace(LISTED[0], card=gpus.card("a10"), disk_gib=5.0)
    assert "GiB of disk, has 5" in compare(ASKED, [small], 4.0)[0].why


def test_an_offer_with_too_little_host_memory_does_not_fit():
    small = replace(LISTED[0], card=gpus.card("a10"), host_gib=2.0)
    assert "GiB of host memory, has 2" in compare(ASKED, [small], 4.0)[0].why


def test_ten_thousand_offers_of_a_few_kinds_are_estimated_once_a_kind():
    many = [
        replace(LISTED[number % len(LISTED)], name=f"offer-{number}", price=Decimal(number % 900 + 10) / 100)
        for number in range(10_000)
    ]
    quoted = compare(ASKED, many, 4.0)
    assert len(quoted) == len(many)
    assert len({id(one.found) for one in quoted}) <= len(LISTED)  # how quick that is: bench/quote.py


def test_nothing_on_the_frontier_is_beaten_in_time_and_cost():
    quoted = compare(ASKED, LISTED, 4.0)
    edge = frontier(quoted)
    assert edge
    hours = [one.found.stages.total.likely for one in edge]
    assert hours == sorted(hours)
    for one in edge:
        for other in quoted:
            if other.fits and other is not one:
                quicker = other.found.stages.total.likely < one.found.stages.total.likely
                assert not (quicker and other.dollars.likely < one.dollars.likely)


def test_the_drawing_is_xml_with_a_dot_for_each_offer():
    quoted = compare(ASKED, LISTED, 4.0)
    drawn = ET.fromstring(svg(quoted, "a & b"))  # noqa: S314 (made here)
    dots = drawn.findall("{http://www.w3.org/2000/svg}circle")
    assert len(dots) == sum(one.fits for one in quoted)


# --- commands


def test_compare_shows_a_table_of_80_columns_and_what_does_not_fit():
    page = run("compare", "lora-8bit", "--rows", 3000).output
    lines = [line[4:] for line in page.partition("$ cheapest")[0].splitlines()]
    assert len(lines) == len(set(lines))  # data centers that read the same share a line
    assert max(map(len, page.splitlines())) <= 80
    assert "STOPS" in page
    assert "does not fit:" in page


def test_compare_in_json_has_what_programs_need():
    rows = json.loads(run("compare", "--model", "Qwen2.5-7B", "--method", "qlora", "--rows", 500, "--json").output)
    assert {"fits", "usd", "hours", "usd_per_hour", "price_age_days", "who_stops_the_meter", "memory_gib"} <= set(
        rows[0]
    )


def test_compare_draws_where_it_is_told(tmp_path):
    run("compare", "lora-8bit", "--rows", 300, "--plot", tmp_path / "a.svg")
    assert (tmp_path / "a.svg").read_text().startswith("<svg")
    with pytest.raises(UsageError, match="no drawing"):
        run("compare", "lora-8bit", "--rows", 300, "--plot", tmp_path / "a.gif")


def test_the_classic_comparison_can_be_printed():
    rows = json.loads(run("offers", "--json").output)
    classic = {(row["provider"], row["gpu"]) for row in rows}
    assert {("colab", "t4"), ("hf", "a10g"), ("lambda", "a100-40gb"), ("runpod", "rtx-3090")} <= classic
    colab = next(row for row in rows if (row["provider"], row["name"]) == ("colab", "A100"))
    assert float(colab["usd_per_hour"]) > 0.4
    assert colab["units_per_hour"] == 5.4


def test_offers_are_kept_to_what_was_asked_for():
    rows = json.loads(run("offers", "--gpu", "a100", "--max-price", "2", "--min-vram", 80, "--json").output)
    assert rows
    assert all(row["gpu"].startswith("a100-80gb") and float(row["usd_per_hour"]) <= 2 for row in rows)
    nothing = run("offers", "--available").output
    assert nothing.startswith("nothing on offer is like that\n")
    assert "nobody was asked what is free" in nothing


def test_the_table_of_offers_keeps_to_80_columns():
    assert max(map(len, run("offers").output.splitlines())) <= 80


def test_an_unknown_provider_is_told():
    with pytest.raises(UsageError, match="no provider is called"):
        run("offers", "--provider", "aws")


# --- live prices


def live(price, name="gpu_1x_a10", gpu="a10"):
    return catalogue.of_offer(Offer("lambda", name, gpu, 1, Decimal(price), vram_gib=22.5), date(2026, 11, 22))


def test_a_live_offer_stands_on_the_card_that_the_vendor_names():
    one = live("1.29")
    assert (one.card.name, one.confidence, one.step_seconds) == ("a10", "live", 60)
    assert one.age_days(date(2026, 11, 22)) == 0


def test_a_card_that_is_not_in_the_table_is_not_guessed():
    assert live("1", gpu="x999") is None


@pytest.mark.parametrize(("price", "flags"), [("1.29", 0), ("6.00", 0), ("7.00", 1), ("0.25", 1), ("0.30", 0)])
def test_a_price_that_moved_by_more_than_five_times_is_flagged(price, flags):
    assert len(_flagged([live(price)], LISTED)) == flags
