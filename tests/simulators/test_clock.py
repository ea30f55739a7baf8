"""A vendor's clock runs at its own pace, and what is due happens at its moment."""

from __future__ import annotations

import threading
import time

import pytest

from simulators.clock import Agenda, Clock, iso


def test_a_clock_runs_so_many_times_as_fast_as_ours() -> None:
    clock = Clock(1000)
    before, start, within = time.monotonic(), clock.now(), time.monotonic()
    time.sleep(0.02)
    least, end, most = time.monotonic() - within, clock.now(), time.monotonic() - before
    assert least * 1000 <= end - start <= most * 1000


def test_a_change_of_pace_moves_no_moment() -> None:
    clock = Clock(1000)
    before = clock.now()
    clock.set_rate(0.001)
    assert before <= clock.now() < before + 100


@pytest.mark.parametrize("rate", [0, -1, 1e7, float("nan")])
def test_a_pace_that_is_no_pace_is_refused(rate: float) -> None:
    with pytest.raises(ValueError, match="rate"):
        Clock(rate)


def test_a_clock_never_goes_back() -> None:
    with pytest.raises(ValueError, match="forwards"):
        Clock().advance(-1)


def test_moments_are_spelt_in_utc() -> None:
    assert iso(1_700_000_000.5) == "2023-11-14T22:13:20.500Z"


def test_a_jump_does_everything_on_its_way_in_order_and_at_its_own_moment() -> None:
    clock = Clock(0.001)
    agenda = Agenda(clock, threading.RLock())
    start, done = clock.now(), []

    def chain(moment: float) -> None:
        done.append(("first", moment - start))
        agenda.at(moment + 5, lambda later: done.append(("chained", later - start)))

    agenda.at(start + 20, lambda moment: done.append(("second", moment - start)))
    agenda.at(start + 10, chain)
    agenda.at(start + 1000, lambda _moment: done.append(("never", 0)))
    clock.advance(100)
    agenda.run_due()
    assert [(name, round(at)) for name, at in done] == [("first", 10), ("chained", 15), ("second", 20)]


def test_the_agenda_is_kept_without_anybody_asking() -> None:
    clock = Clock(100)
    agenda = Agenda(clock, threading.RLock())
    agenda.start()
    happened = threading.Event()
    agenda.at(clock.now() + 2, lambda _moment: happened.set())
    assert happened.wait(5)
    agenda.stop()
    agenda.at(0, lambda _moment: pytest.fail("done after its end"))
    agenda.run_due()
