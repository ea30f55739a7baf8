"""Any cutting of a log gives the same lines, over any crashes and any number of attempts."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.follow import Follower, number, parse
from orchestrator.home import RunFolder

LINES = st.lists(
    st.one_of(
        st.integers(1, 99).map(lambda step: b'::metrics {"step": %d}' % step),
        st.binary(max_size=30).map(lambda data: data.replace(b"\n", b" ")),
        st.sampled_from([b"::metrics {half", b"::metrics [1]", b"::metrics", b"\x1b[31mred", b""]),
    ),
    max_size=12,
)


class Log:
    """A remote whose log grows, read in pieces of any size, and which may fail in between."""

    def __init__(self, data: bytes, pieces: list[int]) -> None:
        self.data = data
        self.pieces = pieces
        self.until = 0

    def logs(self, offset: int) -> bytes:
        size = self.pieces.pop() if self.pieces else 1000
        return self.data[offset : min(offset + size, self.until)]


@given(
    st.lists(LINES, min_size=1, max_size=3),
    st.lists(st.integers(1, 40), max_size=30),
    st.lists(st.integers(0, 400), max_size=6),
)
def test_any_chunking_over_any_attempts_gives_the_same_log_and_metrics(
    attempts: list[list[bytes]], pieces: list[int], stops: list[int]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        home = RunFolder(Path(folder))
        wanted, steps = b"", []
        for attempt, lines in enumerate(attempts, 1):
            data = b"".join(line + b"\n" for line in lines)
            if attempt > 1 and home.log.exists():
                wanted += f"── attempt {attempt} ──\n".encode()
            wanted += data
            log = Log(data, list(pieces))
            for log.until in [*sorted(stops), len(data)]:
                Follower(home, attempt).pull(log)  # type: ignore[arg-type]
            steps += [value["step"] for line in lines if (value := parse(line)) and "step" in value]
        assert (home.log.read_bytes() if home.log.exists() else b"") == wanted
        found = home.metrics.read_text().splitlines() if home.metrics.exists() else []
        assert [json.loads(line)["step"] for line in found if "step" in line] == steps


def test_a_kill_between_the_metrics_and_the_memory_of_them_repeats_nothing(tmp_path: Path) -> None:
    home = RunFolder(tmp_path)
    log = Log(b'::metrics {"step": 1}\n::metrics {"step": 2}\n', [])
    log.until = 22
    Follower(home, 1).pull(log)  # type: ignore[arg-type]
    places = (tmp_path / "follow.json").read_bytes()
    log.until = len(log.data)
    Follower(home, 1).pull(log)  # type: ignore[arg-type]
    (tmp_path / "follow.json").write_bytes(places)  # the kill: the lines are written, the memory of them is not
    Follower(home, 1).pull(log)  # type: ignore[arg-type]
    assert [json.loads(line)["step"] for line in home.metrics.read_text().splitlines()] == [1, 2]


@pytest.mark.parametrize("line", [b"::metrics {", b"::metrics [1]", b" ::metrics {}", b"\xff::metrics {}"])
def test_what_is_no_metrics_line_is_an_ordinary_one(line: bytes) -> None:
    assert parse(line) is None


def test_a_number_that_is_none_is_never_shown_as_one() -> None:
    assert [number(value) for value in (1, 0.5, "nan", None, True, float("nan"), float("inf"))] == [
        1.0,
        0.5,
        *[None] * 5,
    ]


def test_a_follower_that_slept_through_anothers_work_repeats_nothing(tmp_path: Path) -> None:
    home, data = RunFolder(tmp_path), b"".join(b'::metrics {"step": %d}\n' % step for step in range(30))

    class Sleeps(Log):
        def logs(self, offset: int) -> bytes:
            chunk = super().logs(offset)
            awake = Log(data, [])
            awake.until = 400
            Follower(home, 1).pull(awake)  # type: ignore[arg-type]
            return chunk

    sleeper = Sleeps(data, [100])
    sleeper.until = 300
    Follower(home, 1).pull(sleeper)  # type: ignore[arg-type]
    assert home.log.read_bytes() == data[:400]
    log = Log(data, [])
    log.until = len(data)
    Follower(home, 1).pull(log)  # type: ignore[arg-type]
    assert home.log.read_bytes() == data
    assert [json.loads(line)["step"] for line in home.metrics.read_text().splitlines()] == list(range(30))
