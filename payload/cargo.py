"""What lies in a job's folder for the store: whole checkpoints, files as seals name them. Only looks.

Standard library only, Python 3.9.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from typing import TYPE_CHECKING, Any, BinaryIO, Dict, Iterator, List, NamedTuple, Optional, Set

if TYPE_CHECKING:
    from pathlib import Path

OPEN_FILES = 200  # of one checkpoint, held open: the training may delete it meanwhile


class File(NamedTuple):
    """A file to bring there, as its seal names it."""

    name: str
    size: int
    sha256: str


class Checkpoint(NamedTuple):
    """A checkpoint that is whole on this disk."""

    step: int
    seal: str  # sha256 of its CHECKPOINT.json
    files: List[File]  # that seal among them, last


def newest(folder: Path, after: int, spoiled: Set[str]) -> Optional[Checkpoint]:
    """Find the newest checkpoint of a later step whose seal is there, and every file of it; None = there is none."""
    steps = [int(path.name[5:]) for path in folder.glob("checkpoints/step-*") if path.name[5:].isdigit()]
    for step in sorted((step for step in steps if step > after), reverse=True):
        base = f"checkpoints/step-{step}"
        content = read_bytes(folder / base / "CHECKPOINT.json")
        listed = as_object(content).get("files")
        named = [file_of({**fact, "name": f"{base}/{name}"}) for name, fact in (listed or {}).items()]
        files = [file for file in named if file is not None]
        seal = hashlib.sha256(content).hexdigest()
        if not files or len(files) < len(named) or seal in spoiled:
            continue
        if all(size_of(folder / file.name) == file.size for file in files):
            files.append(File(f"{base}/CHECKPOINT.json", len(content), seal))
            return Checkpoint(step, seal, files)
    return None


@contextlib.contextmanager
def opened(folder: Path, files: List[File]) -> Iterator[Dict[str, BinaryIO]]:
    """Open files at once, so that they stay readable when the training deletes them; very many one by one."""
    with contextlib.ExitStack() as held:
        handles: Dict[str, BinaryIO] = Lazy(folder, held)
        for file in files[:OPEN_FILES]:
            handles[file.name]
        yield handles


class Lazy(Dict[str, BinaryIO]):
    """Handles by name, each opened when it is first asked for."""

    def __init__(self, folder: Path, held: contextlib.ExitStack) -> None:
        super().__init__()
        self.folder, self.held = folder, held

    def __missing__(self, name: str) -> BinaryIO:
        """Open it now."""
        self[name] = self.held.enter_context((self.folder / name).open("rb"))
        return self[name]


def file_of(fact: Any) -> Optional[File]:
    """Read what a seal says of a file; None = it makes no sense, or leads outside."""
    if not isinstance(fact, dict):
        return None
    name, size, sha256 = fact.get("name"), fact.get("size"), fact.get("sha256")
    if not isinstance(name, str) or not isinstance(size, int) or not isinstance(sha256, str) or size < 0:
        return None
    return None if name.startswith("/") or ".." in name.split("/") else File(name, size, sha256)


def as_object(content: bytes) -> Dict[str, Any]:
    """Read a JSON object; {} = it is none."""
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def read_bytes(path: Path) -> bytes:
    """Read a small file; empty = it is not there."""
    try:
        return path.read_bytes()
    except OSError:
        return b""


def size_of(path: Path) -> int:
    """Size of a file in bytes; -1 = it is not there."""
    try:
        return path.stat().st_size
    except (OSError, ValueError):
        return -1
