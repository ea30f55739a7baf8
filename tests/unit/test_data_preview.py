"""The user's data in the plan: rows counted, the first one shown, and nothing that a file can do hinders a launch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from orchestrator.data_files import DataFile
from orchestrator.data_preview import remarks, rows

if TYPE_CHECKING:
    from pathlib import Path

DATA = ("training", "data", "train")


def shown(path: Path, setting=DATA) -> str:
    return dict(remarks([DataFile(path, f"data/{path.name}", setting, path.name)])).get("data", "")


@pytest.mark.parametrize(
    ("name", "text", "count"),
    [
        ("a.jsonl", '{"text": "one"}\n\n{"text": "two"}', 2),
        ("a.csv", 'text,label\n"one\nmore",x\n\ntwo,y\n', 2),
        ("a.tsv", "text\tlabel\n", 0),
        ("a.txt", "words\n", None),
        ("a.parquet", "PAR1", None),
    ],
)
def test_rows_are_counted_where_that_is_cheap(tmp_path: Path, name: str, text: str, count: int | None) -> None:
    path = tmp_path / name
    path.write_text(text)
    assert rows(path) == count


def test_the_first_row_is_shown_short_and_tame(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('\n{"text": "' + "long " * 100 + '"}\n{"text": "b"}\n')
    line = shown(path)
    assert line.startswith("data/rows.jsonl: 5")
    assert "2 rows, first: " in line
    assert len(line) < 120


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"", b"{not json\n", b"\x00" * 2000])
def test_what_can_t_be_read_is_left_out(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    assert "first" not in shown(path)


def test_weights_are_no_data(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"x")
    assert shown(path, ("training", "model")) == ""
    assert remarks([]) == ()


def test_many_files_are_not_listed_one_by_one(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("x")
    files = [DataFile(path, f"data/{number}", DATA, "data") for number in range(9)]
    assert dict(remarks(files))["data"].endswith("and 5 more files")
