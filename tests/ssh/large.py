"""Large files for tests, with what a cut may cost."""

from __future__ import annotations

import random
from hashlib import sha256
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

MIB = 2**20
A_CUT = 4 * MIB  # what one may cost
FRAMES = 1.01  # SSH's own bytes around the content, and a few KiB for each login


def make(path: Path, size: int, seed: int = 0) -> str:
    data = random.Random(seed).randbytes(size)
    path.write_bytes(data)
    return sha256(data).hexdigest()


def digest(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()
