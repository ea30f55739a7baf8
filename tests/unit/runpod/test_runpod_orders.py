"""What is sent to rent a pod, and what each answer to it proves."""

from __future__ import annotations

import base64
import json
import re
import zlib
from dataclasses import replace

import pytest
from boxes import PAYLOAD, until
from fakes import OFFER
from runpods import RTX_3090, offer_of, runpod_job
from scripted import Answer

from providers.base import Phase
from providers.errors import CredentialsError, GpurunError, NoCapacityError, QuotaError, UnclearError, UsageError
from providers.runpod import command

CAPACITY = (
    "There are no longer any instances available with the requested specifications. Please refresh and try again."
)
ROW = {
    "id": RTX_3090, "name": "RTX 3090", "manufacturer": "NVIDIA", "memory": 24, "secure": True, "community": False,
    "price": {"secure": 0.5, "community": 0.0}, "maxCount": {"secure": 1, "community": 0}, "availability": "HIGH",
}  # fmt: skip


DEPLOY = "podFindAndDeployOnDemand"
STRANGERS = replace(OFFER, name=f"{RTX_3090}@community", cloud="community", disk_gib=60.0)


def problem(status: int, detail: str, *errors: str) -> Answer:
    body = {"title": "x", "status": status, "detail": detail, **({"errors": list(errors)} if errors else {})}
    return Answer(status, json.dumps(body).encode(), {"Content-Type": "application/problem+json"})


@pytest.fixture
def offer(client, server):
    server.script = [Answer(200, json.dumps({"gpus": [ROW]}).encode())]
    return offer_of(client)


def request_of(body: dict) -> tuple[str, dict]:
    """The script that the pod runs, and what is packed in it."""
    args = json.loads(body["args"])
    assert (list(args), args["entrypoint"]) == (["entrypoint", "cmd"], ["/bin/bash", "-c"])
    (script,) = args["cmd"]
    return script, json.loads(zlib.decompress(base64.b64decode(re.search(r'" ([\w+/=]{1000,});', script)[1])))


def test_one_create_says_what_it_wants_and_nothing_secret(sim, provider, tmp_path):
    job = runpod_job(tmp_path / "home")
    provider.terminate([provider.launch(job, offer_of(provider, f"{RTX_3090}@EU-CZ-1"))])
    (record,) = [one for one in sim.asked() if one["method"] == "POST"]
    body = record["body"]
    assert {key: body[key] for key in body if key not in {"args", "env", "image"}} == {
        "name": str(job.mark),
        "gpu": {"id": RTX_3090, "count": 1, "minCudaVersion": "12.8"},
        "cloud": "SECURE",
        "disk": 60,
        "ports": ["22/tcp"],
        "dataCenterIds": ["EU-CZ-1"],
    }
    public = job.client_key.with_name("client_ed25519.pub").read_text().split()[1]
    assert body["env"]["PUBLIC_KEY"] == f"ssh-ed25519 {public} {job.mark}"
    assert set(body["env"]) == {"PUBLIC_KEY", "GPURUN_ALLOCATION", "GPURUN_GPU_PRICE"}
    assert len(json.dumps(body)) < 102_400
    _, packed = request_of(body)
    whole = json.dumps(body) + json.dumps(packed)
    private = re.findall(r"[\w+/=]{60,}", job.client_key.read_text())[1:]
    assert private
    assert [word for word in (sim.key, "PRIVATE KEY", *private) if word in whole] == []


def test_the_pod_s_command_watches_first_and_never_ends(sim, provider, tmp_path):
    job = runpod_job(tmp_path / "home")
    provider.terminate([provider.launch(job, offer_of(provider))])
    (record,) = [one for one in sim.asked() if one["method"] == "POST"]
    script, packed = request_of(record["body"])
    lines = script.splitlines()
    assert [line.split()[0] for line in lines] == ["guard()", "guard", "if", "while"]
    assert "/start.sh" in lines[2]
    assert lines[3] == "while sleep 60; do guard; done"
    assert packed["arm"] == {
        "mark": str(job.mark),
        "deadline": job.deadline.timestamp(),
        "ceiling": job.ceiling.timestamp(),
        "max_seconds": job.max_seconds,
        "end": ["processes"],
        "rearm": "the container's command",
    }
    assert packed["files"]["ender.py"] == (PAYLOAD / "ender.py").read_text()
    headers = {one["headers"]["Authorization"] for one in packed["ender"]["routes"] if "headers" in one}
    assert headers == {"Bearer {env:RUNPOD_API_KEY}"}
    ways = [
        f"{one['method']} {one['body']}" if "method" in one else one["argv"][0] for one in packed["ender"]["routes"]
    ]
    assert [re.findall(r"DELETE|podTerminate|podStop|terminate|stop|runpodctl", way)[0] for way in ways] == [
        "DELETE",
        "terminate",
        "podTerminate",
        "stop",
        "podStop",
        "runpodctl",
        "runpodctl",
    ]


def test_what_a_watchdog_imports_is_sent_with_it():
    sent = command.needed()
    imported = {name for text in sent.values() for name in re.findall(r"^\s*(?:import|from) (\w+)", text, re.MULTILINE)}
    ours = {path.stem for path in PAYLOAD.glob("*.py")}
    assert {f"{name}.py" for name in imported & ours} <= set(sent)
    assert {"watchdog.py", "ender.py", "lever.py"} <= set(sent)


def test_a_stranger_s_machine_is_asked_for_an_address_and_never_pinned_to_a_data_center(sim, provider, tmp_path):
    sim.faults({"no_public_ip": {"times": None}})
    job = runpod_job(tmp_path / "home")
    made = provider.launch(job, offer_of(provider, f"{RTX_3090}@community"))
    (record,) = [one for one in sim.asked() if one["method"] == "POST"]
    wish = record["body"]["variables"]["input"]
    assert (wish["cloudType"], wish["supportPublicIp"], wish["name"]) == ("COMMUNITY", True, str(job.mark))
    assert "dataCenterId" not in wish
    until(lambda: provider.inspect(made).phase is Phase.READY, "its address")
    provider.terminate([made])


def test_without_graphql_a_stranger_s_machine_is_rented_as_any_other(sim, provider, tmp_path):
    sim.faults({"graphql_retired": {"times": None}})
    provider.terminate([provider.launch(runpod_job(tmp_path / "home"), offer_of(provider, f"{RTX_3090}@community"))])
    _, record = [one for one in sim.asked() if one["method"] == "POST"]
    assert (record["body"]["cloud"], "dataCenterIds" in record["body"]) == ("COMMUNITY", False)


def graphql(status: int, message: str = "", **made: object) -> Answer:
    errors = {"errors": [{"message": message}], "data": None} if message else {"data": {DEPLOY: made}}
    return Answer(status, json.dumps(errors).encode())


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        (graphql(200, CAPACITY), NoCapacityError, "no longer any instances"),
        (graphql(200, "Your balance is too low"), QuotaError, "balance"),
        (graphql(200, "Something went wrong. Please try again later"), UnclearError, "may have rented"),
        (graphql(200, id="x", name="another"), UnclearError, "may have rented"),
        (graphql(200), UnclearError, "may have rented"),
        (Answer(500, b"{}"), UnclearError, "500"),
        (Answer(429, b"{}"), UnclearError, "429"),
        (Answer(200, b"not json"), UnclearError, "may have rented"),
        (Answer(hang_up=True), UnclearError, "may have rented"),
    ],
)
def test_each_answer_to_an_order_by_graphql_proves_what_it_proves(client, server, tmp_path, answer, error, words):
    server.script = [answer]
    with pytest.raises(error, match=words):
        client.launch(runpod_job(tmp_path / "home"), STRANGERS)
    assert len(server.asked) == 1  # sent once, whatever came


@pytest.mark.parametrize("answer", [graphql(400, "Unknown field"), graphql(200, "Unauthorized"), Answer(410, b"")])
def test_an_order_that_graphql_does_not_take_goes_by_v2(client, server, tmp_path, answer):
    server.script = [answer, problem(400, CAPACITY)]
    with pytest.raises(NoCapacityError):
        client.launch(runpod_job(tmp_path / "home"), STRANGERS)
    assert [one.path for one in server.asked] == ["/graphql", "/v2/pods"]


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        (problem(400, CAPACITY), NoCapacityError, "no longer any instances"),
        (problem(400, "request could not be processed"), UsageError, "could not be processed"),
        (problem(401, "missing bearer token"), CredentialsError, "401"),
        (problem(402, "insufficient balance"), QuotaError, "insufficient balance"),
        (problem(403, "access denied"), NoCapacityError, "access denied"),
        (problem(409, "not now"), UsageError, "not now"),
        (problem(413, "too large"), UsageError, "too large"),
        (
            problem(422, "Request validation failed.", "$: additional properties 'gpu'", "$: missing property 'image'"),
            UsageError,
            "failed.; $: missing property 'image'; $: additional",
        ),
        # a pod may have been made: told by nobody, or by something that is not RunPod
        (problem(429, "rate limit exceeded"), UnclearError, "429"),
        (problem(500, "internal server error"), UnclearError, "500"),
        (Answer(502, b"<html>", {"Content-Type": "text/html"}), UnclearError, "502"),
        (Answer(403, b"<html>", {"Content-Type": "text/html"}), UnclearError, "403"),
        (Answer(400, b'{"detail": "no longer any instances"}'), UnclearError, "400"),
        (Answer(201, b"not json"), UnclearError, "no JSON"),
        (Answer(201, b'{"id": ""}'), UnclearError, "without an id"),
        (Answer(201, b'{"id": "x", "name": "another"}'), UnclearError, "another pod"),
        (Answer(hang_up=True), UnclearError, "may have rented"),
        (Answer(301, b"", {"Location": "https://elsewhere.example"}), UnclearError, "redirect"),
    ],
    ids=lambda value: str(getattr(value, "status", "")) if isinstance(value, Answer) else None,
)
def test_each_answer_to_a_create_proves_what_it_proves(client, server, offer, tmp_path, answer, error, words):
    server.script = [answer]
    before = len(server.asked)
    with pytest.raises(GpurunError) as raised:
        client.launch(runpod_job(tmp_path / "home"), offer)
    assert (type(raised.value), words in str(raised.value)) == (error, True)
    assert len(server.asked) - before == 1  # sent once, whatever came


@pytest.mark.parametrize("name", ["", "RTX@@", "NVIDIA GeForce RTX 3090@eu/../x"])
def test_an_offer_that_is_not_ours_is_refused_before_anything_is_sent(client, server, offer, tmp_path, name):
    before = len(server.asked)
    with pytest.raises(UsageError, match="no offer of RunPod's"):
        client.launch(runpod_job(tmp_path / "home"), replace(offer, name=name))
    assert len(server.asked) == before
