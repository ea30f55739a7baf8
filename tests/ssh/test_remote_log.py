"""The log over SSH: exact across cuts, from any offset, with nothing read ahead and no reader left behind."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest
from boxes import PAYLOAD, until
from machines import read_log

from providers.base import Order, OrderKind
from providers.errors import RemoteError, UnreachableError

CHATTY = """
import itertools, sys, time
for line in itertools.count():
    print(line, "x" * (line % 300), flush=line % 7 == 0)
    time.sleep(0.0005)
"""


@pytest.fixture
def chatty(machine):
    job = machine.job(code=CHATTY)
    remote = machine.remote(job)
    remote.start(job)
    return job, remote


def readers(machine) -> list[int]:
    return [pid for pid, command in machine.living().items() if "door.py" in command and " log " in command]


def test_a_log_that_was_cut_ten_times_is_equal_byte_for_byte(machine, chatty):
    job, remote = chatty
    log, cuts = b"", 0
    while cuts < 10:
        piece = remote.logs(len(log))
        log += piece
        if piece:
            machine.proxy.cut()
            cuts += 1
    remote.tell(Order(1, OrderKind.STOP))
    machine.ended(remote)
    while piece := remote.logs(len(log)):
        log += piece
    assert log == (machine.folder(job) / "log.txt").read_bytes()
    until(lambda: len(readers(machine)) <= 1, "the end of the readers that were cut off")


def test_a_log_grows_without_a_word_being_asked_for(machine, chatty):
    _, remote = chatty
    log = until(lambda: remote.logs(0), "the log's beginning")
    reader = until(lambda: readers(machine), "its reader")
    while len(log) < 20_000:
        log += remote.logs(len(log))
    assert readers(machine) == reader


def test_nothing_new_is_told_at_once(machine):
    job = machine.job(code="import time; print('one line', flush=True); time.sleep(60)")
    remote = machine.remote(job)
    remote.start(job)
    assert until(lambda: remote.logs(0), "the line") == b"one line\n"
    assert [remote.logs(9) for _ in range(20)] == [b""] * 20


@pytest.mark.parametrize("end", ["close", "cut", "reboot"])
def test_no_reader_is_left_behind(machine, chatty, end):
    _, remote = chatty
    until(lambda: remote.logs(0), "the log's beginning")
    assert len(readers(machine)) == 1
    {"close": remote.close, "cut": machine.proxy.refuse, "reboot": machine.sshd.stop}[end]()
    until(lambda: not readers(machine), "the end of the reader")
    machine.proxy.open()


def test_a_reader_whose_peer_vanished_without_a_word_ends_by_itself(tmp_path):
    (tmp_path / ".gpurun/jobs/m").mkdir(parents=True)
    (tmp_path / ".gpurun/jobs/m/log.txt").write_bytes(b"x" * 10**6)
    code = "import door, sys; door.LIFE = 0.3; door.main(['door', 'word', 'm', 'log', '0'])"
    door = subprocess.Popen(
        [sys.executable, "-S", "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=PAYLOAD,
        env={"HOME": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"},
    )
    with door:
        assert door.wait(timeout=20) == 0  # though nobody read the last of it, and nobody closed its input


def test_a_log_read_from_any_offset_is_the_same_log(machine):
    job = machine.job()
    remote = machine.remote(job)
    remote.start(job)
    machine.ended(remote)
    whole = read_log(remote)
    assert whole
    for offset in range(0, len(whole), 37):
        piece = remote.logs(offset)
        assert piece
        assert whole[offset:].startswith(piece)
    assert remote.logs(len(whole)) == remote.logs(len(whole) + 1000) == b""


def test_what_is_not_asked_for_stays_on_the_machine(machine):
    job = machine.job()
    machine.install(job)
    whole = bytes(range(250)) * 160_000  # 40 MB
    (machine.folder(job) / "log.txt").write_bytes(whole)
    remote = machine.remote(job)
    log = remote.logs(0)
    assert len(log) <= 4 * 2**20
    time.sleep(0.3)
    assert machine.proxy.moved < 22 * 2**20  # a window and a piece
    while piece := remote.logs(len(log)):
        log += piece
    assert log == whole


def test_no_log_is_an_error_while_the_machine_does_not_answer(machine, chatty):
    _, remote = chatty
    until(lambda: remote.logs(0), "the log's beginning")
    machine.proxy.refuse()
    with pytest.raises(UnreachableError):
        remote.logs(0)
    machine.proxy.open()
    assert remote.logs(0)


def test_bytes_that_the_machine_claims_and_does_not_give_are_an_error(machine, monkeypatch):
    monkeypatch.setattr("providers.ssh.remote._LOG_SECONDS", 0.1)
    job = machine.job()
    remote = machine.remote(job)
    machine.says(job, {"size": 100})
    with pytest.raises(RemoteError, match="can't be read"):
        remote.logs(3)
