"""What is shipped: the bundle (payload + config + the user's code) and the user's data beside it.

The same tree gives the same bytes: sorted names, no times, no owners, no caches. No secrets: known key files
are left out and named. Data travels as blobs named by their sha256, so that nothing is sent twice.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import stat
import tarfile
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.home import read_json, write_json
from providers.base import Blob
from providers.errors import BundleError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

IGNORE_FILE = ".gpurunignore"
MAX_CODE_BYTES = 200 * 2**20
_JUNK = [
    "__pycache__/",
    "*.pyc",
    ".git/",
    ".venv/",
    "venv/",
    "node_modules/",
    ".DS_Store",
    ".*_cache/",
    ".ipynb_checkpoints/",
]
_SECRETS = [
    ".env",
    ".env.*",
    "*.pem",
    "*.key",
    "id_rsa*",
    "id_ed25519*",
    "id_ecdsa*",
    ".netrc",
    ".aws/",
    ".ssh/",
    ".kaggle/",
]


@dataclass(frozen=True, slots=True)
class Bundle:
    """A packed bundle: its file, its size in bytes and what was left out as a likely secret."""

    path: Path
    size: int
    sha256: str
    left_out: tuple[str, ...]


def pack(dest: Path, config: dict[str, Any], code: Path | None = None) -> Bundle:
    """Write payload/, code/ and config.json into one deterministic tar.gz.

    Raises:
        BundleError: the code is missing, too large, or holds links that lead out of it.
    """
    members: dict[str, bytes | Path] = {"config.json": json.dumps(config, indent=1).encode()}
    for name, path in _walk(_payload_folder(), _matcher(_JUNK)):
        members[f"payload/{name}"] = path
    left_out: list[str] = []
    for name, path in _code_files(code, left_out):
        members[f"code/{name}"] = path
    data = tar_gz(members)
    aside = dest.with_name(f".{dest.name}.{os.getpid()}")
    aside.write_bytes(data)
    aside.replace(dest)
    return Bundle(dest, len(data), hashlib.sha256(data).hexdigest(), tuple(sorted(left_out)))


def blobs(data: Iterable[tuple[Path, str]], cache: Path) -> tuple[Blob, ...]:
    """Name the user's data files by their content; a file that did not change since is not read again.

    Args:
        data: pairs of a local file or folder and its name in the job's folder (`data/train.jsonl`).
        cache: a JSON file that remembers hashes by path, size, time and inode.

    Raises:
        BundleError: a file is missing, unreadable or not a plain file.
    """
    known = read_json(cache) or {}
    found: list[Blob] = []
    for source, name in data:
        if source.is_dir():
            pairs = [(path, f"{name}/{inner}") for inner, path in _walk(source, _matcher(_JUNK))]
        else:
            pairs = [(source, name)]
        for path, inner in pairs:
            found.append(_blob(path, inner, known))
    write_json(cache, known)
    return tuple(found)


def _blob(path: Path, name: str, known: dict[str, Any]) -> Blob:
    try:
        facts = path.stat()
        if not stat.S_ISREG(facts.st_mode):
            raise BundleError(f"{path} is not a plain file and can't be shipped")
        key = f"{path.absolute()}|{facts.st_size}|{facts.st_mtime_ns}|{facts.st_ino}"
        if key not in known:
            with path.open("rb") as file:
                known[key] = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BundleError(f"the data file {path} can't be read: {error.strerror or error}") from error
    return Blob(known[key], facts.st_size, path, name)


def _payload_folder() -> Path:
    # payload/ has no __init__.py: it is scripts, no package. Python 3.11 gives such a folder only through a file in it.
    return Path(str(files("payload").joinpath("README.md"))).parent


def inside(folder: Path) -> Iterator[tuple[str, Path]]:
    """Give (name, path) of the files below that may be shipped: no caches, nothing that looks like a key."""
    for name, path in _walk(folder, _matcher([*_JUNK, *_SECRETS])):
        if path.is_file():
            yield name, path


def is_secret(name: str) -> bool:
    """Whether a file looks like a key by its name."""
    return bool(_matcher(_SECRETS).match_file(name))


def _code_files(code: Path | None, left_out: list[str]) -> Iterator[tuple[str, Path]]:
    if code is None:
        return
    if not code.exists():
        raise BundleError(f"the code {code} does not exist", hint="name a file or a folder in training.code")
    if code.is_file():
        yield code.name, code
        return
    ignore = code / IGNORE_FILE
    own = ignore.read_text().splitlines() if ignore.is_file() else []
    secret, unwanted = _matcher(_SECRETS), _matcher([*_JUNK, *own])
    size = 0
    for name, path in _walk(code, unwanted):
        if secret.match_file(name):
            left_out.append(name)
            continue
        size += path.stat().st_size
        if size > MAX_CODE_BYTES:
            raise BundleError(
                f"the code in {code} is larger than {MAX_CODE_BYTES >> 20} MiB",
                hint=f"list what is not needed in {ignore}, and name data under training.data instead",
            )
        yield name, path


def _walk(folder: Path, unwanted: _Matcher) -> Iterator[tuple[str, Path]]:
    """Give (name, path) of every plain file below, sorted. A link must stay inside the folder."""
    root = folder.resolve()
    for path in sorted(folder.rglob("*"), key=lambda path: path.relative_to(folder).as_posix()):
        name = path.relative_to(folder).as_posix()
        if path.is_dir() or unwanted.match_file(name):
            continue
        if path.is_symlink() and not path.resolve().is_relative_to(root):
            raise BundleError(
                f"{path} links to {path.resolve()}, outside of {folder}",
                hint=f"copy it in, or list it in {IGNORE_FILE}",
            )
        if path.is_file():
            yield name, path


def tar_gz(members: dict[str, bytes | Path]) -> bytes:
    """Pack files, or their bytes, under their names; the same members give the same archive."""
    raw = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=raw, mode="wb", mtime=0, compresslevel=6) as zipped,
        tarfile.open(fileobj=zipped, mode="w|") as tar,
    ):
        for name in sorted(members):
            member = members[name]
            data = member if isinstance(member, bytes) else member.read_bytes()
            info = tarfile.TarInfo(name)
            info.size = len(data)
            runs = isinstance(member, Path) and bool(member.stat().st_mode & 0o100)
            info.mode = 0o755 if runs else 0o644
            tar.addfile(info, io.BytesIO(data))
    return raw.getvalue()


def _matcher(patterns: list[str]) -> _Matcher:
    import pathspec

    return pathspec.GitIgnoreSpec.from_lines(patterns)


if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec as _Matcher
