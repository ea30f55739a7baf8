"""When a job ends: every verdict of the watchdog, without a watchdog."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

FAR, PAST = 1000.0, -1000.0


@pytest.fixture
def limits(payload):
    return payload("limits")


def facts(module, left: float = FAR, ceiling: float = FAR, **more):
    return module.Facts(left, ceiling, **more)


# ── the verdict ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("how", "act"),
    [
        ({"agent": "alive"}, "wait"),
        ({"agent": "coming"}, "wait"),
        ({"agent": "none"}, "start"),
        ({"agent": "none", "job": False}, "wait"),
        ({"agent": "dead"}, "end"),
        ({"agent": "alive", "result": True}, "wait"),
        ({"agent": "dead", "result": True, "alone": True}, "end"),
        ({"agent": "dead", "result": True, "alone": False, "since_result": 9.0}, "wait"),
        ({"agent": "dead", "result": True, "alone": False, "since_result": 11.0}, "end"),
        ({"agent": "none", "over": "done"}, "end"),
    ],
)
def test_in_good_time_the_agent_decides(limits, how, act):
    assert limits.judge(facts(limits, **how)).act == act
    with_ender = limits.judge(facts(limits, **how, ender=True)).act
    assert with_ender == ("wait" if "over" in how else act)  # the machine waits to be emptied


@pytest.mark.parametrize(
    ("ender", "store", "act"),
    [
        *((True, "whole", "fire"), (True, "busy", "wait"), (True, "sent", "wait"), (True, "", "wait")),
        *((False, "whole", "end"), (False, "busy", "wait"), (False, "sent", "end"), (False, "", "end")),
    ],
)
def test_what_is_over_waits_for_the_store_and_ends_the_machine_once_all_is_there(limits, ender, store, act):
    assert limits.judge(facts(limits, over="done", ender=ender, store=store)).act == act
    assert limits.judge(facts(limits, agent="alive", ender=ender, store=store)).act == "wait"
    late = limits.judge(facts(limits, left=-5.0, over="done", ender=ender, store=store)).act
    assert late == ("fire" if ender else "end")


@pytest.mark.parametrize("ender", [False, True])
@pytest.mark.parametrize(
    ("left", "ceiling", "how"),
    [
        (PAST, PAST, {"agent": "alive", "alone": True}),
        (FAR, 0.0, {"agent": "alive"}),
        (-5.0, FAR, {"agent": "alive", "alone": False}),
        (-5.0, FAR, {"agent": "alive", "alone": True, "stopped": True}),
        (-5.0, FAR, {"agent": "none", "job": False}),
        (FAR, FAR, {"folder": False}),
        (FAR, FAR, {"ordered": True}),
        (-5.0, FAR, {"over": "done"}),
    ],
)
def test_out_of_time_all_ends_and_the_machine_first_where_it_can(limits, left, ceiling, how, ender):
    verdict = limits.judge(facts(limits, left, ceiling, ender=ender, **how))
    assert verdict.act == ("fire" if ender else "end")
    assert verdict.why


@pytest.mark.parametrize(("ender", "act"), [(False, "wait"), (True, "fire")])
def test_an_agent_that_obeyed_may_hash_to_the_ceiling_where_that_costs_nothing(limits, ender, act):
    assert limits.judge(facts(limits, -20.0, agent="alive", alone=True, ender=ender)).act == act


words = st.sampled_from(["none", "coming", "alive", "dead"])
every = st.fixed_dictionaries(
    {
        "agent": words,
        "over": st.sampled_from(["", "done"]),
        "since_result": st.floats(0, 100),
        **{name: st.booleans() for name in ("job", "result", "alone", "stopped", "folder", "ordered", "ender")},
    }
)


@given(left=st.floats(-(10**6), 10**6), ceiling=st.floats(-(10**6), 10**6), how=every)
def test_past_the_ceiling_nothing_is_ever_waited_for(payload_limits, left, ceiling, how):
    verdict = payload_limits.judge(payload_limits.Facts(left, ceiling, **how))
    if ceiling <= 0 or (how["ender"] and left <= 0):
        assert verdict.act == ("fire" if how["ender"] else "end")
    if verdict.act == "fire":
        assert how["ender"]
        assert verdict.why


@pytest.fixture(scope="module")
def payload_limits(payload):
    return payload("limits")


# ── the limits ────────────────────────────────────────────────────────────────────────────────────────────────────


class Hands:
    """Two clocks that a test sets."""

    def __init__(self, module) -> None:
        self.wall, self.steady = 1_800_000_000.0, 500.0
        self.clock = module.Clock(lambda: self.wall, lambda: self.steady)


def test_a_new_ceiling_moves_both_clocks_and_one_that_is_none_moves_neither(limits):
    hands = Hands(limits)
    start = hands.wall
    each = limits.Limits(start + 900, start + 1000, 1000, hands.steady)
    each.move(start + 1900, start + 2000)
    assert (each.deadline, each.ceiling) == (start + 1900, start + 2000)
    hands.wall -= 5000  # the wall clock says nothing now
    hands.steady += 1899
    assert each.left(each.deadline, hands.clock) == pytest.approx(1)
    each.move(start + 10**6)
    assert each.deadline == each.ceiling == start + 2000
    each.move(start + 300, start + 400)  # shorter, too
    assert (each.deadline, each.ceiling) == (start + 300, start + 400)
    assert each.left(each.ceiling, hands.clock) < 0
    for nonsense in (float("nan"), float("inf")):
        each.move(nonsense, nonsense)
        assert (each.deadline, each.ceiling) == (start + 300, start + 400)


@given(
    used=st.floats(0, 900),
    off=st.floats(0, 50),
    jump=st.floats(-(10**5), 10**5),
    uptime=st.floats(0, 10**6),
)
def test_a_reboot_wins_no_time_but_what_a_clock_set_back_hides(payload_limits, used, off, jump, uptime):
    """The wall clock that went back over a reboot hides the time that the machine was off, and no more."""
    wall = 1_800_000_000.0
    before = {"boot": "a", "armed_steady": 0.0, "used": used, "time": wall}
    armed = payload_limits.armed_before(before, "b", wall + off + jump, uptime)
    assert uptime - armed >= used - 1e-3
    if jump >= 0:
        assert uptime - armed >= used + off - 1e-3


def test_within_a_boot_the_arming_stands_whatever_the_wall_clock_says(limits):
    before = {"boot": "a", "armed_steady": 100.0, "used": 5.0, "time": 1e9}
    assert limits.armed_before(before, "a", 5e9, 900.0) == 100.0
    assert limits.armed_before(before, "a", 5e9, 50.0) == 50.0  # never later than now
    assert limits.armed_before({}, "a", 5e9, 50.0) == 50.0
    assert limits.armed_before({"boot": "b", "used": "x", "time": None}, "a", 5e9, 50.0) == 50.0


# ── what must leave ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("took", "seconds"), [(0.0, 0.0), (100.0, 150.0), (1000.0, 1500.0), (1e6, 2400.0), (float("inf"), 2400.0)]
)
def test_a_slow_checkpoint_leaves_in_time_and_no_reserve_eats_the_training(limits, took, seconds):
    two_of_three_hours = limits.Limits(7200.0, 10_800.0, 10_800.0, armed=0.0)
    assert two_of_three_hours.reserve(took, 300.0) == seconds
    assert limits.Limits(60.0, 60.0, 60.0, armed=0.0).reserve(took, 30.0) <= 30.0


def test_the_agent_keeps_the_time_that_the_last_checkpoint_took_and_half_of_that(payload, tmp_path):
    job = {"mark": "m", "command": ["true"], "deadline": 7200.0, "ceiling": 7200.0, "max_seconds": 7200.0}
    (tmp_path / "watchdog.json").write_text('{"store_seconds": 1000.0}')
    clock = payload("limits").Clock(lambda: 0.0, lambda: 0.0)
    agent = payload("agent").Agent(tmp_path, {**job, "grace_seconds": 300}, clock)
    agent.beat()
    assert agent.leaving == 1500.0
