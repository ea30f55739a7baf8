"""What a user's own script leaves while it runs, for the store: files that have rested for a while. Only looks.

    loose = Loose(folder)
    for file in loose.resting(now): …      # code/outputs/checkpoint-500/model.safetensors -> artifacts/outputs/…

A script seals nothing, so a file counts as whole once its size and time have not changed for a while; its bytes are
hashed as they leave, and it is named only where it is still the same then. What is there at the end goes in any case.
Standard library only, Python 3.9.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Dict, Iterator, List, NamedTuple, Set, Tuple

PLACES = (("code/artifacts", "artifacts"), ("code/outputs", "artifacts/outputs"))  # as outcome.py brings them in
RESTS = 30.0  # seconds unchanged
MOST = 5000  # files that are looked at
Stamp = Tuple[int, int, int]


class Found(NamedTuple):
    """One file as it lies there now."""

    name: str  # among the job's artifacts
    path: Path
    size: int
    stamp: Stamp


class Loose:
    """One script's folders, and since when each file in them is as it is."""

    def __init__(self, folder: Path, *, known: bool = False) -> None:
        """`known`: a life before this one saw such files."""
        self.folder = folder
        self.had: Set[str] = {place for place, _ in PLACES} if known else set()
        self.since: Dict[str, Tuple[Stamp, float]] = {}

    def resting(self, now: float, *, over: bool = False) -> List[Found]:
        """Name what rests, the oldest first; once all is `over` everything does. `now` is in steady seconds."""
        found = {file.name: file for file in self.there()}
        before, self.since = self.since, {}
        for name, file in found.items():
            stamp, since = before.get(name, (file.stamp, now))
            self.since[name] = (file.stamp, since if stamp == file.stamp else now)
        rested = [file for name, file in found.items() if over or now - self.since[name][1] >= RESTS]
        return sorted(rested, key=lambda file: file.stamp[1])

    def there(self) -> List[Found]:
        """Find every file, where the script wrote it or where the agent has put it when the script was over."""
        found: List[Found] = []
        for place, target in PLACES:
            root = self.folder / place
            here = list(files(root, target))
            if root.is_dir():
                self.had.add(place)
            elif place in self.had:  # moved, perhaps while we looked
                here = list(files(self.folder / target, target))
            found += here
        return found[:MOST]


def files(root: Path, target: str) -> Iterator[Found]:
    """Go through regular files; links lead elsewhere."""
    for base, _, names in os.walk(root) if not root.is_symlink() else ():
        for name in names:
            path = Path(base, name)
            try:
                known = path.lstat()
            except OSError:
                continue
            if stat.S_ISREG(known.st_mode):
                yield Found(f"{target}/{path.relative_to(root).as_posix()}", path, known.st_size, stamp_of(known))


def stamp_of(known: os.stat_result) -> Stamp:
    """Tell a file from what it was before."""
    return (known.st_size, known.st_mtime_ns, known.st_ino)


def stamp_at(path: Path) -> Stamp:
    """Tell a file from one that was moved into its place."""
    try:
        return stamp_of(path.stat())
    except OSError:
        return (0, 0, 0)
