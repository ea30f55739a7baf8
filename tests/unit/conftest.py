"""A run on the fake cloud, on a disk that does not keep the ledger waiting."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from worlds import FAST, World

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def fast_path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=FAST) as folder:
        yield Path(folder)


@pytest.fixture
def world(fast_path: Path) -> World:
    return World(fast_path)
