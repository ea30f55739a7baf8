"""Cutting files into parts: nothing is lost or doubled, none is too large, a large file is cut alike each time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from providers.colab.parts import FILES, cut

MOST = 10


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 60))))
def test_parts_cover_every_byte_once_in_order_and_none_is_too_large(files: list[tuple[int, int]]) -> None:
    wanted = [(number, start * MOST, start * MOST + size) for number, (start, size) in enumerate(files)]
    parts = list(cut(wanted, MOST))
    assert all(0 < len(part) <= FILES for part in parts)
    assert all(sum(segment.length for segment in part) <= MOST for part in parts)
    for number, start, end in wanted:
        at = start
        for segment in (segment for part in parts for segment in part if segment.of == number):
            assert segment.offset == at
            at += segment.length
        assert at == end


@given(st.integers(MOST, 200), st.integers(0, 9))
def test_what_is_left_of_a_large_file_is_cut_where_it_was_cut_before(size: int, done: int) -> None:
    whole = {(one.offset, one.length) for part in cut([("a", 0, size)], MOST) for one in part}
    rest = {(one.offset, one.length) for part in cut([("a", min(done * MOST, size), size)], MOST) for one in part}
    assert rest - {(size, 0)} <= whole


def test_many_small_files_share_parts_but_not_without_end() -> None:
    parts = list(cut([(number, 0, 0) for number in range(2 * FILES + 1)], MOST))
    assert [len(part) for part in parts] == [FILES, FILES, 1]
