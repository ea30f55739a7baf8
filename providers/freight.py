"""What a job ships to a machine, named by its content, and what the machine is told of it (payload/door.py).

    Job ──> bundle, data, checkpoint as `Item`s ──> seed: what is wanted, how to arm ──> begin: what goes where

No bytes are moved here. Files are the user's: they may change or go away at any time, which is told from a machine
that took them wrongly.
"""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING

from providers import wire
from providers.errors import HostKeyError, RemoteError, StartError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from providers.base import Job


_FIRST = (*wire.GUARDS, "place.py", "fetch.py", "door.py")  # the door last: where it is, all are


@dataclass(frozen=True, slots=True)
class Item:
    """One file to ship: it travels under its content's name, and gets its own on the machine."""

    sha256: str
    size: int
    path: Path
    name: str


@dataclass(frozen=True, slots=True)
class Freight:
    """All of one job."""

    bundle: Item
    data: tuple[Item, ...]
    seed: tuple[Item, ...]  # of the checkpoint to carry on from

    def items(self) -> dict[str, Item]:
        """Give every file once, by its content."""
        return {item.sha256: item for item in (self.bundle, *self.data, *self.seed)}

    def want(self) -> list[list[object]]:
        """Spell what is to be there."""
        return [[item.sha256, item.size] for item in self.items().values()]

    def begin(self, job: Job) -> dict[str, object]:
        """Spell the request that puts all of it into place. It holds secrets."""
        return {
            "job": wire.job_json(job),
            "want": self.want(),
            "bundle": self.bundle.sha256,
            "data": [[item.name, item.sha256] for item in self.data],
            "step": job.checkpoint.name if job.checkpoint is not None else "",
            "seed": [[item.name, item.sha256] for item in self.seed],
            "secrets": {name: secret.reveal() for name, secret in job.secrets.items()},
            "store": None if job.store is None else json.loads(job.store.reveal()),
        }


def freight_of(job: Job) -> Freight:
    """Name all that is to be shipped.

    Raises:
        StartError: some of it can't be read here.
    """
    try:
        bundle = Item(wire.digest_of(job.bundle), job.bundle.stat().st_size, job.bundle, "")
        data = tuple(Item(blob.sha256, blob.size, blob.path, blob.name) for blob in job.blobs)
        return Freight(bundle, data, tuple(_checkpoint(job.checkpoint)) if job.checkpoint is not None else ())
    except (OSError, ValueError) as error:
        raise StartError(f"what is to be shipped can't be read here: {error}") from error


def _checkpoint(folder: Path) -> Iterable[Item]:
    """Name the files of a checkpoint; its seal knows their hashes, as it did when it was brought home."""
    seal = json.loads((folder / "CHECKPOINT.json").read_bytes())
    known = seal.get("files") if isinstance(seal, dict) else None
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        entry = wire.entry_of({"name": name, **(known.get(name) or {})} if isinstance(known, dict) else None)
        size = path.stat().st_size
        digest = entry.sha256 if entry is not None and entry.size == size else wire.digest_of(path)
        yield Item(digest, size, path, name)


def guards() -> dict[str, str]:
    """Give what must lie on the machine before anything else is shipped."""
    payload = files("payload")
    return {name: payload.joinpath(name).read_text(encoding="utf-8") for name in _FIRST}


def arm_of(job: Job, ahead: float) -> dict[str, object]:
    """Spell the watchdog's orders; `ahead` = seconds by which the clock of the job's limits is ahead of ours."""
    left = max(1.0, job.ceiling.timestamp() - ahead - time.time())  # steady seconds: a machine's clock may be wrong
    return {**wire.arm_json(job), "max_seconds": min(job.max_seconds, left)}


def must_be_the_same(item: Item) -> None:
    """Look at a file of the user's again.

    Raises:
        StartError: it is not what it was at the launch.
    """
    try:
        same = wire.digest_of(item.path) == item.sha256
    except OSError:
        same = False
    if not same:
        raise StartError(f"{item.path} changed since the launch: launch again", permanent=True)


@contextlib.contextmanager
def blamed(items: Iterable[Item]) -> Iterator[None]:
    """Tell the user's own files that changed or went away from a machine that took them wrongly."""
    try:
        yield
    except HostKeyError:
        raise
    except RemoteError:
        for item in items:
            must_be_the_same(item)
        raise
