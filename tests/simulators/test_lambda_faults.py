"""Every fault of the table does what its row says, as often as it says, and no more."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

import pytest
import requests

from simulators.lambda_cloud.faults import BOOK

if TYPE_CHECKING:
    from collections.abc import Callable

    from simulators_fixture import LambdaSim

HERE = "127.0.0.1"


@pytest.fixture
def still(start_lambda: Callable[..., LambdaSim]) -> LambdaSim:
    """A world that moves only when it is told to; 100 s from launch to active."""
    sim = start_lambda(rate=0.01, boot_seconds=100)
    sim.may_hurry = True
    return sim


def look(sim: LambdaSim, one: str) -> dict[str, Any]:
    """See an instance after a breath; {} where the vendor knows none."""
    sim.advance(1.5)
    reply = sim.call("GET", f"/instances/{one}")
    assert reply.status_code in {200, 404}
    return reply.json().get("data", {})


def listed(sim: LambdaSim) -> list[str]:
    sim.advance(1.5)
    return [row["id"] for row in sim.data("GET", "/instances")]


def end(sim: LambdaSim) -> None:
    sim.advance(10)
    left = [row["id"] for row in sim.meter()["allocations"] if row["ended"] is None]
    assert sim.terminate(*left).status_code == 200


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        ("launch_capacity", 400, "instance-operations/launch/insufficient-capacity"),
        ("quota", 400, "global/quota-exceeded"),
        ("billing_address", 403, "global/invalid-address"),
    ],
)
def test_a_refused_launch_makes_nothing_and_the_next_is_taken(
    still: LambdaSim, fault: str, status: int, code: str
) -> None:
    still.faults({fault: 1})
    reply = still.launch()
    assert (reply.status_code, reply.json()["error"]["code"]) == (status, code)
    assert still.meter()["allocations"] == []
    still.advance(13)
    assert still.launch().status_code == 200
    end(still)


def test_capacity_can_be_refused_in_one_region_only(still: LambdaSim) -> None:
    still.faults({"launch_capacity": {"times": None, "region": "us-west-1"}})
    assert still.launch().status_code == 400
    still.advance(13)
    assert still.launch(region_name="us-east-1").status_code == 200
    end(still)


@pytest.mark.parametrize(
    ("fault", "status", "sign"),
    [
        ("rate_limited", 429, ""),
        ("server_error", 500, "global/internal-error"),
        ("unavailable", 503, "provider/internal-unavailable"),
        ("bad_gateway", 502, "<html>"),
        ("cloudflare", 403, "error code: 1010"),
        ("redirect", 301, ""),
        ("key_rejected", 401, "global/invalid-api-key"),
        ("account_inactive", 403, "global/account-inactive"),
    ],
)
def test_a_fault_of_requests_strikes_what_it_is_meant_for_and_then_stops(
    still: LambdaSim, fault: str, status: int, sign: str
) -> None:
    still.faults({fault: {"times": 1, "skip": 1, "of": "regions"}})
    replies = [still.call("GET", path) for path in ("/regions", "/ssh-keys", "/regions")]
    assert [reply.status_code for reply in replies] == [200, 200, status]
    assert sign in replies[-1].text
    still.advance(5)
    assert still.call("GET", "/regions").status_code == 200
    assert [record["faults"] for record in still.asked()] == [[], [], [fault], []]


def test_a_redirect_leads_to_another_host(still: LambdaSim) -> None:
    still.faults(["redirect"])
    target = still.call("GET", "/regions").headers["Location"]
    assert not target.startswith(f"http://{HERE}:")


@pytest.mark.parametrize("fault", ["reply_lost", "reply_502", "reply_429", "reply_empty", "reply_garbled"])
def test_a_lost_reply_leaves_the_deed_done_and_hidden_for_a_while(still: LambdaSim, fault: str) -> None:
    still.faults({fault: {"hidden_seconds": 30}})
    if fault == "reply_lost":
        with pytest.raises(requests.ConnectionError):
            still.launch()
    else:
        reply = still.launch()
        with pytest.raises((ValueError, LookupError)):
            _ = reply.json()["data"]["instance_ids"][0]
    (row,) = still.meter()["allocations"]
    assert (listed(still), look(still, row["id"])) == ([], {})
    still.advance(30)
    assert listed(still) == [row["id"]]
    assert look(still, row["id"])["status"] == "booting"
    assert still.asked()[-5]["faults"] == [fault]
    end(still)


def test_a_terminate_can_lose_its_reply_as_well(still: LambdaSim) -> None:
    one = still.launched()
    still.faults({"reply_lost": {"of": "terminate"}})
    with pytest.raises(requests.ConnectionError):
        still.terminate(one)
    assert still.meter()["billing_now"] == 0


def test_an_answer_can_come_late(start_lambda: Callable[..., LambdaSim]) -> None:
    sim = start_lambda(pace=100, faults={"slow_reply": {"seconds": 20}})
    with pytest.raises(requests.ReadTimeout):
        sim.call("GET", "/regions", timeout=0.05)
    assert sim.call("GET", "/regions").status_code == 200


def test_the_date_can_be_ahead(lambda_sim: LambdaSim) -> None:
    lambda_sim.faults({"clock_skew": {"seconds": 86400}})
    date = parsedate_to_datetime(lambda_sim.call("GET", "/regions").headers["Date"])
    assert (date - datetime.now(UTC)).total_seconds() > 80000


@pytest.mark.parametrize("when", ["now", "launch", "active", "terminate"])
@pytest.mark.parametrize("how", ["refused", "503"])
def test_the_api_goes_down_and_comes_back_while_the_control_stays(still: LambdaSim, when: str, how: str) -> None:
    def answers() -> bool:
        still.advance(1.5)
        try:
            return still.call("GET", "/regions").status_code == 200
        except requests.ConnectionError:
            return False

    still.faults({"api_down": {"seconds": 60, "how": how, "when": when, "delay": 1}})
    if when != "now":
        one = still.launched()
    if when in {"active", "terminate"}:
        assert answers()
        still.advance(100)
    if when == "terminate":
        still.terminate(one)
    assert not answers()
    still.advance(60)
    assert answers()
    if when in {"launch", "active"}:
        still.terminate(one)


def test_a_fresh_instance_can_stay_off_the_list_for_a_while(still: LambdaSim) -> None:
    still.faults({"list_lag": {"seconds": 40}})
    one = still.launched()
    assert (listed(still), look(still, one)["status"]) == ([], "booting")
    still.advance(40)
    assert listed(still) == [one]
    still.faults({"list_lag": {"seconds": 40, "get": True}})
    two = still.launched()
    assert (listed(still), look(still, two)) == ([one], {})
    end_hidden(still)


def end_hidden(sim: LambdaSim) -> None:
    sim.advance(60)
    end(sim)


def test_a_list_and_a_look_can_miss_what_bills(still: LambdaSim) -> None:
    one = still.launched()
    still.faults({"list_flicker": 2, "get_flicker": 1})
    assert [listed(still) for _ in range(3)] == [[], [], [one]]
    assert look(still, one) == {}
    assert look(still, one)["id"] == one
    end(still)


def test_a_second_page_comes_unasked_and_the_first_may_be_empty(still: LambdaSim) -> None:
    one = still.launched()
    still.faults(["second_page"])
    still.advance(13)
    first = still.call("GET", "/instances").json()
    assert (first["data"], bool(first["page_token"])) == ([], True)
    second = still.call("GET", "/instances", params={"page_token": first["page_token"]}).json()
    assert ([row["id"] for row in second["data"]], second["page_token"]) == ([one], None)
    two = still.launched()
    still.advance(13)
    first = still.call("GET", "/instances").json()
    second = still.call("GET", "/instances", params={"page_token": first["page_token"]}).json()
    assert [row["id"] for row in first["data"] + second["data"]] == [one, two]
    end(still)


def test_what_is_optional_can_be_missing(still: LambdaSim) -> None:
    one = still.launched(name="mine")
    still.advance(30)
    assert {"name", "hostname", "private_ip"} <= look(still, one).keys()
    still.faults({"fields_missing": {"fields": "name,ip,status"}})
    row = look(still, one)
    assert {"name", "ip"} & row.keys() == set()
    assert row["status"] == "booting"  # the document requires it
    end(still)


def test_what_is_terminated_can_stay_on_the_list(still: LambdaSim) -> None:
    one = still.launched()
    still.terminate(one)
    still.advance(16)
    assert listed(still) == []
    still.faults(["terminated_listed"])
    assert listed(still) == [one]


def test_a_status_can_be_a_word_that_nobody_knows(still: LambdaSim) -> None:
    one = still.launched()
    still.advance(100)
    still.faults({"unknown_status": {"times": 2, "word": "resizing"}})
    assert [look(still, one)["status"] for _ in range(3)] == ["resizing", "resizing", "active"]
    end(still)


def test_a_slow_boot_takes_its_time(still: LambdaSim) -> None:
    still.faults({"slow_boot": {"seconds": 857}})
    one = still.launched()
    still.advance(850)
    assert look(still, one)["status"] == "booting"
    still.advance(7)
    assert look(still, one)["status"] == "active"
    end(still)


def test_unhealthy_from_birth_never_bills_by_the_vendors_word_but_must_be_ended(still: LambdaSim) -> None:
    still.faults(["unhealthy"])
    one = still.launched()
    still.advance(500)
    row = look(still, one)
    assert (row["status"], "first_healthy" in row) == ("unhealthy", False)
    assert (still.meter()["usd"], still.meter()["billing_now"]) == ("0.0000", 1)
    end(still)


@pytest.mark.parametrize("fault", ["unhealthy", "preempted"])
def test_trouble_after_active_bills_until_it_is_terminated(still: LambdaSim, fault: str) -> None:
    still.faults({fault: {"after": 60}})
    one = still.launched()
    still.advance(120)
    assert look(still, one)["status"] == "active"
    still.advance(60)
    assert look(still, one)["status"] == fault
    assert still.meter()["allocations"][0]["minutes"] == 2
    still.advance(60)
    assert still.meter()["allocations"][0]["minutes"] == 3
    end(still)


def test_an_instance_can_vanish_and_its_bill_ends_there(still: LambdaSim) -> None:
    still.faults({"vanish": {"after": 60}})
    one = still.launched()
    still.advance(170)
    assert (look(still, one), listed(still)) == ({}, [])
    (row,) = still.meter()["allocations"]
    assert (row["minutes"], row["ended_by"], still.meter()["billing_now"]) == (1, "vanished", 0)


def test_a_fault_can_strike_what_is_there(still: LambdaSim) -> None:
    one, _ = still.launched(), still.advance(13)
    two = still.launched()
    still.advance(100)
    still.faults({"vanish": {"instance": one, "after": 0}})
    assert listed(still) == [two]
    still.faults({"preempted": {"instance": "*", "after": 0}})
    assert look(still, two)["status"] == "preempted"
    for wish in ({"ip_never": {"instance": two}}, {"vanish": {"instance": "nope"}}):
        with pytest.raises(requests.HTTPError):
            still.faults(wish)
    end(still)


def test_an_address_can_come_late_or_never(still: LambdaSim) -> None:
    still.faults({"ip_late": {"seconds": 120}})
    late, _ = still.launched(), still.faults(["ip_never"])
    still.advance(13)
    never = still.launched()
    still.advance(150)
    assert [(row["status"], "ip" in row) for row in (look(still, late), look(still, never))] == [("active", False)] * 2
    still.advance(120)
    assert ["ip" in look(still, each) for each in (late, never)] == [True, False]
    end(still)


def test_the_price_can_be_dearer_than_the_one_on_offer(still: LambdaSim) -> None:
    still.faults({"price_dearer": {"factor": 2}})
    one = still.launched()
    assert look(still, one)["instance_type"]["price_cents_per_hour"] == 258
    assert still.data("GET", "/instance-types")["gpu_1x_a10"]["instance_type"]["price_cents_per_hour"] == 129
    assert still.meter()["allocations"][0]["price"] == "2.58"
    end(still)


def test_a_terminate_can_be_accepted_and_ignored(still: LambdaSim) -> None:
    one = still.launched()
    still.advance(101)
    still.faults({"terminate_ignored": 2})
    for _ in range(2):
        reply = still.terminate(one)
        assert reply.json()["data"]["terminated_instances"][0]["status"] == "terminating"
        still.advance(60)
        assert look(still, one)["status"] == "active"
        assert still.meter()["billing_now"] == 1
    assert still.terminate(one).status_code == 200
    assert look(still, one)["status"] == "terminating"
    assert (still.meter()["billing_now"], still.meter()["allocations"][0]["minutes"]) == (0, 3)


def test_an_ignored_terminate_can_look_as_if_it_went_on(still: LambdaSim) -> None:
    one = still.launched()
    still.advance(101)
    still.faults({"terminate_ignored": {"times": 1, "shows": "terminating"}})
    still.terminate(one)
    still.advance(3600)
    assert (look(still, one)["status"], still.meter()["billing_now"]) == ("terminating", 1)
    end(still)


def test_a_terminate_can_fail_with_a_code_that_nobody_documented(still: LambdaSim) -> None:
    one = still.launched()
    still.faults(["terminate_unknown"])
    reply = still.terminate(one)
    assert (reply.status_code, reply.json()["error"]["code"]) == (400, "global/unknown")
    assert still.meter()["billing_now"] == 1
    end(still)


@pytest.mark.parametrize(("how", "code"), [("404", "global/object-does-not-exist"), ("unknown", "global/unknown")])
def test_a_second_terminate_can_be_an_error(still: LambdaSim, how: str, code: str) -> None:
    still.faults({"terminate_again": {"how": how}})
    one = still.launched()
    assert still.terminate(one).status_code == 200
    still.advance(3)
    assert still.terminate(one).json()["error"]["code"] == code


def test_terminating_can_linger(still: LambdaSim) -> None:
    still.faults({"terminating_lingers": {"seconds": 600}})
    one = still.launched()
    still.terminate(one)
    still.advance(590)
    assert (look(still, one)["status"], still.meter()["billing_now"]) == ("terminating", 0)
    still.advance(10)
    assert look(still, one)["status"] == "terminated"


# Those that need a real machine: tests/simulators/test_lambda_machines.py.
ON_MACHINES = {"sshd_late", "sshd_never", "wrong_host_key", "cuda_broken", "driver_old", "disk_full"}
ON_LINKS = {"link_cut", "link_blackhole", "link_freeze"}
ELSEWHERE = {"launch_400"}  # with the launches that name what does not exist


def test_every_fault_of_the_table_is_tested_here_or_on_machines() -> None:
    from pathlib import Path

    text = Path(__file__).read_text(encoding="utf-8").split("ON_MACHINES = ", maxsplit=1)[0]
    untested = {name for name in BOOK.table if f'"{name}"' not in text}
    assert untested == ON_MACHINES | ON_LINKS | ELSEWHERE
