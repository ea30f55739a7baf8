"""Pulling: every file is what the machine wrote, nothing is overwritten, nothing leaves the folder."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

from orchestrator.home import Home, RunFolder, write_json
from orchestrator.pull import pull
from providers.errors import IntegrityError, StateError, UsageError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def folder(home: Path) -> RunFolder:
    run = Home(home).run("demo-1")
    files = {"artifacts/model.bin": b"weights", "artifacts/deep dir/ü.md": b"# card"}
    listed = []
    for name, data in files.items():
        (run.path / name).parent.mkdir(parents=True, exist_ok=True)
        (run.path / name).write_bytes(data)
        listed.append({"name": name, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()})
    write_json(run.result, {"artifacts": listed})
    return run


def test_all_artifacts_arrive_and_a_second_pull_changes_nothing(folder: RunFolder, tmp_path: Path) -> None:
    first = pull(folder, tmp_path / "out")
    assert (tmp_path / "out" / "deep dir" / "ü.md").read_bytes() == b"# card"
    assert (first.files, first.size) == (("model.bin", "deep dir/ü.md"), 13)
    before = (tmp_path / "out" / "model.bin").stat().st_mtime_ns
    assert pull(folder, tmp_path / "out") == first
    assert (tmp_path / "out" / "model.bin").stat().st_mtime_ns == before
    assert [path.name for path in (tmp_path / "out").iterdir() if path.name.startswith(".")] == []


def test_bytes_that_are_not_the_machines_are_refused_and_left_out(folder: RunFolder, tmp_path: Path) -> None:
    (folder.path / "artifacts" / "model.bin").write_bytes(b"rotten!")
    with pytest.raises(IntegrityError, match=r"model\.bin"):
        pull(folder, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_file_of_the_users_is_never_overwritten(folder: RunFolder, tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"mine")
    with pytest.raises(UsageError, match="is another file"):
        pull(folder, tmp_path)
    assert (tmp_path / "model.bin").read_bytes() == b"mine"


@pytest.mark.parametrize("name", ["artifacts/../../evil", "/etc/passwd", "checkpoints/x"])
def test_a_name_that_leads_elsewhere_is_refused(folder: RunFolder, tmp_path: Path, name: str) -> None:
    write_json(folder.result, {"artifacts": [{"name": name, "size": 1, "sha256": "0"}]})
    with pytest.raises(IntegrityError):
        pull(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_run_without_artifacts_says_so(home: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is over and left no artifacts") as over:
        pull(Home(home).run("demo-1"), tmp_path, over=True)
    assert over.value.hint.startswith("gpurun logs ")
    with pytest.raises(UsageError, match="has no artifacts yet"):
        pull(Home(home).run("demo-1"), tmp_path)


def test_an_artifact_that_is_gone_is_told(folder: RunFolder, tmp_path: Path) -> None:
    (folder.path / "artifacts" / "model.bin").unlink()
    with pytest.raises(StateError, match=r"model\.bin"):
        pull(folder, tmp_path / "out")
