"""The field of the contract's tests, on each ground in turn; the meter fails a test that leaves something billing."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from boxes import PATIENCE
from grounds import GROUNDS, Ground

from providers.base import Access, Job, Phase, Remote
from providers.errors import UnreachableError

if TYPE_CHECKING:
    from pathlib import Path


class Field:
    """A ground, what was launched on it, and the waiting that providers don't do."""

    def __init__(self, ground: Ground, tmp_path: Path) -> None:
        self.ground = ground
        self.provider = ground.provider
        self.access = Access(tmp_path / "ssh")
        self.launched: list[str] = []

    def until(self, fact, what: str):
        end = time.monotonic() + PATIENCE
        while not (found := fact()):
            assert time.monotonic() < end, f"never: {what}"
            self.ground.pass_()
        return found

    def launch(self, job: Job) -> str:
        allocation_id = self.provider.launch(job, self.ground.offer())
        self.launched.append(allocation_id)
        return allocation_id

    def phase(self, allocation_id: str, *phases) -> None:
        self.until(lambda: self.provider.inspect(allocation_id).phase in phases, f"{allocation_id} {phases}")

    def up(self, allocation_id: str) -> None:
        """Wait until a job can be started there; where the launch starts it, it runs, or has ended by now."""
        self.phase(allocation_id, Phase.READY, Phase.RUNNING, Phase.EXITED)

    def remote(self, allocation_id: str) -> Remote:
        """The byte plane, once it can be reached: a vendor calls a machine ready before it answers."""
        remote = self.provider.remote(allocation_id, self.access)
        self.until(lambda: answers(remote), f"{allocation_id} answers")
        return remote


def answers(remote: Remote) -> bool:
    try:
        remote.status()
    except UnreachableError:
        return False
    return True


def metered(ground: Ground, tmp_path: Path):
    """A field whose meter is read at the end: what still bills fails the test."""
    field = Field(ground, tmp_path)
    yield field
    try:
        billing = [one for one in field.launched if field.provider.inspect(one).billing]
        field.provider.terminate(field.launched)
    finally:
        ground.close()
    assert billing == []


@pytest.fixture(params=list(GROUNDS))
def field_(request, tmp_path):
    yield from metered(GROUNDS[request.param](tmp_path), tmp_path)


@pytest.fixture
def here(tmp_path):
    """This computer only."""
    yield from metered(GROUNDS["local"](tmp_path), tmp_path)
