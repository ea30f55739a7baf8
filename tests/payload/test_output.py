"""What a training prints, cut anywhere, full of rubbish, without end."""

from __future__ import annotations

import errno
import json
import math
import os

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

LINES = st.lists(
    st.one_of(
        st.builds(
            lambda step, loss: b'::metrics {"step": %d, "loss": %a}' % (step, loss), st.integers(0, 99), st.floats(0, 9)
        ),
        st.sampled_from([b"::metrics {", b"::metrics []", b"::metrics {\xff}", b" ::metrics {}", b"\r 5%|#|\r", b""]),
        st.sampled_from(
            [b"Traceback (most recent call last):", b"  File x", b"ValueError: no", b"\x1b[2J", b"::metrics"]
        ),
        st.binary(max_size=30),
    ),
    max_size=12,
).map(b"\n".join)


@pytest.fixture
def make(payload, tmp_path):
    """Make an output with a folder of its own: `make(limit)` gives (output, folder)."""
    module = payload("output")
    count = iter(range(10**6))

    def made(limit: int = 10**6):
        folder = tmp_path / str(next(count))
        folder.mkdir()
        return module.Output(folder, limit), folder

    return made


def told(output) -> tuple:
    return (output.step, output.total_steps, output.stage, str(output.loss), output.diverged, output.story, output.last)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(LINES, st.lists(st.integers(1, 40), max_size=30))
@example(b'::metrics {"step": 1}\r\n::metrics {"step": 2', [5, 5, 5])
def test_any_cutting_of_the_output_tells_the_same(make, data, cuts):
    whole, first = make()
    whole.feed(data)
    whole.finish()
    cut, second = make()
    left = data
    for size in cuts:
        cut.feed(left[:size])
        left = left[size:]
    cut.feed(left)
    cut.finish()
    assert told(cut) == told(whole)
    assert (first / "log.txt").read_bytes() == (second / "log.txt").read_bytes() == data
    assert (first / "metrics.jsonl").read_bytes() == (second / "metrics.jsonl").read_bytes()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(LINES, st.integers(0, 60))
@example(b'::metrics {"step": 0}\n::metrics {"step": 1}\n::metrics {', 0)
def test_a_full_log_holds_its_beginning_and_every_metrics_line(make, data, limit):
    output, folder = make(limit)
    output.feed(data)
    output.finish()
    log = (folder / "log.txt").read_bytes()
    assert log.startswith(data[:limit])
    other, _ = make()
    other.feed(log)
    other.finish()
    assert (other.step, other.diverged) == (output.step, output.diverged)


@pytest.mark.parametrize(
    "line",
    [
        '{"step": -1}',
        '{"step": true}',
        '{"step": "7"}',
        '{"step": NaN}',
        '{"step": 1e999}',
        '{"step": null, "stage": 5}',
        "{" * 5000,
        "[" * 5000,
        '{"step": ' + "9" * 5000 + "}",
        '{"step": 7, "x": "' + "y" * 70000 + '"}',
    ],
)
def test_a_step_that_is_no_count_is_no_progress(make, line):
    output, _ = make()
    moves = output.moves
    output.feed(f"::metrics {line}\n".encode())
    assert (output.step, output.moves) == (0, moves)


def test_a_stage_is_progress_and_counts_its_own_steps(make):
    output, _ = make()
    seen = []
    for line in ('"stage": "a", "step": 1', '"step": 2', '"step": 2', '"step": 1', '"stage": "b"', '"step": 1'):
        output.feed(f"::metrics {{{line}}}\n".encode())
        seen.append(output.moves)
    assert seen == [2, 3, 3, 3, 4, 5]


def test_a_line_without_end_costs_no_memory(make):
    output, folder = make(1000)
    for _ in range(200):
        output.feed(b"x" * 65536)
    output.feed(b'\n::metrics {"step": 4}\n')
    output.finish()
    assert len(output._line) < 70000
    assert output.step == 4
    assert (folder / "log.txt").stat().st_size < 300_000


def test_metrics_lines_without_end_are_thinned_once_the_log_is_twice_full(make):
    output, folder = make(1000)
    for step in range(5000):
        output.feed(b'::metrics {"step": %d}\n' % step)
    assert output.step == 4999
    assert (folder / "log.txt").stat().st_size < 4000


def test_numbers_that_json_does_not_know_become_words(make):
    output, folder = make()
    output.feed(b'::metrics {"loss": NaN, "deep": {"x": [Infinity, -Infinity]}}\n')
    (line,) = (folder / "metrics.jsonl").read_text().splitlines()
    assert json.loads(line) == {"loss": "nan", "deep": {"x": ["inf", "-inf"]}}
    assert output.diverged


@pytest.mark.parametrize(("loss", "lost"), [("nan", True), ("-INF", True), ("1.5", False), (1, False), (None, False)])
def test_a_loss_is_lost_in_any_spelling(payload, loss, lost):
    assert payload("output").is_lost(loss) is lost
    assert payload("output").is_lost(math.nan)


# ── writing it down on a full disk ────────────────────────────────────────────────────────────────────────────────


def test_a_result_waits_for_room_and_says_so(payload, tmp_path, monkeypatch):
    outcome = payload("outcome")
    outcome.set_aside(tmp_path)
    assert (tmp_path / ".reserve").stat().st_size == 1 << 20
    waits = []
    write = outcome.ps.write_json

    def full(*args, **kwargs) -> None:
        assert not (tmp_path / ".reserve").exists()
        if len(waits) < 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(*args, **kwargs)

    monkeypatch.setattr(outcome.ps, "write_json", full)
    outcome.write(tmp_path, {"detail": "ValueError: x"}, lambda: waits.append(1))
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["detail"] == "ValueError: x; the disk was full"


def test_artifacts_that_time_does_not_allow_are_left_out_and_told(payload, tmp_path):
    outcome = payload("outcome")
    (tmp_path / "artifacts").mkdir()
    for name in "abc":
        (tmp_path / "artifacts" / name).write_bytes(b"x" * 10)
    pulses = iter([True, True, True, True, False, False])
    found, said = outcome.hash_artifacts(tmp_path, lambda: next(pulses))
    assert [entry["name"] for entry in found] == ["artifacts/a", "artifacts/b"]
    assert said == ["1 artifacts could not be hashed before the deadline"]
