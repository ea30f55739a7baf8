"""The demo's rows: made from WordNet the same way each time, and fit for what the demo claims."""

from __future__ import annotations

import importlib.util
import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from types import ModuleType

FOLDER = Path(__file__).parents[2] / "templates" / "data" / "wordnet"
LICENCE = "  1 This software and database is being provided  \n  2 by Princeton University  \n"
ENTRY = "{number:08d} {lexname:02d} n 01 {word} 0 001 @ 00001740 n 0000 | {gloss}  \n"


@pytest.fixture(scope="module")
def wordnet() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_wordnet", FOLDER / "make_wordnet.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def entry(lexname: int, word: str, gloss: str, number: int = 1) -> str:
    return ENTRY.format(number=number, lexname=lexname, word=word, gloss=gloss)


def rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (FOLDER / name).read_text(encoding="utf-8").splitlines()]


def test_an_entry_gives_class_word_and_definition_without_examples(wordnet: ModuleType) -> None:
    lines = [LICENCE.splitlines(keepends=True)[0], entry(5, "sea_lion", 'a large seal of the Pacific; "it barked"')]
    assert list(wordnet.synsets(lines)) == [wordnet.Synset(5, "sea lion", "a large seal of the Pacific")]


def test_a_definition_under_two_classes_is_dropped_and_a_repeated_one_counts_once(wordnet: ModuleType) -> None:
    two = "a thing that is found in two classes"
    once = "an animal that is described twice"
    synsets = [(5, two), (6, two), (5, once), (5, once.upper()), (3, "something in a class that is not taken")]
    found = wordnet.labelled(wordnet.Synset(lexname, "x", gloss) for lexname, gloss in synsets)
    assert found == [{"text": once, "label": "animal"}]


def test_what_is_too_short_or_marked_as_an_insult_is_left_out(wordnet: ModuleType) -> None:
    glosses = ["a dog", "(ethnic slur) a word that nobody needs here", "a person who builds wooden boats"]
    assert [row["text"] for row in wordnet.labelled(wordnet.Synset(18, "x", gloss) for gloss in glosses)] == glosses[2:]


def test_the_same_database_gives_the_same_files(wordnet: ModuleType, tmp_path: Path) -> None:
    nouns = [entry(5 + number % 2, f"word{number}", f"definition that says number {number}") for number in range(40)]
    for part in ("noun", "verb", "adj"):
        (tmp_path / f"data.{part}").write_text(LICENCE + "".join(nouns if part == "noun" else []))
    made = wordnet.build(tmp_path, 20, 10, 8)
    assert made == wordnet.build(tmp_path, 20, 10, 8)
    assert {name: len(text.splitlines()) for name, text in made.items()} == {
        "train.jsonl": 20,
        "eval.jsonl": 10,
        "glosses.jsonl": 8,
        "LICENSE": 2,
    }
    assert made["LICENSE"] == "This software and database is being provided\nby Princeton University\n"


def test_no_held_out_text_is_in_the_training_rows() -> None:
    train, held_out = (
        {" ".join(row["text"].casefold().split()) for row in rows(f"{n}.jsonl")} for n in ("train", "eval")
    )
    assert len(train) == len(rows("train.jsonl"))
    assert not train & held_out


def test_the_commonest_class_is_below_35_percent_and_every_class_is_in_both_parts() -> None:
    counts = {name: Counter(row["label"] for row in rows(name)) for name in ("train.jsonl", "eval.jsonl")}
    assert counts["train.jsonl"].keys() == counts["eval.jsonl"].keys()
    for count in counts.values():
        assert max(count.values()) < 0.35 * sum(count.values())
        assert min(count.values()) > 0.03 * sum(count.values())


def test_a_gloss_reads_the_same_whole_and_in_two_parts() -> None:
    glosses = rows("glosses.jsonl")
    assert len({row["prompt"] for row in glosses}) == len(glosses) >= 3000
    assert all(row["text"] == row["prompt"] + row["completion"] for row in glosses)


def test_the_licence_lies_beside_the_rows() -> None:
    assert "WordNet 3.0 Copyright 2006 by Princeton University" in (FOLDER / "LICENSE").read_text()
