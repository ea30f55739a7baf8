"""What a notebook keeps of a training: one zip of whole files, each hashed as it is put in.

Standard library only, Python 3.9.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
import zipfile
from pathlib import Path
from typing import Any, Dict, Iterator, List

sys.path.insert(0, str(Path(__file__).resolve().parent))

import door

BESIDE = ("result.json", "summary.json", "metrics.jsonl", "log.txt")  # what goes with the artifacts


def contents(folder: Path, *, completed: bool) -> Iterator[Dict[str, Any]]:
    """Name what is kept: artifacts, what was said, and of what did not end well the newest whole checkpoint."""
    entries = door.manifest(folder)["entries"]
    made = [entry for entry in entries if str(entry["name"]).startswith("artifacts/")]
    yield from made
    seals = [str(entry["name"]) for entry in entries if str(entry["name"]).endswith("/CHECKPOINT.json")]
    if seals and not (made and completed):
        newest = max((name.split("/")[1] for name in seals), key=lambda name: int(name.rpartition("-")[2]))
        yield from (entry for entry in entries if str(entry["name"]).startswith(f"checkpoints/{newest}/"))
    for name in BESIDE:
        yield from door.small(folder, name)


def pack(target: Path, folder: Path, files: List[Dict[str, Any]]) -> int:
    """Write the files into one zip, as they are: weights don't shrink. Gives its size.

    Raises:
        OSError: one is not what it was when it was whole, or the disk is full.
    """
    aside = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        with zipfile.ZipFile(aside, "w", zipfile.ZIP_STORED) as archive:
            for entry in files:
                put(archive, folder / entry["name"], entry)
            sums = "".join(f"{entry['sha256']}  {entry['name']}\n" for entry in files)
            archive.writestr("SHA256SUMS", sums)
        aside.replace(target)
    finally:
        with contextlib.suppress(FileNotFoundError):
            aside.unlink()
    return target.stat().st_size


def put(archive: zipfile.ZipFile, path: Path, entry: Dict[str, Any]) -> None:
    """Put one file in, and hash what was put."""
    digest = hashlib.sha256()
    with path.open("rb") as source, archive.open(str(entry["name"]), "w", force_zip64=True) as into:
        for block in iter(lambda: source.read(1 << 20), b""):
            digest.update(block)
            into.write(block)
    if digest.hexdigest() != entry["sha256"]:
        raise OSError(f"{entry['name']} is not what the training left")
