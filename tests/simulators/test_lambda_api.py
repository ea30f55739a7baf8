"""Lambda's API as the official document has it: every reply that no fault spoilt, and every operation once at least."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import pytest
from openapi import SpecError, operations, validate_exchange

from simulators.lambda_cloud.api import ROUTES
from simulators.lambda_cloud.faults import OPERATIONS

if TYPE_CHECKING:
    from collections.abc import Callable

    from simulators_fixture import LambdaSim

LAUNCH = "/instance-operations/launch"

# What gpurun never asks: clusters, support, and changing what all machines of the account share.
LEFT_OUT = ("/audit-events", "/fabric", "/tickets", "/firewall-rulesets/{id}")
LEFT_OUT_WRITES = ("/filesystems", "/firewall")


def covered() -> set[tuple[str, str]]:
    """The operations that the simulator answers."""
    kept = set()
    for method, path in operations():
        part = path.removeprefix("/api/v1")
        write = method != "GET" and part.startswith(LEFT_OUT_WRITES)
        if not (write or part.startswith(LEFT_OUT)) or part == "/firewall-rulesets/global":
            kept.add((method, path))
    return kept - {("PATCH", "/api/v1/firewall-rulesets/global")}


def test_every_operation_and_every_refusal_is_as_documented(start_lambda: Callable[..., LambdaSim]) -> None:
    lambda_sim = start_lambda(linger_seconds=10**6)
    call = lambda_sim.call
    for path in (
        "/instance-types",
        "/regions",
        "/images",
        "/file-systems",
        "/filesystems",
        "/firewall-rules",
        "/firewall-rulesets",
        "/firewall-rulesets/global",
        "/instances",
    ):
        assert call("GET", path).status_code == 200
    whole = {
        "name": "n" * 64,
        "hostname": "box-1",
        "image": {"family": "lambda-stack-24-04"},
        "user_data": "#cloud-config",
    }
    one = lambda_sim.launched(**whole, tags=[{"key": "gpurun:run", "value": "x"}])
    two = lambda_sim.launched()
    assert call("GET", f"/instances/{one}").json()["data"]["tags"] == [{"key": "gpurun:run", "value": "x"}]
    assert call("POST", f"/instances/{two}", {"name": "other"}).json()["data"]["name"] == "other"
    assert call("POST", "/instance-operations/restart", {"instance_ids": [one]}).status_code == 200
    assert len(lambda_sim.data("GET", "/instances", params={"page_size": 1})) == 1
    assert lambda_sim.terminate(one, two).status_code == 200
    generated = lambda_sim.data("POST", "/ssh-keys", {"name": "made"})
    assert generated["private_key"].startswith("-----BEGIN OPENSSH PRIVATE KEY-----")
    assert call("DELETE", f"/ssh-keys/{generated['id']}").json() == {"data": {}}
    assert [key["name"] for key in lambda_sim.data("GET", "/ssh-keys")] == ["key"]
    # refusals
    assert call("GET", "/instances/nope").status_code == 404
    assert call("POST", "/instances/nope", {"name": "x"}).status_code == 404
    assert call("DELETE", "/ssh-keys/nope").status_code == 404
    assert call("POST", "/ssh-keys", {"name": "key", "public_key": "ssh-ed25519 AAAA"}).status_code == 400
    assert call("POST", "/instance-operations/restart", {"instance_ids": [one]}).status_code == 409
    assert lambda_sim.terminate(one, "nope").status_code == 404
    assert lambda_sim.launch(instance_type_name="gpu_9x_z").status_code == 404
    assert lambda_sim.launch(instance_type_name="gpu_1x_rtx6000").status_code == 400
    assert call("GET", "/regions", headers={"Authorization": "Bearer x"}).status_code == 401
    seen = {validate_exchange(record) for record in lambda_sim.asked()}
    assert covered() - seen == set()


def test_faults_can_be_meant_for_every_operation() -> None:
    assert {operation for _, _, operation in ROUTES} == set(OPERATIONS)


def test_the_validator_refuses_what_the_document_does_not_name(lambda_sim: LambdaSim) -> None:
    lambda_sim.launched(quantity=1)
    (launch,) = [record for record in lambda_sim.asked() if record["path"].endswith("launch")]
    with pytest.raises(SpecError, match="quantity"):
        validate_exchange(launch)
    launch["body"].pop("quantity")
    assert validate_exchange(launch) == ("POST", "/api/v1/instance-operations/launch")
    for spoilt, word in (
        ({"reply": {"data": {"instance_ids": [7]}}}, "7 is not of type"),
        ({"reply": {"data": {"instance_ids": []}, "extra": 1}}, "extra"),
        ({"status": 500}, "500 is not declared"),
        ({"query": {"fast": "1"}}, "fast is not known"),
        ({"path": "/api/v1/instance-operations/lunch"}, "not in the document"),
        ({"headers": {}}, "application/json"),
        ({"body": {**launch["body"], "ssh_key_names": "key"}}, "'key' is not of type 'array'"),
        ({"body": {**launch["body"], "name": "n" * 65}}, "too long"),
    ):
        with pytest.raises(SpecError, match=word):
            validate_exchange({**launch, **spoilt})
    assert validate_exchange({**launch, "status": 502, "reply": "<html>", "faults": ["reply_502"]})
    lambda_sim.terminate(*[row["id"] for row in lambda_sim.meter()["allocations"]])


@pytest.mark.parametrize(
    ("body", "word"),
    [
        ({"ssh_key_names": []}, "ssh_key_names"),
        ({"ssh_key_names": ["key", "key"]}, "ssh_key_names"),
        ({"ssh_key_names": "key"}, "ssh_key_names"),
        ({"name": "n" * 65}, "name"),
        ({"name": 7}, "name"),
        ({"hostname": "-x"}, "hostname"),
        ({"quantity": 2}, "quantity: Input should be less than or equal to 1"),
        ({"user_data": "x" * 1_000_001}, "user_data"),
        ({"tags": [{"key": "k", "value": "v"}]}, "tags"),
        ({"tags": [{"key": "lambda-ai-x", "value": "v"}]}, "tags"),
        ({"tags": [{"key": "x" * 56, "value": "v"}]}, "key"),
        ({"tags": [{"key": "xy", "value": "v" * 129}]}, "value"),
        ({"tags": {"xy": "v"}}, "tags"),
        ({"file_system_mounts": [{"mount_point": "/etc", "file_system_id": "x"}]}, "mount_point"),
        ({"image": "lambda-stack-24-04"}, "image"),
        ({"colour": "red"}, "colour"),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value)),
)
def test_a_launch_of_the_wrong_shape_is_refused_and_makes_nothing(lambda_sim: LambdaSim, body: dict, word: str) -> None:
    reply = lambda_sim.launch(**body)
    assert reply.status_code == 400
    assert reply.json()["error"]["code"] == "global/invalid-parameters"
    assert word in reply.json()["error"]["message"]
    assert lambda_sim.meter()["allocations"] == []


@pytest.mark.parametrize(
    "body",
    [
        {"instance_type_name": "gpu_1x_z"},
        {"region_name": "moon-1"},
        {"ssh_key_names": ["other"]},
        {"image": {"family": "windows"}},
        {"file_system_names": ["fs"]},
        {"firewall_rulesets": [{"id": "x"}]},
    ],
    ids=lambda body: next(iter(body)),
)
@pytest.mark.parametrize("status", [404, 400])
def test_a_launch_that_names_what_does_not_exist_is_refused(lambda_sim: LambdaSim, body: dict, status: int) -> None:
    if status == 400:
        lambda_sim.faults(["launch_400"])
    reply = lambda_sim.launch(**body)
    assert (reply.status_code, reply.json()["error"]["code"]) == (status, "global/object-does-not-exist")
    for record in lambda_sim.asked():
        validate_exchange({**record, "faults": []})


def test_an_image_of_another_architecture_does_not_exist(lambda_sim: LambdaSim) -> None:
    rows = lambda_sim.data("GET", "/images")
    arm = next(row["id"] for row in rows if row["architecture"] == "arm64" and row["region"]["name"] == "us-east-3")
    there = {"region_name": "us-east-3", "image": {"id": arm}}
    assert lambda_sim.launch(instance_type_name="gpu_1x_h100_sxm5", **there).status_code == 404
    assert lambda_sim.launch(instance_type_name="gpu_1x_gh200", **there).status_code == 200
    lambda_sim.terminate(*[row["id"] for row in lambda_sim.meter()["allocations"]])


def test_the_key_is_taken_as_bearer_and_as_basic_and_never_kept(lambda_sim: LambdaSim) -> None:
    basic = base64.b64encode(f"{lambda_sim.key}:".encode()).decode()
    for given in (f"Bearer {lambda_sim.key}", f"Basic {basic}", f"Basic {lambda_sim.key}"):
        assert lambda_sim.call("GET", "/regions", headers={"Authorization": given}).status_code == 200
    wrong = lambda_sim.call("GET", "/regions", headers={"Authorization": "Bearer secret_other"})
    none = lambda_sim.call("GET", "/regions", headers={"Authorization": ""})
    assert [reply.json()["error"]["message"] for reply in (wrong, none)] == [
        "API key was invalid, expired, or deleted.",
        "No API key was provided.",
    ]
    records = lambda_sim.asked()
    assert [record["authorization"] for record in records] == ["right", "right", "right", "wrong", "none"]
    assert lambda_sim.key not in repr(records)
    assert basic not in repr(records)
    assert lambda_sim.key not in repr(lambda_sim.state())


@pytest.mark.parametrize("agent", ["Python-urllib/3.11", ""])
def test_cloudflare_turns_nameless_clients_away_with_a_page(lambda_sim: LambdaSim, agent: str) -> None:
    reply = lambda_sim.call("GET", "/regions", headers={"User-Agent": agent})
    assert reply.status_code == 403
    assert "error code: 1010" in reply.text
    assert reply.headers["Content-Type"] == "text/html"


def test_what_is_no_json_or_no_operation_is_told_in_the_envelope(lambda_sim: LambdaSim) -> None:
    assert lambda_sim.call("GET", "/nothing").json()["error"]["code"] == "global/not-found"
    garbled = lambda_sim.call("POST", LAUNCH, data=b"{", headers={"Content-Type": "application/json"})
    assert garbled.json()["error"]["code"] == "global/invalid-parameters"
    assert lambda_sim.call("POST", LAUNCH, ["x"]).json()["error"]["code"] == "global/invalid-parameters"
    assert lambda_sim.call("POST", "/instance-operations/terminate", {}).status_code == 400


def test_pages_follow_each_other_and_show_every_instance_once(lambda_sim: LambdaSim) -> None:
    ids = [lambda_sim.launched() for _ in range(5)]
    seen, token = [], ""
    while token is not None:
        reply = lambda_sim.call(
            "GET", "/instances", params={"page_size": 2, **({"page_token": token} if token else {})}
        )
        seen += [row["id"] for row in reply.json()["data"]]
        token = reply.json()["page_token"]
    assert seen == ids
    assert "page_token" not in lambda_sim.call("GET", "/instances").json()
    assert lambda_sim.call("GET", "/instances", params={"page_token": "x", "page_size": 1}).status_code == 400
    assert lambda_sim.call("GET", "/instances", params={"page_size": 0}).status_code == 400
    assert lambda_sim.terminate(*ids).status_code == 200


def test_every_instance_carries_its_own_live_jupyter_secrets(lambda_sim: LambdaSim) -> None:
    ids = [lambda_sim.launched(), lambda_sim.launched()]
    rows = [*lambda_sim.data("GET", "/instances"), *lambda_sim.terminate(*ids).json()["data"]["terminated_instances"]]
    tokens = [row["jupyter_token"] for row in rows]
    assert tokens[:2] == tokens[2:]
    assert tokens[0] != tokens[1]
    assert all(row["jupyter_token"] in row["jupyter_url"] for row in rows)
    assert all(token not in repr(lambda_sim.state()) + repr(lambda_sim.meter()) for token in tokens)
