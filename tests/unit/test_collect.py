"""What comes home: every name a file can have, and none that leads out of the run's folder."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

import pytest

from orchestrator.collect import fetch
from providers.base import Entry, Manifest
from providers.errors import IntegrityError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


class Files:
    """A machine that holds these files and gives them by name."""

    def __init__(self, *names: str) -> None:
        self.names = names

    def manifest(self) -> Manifest:
        return Manifest(tuple(Entry(name, 1, sha256(b"x").hexdigest()) for name in self.names), final=True)

    def fetch(self, names: Sequence[str], dest: Path) -> None:
        for name in names:
            (dest / name).parent.mkdir(parents=True, exist_ok=True)
            (dest / name).write_bytes(b"x")


def test_an_artifact_of_any_name_comes_home(tmp_path: Path, nasty: str) -> None:
    machine = Files(f"artifacts/{nasty}", f"artifacts/in/{nasty}.bin")
    fetch(machine, machine.manifest(), tmp_path)
    assert {path.name for path in (tmp_path / "artifacts").rglob("*") if path.is_file()} == {nasty, f"{nasty}.bin"}


@pytest.mark.parametrize(
    "name", ["artifacts/../../x", "artifacts/..", "artifacts/a\0b", "artifacts/\n/../../x", "artifacts/a\n/.."]
)
def test_a_name_that_leads_out_of_the_runs_folder_is_refused(tmp_path: Path, name: str) -> None:
    machine = Files(name)
    with pytest.raises(IntegrityError, match="no name inside"):
        fetch(machine, machine.manifest(), tmp_path)
    assert list(tmp_path.rglob("x")) == []


@pytest.mark.parametrize("name", ["artifacts/\ud800", "artifacts/\ud800/x"])
def test_a_name_that_no_disk_can_hold_is_refused(tmp_path: Path, name: str) -> None:
    machine = Files(name)
    with pytest.raises(IntegrityError, match="no name inside"):
        fetch(machine, machine.manifest(), tmp_path)


def test_a_checkpoint_with_a_step_beyond_all_numbers_keeps_no_other_file_from_home(tmp_path: Path) -> None:
    machine = Files(f"checkpoints/step-{'9' * 5000}/CHECKPOINT.json", "artifacts/model")
    fetch(machine, machine.manifest(), tmp_path)
    assert (tmp_path / "artifacts/model").read_bytes() == b"x"


def test_a_checkpoint_comes_home_with_the_file_whose_name_holds_a_line_break(tmp_path: Path) -> None:
    machine = Files("checkpoints/step-1/a\nb", "checkpoints/step-1/CHECKPOINT.json")
    fetch(machine, machine.manifest(), tmp_path)
    assert (tmp_path / "checkpoints/step-1/a\nb").exists()
