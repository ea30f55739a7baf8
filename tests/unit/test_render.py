"""What people read: figures that don't mislead, tables of 80 columns, and no control character from afar."""

from __future__ import annotations

import json
import unicodedata
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from orchestrator import render
from orchestrator.render import Progress

HOSTILE = "".join(map(chr, (*range(32), *range(0x7F, 0xA0), 0x202E, 0x2066, 0x200F, 0x2028, 0xFEFF, 0xD800)))


@given(st.text(st.one_of(st.characters(), st.sampled_from(HOSTILE))))
@example("\x1b[2J\x1b]0;owned\x07\x1bP+q\x1b\\ok")
@example("\x9b31mred\x9d0;title\x9c")
def test_cleaned_text_has_nothing_that_moves_the_cursor_or_turns_the_line(text: str) -> None:
    shown = render.clean(text)
    assert [char for char in shown if unicodedata.category(char) in {"Cc", "Cs", "Zl", "Zp"}] == []
    assert not set(shown) & set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u061c")


@given(st.text(st.characters(categories=["L", "N", "P", "S"])))
def test_ordinary_text_stays_as_it_is(text: str) -> None:
    assert render.clean(text) == text


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("a\x1b[1;31mred\x1b[0m b", "ared b"),
        ("\x1b]8;;http://evil\x1b\\click\x1b]8;;\x1b\\", "click"),
        ("one\rtwo", "one\ufffdtwo"),
        ("bell\x07", "bell\ufffd"),
        ("tab\tstop", "tab stop"),
        ("line\n", "line"),
        ("👩\u200d🔬", "👩\u200d🔬"),
        ("\x1b", "\ufffd"),
    ],
)
def test_escape_sequences_go_whole_and_lone_controls_show_as_a_mark(raw: str, shown: str) -> None:
    assert render.clean(raw) == shown


@pytest.mark.parametrize(
    ("usd", "shown"),
    [("0", "$0.00"), ("0.004", "<$0.01"), ("1.2", "$1.20"), ("1.205", "$1.21"), ("1234.5", "$1,234.50")],
)
def test_money_is_never_shown_as_nothing_when_it_is_something(usd: str, shown: str) -> None:
    assert render.money(Decimal(usd)) == shown


@pytest.mark.parametrize(
    ("low", "high", "shown"),
    [
        ("0.019623", "0.020329", "$0.019-0.021"),
        ("0", "0.0031", "<$0.01"),
        ("0", "0.0131", "$0.00-0.02"),
        ("1.2", "1.35", "$1.20-1.35"),
        ("0.0167", "0.0333", "$0.01-0.04"),
        ("1.2041", "1.2043", "$1.204-1.205"),
        ("1.203", "1.203", "$1.20"),
    ],
)
def test_ends_less_than_a_cent_apart_do_not_look_further_apart(low: str, high: str, shown: str) -> None:
    assert render.money_range(Decimal(low), Decimal(high)) == shown.replace("-", "\N{EN DASH}")


@given(st.decimals("0", "9999", places=6), st.decimals("0", "9999", places=6))
def test_a_range_of_money_holds_both_its_ends(one: Decimal, other: Decimal) -> None:
    low, high = sorted((one, other))
    shown = render.money_range(low, high).replace("$", "").replace(",", "").replace("<", "")
    first, _, last = shown.partition("\N{EN DASH}")
    assert Decimal(last or first) >= high - Decimal("0.005")
    if last:
        assert Decimal(first) <= low
        assert Decimal(last) >= high


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0.0 s"),
        (9.94, "9.9 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (185, "3 min 05 s"),
        (3599.7, "1 h"),
        (8040, "2 h 14 min"),
        (360000, "4 d 4 h"),
        (-5, "-5.0 s"),
    ],
)
def test_a_duration_names_its_two_largest_units(seconds: float, shown: str) -> None:
    assert render.duration(seconds) == shown


@pytest.mark.parametrize(
    ("count", "shown"), [(0, "0 B"), (999, "999 B"), (1234, "1.2 kB"), (999_600, "1.0 MB"), (5e12, "5.0 TB")]
)
def test_sizes_are_powers_of_a_thousand(count: float, shown: str) -> None:
    assert render.size(count) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.41234, "0.4123"),
        (12345, "12.3k"),
        (2e-5, "2e-05"),
        (float("nan"), "nan"),
        (float("inf"), "inf"),
        (123e6, "123M"),
    ],
)
def test_numbers_have_four_digits(value: float, shown: str) -> None:
    assert render.number(value) == shown


def test_the_lora_share_of_the_classic_recipe_reads_as_in_the_literature() -> None:
    assert render.percent(8_388_608 / 6_746_804_224) == "0.124 %"


CELLS = st.lists(st.text(max_size=200), min_size=3, max_size=3)


@given(st.lists(CELLS, max_size=5))
def test_a_table_keeps_to_80_columns_whatever_is_in_it(rows: list[list[str]]) -> None:
    lines = render.table(("RUN", "STATE", "NOTE"), rows, right=(1,)).split("\n")
    assert len(lines) == len(rows) + 1
    assert all(render.display_width(line) <= 80 for line in lines)


def test_a_table_keeps_the_first_column_whole() -> None:
    run_id = "text-classification-261122-abcdef"
    assert render.table(("RUN", "NOTE"), [(run_id, "x" * 200)]).splitlines()[1].startswith(run_id + "  xxx")


def test_wide_characters_count_two_columns() -> None:
    assert render.table(("A", "B"), [("模型", "x"), ("abcd", "y")]).splitlines()[1:] == ["模型  x", "abcd  y"]


def test_facts_fold_long_sentences_and_never_a_path() -> None:
    path = "/" + "a" * 100
    text = render.facts([("why", "word " * 40), ("folder", path), ("nothing", "")])
    assert path in text
    assert "nothing" not in text
    assert all(len(line) <= 80 for line in text.splitlines() if path not in line)


def test_the_live_line_drops_the_least_first_and_never_the_dollars() -> None:
    now = Progress("train", 42, 120, 480, 0.4123, 0.8, 1234.5, None, 185, Decimal("1.2"), Decimal("1.35"))
    money = "$1.20\N{EN DASH}1.35"
    for width in (120, 79, 60, 40, 24):
        line = render.live_line(now, width)
        assert len(line) <= width
        assert line.startswith("train 00:42")
        assert line.endswith(money)
    assert "step 120/480" in render.live_line(now, 60)
    assert "25 %" in render.live_line(now, 120)


def test_the_live_line_shows_a_loss_that_is_no_number_and_no_escapes() -> None:
    line = render.live_line(Progress("tr\x1b[31main", 1, loss="n\x07an"))
    assert line == "train 00:01  loss n\ufffdan  $0.00"


def test_colour_is_for_terminals_that_want_it() -> None:
    assert render.wants_colour(terminal=True, environ={"TERM": "xterm"})
    assert not render.wants_colour(terminal=False, environ={"TERM": "xterm"})
    assert not render.wants_colour(terminal=True, environ={"TERM": "dumb"})
    assert not render.wants_colour(terminal=True, environ={"NO_COLOR": "1"})
    assert render.paint("x", "bad", colour=False) == "x"


def test_json_has_numbers_for_money_and_text_for_times_and_paths() -> None:
    value = {
        "usd": Decimal("1.20"),
        "step": Decimal(1) / 3600,
        "at": datetime(2026, 1, 2, tzinfo=UTC),
        "path": Path("a/ü"),
        "names": {"b", "a"},
        "plan": [{"price": "1.290", "read_at": "2026-01-02T00:00:00.123456+00:00", "gpu": "4090"}],
    }
    assert json.loads(render.to_json(value)) == {
        "usd": 1.2, "step": 0.000277778, "at": "2026-01-02T00:00:00Z", "path": "a/ü", "names": ["a", "b"],
        "plan": [{"price": 1.29, "read_at": "2026-01-02T00:00:00Z", "gpu": "4090"}],
    }  # fmt: skip


def test_what_is_being_sent_is_shown_as_a_bar_beside_the_dollars() -> None:
    line = render.live_line(render.Progress("starting", 12, shipped=(3 * 10**9, 4 * 10**9)))
    assert line == "starting 00:12  [###############.....] 3.0 GB of 4.0 GB sent  $0.00"


def test_prose_is_folded_to_the_terminal_and_a_command_stays_in_one_piece() -> None:
    hint = "move it away, then see what still runs: mv /a/ledger.sqlite /a/ledger.sqlite.damaged && gpurun sweep"
    first, *rest = render.fold(hint, 50, indent="  ").split("\n")
    assert len(first) <= 50
    assert rest == ["  mv /a/ledger.sqlite /a/ledger.sqlite.damaged && gpurun sweep"]
    assert all(len(line) <= 40 for line in render.fold("word " * 40, 40).split("\n"))
