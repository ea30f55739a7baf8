"""How a job ended, written down: artifacts hashed, facts gathered, result.json last.

Nothing here decides how it ended; the agent does. Standard library only, Python 3.9.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import stat
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Tuple

import processes as ps
from output import finite

RESERVE = 1 << 20  # bytes set aside for result.json on a full disk
FACTS = (
    *("versions", "device", "stage_seconds", "peak_memory_gib"),
    *("tokens_per_second", "samples_per_second", "flop_utilisation"),
)


def set_aside(folder: Path) -> None:
    """Take the place that result.json will need: a full disk must not hide how it ended."""
    with contextlib.suppress(OSError), (folder / ".reserve").open("wb") as file:
        file.write(b"\1" * RESERVE)


def bring_in(folder: Path) -> List[str]:
    """Make a script's own artifacts/ and outputs/ the job's, once it is over; gives what to say about the rest."""
    said = []
    for name, place in (("artifacts", "artifacts"), ("outputs", "artifacts/outputs")):
        source, target = folder / "code" / name, folder / place
        if source.is_symlink():
            said.append(f"{name} is a link: what it leads to stays there")
        elif source.is_dir():
            try:
                target.parent.mkdir(exist_ok=True)
                source.rename(target)
            except OSError as error:
                said.append(f"{name} can't be brought home: {error.strerror}")
    return said


def hash_artifacts(folder: Path, pulse: Callable[[], bool]) -> Tuple[List[Dict[str, Any]], List[str]]:
    """Hash every regular file under artifacts/; gives the entries, and what to say about the rest.

    `pulse` is called for every MiB: it keeps the heartbeat going, and tells False once time is up.
    """
    found: List[Dict[str, Any]] = []
    said: List[str] = []
    late = 0
    for path in sorted((folder / "artifacts").rglob("*")):
        real = Path(os.path.realpath(path))
        try:
            if folder not in real.parents or real.parent == folder or not stat.S_ISREG(os.lstat(real).st_mode):
                continue  # a folder, a device, or a link that leads outside or to our own files
            hashed = _hash(real, pulse)
        except OSError as error:
            said.append(f"{path.name} can't be read: {error.strerror}")
            continue
        if hashed is None:
            late += 1
        else:
            found.append({"name": path.relative_to(folder).as_posix(), "size": hashed[0], "sha256": hashed[1]})
    if late:
        said.append(f"{late} artifacts could not be hashed before the deadline")
    return found, said


def _hash(path: Path, pulse: Callable[[], bool]) -> Optional[Tuple[int, str]]:
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while pulse():
            block = file.read(1 << 20)
            if not block:
                return size, digest.hexdigest()
            digest.update(block)
            size += len(block)
    return None


def gather(folder: Path, mark: str, last: Dict[str, Any], own: Dict[str, Any]) -> Dict[str, Any]:
    """Put together all that is known: the training's summary, its last metrics, and the agent's own facts."""
    summary = finite(ps.read_json(folder / "summary.json"))
    metrics = summary.pop("metrics", None)
    run_id, attempt = named(mark)
    return {
        **dict.fromkeys(FACTS),
        **summary,
        "run_id": run_id,
        "attempt": attempt,
        "metrics": {**last, **(metrics if isinstance(metrics, dict) else {})},
        **own,
    }


def write(folder: Path, content: Dict[str, Any], wait: Callable[[], None]) -> None:
    """Write result.json last, durably; on a full disk wait for room: the watchdog ends that wait at the ceiling.

    Raises:
        OSError: something else than a full disk is wrong with it.
    """
    for name in ("secrets.json", ".reserve"):
        with contextlib.suppress(OSError):
            (folder / name).unlink()
    while True:
        try:
            ps.write_json(folder / "result.json", content, durable=True)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            content["detail"] = f"{content['detail'].partition('; the disk was full')[0]}; the disk was full"
            wait()
        else:
            return


def named(mark: str) -> Tuple[str, Optional[int]]:
    """Read run id and attempt from a mark."""
    found = re.fullmatch(r"gpurun-[0-9a-f]{4}-(.+?)-(\d{1,2})(?:-n\d)?-t[0-9a-z]+", mark)
    return (found[1], int(found[2])) if found else (mark, None)
