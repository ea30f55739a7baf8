"""The byte plane on Hugging Face: files that show up late, a log that drops, an end that only the Hub tells."""

from __future__ import annotations

import time
from contextlib import closing

import pytest

from providers.base import Order, OrderKind, Phase
from providers.errors import UnreachableError

PATIENCE = 60.0


def until(fact, what: str):
    end = time.monotonic() + PATIENCE
    while not (found := fact()):
        assert time.monotonic() < end, f"never: {what}"
        time.sleep(0.05)
    return found


def answered(remote):
    """The status, where there is one to be had now."""
    try:
        return remote.status()
    except UnreachableError:
        return None


def ended(remote):
    return until(lambda: (now := answered(remote)) and now.phase is Phase.EXITED and now, "its end")


def read_log(remote) -> bytes:
    log = b""
    while piece := remote.logs(len(log)):
        log += piece
    return log


@pytest.fixture
def fast(start_hf):
    return start_hf(pace=200)


def test_a_log_is_whole_to_the_byte_though_its_stream_was_cut_twenty_times_with_502s_between(start_hf):
    hf = start_hf(pace=500, faults={"logs_cut": {"times": 20, "after": 1}, "logs_502": {"times": 3, "skip": 5}})
    noisy = ("{python}", "-S", "-c", "print('\\n'.join(f'line {n} \\u00e9' for n in range(60)))")
    _, allocation_id = hf.launch(command=noisy)
    with closing(hf.remote(allocation_id)) as remote:
        ended(remote)
        assert read_log(remote) == "".join(f"line {n} \u00e9\n" for n in range(60)).encode()
        assert hf.sim.ask("/faults")["struck"].count("logs_cut") == 20
    hf.provider.terminate([allocation_id])


def test_an_end_counts_once_its_last_word_is_in_the_bucket(start_hf):
    hf = start_hf(pace=20, faults={"bucket_lag": {"seconds": 60}})  # 3 s of ours
    _, allocation_id = hf.launch()
    with closing(hf.remote(allocation_id)) as remote:
        until(lambda: hf.provider.inspect(allocation_id).ended, "its end, as the Hub says")
        late = answered(remote)
        assert late is None or late.reason == "completed"
        status = ended(remote)
        assert status.reason == "completed"
        manifest = until(lambda: (now := listed(remote)) and now.final and now, "all of it")
        assert "artifacts/model.bin" in [entry.name for entry in manifest.entries]


def listed(remote):
    try:
        return remote.manifest()
    except UnreachableError:
        return None


def test_a_job_that_the_hub_ended_at_its_limit_has_reached_its_deadline(start_hf):
    hf = start_hf(pace=200)
    job, allocation_id = hf.launch("long")
    with closing(hf.remote(allocation_id)) as remote:
        until(lambda: (now := answered(remote)) and now.step >= 2, "its steps")
        hf.sim.advance(job.max_seconds)
        assert "Job timeout" in hf.provider.inspect(allocation_id).message
        status = ended(remote)
    assert (status.phase, status.reason) == (Phase.EXITED, "deadline")
    assert not hf.provider.inspect(allocation_id).billing


def test_a_container_that_was_killed_is_lost_with_the_hub_s_exit_code(start_hf):
    hf = start_hf(pace=200, faults={"exit_code": {"code": 137, "after": 400}})
    _, allocation_id = hf.launch("long")

    def look():  # each time anew, as after each error: patience is the Hub's record, not a connection's
        with closing(hf.remote(allocation_id)) as remote:
            now = answered(remote)
            return now if now and now.phase is Phase.EXITED else None

    status = until(look, "its end")
    assert (status.reason, status.exit_code) == ("", 137)
    assert "exit code: 137" in status.detail


def test_an_order_to_stop_reaches_the_job_through_its_bucket(fast):
    _, allocation_id = fast.launch("long")
    with closing(fast.remote(allocation_id)) as remote:
        until(lambda: (now := answered(remote)) and now.step >= 2, "its steps")
        remote.tell(Order(1, OrderKind.STOP))
        assert ended(remote).reason == "stopped"
    fast.provider.terminate([allocation_id])


def test_a_job_that_vanished_from_the_hub_is_absent_and_says_nothing(start_hf):
    hf = start_hf(pace=200, faults={"vanish": {"after": 400}})
    _, allocation_id = hf.launch("long")
    until(lambda: hf.provider.inspect(allocation_id).phase is Phase.ABSENT, "its absence")
    with closing(hf.remote(allocation_id)) as remote, pytest.raises(UnreachableError):
        remote.status()


def test_a_file_that_broke_off_is_carried_on_with(fast, tmp_path):
    _, allocation_id = fast.launch()
    with closing(fast.remote(allocation_id)) as remote:
        ended(remote)
        entry = next(one for one in remote.manifest().entries if one.name == "artifacts/model.bin")
        part = tmp_path / "home of it" / "artifacts" / f".model.bin.{entry.sha256[:12]}.part"
        part.parent.mkdir(parents=True)
        part.write_bytes(b"wei")
        remote.fetch([entry.name], tmp_path / "home of it")
        assert (part.parent / "model.bin").read_bytes() == b"weights"
        ranges = [one["headers"].get("range") for one in fast.sim.asked("resolve")]
        assert "bytes=3-" in ranges
        assert not part.exists()
    fast.provider.terminate([allocation_id])


def test_what_the_job_can_t_begin_with_is_told_as_its_end(fast):
    job = fast.job()
    job.bundle.write_bytes(b"no archive")
    allocation_id = fast.provider.launch(job, fast.offer())
    with closing(fast.remote(allocation_id)) as remote:
        status = ended(remote)
    assert status.reason in {"lost", ""}
    assert status.detail
    until(lambda: not fast.provider.inspect(allocation_id).billing, "free")


def test_a_checkpoint_is_carried_on_from_on_the_next_machine(fast):
    folder = fast.path / "step-7"
    folder.mkdir()
    (folder / "state.bin").write_bytes(b"state")
    (folder / "CHECKPOINT.json").write_text("{}")
    look = "import os,sys; print(sorted(os.listdir('checkpoints/step-7')), flush=True)"
    _, allocation_id = fast.launch(checkpoint=folder, command=("{python}", "-S", "-c", look))
    with closing(fast.remote(allocation_id)) as remote:
        assert ended(remote).reason == "completed"
        assert read_log(remote) == b"['CHECKPOINT.json', 'state.bin']\n"
    fast.provider.terminate([allocation_id])
