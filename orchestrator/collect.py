"""Bring whole files home: finished checkpoints while the run goes on, everything at its end.

The order is such that a kill at any moment leaves no half state that looks whole: within a checkpoint
CHECKPOINT.json comes last, and of all files result.json. An earlier attempt's result.json goes before the first
file that it would misname.
"""

from __future__ import annotations

import re
import shutil
from typing import TYPE_CHECKING

from orchestrator.home import read_json
from orchestrator.jobs import checkpoint_step
from providers.errors import IntegrityError, StateError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from providers.base import Entry, Manifest, Remote

KEPT_CHECKPOINTS = 2
_CHECKPOINT = re.compile(r"(?s)checkpoints/(step-[0-9]{1,18})/(.+)")
# Of the surrogates a disk holds those alone that stand for a byte that is no UTF-8.
_SAFE = re.compile(r"(?s)(?!/)(?!.*(?:^|/)\.\.?(?:/|\Z))[^\0\ud800-\udc7f\udd00-\udfff]+")


def fetch(remote: Remote, manifest: Manifest, dest: Path) -> None:
    """Bring home all that the manifest names and that is not here yet.

    Raises:
        IntegrityError: a name would leave the run's folder, or bytes differ from the manifest.
    """
    newest = _newest_steps(manifest)
    wanted = [entry for entry in manifest.entries if _is_wanted(entry, newest)]
    for entry in wanted:
        if not _SAFE.fullmatch(entry.name):
            raise IntegrityError(f"the machine names a file {entry.name!r}, which is no name inside the run's folder")
    missing = [entry for entry in wanted if not _is_here(entry, dest)]
    if _is_misnamed(missing, dest / "result.json"):
        (dest / "result.json").unlink()
    for last in (False, True):  # what says "whole" comes after all that it speaks of
        names = [entry.name for entry in missing if _is_seal(entry.name) == last and entry.name != "result.json"]
        if names:
            remote.fetch(names, dest)
    if any(entry.name == "result.json" for entry in missing):
        remote.fetch(["result.json"], dest)
    prune(dest / "checkpoints")


def _is_misnamed(entries: Iterable[Entry], result: Path) -> bool:
    """Say whether the result here, an earlier attempt's, calls a file that is to come by another sha256."""
    try:
        listed = (read_json(result) or {}).get("artifacts")
    except StateError:  # a machine's word may be anything: what can't be read names nothing
        return False
    artifacts = [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
    named = {str(one.get("name")): one.get("sha256") for one in artifacts}
    return any(named.get(entry.name, entry.sha256) != entry.sha256 for entry in entries)


def prune(folder: Path) -> None:
    """Keep the newest whole checkpoints; half ones older than those go too."""
    steps = sorted((path for path in folder.glob("step-*") if checkpoint_step(path) >= 0), key=checkpoint_step)
    whole = [path for path in steps if (path / "CHECKPOINT.json").is_file()]
    for path in steps:
        if len(whole) >= KEPT_CHECKPOINTS and checkpoint_step(path) < checkpoint_step(whole[-KEPT_CHECKPOINTS]):
            shutil.rmtree(path, ignore_errors=True)


def _newest_steps(manifest: Manifest) -> set[str]:
    """Name the newest whole checkpoints there."""
    sealed = {
        match[1] for entry in manifest.entries if (match := _CHECKPOINT.fullmatch(entry.name)) and _is_seal(entry.name)
    }
    return set(sorted(sealed, key=lambda name: int(name.removeprefix("step-")))[-KEPT_CHECKPOINTS:])


def _is_wanted(entry: Entry, newest: Iterable[str]) -> bool:
    """The log and the metrics come through `follow`, over all attempts: one attempt's own must not replace them."""
    match = _CHECKPOINT.fullmatch(entry.name)
    if match is not None:
        return match[1] in newest
    return entry.name.startswith("artifacts/") or entry.name in {"summary.json", "result.json"}


def _is_seal(name: str) -> bool:
    return name.endswith("/CHECKPOINT.json")


def _is_here(entry: Entry, dest: Path) -> bool:
    """A file under its final name was verified when it was moved there; result.json changes with the attempt."""
    path = dest / entry.name
    return (
        entry.name != "result.json" and _is_sealed(entry, dest) and path.is_file() and path.stat().st_size == entry.size
    )


def _is_sealed(entry: Entry, dest: Path) -> bool:
    match = _CHECKPOINT.fullmatch(entry.name)
    return match is not None and (dest / "checkpoints" / match[1] / "CHECKPOINT.json").is_file()
