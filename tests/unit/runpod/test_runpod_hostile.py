"""Answers that RunPod never should give, and what is made of them: no absence, no secret, no crash."""

from __future__ import annotations

import json

import pytest
from scripted import Answer

from providers.base import Phase
from providers.errors import GpurunError, ProviderError, UnreachableError
from providers.runpod import reading

POD = {
    "id": "abc123",
    "name": "somebody's",
    "status": "RUNNING",
    "cost": 0.5,
    "env": {},
    "createdAt": "2026-11-22T10:00:00Z",
}


def answers(*bodies: object) -> list[Answer]:
    return [Answer(200, json.dumps(body).encode()) for body in bodies]


@pytest.mark.parametrize(
    "row",
    [
        {**POD, "runtime": {}},
        {**POD, "runtime": None, "ssh": {"proxy": None, "direct": None}},
        {**POD, "ssh": None, "mounts": None, "env": None, "gpu": "?"},
        {**POD, "ssh": {"direct": {"host": "a b", "port": 22, "username": "root"}}},
        {**POD, "ssh": {"direct": {"host": "1.2.3.4", "port": 0, "username": "root"}}},
        {**POD, "ssh": {"direct": {"host": "1.2.3.4", "port": "22", "username": "root"}}},
        {**POD, "ssh": {"direct": {"host": "1.2.3.4", "port": 22, "username": "-oProxyCommand=x"}}},
        {**POD, "ssh": {"direct": {"host": "-oProxyCommand", "port": 22, "username": "root"}}},
    ],
)
def test_without_a_usable_address_a_pod_is_on_its_way_and_bills(row):
    pod = reading.pod(row)
    assert (pod.address, pod.billing) == (None, True)


@pytest.mark.parametrize("status", ["EXITED", "STARTING", "ERROR"])
def test_a_port_that_is_told_of_a_pod_that_does_not_run_is_stale(status):
    direct = {"host": "1.2.3.4", "port": 22, "username": "root"}
    assert reading.pod({**POD, "status": status, "ssh": {"direct": direct}}).address is None
    assert reading.pod({**POD, "ssh": {"direct": direct}}).address == reading.Address("1.2.3.4", 22, "root")


@pytest.mark.parametrize("row", [None, [], {}, {"id": 3}, {"id": "../x"}, {"id": "a b"}, {"id": "x" * 65}])
def test_a_pod_without_a_usable_id_is_an_error_since_it_may_bill(client, server, row):
    server.script = answers({"pods": [POD, row]})
    with pytest.raises(ProviderError, match="without an id"):
        client.allocations()


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"pods": None},
        {"pods": {}},
        {"pods": [], "pagination": {"hasNextPage": True}},
        {"pods": [], "pagination": {"hasNextPage": True, "nextCursor": 3}},
        {"pods": [], "pagination": {"hasNextPage": True, "nextCursor": "again"}},
    ],
)
def test_a_list_that_can_t_be_followed_to_its_end_is_an_error(client, server, body):
    server.script = answers(body)
    with pytest.raises(ProviderError):
        client.allocations()


@pytest.mark.parametrize(
    "answer",
    [
        Answer(404, b"<html>not here</html>", {"Content-Type": "text/html"}),
        Answer(404, b'{"message": "no such route"}'),
        Answer(410, b'{"title": "Gone", "status": 410, "detail": "this API was retired"}'),
        Answer(200, b'{"id": "another"}'),
        Answer(200, b"[]"),
        Answer(403, b'{"title": "Forbidden", "status": 403, "detail": "access denied"}'),
        Answer(301, b"", {"Location": "https://elsewhere.example/"}),
    ],
)
def test_what_is_not_the_vendor_s_own_not_found_is_no_absence(client, server, answer):
    server.script = [answer, *answers({"pods": []})]
    with pytest.raises(GpurunError):
        client.inspect("abc123")


def test_the_vendor_s_own_not_found_is_an_absence_where_its_list_lacks_it_too(client, server):
    gone = Answer(404, b'{"title": "Not Found", "status": 404, "detail": "resource not found"}')
    server.script = [gone, *answers({"pods": [POD]})]
    with pytest.raises(UnreachableError, match="yet it is listed"):
        client.inspect("abc123")
    server.script = [gone, *answers({"pods": [{**POD, "id": "other"}]})]
    look = client.inspect("abc123")
    assert (look.phase, look.billing, look.ended) == (Phase.ABSENT, False, False)


def test_terminated_is_the_vendor_s_own_word_of_an_end(client, server):
    server.script = answers({**POD, "status": "TERMINATED", "cost": 0.0})
    look = client.inspect("abc123")
    assert (look.phase, look.ended, look.billing) == (Phase.ABSENT, True, False)


@pytest.mark.parametrize(
    ("cost", "price"),
    [
        (0.5, "0.508219"),
        (0.50822, "0.508220"),
        (0.51, "0.510000"),
        (0.515, "0.515000"),
        (0.4, "0.408219"),
        (0.75, "0.758219"),
    ],
)
def test_a_cost_is_with_its_disk_where_it_is_as_much_above_what_was_agreed(cost, price):
    env = {reading.PRICE_VARIABLE: "0.50000"}
    assert str(reading.pod({**POD, "env": env, "disk": 60, "cost": cost}).price) == price


@pytest.mark.parametrize("cost", [None, "0.5", -1, 1e300, True])
def test_a_cost_that_is_no_amount_is_not_told(cost):
    assert reading.pod({**POD, "cost": cost}).price is None


@pytest.mark.parametrize(
    "row",
    [
        None,
        {"id": "x"},
        {"id": "a@b", "price": {"secure": 1}, "secure": True, "maxCount": {"secure": 8}},
        {"id": "NVIDIA X", "price": {"secure": -1}, "secure": True, "maxCount": {"secure": 8}},
        {"id": "NVIDIA X", "price": {"secure": 1}, "secure": False, "maxCount": {"secure": 8}},
        {"id": "NVIDIA X", "price": {"secure": 1}, "secure": True, "maxCount": {"secure": 0}},
        {"id": "NVIDIA X", "price": {"secure": 1}, "secure": True, "maxCount": None},
    ],
)
def test_what_can_t_be_planned_with_is_not_offered(client, server, row):
    server.script = answers({"gpus": [row]})
    assert client.offers() == []


def test_a_data_center_that_is_listed_beside_a_stranger_s_machine_is_passed_over(client, server):
    row = {"id": "NVIDIA L4", "memory": 24, "price": {"secure": 1, "community": 1}, "secure": True, "community": True}
    place = {"id": "EU-RO-1", "name": "Romania", "availability": "HIGH"}
    more = {"maxCount": {"secure": 1, "community": 1}, "availability": "HIGH", "dataCenters": [place]}
    server.script = answers({"gpus": [{**row, **more}]})
    assert [one.name for one in client.offers()] == ["NVIDIA L4", "NVIDIA L4@EU-RO-1", "NVIDIA L4@community"]


def test_a_card_in_no_table_is_offered_under_its_own_name(client, server):
    row = {"id": "NVIDIA New_1", "name": "New  1 (X)", "memory": 32, "price": {"secure": 1}, "secure": True}
    server.script = answers({"gpus": [{**row, "maxCount": {"secure": 1}, "availability": "WHATEVER"}]})
    (offer,) = client.offers()
    assert (offer.gpu, offer.vram_gib, offer.available) == ("new-1-x", 32.0, False)


@pytest.mark.parametrize("name", ["account", "offers", "allocations", "funds"])
def test_no_error_and_no_repr_holds_the_key(client, server, name):
    key = "rpa_secret_unit_00000000"
    quoted = json.dumps({"title": "x", "status": 401, "detail": f"bad key {key}"}).encode()
    server.script = [Answer(401, quoted)]
    try:
        said = repr(getattr(client, name)())
    except GpurunError as error:
        said = f"{error!r} {error} {error.hint}"
    assert key not in said + repr(client.__dict__)
