"""A launch at Lambda: what is definite, what is unclear, and what is left behind either way."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest
from lambdas import hold_to_the_document, lambda_job, offer_of, open_lambda

from providers.base import Phase
from providers.errors import (
    CredentialsError,
    NoCapacityError,
    QuotaError,
    UnclearError,
    UnreachableError,
    UsageError,
)


def launches(sim) -> int:
    return len([one for one in sim.asked() if one["operation"] == "launch"])


def key_names(sim) -> set[str]:
    return {key["name"] for key in sim.data("GET", "/ssh-keys")}


def end_all(sim) -> None:
    for row in sim.meter()["allocations"]:
        if row["ended"] is None:
            sim.terminate(row["id"])


@pytest.fixture
def job(tmp_path):
    return lambda_job(tmp_path / "home")


# ── definite ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ({"launch_capacity": 1}, NoCapacityError),
        ({"quota": 1}, QuotaError),
        ({"billing_address": 1}, QuotaError),
        ({"account_inactive": {"of": "launch"}}, CredentialsError),
        ({"key_rejected": {"of": "launch"}}, CredentialsError),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_refusal_in_lambda_s_words_rents_nothing_and_leaves_no_key(sim, provider, job, fault, kind):
    offer = offer_of(provider)
    sim.faults(fault)
    with pytest.raises(kind) as caught:
        provider.launch(job, offer)
    assert caught.value.hint
    assert sim.meter()["allocations"] == []
    assert launches(sim) == 1
    assert key_names(sim) == set()
    assert not (job.client_key.parent / "registered").exists()


@pytest.mark.parametrize("as_400", [True, False])
@pytest.mark.parametrize(("name", "region"), [("gpu_9x_dream@us-west-1", "us-west-1"), ("gpu_1x_a10@moon", "moon")])
def test_an_order_for_what_does_not_exist_is_refused_for_good(sim, provider, job, as_400, name, region):
    offer = replace(offer_of(provider), name=name, region=region)
    sim.faults({"launch_400": None if not as_400 else {"times": 9}})
    with pytest.raises(UsageError, match="global/object-does-not-exist"):
        provider.launch(job, offer)
    assert (sim.meter()["allocations"], key_names(sim)) == ([], set())


def test_a_job_without_keys_is_refused_unasked(sim, provider, job, tmp_path):
    offer = offer_of(provider)
    asked = len(sim.asked())
    for broken in (
        replace(job, client_key=None),
        replace(job, client_key=tmp_path / "none"),
        replace(job, host_key=tmp_path / "none"),
    ):
        with pytest.raises(UsageError):
            provider.launch(broken, offer)
    assert len(sim.asked()) == asked


def test_trouble_before_the_order_rents_nothing(sim, provider, job):
    offer = offer_of(provider)
    for fault in ({"cloudflare": {"of": "images"}}, {"cloudflare": {"of": "add_key", "times": 1}}):
        sim.faults(fault)
        with pytest.raises(UnreachableError, match="front door"):
            provider.launch(job, offer)
    assert launches(sim) == 0


def test_a_folder_that_can_not_keep_the_key_s_id_rents_nothing(sim, provider, job):
    (job.client_key.parent / "registered").mkdir()
    with pytest.raises(UsageError, match="can't be written"):
        provider.launch(job, offer_of(provider))
    assert (launches(sim), key_names(sim)) == (0, set())


# ── unclear ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("fault", ["reply_lost", "reply_502", "reply_429", "reply_empty", "reply_garbled"])
def test_a_machine_whose_launch_was_not_answered_is_found_by_its_mark(sim, provider, job, fault):
    offer = offer_of(provider)
    sim.faults({fault: 1})
    with pytest.raises(UnclearError):
        provider.launch(job, offer)
    assert launches(sim) == 1
    sim.advance(21)  # it was hidden for 20 s
    (found,) = provider.find(job.mark)
    assert found.billing
    provider.terminate([found.id])
    assert sim.meter()["billing_now"] == 0


@pytest.mark.parametrize(
    "fault",
    [
        {"server_error": {"of": "launch"}},
        {"unavailable": {"of": "launch"}},
        {"bad_gateway": {"of": "launch"}},
        {"rate_limited": {"of": "launch"}},
        {"cloudflare": {"of": "launch"}},
        {"redirect": {"of": "launch"}},
    ],
    ids=lambda fault: next(iter(fault)),
)
def test_an_answer_that_proves_nothing_is_unclear_and_sent_once(sim, provider, job, fault):
    offer = offer_of(provider)
    sim.faults(fault)
    with pytest.raises(UnclearError):
        provider.launch(job, offer)
    assert launches(sim) == 1
    assert provider.find(job.mark) == []
    assert key_names(sim) == {str(job.mark)}  # it may be booting with it


def test_an_api_that_is_down_lists_nothing_and_is_no_empty_list(sim, provider, job):
    provider.launch(job, offer_of(provider))
    sim.faults({"api_down": {"seconds": 10**6}})
    with pytest.raises(UnreachableError):
        provider.find(job.mark)
    sim.faults({"api_down": 0})
    sim.advance(10**6)
    end_all(sim)


def test_a_launch_that_lags_is_not_yet_listed_and_then_it_is(start_lambda, tmp_path, job):
    sim = start_lambda(faults={"list_lag": {"seconds": 10**6, "get": True}})
    provider = open_lambda(sim, tmp_path)
    allocation_id = provider.launch(job, offer_of(provider))
    assert (provider.find(job.mark), provider.inspect(allocation_id).phase) == ([], Phase.ABSENT)
    sim.advance(10**6)
    assert [one.id for one in provider.find(job.mark)] == [allocation_id]
    assert provider.inspect(allocation_id).billing
    provider.terminate([allocation_id])
    hold_to_the_document(sim)


# ── the key ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("fault", ["reply_lost", "reply_502", "reply_garbled", "reply_429"])
def test_a_key_whose_registration_was_not_answered_is_found_in_the_list(sim, provider, job, fault):
    offer = offer_of(provider)
    sim.faults({fault: {"of": "add_key"}})
    allocation_id = provider.launch(job, offer)
    (key,) = sim.data("GET", "/ssh-keys")
    assert (job.client_key.parent / "registered").read_text().strip() == key["id"]
    provider.terminate([allocation_id])


def test_a_key_that_is_registered_already_is_used(sim, provider, job):
    public = job.client_key.with_name("client_ed25519.pub").read_text()
    sim.data("POST", "/ssh-keys", {"name": str(job.mark), "public_key": public})
    provider.terminate([provider.launch(job, offer_of(provider))])
    assert key_names(sim) == {str(job.mark)}


def test_a_name_that_is_taken_by_another_key_rents_nothing(sim, provider, job):
    sim.data("POST", "/ssh-keys", {"name": str(job.mark), "public_key": "ssh-ed25519 AAAAsomebodyelse's"})
    with pytest.raises(UsageError, match="does not register the key"):
        provider.launch(job, offer_of(provider))
    assert launches(sim) == 0


# ── what is sent ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_machine_without_a_host_key_of_ours_gets_no_user_data(sim, provider, job):
    provider.terminate([provider.launch(replace(job, host_key=None), offer_of(provider))])
    (sent,) = [one["body"] for one in sim.asked() if one["operation"] == "launch"]
    assert "user_data" not in sent


def test_the_private_host_key_is_in_no_error_and_no_log(sim, provider, job, caplog):
    caplog.set_level(logging.DEBUG)
    offer = offer_of(provider)
    sim.faults({"bad_gateway": {"of": "launch"}})
    with pytest.raises(UnclearError) as caught:
        provider.launch(job, offer)
    lines = job.host_key.read_text().splitlines()
    for line in [*lines[1:-1], sim.key]:
        assert line not in caplog.text + repr(caught.value) + repr(caught.value.__cause__)
