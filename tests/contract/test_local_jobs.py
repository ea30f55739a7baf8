"""What `local` promises beyond the contract: every process found and ended, whatever became of its guards."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tarfile
from hashlib import sha256
from pathlib import Path

import pytest
from boxes import STRAYS, until

from providers.base import Blob, Phase, Proof, Secret
from providers.errors import (
    NoCapacityError,
    ProviderError,
    StartError,
    UnclearError,
    UnreachableError,
)
from providers.local import processes


def started(here, job):
    """Launch and start a job, as (id, remote)."""
    allocation_id = here.launch(job)
    remote = here.remote(allocation_id)
    remote.start(job)
    return allocation_id, remote


def lives(token: str) -> dict[int, str]:
    """Processes with a word on their command line: the tests' own way of looking."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if token in command:
                found[int(path.name)] = command
    return found


def kill(pids) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
def tangle(here):
    """A job whose training has left a child, a session of its own, a daemon, and one without any environment."""
    job = here.ground.job()
    token = job.mark.run_id + "-token"
    job = here.ground.job(command=("{python}", "-S", "-c", STRAYS + "\ntime.sleep(99)", token))
    allocation_id, _ = started(here, job)
    folder = here.ground.folder(job)
    until(lambda: len(lives(token)) == 5, "the whole tangle")

    def listed() -> bool:
        pids = {one["pid"] for one in json.loads((folder / "processes.json").read_text())}
        return set(lives(token)) <= pids

    until(listed, "all listed")
    yield job, allocation_id, token, folder
    left = lives(token)
    kill(left)
    assert left == {}


def guards(folder) -> list[int]:
    return [json.loads((folder / name).read_text())["pid"] for name in ("watchdog.json", "status.json")]


def test_terminate_ends_the_whole_tangle(here, tangle):
    _, allocation_id, token, _ = tangle
    here.provider.terminate([allocation_id])
    assert lives(token) == {}
    look = here.provider.inspect(allocation_id)
    assert (look.phase, look.billing) == (Phase.EXITED, False)
    assert f"no process carries {allocation_id}" in look.evidence


def test_with_both_guards_killed_the_rest_still_bills_and_can_be_ended(here, tangle):
    job, allocation_id, token, folder = tangle
    kill(guards(folder))
    here.phase(allocation_id, Phase.EXITED)  # a lock is free some moments after the kill
    assert here.provider.inspect(allocation_id).billing
    assert here.remote(allocation_id).status().phase is Phase.EXITED
    assert here.remote(allocation_id).status().reason == ""
    assert [one.id for one in here.provider.find(job.mark)] == [allocation_id]
    here.provider.terminate([allocation_id])
    assert lives(token) == {}


def test_a_daemon_without_environment_is_found_by_its_number_and_start_time(here, tangle):
    _, allocation_id, token, folder = tangle
    naked = [pid for pid in lives(token) if not Path(f"/proc/{pid}/environ").read_bytes()]
    assert len(naked) == 1
    kill([*guards(folder), *(set(lives(token)) - set(naked))])
    until(lambda: set(lives(token)) == set(naked), "only the naked one")
    assert here.provider.inspect(allocation_id).billing
    assert allocation_id in [one.id for one in here.provider.allocations()]
    here.provider.terminate([allocation_id])
    assert lives(token) == {}
    assert not here.provider.inspect(allocation_id).billing


def test_a_number_that_another_process_has_now_is_left_alone(here):
    job = here.ground.job()
    allocation_id = here.launch(job)
    folder = here.ground.folder(job)
    here.provider.terminate([allocation_id])
    other = subprocess.Popen(["sleep", "99"], start_new_session=True)
    try:
        (folder / "processes.json").write_text(json.dumps([{"pid": other.pid, "started": "0:1"}]))
        assert not here.provider.inspect(allocation_id).billing
        here.provider.terminate([allocation_id])
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_a_job_whose_folder_was_removed_is_still_found_and_ended(here, tangle):
    job, allocation_id, token, folder = tangle
    os.kill(guards(folder)[0], signal.SIGSTOP)  # or it would end all by itself
    shutil.rmtree(folder, ignore_errors=True)
    assert here.provider.inspect(allocation_id).billing
    assert [one.id for one in here.provider.find(job.mark)] == [allocation_id]
    here.provider.terminate([allocation_id])
    assert lives(token) == {}


def test_after_a_crash_of_everything_the_mark_alone_tells_how_it_stands(here, tangle):
    job, allocation_id, token, folder = tangle
    kill([*guards(folder), *lives(token)])
    until(lambda: not here.provider.inspect(allocation_id).billing, "nothing lives")
    other = here.ground.again()
    assert [(one.id, one.billing) for one in other.find(job.mark)] == [(allocation_id, False)]
    assert other.inspect(allocation_id).phase is Phase.EXITED
    status = other.remote(allocation_id, here.access).status()
    assert (status.phase, status.reason, status.watchdog.proof) == (Phase.EXITED, "", Proof.ABSENT)


def test_what_will_not_die_is_named_not_hidden(here, tangle, monkeypatch):
    _, allocation_id, token, folder = tangle
    monkeypatch.setattr("providers.local.machine._DIE_SECONDS", 0.1)
    for pid in guards(folder):
        os.kill(pid, signal.SIGSTOP)  # neither ends anything by itself now
    with monkeypatch.context() as patch:
        patch.setattr(processes, "_send", lambda *_: None)  # a kernel that does not obey
        with pytest.raises(ProviderError, match="do not die") as error:
            here.provider.terminate([allocation_id])
    assert error.value.allocation_id == allocation_id
    assert error.value.hint.startswith("ps ")
    here.provider.terminate([allocation_id])
    assert lives(token) == {}


def test_what_forks_all_the_time_is_ended_too(here):
    """A child that shed its environment is known by its parent alone: it must not lose it while we kill."""
    code = """
import os, sys, time
sleep = [sys.executable, "-S", "-c", "import time; time.sleep(99)", sys.argv[-1]]
for _ in range(150):
    if os.fork() == 0:
        os.setsid()
        os.execve(sys.executable, sleep, {})
    time.sleep(0.01)
time.sleep(99)
"""
    job = here.ground.job()
    token = job.mark.run_id + "-token"
    job = here.ground.job(command=("{python}", "-S", "-c", code, token))
    allocation_id, _ = started(here, job)
    until(lambda: len(lives(token)) > 20, "a crowd")
    here.provider.terminate([allocation_id])
    assert lives(token) == {}


def test_an_agent_that_died_is_told_of_in_the_status(here, tangle):
    _, allocation_id, token, folder = tangle
    os.kill(guards(folder)[1], signal.SIGKILL)
    until(lambda: not here.provider.inspect(allocation_id).billing, "the watchdog's deed")
    assert lives(token) == {}
    status = here.remote(allocation_id).status()
    assert "the agent is gone without a result (killed by signal 9)" in status.detail


# ── launch and start ──────────────────────────────────────────────────────────────────────────────────────────────


def test_the_same_launch_again_is_unclear_and_found(here):
    job = here.ground.job()
    allocation_id = here.launch(job)
    with pytest.raises(UnclearError):
        here.provider.launch(job, here.ground.offer())
    assert [one.id for one in here.provider.find(job.mark)] == [allocation_id]
    here.provider.terminate([allocation_id])


def test_a_home_that_can_not_be_written_rents_nothing(here):
    (here.ground.path / "home").write_text("a file, not a folder")
    with pytest.raises(NoCapacityError):
        here.provider.launch(here.ground.job(), here.ground.offer())


def test_a_python_that_does_not_run_rents_nothing(here, tmp_path):
    from providers.local import LocalProvider

    job = here.ground.job()
    with pytest.raises(NoCapacityError):
        LocalProvider(tmp_path / "home" / "runs", Path("/bin/false")).launch(job, here.ground.offer())
    assert not here.provider.inspect(str(job.mark)).billing


def test_a_job_of_another_computer_is_never_called_absent(here):
    job = here.ground.job()
    allocation_id = here.launch(job)
    here.provider.terminate([allocation_id])
    arm = here.ground.folder(job) / "arm.json"
    arm.write_text(json.dumps({**json.loads(arm.read_text()), "host": "local-elsewhere"}))
    for verb in (
        lambda: here.provider.inspect(allocation_id),
        lambda: here.provider.find(job.mark),
        lambda: here.provider.terminate([allocation_id]),
        lambda: here.remote(allocation_id),
    ):
        with pytest.raises(UnreachableError):
            verb()
    arm.write_text(json.dumps({**json.loads(arm.read_text()), "host": here.provider.account()}))


def test_no_key_of_the_user_reaches_the_job_unasked(here, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "leak")
    monkeypatch.setenv("HF_TOKEN", "leak")
    job = here.ground.job(command=("sh", "-c", "env; echo $MINE | wc -c"), secrets={"MINE": Secret("given on purpose")})
    allocation_id, remote = started(here, job)
    here.until(lambda: remote.status().phase is Phase.EXITED, "the end")
    log = remote.logs(0).decode()
    assert "leak" not in log
    assert f"GPURUN_MARK={job.mark}" in log
    assert log.endswith("17\n")
    here.until(lambda: not here.provider.inspect(allocation_id).billing, "free")
    files = [path for path in here.ground.folder(job).rglob("*") if path.is_file() and path.name != "log.txt"]
    assert [path.name for path in files if b"given on purpose" in path.read_bytes()] == []


def test_secrets_are_for_our_eyes_and_gone_after_terminate(here):
    job = here.ground.job("long", secrets={"MINE": Secret("given on purpose")})
    allocation_id, _ = started(here, job)
    path = here.ground.folder(job) / "secrets.json"
    assert path.stat().st_mode & 0o777 == 0o600
    here.provider.terminate([allocation_id])
    assert not path.exists()


def test_the_user_s_data_is_copied_and_checked_never_linked(here, tmp_path):
    data = tmp_path / "rows.jsonl"
    data.write_bytes(b"{}\n")
    blob = Blob(sha256(b"{}\n").hexdigest(), 3, data, "data/sub/rows.jsonl")
    job = here.ground.job(blobs=(blob,), command=("sh", "-c", "echo more >> data/sub/rows.jsonl"))
    allocation_id, remote = started(here, job)
    here.until(lambda: remote.status().reason == "completed", "the end")
    assert (here.ground.folder(job) / "data/sub/rows.jsonl").read_bytes() == b"{}\nmore\n"
    assert data.read_bytes() == b"{}\n"
    here.provider.terminate([allocation_id])


def test_data_that_changed_since_it_was_hashed_is_refused(here, tmp_path):
    data = tmp_path / "rows.jsonl"
    data.write_bytes(b"changed")
    job = here.ground.job(blobs=(Blob("0" * 64, 7, data, "data/rows.jsonl"),))
    allocation_id = here.launch(job)
    with pytest.raises(StartError, match=r"rows\.jsonl changed since the launch"):
        here.remote(allocation_id).start(job)
    assert not (here.ground.folder(job) / "job.json").exists()
    here.provider.terminate([allocation_id])


def test_an_attempt_begins_with_the_checkpoint_it_is_given(here, tmp_path):
    checkpoint = tmp_path / "step-40"
    checkpoint.mkdir()
    (checkpoint / "model.bin").write_bytes(b"weights")
    (checkpoint / "CHECKPOINT.json").write_text("{}")
    job = here.ground.job(checkpoint=checkpoint, command=("sh", "-c", "cat checkpoints/step-40/model.bin"))
    allocation_id, remote = started(here, job)
    here.until(lambda: remote.status().reason == "completed", "the end")
    assert remote.logs(0) == b"weights"
    here.provider.terminate([allocation_id])


def test_a_bundle_brings_code_and_nothing_that_gives_orders(here, tmp_path):
    job = here.ground.job("long")
    extra = tmp_path / "result.json"
    extra.write_text("{}")
    bundle = tmp_path / "bundle.tar.gz"
    with tarfile.open(job.bundle) as old, tarfile.open(bundle, "w:gz") as new:
        for member in old.getmembers():
            new.addfile(member, old.extractfile(member))
        new.add(extra, "result.json")
    job = here.ground.job("long", bundle=bundle)
    allocation_id, _ = started(here, job)
    here.phase(allocation_id, Phase.RUNNING)
    assert not (here.ground.folder(job) / "result.json").exists()
    here.provider.terminate([allocation_id])


@pytest.mark.parametrize("name", ["../outside", "/outside"])
def test_a_bundle_that_reaches_outside_is_refused(here, tmp_path, name):
    bundle = tmp_path / "bundle.tar.gz"
    with tarfile.open(bundle, "w:gz") as tar:
        entry = tarfile.TarInfo(name)
        entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(entry)
    job = here.ground.job(bundle=bundle)
    allocation_id = here.launch(job)
    with pytest.raises(StartError):
        here.remote(allocation_id).start(job)
    here.provider.terminate([allocation_id])


def test_a_bundle_that_is_not_there_is_a_start_error(here, tmp_path):
    job = here.ground.job(bundle=tmp_path / "none.tar.gz")
    allocation_id = here.launch(job)
    with pytest.raises(StartError):
        here.remote(allocation_id).start(job)
    here.provider.terminate([allocation_id])


def test_starting_again_touches_nothing_of_what_runs(here, tmp_path):
    data = tmp_path / "rows.jsonl"
    data.write_bytes(b"{}\n")
    blob = Blob(sha256(b"{}\n").hexdigest(), 3, data, "data/rows.jsonl")
    job = here.ground.job(blobs=(blob,), command=("sh", "-c", "echo more >> data/rows.jsonl; exec sleep 99"))
    allocation_id, remote = started(here, job)
    path = here.ground.folder(job) / "data" / "rows.jsonl"
    until(lambda: path.read_bytes() == b"{}\nmore\n", "the training's own doing")
    remote.start(job)
    assert path.read_bytes() == b"{}\nmore\n"
    here.provider.terminate([allocation_id])


def test_what_was_ended_is_not_started_any_more(here):
    job = here.ground.job()
    allocation_id = here.launch(job)
    here.provider.terminate([allocation_id])
    with pytest.raises(StartError):
        here.remote(allocation_id).start(job)
