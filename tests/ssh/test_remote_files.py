"""Files over SSH, from machines that are honest, slow, cut off, or lie."""

from __future__ import annotations

import json
import os
from hashlib import sha256

import pytest
from machines import Machine

from providers.base import Order, OrderKind, Phase
from providers.errors import IntegrityError, RemoteError

LARGE = os.urandom(3 * 2**20)


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    """One for all: each test has a job of its own on it, and none runs."""
    machine = Machine(tmp_path_factory.mktemp("machine"))
    yield machine
    machine.close()


def entry(name: object, data: bytes = b"x", **more) -> dict:
    return {"name": name, "size": len(data), "sha256": sha256(data).hexdigest(), **more}


@pytest.fixture
def finished(machine):
    """A job's folder that was never run, with a result that names what a test puts there, as (folder, remote, say)."""
    job = machine.job()
    folder = machine.folder(job)
    (folder / "artifacts").mkdir(parents=True)
    machine.install(job)

    def say(*entries: object) -> None:
        (folder / "result.json").write_text(json.dumps({"reason": "completed", "artifacts": entries}))

    return folder, machine.remote(job), say


def files_below(folder) -> list:
    return [path for path in folder.rglob("*") if not path.is_dir()]


def test_large_and_many_small_files_come_home_over_cuts(machine, finished, tmp_path):
    folder, remote, say = finished
    data = {f"artifacts/{number}": b"%d" % number * 50 for number in range(300)} | {"artifacts/large": LARGE}
    for name, content in data.items():
        (folder / name).write_bytes(content)
    say(*(entry(name, content) for name, content in data.items()))
    moved = machine.proxy.moved + machine.proxy.sent
    machine.proxy.cuts = list(range(moved + 30_000, moved + 3_000_000, 300_000))
    before = machine.proxy.connections
    remote.fetch(list(data), tmp_path / "dest")
    assert {name: (tmp_path / "dest" / name).read_bytes() for name in data} == data
    assert len(files_below(tmp_path / "dest")) == len(data)
    assert machine.proxy.connections > before + 5


def test_a_file_that_is_home_already_is_not_fetched_again(machine, finished, tmp_path):
    folder, remote, say = finished
    for name, content in (("artifacts/large", LARGE), ("artifacts/small", b"small")):
        (folder / name).write_bytes(content)
    say(entry("artifacts/large", LARGE), entry("artifacts/small", b"small"))
    remote.fetch(["artifacts/large", "artifacts/small"], tmp_path)
    (tmp_path / "artifacts/small").write_bytes(b"SMALL")
    before = machine.proxy.moved
    remote.fetch(["artifacts/large", "artifacts/small"], tmp_path)
    assert (tmp_path / "artifacts/small").read_bytes() == b"small"
    assert machine.proxy.moved - before < len(LARGE) / 10


@pytest.mark.parametrize("data", [b"small", LARGE], ids=["small", "large"])
@pytest.mark.parametrize("change", [lambda data: data[::-1], lambda data: data[:-1], lambda data: data + b"x"])
def test_bytes_that_are_not_the_manifest_s_never_get_their_name(finished, tmp_path, data, change):
    folder, remote, say = finished
    (folder / "artifacts/x").write_bytes(change(data))
    say(entry("artifacts/x", data))
    with pytest.raises(IntegrityError):
        remote.fetch(["artifacts/x"], tmp_path / "dest")
    assert not (tmp_path / "dest/artifacts/x").exists()


@pytest.mark.parametrize("name", ["../../stolen", "/etc/hostname", "a/../../b", "", ".", "artifacts/\0"])
def test_a_name_that_leads_outside_is_refused(finished, tmp_path, name):
    _, remote, say = finished
    say(entry(name))
    with pytest.raises(IntegrityError, match="outside"):
        remote.fetch([name], tmp_path / "dest")
    assert files_below(tmp_path / "dest") == []


def test_a_link_at_home_is_not_written_through(finished, tmp_path):
    folder, remote, say = finished
    (folder / "artifacts/a").write_bytes(b"x")
    say(entry("artifacts/a"))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "dest").mkdir()
    (tmp_path / "dest/artifacts").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(IntegrityError, match="outside"):
        remote.fetch(["artifacts/a"], tmp_path / "dest")
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_link_or_a_device_on_the_machine_is_not_followed_out_of_the_job(finished, tmp_path):
    folder, remote, say = finished
    (folder / "artifacts/link").symlink_to("/etc")
    (folder / "artifacts/zero").symlink_to("/dev/zero")
    os.mkfifo(folder / "artifacts/fifo")
    for name in ("artifacts/link/hostname", "artifacts/zero", "artifacts/fifo", "artifacts/gone", "artifacts"):
        say(entry(name))
        with pytest.raises(RemoteError):
            remote.fetch([name], tmp_path / "dest")
    assert files_below(tmp_path / "dest") == []


def test_what_the_manifest_does_not_name_is_not_fetched(finished, tmp_path):
    folder, remote, say = finished
    (folder / "artifacts/a").write_bytes(b"x")
    say()
    for name in ("artifacts/a", "secrets.json", "no such file"):
        with pytest.raises(RemoteError, match="not among"):
            remote.fetch([name], tmp_path / "dest")


def test_lines_of_a_manifest_that_make_no_sense_are_passed_over(finished):
    _, remote, say = finished
    say(5, None, [], {}, entry(1), entry("a", size=-1), entry("a", size="1"), entry("a", sha256=None), entry("good"))
    names = [each.name for each in remote.manifest().entries]
    assert names == ["good", "result.json"]


def test_only_a_whole_checkpoint_is_named(finished):
    folder, remote, _ = finished
    for step, size, sealed in ((10, 7, True), (20, 8, True), (30, 7, False)):
        path = folder / "checkpoints" / f"step-{step}"
        path.mkdir(parents=True)
        (path / "model.bin").write_bytes(b"weights")
        if sealed:
            files = {"model.bin": {"size": size, "sha256": sha256(b"weights").hexdigest()}}
            (path / "CHECKPOINT.json").write_text(json.dumps({"step": step, "files": files}))
    names = [each.name for each in remote.manifest().entries]
    assert names == ["checkpoints/step-10/model.bin", "checkpoints/step-10/CHECKPOINT.json"]


@pytest.mark.parametrize("text", ["", "[]", "{", '{"time": "x", "step": [], "reason": null, "deadline": NaN}', "\xff"])
def test_files_that_make_no_sense_are_not_believed(finished, text):
    folder, remote, _ = finished
    (folder / "job.json").write_text("{}")
    for name in ("status.json", "watchdog.json", "result.json", "processes.json"):
        (folder / name).write_text(text, encoding="latin-1")
    status = remote.status()
    assert (status.phase, status.reason, status.step) == (Phase.EXITED, "", 0)


# ── a machine that says whatever it likes ────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "said",
    [
        {"entries": [], "final": True},
        {"entries": {}, "final": True, "folder": "/x"},
        {"entries": None, "folder": "/x"},
        {"entries": [], "folder": "relative"},
        {"error": "x" * 10**5 + "\x1b[31m"},
        {"error": ["nested"]},
        {"entries": [{"name": f"{n}", "size": 1, "sha256": "0"} for n in range(100_001)], "folder": "/x"},
    ],
    ids=["no-folder", "an-object", "nothing", "relative", "long-error", "odd-error", "endless-names"],
)
def test_a_manifest_that_makes_no_sense_is_an_error(machine, said):
    job = machine.job()
    machine.says(job, said)
    with pytest.raises(RemoteError) as raised:
        machine.remote(job).manifest()
    assert len(str(raised.value)) < 1000
    assert "\x1b" not in str(raised.value)


@pytest.mark.parametrize(
    "code",
    [
        "print(word, '[]')",
        "print(word, '{' * 100)",
        "print(word, '[' * 100000)",
        "print('gpurun-0000000000000000 {}')",
        "print(word)",
        "sys.exit(3)",
        "sys.stderr.write('no \\x1b[31m reason'); sys.exit(3)",
        "import os; os.kill(os.getpid(), 9)",
        "os = sys.stdout\nwhile True: os.write('x' * 65536)",
    ],
)
def test_an_answer_that_makes_no_sense_is_an_error(machine, code):
    job = machine.job()
    machine.does(job, code)
    remote = machine.remote(job)
    for verb in (remote.status, remote.manifest, lambda: remote.logs(0), lambda: remote.tell(Order(1, OrderKind.STOP))):
        with pytest.raises(RemoteError) as raised:
            verb()
        assert "\x1b" not in str(raised.value)


@pytest.mark.parametrize(
    "status",
    [
        {},
        {"agent": 1, "watchdog": "yes", "began": [], "result": [], "status": 3, "proof": None, "log": "x", "time": {}},
        {
            "log": -5,
            "time": 1e300,
            "status": {"time": 2e300, "step": 1e400, "deadline": -1e300},
            "proof": {"time": -1e99},
        },
        {"log": 10**400, "time": 10**400, "status": {"time": 10**400, "total_steps": 10**400}},
    ],
)
def test_a_status_of_wrong_types_says_nothing(machine, status):
    job = machine.job()
    machine.says(job, status)
    found = machine.remote(job).status()
    assert (found.phase, found.reason, found.step, found.heartbeat) == (Phase.EXITED, "", 0, None)


def test_a_size_that_lies_costs_neither_memory_nor_disk(machine, tmp_path):
    job = machine.job()
    machine.says(job, {"entries": [entry("a", size=2**60)], "folder": "/x", "final": True}, b"")
    with pytest.raises(RemoteError):
        machine.remote(job).fetch(["a"], tmp_path / "dest")
    assert sum(path.stat().st_size for path in files_below(tmp_path / "dest")) < 1000


@pytest.mark.parametrize("data", [b"small", LARGE], ids=["small", "large"])
def test_a_fetch_that_is_overtaken_ends_at_once_and_the_next_one_carries_on(machine, tmp_path, data):
    job = machine.job()
    folder = machine.folder(job)
    (folder / "artifacts").mkdir(parents=True)
    machine.install(job)
    (folder / "artifacts/x").write_bytes(data)
    (folder / "result.json").write_text(json.dumps({"reason": "completed", "artifacts": [entry("artifacts/x", data)]}))

    def overtaken() -> None:
        raise RemoteError("something else comes first")

    with pytest.raises(RemoteError, match="comes first"):
        machine.remote(job, go_on=overtaken).fetch(["artifacts/x"], tmp_path)
    assert not (tmp_path / "artifacts/x").exists()
    machine.remote(job).fetch(["artifacts/x"], tmp_path)
    assert (tmp_path / "artifacts/x").read_bytes() == data
    assert files_below(tmp_path) == [tmp_path / "artifacts/x"]
