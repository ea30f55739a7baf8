"""idle.py, which a rented machine runs until its time is up."""

from __future__ import annotations

import shutil

from boxes import PAYLOAD, until


def rent(box, **limits):
    each = box(**limits)
    shutil.copy(PAYLOAD / "idle.py", each.folder / "payload" / "idle.py")
    return each.go_argv("{python}", "-S", "payload/idle.py")


def test_a_rent_that_reached_its_hours_is_completed(box):
    each = rent(box, deadline=5, grace_seconds=1)
    result = each.result()
    assert (result["reason"], result["exit_code"], result["artifacts"]) == ("completed", 0, [])
    assert each.limits["deadline"] - 4 < result["ended"] < each.limits["deadline"]


def test_a_rent_is_never_hung(box):
    each = rent(box, deadline=6, grace_seconds=1, max_idle_seconds=1.2)
    assert each.result()["reason"] == "completed"
    assert each.read("status.json")["stage"] == "idle"


def test_a_rent_that_is_stopped_leaves_at_once(box):
    each = rent(box)
    each.step(0)
    until(lambda: each.read("status.json").get("stage") == "idle", "idling")
    each.put("order.json", {"id": 1, "kind": "stop"})
    result = each.result()
    assert (result["reason"], result["exit_code"]) == ("stopped", 5)


def test_a_rent_whose_end_is_moved_lasts_that_long(box):
    each = rent(box, deadline=5, ceiling=60, grace_seconds=1)
    until(lambda: each.read("status.json").get("stage") == "idle", "idling")
    deadline = each.limits["deadline"] + 3
    each.put("order.json", {"id": 1, "kind": "deadline", "deadline": deadline})
    result = each.result()
    assert (result["reason"], deadline - 4 < result["ended"] < deadline) == ("completed", True)


def test_a_rent_on_a_machine_whose_clock_is_an_hour_behind_is_completed_in_its_time(box):
    each = rent(box, deadline=3600, ceiling=3600, max_seconds=5.0, grace_seconds=1)
    result = each.result()
    assert (result["reason"], result["exit_code"]) == ("completed", 0)
