"""What one attempt brought into the store, read as if it were the machine: `providers.base.Remote` without a machine.

    log.txt metrics.jsonl · CHECKPOINT.json -> parts · files.json, result.json (last) -> artifacts     payload/README.md

A seal is believed by its hashes only: every file is verified on its way home. What the store holds was written by a
machine: names lead to no place outside the folder that they are brought to.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from orchestrator.store import open_store
from providers import wire
from providers.base import Entry, Manifest, RemoteStatus
from providers.errors import IntegrityError, RemoteError, UnreachableError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from hashlib import _Hash as HASH
    from pathlib import Path
    from typing import BinaryIO

    from orchestrator.store import Address, Store
    from providers.base import Job, Order

_TRIES = 5  # of one part, each from where the last one was cut
_PIECE = 4 * 2**20  # bytes of the log at once


@dataclass(frozen=True, slots=True)
class Filed:
    """One file in the store: its parts' keys and sizes, in order."""

    entry: Entry
    parts: tuple[tuple[str, int], ...]


class StoreRemote:
    """One attempt in a store. Nothing is asked before the first verb."""

    def __init__(
        self,
        address: Address,
        run_id: str,
        attempt: int,
        *,
        go_on: Callable[[], None] | None = None,
        store: Store | None = None,
    ) -> None:
        self._opened = store
        self._address = address
        self._prefix = address.attempt(run_id, attempt)
        self._go_on = go_on or (lambda: None)

    @property
    def _store(self) -> Store:
        if self._opened is None:
            self._opened = open_store(self._address)
        return self._opened

    # ── what is there ───────────────────────────────────────────────────────────────────────────

    def is_whole(self) -> bool:
        """Say whether the attempt's result is there, and every file that it names, by size.

        Raises:
            ProviderError: the store can't be asked, which says nothing about what is there.
        """
        files = self._final()
        if not files:
            return False
        there = {one.key: one.size for one in self._store.kept(self._prefix)}
        return all(there.get(self._prefix + key) == size for file in files for key, size in file.parts)

    def newest_step(self) -> int:
        """Give the step of the newest whole checkpoint; -1 = there is none."""
        found = self._checkpoints()
        return max(found, default=-1)

    def named(self, *, results_only: bool = False) -> set[str]:
        """Name the keys, below the attempt's prefix, that a seal names; `results_only` = no checkpoint's."""
        return {key for file in (self._results() if results_only else self._all()) for key, _ in file.parts}

    def kinds(self) -> set[str]:
        """Tell what there is beside checkpoints: "artifacts" of a whole result, what a user's own script had "left"."""
        named = any(file.entry.name.startswith("artifacts/") for file in self._final())
        made = {"artifacts"} if named and self.is_whole() else set()
        return made | {"left"} if self._left() else made

    def status(self) -> RemoteStatus:
        """Tell how it ended: EXITED with its reason, or without one where no result came."""
        content = self._store.get(self._prefix + "result.json")
        return wire.status_of({"result": _object(content), "agent": False, "began": True}, 0.0)

    def manifest(self) -> Manifest:
        """Name the whole files."""
        files = self._all()
        return Manifest(tuple(file.entry for file in files), final=any(f.entry.name == "result.json" for f in files))

    def logs(self, offset: int) -> bytes:
        """Give the log from an offset; empty = no more of it was brought."""
        size = self._store.size(self._prefix + "log.txt")
        if size is None or size <= offset:
            return b""
        pieces, got = [], 0
        for piece in self._store.stream(self._prefix + "log.txt", offset):
            pieces.append(piece)
            got += len(piece)
            if got >= _PIECE:
                break
        return b"".join(pieces)

    def fetch(self, names: Sequence[str], dest: Path) -> None:
        """Bring files under `dest`, each verified by its sha256; what is there and right already is left."""
        known = {file.entry.name: file for file in self._all()}
        for name in names:
            target = wire.inside(dest, name)
            if name not in known:
                raise RemoteError(f"{name!r} is not in the store (any more)")
            if not _is_there(target, known[name].entry):
                self._bring(known[name], target)

    def start(self, job: Job) -> None:
        """Refuse: there is no machine."""
        raise RemoteError(f"{job.mark} has no machine to start on")

    def tell(self, order: Order) -> None:
        """Refuse: there is nobody to tell."""
        raise RemoteError(f"nobody is there to be told: {order.kind}")

    def close(self) -> None:
        """Nothing is held."""

    # ── reading ─────────────────────────────────────────────────────────────────────────────────

    def _all(self) -> list[Filed]:
        files = [file for _, listed in sorted(self._checkpoints().items()) for file in listed]
        return [*files, *self._results()]

    def _results(self) -> list[Filed]:
        return [*self._final(), *self._left()]

    def _left(self) -> list[Filed]:
        """Read what a user's own script had left and no result took over: a late agent can't hash all at the end."""
        final = {file.entry.name for file in self._final()}
        if final and _object(self._store.get(self._prefix + "result.json")).get("reason") == "completed":
            return []
        return [file for file in self._so_far() if file.entry.name not in final]

    def _checkpoints(self) -> dict[int, list[Filed]]:
        """Read the files of each checkpoint that the seal names."""
        said = _object(self._store.get(self._prefix + "CHECKPOINT.json")).get("checkpoints")
        found: dict[int, list[Filed]] = {}
        for one in said if isinstance(said, list) else []:
            step, listed = (one.get("step"), one.get("files")) if isinstance(one, dict) else (None, None)
            files = [_filed(fact) for fact in listed] if isinstance(listed, list) else []
            whole = [file for file in files if file is not None]
            if isinstance(step, int) and whole and len(whole) == len(files):
                found[step] = whole
        return found

    def _so_far(self) -> list[Filed]:
        """Read what a user's own script had left by the time it was seen last; each file is whole, the whole is not."""
        said = _object(self._store.get(self._prefix + "SOFAR.json")).get("files")
        files = [_filed(fact) for fact in said] if isinstance(said, list) else []
        return [file for file in files if file is not None and file.entry.name.startswith("artifacts/")]

    def _final(self) -> list[Filed]:
        """Read what files.json names, where the result.json that seals it is there and the one that it names."""
        result = self._store.get(self._prefix + "result.json")
        if result is None:
            return []
        said = _object(self._store.get(self._prefix + "files.json")).get("files")
        files = [_filed(fact) for fact in said] if isinstance(said, list) else []
        whole = [file for file in files if file is not None]
        sealed = {file.entry.sha256 for file in whole if file.entry.name == "result.json"}
        return whole if len(whole) == len(files) and sealed == {sha256(result).hexdigest()} else []

    def _bring(self, file: Filed, target: Path) -> None:
        """Write aside, verify, move into place."""
        aside = target.with_name(f".{target.name[:100]}.{os.getpid()}.part")
        digest = sha256()
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with aside.open("wb") as out:
                for key, size in file.parts:
                    self._bring_part(self._prefix + key, size, out, digest)
                out.flush()
                os.fsync(out.fileno())
            if digest.hexdigest() != file.entry.sha256:
                raise IntegrityError(f"{file.entry.name!r} in the store is not what its seal names")
            aside.replace(target)
        except OSError as error:
            raise RemoteError(f"{target} can't be written: {error.strerror or error}") from error
        finally:
            aside.unlink(missing_ok=True)

    def _bring_part(self, key: str, size: int, out: BinaryIO, digest: HASH) -> None:
        done = 0
        for trial in range(1, _TRIES + 1):
            try:
                for block in self._store.stream(key, done) if size > done else ():
                    self._go_on()
                    out.write(block)
                    digest.update(block)
                    done += len(block)
            except UnreachableError:
                if trial == _TRIES:
                    raise
            if done >= size:
                break
        if done != size:
            raise IntegrityError(f"{key} has {done} bytes, not {size}")


def _filed(fact: object) -> Filed | None:
    """Read one line of a seal; None = it makes no sense."""
    entry = wire.entry_of(fact)
    parts = fact.get("parts") if isinstance(fact, dict) else None
    if entry is None or not isinstance(parts, list):
        return None
    found = [(part[0], part[1]) for part in parts if isinstance(part, list) and len(part) == 3]
    sound = all(isinstance(key, str) and ".." not in key and isinstance(size, int) for key, size in found)
    whole = len(found) == len(parts) and sound and sum(size for _, size in found) == entry.size
    return Filed(entry, tuple(found)) if whole else None


def _is_there(target: Path, entry: Entry) -> bool:
    plain = target.is_file() and not target.is_symlink() and target.stat().st_size == entry.size
    return plain and wire.digest_of(target) == entry.sha256


def _object(content: bytes | None) -> Mapping[str, Any]:
    try:
        found = json.loads(content or b"{}")
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
