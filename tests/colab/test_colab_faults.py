"""What goes wrong between this computer and a VM: tokens that expire, websockets that break off, spoilt parts."""

from __future__ import annotations

import os
import tracemalloc
from hashlib import sha256

import pytest
from boxes import until
from colabs import at, read_log

from providers.base import Phase
from providers.colab import parts
from providers.errors import IntegrityError, RemoteError, UnreachableError

TALKS = "import sys; [print('line %07d' % n) for n in range({lines})]"
WRITES = (
    "import os; os.makedirs('artifacts/deep'); data = os.urandom({size}); open('artifacts/large', 'wb').write(data);"
    "[open('artifacts/deep/%d' % n, 'wb').write(b'%d' % n * n) for n in range(50)]"
)


def python(code: str) -> tuple[str, ...]:
    return ("{python}", "-S", "-c", code)


@pytest.fixture(scope="module")
def written(vm, tmp_path_factory):
    """A job that is over, with a large artifact and many small ones, as (its ground, job, names)."""
    with at(vm, tmp_path_factory.mktemp("written")) as ground:
        (ground.vm.content / "gpurun-mark").unlink(missing_ok=True)
        job, remote = ground.started(command=python(WRITES.format(size=3 * parts.PART + 12345)))
        ground.ended(remote)
        yield ground, job, [entry.name for entry in remote.manifest().entries]


def fetched(ground) -> int:
    return sum("/gpurun/out/" in head for head in ground.gate.heads)


def same(ground, job, dest, names) -> bool:
    return all((dest / name).read_bytes() == (ground.folder(job) / name).read_bytes() for name in names)


def test_a_token_that_expires_all_the_time_costs_nothing_but_another(ground, tmp_path):
    blobs = (ground.blob("data/large", os.urandom(3 * parts.PART)), ground.blob("data/small", b"x"))
    job = ground.job(command=python(WRITES.format(size=2 * parts.PART)), blobs=blobs)
    remote = ground.remote(job)
    ground.gate.uses = 8
    remote.start(job)
    ground.ended(remote)
    names = [entry.name for entry in remote.manifest().entries]
    remote.fetch(names, tmp_path / "dest")
    assert same(ground, job, tmp_path / "dest", names)
    assert ground.gate.refused >= 1


def test_a_404_by_a_token_minted_just_now_is_believed_of_a_file_and_never_of_the_vm(ground):
    remote = ground.remote(ground.job())
    ground.gate.expire()
    assert remote._jupyter.get("content/no-such-file") is None
    assert ground.gate.minted == 2
    assert remote._jupyter.get("content/no-such-file") is None
    assert ground.gate.minted == 3  # asked for in doubt
    assert remote.status().phase is Phase.READY


def test_a_question_whose_websocket_breaks_off_ten_times_is_done_once(ground):
    job = ground.job()
    remote = ground.remote(job)
    (ground.folder(job) / "payload").mkdir(parents=True)
    (ground.folder(job) / "payload" / "door.py").write_text(
        "import sys, time\nopen(sys.argv[0] + '.done', 'a').write('x')\ntime.sleep(1.0)\n"
        "print('\\n' + sys.argv[1] + ' {\"answer\": 42}')\n"
    )
    remote._kernel.ask("have", [])
    remote._kernel.close()
    ground.gate.cuts = [600] * 10  # behind the handshake, amid the first frames
    assert remote._desk.ask("count") == {"answer": 42}
    assert ground.gate.cuts == []
    assert (ground.folder(job) / "payload" / "door.py.done").read_text() == "x"


def test_a_log_comes_whole_and_once_through_websockets_that_break_off(ground):
    job, remote = ground.started(command=python(TALKS.format(lines=100_000)))
    ground.ended(remote)
    remote._kernel.close()
    ground.gate.cuts = [200_000] * 10
    assert read_log(remote) == (ground.folder(job) / "log.txt").read_bytes()
    assert ground.gate.cuts == []


def test_files_come_home_with_little_memory_and_are_not_asked_for_again(written, tmp_path):
    ground, job, names = written
    remote = ground.remote(job)
    dest, out = tmp_path / "dest", ground.vm.content / "gpurun" / "out"
    for part in out.iterdir():  # of fetches that were cut off
        os.utime(part, (0, 0))
    tracemalloc.start()
    remote.fetch(names, dest)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert same(ground, job, dest, names)
    assert peak < 16 * parts.PART
    assert list(out.iterdir()) == []
    assert not [path for path in dest.rglob("*") if path.name.endswith(".part")]
    before = fetched(ground)
    remote.fetch(names, dest)
    assert fetched(ground) == before


def test_a_fetch_that_was_ended_goes_on_where_it_was(written, tmp_path):
    ground, job, _ = written
    calls = []

    def go_on() -> None:
        calls.append(1)
        if len(calls) == 3:
            raise RemoteError("time to end")

    with pytest.raises(RemoteError, match="time to end"):
        ground.remote(job, go_on=go_on).fetch(["artifacts/large"], tmp_path / "dest")
    [half] = (tmp_path / "dest" / "artifacts").iterdir()
    assert half.stat().st_size == 2 * parts.PART
    with half.open("ab") as file:
        file.write(b"half a part")
    before = fetched(ground)
    ground.remote(job).fetch(["artifacts/large"], tmp_path / "dest")
    assert same(ground, job, tmp_path / "dest", ["artifacts/large"])
    assert fetched(ground) - before == 2


def test_what_is_not_what_the_manifest_says_does_not_get_its_name(written, tmp_path):
    ground, job, _ = written
    remote = ground.remote(job)
    kept = {name: (ground.folder(job) / name).read_bytes() for name in ("artifacts/large", "artifacts/deep/7")}
    for name in ("artifacts/large", "artifacts/deep/7"):
        with (ground.folder(job) / name).open("r+b") as file:
            file.write(b"spoilt")
        with pytest.raises(IntegrityError, match="not those of the manifest"):
            remote.fetch([name], tmp_path / "dest")
        assert not [path for path in (tmp_path / "dest").rglob("*") if path.is_file()]
    (ground.folder(job) / name).unlink()
    with pytest.raises(RemoteError, match="deep/7' is not on the VM"):
        remote.fetch([name], tmp_path / "dest")
    for name, data in kept.items():
        (ground.folder(job) / name).write_bytes(data)
    with pytest.raises(RemoteError, match="not among"):
        remote.fetch(["secrets.json"], tmp_path / "dest")
    with pytest.raises(IntegrityError, match="outside"):
        remote.fetch(["../x"], tmp_path / "dest")


def test_a_part_that_came_otherwise_is_fetched_again(written, tmp_path, monkeypatch):
    ground, job, _ = written
    remote = ground.remote(job)
    spoilt = [True, True]
    right = remote._jupyter.get

    def get(path: str, *most: int) -> bytes | None:
        data = right(path, *most)
        return data[:-1] if "/out/" in path and data and spoilt and spoilt.pop() else data

    monkeypatch.setattr(remote._jupyter, "get", get)
    remote.fetch(["artifacts/large"], tmp_path / "dest")
    assert same(ground, job, tmp_path / "dest", ["artifacts/large"])
    assert spoilt == []


def test_parts_that_are_too_large_for_the_way_are_halved(ground):
    ground.gate.most = 3 * 2**20
    data = os.urandom(parts.PART + 100)
    job, _ = ground.started(blobs=(ground.blob("data/large", data),))
    assert (ground.folder(job) / "data/large").read_bytes() == data


def test_what_arrived_before_a_cut_is_not_sent_again(ground):
    data = os.urandom(6 * parts.PART)
    blob = ground.blob("data/large", data)
    job = ground.job(blobs=(blob,))

    def progress(done: int, _whole: int) -> None:
        if done > 3 * parts.PART:
            raise RemoteError("time to end")

    with pytest.raises(RemoteError, match="time to end"):
        ground.remote(job, progress=progress).start(job)
    before = sum("/in/" in head for head in ground.gate.heads)
    ground.remote(job).start(job)
    assert sum("/in/" in head for head in ground.gate.heads) - before <= 3 + 3  # what is left, and three questions
    assert (ground.folder(job) / "data/large").read_bytes() == data
    assert sha256(data).hexdigest() == blob.sha256


def test_a_vm_that_vanishes_is_unreachable_and_nothing_is_said_of_its_job(ground):
    job, remote = ground.started("long")
    until(lambda: remote.status().phase is Phase.RUNNING, "the training")
    ground.gate.listed = False
    ground.gate.expire()
    remote._kernel.close()
    for verb in (remote.status, remote.manifest, lambda: remote.fetch(["x"], ground.path)):
        with pytest.raises(UnreachableError):
            verb()
    assert ground.folder(job).exists()
