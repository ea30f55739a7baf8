"""Lambda's money plane against its simulator, over real HTTP: a life, its statuses, its lists, its end."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from hashlib import sha256

import pytest
from lambdas import hold_to_the_document, lambda_job, offer_of, open_lambda

from providers.base import Access, Phase, Provider
from providers.errors import (
    CredentialsError,
    UnreachableError,
    UsageError,
)
from providers.lambdalabs import LambdaProvider
from providers.optional import Adopts

# All that the adapter asks for; a test holds that each is used, and each use is held to the official document.
ASKED = {
    ("GET", "/api/v1/instance-types"),
    ("GET", "/api/v1/images"),
    ("GET", "/api/v1/ssh-keys"),
    ("POST", "/api/v1/ssh-keys"),
    ("DELETE", "/api/v1/ssh-keys/{id}"),
    ("POST", "/api/v1/instance-operations/launch"),
    ("POST", "/api/v1/instance-operations/terminate"),
    ("GET", "/api/v1/instances"),
    ("GET", "/api/v1/instances/{id}"),
    ("POST", "/api/v1/instances/{id}"),
}


# ── opening ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_it_keeps_the_contract(provider):
    assert isinstance(provider, Provider)
    assert isinstance(provider, Adopts)


def test_opening_asks_nobody(sim, provider):
    assert provider.account() == "lambda-key-" + sha256(sim.key.encode()).hexdigest()[:12]
    assert sim.asked() == []


@pytest.mark.parametrize("environ", [{}, {"LAMBDA_API_KEY": ""}, {"LAMBDA_API_KEY": "  \n"}])
def test_a_missing_key_names_the_variable_and_the_page(tmp_path, environ):
    with pytest.raises(CredentialsError, match="LAMBDA_API_KEY") as caught:
        LambdaProvider.from_home(tmp_path, environ)
    assert "https://cloud.lambda.ai/api-keys" in caught.value.hint
    assert "gpurun doctor" in caught.value.hint


@pytest.mark.parametrize("key", ["secret a", "secret\nX-Evil: 1", "sécret", "secret\x7f"])
def test_a_key_that_no_header_can_carry_is_refused_and_not_shown(tmp_path, key):
    with pytest.raises(CredentialsError) as caught:
        LambdaProvider.from_home(tmp_path, {"LAMBDA_API_KEY": key})
    assert key not in f"{caught.value} {caught.value.hint}"


@pytest.mark.parametrize(
    "setting",
    [
        {"GPURUN_LAMBDA_URL": "http://cloud.lambda.ai/api/v1"},
        {"GPURUN_LAMBDA_SSH_PORT": "0"},
        {"GPURUN_LAMBDA_SSH_PORT": "ssh"},
        {"GPURUN_LAMBDA_PACE": "-1"},
        {"GPURUN_LAMBDA_PACE": "nan"},
    ],
)
def test_a_setting_that_makes_no_sense_is_named(tmp_path, setting):
    with pytest.raises(UsageError, match=next(iter(setting))):
        LambdaProvider.from_home(tmp_path, {"LAMBDA_API_KEY": "secret_x", **setting})


def test_a_wrong_key_is_told_apart_and_never_shown(sim, tmp_path):
    provider = open_lambda(sim, tmp_path, LAMBDA_API_KEY="secret_wrong_000000")
    for verb in (provider.offers, provider.allocations, lambda: provider.inspect("a" * 32)):
        with pytest.raises(CredentialsError, match="global/invalid-api-key") as caught:
            verb()
        assert "secret_wrong" not in f"{caught.value} {caught.value.hint}"
        assert "https://cloud.lambda.ai/api-keys" in caught.value.hint


def test_a_vendor_in_a_hurry_is_asked_faster_and_waited_for_less(tmp_path):
    environ = {"LAMBDA_API_KEY": "secret_x"}
    usual = LambdaProvider.from_home(tmp_path, environ).traits
    hurried = LambdaProvider.from_home(tmp_path, {**environ, "GPURUN_LAMBDA_PACE": "20"}).traits
    assert (usual.poll_seconds, hurried.poll_seconds) == (5.0, 0.25)
    assert (usual.boot_limit_seconds, hurried.boot_limit_seconds) == (1200, 60)
    assert hurried.start_limit_seconds == usual.start_limit_seconds  # what is shipped goes at our own pace
    assert usual.ssh


# ── offers ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_offer_is_a_type_in_a_region_that_has_room(provider):
    offer = offer_of(provider)
    assert (offer.provider, offer.gpu, offer.gpu_count, offer.region) == ("lambda", "a10", 1, "us-west-1")
    assert (offer.price, offer.vcpus, offer.memory_gib, offer.disk_gib) == (Decimal("1.29"), 30, 200, 1400)
    assert offer.vram_gib == 22.5
    assert offer.available
    assert {one.region for one in provider.offers() if one.name.startswith("gpu_1x_a10@")} == {"us-west-1", "us-east-1"}


def test_what_is_sold_out_is_told_once_and_not_available(sim, provider):
    sim.tell("/clock", {"capacity": {"gpu_1x_a10": []}})
    (offer,) = [one for one in provider.offers() if one.name.partition("@")[0] == "gpu_1x_a10"]
    assert (offer.name, offer.region, offer.available, offer.price) == ("gpu_1x_a10", "", False, Decimal("1.29"))


@pytest.mark.parametrize(
    ("kind", "gpu", "count"),
    [
        ("gpu_1x_a100_sxm4", "a100-40gb", 1),
        ("gpu_8x_a100_80gb_sxm4", "a100-80gb-sxm", 8),
        ("gpu_1x_h100_pcie", "h100-pcie", 1),
        ("gpu_8x_h100_sxm5", "h100-sxm", 8),
        ("gpu_8x_v100", "v100-16gb", 8),
        ("gpu_1x_gh200", "gh200", 1),
        ("gpu_8x_b200_sxm6", "b200", 8),
        ("cpu_4x_general", "", 0),
    ],
)
def test_a_gpu_has_our_name_for_it(provider, kind, gpu, count):
    offer = next(one for one in provider.offers() if one.name.startswith(f"{kind}@"))
    assert (offer.gpu, offer.gpu_count) == (gpu, count)


def test_a_machine_that_needs_other_wheels_says_so(provider):
    assert [one.gpu for one in provider.offers() if "arm64" in one.source] == ["gh200"]


def test_prices_are_dated_by_the_vendor_s_clock(sim, provider):
    sim.faults({"clock_skew": {"seconds": 86400 * 30}})
    offer = offer_of(provider)
    assert offer.seen_at - datetime.now(UTC) > timedelta(days=29)
    assert provider.skew > timedelta(days=29)


# ── a life ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_endpoint_is_used_and_every_request_is_as_documented(sim, provider, rented):
    job, allocation_id = rented
    provider.find(job.mark)
    provider.inspect(allocation_id)
    provider.extend(allocation_id, job.ceiling + timedelta(hours=1))
    provider.terminate([allocation_id])
    sim.advance(60)
    provider.tidy([])
    assert hold_to_the_document(sim) == ASKED


def test_a_machine_bears_its_mark_in_name_tag_and_key_and_a_pinned_image(sim, rented):
    job, allocation_id = rented
    row = sim.data("GET", f"/instances/{allocation_id}")
    mark = str(job.mark)
    assert row["name"] == mark
    assert row["tags"] == [{"key": "gpurun:mark", "value": mark}]
    assert row["ssh_key_names"] == [mark]
    (sent,) = [one["body"] for one in sim.asked() if one["operation"] == "launch"]
    assert sent["image"] == {"family": "lambda-stack-24-04"}


def test_the_registered_key_is_this_attempt_s_and_its_id_is_kept(sim, rented):
    job, _ = rented
    (key,) = sim.data("GET", "/ssh-keys")
    assert key["public_key"].split()[:2] == job.client_key.with_name("client_ed25519.pub").read_text().split()[:2]
    kept = job.client_key.parent / "registered"
    assert kept.read_text().strip() == key["id"]
    assert kept.stat().st_mode & 0o777 == 0o600


def test_a_machine_boots_is_ready_and_gone(start_lambda, tmp_path):
    sim = start_lambda(boot_seconds=10**7, linger_seconds=10**7)  # of its hurried time: 10⁴ s of ours
    provider = open_lambda(sim, tmp_path)
    allocation_id = provider.launch(lambda_job(tmp_path), offer_of(provider))
    look = provider.inspect(allocation_id)
    assert (look.phase, look.billing, look.price, look.ending) == (Phase.QUEUED, True, Decimal("1.29"), False)
    assert look.billed_from is None
    sim.advance(9000)  # it has an address and is still booting
    assert sim.data("GET", f"/instances/{allocation_id}")["ip"]
    assert provider.inspect(allocation_id).phase is Phase.QUEUED
    sim.advance(1000)
    look = provider.inspect(allocation_id)
    assert (look.phase, look.billing) == (Phase.READY, True)
    assert look.billed_from is not None
    provider.terminate([allocation_id])
    look = provider.inspect(allocation_id)
    assert (look.phase, look.billing, look.ending) == (Phase.QUEUED, True, True)
    sim.advance(10**4)
    look = provider.inspect(allocation_id)
    assert (look.phase, look.billing, look.ended) == (Phase.ABSENT, False, True)
    assert look.evidence == f"GET /instances/{allocation_id} → terminated"
    assert [one.billing for one in provider.allocations()] == []
    sim.advance(10**4)
    look = provider.inspect(allocation_id)
    assert (look.phase, look.billing, look.ended) == (Phase.ABSENT, False, False)
    assert "404 global/object-does-not-exist" in look.evidence


@pytest.mark.parametrize(
    ("fault", "failure"),
    [("unhealthy", "unhealthy"), ({"preempted": {"after": 0}}, "preempted")],
    ids=["unhealthy", "preempted"],
)
def test_a_broken_machine_is_told_and_may_bill_until_it_is_ended(start_lambda, tmp_path, fault, failure):
    sim = start_lambda(faults=fault if isinstance(fault, dict) else {fault: 1})
    provider = open_lambda(sim, tmp_path)
    allocation_id = provider.launch(lambda_job(tmp_path), offer_of(provider))
    sim.advance(5)
    look = provider.inspect(allocation_id)
    assert look.failure.startswith(failure)
    assert look.billing
    assert allocation_id not in look.failure  # the same trouble has the same signature
    provider.terminate([allocation_id])


def test_a_word_that_was_made_up_later_is_never_the_end(sim, provider, rented):
    sim.faults({"unknown_status": {"times": 9, "word": "terminated-soon\x1b[2J"}})
    look = provider.inspect(rented[1])
    assert (look.phase, look.billing, look.ending, look.failure) == (Phase.QUEUED, True, False, "")
    assert look.message == "terminated-soon [2J"


def test_active_without_an_address_is_not_ready(start_lambda, tmp_path):
    sim = start_lambda(faults={"ip_never": 1})
    provider = open_lambda(sim, tmp_path)
    allocation_id = provider.launch(lambda_job(tmp_path), offer_of(provider))
    sim.advance(600)
    assert provider.inspect(allocation_id).message == "active"
    assert provider.inspect(allocation_id).phase is Phase.QUEUED
    with pytest.raises(UnreachableError, match="no address"):
        provider.remote(allocation_id, Access(tmp_path))
    provider.terminate([allocation_id])


@pytest.mark.parametrize(
    "unknown", ["", ".", "..", "../../etc", "a/b", "a?b=c", "a%2fb", "a b", "a\nb", "é", "x" * 200]
)
def test_an_id_that_would_leave_its_place_in_a_url_is_absent_unasked(sim, provider, unknown):
    look = provider.inspect(unknown)
    assert (look.phase, look.billing) == (Phase.ABSENT, False)
    assert look.evidence.isprintable()
    provider.terminate([unknown])
    assert sim.asked() == []


# ── lists ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("pages", [True, False])
def test_every_page_of_the_list_is_read(sim, provider, tmp_path, pages):
    jobs = [lambda_job(tmp_path / "home") for _ in range(3)]
    ids = [provider.launch(job, offer_of(provider)) for job in jobs]
    if pages:
        sim.faults({"second_page": {"times": None, "size": 1}})
    assert {one.id: one.mark for one in provider.allocations()} == dict(
        zip(ids, [job.mark for job in jobs], strict=True)
    )
    for job, allocation_id in zip(jobs, ids, strict=True):
        assert [one.id for one in provider.find(job.mark)] == [allocation_id]
    provider.terminate(ids)


def test_what_somebody_else_started_is_foreign(sim, provider):
    foreign = sim.launched(name="my box")
    (one,) = provider.allocations()
    assert (one.id, one.mark, one.name, one.billing, one.price) == (foreign, None, "my box", True, Decimal("1.29"))
    assert "cloud.lambda.ai" in one.console_url
    sim.terminate(foreign)


@pytest.mark.parametrize("missing", ["name", "tags", "name,tags", "name,tags,hostname,private_ip,ip"])
def test_it_is_found_by_whatever_still_bears_the_mark(sim, provider, rented, missing):
    job, allocation_id = rented
    sim.faults({"fields_missing": {"times": None, "fields": missing}})
    assert [(one.id, one.mark) for one in provider.find(job.mark)] == [(allocation_id, job.mark)]


def test_a_machine_that_its_user_renamed_is_still_ours(sim, provider, rented):
    job, allocation_id = rented
    sim.data("POST", f"/instances/{allocation_id}", {"name": "precious"})
    assert [(one.mark, one.name) for one in provider.allocations()] == [(job.mark, "precious")]


def test_another_attempt_is_not_found(provider, rented):
    mark = rented[0].mark
    for other in (replace(mark, attempt=2), replace(mark, home="cafe"), replace(mark, node=1)):
        assert provider.find(other) == []
