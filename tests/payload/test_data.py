"""data.py: every kind of file read, every row checked, each fault named with file and row."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CONFIG = {"train": "", "eval": None, "eval_fraction": 0.0, "split": "train", "eval_split": "test"}
CONFIG |= {"text_field": "text", "label_field": "label", "format": "auto", "max_rows": None}
ROWS = [{"text": "one, two", "label": "a"}, {"text": 'a "word" — ünïcode', "label": "b"}, {"text": "x", "label": "a"}]
TALK = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]


@pytest.fixture
def data(payload: Callable[[str], Any]) -> Any:
    return payload("data")


def jsonl(rows: list[dict]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def parquet(path: Path, rows: list[dict]) -> None:
    import pyarrow as pa
    from pyarrow import parquet as pq

    pq.write_table(pa.Table.from_pylist(rows), path)


def write_all(folder: Path) -> None:
    """Write ROWS in every format."""
    (folder / "rows.jsonl").write_text(jsonl(ROWS), encoding="utf-8")
    (folder / "bom.jsonl").write_text(jsonl(ROWS), encoding="utf-8-sig")
    (folder / "rows.json").write_text(json.dumps(ROWS))
    quoted = [f'"{row["text"].replace(chr(34), chr(34) * 2)}",{row["label"]}' for row in ROWS]
    (folder / "rows.csv").write_text("text,label\n" + "\n".join(quoted) + "\n", encoding="utf-8")
    tabbed = [f'"{row["text"].replace(chr(34), chr(34) * 2)}"\t{row["label"]}' for row in ROWS]
    (folder / "rows.tsv").write_text("text\tlabel\n" + "\n".join(tabbed) + "\n", encoding="utf-8")
    parquet(folder / "rows.parquet", ROWS)


@pytest.mark.parametrize("name", ["rows.jsonl", "bom.jsonl", "rows.json", "rows.csv", "rows.tsv", "rows.parquet"])
def test_every_kind_of_file_gives_the_same_rows(data: Any, tmp_path: Path, name: str) -> None:
    write_all(tmp_path)
    assert [row.fields for row in data.read(str(tmp_path / name), CONFIG)] == ROWS


def test_a_folder_gives_the_rows_of_its_files_in_order_of_names(data: Any, tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "b.jsonl").write_text(jsonl(ROWS[:1]))
    (tmp_path / "deep/c.jsonl").write_text(jsonl(ROWS[1:2]))
    (tmp_path / ".hidden.jsonl").write_text("not rows")
    (tmp_path / "notes.pdf").write_text("not rows")
    assert [row.fields for row in data.read(str(tmp_path), CONFIG)] == ROWS[:2]


@pytest.mark.parametrize(
    ("content", "texts", "lines"),
    [
        ("one\ntwo\n", ["one", "two"], [1, 2]),
        ("one\nmore\n\n\ntwo", ["one\nmore", "two"], [1, 5]),
        ("\n\none\n", ["one"], [3]),
    ],
)
def test_a_text_file_gives_paragraphs_or_else_lines(
    data: Any, tmp_path: Path, content: str, texts: list[str], lines: list[int]
) -> None:
    (tmp_path / "a.txt").write_text(content)
    rows = data.read(str(tmp_path / "a.txt"), CONFIG)
    assert [row.fields["text"] for row in rows] == texts
    assert [row.number for row in rows] == lines


def test_odd_names_of_files_are_read(data: Any, nasty_folder: Path) -> None:
    (nasty_folder / "rows.jsonl").write_text(jsonl(ROWS), encoding="utf-8")
    assert len(data.read(str(nasty_folder / "rows.jsonl"), CONFIG)) == 3
    assert len(data.read(str(nasty_folder), CONFIG)) == 3


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("none.jsonl", None, "none.jsonl: no such file"),
        ("a.jsonl", b"", "a.jsonl: the file is empty"),
        ("a.jsonl", b"\n \n", "a.jsonl: it has no rows"),
        ("a.csv", b"text,label\n", "a.csv: it has no rows"),
        ("a.xlsx", b"PK", "unknown kind of file; known are .jsonl"),
        ("a.jsonl", b'{"text": "a", "label": "b"}\n{"text": \n', "a.jsonl, row 2: not JSON (Expecting value: line 2"),
        ("a.jsonl", b'["text"]\n', "row 1: not an object like"),
        ("a.jsonl", b'{"text": "a", "label": "b"}\n\n{"text": "\xff"}\n', "row 3: not UTF-8 text"),
        ("a.jsonl", b'{"text": "a", "label": "b"}\n{"label": "b"}\n', 'row 2: no field "text": {"label": "b"}'),
        ("a.jsonl", b'{"text": "a"}\n', 'row 1: no field "label": {"text": "a"}'),
        ("a.jsonl", b'{"text": 3, "label": "b"}\n', 'row 1: "text" is a number, not a text'),
        ("a.jsonl", b'{"text": null, "label": "b"}\n', 'row 1: "text" is null, not a text'),
        ("a.jsonl", b'{"text": "a", "label": 0.5}\n', 'row 1: "label" is a number, not the name of a class'),
        ("a.jsonl", b'{"text": " ", "label": "b"}\n', "every row has a blank text or label"),
        ("a.json", b'{"text": "a"}', "a .json file of rows is a list of objects"),
        ("a.json", b'[{"text": "a", "label": "b"}, 3]', "row 2: not an object: 3"),
        ("a.json", b"[", "not JSON"),
        ("a.csv", b"text,label\na,b\na,b,c\n", "row 3: 1 more values than the header has names"),
        ("a.csv", b"text,label\na\n", 'row 2: "label" is null, not the name of a class'),
        ("a.csv", b'text,label\n"a,b\n', "not CSV"),
        ("a.csv", b"text,label\n\xff,b\n", "not UTF-8 text"),
        ("a.txt", b"\xff\xfe", "not UTF-8 text"),
        ("a.parquet", b"nonsense, really", "not a Parquet file"),
    ],
)
def test_a_fault_ends_with_2_and_names_the_file_and_the_row(
    data: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, content: bytes | None, words: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(SystemExit) as left:
        data.check_labelled(data.read(str(tmp_path / name), CONFIG), CONFIG)
    assert left.value.code == 2
    error = capsys.readouterr().err
    assert words in error
    assert name in error


def test_a_long_row_is_shown_short(data: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.jsonl").write_text(jsonl([{"txt": "x" * 10_000}]))
    with pytest.raises(SystemExit):
        data.check_labelled(data.read(str(tmp_path / "a.jsonl"), CONFIG), CONFIG)
    assert len(capsys.readouterr().err) < 200 + data.SHOWN + len(str(tmp_path))


def test_an_empty_folder_is_named(data: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        data.read(str(tmp_path), CONFIG)
    assert "no data file in this folder" in capsys.readouterr().err


def test_a_hub_that_is_not_reached_is_told_in_its_own_words(
    data: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("warnings.filters", [("ignore", None, Warning, None, 0)])  # datasets' own, at import
    with pytest.raises(SystemExit) as left:
        data.read("nobody/nothing", CONFIG)
    assert left.value.code == 2
    assert "nobody/nothing (split train): no such file here, and the hub did not give it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("fields", "kind", "kept"),
    [
        ({"text": "a", "more": 1}, "text", {"text": "a"}),
        ({"text": "a", "prompt": "b", "completion": "c"}, "prompt_completion", {"prompt": "b", "completion": "c"}),
        ({"messages": TALK, "text": "a"}, "messages", {"messages": TALK}),
    ],
)
def test_the_richest_format_of_the_first_row_is_taken(data: Any, fields: dict, kind: str, kept: dict) -> None:
    config = dict(CONFIG)
    rows = data.check_sft([data.Row("a.jsonl", 1, fields)], config)
    assert config["format"] == kind
    assert [row.fields for row in rows] == [kept]


def test_the_named_format_beats_the_detected_one(data: Any) -> None:
    config = {**CONFIG, "format": "text", "text_field": "prompt"}
    rows = data.check_sft([data.Row("a.jsonl", 1, {"prompt": "b", "completion": "c"})], config)
    assert [row.fields for row in rows] == [{"text": "b"}]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"prompt": "a", "completion": 1}, '"completion" is a number'),
        ({"messages": "hi"}, '"messages" is not a list of messages'),
        ({"messages": []}, '"messages" is not a list of messages'),
        ({"messages": [{"role": "user"}]}, 'not an object with "role" and "content"'),
        ({"messages": [{"role": "bot", "content": "a"}]}, "the role 'bot' is none of"),
        ({"messages": [{"role": "user", "content": None}]}, "the content of a message is null"),
        ({"messages": TALK[:1]}, "no message is the assistant's"),
        ({"question": "a"}, 'neither "messages", nor "prompt" and "completion", nor "text"'),
    ],
)
def test_a_row_that_can_not_be_learnt_from_is_named(
    data: Any, capsys: pytest.CaptureFixture[str], fields: dict, words: str
) -> None:
    with pytest.raises(SystemExit):
        data.check_sft([data.Row("a.jsonl", 7, fields)], dict(CONFIG))
    assert "a.jsonl, row 7: " in (error := capsys.readouterr().err)
    assert words in error


def test_a_later_row_of_another_format_is_named(data: Any, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [data.Row("a.jsonl", 1, {"messages": TALK}), data.Row("a.jsonl", 2, {"text": "a"})]
    with pytest.raises(SystemExit):
        data.check_sft(rows, dict(CONFIG))
    assert 'a.jsonl, row 2: no field "messages"' in capsys.readouterr().err


def test_blank_rows_are_left_out_and_counted(data: Any, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [data.Row("a.jsonl", number, {"text": text}) for number, text in enumerate(["a", " ", "", "b"])]
    assert [row.fields["text"] for row in data.check_sft(rows, dict(CONFIG))] == ["a", "b"]
    assert "2 of 4 rows have a blank text and are left out" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("labels", "classes"),
    [(["b", "a", "b", "a"], ["a", "b"]), ([10, 9, 10, 9], ["9", "10"]), (["10", "9"] * 2, ["9", "10"])],
)
def test_classes_are_ordered_by_number_or_by_name(data: Any, labels: list, classes: list[str]) -> None:
    rows = [data.Row("a.jsonl", number, {"label": label}) for number, label in enumerate(labels)]
    assert data.classes_of(rows, "label") == classes


@pytest.mark.parametrize(("labels", "words"), [(["a"] * 5, "every row has the same"), (list("abcdef"), "no classes")])
def test_labels_that_are_no_classes_are_told(
    data: Any, capsys: pytest.CaptureFixture[str], labels: list[str], words: str
) -> None:
    rows = [data.Row("a.jsonl", number, {"label": label}) for number, label in enumerate(labels)]
    with pytest.raises(SystemExit):
        data.classes_of(rows, "label")
    assert words in capsys.readouterr().err


def test_held_out_rows_are_the_same_for_a_seed_and_no_row_is_in_both_parts(data: Any, tmp_path: Path) -> None:
    texts = [{"text": f"text {number}"} for number in range(40)]
    (tmp_path / "a.jsonl").write_text(jsonl(texts))
    config = {**CONFIG, "train": str(tmp_path / "a.jsonl"), "eval_fraction": 0.25}
    first, again, other = (data.load(dict(config), seed, data.check_sft) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    train, held_out = ([row.fields["text"] for row in part] for part in first)
    assert (len(train), len(held_out)) == (30, 10)
    assert sorted(train + held_out) == sorted(row["text"] for row in texts)


def test_max_rows_takes_from_everywhere_not_only_from_the_top(data: Any, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(jsonl([{"text": "x", "label": "a" if n < 50 else "b"} for n in range(100)]))
    config = {**CONFIG, "train": str(tmp_path / "a.jsonl"), "max_rows": 20}
    train, held_out = data.load(config, 0, data.check_labelled)
    assert (len(train), len(held_out)) == (20, 0)
    assert data.classes_of(train, "label") == ["a", "b"]


def test_too_few_rows_to_hold_any_out_are_told(data: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        data.hold_out([data.Row("a.jsonl", 1, {"text": "a"})], 1, 0)
    assert "of 1 rows, 1 can't be held out" in capsys.readouterr().err
