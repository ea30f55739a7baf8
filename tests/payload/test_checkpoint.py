"""checkpoint.py: whole or not there, two kept, broken ones skipped, room checked first."""

import errno
import json
import os
import sys
from pathlib import Path

import pytest
import torch
from harness import PAYLOAD, sha256
from safetensors import SafetensorError

sys.path.insert(0, str(PAYLOAD))
import checkpoint


def state(number: int = 1) -> dict:
    return {"model": {"weight": torch.full((50,), float(number))}, "step": number}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "checkpoints"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_is_saved_comes_back(folder: Path) -> None:
    path = checkpoint.save(3, state(3), folder=folder)
    back = checkpoint.load(path)
    assert path.name == "step-3"
    assert back["step"] == 3
    assert torch.equal(back["model"]["weight"], torch.full((50,), 3.0))


def test_the_seal_names_every_file_with_size_and_sha256(folder: Path) -> None:
    path = checkpoint.save(1, state(), folder=folder)
    assert json.loads((path / "CHECKPOINT.json").read_text()) == {
        "step": 1,
        "files": {"state.pt": {"size": (path / "state.pt").stat().st_size, "sha256": sha256(path / "state.pt")}},
    }


def test_two_are_kept_and_nothing_else_is_left(folder: Path) -> None:
    for number in (5, 10, 100, 15):
        checkpoint.save(number, state(number), folder=folder)
    assert names(folder) == ["step-10", "step-15"]  # 100 claimed to be later than the run that wrote 15


def test_a_protected_step_outlives_the_two(folder: Path) -> None:
    for number in (1, 2, 3, 4):
        checkpoint.save(number, state(number), folder=folder, protect={1})
    assert names(folder) == ["step-1", "step-3", "step-4"]


@pytest.mark.parametrize("fault", ["bytes", "size", "file gone", "seal gone", "seal broken", "seal empty"])
def test_a_broken_one_is_skipped_and_said(folder: Path, fault: str, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint.save(1, state(1), folder=folder)
    newest = checkpoint.save(2, state(2), folder=folder)
    file, seal = newest / "state.pt", newest / "CHECKPOINT.json"
    content = file.read_bytes()
    deeds = {
        "bytes": lambda: file.write_bytes(content[:-1] + bytes([content[-1] ^ 1])),
        "size": lambda: file.write_bytes(content[:-1]),
        "file gone": file.unlink,
        "seal gone": seal.unlink,
        "seal broken": lambda: seal.write_text('{"step": 2, "fi'),
        "seal empty": lambda: seal.write_text("[]"),
    }
    deeds[fault]()
    assert checkpoint.newest_whole(folder) == folder / "step-1"
    assert "step-2 skipped, " in capsys.readouterr().out


def test_none_whole_is_none(folder: Path) -> None:
    assert checkpoint.newest_whole(folder) is None
    (folder / "step-1").mkdir(parents=True)
    assert checkpoint.newest_whole(folder) is None


def test_what_a_kill_left_half_written_is_never_taken_and_goes_with_the_next_save(folder: Path) -> None:
    half = folder / ".partial-step-9"
    half.mkdir(parents=True)
    (half / "state.pt").write_bytes(b"half")
    assert checkpoint.newest_whole(folder) is None
    checkpoint.save(1, state(), folder=folder)
    assert names(folder) == ["step-1"]


def test_a_folder_made_by_somebody_else_is_sealed_with_its_subfolders(folder: Path) -> None:
    made = folder / ".staging/checkpoint-7"
    (made / "inner").mkdir(parents=True)
    (made / "inner/optimizer.pt").write_bytes(b"o" * 10)
    (made / "trainer_state.json").write_text("{}")
    path = checkpoint.seal(made, 7, folder=folder)
    assert not made.exists()
    assert not checkpoint.fault_of(path)
    assert set(json.loads((path / "CHECKPOINT.json").read_text())["files"]) == {
        "inner/optimizer.pt",
        "trainer_state.json",
    }


def test_a_step_done_again_replaces_its_checkpoint(folder: Path) -> None:
    checkpoint.save(1, state(1), folder=folder)
    path = checkpoint.save(1, state(8), folder=folder)
    assert checkpoint.load(path)["step"] == 8
    assert names(folder) == ["step-1"]


def test_no_room_leaves_with_4_before_anything_is_written(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint.save(1, state(), folder=folder)
    monkeypatch.setattr(checkpoint, "free_bytes", lambda _folder: checkpoint.MARGIN_BYTES + 199)  # 50 floats are 200
    with pytest.raises(SystemExit) as left:
        checkpoint.save(2, state(), folder=folder)
    assert left.value.code == 4
    assert "no room for the next checkpoint" in capsys.readouterr().err
    assert names(folder) == ["step-1"]
    monkeypatch.setattr(checkpoint, "free_bytes", lambda _folder: checkpoint.MARGIN_BYTES + 200)
    checkpoint.save(2, state(), folder=folder)


def test_a_disk_that_fills_up_meanwhile_leaves_with_4_and_no_half_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint.save(1, state(), folder=folder)

    def full(_content: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(SystemExit) as left:
        checkpoint.save(2, state(), folder=folder)
    assert left.value.code == 4
    assert names(folder) == ["step-1"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux: /dev/full is its disk without room")
@pytest.mark.parametrize("size", [5, 500_000])
def test_torchs_words_for_a_full_disk_are_understood(size: int) -> None:
    with pytest.raises(RuntimeError) as failed:
        torch.save({"a": torch.zeros(size)}, "/dev/full")  # opens it and writes; what renames would replace the device
    assert checkpoint.is_disk_full(failed.value)


def test_safetensors_words_for_a_full_disk_are_understood() -> None:
    seen = "Error while serializing: I/O error: No space left on device (os error 28)"
    assert checkpoint.is_disk_full(SafetensorError(seen))


def test_an_error_that_is_no_full_disk_stays_what_it_is(folder: Path) -> None:
    assert not checkpoint.is_disk_full(RuntimeError("something else"))
    with pytest.raises(RuntimeError, match="something else"), checkpoint._disk_full_is_4(folder):
        raise RuntimeError("something else")


def test_a_folder_written_aside_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    final = tmp_path / "artifacts"
    with checkpoint.written_aside(final) as folder:
        (folder / "old").touch()
    writing = checkpoint.written_aside(final)
    (writing.__enter__() / "new").touch()
    assert not writing.__exit__(ValueError, ValueError("half way"), None)  # not swallowed
    assert names(final) == ["old"]
    with checkpoint.written_aside(final) as folder:
        (folder / "new").touch()
    assert names(final) == ["new"]


def test_bytes_of_nested_states_add_up() -> None:
    assert checkpoint.bytes_of({"a": [torch.zeros(2), {"b": torch.zeros(3)}], "c": 4, "d": "text"}) == 20
