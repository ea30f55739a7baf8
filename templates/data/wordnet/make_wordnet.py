"""Make the demo's rows from WordNet 3.0: which lexical class does a definition belong to?

    apt-get install wordnet-base
    python make_wordnet.py            # writes train.jsonl, eval.jsonl, glosses.jsonl, LICENSE beside this file
    python make_wordnet.py --check    # exit 1 unless the files here are what it would write

The same database gives the same bytes: rows are ordered by the SHA-256 of their text, never by chance.
Source format: `man 5WN wndb` ("synset_offset lex_filenum ss_type w_cnt word lex_id … | gloss").
"""
# ruff: noqa: INP001, T201 (a script that lies beside its data and reports to a terminal)

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

HERE = Path(__file__).resolve().parent
DATABASE = Path("/usr/share/wordnet")

# Lexicographer files (`man 5WN lexnames`) whose definitions say what a thing is, so that a reader can tell them apart.
CLASSES = {
    5: "animal",
    6: "artifact",
    8: "body",
    13: "food",
    15: "location",
    18: "person",
    20: "plant",
    27: "substance",
}
TRAIN_ROWS = 3000
EVAL_ROWS = 800
GLOSS_ROWS = 4000

# WordNet marks its own insults; a demo needs none of them.
_UNFIT = re.compile(r"slur|offensive|disparag|obscen|vulgar|insult|derogat|contempt|abusive|sexual|prostitut|genital")


class Synset(NamedTuple):
    """One meaning: its lexical class by number, its first word, its definition without the examples."""

    lexname: int
    word: str
    gloss: str


def synsets(lines: Iterable[str]) -> Iterator[Synset]:
    """Read a data file of WordNet. The licence at its top is indented by two blanks, which no entry is."""
    for line in lines:
        if line.startswith("  "):
            continue
        entry, _, gloss = line.partition("| ")
        _offset, lexname, _kind, _count, word = entry.split(" ", 5)[:5]
        definition = gloss.split('; "', 1)[0].split('"', 1)[0].strip().rstrip(";:,").strip()
        word = re.sub(r"\((a|p|ip)\)$", "", word).replace("_", " ")  # "(p)": predicative only, a grammatical note
        yield Synset(int(lexname), word, definition)


def fit(synset: Synset) -> bool:
    """Tell whether a row is long enough to say something and fit to be shown to anyone."""
    return len(synset.gloss) >= 20 and not _UNFIT.search(f"{synset.word} {synset.gloss}".lower())


def digest(text: str) -> str:
    """Give a text its place in the order."""
    return hashlib.sha256(text.encode()).hexdigest()


def labelled(nouns: Iterable[Synset]) -> list[dict[str, str]]:
    """Pair each definition with its class. One that stands under two classes is dropped; repeats count once."""
    labels: dict[str, set[str]] = {}
    texts: dict[str, str] = {}
    for synset in nouns:
        if synset.lexname in CLASSES and fit(synset):
            key = " ".join(synset.gloss.casefold().split())
            labels.setdefault(key, set()).add(CLASSES[synset.lexname])
            texts.setdefault(key, synset.gloss)
    keys = sorted((key for key, names in labels.items() if len(names) == 1), key=digest)
    return [{"text": texts[key], "label": next(iter(labels[key]))} for key in keys]


def worded(all_synsets: Iterable[Synset]) -> list[dict[str, str]]:
    """Give "word: definition" as running text and as prompt and completion, each word once."""
    first: dict[str, str] = {}
    for synset in all_synsets:
        if fit(synset) and synset.word.isascii() and synset.word.islower():  # no names: they are half of all nouns
            first.setdefault(synset.word, synset.gloss)
    words = sorted(first, key=digest)
    return [{"text": f"{word}: {first[word]}", "prompt": f"{word}:", "completion": f" {first[word]}"} for word in words]


def licence(lines: Iterable[str]) -> str:
    """Take the licence from the top of a data file, where Princeton put it, line numbers removed."""
    head = [re.sub(r"^  \d+ ?", "", line).rstrip() for line in lines if line.startswith("  ")]
    return "\n".join(head).strip() + "\n"


def jsonl(rows: Iterable[dict[str, str]]) -> str:
    """Spell rows as JSON lines."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def build(database: Path, train: int, held_out: int, glosses: int) -> dict[str, str]:
    """Make the text of every file from the database's folder."""
    lines = {part: (database / f"data.{part}").read_text("utf-8").splitlines() for part in ("noun", "verb", "adj")}
    rows = labelled(synsets(lines["noun"]))[: train + held_out]
    every = (synset for part in lines.values() for synset in synsets(part))
    return {
        "eval.jsonl": jsonl(rows[:held_out]),
        "train.jsonl": jsonl(rows[held_out:]),
        "glosses.jsonl": jsonl(worded(every)[:glosses]),
        "LICENSE": licence(lines["noun"]),
    }


def main() -> int:
    """Write the files, or compare them with `--check`."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    parser.add_argument("--database", type=Path, default=DATABASE, help=f"WordNet's folder (default {DATABASE})")
    arguments = parser.parse_args()
    if not (arguments.database / "data.noun").is_file():
        print(f"error: no WordNet in {arguments.database}; Debian: apt-get install wordnet-base", file=sys.stderr)
        return 2
    stale = []
    for name, text in build(arguments.database, TRAIN_ROWS, EVAL_ROWS, GLOSS_ROWS).items():
        path = HERE / name
        if arguments.check and (not path.is_file() or path.read_bytes() != text.encode()):
            stale.append(name)
        elif not arguments.check:
            path.write_bytes(text.encode())
            print(f"{name}: {len(text.splitlines())} lines")
    if stale:
        print(f"error: differs from what WordNet gives: {', '.join(stale)}", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    raise SystemExit(main())
