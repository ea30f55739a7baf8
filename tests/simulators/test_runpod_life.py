"""The life of a pod by the vendor's clock, and what it costs by the second."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from runpod_fixture import RunPodSim

SLOW = 0.01  # a clock that stands nearly still: only `advance` moves it
HOURLY = Decimal("0.5") + 50 * Decimal("0.1") / 730  # an RTX 3090 and 50 GB


@pytest.fixture
def still(start_runpod: Callable[..., RunPodSim]) -> RunPodSim:
    """A world that moves only when it is told to; a minute from create to RUNNING."""
    return start_runpod(rate=SLOW, start_seconds=60)


def test_a_pod_is_allocated_pulled_and_run_and_its_address_comes_last(still: RunPodSim) -> None:
    made = still.create().json()
    one = made["id"]
    assert (made["status"], made["runtime"], made["startedAt"], made["ssh"]["direct"]) == (
        "PROVISIONING",
        {},
        None,
        None,
    )
    assert made["ssh"]["proxy"]["username"].startswith(f"{one}-")
    still.advance(11)
    pod = still.pod(one)
    assert (pod["status"], pod["runtime"], pod["actions"]) == ("STARTING", None, ["stop", "terminate"])
    still.advance(50)
    pod = still.pod(one)
    assert (pod["status"], pod["ssh"]["direct"], pod["runtime"]["ports"]) == ("RUNNING", None, [])
    assert pod["startedAt"] > pod["createdAt"]
    still.advance(10)
    pod = still.pod(one)
    (port,) = pod["runtime"]["ports"]
    direct = pod["ssh"]["direct"]
    assert (direct["host"], direct["port"]) == (port["ip"], port["public"])
    assert direct["command"] == f"ssh {direct['username']}@{direct['host']} -p {direct['port']}"
    assert 20 <= pod["runtime"]["uptime"] <= 22
    assert still.delete(one).content == b""
    assert still.call("GET", f"/pods/{one}").status_code == 404
    assert still.data("GET", "/pods")["pods"] == []


def test_without_22_tcp_there_is_no_direct_way(still: RunPodSim) -> None:
    one = still.created(ports=[])
    still.advance(600)
    assert still.pod(one)["ssh"]["direct"] is None
    still.delete(one)


def test_the_meter_bills_every_second_from_the_create_with_the_disk(still: RunPodSim) -> None:
    one = still.created(name="mine")
    assert still.pod(one)["cost"] == 0.5
    still.advance(3600)
    (row,) = still.meter()["allocations"]
    assert (row["name"], row["started"], row["launched"]) == ("mine", row["launched"], row["launched"])
    assert Decimal(row["usd"]) == pytest.approx(HOURLY, abs=Decimal("0.0003"))
    still.delete(one)
    still.advance(3600)
    meter = still.meter()
    assert (meter["billing_now"], meter["allocations"][0]["ended_by"]) == (0, "delete")
    assert Decimal(meter["usd"]) == pytest.approx(HOURLY, abs=Decimal("0.0003"))


def test_a_second_begun_is_billed_and_a_minute_is_not(still: RunPodSim) -> None:
    one = still.created()
    still.advance(10)
    still.delete(one)
    seconds = Decimal(still.meter()["usd"]) / HOURLY * 3600
    assert 9.9 < seconds < 12.1


def test_a_stop_wipes_the_disk_and_keeps_billing_for_the_volume(still: RunPodSim) -> None:
    one = still.created(mounts={"persistent": {"size": 100, "path": "/workspace"}})
    still.advance(100)
    assert still.call("POST", f"/pods/{one}/action", {"action": "stop"}).json()["status"] == "EXITED"
    pod = still.pod(one)
    assert (pod["cost"], pod["runtime"], pod["ssh"]["direct"], pod["actions"]) == (
        0,
        None,
        None,
        ["start", "terminate"],
    )
    before = Decimal(still.meter()["usd"])
    still.advance(3600)
    stored = Decimal(still.meter()["usd"]) - before
    assert stored == pytest.approx(100 * Decimal("0.2") / 730, rel=Decimal("0.01"))
    assert still.call("POST", f"/pods/{one}/action", {"action": "restart"}).status_code == 409
    assert still.call("POST", f"/pods/{one}/action", {"action": "start"}).json()["status"] == "STARTING"
    still.advance(70)
    assert still.pod(one)["status"] == "RUNNING"
    still.delete(one)


def test_a_locked_pod_is_not_stopped_but_ended(still: RunPodSim) -> None:
    one = still.created()
    still.advance(70)
    assert still.call("PATCH", f"/pods/{one}", {"locked": True}).json()["locked"] is True
    assert still.call("POST", f"/pods/{one}/action", {"action": "stop"}).status_code == 409
    assert still.delete(one).status_code == 204


def test_a_restart_in_place_bills_on_behind_another_port(still: RunPodSim) -> None:
    one = still.created()
    still.advance(100)
    before = still.pod(one)
    assert still.call("POST", f"/pods/{one}/action", {"action": "restart"}).json()["status"] == "RUNNING"
    after = still.pod(one)
    assert after["runtime"]["uptime"] == 0
    assert after["ssh"]["direct"]["port"] != before["ssh"]["direct"]["port"]
    assert still.meter()["billing_now"] == 1
    still.delete(one)


def test_an_hour_must_be_in_the_balance_and_pods_end_when_it_is_gone(still: RunPodSim) -> None:
    still.faults({"balance": {"usd": 0.4}})
    assert still.create().status_code == 402
    still.faults({"balance": {"usd": 1}})
    one = still.created()
    still.advance(3600)
    assert still.pod(one)["status"] == "RUNNING"
    still.advance(3700)
    assert still.call("GET", f"/pods/{one}").status_code == 404
    assert still.meter()["allocations"][0]["ended_by"] == "balance"


def test_the_spend_limit_of_an_account_is_kept(still: RunPodSim) -> None:
    still.tell("/clock", {"prices": {"NVIDIA B200": "79"}})
    one = still.created(gpu={"id": "NVIDIA B200"})
    refused = still.create(gpu={"id": "NVIDIA H100 PCIe"})
    assert (refused.status_code, refused.json()["detail"]) == (402, "spend limit reached")
    still.delete(one)


def test_the_bill_of_a_pod_is_told_by_the_hour(still: RunPodSim) -> None:
    one = still.created()
    still.advance(2 * 3600)
    still.delete(one)
    bill = still.data("GET", "/billing/pods", params={"bucketSize": "hour", "podId": one, "lastN": 4})
    total = bill["metadata"]["totals"]
    assert total["totalAmount"] == pytest.approx(float(still.meter()["usd"]), abs=1e-5)
    assert total["gpuAmount"] + total["diskAmount"] == pytest.approx(total["totalAmount"])
    assert len(bill["records"]) == bill["metadata"]["recordCount"] in {2, 3}
    assert still.call("GET", "/billing/pods", params={"bucketSize": "second"}).status_code == 422
    assert still.data("GET", "/billing/pods", params={"podId": "nope"})["records"] == []


def test_somebody_creates_by_hand_past_capacity_and_faults(still: RunPodSim) -> None:
    still.faults({"capacity": {"times": None}})
    body = {"name": "by hand", "image": "ubuntu:24.04", "gpu": {"id": "NVIDIA L4"}}
    one = still.tell("/launch", body)["id"]
    assert still.pod(one)["name"] == "by hand"
    still.delete(one)
