"""What waits unread of a command's output: bounded, whatever the machine sends."""

from __future__ import annotations

import random
import threading
from typing import TYPE_CHECKING

import paramiko
import pytest

from providers.errors import UnreachableError
from providers.ssh import stream

if TYPE_CHECKING:
    from sshd import Sshd


def test_a_machine_that_sends_more_than_its_window_is_stopped() -> None:
    chunks = stream.Chunks(threading.Condition())
    for _ in range(stream._MOST_WAITING // 2**20):
        chunks.feed(bytes(2**20))
    with pytest.raises(paramiko.SSHException, match="more than it was allowed"):
        chunks.feed(b"x")


def test_what_was_read_makes_room_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "_MOST_WAITING", 100)
    chunks, draw = stream.Chunks(threading.Condition()), random.Random(1)
    sent = got = b""
    for _ in range(300):
        piece = draw.randbytes(draw.randrange(1, 50))
        chunks.feed(piece)
        sent += piece
        while len(sent) - len(got) > 50:
            got += bytes(chunks.read(draw.randrange(1, 40)))
    assert sent.startswith(got)
    chunks.feed(bytes(100 - (len(sent) - len(got))))
    with pytest.raises(paramiko.SSHException):
        chunks.feed(b"x")


@pytest.mark.parametrize("where", ["", " >&2"])
def test_neither_kind_of_output_waits_without_bound(sshd: Sshd, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    monkeypatch.setattr(stream, "_MOST_WAITING", 2**16)
    link = sshd.link()
    running = link.open(f"head -c 4000000 /dev/zero{where}; sleep 60")
    with pytest.raises(UnreachableError):
        running.code(5)
    running.close()
    link.close()
