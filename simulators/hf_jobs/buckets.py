"""Buckets: folders on this disk. What a client uploads comes through xet, with a store of its own for each token.

    write token ─> casUrl "local://<fresh folder>"      hf_xet writes there, as its release wheels do since 1.6
    /batch      ─> that store is copied, read by hash, and its files get their names
    read token  ─> a store made of the bucket's files          GET resolve ─> the bytes themselves

hf_xet holds an exclusive lock on a store as long as it lives: nobody opens one that a client was given.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


class NoFileError(LookupError):
    """What was named is not there."""


@dataclass(slots=True)
class Bucket:
    """One bucket; `late` hides what is younger than so many of our seconds, by prefix."""

    id: str
    folder: Path
    private: bool
    created: float
    late: dict[str, float] = field(default_factory=dict)
    hashes: dict[str, tuple[tuple[float, int], str]] = field(default_factory=dict)

    def place(self, path: str) -> Path:
        """Find a file's place.

        Raises:
            NoFileError: such a path leads nowhere.
        """
        parts = PurePosixPath(path).parts
        if not parts or path.startswith("/") or ".." in parts:
            raise NoFileError(path)
        return self.folder.joinpath(*parts)

    def names(self, prefix: str = "") -> Iterator[str]:
        """Name every file that can be seen, by lexical prefix as the vendor does."""
        for path in sorted(self.folder.rglob("*")):
            name = path.relative_to(self.folder).as_posix()
            if name.startswith(prefix) and path.is_file() and self.is_seen(name):
                yield name

    def is_seen(self, name: str) -> bool:
        """Whether a file is old enough to be shown."""
        lag = max((seconds for prefix, seconds in self.late.items() if name.startswith(prefix)), default=0.0)
        try:
            return time.time() - self.place(name).stat().st_mtime >= lag if lag else True
        except FileNotFoundError:
            return False

    def read(self, name: str) -> bytes:
        """Read a file.

        Raises:
            NoFileError: it is not there, or not yet.
        """
        try:
            if not self.is_seen(name):
                raise NoFileError(name)
            return self.place(name).read_bytes()
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            raise NoFileError(name) from None

    def row(self, name: str) -> dict[str, Any]:
        """Spell a file as the vendor lists it."""
        stat = self.place(name).stat()
        when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(stat.st_mtime)) + f".{int(stat.st_mtime % 1 * 1000):03}Z"
        return {
            "type": "file",
            "path": name,
            "size": stat.st_size,
            "xetHash": self.hash_of(name, stat.st_mtime, stat.st_size),
            "mtime": when,
            "uploadedAt": when,
        }

    def hash_of(self, name: str, mtime: float, size: int) -> str:
        """Give a content's name in a store."""
        known = self.hashes.get(name)
        if known is None or known[0] != (mtime, size):
            import hf_xet  # type: ignore[import-untyped]

            known = (mtime, size), str(hf_xet.hash_files([str(self.place(name))])[0].hash)
            self.hashes[name] = known
        return known[1]


@dataclass(frozen=True, slots=True)
class Scope:
    """What a fine-grained token opens: repositories, buckets or whole accounts by name, each with its rights."""

    scoped: tuple[tuple[str, str, tuple[str, ...]], ...]  # kind, name, permissions
    everywhere: tuple[str, ...] = ()
    role: str = "fineGrained"

    def admits(self, operation: str, parts: dict[str, str]) -> bool:
        """Whether it may: of what is asked of buckets, by name; whoever it is may know who it is."""
        if operation == "whoami" or self.role == "write":
            return True
        wanted = "repo.write" if operation in _WRITES else "repo.content.read"
        names = {f"{parts.get('ns')}/{parts.get('id')}", parts.get("ns")}
        return operation in _WRITES | _READS and any(name in names and wanted in may for _, name, may in self.scoped)

    def spell(self) -> dict[str, Any]:
        """Say it as whoami does."""
        told = {"displayName": "made by hand", "role": self.role}
        if self.role != "fineGrained":
            return told
        rows = [
            {"entity": {"_id": "6" * 24, "type": kind, "name": name}, "permissions": list(may)}
            for kind, name, may in self.scoped
        ]
        return {**told, "fineGrained": {"global": list(self.everywhere), "scoped": rows}}


_WRITES = {"write_token", "batch"}
_READS = {"bucket", "read_token", "paths_info", "tree", "head", "resolve"}


class Stores:
    """The xet stores behind the tokens."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = itertools.count(1)
        self._written: list[Path] = []

    def fresh(self) -> str:
        """Make an empty store for one write token; gives its address."""
        path = self._folder / f"store-{next(self._numbers)}"
        path.mkdir(parents=True)
        self._written.append(path)
        return f"local://{path}"

    def take(self, digests: set[str]) -> dict[str, bytes]:
        """Read contents that clients wrote; what nobody wrote is not among them."""
        found: dict[str, bytes] = {}
        for path in reversed(self._written):
            if digests - found.keys() and any(path.iterdir()):
                found |= self._read(path, digests - found.keys())
        return found

    def _read(self, path: Path, digests: set[str]) -> dict[str, bytes]:
        import hf_xet

        copy = self._folder / f"copy-{next(self._numbers)}"
        shutil.copytree(path, copy)
        found = {}
        try:
            group = hf_xet.XetSession().new_download_stream_group(endpoint=f"local://{copy}")
            for digest in digests:
                with contextlib.suppress(hf_xet.XetObjectNotFoundError, RuntimeError, OSError):
                    found[digest] = b"".join(
                        bytes(piece) for piece in group.download_stream(hf_xet.XetFileInfo(digest))
                    )
        finally:
            shutil.rmtree(copy, ignore_errors=True)
        return {digest: data for digest, data in found.items() if data}  # not there reads as nothing, without a word

    def serve(self, bucket: Bucket) -> str:
        """Make a store of all that a bucket holds, for one read token."""
        import hf_xet

        path = self._folder / f"served-{next(self._numbers)}"
        path.mkdir(parents=True)
        names = [name for name in bucket.names() if bucket.place(name).stat().st_size]
        with hf_xet.XetSession().new_upload_commit(endpoint=f"local://{path}") as commit:
            for name in names:
                commit.start_upload_file(str(bucket.place(name)), sha256=hf_xet.SKIP_SHA256)
        return f"local://{path}"


def operations(body: bytes) -> list[dict[str, Any]]:
    """Read the lines of a batch."""
    return [json.loads(line) for line in body.splitlines() if line.strip()]
