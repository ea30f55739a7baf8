"""A run on the fake cloud, on a disk that does not keep the ledger waiting."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import past
import pytest
from scripted import Scripted
from worlds import FAST, World

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def now(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of the past are as old as a test says when it runs, not since its file was read."""
    fresh, stale = time.time(), past.NOW
    monkeypatch.setattr(past, "NOW", fresh)
    if getattr(request.module, "NOW", None) is stale:
        monkeypatch.setattr(request.module, "NOW", fresh)


@pytest.fixture
def fast_path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=FAST) as folder:
        yield Path(folder)


@pytest.fixture
def world(fast_path: Path) -> World:
    return World(fast_path)


@pytest.fixture
def server() -> Iterator[Scripted]:
    """A server in a vendor's place that says what it is told to."""
    server = Scripted()
    yield server
    server.close()
