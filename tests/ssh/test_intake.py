"""The answers to reads: the same bytes in any order and pieces, and nothing believed that was not asked for."""

from __future__ import annotations

import random
import struct
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.errors import IntegrityError, RemoteError
from providers.ssh.intake import Intake

CONTENT = bytes(range(256)) * 8


def answer(number: int, data: bytes, *, kind: int = 103, length: int | None = None) -> bytes:
    return struct.pack(">IBII", 9 + len(data) if length is None else length, kind, number, len(data)) + data


def status(number: int, code: int) -> bytes:
    return struct.pack(">IBII", 17, 101, number, code) + bytes(8)


def intake(start: int = 0, size: int = len(CONTENT)) -> tuple[Intake, bytearray]:
    got = bytearray()
    return Intake("file", start, size, lambda pieces: got.extend(b"".join(pieces))), got


@given(st.integers())
def test_any_order_any_pieces_and_short_answers_give_the_file(seed: int) -> None:
    draw = random.Random(seed)
    start = draw.choice([0, 0, 1, 300])
    taken, got = intake(start)
    inner = [draw.randint(start, len(CONTENT)) for _ in range(draw.randint(0, 8))]
    todo = [(low, high - low) for low, high in pairwise(sorted({start, len(CONTENT), *inner}))]
    number, over, stingy = 0, False, draw.random() < 0.5
    while todo:
        assert not over
        draw.shuffle(todo)
        stream = b""
        for offset, length in todo:
            number += 1
            taken.asked[number] = offset, length
            stream += answer(number, CONTENT[offset : offset + (draw.randint(1, length) if stingy else length)])
        step = draw.randint(1, 700)
        pieces = [stream[at : at + step] for at in range(0, len(stream), step)]
        while pieces:
            count = draw.randint(1, 5)
            over, pieces = taken.take(pieces[:count]), pieces[count:]
        todo = list(taken.short)
        taken.short.clear()
    assert (taken.error, over, taken.at, bytes(got)) == (None, True, len(CONTENT), CONTENT[start:])
    assert taken.asked == {}


@pytest.mark.parametrize(
    "said",
    [
        answer(2, b"hello"),
        answer(1, b""),
        answer(1, b"longer than asked"),
        answer(1, b"hello", kind=102),
        answer(1, b"hello", length=8),
        answer(1, b"hello", length=2**32 - 1),
        answer(1, b"hel") + answer(1, b"lo"),
        status(1, 4),
        status(1, 3),
        b"\xff" * 99,
    ],
)
def test_an_answer_that_was_not_asked_for_ends_it(said: bytes) -> None:
    taken, got = intake(size=5)
    taken.asked[1] = 0, 5
    assert taken.take([said])
    assert isinstance(taken.error, RemoteError)
    assert bytes(got) in {b"", b"hel"}


def test_an_end_before_the_end_is_no_whole_file() -> None:
    taken, _ = intake(size=5)
    taken.asked[1] = 0, 5
    assert taken.take([status(1, 1)])
    assert isinstance(taken.error, IntegrityError)


def test_nothing_is_written_after_a_disk_has_failed() -> None:
    writes = []

    def fail(pieces: list[memoryview]) -> None:
        writes.append(b"".join(pieces))
        raise OSError(28, "full")

    taken = Intake("file", 0, 10, fail)
    taken.asked = {1: (0, 5), 2: (5, 5)}
    assert taken.take([answer(1, b"hello")])
    assert taken.take([answer(2, b"there")])
    assert (writes, taken.at, taken.error.errno) == ([b"hello"], 0, 28)
