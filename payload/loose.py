"""What no result names yet, for the store: a user's own script's files that have rested for a while.

    loose = Loose(folder)
    loose.bring(uploader, time.monotonic, over=False)  # code/outputs/checkpoint-500/model.bin -> artifacts/outputs/…

A script seals nothing, so a file counts as whole once its size and time have not changed for a while; its bytes are
hashed as they leave, and it is named only where it is still the same then. What is there at the end goes in any case,
and what any training left in artifacts/ too, where its agent died without a result.
Standard library only, Python 3.9.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Set, Tuple

from cargo import File
from courier import ChangedError, NoRoomError

if TYPE_CHECKING:
    from upload import Uploader

PLACES = (("code/artifacts", "artifacts"), ("code/outputs", "artifacts/outputs"))  # as outcome.py brings them in
RESTS = 30.0  # seconds unchanged
AT_ONCE = 20.0  # seconds of such files: then the log has its turn
MOST = 5000  # files that are brought
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
        self.full = ""  # what found no slot there
        self.unseen = ""  # what was not looked at

    def bring(self, uploader: Uploader, now: Callable[[], float], *, over: bool) -> str:
        """Bring what rests, and have SOFAR.json name it; says what is not there once all is `over`, "" = nothing."""
        rested, lacking = self.resting(now(), over=over), ""
        kept = {name: fact for name, fact in uploader.so_far.items() if name in self.since}
        until = now() + AT_ONCE
        for file in rested if over or not self.full else ():
            if file.name in kept and kept[file.name]["stamp"] == list(file.stamp):
                continue
            if not over and (now() > until or uploader.is_over()):
                break
            try:
                fact = sent(uploader, file)
            except NoRoomError as error:
                self.full = f"{file.name} is not there: {error}"
                break
            if fact is None:
                lacking = f"{file.name} is not there: it can't be read, or is written to"
            else:
                kept[file.name] = fact
        else:
            self.full = "" if over else self.full
        if kept != uploader.so_far:
            try:
                uploader.name_so_far(kept)
            except NoRoomError as error:
                self.full = str(error)
        if over and self.full and uploader.courier.takes("SOFAR.json"):
            uploader.make_room(1)
        return (self.full or lacking or self.unseen) if over else ""

    def resting(self, now: float, *, over: bool = False) -> List[Found]:
        """Name what rests, the oldest first; once all is `over` everything does. `now` is in steady seconds."""
        there = sorted(self.there(over=over), key=lambda file: (file.name not in self.since, file.stamp[1]))
        if len(there) > MOST:
            self.unseen = f"{len(there) - MOST} files beyond {MOST} are not there"
        found = {file.name: file for file in there[:MOST]}
        before, self.since = self.since, {}
        for name, file in found.items():
            stamp, since = before.get(name, (file.stamp, now))
            self.since[name] = (file.stamp, since if stamp == file.stamp else now)
        rested = [file for name, file in found.items() if over or now - self.since[name][1] >= RESTS]
        return sorted(rested, key=lambda file: file.stamp[1])

    def there(self, *, over: bool = False) -> List[Found]:
        """Find every file, where the script wrote it or where the agent has put it when the script was over."""
        self.unseen = ""
        found: Dict[str, Found] = {}
        for place, target in PLACES:
            root = self.folder / place
            here = list(files(root, target, self.miss))
            if root.is_dir():
                self.had.add(place)
            elif place in self.had:  # moved, perhaps while we looked
                here = list(files(self.folder / target, target, self.miss))
            found.update((file.name, file) for file in here)
        left = files(self.folder / "artifacts", "artifacts", self.miss) if over else ()
        return list({**{file.name: file for file in left}, **found}.values())

    def miss(self, error: OSError) -> None:
        """Remember what can't be looked at; what has just gone need not be."""
        if not isinstance(error, FileNotFoundError):
            self.unseen = f"{Path(str(error.filename)).name} can't be read"


def sent(uploader: Uploader, file: Found) -> Optional[Dict[str, Any]]:
    """Bring one file; None = it can't be read, or is another by now.

    Raises:
        NoRoomError: there is no slot for it.
    """
    try:
        with file.path.open("rb") as handle:
            fact = uploader.bring_file(File(file.name, file.size, ""), handle)
            same = stamp_of(os.fstat(handle.fileno())) == file.stamp
    except (ChangedError, OSError):
        return None
    return {**fact, "stamp": list(file.stamp)} if same else None


def files(root: Path, target: str, miss: Callable[[OSError], None]) -> Iterator[Found]:
    """Go through regular files; links lead elsewhere."""
    for base, _, names in os.walk(root, onerror=miss) if not root.is_symlink() else ():
        for name in names:
            path = Path(base, name)
            try:
                known = path.lstat()
            except OSError as error:
                miss(error)
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
