"""The byte plane of a VM on a real jupyter-server: a whole life, starts that are repeated, orders, secrets."""

from __future__ import annotations

import json
import os
import re
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256

import pytest
from boxes import until
from colabs import read_log

from providers.base import Order, OrderKind, Phase, Proof, Remote, Secret
from providers.errors import ProviderError, RemoteError, StartError, UnreachableError

LARGE = bytes(range(256)) * 20_000  # 5 MiB: in parts


def told_steps(log: bytes) -> list[int]:
    return [int(number) for number in re.findall(rb'"step": (\d+)', log)]


def test_a_whole_life_ends_with_the_files_home(ground, tmp_path):
    says = "import os, sys; print(os.environ.get('MPLBACKEND'), os.environ['TBE_RUNTIME_ADDR'], flush=True);"
    code = f"{says} sys.argv.append('short'); exec(open('code/steps.py').read())"
    job = ground.job(command=("{python}", "-S", "-c", code))
    remote = ground.remote(job)
    assert isinstance(remote, Remote)
    assert remote.status().phase is Phase.READY
    assert remote.logs(0) == b""
    assert remote.manifest().entries == ()
    remote.start(job)
    ground.ended(remote)
    assert (remote.status().reason, remote.status().step) == ("completed", 5)
    manifest = remote.manifest()
    assert manifest.final
    names = [entry.name for entry in manifest.entries]
    assert {"result.json", "artifacts/model.bin", "artifacts/deep dir/card.md"} <= set(names)
    remote.fetch(names, tmp_path / "dest")
    for entry in manifest.entries:
        data = (tmp_path / "dest" / entry.name).read_bytes()
        assert (len(data), sha256(data).hexdigest()) == (entry.size, entry.sha256)
    assert read_log(remote) == (ground.folder(job) / "log.txt").read_bytes()
    assert f"None {ground.runtime.address}\n".encode() in read_log(remote)  # no notebook's plots; a way to end itself
    assert (ground.vm.content / "gpurun-mark").read_text().strip() == str(job.mark)
    assert ground.gate.kept_alive > 0


def test_a_started_job_is_not_started_again_by_anybody(running):
    ground, job, remote = running
    (ground.vm.content / "gpurun-mark").unlink(missing_ok=True)
    for again in (remote, ground.remote(job), ground.remote(job, folder="another computer's")):
        again.start(job)
    step = remote.status().step
    until(lambda: remote.status().step >= step + 3, "more steps")
    seen = told_steps(read_log(remote))
    assert seen == list(range(1, len(seen) + 1))


def test_a_secret_is_in_one_file_for_our_user_alone(running):
    ground, job, _ = running
    folder, path = ground.vm.folder, ground.folder(job) / "secrets.json"
    assert path.stat().st_mode & 0o777 == 0o600
    holding = [
        each
        for each in folder.rglob("*")
        if each.is_file() and not each.is_relative_to(folder / "root") and b"verysecret" in each.read_bytes()
    ]
    assert holding == [path]
    assert (ground.vm.content / "gpurun").stat().st_mode & 0o777 == 0o700
    assert not any("verysecret" in head for head in ground.gate.heads)


def test_the_watchdog_stays_unproven_since_its_power_can_not_be_tried(running):
    _, _, remote = running

    def looked():
        holder = remote.status().watchdog
        return holder if holder is not None and "can't be tried" in holder.evidence else None

    holder = until(looked, "a look at the runtime's address")
    assert holder.proof is Proof.UNPROVEN
    assert "404, there" in holder.evidence


def test_one_kernel_answers_and_one_waits_though_they_die_and_however_many_controllers_come(running):
    ground, job, remote = running
    jupyter = remote._jupyter
    for kernel in jupyter.kernels():
        jupyter.end_kernel(kernel)
    step = remote.status().step
    until(lambda: remote.status().step > step, "more steps")
    remote._waiting._looked = 0.0
    remote.status()
    later = ground.remote(job)
    later.status()
    later.logs(0)
    parts = {name: (ground.vm.content / "gpurun" / f"{name}.kernel").read_text() for name in ("ask", "wait")}
    assert set(jupyter.kernels()) == set(parts.values())
    until(lambda: jupyter.kernels()[parts["wait"]] == "busy", "a kernel that waits")
    until(lambda: jupyter.kernels()[parts["ask"]] == "idle", "a kernel that answers")
    assert ground.read(job, "status.json")["restarts"] == 0


def test_two_that_start_at_once_start_one_training(ground):
    job = ground.job(blobs=(ground.blob("data/large", LARGE), ground.blob("data/small", b"small")))
    remotes = [ground.remote(job, folder=f"computer {number}") for number in range(3)]
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
    ground.ended(remotes[0])
    assert told_steps(read_log(remotes[0])) == [1, 2, 3, 4, 5]
    assert (ground.folder(job) / "data/large").read_bytes() == LARGE


def test_a_vm_with_another_mark_is_left_alone(ground):
    ground.vm.content.joinpath("gpurun-mark").write_text("gpurun-dead-other-260101-abcdef-1-tzzzzzz\n")
    job = ground.job()
    with pytest.raises(StartError, match="another attempt's mark"):
        ground.remote(job).start(job)
    assert not ground.folder(job).exists()


def test_an_order_to_stop_is_obeyed_and_a_deadline_is_moved(ground):
    job, remote = ground.started("long")
    until(lambda: remote.status().phase is Phase.RUNNING, "the training")
    deadline = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=70)
    remote.tell(Order(1, OrderKind.DEADLINE, deadline))
    until(lambda: remote.status().deadline == deadline, "the new deadline")
    remote.tell(Order(2, OrderKind.STOP))
    ground.ended(remote)
    assert remote.status().reason == "stopped"
    remote.tell(Order(0, OrderKind.STORE, store=Secret('{"prefix": "a/", "until": 7}')))
    path = ground.folder(job) / "store.json"
    assert json.loads(path.read_bytes()) == {"prefix": "a/", "until": 7}
    assert path.stat().st_mode & 0o777 == 0o600


def test_no_order_can_be_left_where_nothing_was_shipped(ground):
    with pytest.raises(RemoteError, match="no job"):
        ground.remote(ground.job()).tell(Order(1, OrderKind.STOP))


def test_at_its_deadline_the_vm_posts_its_own_unassignment(ground):
    _, remote = ground.started("long")
    before = len(ground.runtime.asked)
    until(lambda: remote.status().phase is Phase.RUNNING, "the training")
    assert ("POST", "/unassign") not in ground.runtime.asked[before:]
    remote.tell(Order(1, OrderKind.DEADLINE, datetime.now(UTC)))
    until(lambda: ("POST", "/unassign") in ground.runtime.asked[before:], "an unassignment")


def test_a_vm_that_is_not_listed_is_unreachable_and_never_ready(ground):
    job = ground.job()
    remote = ground.remote(job)
    ground.gate.listed = False
    for verb in (remote.status, remote.manifest, lambda: remote.logs(0), lambda: remote.start(job)):
        with pytest.raises(UnreachableError, match="not listed"):
            verb()


def test_limits_are_the_vendors_times_whatever_the_clock_here_says(ground):
    now = datetime.now(UTC)
    limits = {"deadline": now + timedelta(seconds=1080), "ceiling": now + timedelta(seconds=1090)}
    job = ground.job("long", max_seconds=10_000, **limits)
    remote = ground.remote(job)
    remote._ahead = 1000.0
    remote.start(job)
    assert 60 < ground.read(job, "arm.json")["max_seconds"] < 91


def test_data_that_changed_since_the_launch_is_never_trained_on(ground):
    for data in (b"small" + os.urandom(8), os.urandom(5 * 2**20)):
        blob = ground.blob("data/x", data)
        blob.path.write_bytes(data[::-1])
        job = ground.job(blobs=(blob,))
        ground.vm.content.joinpath("gpurun-mark").unlink(missing_ok=True)
        with pytest.raises(StartError, match="changed since the launch") as raised:
            ground.remote(job).start(job)
        assert raised.value.permanent
        assert not (ground.folder(job) / "job.json").exists()


def test_shipping_stops_at_the_deadline_and_tells_how_far_it_is(ground):
    told = []
    blobs = (ground.blob("data/x", LARGE), ground.blob("data/y", b"small"))
    job = ground.job(blobs=blobs)
    late = replace(job, deadline=datetime.now(UTC) - timedelta(seconds=1))
    with pytest.raises(RemoteError, match="deadline"):
        ground.remote(job).start(late)
    other = ground.job(blobs=(ground.blob("data/x", os.urandom(9 * 2**20)), *blobs))
    ground.vm.content.joinpath("gpurun-mark").unlink()
    ground.remote(other, progress=lambda done, whole: told.append((done, whole))).start(other)
    assert told == sorted(told)
    assert told[-1][0] == told[-1][1] > 9 * 2**20


def test_a_checkpoint_is_there_whole_before_the_training(ground, tmp_path):
    checkpoint = tmp_path / "step-7"
    (checkpoint / "deep").mkdir(parents=True)
    files = {"weights.bin": LARGE, "deep/optimizer.bin": b"state", "deep/empty": b""}
    for name, data in files.items():
        (checkpoint / name).write_bytes(data)
    listed = {name: {"size": len(data), "sha256": sha256(data).hexdigest()} for name, data in files.items()}
    (checkpoint / "CHECKPOINT.json").write_text(json.dumps({"step": 7, "files": listed}))
    job, remote = ground.started("long", checkpoint=checkpoint)
    seeded = ground.folder(job) / "checkpoints/step-7"
    assert all((seeded / name).read_bytes() == data for name, data in files.items())
    assert len(remote.manifest().entries) == 4
