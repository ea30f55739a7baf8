"""The mounted folder: whole files only, what says "whole" last, a log that is counted, an order that is passed on."""

from __future__ import annotations

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st


@pytest.fixture
def mounted(payload):
    return payload("mounted")


class Job:
    """A job's folder with a result, and a mirror of it that writes down in which order files came."""

    def __init__(self, mounted, tmp_path) -> None:
        self.folder, self.out = tmp_path / "job", tmp_path / "mount" / "out"
        self.folder.mkdir()
        self.log = mounted.Log(self.folder / "log.txt")
        self.mirror = mounted.Mirror(self.folder, self.out, 7.0, self.log)

    def put(self, name: str, data: bytes) -> dict[str, object]:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return {"name": name, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}

    def checkpoint(self, step: int) -> None:
        base = f"checkpoints/step-{step}"
        entry = self.put(f"{base}/state.pt", b"state")
        facts = {key: entry[key] for key in ("size", "sha256")}
        self.put(f"{base}/CHECKPOINT.json", json.dumps({"files": {"state.pt": facts}}).encode())

    def end(self) -> None:
        artifacts = [self.put("artifacts/a b/model.bin", b"weights")]
        self.put("result.json", json.dumps({"reason": "completed", "exit_code": 0, "artifacts": artifacts}).encode())

    def there(self) -> set[str]:
        files = self.out / "files"
        return {path.relative_to(files).as_posix() for path in files.rglob("*") if path.is_file()}


@pytest.fixture
def job(mounted, tmp_path):
    return Job(mounted, tmp_path)


def test_what_says_that_others_are_whole_is_copied_after_them(mounted):
    names = ["result.json", "checkpoints/step-1/CHECKPOINT.json", "checkpoints/step-1/state.pt", "artifacts/z"]
    ordered = [entry["name"] for entry in sorted(({"name": name} for name in names), key=mounted.rank)]
    assert ordered[-2:] == ["checkpoints/step-1/CHECKPOINT.json", "result.json"]


def test_whole_checkpoints_come_and_pruned_ones_go(job):
    job.checkpoint(1)
    job.put("checkpoints/step-2/state.pt", b"half")  # no seal
    job.mirror.once()
    assert job.there() == {"checkpoints/step-1/state.pt", "checkpoints/step-1/CHECKPOINT.json"}
    for path in (job.folder / "checkpoints" / "step-1").iterdir():
        path.unlink()
    job.mirror.once()
    assert job.there() == set()


def test_a_result_is_said_only_once_every_file_is_there_whatever_failed_before(job):
    job.end()
    job.log.start()
    in_the_way = job.out / "files"
    in_the_way.parent.mkdir(parents=True)
    in_the_way.write_text("no folder can be made here")
    with pytest.raises(OSError, match="files"):
        job.mirror.once()
    assert not (job.out / "said.json").exists()
    in_the_way.unlink()
    job.mirror.once()
    said = json.loads((job.out / "said.json").read_text())
    assert said["result"]["reason"] == "completed"
    assert job.there() == {"artifacts/a b/model.bin", "result.json"}


def test_deadlines_are_told_as_they_were_before_the_spare_was_taken(job):
    job.put("status.json", json.dumps({"time": 1.0, "deadline": 1000.0}).encode())
    assert job.mirror.once()["status"]["deadline"] == 1007.0


def test_an_order_is_passed_on_once_and_earlier_by_the_spare(mounted, job, tmp_path):
    mount = tmp_path / "mount"
    (mount / "in").mkdir(parents=True)
    (mount / "in" / "order.json").write_text(json.dumps({"id": 3, "kind": "deadline", "deadline": 1000.0}))
    assert mounted.take_order(mount, job.folder, 7.0, 2) == 3
    assert json.loads((job.folder / "order.json").read_text())["deadline"] == 993.0
    (job.folder / "order.json").unlink()
    assert mounted.take_order(mount, job.folder, 7.0, 3) == 3
    assert not (job.folder / "order.json").exists()


@given(text=st.lists(st.sampled_from(["a", "\n", "b\u00e9", "\r", ""]), max_size=12), cuts=st.data())
def test_lines_are_counted_the_same_however_the_log_is_cut(payload, text, cuts):
    mounted = payload("mounted")
    data, written = "".join(text).encode(), bytearray()
    log = mounted.Log.__new__(mounted.Log)
    log.lines, log.rest = 0, b""
    log.write = written.extend
    place = 0
    while place < len(data):
        step = cuts.draw(st.integers(1, len(data) - place))
        log.pass_on(data[place : place + step])
        place += step
    log.flush_rest()
    ended = data if data.endswith(b"\n") or not data else data + b"\n"
    assert (bytes(written), log.lines) == (ended, ended.count(b"\n"))
