"""The byte plane on a real sshd: a whole life, and starts that are repeated, cut and doubled."""

from __future__ import annotations

import contextlib
import json
import re
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256

import pytest
from boxes import until
from machines import read_log
from nasty import NASTY

from providers.base import Order, OrderKind, Phase, Proof, Remote, Secret
from providers.errors import HostKeyError, IntegrityError, ProviderError, RemoteError, StartError, UnreachableError

LARGE = bytes(range(256)) * 10_000  # 2.4 MiB: goes by itself


def steps(log: bytes) -> list[int]:
    return [int(number) for number in re.findall(rb'"step": (\d+)', log)]


@pytest.fixture
def running(machine):
    """A long job in the midst of its steps, as (job, remote)."""
    job = machine.job("long", secrets={"HF_TOKEN": Secret("hf_verysecretvalue")})
    remote = machine.remote(job)
    remote.start(job)
    until(lambda: remote.status().step >= 2, "its steps")
    return job, remote


def test_a_whole_life_ends_with_the_files_home(machine, tmp_path):
    job = machine.job()
    remote = machine.remote(job)
    assert isinstance(remote, Remote)
    assert remote.status().phase is Phase.READY
    assert remote.logs(0) == b""
    assert remote.manifest().entries == ()
    remote.start(job)
    machine.ended(remote)
    assert (remote.status().reason, remote.status().step) == ("completed", 5)
    manifest = remote.manifest()
    assert manifest.final
    names = [entry.name for entry in manifest.entries]
    assert {"result.json", "artifacts/model.bin", "artifacts/deep dir/card.md"} <= set(names)
    remote.fetch(names, tmp_path / "dest")
    for entry in manifest.entries:
        data = (tmp_path / "dest" / entry.name).read_bytes()
        assert (len(data), sha256(data).hexdigest()) == (entry.size, entry.sha256)
    assert read_log(remote) == (machine.folder(job) / "log.txt").read_bytes() != b""


def test_a_started_job_is_not_started_again_and_its_watchdog_alone_stops_no_bill(machine, running):
    job, remote = running
    for again in (remote, remote, machine.remote(job)):
        again.start(job)
    step = remote.status().step
    until(lambda: remote.status().step >= step + 3, "more steps")
    seen = steps(read_log(remote))
    assert seen == list(range(1, len(seen) + 1))
    holder = remote.status().watchdog
    assert holder is not None
    assert (holder.proof, holder.proven_at) == (Proof.ABSENT, None)
    assert "no key on this machine" in holder.evidence
    assert "looked at" in holder.evidence


def test_two_that_start_at_once_start_one_training(machine):
    job = machine.job(blobs=(machine.blob("data/large", LARGE), machine.blob("data/small", b"small")))
    remotes = [machine.remote(job) for _ in range(3)]
    raised = []

    def start(remote) -> None:
        try:
            remote.start(job)
        except ProviderError as error:
            raised.append(error)

    threads = [threading.Thread(target=start, args=(remote,)) for remote in remotes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(raised) < len(remotes)
    machine.ended(remotes[0])
    assert steps(read_log(remotes[0])) == [1, 2, 3, 4, 5]
    assert (machine.folder(job) / "data/large").read_bytes() == LARGE


SIGHTS = {  # what stands in the machine's home when the connection is cut
    "a folder": ".gpurun",
    "a guard": ".gpurun/jobs/*/payload/watchdog.py",
    "all guards": ".gpurun/jobs/*/payload/door.py",
    "the watchdog": ".gpurun/jobs/*/watchdog.json",
    "a blob": ".gpurun/blobs/*",
    "a part of a large blob": ".gpurun/blobs/*.part",
    "a large blob": f".gpurun/blobs/{sha256(LARGE).hexdigest()}",
    "the bundle's files": ".gpurun/jobs/*/code",
    "the job": ".gpurun/jobs/*/job.json",
}


@pytest.mark.parametrize("sight", SIGHTS)
def test_a_start_that_was_cut_anywhere_is_done_by_the_next_one_with_one_training(machine, sight):
    blobs = [machine.blob(f"data/{number}", b"%d" % number * 3000) for number in range(20)]
    job = machine.job(blobs=(machine.blob("data/large", LARGE), *blobs))

    def cut() -> None:
        until(lambda: any(machine.sshd.home.glob(SIGHTS[sight])), sight)
        machine.proxy.refuse()

    cutter = threading.Thread(target=cut)
    cutter.start()
    with contextlib.suppress(UnreachableError):
        machine.remote(job).start(job)
    cutter.join()
    machine.proxy.open()
    remote = machine.remote(job)
    remote.start(job)
    machine.ended(remote)
    assert steps(read_log(remote)) == [1, 2, 3, 4, 5]
    assert (machine.folder(job) / "data/large").read_bytes() == LARGE
    assert [(machine.folder(job) / blob.name).read_bytes() for blob in blobs] == [b.path.read_bytes() for b in blobs]


def cut_at(machine, job, count: int) -> None:
    """Start, and cut every connection as soon as so many bytes went by."""
    machine.proxy.cuts = list(range(count, count + 600_000, 4000))
    with pytest.raises(UnreachableError):
        machine.remote(job).start(job)
    machine.proxy.cuts = []


def test_what_arrived_before_a_cut_is_not_sent_again(machine):
    job = machine.job(blobs=(machine.blob("data/a", LARGE), machine.blob("data/b", LARGE[::-1])))
    cut_at(machine, job, 4_000_000)
    before = machine.proxy.sent
    machine.remote(job).start(job)
    assert machine.proxy.sent - before < 1.5 * len(LARGE)


def test_an_order_to_stop_is_obeyed_and_a_deadline_is_moved(running):
    _, remote = running
    deadline = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=70)
    remote.tell(Order(1, OrderKind.DEADLINE, deadline))
    until(lambda: remote.status().deadline == deadline, "the new deadline")
    for _ in range(2):
        remote.tell(Order(2, OrderKind.STOP))
    until(lambda: remote.status().phase is Phase.EXITED, "the end")
    assert remote.status().reason == "stopped"


def test_a_fresh_leave_to_write_into_the_store_is_for_our_user_s_eyes_and_no_order(machine, running):
    job, remote = running
    remote.tell(Order(1, OrderKind.STOP))
    machine.ended(remote)
    remote.tell(Order(0, OrderKind.STORE, store=Secret('{"prefix": "a/", "until": 7}')))
    path = machine.folder(job) / "store.json"
    assert json.loads(path.read_bytes()) == {"prefix": "a/", "until": 7}
    assert path.stat().st_mode & 0o777 == 0o600
    assert json.loads((machine.folder(job) / "order.json").read_bytes())["id"] == 1


def test_no_order_can_be_left_where_nothing_was_shipped(machine):
    with pytest.raises(RemoteError, match="no job"):
        machine.remote(machine.job()).tell(Order(1, OrderKind.STOP))


def test_a_secret_is_in_one_file_for_our_user_alone_and_gone_at_the_end(machine, running):
    job, remote = running
    path = machine.folder(job) / "secrets.json"
    assert path.stat().st_mode & 0o777 == 0o600
    assert machine.folder(job).stat().st_mode & 0o777 == 0o700
    holding = [each for each in machine.sshd.home.rglob("*") if each.is_file() and b"verysecret" in each.read_bytes()]
    assert holding == [path]
    assert not any("verysecret" in command for command in machine.living().values())
    remote.tell(Order(1, OrderKind.STOP))
    machine.ended(remote)
    assert not path.exists()


def test_a_machine_that_was_rebooted_in_the_midst_has_exited_without_a_result(machine, running):
    job, remote = running
    machine.sshd.stop()
    machine.kill()
    machine.sshd.start()
    status = remote.status()
    assert (status.phase, status.reason) == (Phase.EXITED, "")
    remote.start(job)
    assert remote.status().phase is Phase.EXITED


def test_a_machine_that_was_rebooted_before_the_start_was_over_is_started(machine):
    job = machine.job(blobs=(machine.blob("data/a", LARGE),))
    cut_at(machine, job, 1_000_000)
    machine.kill()
    remote = machine.remote(job)
    assert remote.status().phase is Phase.READY
    remote.start(job)
    machine.ended(remote)
    assert remote.status().reason == "completed"


def test_a_job_that_was_ended_before_it_began_does_not_begin(machine):
    job = machine.job()
    machine.folder(job).mkdir(parents=True)
    (machine.folder(job) / "end.json").write_text("{}")
    with pytest.raises(StartError, match="ended before"):
        machine.remote(job).start(job)


def test_names_that_broke_others_arrive_and_come_home(machine, tmp_path):
    code = (
        "import os, shutil; os.makedirs('artifacts'); shutil.copytree('data', 'artifacts/data')\n"
        "open(b'artifacts/\\xff', 'w').write('x')"
    )
    blobs = tuple(machine.blob(f"data/{name}", name.encode()) for name in NASTY.values())
    job = machine.job(code=code, blobs=blobs)
    remote = machine.remote(job)
    remote.start(job)
    machine.ended(remote)
    names = [entry.name for entry in remote.manifest().entries]
    assert {f"artifacts/data/{name}" for name in NASTY.values()} < set(names)
    assert "artifacts/\udcff" in names
    remote.fetch(names, tmp_path / "dest")
    for name in NASTY.values():
        assert (tmp_path / "dest/artifacts/data" / name).read_bytes() == name.encode()


@pytest.mark.parametrize("data", [b"small", LARGE], ids=["small", "large"])
def test_data_that_changed_since_the_launch_is_never_trained_on(machine, data):
    blob = machine.blob("data/x", data)
    blob.path.write_bytes(data[::-1])
    job = machine.job(blobs=(blob,))
    with pytest.raises(StartError, match="changed since the launch") as raised:
        machine.remote(job).start(job)
    assert raised.value.permanent
    assert not (machine.folder(job) / "job.json").exists()


def test_data_that_a_training_changed_in_place_is_not_taken_for_the_same_again(machine):
    blob = machine.blob("data/x", LARGE)
    first, second = machine.job("long", blobs=(blob,)), machine.job("long", blobs=(blob,))
    machine.remote(first).start(first)
    with (machine.folder(first) / "data/x").open("r+b") as file:
        file.write(b"changed")
    with pytest.raises(IntegrityError):
        machine.remote(second).start(second)
    machine.remote(second).start(second)
    assert (machine.folder(second) / "data/x").read_bytes() == LARGE


def test_a_checkpoint_is_there_whole_before_the_training_and_once(machine, tmp_path):
    checkpoint = tmp_path / "step-7"
    (checkpoint / "deep").mkdir(parents=True)
    files = {"weights.bin": LARGE, "deep/optimizer.bin": b"state"}
    for name, data in files.items():
        (checkpoint / name).write_bytes(data)
    listed = {name: {"size": len(data), "sha256": sha256(data).hexdigest()} for name, data in files.items()}
    (checkpoint / "CHECKPOINT.json").write_text(json.dumps({"step": 7, "files": listed}))
    job = machine.job("long", checkpoint=checkpoint)
    remote = machine.remote(job)
    remote.start(job)
    seeded = machine.folder(job) / "checkpoints/step-7"
    assert {str(path.relative_to(seeded)) for path in seeded.rglob("*") if path.is_file()} == {
        *files,
        "CHECKPOINT.json",
    }
    assert all((seeded / name).read_bytes() == data for name, data in files.items())
    assert (seeded / "weights.bin").stat().st_nlink == 1
    assert len(remote.manifest().entries) == 3


def test_shipping_stops_at_the_deadline(machine):
    job = machine.job(blobs=(machine.blob("data/x", LARGE),))
    job = replace(job, deadline=datetime.now(UTC) - timedelta(seconds=1))
    with pytest.raises(RemoteError, match="deadline"):
        machine.remote(job).start(job)


def test_shipping_tells_how_far_it_is(machine):
    told = []
    job = machine.job(blobs=(machine.blob("data/x", LARGE), machine.blob("data/y", b"small")))
    machine.remote(job, progress=lambda done, whole: told.append((done, whole))).start(job)
    whole = told[-1][1]
    assert told == sorted(told)
    assert told[-1][0] == whole > len(LARGE)


def test_that_logins_work_is_told_once_after_the_start_and_whoever_is_told_can_fail(machine):
    calls = []

    def on_login() -> None:
        calls.append(1)
        raise UnreachableError("the vendor's API is down")

    job = machine.job()
    remote = machine.remote(job, on_login=on_login)
    machine.proxy.refuse()
    with pytest.raises(UnreachableError):
        remote.start(job)
    machine.proxy.open()
    assert remote.status().phase is Phase.READY
    assert calls == []
    remote.start(job)
    for _ in range(2):
        remote.status()
        machine.proxy.cut()
    assert calls == [1]
    later = machine.remote(job, on_login=on_login)
    later.status()
    assert calls == [1, 1]


def test_what_a_login_shell_prints_is_no_answer(machine, tmp_path):
    (machine.sshd.home / ".bashrc").write_text(
        "echo hello\necho 'gpurun-0 {\"error\": \"no\"}'\nprintf '\\n{}'\necho x >&2\n"
    )
    job = machine.job()
    remote = machine.remote(job)
    remote.start(job)
    machine.ended(remote)
    assert read_log(remote) == (machine.folder(job) / "log.txt").read_bytes()
    remote.fetch(["result.json"], tmp_path / "dest")


def test_a_machine_without_a_python_that_serves_is_told_from_others(machine):
    shim = machine.sshd.home / "bin" / "python3"
    shim.parent.mkdir()
    shim.write_text(
        '#!/bin/bash\ncode="$5"; shift 5\n'
        'exec /usr/bin/python3 -I -S -c "import sys; sys.version_info = (3, 8, 10); $code" "$@"\n'
    )
    shim.chmod(0o755)
    for path, words in (("$HOME/bin:$PATH", r"python3 is 3\.8\.10"), ("$HOME/none", "has no python3")):
        (machine.sshd.home / ".bashrc").write_text(f'PATH="{path}"\n')
        job = machine.job()
        with pytest.raises(StartError, match=words) as raised:
            machine.remote(job).start(job)
        assert raised.value.permanent


def test_time_counts_from_the_arming_by_a_clock_that_no_one_can_set(machine):
    job = machine.job("long", max_seconds=10_000)  # from a launch long ago
    machine.remote(job).start(job)
    left = (job.ceiling - datetime.now(UTC)).total_seconds()
    for name in ("arm.json", "job.json"):
        assert left - 1 < machine.read(job, name)["max_seconds"] < left + 20


def test_limits_are_the_vendors_times_whatever_the_clock_here_says(machine):
    now = datetime.now(UTC)
    limits = {"deadline": now + timedelta(seconds=1080), "ceiling": now + timedelta(seconds=1090)}
    job = machine.job("long", max_seconds=10_000, **limits)
    machine.remote(job, ahead=1000.0).start(job)
    assert 60 < machine.read(job, "arm.json")["max_seconds"] < 91
    limits["deadline"] = now + timedelta(seconds=999)
    late = machine.job("long", blobs=(machine.blob("data/x", b"small"),), **limits)
    with pytest.raises(RemoteError, match="deadline"):
        machine.remote(late, ahead=1000.0).start(late)


def test_a_machine_with_another_host_key_gets_nothing(machine):
    job = machine.job()
    (machine.sshd.folder / "host_ed25519.pub").write_text((machine.sshd.folder / "client_ed25519.pub").read_text())
    with pytest.raises(HostKeyError):
        machine.remote(job).start(job)
    assert not (machine.sshd.home / ".gpurun").exists()
