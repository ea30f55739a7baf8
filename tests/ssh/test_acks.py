"""The answers to writes: the same in any pieces, and nothing believed that was not asked for."""

from __future__ import annotations

import random
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.errors import RemoteError
from providers.ssh.sftp import Acks


def status(number: int, code: int = 0, said: bytes = b"") -> bytes:
    body = struct.pack(">BIII", 101, number, code, len(said)) + said + struct.pack(">I", 0)
    return struct.pack(">I", len(body)) + body


@given(st.integers())
def test_any_pieces_and_any_order_leave_nothing_awaited(seed: int) -> None:
    draw = random.Random(seed)
    numbers, few = draw.sample(range(2**32), draw.randint(1, 20)), draw.randint(0, 10)
    acks = Acks("file", few)
    acks.awaited.update(numbers)
    draw.shuffle(numbers)
    said = b"".join(status(number) for number in numbers)
    cuts = sorted(draw.randint(0, len(said)) for _ in range(draw.randint(0, 30)))
    for low, high in zip([0, *cuts], [*cuts, len(said)], strict=True):
        assert acks.take([said[low:high]]) == (len(acks.awaited) <= few)
    assert (acks.awaited, acks.error) == (set(), None)


@pytest.mark.parametrize(
    "said",
    [
        status(2),
        status(1) + status(1),
        status(1, 4, b"no room"),
        struct.pack(">IBII", 9, 103, 1, 0),
        struct.pack(">IBII", 2**31, 101, 1, 0),
        struct.pack(">IBII", 0, 101, 1, 0),
        struct.pack(">IBIII", 13, 101, 1, 4, 2**31),
    ],
)
def test_an_answer_that_was_not_asked_for_or_says_no_ends_it(said: bytes) -> None:
    acks = Acks("file", 0)
    acks.awaited.add(1)
    assert acks.take([said])
    assert isinstance(acks.error, RemoteError)
    assert acks.take([status(1)])
