"""Files of a local job: names that lead nowhere else, whole checkpoints, and what is left after tidying."""

from __future__ import annotations

import json
from hashlib import sha256

import pytest

from providers.base import Mark, Phase
from providers.errors import IntegrityError, RemoteError


@pytest.fixture
def still(here, tmp_path):
    """A job's folder after its end, with files that a test puts there, as (folder, remote, dest)."""
    job = here.ground.job()
    allocation_id = here.launch(job)
    here.provider.terminate([allocation_id])
    folder = here.ground.folder(job)
    (folder / "artifacts").mkdir()
    return folder, here.remote(allocation_id), tmp_path / "dest"


def says(folder, name: str, data: bytes) -> None:
    """Let result.json name one artifact."""
    entry = {"name": name, "size": len(data), "sha256": sha256(data).hexdigest()}
    (folder / "result.json").write_text(json.dumps({"reason": "completed", "artifacts": [entry, 5, {"name": 1}]}))


@pytest.mark.parametrize("name", ["../../stolen", "/etc/hostname", "artifacts/../../stolen", "artifacts/link/hostname"])
def test_a_name_that_the_machine_made_up_leads_nowhere(still, name):
    folder, remote, dest = still
    (folder.parent / "stolen").write_bytes(b"x")
    (folder / "artifacts" / "link").symlink_to("/etc")
    says(folder, name, b"x")
    with pytest.raises(IntegrityError, match="outside"):
        remote.fetch([name], dest)


def test_a_link_at_home_is_not_written_through(still, tmp_path):
    folder, remote, dest = still
    (folder / "artifacts" / "a").write_bytes(b"x")
    says(folder, "artifacts/a", b"x")
    (tmp_path / "elsewhere").mkdir()
    dest.mkdir()
    (dest / "artifacts").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(IntegrityError, match="outside"):
        remote.fetch(["artifacts/a"], dest)
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_nasty_names_come_home(still, nasty):
    folder, remote, dest = still
    (folder / "artifacts" / nasty).write_bytes(b"x")
    says(folder, f"artifacts/{nasty}", b"x")
    remote.fetch([f"artifacts/{nasty}"], dest)
    assert (dest / "artifacts" / nasty).read_bytes() == b"x"


def test_a_file_that_went_away_is_an_error_of_the_bytes(still):
    folder, remote, dest = still
    says(folder, "artifacts/gone", b"x")
    with pytest.raises(RemoteError):
        remote.fetch(["artifacts/gone"], dest)


def test_only_a_whole_checkpoint_is_named(still):
    folder, remote, _ = still

    def checkpoint(step: int, size: int) -> None:
        path = folder / "checkpoints" / f"step-{step}"
        path.mkdir(parents=True)
        (path / "model.bin").write_bytes(b"weights")
        files = {"model.bin": {"size": size, "sha256": sha256(b"weights").hexdigest()}}
        (path / "CHECKPOINT.json").write_text(json.dumps({"step": step, "files": files}))

    checkpoint(10, 7)
    checkpoint(20, 8)
    checkpoint(30, 7)
    (folder / "checkpoints/step-30/CHECKPOINT.json").unlink()
    checkpoint(40, 7)
    (folder / "checkpoints/step-40/CHECKPOINT.json").write_text('{"files"')
    names = [entry.name for entry in remote.manifest().entries]
    assert names == ["checkpoints/step-10/model.bin", "checkpoints/step-10/CHECKPOINT.json"]


@pytest.mark.parametrize("text", ["", "[]", "{", '{"time": "x", "step": [], "reason": null, "deadline": NaN}', "\xff"])
def test_files_that_make_no_sense_are_not_believed(still, text):
    folder, remote, _ = still
    for name in ("status.json", "watchdog.json", "result.json", "processes.json"):
        (folder / name).write_text(text, encoding="latin-1")
    status = remote.status()
    assert (status.phase, status.reason, status.step) == (Phase.EXITED, "", 0)


def test_tidying_keeps_what_lives_and_the_results_of_what_does_not(here, still):
    folder = still[0]
    (folder / "secrets.json").write_text("{}")
    (folder / "data").mkdir()
    mark = Mark.parse(json.loads((folder / "arm.json").read_text())["mark"])
    here.provider.tidy([mark])
    assert (folder / "data").exists()
    here.provider.tidy([])
    names = {path.name for path in folder.iterdir()}
    assert names & {"secrets.json", "data", "payload", ".reserve"} == set()
    assert names >= {"arm.json", "artifacts", "end.json"}
