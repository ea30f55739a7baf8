"""Orders to a vendor at its worst: only a plain no rents nothing, and nothing that was sent is quoted."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from lambdas import lambda_job
from scripted import Answer

from providers.base import Offer
from providers.errors import (
    ProviderError,
    UnclearError,
    UsageError,
)

ID = "0920582c7ff041399e34823a0be62549"
OFFER = Offer("lambda", "gpu_1x_a10@us-west-1", "a10", 1, Decimal("1.29"), region="us-west-1")


@pytest.fixture
def job(client):
    return lambda_job(client._home)


def launch(server, client, job, answer: Answer):
    public = job.client_key.with_name("client_ed25519.pub").read_text()
    images = Answer.data([])
    key = Answer.data({"id": "k1", "name": str(job.mark), "public_key": public})
    server.script = [images, key, answer, Answer.data({})]
    return client.launch(job, OFFER)


@pytest.mark.parametrize(
    "answer",
    [
        Answer(200, b""),
        Answer(200, b"<html>"),
        Answer(204, b""),
        Answer(202, b"{}"),
        Answer.data(None),
        Answer.data({}),
        Answer.data({"instance_ids": []}),
        Answer.data({"instance_ids": None}),
        Answer.data({"instance_ids": ID}),
        Answer.data({"instance_ids": [None]}),
        Answer.data({"instance_ids": ["../x"]}),
        Answer.data({"instance_ids": [ID, "f" * 32]}),
        Answer(400, b"<html>"),
        Answer(401, b"<html>"),
        Answer(403, b"error code: 1010"),
        Answer(408, b""),
        Answer.error(408, "global/object-does-not-exist"),
        Answer.error(429, "global/quota-exceeded"),
        Answer.error(500, "global/invalid-parameters"),
        Answer.error(503, "instance-operations/launch/insufficient-capacity"),
        Answer.error(400, "global/unknown"),
        Answer.error(400, "provider/internal-unavailable"),
        Answer.error(409, "global/internal-error"),
        Answer(hang_up=True),
        Answer(200, b'{"data": {"instance_ids": ["a"]}}', cut=9),
        Answer(302, b"", {"Location": "https://elsewhere"}),
    ],
    ids=lambda answer: f"{answer.status} {answer.body.decode()[:60]}",
)
def test_whatever_is_not_a_plain_yes_or_no_is_unclear(server, client, job, answer):
    with pytest.raises(UnclearError):
        launch(server, client, job, answer)
    assert [one.path for one in server.asked].count("/instance-operations/launch") == 1
    assert (job.client_key.parent / "registered").exists()


@pytest.mark.parametrize("code", ["global/invalid-parameters", "global/object-does-not-exist", "global/not-found"])
def test_a_plain_no_is_for_good(server, client, job, code):
    with pytest.raises(UsageError, match=code):
        launch(server, client, job, Answer.error(400, code))
    assert server.asked[-1].path == "/ssh-keys/k1"
    assert not (job.client_key.parent / "registered").exists()


def test_a_refusal_that_quotes_what_was_sent_is_not_quoted(server, client, job):
    sent = job.host_key.read_text()
    with pytest.raises(UsageError) as caught:
        launch(server, client, job, Answer.error(400, "global/invalid-parameters", f"user_data: input was {sent}"))
    assert all(line not in str(caught.value) for line in sent.splitlines()[1:-1])


def test_the_machine_is_told_our_host_key_and_no_other(server, client, job):
    launch(server, client, job, Answer.data({"instance_ids": [ID]}))
    sent = json.loads(server.asked[2].body)["user_data"]
    head, _, rest = sent.partition("\n")
    assert head == "#cloud-config"
    import yaml

    assert yaml.safe_load(sent) == json.loads(rest)
    config = json.loads(rest)
    assert config["ssh_deletekeys"] is True
    assert config["ssh_keys"]["ed25519_private"] == job.host_key.read_text()
    public = job.host_key.with_name("host_ed25519.pub").read_text()
    assert config["ssh_keys"]["ed25519_public"].split() == public.split()[:2]


def image(family: str, architecture: str, region: str = "us-west-1") -> dict:
    return {"family": family, "architecture": architecture, "region": {"name": region, "description": ""}}


@pytest.mark.parametrize(
    ("rows", "family"),
    [
        ([image("lambda-stack-22-04", "x86_64"), image("lambda-stack-24-04", "x86_64")], "lambda-stack-24-04"),
        ([image("lambda-stack-22-04", "x86_64"), image("lambda-stack-24-04", "arm64")], "lambda-stack-22-04"),
        ([image("lambda-stack-22-04", "x86_64"), image("lambda-stack-24-04", "x86_64", "x")], "lambda-stack-22-04"),
        ([image("lambda-stack-26-04", "x86_64"), image("gpu-base-24-04", "x86_64")], "lambda-stack-26-04"),
        ([image("gpu-base-24-04", "x86_64"), None, {}], "lambda-stack-24-04"),
        ([], "lambda-stack-24-04"),
    ],
)
def test_the_image_is_pinned_by_what_the_region_has(server, client, job, rows, family):
    launch(server, client, job, Answer.data({"instance_ids": [ID]}))
    server.asked.clear()
    public = job.client_key.with_name("client_ed25519.pub").read_text()
    key = Answer.data({"id": "k1", "name": str(job.mark), "public_key": public})
    server.script = [Answer.data(rows), key, Answer.data({"instance_ids": [ID]})]
    client.launch(job, OFFER)
    assert json.loads(server.asked[2].body)["image"] == {"family": family}


def test_a_grace_hopper_gets_an_image_for_its_host(server, client, job):
    rows = [image("lambda-stack-24-04", "x86_64"), image("lambda-stack-22-04", "arm64")]
    public = job.client_key.with_name("client_ed25519.pub").read_text()
    key = Answer.data({"id": "k1", "name": str(job.mark), "public_key": public})
    server.script = [Answer.data(rows), key, Answer.data({"instance_ids": [ID]})]
    client.launch(job, replace(OFFER, name="gpu_1x_gh200@us-west-1", gpu="gh200"))
    assert json.loads(server.asked[2].body)["image"] == {"family": "lambda-stack-22-04"}


# ── keys ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("answer", [{"id": None}, {"id": "../x"}, {"public_key": "ssh-ed25519 AAAAother"}, {}])
def test_a_key_that_was_not_registered_as_sent_rents_nothing(server, client, job, answer):
    whole = {"id": "k1", "name": str(job.mark), "public_key": "ssh-ed25519 AAAA", **answer}
    server.script = [Answer.data([]), Answer.data(whole), Answer.data([])]
    with pytest.raises(ProviderError, match="another key"):
        client.launch(job, OFFER)
    assert "/instance-operations/launch" not in [asked.path for asked in server.asked]


def test_a_key_without_a_usable_id_is_not_deleted(server, client, job):
    past = replace(job.mark, ceiling=datetime.now(UTC) - timedelta(days=2))
    server.script = [Answer.data([{"id": "../instances", "name": str(past), "public_key": None}, None, {}, 7])]
    client.tidy([])
    assert [asked.path for asked in server.asked] == ["/ssh-keys"]
