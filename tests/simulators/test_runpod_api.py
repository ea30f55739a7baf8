"""RunPod's API as the official document has it: every reply that no fault spoilt, and every operation once at least."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import requests
from openapi import RUNPOD, SpecError
from runpod_fixture import IMAGE, RTX_3090

from simulators.runpod.api import ROUTES
from simulators.runpod.faults import OPERATIONS

if TYPE_CHECKING:
    from collections.abc import Callable

    from runpod_fixture import RunPodSim

STOCK = {"include": "AVAILABILITY", "product": "POD"}
ELSEWHERE = {"graphql", "v1"}  # operations that the document does not describe
TERMINATE = 'mutation { podTerminate(input: {podId: "%s"}) }'


def first_lines(sim: RunPodSim, pod: str, count: int, **query: object) -> list[tuple[str, dict]]:
    """Read so many events of a log: (id, data)."""
    events = []
    headers = {"Authorization": f"Bearer {sim.key}", **query.pop("headers", {})}
    with requests.get(f"{sim.url}/pods/{pod}/logs", params=query, headers=headers, stream=True, timeout=30) as reply:
        assert reply.status_code == 200
        last = ""
        for line in reply.iter_lines(decode_unicode=True):
            name, _, rest = line.partition(": ")
            last = rest if name == "id" else last
            if name == "data":
                events.append((last, json.loads(rest)))
            if len(events) == count:
                return events
    return events


def test_every_operation_and_every_refusal_is_as_documented(runpod_sim: RunPodSim) -> None:
    call = runpod_sim.call
    runpod_sim.may_hurry = True
    for path, query in (
        ("/catalog/gpus", {}),
        ("/catalog/gpus", {**STOCK, "count": 2, "cloud": "COMMUNITY"}),
        (f"/catalog/gpus/{RTX_3090}", STOCK),
        ("/catalog/datacenters", {"include": "GPU_AVAILABILITY", "regions": "EUROPE"}),
        ("/catalog/datacenters/EU-RO-1", {}),
        ("/account/ssh-keys", {}),
        ("/pods", {}),
    ):
        assert call("GET", path, params=query).status_code == 200, path
    assert call("PUT", "/account/ssh-keys", {"keys": ["ssh-ed25519 AAAA me"]}).json()["keys"] == ["ssh-ed25519 AAAA me"]
    whole = {
        "cloud": "SECURE",
        "dataCenterIds": ["US-KS-2"],
        "mounts": {"persistent": {"size": 20, "path": "/workspace"}},
        "env": {"A": "1"},
        "cmd": ["bash", "-c", "sleep infinity"],
        "startSsh": True,
        "gpu": {"id": RTX_3090, "count": 2, "minCudaVersion": "12.6", "minRamPerGpu": 8, "minVcpuCountPerGpu": 2},
    }
    one, two = runpod_sim.created(**whole), runpod_sim.created()
    assert runpod_sim.pod(one)["env"] == {"A": "1", "PUBLIC_KEY": "ssh-ed25519 AAAA me"}
    assert call("PATCH", f"/pods/{two}", {"name": "other"}).json()["name"] == "other"
    assert len(runpod_sim.data("GET", "/pods", params={"limit": 1})["pods"]) == 1
    while runpod_sim.pod(one)["status"] != "RUNNING":
        pass
    for action in ("restart", "stop", "start"):
        assert call("POST", f"/pods/{one}/action", {"action": action}).status_code == 200
    assert first_lines(runpod_sim, two, 1)
    assert call("POST", f"/pods/{one}/action", {"action": "terminate"}).status_code == 204
    assert runpod_sim.delete(two).status_code == 204
    assert call("GET", "/billing/pods", params={"bucketSize": "hour", "podId": two}).status_code == 200
    assert call("GET", "/billing", params={"bucketSize": "hour"}).status_code == 200
    # refusals
    three = runpod_sim.created()
    assert call("POST", f"/pods/{three}/action", {"action": "start"}).status_code == 409
    runpod_sim.delete(three)
    for reply, status in (
        (call("GET", "/pods/nope"), 404),
        (runpod_sim.delete("nope"), 404),
        (call("GET", "/catalog/gpus/RTX"), 404),
        (call("GET", "/catalog/gpus", params={"include": "AVAILABILITY"}), 400),
        (runpod_sim.create(gpu={"id": "NVIDIA H100 NVL"}), 400),
        (runpod_sim.create(bogus=1), 422),
        (call("GET", "/pods", headers={"Authorization": ""}), 401),
    ):
        assert (reply.status_code, reply.headers["content-type"]) == (status, "application/problem+json")
        assert reply.json().keys() >= {"title", "status", "detail"}
    refused = {400, 422}
    seen = {
        RUNPOD.validate_reply(record) if record["status"] in refused else RUNPOD.validate_exchange(record)
        for record in runpod_sim.asked()
    }
    assert {(method, f"/v2{path}") for method, path, _ in ROUTES} - seen == set()


def test_faults_can_be_meant_for_every_operation() -> None:
    assert {operation for _, _, operation in ROUTES} | ELSEWHERE == set(OPERATIONS)


def test_the_validator_refuses_what_the_document_does_not_name(runpod_sim: RunPodSim) -> None:
    runpod_sim.delete(runpod_sim.created(env={"A": "1"}))
    create, delete = runpod_sim.asked()
    assert RUNPOD.validate_exchange(create) == ("POST", "/v2/pods")
    body, pod = create["body"], create["reply"]
    for spoilt, word in (
        ({"body": {**body, "ttl": 60}}, "ttl"),
        ({"body": {**body, "gpu": {"id": "x", "bid": 1}}}, "bid"),
        ({"body": {**body, "env": {"A": 1}}}, "1 is not of type"),
        ({"body": {key: value for key, value in body.items() if key != "name"}}, "name"),
        ({"query": {"fast": "1"}}, "fast is not known"),
        ({"path": "/v2/pots"}, "not in the document"),
        ({"headers": {}}, "application/json"),
        ({"status": 200}, "200 is not declared"),
        ({"content_type": "text/html"}, "text/html"),
        ({"reply": {**pod, "extra": 1}}, "extra"),
        ({"reply": {**pod, "gpu": {**pod["gpu"], "extra": 1}}}, "extra"),
        ({"reply": {**pod, "status": "MOVING"}}, "MOVING"),
        ({"reply": {key: value for key, value in pod.items() if key != "cost"}}, "cost"),
    ):
        with pytest.raises(SpecError, match=word):
            RUNPOD.validate_exchange({**create, **spoilt})
    assert RUNPOD.validate_exchange({**create, "status": 502, "reply": "<html>", "faults": ["reply_502"]})
    with pytest.raises(SpecError, match="has a body"):
        RUNPOD.validate_exchange({**delete, "reply": {"id": "x"}})


@pytest.mark.parametrize(
    ("body", "word"),
    [
        ({"name": ""}, "$.name"),
        ({"name": "n" * 192}, "$.name"),
        ({"name": 7}, "got number, want string"),
        ({"disk": 0}, "minimum: got 0, want 1"),
        ({"disk": "50"}, "$.disk"),
        ({"disk": True}, "$.disk"),
        ({"env": {"A": 1}}, "$.env.A"),
        ({"ports": "22/tcp"}, "$.ports"),
        ({"cloud": "ALL"}, "$.cloud"),
        ({"gpu": {"count": 1}}, "missing property 'id'"),
        ({"gpu": {"id": RTX_3090, "minCudaVersion": "12"}}, "pattern"),
        ({"mounts": {"persistent": {"size": 5, "path": "/w"}}}, "$.mounts.persistent.size"),
        ({"mounts": {"network": [{"volumeId": "x", "path": "/w"}] * 2}}, "maxItems"),
        ({"terminateAfter": "2026-01-01T00:00:00Z"}, "additional properties 'terminateAfter' not allowed"),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value)),
)
def test_a_create_of_the_wrong_shape_is_refused_and_makes_nothing(runpod_sim, body: dict, word: str) -> None:
    reply = runpod_sim.create(**body)
    assert (reply.status_code, reply.json()["detail"]) == (422, "Request validation failed.")
    assert word in "; ".join(reply.json()["errors"])
    assert runpod_sim.meter()["allocations"] == []


@pytest.mark.parametrize(
    ("body", "status", "word"),
    [
        ({"cpu": {"id": "cpu5c", "vcpuCount": 4}}, 400, "exactly one"),
        ({"gpu": {"id": RTX_3090, "minCudaVersion": "12.4", "allowedCudaVersions": ["12.4"]}}, 400, "exclusive"),
        ({"env": {f"A{n}": "" for n in range(51)}}, 400, "50 environment"),
        ({"ports": ["22"]}, 400, "port/protocol"),
        ({"args": "sleep 1", "cmd": ["sleep", "2"]}, 400, "conflicts"),
        ({"templateId": "x"}, 404, "template"),
        ({"image": "not an image"}, 422, "image"),
        ({"gpu": {"id": "NVIDIA  RTX A4500"}}, 400, "not found"),
        ({"gpu": {"id": RTX_3090, "count": 9}}, 400, "no longer any instances"),
        ({"gpu": {"id": RTX_3090, "minCudaVersion": "13.0"}}, 400, "no longer any instances"),
        ({"gpu": {"id": RTX_3090, "allowedCudaVersions": ["11.8"]}}, 400, "no longer any instances"),
        ({"dataCenterIds": ["US-CA-2"]}, 400, "no longer any instances"),
        ({"cloud": "COMMUNITY", "dataCenterIds": ["EU-CZ-1"]}, 400, "no longer any instances"),
    ],
    ids=lambda value: str(value) if isinstance(value, (int, str)) else next(iter(value)),
)
def test_a_create_that_breaks_a_rule_is_refused_in_prose(runpod_sim, body: dict, status: int, word: str) -> None:
    reply = runpod_sim.create(**body)
    assert (reply.status_code, word in reply.json()["detail"]) == (status, True), reply.text
    assert runpod_sim.meter()["allocations"] == []


def test_an_image_is_asked_for_unless_there_is_a_template(runpod_sim: RunPodSim) -> None:
    reply = runpod_sim.call("POST", "/pods", {"name": "x", "gpu": {"id": RTX_3090}})
    assert (reply.status_code, reply.json()["errors"]) == (422, ["$: missing property 'image'"])


def test_size_comes_before_the_key_and_the_key_before_all_else(runpod_sim: RunPodSim) -> None:
    nobody = {"Authorization": "Bearer rpa_wrong"}
    large = {"name": "x" * 110_000}
    assert runpod_sim.call("POST", "/pods", large, headers=nobody).status_code == 413
    assert runpod_sim.call("POST", "/nothing", {}, headers=nobody).status_code == 401
    reply = runpod_sim.call("GET", "/nothing")
    assert (reply.status_code, reply.json()["detail"]) == (404, "resource not found")
    reply = runpod_sim.call("PUT", "/pods", {})
    assert (reply.status_code, reply.headers["allow"]) == (405, "GET, POST")
    reply = runpod_sim.call("GET", "/pods", headers={"Authorization": f"Basic {runpod_sim.key}"})
    assert (reply.status_code, reply.json()["detail"]) == (401, "missing bearer token")
    assert "ratelimit" not in reply.headers
    assert [record["authorization"] for record in runpod_sim.asked()] == ["wrong", "wrong", "right", "right", "none"]


def test_rest_v1_is_gone(runpod_sim: RunPodSim) -> None:
    root = runpod_sim.url.removesuffix("/v2")
    for method, path in (("GET", "/v1/pods"), ("POST", "/v1/pods"), ("DELETE", "/v1/pods/x")):
        reply = requests.request(method, root + path, headers={"Authorization": f"Bearer {runpod_sim.key}"}, timeout=30)
        assert (reply.status_code, reply.json()["status"]) == (410, 410)


def test_every_answer_tells_what_is_left_of_the_quota_and_too_many_are_refused(start_runpod: Callable) -> None:
    sim = start_runpod(rate=0.01)
    sim.may_hurry = True
    reply = sim.call("GET", "/account/ssh-keys")
    assert reply.headers["ratelimit"].startswith('"minute";r=59;t=60, "hour";r=2999;t=3600')
    assert reply.headers["ratelimit-policy"] == '"minute";q=60;w=60, "hour";q=3000;w=3600, "day";q=50000;w=86400'
    assert reply.headers["x-request-id"]
    statuses = [sim.call("GET", "/account/ssh-keys").status_code for _ in range(60)]
    assert statuses == [200] * 59 + [429]
    reply = sim.call("GET", "/account/ssh-keys")
    assert reply.json()["detail"] == "rate limit exceeded for the minute window"
    assert 55 <= int(reply.headers["retry-after"]) <= 60
    sim.advance(60)
    assert sim.call("GET", "/account/ssh-keys").status_code == 200
    assert {RUNPOD.validate_exchange(record) for record in sim.asked()} == {("GET", "/v2/account/ssh-keys")}


def test_the_list_goes_on_by_pages_newest_first(runpod_sim: RunPodSim) -> None:
    ids = [runpod_sim.created() for _ in range(3)]
    assert [pod["id"] for pod in runpod_sim.data("GET", "/pods")["pods"]] == ids[::-1]
    first = runpod_sim.data("GET", "/pods", params={"limit": 2})
    assert (len(first["pods"]), first["pagination"]["hasNextPage"]) == (2, True)
    rest = runpod_sim.data("GET", "/pods", params={"limit": 2, "cursor": first["pagination"]["nextCursor"]})
    assert [pod["id"] for pod in rest["pods"]] == ids[:1]
    assert rest["pagination"] == {"nextCursor": None, "hasNextPage": False}
    assert runpod_sim.call("GET", "/pods", params={"cursor": "another's"}).status_code == 422
    assert runpod_sim.call("GET", "/pods", params={"limit": 0}).status_code == 422
    assert runpod_sim.call("GET", "/pods", params={"status": "RUNNING"}).status_code == 200  # unknown: ignored
    for each in ids:
        runpod_sim.delete(each)


def test_the_catalogue_tells_both_clouds_and_where_there_is_stock(runpod_sim: RunPodSim) -> None:
    def kinds(**query: object) -> dict[str, dict]:
        return {kind["id"]: kind for kind in runpod_sim.data("GET", "/catalog/gpus", params=query)["gpus"]}

    assert "availability" not in kinds()[RTX_3090]
    told = kinds(**STOCK)
    assert told[RTX_3090]["price"] == {"secure": 0.5, "community": 0.22}
    assert [place["id"] for place in told[RTX_3090]["dataCenters"]] == ["EU-CZ-1", "US-KS-2"]
    assert (told["NVIDIA L40"]["availability"], "dataCenters" in told["NVIDIA L40"]) == ("NONE", False)
    assert (told["NVIDIA A40"]["community"], told["NVIDIA A40"]["price"]["community"]) == (False, 0.0)
    assert "cudaVersions" not in told["AMD Instinct MI300X OAM"]
    assert kinds(**STOCK, cloud="COMMUNITY")["NVIDIA A40"]["availability"] == "NONE"
    assert kinds(**STOCK, count=9)[RTX_3090]["availability"] == "NONE"
    assert "NVIDIA B200" not in kinds(**STOCK, countryCodes="RO")
    runpod_sim.tell("/clock", {"prices": {RTX_3090: "0.61"}, "capacity": {RTX_3090: ["COMMUNITY"]}})
    now = kinds(**STOCK)[RTX_3090]
    assert (now["price"]["secure"], now["availability"]) == (0.61, "NONE")
    assert runpod_sim.create().status_code == 400
    one = runpod_sim.created(cloud="COMMUNITY")
    assert (runpod_sim.pod(one)["dataCenterId"], runpod_sim.pod(one)["cost"]) == (None, 0.61)
    runpod_sim.delete(one)


def test_the_log_has_ids_from_which_a_reader_goes_on(runpod_sim: RunPodSim) -> None:
    one = runpod_sim.created()
    while runpod_sim.pod(one)["status"] != "RUNNING":
        pass
    events = first_lines(runpod_sim, one, 3)
    assert [data["source"] for _, data in events] == ["system"] * 3
    assert [event.rpartition("/")[2] for event, _ in events] == ["000000000001", "000000000002", "000000000003"]
    assert events[0][0].startswith(events[0][1]["ts"])
    assert first_lines(runpod_sim, one, 1, headers={"Last-Event-ID": events[1][0]}) == events[2:]
    assert first_lines(runpod_sim, one, 1, tail=1) == events[2:]
    assert first_lines(runpod_sim, one, 3, since="2026-01-01T00:00:00Z") == events
    for query in ({"tail": 6000}, {"source": "kernel"}, {"since": "yesterday"}):
        assert runpod_sim.call("GET", f"/pods/{one}/logs", params=query).status_code == 422
    runpod_sim.delete(one)
    assert runpod_sim.call("GET", f"/pods/{one}/logs").status_code == 404


# ── GraphQL ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_graphql_tells_the_balance_the_spend_and_the_limit(runpod_sim: RunPodSim) -> None:
    one = runpod_sim.created()
    reply = runpod_sim.graphql("query { myself { clientBalance currentSpendPerHr limit: spendLimit pods { id } } }")
    me = reply.json()["data"]["myself"]
    assert (me["limit"], me["pods"]) == (80.0, [{"id": one}])
    assert me["currentSpendPerHr"] == pytest.approx(0.5 + 50 * 0.1 / 730, abs=1e-5)
    assert 99.9 < me["clientBalance"] < 100
    runpod_sim.delete(one)


def test_graphql_deploys_and_terminates_and_its_timers_do_nothing(start_runpod: Callable) -> None:
    sim = start_runpod(rate=0.01)
    query = (
        "mutation($input: PodFindAndDeployOnDemandInput!) { podFindAndDeployOnDemand(input: $input) { id costPerHr } }"
    )
    wish = {
        "cloudType": "COMMUNITY",
        "gpuTypeId": RTX_3090,
        "gpuCount": 1,
        "name": "p",
        "imageName": IMAGE,
        "ports": "22/tcp",
        "env": [{"key": "A", "value": "1"}],
        "supportPublicIp": True,
        "terminateAfter": "2026-01-01T00:00:00Z",
    }
    made = sim.graphql(query, input=wish).json()["data"]["podFindAndDeployOnDemand"]
    assert made["costPerHr"] == 0.22
    sim.advance(86400)
    asked = 'query { pod(input: {podId: "%s"}) { desiredStatus env ports runtime { uptimeInSeconds } } }'
    told = sim.graphql(asked % made["id"]).json()["data"]["pod"]
    assert (told["desiredStatus"], told["env"], told["ports"]) == ("RUNNING", ["A=1"], "22/tcp")
    assert sim.graphql(TERMINATE % made["id"]).json() == {"data": {"podTerminate": None}}
    assert sim.graphql(asked % made["id"]).json() == {"data": {"pod": None}}
    assert sim.meter()["allocations"][0]["ended_by"] == "podTerminate"
    # What the schema does not know is 400, what the application refuses 200 with errors.
    assert sim.graphql(query, input={**wish, "bid": 1}).status_code == 400
    assert sim.graphql("query { myself { shoeSize } }").status_code == 400
    assert sim.graphql("query { myself").status_code == 400
    refused = sim.graphql(query, input={**wish, "gpuTypeId": "NVIDIA B200"})
    assert (refused.status_code, refused.json()["data"]) == (200, None)
    assert "no longer any instances" in refused.json()["errors"][0]["message"]


def test_graphql_shows_gpu_types_to_anybody_and_the_account_to_nobody_else(runpod_sim: RunPodSim) -> None:
    url = runpod_sim.exports["GPURUN_RUNPOD_GRAPHQL_URL"]
    asked = "id securePrice lowestPrice(input: {gpuCount: 1}) { stockStatus }"
    query = f"query G($i: GpuTypeFilter) {{ gpuTypes(input: $i) {{ {asked} }} }}"
    reply = requests.post(url, json={"query": query, "variables": {"i": {"id": RTX_3090}}}, timeout=30)
    (kind,) = reply.json()["data"]["gpuTypes"]
    assert kind == {"id": RTX_3090, "securePrice": 0.5, "lowestPrice": {"stockStatus": "High"}}
    assert requests.post(url, json={"query": "query { myself { id } }"}, timeout=30).status_code == 401
    assert runpod_sim.graphql("query { myself { id } }", key="rpa_wrong").status_code == 401
