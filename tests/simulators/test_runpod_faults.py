"""Every fault of the table does what its row says, as often as it says, and no more."""

from __future__ import annotations

from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests

from simulators.runpod.faults import BOOK

if TYPE_CHECKING:
    from collections.abc import Callable

    from runpod_fixture import RunPodSim


@pytest.fixture
def still(start_runpod: Callable[..., RunPodSim]) -> RunPodSim:
    """A world that moves only when it is told to; a minute from create to RUNNING."""
    return start_runpod(rate=0.01, start_seconds=60)


def look(sim: RunPodSim, one: str) -> dict[str, Any]:
    """See a pod; {} where the vendor knows none."""
    reply = sim.call("GET", f"/pods/{one}")
    assert reply.status_code in {200, 404}
    return reply.json() if reply.status_code == 200 else {}


def listed(sim: RunPodSim) -> list[str]:
    return [row["id"] for row in sim.data("GET", "/pods")["pods"]]


def billing(sim: RunPodSim) -> list[str]:
    return [row["id"] for row in sim.meter()["allocations"] if row["ended"] is None]


def end(sim: RunPodSim) -> None:
    for one in billing(sim):
        assert sim.delete(one).status_code == 204


# ── before the deed ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("fault", "status", "word"),
    [
        ({"capacity": 1}, 400, "no longer any instances available with the requested"),
        ({"capacity": {"words": 2}}, 400, "no instances currently available"),
        ({"no_balance": 1}, 402, "balance"),
        ({"forbidden": 1}, 403, "access denied"),
    ],
)
def test_a_refused_create_makes_nothing_and_the_next_is_taken(still, fault: dict, status: int, word: str) -> None:
    still.faults(fault)
    reply = still.create()
    assert (reply.status_code, word in reply.json()["detail"]) == (status, True)
    assert still.meter()["allocations"] == []
    still.created()
    end(still)


def test_capacity_can_be_refused_for_one_type_or_place_only(still: RunPodSim) -> None:
    still.faults({"capacity": {"times": None, "region": "EU-CZ-1"}})
    assert still.create().status_code == 400
    assert still.create(dataCenterIds=["US-KS-2"]).status_code == 201
    still.faults({"capacity": {"times": None, "type": "NVIDIA L4"}})
    assert still.create().status_code == 201
    assert still.create(gpu={"id": "NVIDIA L4"}).status_code == 400
    end(still)


@pytest.mark.parametrize(
    ("fault", "status", "content_type"),
    [
        ("key_rejected", 401, "application/problem+json"),
        ("rate_limited", 429, "application/problem+json"),
        ("server_error", 500, "application/problem+json"),
        ("unavailable", 503, "application/problem+json"),
        ("bad_gateway", 502, "text/html"),
        ("redirect", 301, "text/html"),
    ],
)
def test_a_refused_request_is_answered_so(still: RunPodSim, fault: str, status: int, content_type: str) -> None:
    still.faults({fault: {"times": 1, "of": "list"}})
    assert still.call("GET", "/account/ssh-keys").status_code == 200
    reply = still.call("GET", "/pods")
    assert (reply.status_code, reply.headers["content-type"]) == (status, content_type)
    assert reply.headers.get("retry-after") == ("2" if status == 429 else None)
    assert still.call("GET", "/pods").status_code == 200


def test_a_429_may_come_without_the_header(still: RunPodSim) -> None:
    still.faults({"rate_limited": {"times": 1, "seconds": 0}})
    reply = still.call("GET", "/pods")
    assert (reply.status_code, "retry-after" in reply.headers) == (429, False)


def test_a_key_that_may_only_read_changes_nothing(still: RunPodSim) -> None:
    one = still.created()
    still.faults(["read_only_key"])
    assert [still.create().status_code, still.delete(one).status_code] == [403, 403]
    assert look(still, one)["id"] == one
    still.faults({"read_only_key": 0})
    end(still)


def test_a_slow_answer_comes_and_a_clock_can_be_ahead(start_runpod: Callable[..., RunPodSim]) -> None:
    sim = start_runpod(rate=0.01)
    sim.faults({"slow_reply": {"seconds": 0.002, "of": "list"}, "clock_skew": {"seconds": 7200}})
    reply = sim.call("GET", "/pods")
    assert reply.elapsed.total_seconds() >= 0.1
    ahead = parsedate_to_datetime(reply.headers["date"]) - datetime.fromisoformat(sim.state()["now"])
    assert 7190 < ahead.total_seconds() < 7210


@pytest.mark.parametrize(("how", "when"), [("refused", "create"), ("503", "delete"), ("503", "running")])
def test_the_api_goes_down_at_an_occasion_and_comes_back(still: RunPodSim, how: str, when: str) -> None:
    still.faults({"api_down": {"how": how, "when": when, "seconds": 300, "delay": 5}})
    one = still.created()
    still.advance(0 if when == "create" else 61)
    if when == "delete":
        still.delete(one)
    still.advance(6)
    if how == "refused":
        with pytest.raises(requests.ConnectionError):
            still.call("GET", "/pods")
    else:
        assert still.call("GET", "/pods").status_code == 503
    still.advance(301)
    assert still.call("GET", "/pods").status_code == 200
    end(still)


# ── after the deed ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("fault", ["reply_lost", "reply_500", "reply_502", "reply_garbled"])
def test_a_create_is_done_and_its_answer_spoilt(still: RunPodSim, fault: str) -> None:
    still.faults([fault])
    if fault == "reply_lost":
        with pytest.raises(requests.ConnectionError):
            still.create()
    else:
        reply = still.create()
        with pytest.raises((KeyError, ValueError)):
            reply.json()["id"]
    (one,) = billing(still)
    assert (listed(still), look(still, one)) == ([], {})
    still.advance(21)
    assert (listed(still), look(still, one)["id"]) == ([one], one)
    end(still)


@pytest.mark.parametrize("get", [False, True])
def test_a_fresh_pod_is_not_listed_at_once(still: RunPodSim, *, get: bool) -> None:
    still.faults({"list_lag": {"seconds": 30, "get": get}})
    one = still.created()
    assert (listed(still), bool(look(still, one))) == ([], not get)
    still.advance(31)
    assert (listed(still), bool(look(still, one))) == ([one], True)
    end(still)


def test_lists_and_looks_flicker(still: RunPodSim) -> None:
    one = still.created()
    still.faults({"list_flicker": 1, "get_flicker": 1})
    assert (listed(still), look(still, one)) == ([], {})
    assert (listed(still), look(still, one)["id"]) == ([one], one)
    end(still)


def test_pages_come_unasked_or_not_at_all(still: RunPodSim) -> None:
    ids = [still.created(), still.created()]
    still.faults(["pages"])
    page = still.data("GET", "/pods")
    assert ([row["id"] for row in page["pods"]], page["pagination"]["hasNextPage"]) == ([ids[1]], True)
    still.faults(["no_pagination"])
    assert still.data("GET", "/pods").keys() == {"pods"}
    end(still)


def test_a_status_can_be_one_that_nobody_knows(still: RunPodSim) -> None:
    one = still.created()
    still.faults({"unknown_status": 1})
    assert look(still, one)["status"] == "PROVISIONING"
    still.advance(61)
    assert [look(still, one)["status"] for _ in range(2)] == ["MIGRATING", "RUNNING"]
    end(still)


def test_a_log_can_be_refused_and_cut(still: RunPodSim) -> None:
    one = still.created()
    still.advance(61)
    still.faults({"logs_refused": 1, "logs_cut": {"events": 2}})
    assert still.call("GET", f"/pods/{one}/logs").status_code == 400
    reply = still.call("GET", f"/pods/{one}/logs", stream=True)
    lines = []
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        lines.extend(line for line in reply.iter_lines() if line.startswith(b"id"))
    reply.close()
    assert len(lines) <= 2
    end(still)


# ── the life of a pod ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("fault", "status", "word"),
    [
        ("stuck_provisioning", "PROVISIONING", ""),
        ("stuck_starting", "STARTING", "up to date"),
        ("pull_fails", "STARTING", "not found"),
    ],
)
def test_a_pod_that_is_stuck_bills(still: RunPodSim, fault: str, status: str, word: str) -> None:
    still.faults([fault])
    one = still.created()
    still.advance(7200)
    assert (look(still, one)["status"], billing(still)) == (status, [one])
    if word:
        with still.call("GET", f"/pods/{one}/logs", params={"tail": 1}, stream=True) as reply:
            assert word in next(line for line in reply.iter_lines(decode_unicode=True) if line.startswith("data"))
    end(still)


def test_a_pod_can_take_its_time(still: RunPodSim) -> None:
    still.faults({"slow_start": {"seconds": 900}})
    one = still.created()
    still.advance(890)
    assert look(still, one)["status"] == "STARTING"
    still.advance(11)
    assert look(still, one)["status"] == "RUNNING"
    end(still)


@pytest.mark.parametrize(
    ("fault", "status", "bills"),
    [
        ({"error": {"after": 100}}, "ERROR", True),
        ({"exited": {"after": 100}}, "EXITED", True),
        ({"vanish": {"after": 100}}, None, False),
    ],
)
def test_a_pod_comes_to_grief_after_a_while(still: RunPodSim, fault: dict, status: str | None, *, bills: bool) -> None:
    still.faults(fault)
    one = still.created()
    still.advance(155)
    assert look(still, one)["status"] == "RUNNING"
    still.advance(10)
    assert (look(still, one).get("status"), bool(billing(still))) == (status, bills)
    end(still)


@pytest.mark.parametrize(
    ("fault", "after"),
    [({"ssh_late": {"seconds": 300}}, 290), ({"ssh_never": 1}, 10**6), ({"no_public_ip": 1}, 10**6)],
)
def test_running_is_not_reachable(still: RunPodSim, fault: dict, after: float) -> None:
    still.tell("/clock", {"prices": {"NVIDIA GeForce RTX 3090": "0.0001"}})  # days for cents
    still.faults(fault)
    one = still.created(disk=1)
    still.advance(61 + after)
    pod = look(still, one)
    assert (pod["status"], pod["ssh"]["direct"]) == ("RUNNING", None)
    still.advance(20)
    assert (look(still, one)["ssh"]["direct"] is None) is ("ssh_late" not in fault)
    end(still)


def test_containers_restart_as_often_as_told_and_ports_change(still: RunPodSim) -> None:
    still.faults({"container_restart": {"after": 100, "count": 2, "every": 50}, "port_change": {"after": 300}})
    one = still.created()
    still.advance(161)
    assert look(still, one)["runtime"]["uptime"] <= 2
    still.advance(50)
    assert (look(still, one)["runtime"]["uptime"], still.state()["instances"][0]["restarts"]) == (1, 2)
    before = look(still, one)["ssh"]["direct"]["port"]
    still.advance(160)
    pod = look(still, one)
    assert (pod["ssh"]["direct"]["port"] != before, pod["runtime"]["uptime"] > 100) == (True, True)
    end(still)


def test_the_old_port_may_be_told_for_a_while(still: RunPodSim) -> None:
    still.faults({"stale_port": {"seconds": 90}})
    one = still.created()
    still.advance(100)
    before = look(still, one)["ssh"]["direct"]["port"]
    still.faults({"container_restart": {"instance": one, "after": 0}})
    assert look(still, one)["ssh"]["direct"]["port"] == before
    still.advance(91)
    assert look(still, one)["ssh"]["direct"]["port"] != before
    end(still)


def test_a_pod_is_dearer_than_its_offer_or_grows_so(still: RunPodSim) -> None:
    still.faults({"price_dearer": {"factor": 2}})
    one = still.created()
    assert look(still, one)["cost"] == 1.0
    still.faults({"price_dearer": {"factor": 3, "after": 100}})
    two = still.created()
    assert look(still, two)["cost"] == 0.5
    still.advance(161)
    assert look(still, two)["cost"] == 1.5
    assert [row["price"] for row in still.meter()["allocations"]] == ["1.006849", "1.506849"]
    end(still)


def test_cost_may_hold_the_disk(still: RunPodSim) -> None:
    still.faults(["cost_with_disk"])
    one = still.created(disk=73)
    assert look(still, one)["cost"] == 0.51
    end(still)


# ── the end ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_delete_can_be_accepted_and_ignored(still: RunPodSim) -> None:
    one = still.created()
    still.faults({"delete_ignored": 2})
    assert [still.delete(one).status_code for _ in range(2)] == [204, 204]
    assert billing(still) == [one]
    assert look(still, one)["status"] == "PROVISIONING"
    assert still.delete(one).status_code == 204
    assert billing(still) == []


@pytest.mark.parametrize(("fault", "status"), [("delete_500", 500), ("conflict", 409)])
def test_a_delete_can_fail_for_a_while(still: RunPodSim, fault: str, status: int) -> None:
    one = still.created()
    still.faults({fault: 2})
    assert [still.delete(one).status_code for _ in range(3)] == [status, status, 204]


def test_what_is_terminated_may_be_shown_and_bills_no_more(still: RunPodSim) -> None:
    still.faults({"terminated_lingers": {"seconds": 60}})
    one = still.created()
    still.delete(one)
    assert (look(still, one)["status"], look(still, one)["cost"], listed(still), billing(still)) == (
        "TERMINATED",
        0,
        [],
        [],
    )
    assert still.delete(one).status_code == 204
    still.advance(61)
    assert look(still, one) == {}


# ── the table ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_pod_that_is_there_can_be_struck_only_by_what_may_come_later(still: RunPodSim) -> None:
    one = still.created()
    still.advance(70)
    still.faults({"vanish": {"instance": "*", "after": 0}})
    assert look(still, one) == {}
    for wish, status in (({"vanish": {"instance": "nope"}}, 404), ({"slow_start": {"instance": "*"}}, 400)):
        assert requests.post(still.control + "/faults", json=wish, timeout=30).status_code == status


@pytest.mark.parametrize(("fault", "told"), [({}, True), ({"bills_late": {"seconds": 7200}}, False)])
def test_what_was_charged_may_be_told_late(still: RunPodSim, fault: dict[str, object], told: bool) -> None:  # noqa: FBT001
    still.faults({**fault, "volume_charged": {"usd": 1.5}})
    one = still.created()
    still.advance(3600)
    still.delete(one)
    pods = still.data("GET", "/billing/pods", params={"bucketSize": "hour"})
    whole = still.data("GET", "/billing", params={"bucketSize": "hour"})
    assert bool(pods["records"]) is told
    assert whole["metadata"]["totals"]["storageStandardAmount"] == (1.5 if told else 0)


def test_every_fault_of_the_table_is_tested() -> None:
    here = Path(__file__)
    text = here.read_text(encoding="utf-8").split("ON_MACHINES = ", maxsplit=1)[0]
    text += here.with_name("test_runpod_keys.py").read_text(encoding="utf-8")
    untested = {name for name in BOOK.table if f'"{name}"' not in text}
    assert untested == ON_MACHINES


ON_MACHINES = {  # test_runpod_pods.py
    *("sshd_never", "wrong_host_key", "cuda_broken", "driver_old", "disk_full"),
    *("link_cut", "link_blackhole", "link_freeze"),
}
