"""The viewer: the same lines however the log arrives, floods and hostile lines tamed, a controller for every run."""

from __future__ import annotations

import io
import time
from collections import deque
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator import glance, logbook, view
from orchestrator.home import Home
from orchestrator.meter import Meter
from orchestrator.render import live_line
from orchestrator.terminal import Terminal
from orchestrator.view import Keeper, Tail, not_too_much, readable
from providers.errors import LedgerError, StateError

LINE = st.binary(max_size=30).map(lambda line: line.replace(b"\n", b""))


def a_run(**changes: object) -> glance.Run:
    texts = ("demo-1", "demo", "local", "running", "", "", "", "i-1")
    run = glance.Run(
        *texts, 1, 0, 0.0, 9.0, 9.0, None, None, stopping=False, lease_holder=None, lease_until=None, worst=Decimal(3)
    )
    return run._replace(**changes)  # type: ignore[arg-type]


# ── the log ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@given(st.lists(LINE), LINE, st.lists(st.integers(1, 7), min_size=1))
def test_any_chunking_of_a_log_gives_the_same_lines(lines: list[bytes], rest: bytes, sizes: list[int]) -> None:
    data = b"".join(line + b"\n" for line in lines) + rest
    with TemporaryDirectory() as folder:
        path = Path(folder) / "log.txt"
        tail = Tail(path)
        seen = list(tail.lines())
        written, number = 0, 0
        while written < len(data):
            step = sizes[number % len(sizes)]
            with path.open("ab") as file:
                file.write(data[written : written + step])
            written, number = written + step, number + 1
            seen += tail.lines()
        seen += tail.lines(last=True)
    assert seen == [line + b"\n" for line in lines] + ([rest] if rest else [])


def test_a_line_without_an_end_does_not_eat_the_memory(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    path.write_bytes(b"x" * (3 << 20))
    assert sum(map(len, Tail(path).lines())) == 3 << 20


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("10%\r50%\r100%", "100%"),
        ("a\x1b]0;title\x07b\x1b[2J", "ab"),
        ("x" * 5000, "x" * 4000 + "…"),
    ],
)
def test_a_line_of_the_log_shows_without_tricks(line: str, shown: str) -> None:
    assert readable(line) == shown


def test_of_a_flood_only_the_end_is_shown_with_a_word_on_the_rest() -> None:
    lines = ["x" * 1000] * 5000
    shown = list(not_too_much(lines, "demo-1"))
    assert shown[0].endswith("of log not shown; all of it: gpurun logs demo-1")
    assert 1000 < len(shown) < 1100
    assert list(not_too_much(["a", "b"], "demo-1")) == ["a", "b"]


def log_of(home: Path, data: bytes, **options: object) -> bytes:
    folder = Home(home).run("demo-1")
    folder.path.mkdir(parents=True, exist_ok=True)
    folder.log.write_bytes(data)
    out = io.BytesIO()
    values = {"last": None, "raw": False, "follow": False, **options}
    logbook.show(Home(home), "demo-1", out, **values)  # type: ignore[arg-type]
    return out.getvalue()


@pytest.fixture
def _over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(glance, "find", lambda *_: a_run(state="done", reason="completed"))


@pytest.mark.usefixtures("_over")
def test_logs_are_cleaned_and_without_metrics_unless_raw(home: Path) -> None:
    data = b'one\n::metrics {"step": 1}\n\x1b[31mtwo\xff\r\nlast'
    assert log_of(home, data) == "one\ntwo\ufffd\nlast\n".encode()
    assert log_of(home, data, raw=True) == data
    assert log_of(home, data, last=1) == b"last\n"
    assert log_of(home, data, last=0) == b""
    assert log_of(home, data, follow=True) == log_of(home, data)


# ── progress ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_time_left_is_reckoned_from_the_pace_of_the_steps() -> None:
    meter = Meter()
    for step in (0, 10, 20):
        meter.add({"stage": "train", "step": step, "total_steps": 100, "time": 1000.0 + step}, 1000.0 + step)
    progress = meter.progress(1025.0, Decimal(0), Decimal(0))
    assert (progress.stage, progress.step, progress.total_steps) == ("train", 20, 100)
    assert progress.seconds_left == pytest.approx(75)
    assert progress.stage_seconds == 25


def test_an_evaluation_does_not_reset_the_clock_of_the_training() -> None:
    meter = Meter()
    for stage, at in (("train", 1000.0), ("eval", 1010.0), ("train", 1020.0)):
        meter.add({"stage": stage, "time": at}, at)
    assert meter.progress(1030.0, Decimal(0), Decimal(0)).stage_seconds == 30


def test_steps_that_come_again_after_a_restart_do_not_spoil_the_pace() -> None:
    meter = Meter()
    for step, at in ((0, 1000.0), (50, 1050.0), (20, 1100.0), (30, 1110.0)):
        meter.add({"step": step, "total_steps": 100, "time": at}, at)
    assert meter.progress(1110.0, Decimal(0), Decimal(0)).seconds_left == pytest.approx(70)


def test_a_state_of_ours_shows_until_the_training_speaks_and_after_it_is_over() -> None:
    meter = Meter()
    shown = []
    for state, metrics in (
        ("starting", None),
        ("running", {"stage": "train"}),
        ("running", None),
        ("collecting", None),
    ):
        if metrics:
            meter.add(metrics, 1.0)
        meter.state(state, 1.0)
        shown.append(meter.progress(1.0, Decimal(0), Decimal(0)).stage)
    assert shown == ["starting", "train", "train", "collecting"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=2),
    max_leaves=3,
)


@given(
    st.lists(
        st.dictionaries(st.sampled_from(["stage", "step", "total_steps", "loss", "time", "tokens_per_second"]), JSON)
    )
)
def test_no_metrics_line_can_break_the_live_line(lines: list[dict[str, object]]) -> None:
    meter = Meter()
    for metrics in lines:
        meter.add(metrics, 1000.0)
        assert len(live_line(meter.progress(1001.0, Decimal(0), Decimal(0)))) <= 80


# ── holding ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def spawned(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    names: list[str] = []
    monkeypatch.setattr(glance, "tend", lambda _home, runs, _now: names.extend(run.run_id for run in runs))
    return names


def test_a_run_that_nobody_holds_gets_a_controller(home: Path, spawned: list[str]) -> None:
    Keeper(Home(home)).look(a_run(), 1000.0)
    assert spawned == ["demo-1"]


def test_a_fresh_launch_is_not_given_a_second_controller(home: Path, spawned: list[str]) -> None:
    Keeper(Home(home)).look(a_run(created=999.0), 1000.0)
    assert spawned == []


def test_controllers_that_keep_dying_end_the_watching_with_their_last_word(home: Path, spawned: list[str]) -> None:
    folder = Home(home).run("demo-1")
    folder.path.mkdir(parents=True)
    folder.controller_log.write_text("one\nthe key \x1b[31mis gone\n")
    keeper = Keeper(Home(home))
    with pytest.raises(StateError, match="the key is gone") as caught:
        deque((keeper.look(a_run(), 1000.0 + second) for second in range(600)), maxlen=0)
    assert len(spawned) == 6
    assert caught.value.allocation_id == "i-1"


def test_a_terminal_that_takes_no_word_leaves_no_run_to_nobody(
    home: Path, spawned: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Blocked(Terminal):
        def say(self, _text: str) -> None:
            raise BrokenPipeError

    folder = Home(home).run("demo-1")
    folder.path.mkdir(parents=True)
    folder.log.write_text("a line\n")
    monkeypatch.setattr(glance, "find", lambda *_: a_run())
    with pytest.raises(BrokenPipeError):
        view.Viewer(Home(home), "demo-1", Blocked()).watch()
    assert spawned == ["demo-1"]


def test_ctrl_c_with_nobody_to_ask_detaches(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def pressed(_seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(glance, "find", lambda *_: a_run(created=time.time()))
    monkeypatch.setattr(view.time, "sleep", pressed)
    watched = view.Viewer(Home(home), "demo-1", Terminal(), ask=True).watch()
    assert (watched.detached, watched.asked) == (True, False)


def test_a_ledger_that_breaks_under_a_watched_run_says_what_may_bill(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = iter([a_run(created=time.time())])

    def find(*_: object) -> glance.Run:
        try:
            return next(looks)
        except StopIteration:
            raise LedgerError("file is not a database") from None

    monkeypatch.setattr(glance, "find", find)
    with pytest.raises(LedgerError) as caught:
        view.Viewer(Home(home), "demo-1", Terminal()).watch()
    assert caught.value.allocation_id == "i-1"


def test_a_start_that_fails_says_why_once_while_it_is_tried_again(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    late = a_run(state="starting", detail="no space\x1b[2J left", created=time.time())
    looks = iter([late, late, late, late, late._replace(state="done", reason="provider")])
    monkeypatch.setattr(glance, "find", lambda *_: next(looks))
    view.Viewer(Home(home), "demo-1", Terminal()).watch()
    assert capsys.readouterr().err.count("starting: no space left\n") == 1
