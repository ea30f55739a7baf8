"""Copy a run's artifacts out of its folder, each checked against the sha256 that the machine wrote into result.json."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.home import read_json
from providers.errors import IntegrityError, StateError, UsageError

if TYPE_CHECKING:
    from orchestrator.home import Home, RunFolder

_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class Pulled:
    """What was copied, and where to."""

    folder: Path
    files: tuple[str, ...]
    size: int  # bytes
    is_all: bool = True  # else no result names any, and this is what it had left by then


def pull(run: RunFolder, dest: Path, *, over: bool = False) -> Pulled:
    """Copy every artifact of a run that ended; a file that is already there and whole is left alone.

    Raises:
        UsageError: there are none (yet), or a file of another content stands in the way.
        IntegrityError: a copy here is not what the machine wrote.
        StateError: the disk.
    """
    made = (read_json(run.result) or {}).get("artifacts")
    listed = made or (read_json(run.so_far) or {}).get("artifacts")
    if not isinstance(listed, list) or not listed:
        name = run.path.name
        if over:
            raise UsageError(f"{name} is over and left no artifacts", hint=f"gpurun logs {name}")
        raise UsageError(f"{name} has no artifacts yet", hint=f"gpurun wait {name}")
    names, total = [], 0
    for entry in listed:
        relative, sha256 = _trusted(entry)
        try:
            total += _copy(run.artifacts / relative, dest / relative, sha256)
        except OSError as error:
            raise StateError(
                f"{dest / relative} can't be written: {error.strerror}", hint="gpurun pull --to FOLDER"
            ) from error
        names.append(relative.as_posix())
    return Pulled(dest, tuple(names), total, is_all=bool(made))


def bring_from_store(home: Home, run_id: str) -> None:
    """Bring home from the run's store what a run that is over left there, where it is not here.

    Raises:
        ProviderError: the store can't be read.
    """
    from orchestrator import stored
    from orchestrator.ledger import Ledger

    folder, ledger = home.run(run_id), Ledger(home.ledger)
    try:
        row = ledger.run(run_id)
    finally:
        ledger.close()
    listed = (read_json(folder.result) or {}).get("artifacts")
    here = (
        bool(listed)
        and isinstance(listed, list)
        and all((folder.artifacts / _trusted(one)[0]).is_file() for one in listed)
    )
    if row.memory.is_done and row.plan.get("store") and not here:
        stored.bring_result(row, folder)


def _trusted(entry: object) -> tuple[Path, str]:
    """Take name and sha256 out of an entry of result.json: a machine's word, so it may say anything."""
    name, sha256 = (entry.get("name"), entry.get("sha256")) if isinstance(entry, dict) else (None, None)
    if not isinstance(name, str) or not isinstance(sha256, str):
        raise IntegrityError(f"result.json lists {entry!r}, which is no artifact")
    path = Path(name)
    if path.is_absolute() or ".." in path.parts or path.parts[:1] != ("artifacts",) or len(path.parts) < 2:
        raise IntegrityError(f"result.json names {name!r}, which is no file in artifacts/")
    return Path(*path.parts[1:]), sha256


def _copy(source: Path, target: Path, sha256: str) -> int:
    if target.exists():
        with target.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() == sha256:
                return target.stat().st_size
        raise UsageError(f"{target} is there already and is another file", hint="gpurun pull --to ANOTHER-FOLDER")
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.with_name(f".{target.name}.{os.getpid()}")
    seen = hashlib.sha256()
    try:
        with source.open("rb") as here, aside.open("wb") as there:
            while block := here.read(_BLOCK):
                seen.update(block)
                there.write(block)
        if seen.hexdigest() != sha256:
            raise IntegrityError(f"{source} is not what the machine wrote (sha256 {sha256[:12]}… was promised)")
        aside.replace(target)
    finally:
        aside.unlink(missing_ok=True)
    return target.stat().st_size
