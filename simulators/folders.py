"""The folder that a simulator works in: gone with it. What a killed one left, the next one removes.

A living simulator holds its folder's lock (flock), so that nobody's number has to be believed.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_FRESH_SECONDS = 60.0  # a folder is made a moment before it is locked


@contextmanager
def working_folder(vendor: str) -> Iterator[Path]:
    """Give a simulator of `vendor` a folder of its own."""
    prefix = f"gpurun-simulator-{vendor}-"
    # Beside all else: an environment of gigabytes takes its time, and somebody waits for the first line.
    threading.Thread(target=sweep, args=(Path(tempfile.gettempdir()), prefix), name="sweep", daemon=True).start()
    with tempfile.TemporaryDirectory(prefix=prefix) as name:
        handle = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield Path(name)
        finally:
            os.close(handle)


def sweep(parent: Path, prefix: str) -> None:
    """Remove the folders that killed simulators of ours left."""
    for path in parent.glob(f"{prefix}*"):
        try:
            handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:
            continue  # another user's, or gone meanwhile
        try:
            facts = os.fstat(handle)
            if facts.st_uid == os.getuid() and time.time() - facts.st_mtime > _FRESH_SECONDS:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True)
        except BlockingIOError:
            continue  # it lives
        finally:
            os.close(handle)


def remove(folder: Path) -> None:
    """Remove a folder whatever modes its user gave to what is in it."""

    def open_up(_function: object, path: str, _error: object) -> None:
        for one in (Path(path).parent, Path(path)):
            if one.is_relative_to(folder) and one.is_dir() and not one.is_symlink():
                one.chmod(0o700)
        if Path(path).is_dir() and not Path(path).is_symlink():
            remove(Path(path))
        else:
            Path(path).unlink(missing_ok=True)

    if folder.exists():
        shutil.rmtree(folder, onerror=open_up)
