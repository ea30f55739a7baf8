"""What the user's data look like, for the plan: rows counted, the first one shown. Whatever can't be read is left out.

The payload checks every row before it loads a model; this is for the eye, before any money moves.
"""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING

from orchestrator.explain import show
from orchestrator.render import size

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from orchestrator.data_files import DataFile

_MOST_BYTES = 2**30  # of one file: counting more would keep the user waiting
_MOST_FILES = 4
_BLOCK = 2**20


def remarks(files: Iterable[DataFile], hashes: Mapping[str, str] | None = None) -> tuple[tuple[str, str], ...]:
    """Give the plan's lines on the data; none where nothing is shipped. `hashes` = their sha256 by name."""
    data = [file for file in files if "data" in file.setting]
    lines = [_line(file, (hashes or {}).get(file.name, "")) for file in data[:_MOST_FILES]]
    if len(data) > _MOST_FILES:
        lines.append(f"and {len(data) - _MOST_FILES} more files")
    return (("data", "\n".join(lines)),) if lines else ()


def _line(file: DataFile, digest: str) -> str:
    count, first = rows(file.path), _first(file.path)
    many = "" if count is None else f", {count:,} row{'' if count == 1 else 's'}"
    whence = f" from {file.source}" if file.source else ""
    known = f", sha256 {digest[:12]}…" if digest else ""
    begin = f", first: {show(first)}" if first else ""
    return f"{file.name}{whence}: {size(file.path.stat().st_size)}{many}{known}{begin}"


def rows(path: Path) -> int | None:
    """Count the rows of a JSONL or CSV file, blank lines left out; None = not counted."""
    suffix = path.suffix.lower()
    if suffix not in {".jsonl", ".csv", ".tsv"} or path.stat().st_size > _MOST_BYTES:
        return None
    try:
        if suffix == ".jsonl":
            with path.open("rb") as file:
                return sum(1 for line in file if line.strip())
        with path.open(encoding="utf-8-sig", newline="") as text:
            return max(sum(1 for row in csv.reader(text) if row) - 1, 0)
    except (OSError, ValueError, csv.Error):
        return None


def _first(path: Path) -> str:
    """Give the beginning of the first row."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            line = next((line for line in iter(lambda: file.readline(_BLOCK), "") if line.strip()), "")
    except (OSError, ValueError):
        return ""
    if path.suffix.lower() == ".jsonl":
        try:
            return json.dumps(json.loads(line), ensure_ascii=False)
        except ValueError:
            return ""
    return line.strip() if path.suffix.lower() in {".csv", ".tsv", ".txt"} else ""
