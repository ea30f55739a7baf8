"""Which offers a launch takes and what it says of them: fit, fix and why."""

from __future__ import annotations

import re
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest
from fakes import OFFER, START, Clock, FakeCloud
from quotes import A10, LONG, STOCK, plan, rows_in

from orchestrator import templates, vendors
from orchestrator.home import Home
from orchestrator.launch import Leave
from orchestrator.ledger import Ledger
from orchestrator.plan import SoleHolderError, candidates
from orchestrator.plan_screen import plan_screen
from providers.errors import ConfigError, RefusedError, UsageError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home").ensure()


@pytest.fixture
def ledger(home: Home) -> Ledger:
    return Ledger(home.ledger)


@pytest.fixture
def rows(tmp_path: Path) -> str:
    return rows_in(tmp_path)


# ── the quote ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_plan_quotes_memory_stages_pace_and_dollars(home: Home, ledger: Ledger, rows: str) -> None:
    quote = plan(home, ledger, rows).quote
    assert quote.fits == "fits"
    assert quote.memory_gib["process"][1] < quote.card_gib
    assert {"boot", "setup", "weights", "training", "bring home"} <= set(quote.stages)
    assert quote.seconds is not None
    assert quote.low is not None
    assert quote.likely is not None
    assert quote.seconds[1] == pytest.approx(sum(each[1] for each in quote.stages.values()))
    assert 0 < quote.low < quote.likely < quote.worst


def test_launch_estimate_and_compare_tell_one_story(home: Home, ledger: Ledger, rows: str) -> None:
    from orchestrator.cost import Bounds
    from orchestrator.estimate import answer, catalogue, compare

    told = plan(home, ledger, rows)
    template = templates.load("qlora-sft", (*LONG, rows))
    asked, _ = answer.question(answer.Flags(gpu=""), template)
    listed = catalogue.of_offer(A10, START.date(), 1)
    assert listed is not None
    one = compare.quoted(asked, listed, compare.Known(Bounds.of(template.settings.limits)))
    assert one.dollars is not None
    assert told.quote.worst == one.dollars.worst
    assert told.quote.likely == one.dollars.likely.quantize(Decimal("0.0001"))
    assert told.quote.seconds_likely == one.found.stages.total.likely  # type: ignore[union-attr]


def test_the_worst_case_is_at_the_dearest_that_may_be_taken(home: Home, ledger: Ledger) -> None:
    dearer = replace(OFFER, name="b", price=Decimal(2))
    told = plan(home, ledger, "max_hours=1", name="loop", stock=[OFFER, dearer])
    assert [one.price for one in told.candidates] == [OFFER.price, Decimal(2)]
    assert told.quote.worst == Decimal("2.09")  # an hour, two minutes and two more attempts of a second, 1 % dearer


def test_what_no_model_covers_says_so_and_knows_only_the_worst(home: Home, ledger: Ledger) -> None:
    quote = plan(home, ledger, name="loop").quote
    assert (quote.low, quote.likely, quote.fits, quote.seconds) == (None, None, "", None)
    assert "nothing like it" in quote.basis
    assert "not known beforehand" in quote.notes[0]


def test_the_screen_shows_the_verdict_the_stages_and_the_dollars_in_80_columns(
    home: Home, ledger: Ledger, rows: str
) -> None:
    screen = plan_screen(plan(home, ledger, rows).as_json(), {"max_idle_minutes": 30, "max_attempts": 3})
    assert all(len(line) <= 80 or "/" in line for line in screen.splitlines())
    words = " ".join(screen.split())
    for part in (
        "memory fits:",
        "on the card",
        "boot",
        "training",
        "tokens/s",
        "what the limits allow",
        "note lengths",
    ):
        assert part in words


# ── which offer ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_auto_takes_the_likely_cheapest_that_fits_and_says_why(home: Home, ledger: Ledger, rows: str) -> None:
    told = plan(home, ledger, rows, "max_hours=24", gpu="auto")
    by_card = {
        one: plan(home, ledger, rows, "max_hours=24", gpu=one).quote.likely for one in ("a10", "t4", "a100", "h100")
    }
    assert by_card[told.offer.gpu.partition("-")[0]] == min(by_card.values(), key=lambda usd: usd or 0)
    assert told.why.startswith("cheapest of 4 kinds that fit, likely $")
    assert told.gpu == ("auto",)


def test_auto_leaves_out_what_is_not_done_in_time_and_refuses_where_nothing_is(
    home: Home, ledger: Ledger, rows: str
) -> None:
    slow = plan(home, ledger, rows, "max_hours=24", gpu="t4").quote.seconds_likely
    quick = plan(home, ledger, rows, "max_hours=24", gpu="h100").quote.seconds_likely
    assert slow is not None
    assert quick is not None
    assert quick < slow
    assert plan(home, ledger, rows, f"max_hours={quick * 1.1 / 3600}", gpu="auto").offer.gpu == "h100-sxm"
    with pytest.raises(RefusedError, match="likely done within the limits") as caught:
        plan(home, ledger, rows, f"max_hours={quick * 0.5 / 3600}", gpu="auto")
    assert "--max-hours" in caught.value.hint
    late = plan(home, ledger, rows, f"max_hours={quick * 0.9 / 3600}", gpu="h100")
    (note,) = (note for note in late.quote.notes if "likely longer than the limits allow, the time ends" in note)
    longer = note.rpartition("--max-hours ")[2]
    assert not any("limits allow" in n for n in plan(home, ledger, rows, f"max_hours={longer}", gpu="h100").quote.notes)


@pytest.mark.parametrize(("limit", "flag"), [("max_cost=0.20", "--max-cost"), ("max_hours=0.05", "--max-hours")])
def test_what_cant_be_done_within_the_limits_even_at_best_is_refused_with_limits_that_do(
    home: Home, ledger: Ledger, rows: str, limit: str, flag: str
) -> None:
    with pytest.raises(RefusedError, match=r"takes .* at best, and the (budget|time) ends after") as caught:
        plan(home, ledger, rows, limit)
    name, _, enough = caught.value.hint.partition(";")[0].partition(" ")
    assert (name, caught.value.exit_code) == (flag, 4)
    told = plan(home, ledger, rows, f"{name.removeprefix('--').replace('-', '_')}={enough}")
    assert not any("limits allow" in note for note in told.quote.notes)
    forced = plan(home, ledger, rows, limit, force=True)
    assert any(f"limits allow, the {'budget' if 'cost' in flag else 'time'}" in note for note in forced.quote.notes)


def test_several_names_are_chosen_among(home: Home, ledger: Ledger, rows: str) -> None:
    told = plan(home, ledger, rows, gpu=("a100", "h100"))
    assert {one.gpu for one in told.candidates} <= {"a100-40gb", "h100-sxm"}
    assert "next" in told.why


def test_what_does_not_fit_is_refused_with_a_fix_that_fits(home: Home, ledger: Ledger, rows: str) -> None:
    wide = ("batch_size=64", "packing=false", "max_length=4096", "activation_checkpointing=false")
    with pytest.raises(RefusedError, match=r"does not fit a10: it needs [0-9]+ GiB of GPU memory, has 22") as caught:
        plan(home, ledger, rows, *wide)
    typed = caught.value.hint.partition(" (")[0]
    settings = [part for part in typed.split("--set ") if part]
    assert plan(home, ledger, rows, *wide, *(part.strip().strip("'") for part in settings)).quote.fits == "fits"
    assert "--force" in caught.value.hint
    assert caught.value.exit_code == 4


def test_a_budget_that_is_too_small_is_held_against_the_cheapest(home: Home, ledger: Ledger, rows: str) -> None:
    with pytest.raises(RefusedError, match=r"a budget of \$0.001 buys no time") as caught:
        plan(home, ledger, rows, "max_cost=0.001", gpu=("a100", "h100"))
    assert "--force" not in caught.value.hint, "it would be refused all the same"
    enough = caught.value.hint.removeprefix("--max-cost ")
    assert not any("limits" in note for note in plan(home, ledger, rows, f"max_cost={enough}", gpu="a100").quote.notes)
    told = re.search(r"at \$([0-9.]+)/h", str(caught.value))
    assert told is not None
    assert told[1] == f"{min(one.price for one in STOCK if one.gpu in {'a100-40gb', 'h100-sxm'}):.2f}"


def test_force_launches_what_does_not_fit_and_says_so(home: Home, ledger: Ledger, rows: str) -> None:
    wide = ("batch_size=64", "packing=false", "max_length=4096", "activation_checkpointing=false")
    told = plan(home, ledger, rows, *wide, force=True)
    assert told.quote.fits == "no"
    screen = " ".join(plan_screen(told.as_json(), {"max_idle_minutes": 30, "max_attempts": 3}).split())
    assert "memory does not fit" in screen
    assert f"to make it fit: {told.quote.fix}" in screen


def test_another_card_of_the_vendors_is_named_where_one_holds_the_job(home: Home, ledger: Ledger) -> None:
    sets = ("quantization=none", "max_length=4096", "epochs=1")
    with pytest.raises(RefusedError) as caught:
        plan(home, ledger, *sets, gpu="t4")
    named = re.search(r"--gpu (\S+) \(\1 at \$[0-9.]+/h\)", caught.value.hint)
    assert named is not None
    assert plan(home, ledger, *sets, gpu=named[1]).quote.fits == "fits"


@pytest.mark.parametrize(("small", "what"), [({"disk_gib": 5.0}, "of disk"), ({"memory_gib": 3.0}, "of host memory")])
def test_an_offer_whose_disk_or_memory_cant_hold_the_job_does_not_fit(
    home: Home, ledger: Ledger, rows: str, small: dict[str, float], what: str
) -> None:
    with pytest.raises(RefusedError, match=what):
        plan(home, ledger, rows, stock=[replace(A10, **small)])  # type: ignore[arg-type]
    roomy = replace(A10, name="roomy", price=Decimal(2))
    assert plan(home, ledger, rows, stock=[replace(A10, **small), roomy]).offer.name == "roomy"  # type: ignore[arg-type]


def test_a_card_that_is_in_no_table_is_taken_by_name_and_not_judged(home: Home, ledger: Ledger, rows: str) -> None:
    told = plan(home, ledger, rows, gpu="x9000", stock=[replace(OFFER, gpu="x9000")])
    assert (told.offer.gpu, told.quote.fits) == ("x9000", "")


def test_a_cpu_without_the_memory_for_the_weights_is_refused(home: Home, ledger: Ledger, rows: str) -> None:
    cpu = replace(OFFER, gpu="", gpu_count=0, name="cpu", price=Decimal(0), memory_gib=16.0)
    with pytest.raises(RefusedError, match=r"does not fit fake cpu: it needs [0-9]+ GiB of memory, has 16"):
        plan(home, ledger, rows, "quantization=none", gpu=None, stock=[cpu])
    assert plan(home, ledger, rows, "quantization=none", gpu=None, stock=[cpu], force=True).offer == cpu
    assert plan(home, ledger, name="loop", gpu=None, stock=[cpu]).offer == cpu


def test_a_cpu_is_refused_for_billions_of_parameters_though_few_bits_would_fit_it(
    home: Home, ledger: Ledger, rows: str
) -> None:
    cpu = replace(OFFER, gpu="", gpu_count=0, name="cpu", price=Decimal(0), memory_gib=64.0)
    with pytest.raises(RefusedError, match=r"has 7\.[0-9]B parameters: fake cpu has no GPU") as caught:
        plan(home, ledger, rows, gpu=None, stock=[cpu])
    assert "--gpu auto" in caught.value.hint
    assert plan(home, ledger, rows, gpu=None, stock=[cpu], force=True).offer == cpu


def test_rounds_of_waiting_take_only_kinds_that_hold_the_job(home: Home, ledger: Ledger, rows: str) -> None:
    wide = plan(home, ledger, rows, "quantization=none", gpu="auto")
    assert "gpu_1x_t4" not in wide.kinds
    assert "gpu_1x_h100" in wide.kinds
    again = [replace(one, name=f"{one.name}@elsewhere") for one in STOCK]
    assert "t4" not in {one.gpu for one in candidates(again, wide.gpu, wide.kinds)}


# ── bad input ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_bad_input_is_refused_before_anything_is_packed(home: Home, ledger: Ledger, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{")
    empty = tmp_path / "empty.jsonl"
    empty.write_text('{"text": ""}\n')
    for sets, words in (
        (("model=no-such-model",), "no bundled model is called"),
        ((f"model={folder}",), "is no JSON"),
        ((f"data.train={empty}",), "no text"),
        (("max_length=99999999999",), "absurd"),
    ):
        with pytest.raises(UsageError, match=words) as caught:
            plan(home, ledger, *sets)
        assert caught.value.exit_code == 2
    with pytest.raises(ConfigError):
        plan(home, ledger, "batch_size=0")
    assert list(home.runs.iterdir()) == []


def test_force_launches_what_can_not_be_quoted(home: Home, ledger: Ledger) -> None:
    quote = plan(home, ledger, "model=no-such-model", force=True).quote
    assert quote.likely is None
    assert "not quoted: no bundled model is called no-such-model" in quote.notes[0]


# ── several vendors ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_of_several_vendors_the_cheapest_is_taken_that_may_be_launched(home: Home, ledger: Ledger, rows: str) -> None:
    template = templates.load("qlora-sft", (*LONG, "max_hours=24", rows))
    dear = FakeCloud(Clock(), name="dear", stock=[replace(A10, provider="dear", price=Decimal(3))])
    cheap = FakeCloud(Clock(), name="cheap", stock=[replace(A10, provider="cheap")])
    told = vendors.cheapest(home, ledger, [dear, cheap], template, "auto", START, Leave()).plan
    assert told.offer.provider == "cheap"
    assert told.why.startswith("cheap is the cheapest of cheap, dear")
    alone = replace(cheap, holder_on_machine=False)
    told = vendors.cheapest(home, ledger, [dear, alone], template, "auto", START, Leave()).plan
    assert told.offer.provider == "dear"
    assert "left out cheap: only this computer could stop the meter" in told.why
    with pytest.raises(SoleHolderError):
        vendors.cheapest(home, ledger, [alone], template, "auto", START, Leave())


def test_a_vendor_that_has_not_what_was_asked_for_is_passed_over(home: Home, ledger: Ledger, rows: str) -> None:
    template = templates.load("qlora-sft", (*LONG, "max_hours=24", rows))
    here = FakeCloud(Clock(), name="local", stock=[replace(OFFER, gpu="", gpu_count=0, name="cpu", price=Decimal(0))])
    away = FakeCloud(Clock(), name="away", stock=[A10])
    assert vendors.cheapest(home, ledger, [here, away], template, "a10", START, Leave()).plan.offer == A10
    with pytest.raises(RefusedError, match="no offer has the GPU h200"):
        vendors.cheapest(home, ledger, [here, away], template, "h200", START, Leave())
    with pytest.raises(RefusedError) as caught:
        vendors.cheapest(home, ledger, [here, replace(here)], template, "a10", START, Leave())
    assert "gpurun login" in caught.value.hint
