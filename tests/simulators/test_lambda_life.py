"""The life of an instance by the vendor's clock, what it costs, and how often one may ask."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

import pytest
from simulators_fixture import PUBLIC_KEY

if TYPE_CHECKING:
    from collections.abc import Callable

    from simulators_fixture import LambdaSim

Start = "Callable[..., LambdaSim]"
SLOW = 0.01  # a clock that stands nearly still: only `advance` moves it


def told(text: str) -> datetime:
    return datetime.fromisoformat(text)


@pytest.fixture
def still(start_lambda: Callable[..., LambdaSim]) -> LambdaSim:
    """A world that moves only when it is told to; two minutes from launch to active."""
    sim = start_lambda(rate=SLOW, boot_seconds=120)
    sim.may_hurry = True
    return sim


def step(sim: LambdaSim, seconds: float) -> None:
    sim.advance(seconds)


def test_an_address_comes_before_active_and_gone_comes_after_terminated(still: LambdaSim) -> None:
    one = still.launched()
    look = lambda: (step(still, 2), still.data("GET", f"/instances/{one}"))[1]  # noqa: E731 - a breath before each look
    row = look()
    assert (row["status"], "ip" in row, "hostname" in row, "first_healthy" in row) == ("booting", False, False, False)
    assert row["actions"]["restart"] == {
        "available": False,
        "reason_code": "vm-has-not-launched",
        "reason_description": "vm has not launched",
    }
    step(still, 30)
    row = look()
    assert (row["status"], row["ip"].startswith("127."), row["hostname"]) == ("booting", True, row["ip"])
    step(still, 90)
    assert look()["status"] == "active"
    ended = still.terminate(one).json()["data"]["terminated_instances"][0]
    assert (ended["status"], ended["actions"]["terminate"]["reason_code"]) == ("terminating", "vm-is-terminating")
    assert [row["status"] for row in still.data("GET", "/instances")] == ["terminating"]
    step(still, 15)
    assert look()["status"] == "terminated"
    assert still.data("GET", "/instances") == []
    step(still, 15)
    gone = still.call("GET", f"/instances/{one}")
    assert (gone.status_code, gone.json()["error"]["code"]) == (404, "global/object-does-not-exist")


def test_the_meter_bills_each_minute_begun_from_the_first_health_to_the_accepted_end(still: LambdaSim) -> None:
    one = still.launched(name="mine")
    step(still, 119)
    meter = still.meter()
    assert (meter["billing_now"], meter["usd"], meter["allocations"][0]["started"]) == (1, "0.0000", None)
    step(still, 2)
    assert still.meter()["usd"] == "0.0215"
    step(still, 120)
    assert still.meter()["usd"] == "0.0645"
    still.terminate(one)
    step(still, 3600)
    (row,) = still.meter()["allocations"]
    assert (row["name"], row["minutes"], row["usd"], row["ended_by"], row["status"]) == (
        "mine",
        3,
        "0.0645",
        "terminate",
        "gone",
    )
    assert (told(row["started"]) - told(row["launched"])).total_seconds() == pytest.approx(120, abs=0.01)
    assert 121 <= (told(row["ended"]) - told(row["started"])).total_seconds() < 122
    assert still.meter()["billing_now"] == 0


def test_the_first_health_is_the_moment_that_billing_starts(still: LambdaSim) -> None:
    one = still.launched()
    step(still, 121)
    row = still.data("GET", f"/instances/{one}")
    assert row["first_healthy"] == still.meter()["allocations"][0]["started"]
    still.terminate(one)


def test_a_minute_that_is_no_whole_number_of_cents_is_billed_exactly(still: LambdaSim) -> None:
    one = still.launched(instance_type_name="gpu_1x_a100_sxm4", region_name="us-east-1")
    step(still, 121)
    still.terminate(one)
    assert still.meter()["usd"] == "0.033166667"


def test_an_end_before_the_first_health_costs_nothing(still: LambdaSim) -> None:
    one = still.launched()
    still.terminate(one)
    step(still, 3600)
    assert still.meter()["usd"] == "0.0000"


def test_a_restart_keeps_the_id_and_the_bill(still: LambdaSim) -> None:
    one = still.launched()
    step(still, 121)
    started = still.meter()["allocations"][0]["started"]
    restarted = still.data("POST", "/instance-operations/restart", {"instance_ids": [one]})["restarted_instances"][0]
    assert (restarted["id"], restarted["status"]) == (one, "booting")
    step(still, 61)
    assert still.data("GET", f"/instances/{one}")["status"] == "active"
    assert still.meter()["allocations"][0]["started"] == started
    still.terminate(one)


def test_a_second_terminate_changes_nothing_until_the_id_is_forgotten(still: LambdaSim) -> None:
    one = still.launched()
    step(still, 121)
    still.terminate(one)
    ended = still.meter()["allocations"][0]["ended"]
    step(still, 10)
    assert still.terminate(one).status_code == 200
    assert still.meter()["allocations"][0]["ended"] == ended
    step(still, 30)
    assert still.terminate(one).status_code == 404


def test_one_unknown_id_keeps_a_batch_from_ending_anything(still: LambdaSim) -> None:
    one = still.launched()
    step(still, 2)
    assert still.terminate(one, "0" * 32).status_code == 404
    assert still.meter()["billing_now"] == 1
    still.terminate(one)


def test_the_date_header_goes_by_the_vendors_clock(still: LambdaSim) -> None:
    step(still, 5000)
    told_date = parsedate_to_datetime(still.call("GET", "/regions").headers["Date"])
    assert 4990 < (told_date - datetime.now(UTC)).total_seconds() < 5010


def test_the_pace_can_be_changed_while_it_runs(still: LambdaSim) -> None:
    one = still.launched()
    still.tell("/clock", {"rate": 5000})
    while still.data("GET", f"/instances/{one}")["status"] != "active":
        pass
    still.terminate(one)


def test_prices_and_capacity_move_at_the_controls_word(still: LambdaSim) -> None:
    old = still.launched()
    still.tell("/clock", {"prices": {"gpu_1x_a10": "1.49"}, "capacity": {"gpu_1x_a10": ["us-east-1"]}})
    shown = still.data("GET", "/instance-types")["gpu_1x_a10"]
    assert shown["instance_type"]["price_cents_per_hour"] == 149
    assert [where["name"] for where in shown["regions_with_capacity_available"]] == ["us-east-1"]
    step(still, 20)
    assert still.launch().json()["error"]["code"] == "instance-operations/launch/insufficient-capacity"
    step(still, 20)
    new = still.launched(region_name="us-east-1")
    assert [row["price"] for row in still.meter()["allocations"]] == ["1.29", "1.49"]
    still.terminate(old, new)


def test_more_than_one_request_a_second_draws_a_bare_429(still: LambdaSim) -> None:
    replies = [still.call("GET", "/regions") for _ in range(5)]
    assert [reply.status_code for reply in replies] == [200, 200, 200, 429, 429]
    assert (replies[-1].content, "Retry-After" in replies[-1].headers) == (b"", False)
    assert still.state()["violations"] == 2
    step(still, 1.1)
    assert still.call("GET", "/regions").status_code == 200


def test_honest_pacing_draws_no_429(start_lambda: Callable[..., LambdaSim]) -> None:
    sim = start_lambda(rate=SLOW)
    for _ in range(20):
        assert sim.call("GET", "/regions").status_code == 200
        sim.advance(1.05)


def test_launches_are_held_apart_and_counted_by_the_minute(still: LambdaSim) -> None:
    ids = [still.launched()]
    step(still, 10)
    assert still.launch().status_code == 429
    for _ in range(3):
        step(still, 12.1)
        ids.append(still.launched())
    still.tell("/clock", {"advance": 11.9})  # the first lies 58 s back: five in a minute are allowed, and a gap of 12 s
    assert still.launch().status_code == 429
    step(still, 0.3)
    ids.append(still.launched())
    assert still.meter()["billing_now"] == 5
    step(still, 3)
    assert still.terminate(*ids).status_code == 200


def test_somebody_may_start_one_by_hand_past_every_limit(still: LambdaSim) -> None:
    one = still.launched()
    by_hand = {"region_name": "us-west-1", "instance_type_name": "gpu_1x_a10", "ssh_key_names": ["key"], "name": "hers"}
    other = still.tell("/launch", by_hand)["id"]
    assert [row["name"] for row in still.meter()["allocations"]] == ["", "hers"]
    step(still, 2)
    assert still.terminate(one, other).status_code == 200


def test_many_are_launched_by_hand_at_once_and_shown_on_as_many_pages_as_it_takes(lambda_sim) -> None:
    lambda_sim.may_bill = lambda_sim.may_hurry = True
    lambda_sim.data("POST", "/ssh-keys", {"name": "key", "public_key": PUBLIC_KEY})
    order = {"region_name": "us-west-1", "instance_type_name": "gpu_1x_a10", "ssh_key_names": ["key"]}
    ids = lambda_sim.tell("/launch", [{**order, "name": f"box {number}"} for number in range(25)])["ids"]
    lambda_sim.faults({"second_page": {"size": 10}})
    shown, token = [], ""
    while True:
        page = lambda_sim.call("GET", "/instances", params={"page_token": token} if token else None).json()
        shown.append([row["id"] for row in page["data"]])
        token = page.get("page_token") or ""
        if not token:
            break
    assert [len(page) for page in shown] == [10, 10, 5]
    assert sum(shown, []) == ids  # noqa: RUF017 (three short lists)
