"""One starter of a job at a time: two controllers may start at once, the one of them waking late."""

from __future__ import annotations

import contextlib
import fcntl
import os
from typing import TYPE_CHECKING

from providers.errors import UnreachableError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextlib.contextmanager
def alone(lock: Path) -> Iterator[None]:
    """Hold a lock file, made where there is none.

    Raises:
        OSError: it can't be made.
        UnreachableError: another one is at it, which says nothing against the machine.
    """
    handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UnreachableError("another gpurun is starting this job right now") from error
        yield
    finally:
        os.close(handle)
