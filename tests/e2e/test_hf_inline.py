"""A tiny script on Hugging Face from a computer without hf_xet: in by the environment, out by the log."""

from __future__ import annotations

import random
import sys
import time
from contextlib import closing
from dataclasses import replace
from datetime import timedelta

import pytest

from providers.base import Order, OrderKind, Phase, Place
from providers.errors import RemoteError, UnreachableError, UsageError
from providers.hf_jobs import inline

LARGE = "import os; os.mkdir('artifacts'); open('artifacts/large.bin', 'wb').write(bytes(range(256)) * 600)"


@pytest.fixture
def poor(start_hf, monkeypatch):
    """A Hub, and a computer on which nothing can be uploaded."""
    monkeypatch.setitem(sys.modules, "hf_xet", None)
    return lambda **options: start_hf(**{"pace": 200, **options})


def ended(remote):
    until = time.monotonic() + 60
    while True:
        assert time.monotonic() < until, "never: its end"
        try:
            status = remote.status()
        except UnreachableError:
            continue
        if status.phase is Phase.EXITED:
            return status
        time.sleep(0.05)


def read_log(remote) -> bytes:
    log = b""
    while piece := remote.logs(len(log)):
        log += piece
    return log


def script(code: str, **more):
    return {"command": ("{python}", "-S", "-c", code), **more}


def test_a_script_runs_and_its_files_come_home_equal_though_its_log_was_cut(poor, tmp_path):
    hf = poor(faults={"logs_cut": {"times": 4, "after": 2}, "logs_502": {"times": 2, "skip": 1}})
    _, allocation_id = hf.launch()
    assert hf.sim.asked("batch") == hf.sim.asked("create_bucket") == []
    with closing(hf.remote(allocation_id)) as remote:
        assert ended(remote).reason == "completed"
        manifest = remote.manifest()
        assert (manifest.final, manifest.entries[-1].name) == (True, "result.json")
        remote.fetch([entry.name for entry in manifest.entries], tmp_path / "home of it")
        log = read_log(remote).decode()
    assert (tmp_path / "home of it" / "artifacts" / "deep dir" / "card.md").read_text() == "# card"
    assert (tmp_path / "home of it" / "artifacts" / "model.bin").read_bytes() == b"weights"
    assert log.count("::metrics") == 5
    assert "::gpurun" not in log
    hf.provider.terminate([allocation_id])


def test_a_file_of_many_lines_is_whole_and_what_does_not_fit_is_said_to_be_lost(poor, tmp_path, monkeypatch):
    hf = poor()
    for most, kept in ((10**6, True), (1000, False)):
        monkeypatch.setattr(inline, "HOME_BYTES", most)
        _, allocation_id = hf.launch(**script(LARGE))
        with closing(hf.remote(allocation_id)) as remote:
            status = ended(remote)
            names = [entry.name for entry in remote.manifest().entries]
            assert ("artifacts/large.bin" in names) is kept
            assert ("lost" in status.detail) is not kept
            if kept:
                remote.fetch(names, tmp_path)
                assert (tmp_path / "artifacts" / "large.bin").read_bytes() == bytes(range(256)) * 600


def test_it_saves_before_its_deadline_and_the_hub_s_limit_is_its_only_holder(poor):
    hf = poor()
    job = hf.job("long")
    assert [one.place for one in hf.provider.holders(job, hf.offer())] == [Place.SERVER]
    soon = replace(job, deadline=job.deadline - timedelta(seconds=80), grace_seconds=2)
    allocation_id = hf.provider.launch(soon, hf.offer())
    with closing(hf.remote(allocation_id)) as remote:
        status = ended(remote)
        assert status.reason == "deadline"
        with pytest.raises(RemoteError, match="no order can reach"):
            remote.tell(Order(1, OrderKind.DEADLINE, job.deadline))


def test_an_order_to_stop_is_the_hub_s_own_and_what_was_saved_then_comes_home(poor, tmp_path):
    hf = poor()
    save = (
        "import os, signal, sys, time\ndef leave(*_):\n    os.mkdir('artifacts')\n"
        "    open('artifacts/saved', 'w').write('saved')\n    sys.exit(5)\nsignal.signal(signal.SIGTERM, leave)\n"
        'print(\'::metrics {"step": 3, "stage": "train"}\', flush=True)\nwhile True: time.sleep(0.01)'
    )
    _, allocation_id = hf.launch(**script(save))
    with closing(hf.remote(allocation_id)) as remote:
        until = time.monotonic() + 60
        while (now := remote.status()).step < 3:
            assert time.monotonic() < until, now
            time.sleep(0.05)
        assert (now.phase, now.stage) == (Phase.RUNNING, "train")
        remote.tell(Order(1, OrderKind.STOP))
        assert not hf.provider.inspect(allocation_id).billing
        ended(remote)
        names = [entry.name for entry in remote.manifest().entries]
        if names:  # the Hub's own grace is short
            remote.fetch(names, tmp_path)
            assert (tmp_path / "artifacts" / "saved").read_text() == "saved"


def test_a_container_that_was_killed_says_what_the_hub_says(poor):
    hf = poor(faults={"exit_code": {"code": 137, "after": 400}})
    _, allocation_id = hf.launch("long")
    with closing(hf.remote(allocation_id)) as remote:
        status = ended(remote)
    assert (status.reason, status.exit_code) == ("", 137)


@pytest.mark.parametrize(
    "more",
    [
        {"command": ("{python}", "payload/train_sft.py", "config.json")},  # needs more than an environment holds
        script("#" + random.Random(7).randbytes(60_000).hex()),
    ],
)
def test_what_is_no_tiny_script_is_refused_with_what_to_type(poor, more):
    hf = poor(rate=0.001, pace=1)
    with pytest.raises(UsageError, match="only a small script") as caught:
        hf.launch(**more)
    assert caught.value.hint == "pip install hf_xet, then launch again"
    assert hf.sim.meter()["allocations"] == []


def test_the_plan_says_so_and_only_then(poor, monkeypatch):
    hf = poor(rate=0.001, pace=1)
    command = hf.job().command
    assert dict(hf.provider.remarks(command, hf.offer()))["inline"] == inline.REMARK
    monkeypatch.undo()
    assert [name for name, _ in hf.provider.remarks(command, hf.offer())] == ["image"]
