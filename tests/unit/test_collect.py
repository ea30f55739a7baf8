"""What comes home: every name a file can have, and none that leads out of the run's folder."""

from __future__ import annotations

import json
from hashlib import sha256
from typing import TYPE_CHECKING

import pytest

from orchestrator.collect import fetch
from providers.base import Entry, Manifest
from providers.errors import IntegrityError, RemoteError

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


class Attempt:
    """A machine whose line breaks at the named file; its artifact and its result tell which attempt they are of."""

    def __init__(self, number: int, breaks_at: str = "") -> None:
        artifact = f"artifact of {number}".encode()
        listed = [{"name": "artifacts/a", "sha256": sha256(artifact).hexdigest()}]
        result = json.dumps({"attempt": number, "artifacts": listed}).encode()
        self.files = {"artifacts/a": artifact, "summary.json": b"{}", "result.json": result}
        self.breaks_at = breaks_at

    def manifest(self) -> Manifest:
        entries = [Entry(name, len(data), sha256(data).hexdigest()) for name, data in self.files.items()]
        return Manifest(tuple(entries), final=True)

    def fetch(self, names: Sequence[str], dest: Path) -> None:
        for name in names:
            if name == self.breaks_at:
                raise RemoteError("the line broke")
            (dest / name).parent.mkdir(exist_ok=True)
            (dest / name).write_bytes(self.files[name])


def test_an_earlier_attempts_result_never_lies_beside_a_later_ones_artifacts(tmp_path: Path) -> None:
    first, second = Attempt(1), Attempt(2, breaks_at="summary.json")
    fetch(first, first.manifest(), tmp_path)
    with pytest.raises(RemoteError):
        fetch(second, second.manifest(), tmp_path)
    assert (tmp_path / "artifacts/a").read_bytes() == b"artifact of 2"
    assert not (tmp_path / "result.json").exists()


def test_a_result_stays_while_the_same_files_come_again(tmp_path: Path) -> None:
    machine = Attempt(1)
    fetch(machine, machine.manifest(), tmp_path)
    machine.breaks_at = "summary.json"
    with pytest.raises(RemoteError):
        fetch(machine, machine.manifest(), tmp_path)
    assert json.loads((tmp_path / "result.json").read_bytes())["attempt"] == 1


@pytest.mark.parametrize(
    "told", [b"\xff", b"[]", b'{"artifacts": 1}', b'{"artifacts": [1, {"name": [], "sha256": {}}]}']
)
def test_a_result_that_makes_no_sense_keeps_no_file_from_home(tmp_path: Path, told: bytes) -> None:
    (tmp_path / "result.json").write_bytes(told)
    machine = Attempt(1)
    fetch(machine, machine.manifest(), tmp_path)
    assert json.loads((tmp_path / "result.json").read_bytes())["attempt"] == 1
