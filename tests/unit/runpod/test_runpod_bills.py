"""What RunPod charged: its record read whole, or not at all."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from urllib.parse import parse_qs, urlsplit

import pytest
from runpods import hold_to_the_document, open_runpod
from scripted import Answer

from providers.errors import CredentialsError, ProviderError
from providers.optional import Bills

HOUR = timedelta(hours=1)
LINE = {"startTime": "2026-11-22T13:00:00Z", "endTime": "2026-11-22T14:00:00Z", "podId": "a1", "totalAmount": 0.5}
EMPTY = {"records": [], "metadata": {}}


def answer(status: int, body: object) -> Answer:
    return Answer(status, json.dumps(body).encode())


def records(*rows: object) -> Answer:
    return answer(200, {"records": list(rows), "metadata": {}})


def test_two_pods_and_a_volume_are_on_the_bill_as_the_meter_has_them(runpod_sim, tmp_path):
    provider = open_runpod(runpod_sim, tmp_path)
    assert isinstance(provider, Bills)
    since = datetime.fromisoformat(runpod_sim.state()["now"])
    ids = [runpod_sim.created() for _ in range(2)]
    runpod_sim.advance(3 * 3600)
    for one in ids:
        runpod_sim.delete(one)
    runpod_sim.faults({"volume_charged": {"usd": 1.5}})
    provider.allocations()  # an answer, so that the vendor's time is known
    told = provider.billed(since)
    meter = {one["id"]: Decimal(one["usd"]) for one in runpod_sim.meter()["allocations"]}
    for one in ids:
        mine = [bill for bill in told if bill.allocation_id == one]
        assert len(mine) >= 3  # an hour each
        assert all(bill.until - bill.since == HOUR for bill in mine)
        assert abs(sum(bill.usd for bill in mine) - meter[one]) < Decimal("0.0001")
    rest = sum(bill.usd for bill in told if not bill.allocation_id)
    assert abs(rest - Decimal("1.5")) < Decimal("0.0001")
    assert hold_to_the_document(runpod_sim) >= {("GET", "/v2/billing/pods"), ("GET", "/v2/billing")}


def test_of_a_long_time_days_are_asked_for(client, server):
    server.script = [answer(200, EMPTY)]
    for days in (1, 60):
        assert client.billed(datetime.now(UTC) - timedelta(days=days)) == []
    asked = [parse_qs(urlsplit(one.path).query)["bucketSize"] for one in server.asked]
    assert asked == [["hour"], ["hour"], ["day"], ["day"]]


@pytest.mark.parametrize(
    "said",
    [
        answer(200, {"metadata": {}}),
        records("no row"),
        records({**LINE, "totalAmount": None}),
        records({**LINE, "totalAmount": "0.5"}),
        records({**LINE, "podId": 7}),
        records({**LINE, "startTime": "yesterday"}),
        answer(200, []),
    ],
    ids=["no records", "no row", "no amount", "an amount in words", "no pod", "no time", "no object"],
)
def test_a_record_that_can_not_be_read_is_an_error_and_no_smaller_bill(client, server, said):
    server.script = [said, answer(200, EMPTY)]
    with pytest.raises(ProviderError):
        client.billed(datetime.now(UTC) - HOUR)


def test_a_key_that_may_not_see_the_bill_is_said_to_be_one(client, server):
    server.script = [answer(403, {"title": "Forbidden", "status": 403, "detail": "no access to billing"})]
    with pytest.raises(CredentialsError, match="no access to billing"):
        client.billed(datetime.now(UTC) - HOUR)
