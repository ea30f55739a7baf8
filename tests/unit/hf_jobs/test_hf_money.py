"""The money plane on Hugging Face: a job is submitted once, always limited, found by its label, ended and proven."""

from __future__ import annotations

import json
from datetime import timedelta
from decimal import Decimal

import pytest
import requests

from orchestrator import checks
from orchestrator.home import Home
from providers.base import Phase, Place, Proof, Secret
from providers.errors import (
    CredentialsError,
    NoCapacityError,
    QuotaError,
    UnclearError,
    UnreachableError,
    UsageError,
)
from providers.hf_jobs import HfProvider, reading


def submitted(hf) -> dict:
    (one,) = hf.sim.asked("submit")
    return one


def test_a_job_is_submitted_with_a_limit_that_ends_before_its_ceiling_however_long_it_queued(hf):
    job, allocation_id = hf.launch()
    body = submitted(hf)["body"]
    began = hf.provider.look(allocation_id).created_at
    queue = job.max_seconds - body["timeoutSeconds"]
    assert body["timeoutSeconds"] > 0
    assert queue == hf.provider.traits.queue_seconds == 900
    assert began + timedelta(seconds=queue + body["timeoutSeconds"]) <= job.mark.ceiling + timedelta(seconds=5)
    assert body["attempts"] == 1
    assert body["labels"]["gpurun-mark"] == body["labels"]["name"] == str(job.mark)
    hf.provider.terminate([allocation_id])


def test_the_hub_s_limit_is_proven_by_its_own_answer_and_absent_where_it_is_longer_than_was_asked_for(hf):
    job, allocation_id = hf.launch()
    (planned, *_) = hf.provider.holders(job, hf.offer())
    (read, look) = hf.provider.inspect(allocation_id).holder, hf.provider.look(allocation_id)
    assert (planned.proof, read.proof, read.name) == (Proof.UNPROVEN, Proof.PROVEN, planned.name)
    assert read.evidence == f"GET /api/jobs/…/{allocation_id} → timeout {submitted(hf)['body']['timeoutSeconds']} s"
    look.timeout += 60
    assert reading.limit_of(look).proof is Proof.ABSENT
    look.timeout = None
    assert reading.limit_of(look) is None, "an answer that names none proves nothing"
    hf.provider.terminate([allocation_id])


def test_no_secret_stands_where_the_hub_shows_it_or_where_the_job_s_files_lie(hf):
    _, allocation_id = hf.launch(secrets={"WANDB_API_KEY": Secret("very-secret-value-0123456789")})
    body = submitted(hf)["body"]
    assert body["secrets"] == {"WANDB_API_KEY": "very-secret-value-0123456789"}
    shown = json.dumps({key: value for key, value in body.items() if key != "secrets"})
    files = b"".join(path.read_bytes() for path in hf.path.rglob("*") if path.is_file())
    for secret in ("very-secret-value-0123456789", hf.sim.exports["HF_TOKEN"]):
        assert secret not in shown
        assert secret.encode() not in files
    assert "very-secret" not in json.dumps(hf.provider.look(allocation_id).__dict__, default=str)
    hf.provider.terminate([allocation_id])


@pytest.mark.parametrize("fault", ["reply_lost", "reply_500"])
def test_a_launch_whose_answer_is_lost_is_found_by_its_label_and_was_made_once(hf, fault):
    hf.sim.faults([fault])
    job = hf.job()
    with pytest.raises(UnclearError):
        hf.provider.launch(job, hf.offer())
    (found,) = hf.provider.find(job.mark)
    assert (found.mark, found.billing) == (job.mark, True)
    assert len(hf.sim.asked("submit")) == 1
    hf.provider.terminate([found.id])


@pytest.mark.parametrize(
    ("fault", "error", "words"),
    [
        ({"no_credit": 1}, QuotaError, "credit"),
        ({"forbidden": {"of": "submit"}}, CredentialsError, "403"),
        ({"unauthorized": {"of": "submit"}}, CredentialsError, "401"),
        ({"rate_limited": {"of": "submit"}}, UnclearError, "429"),
        ({"server_error": {"of": "submit"}}, UnclearError, "500"),
    ],
)
def test_a_refusal_makes_nothing_and_names_the_way_out(hf, fault, error, words):
    hf.sim.faults(fault)
    job = hf.job()
    with pytest.raises(error, match=words) as caught:
        hf.provider.launch(job, hf.offer())
    assert caught.value.hint
    assert list(hf.provider.find(job.mark)) == []
    assert hf.sim.exports["HF_TOKEN"] not in str(caught.value)


def test_a_flavor_that_is_no_more_and_a_namespace_that_is_not_ours_rent_nothing(hf):
    from dataclasses import replace

    with pytest.raises(UsageError, match="flavor"):
        hf.provider.launch(hf.job(), replace(hf.offer(), name="h100"))
    stranger = hf.open(GPURUN_HF_NAMESPACE="somebody")
    with pytest.raises((CredentialsError, NoCapacityError)):
        stranger.launch(hf.job(), hf.offer())
    assert hf.sim.meter()["allocations"] == []


def test_a_bucket_that_everybody_can_read_gets_no_code_and_no_data(hf):
    headers = {"Authorization": f"Bearer {hf.sim.exports['HF_TOKEN']}"}
    url = f"{hf.sim.url}/api/buckets/alice/gpurun"
    requests.post(url, json={"visibility": "public"}, headers=headers, timeout=30).raise_for_status()
    with pytest.raises(UsageError, match="public"):
        hf.provider.launch(hf.job(), hf.offer())
    assert hf.sim.state()["buckets"] == {"alice/gpurun": []}


def test_what_waits_past_its_queue_limit_is_broken_and_was_never_billed(start_hf):
    hf = start_hf(rate=0.001, pace=1, faults=["stuck_scheduling"])
    job, allocation_id = hf.launch()
    look = hf.provider.inspect(allocation_id)
    assert (look.phase, look.billing, look.failure) == (Phase.QUEUED, True, "")
    hf.sim.advance((job.mark.ceiling - hf.provider.look(allocation_id).created_at).total_seconds())
    look = hf.provider.inspect(allocation_id)
    assert "queue limit: no hardware is free" in look.failure
    hf.provider.terminate([allocation_id])
    look = hf.provider.inspect(allocation_id)
    assert (look.phase, look.billing, look.ended) == (Phase.EXITED, False, True)
    assert look.billed_until == hf.provider.look(allocation_id).created_at
    assert Decimal(hf.sim.meter()["usd"]) == 0


def test_a_stage_that_nobody_knows_is_no_end(start_hf):
    hf = start_hf(rate=0.001, pace=1, schedule_seconds=1, faults={"unknown_stage": {"seconds": 1000}})
    _, allocation_id = hf.launch()
    hf.sim.advance(2)
    look = hf.provider.inspect(allocation_id)
    assert "UPDATING" in look.evidence
    assert (look.phase, look.billing, look.ended) == (Phase.QUEUED, True, False)
    hf.provider.terminate([allocation_id])


def test_an_image_that_can_t_be_had_is_told_as_broken_and_cost_nothing(start_hf):
    hf = start_hf(rate=0.001, pace=1, schedule_seconds=1, faults=["image_fails"])
    _, allocation_id = hf.launch()
    hf.sim.advance(2)
    look = hf.provider.inspect(allocation_id)
    assert (look.phase, look.billing, look.ended) == (Phase.EXITED, False, True)
    assert look.failure == "it never ran: Failed to pull image"
    assert Decimal(hf.sim.meter()["usd"]) == 0


@pytest.mark.parametrize("fault", ["server_error", "bad_gateway", "rate_limited"])
def test_a_hub_in_trouble_says_nothing_of_what_exists(hf, fault):
    _, allocation_id = hf.launch()
    hf.sim.faults({fault: {"of": "inspect"}})
    with pytest.raises(UnreachableError):
        hf.provider.inspect(allocation_id)
    assert hf.provider.inspect(allocation_id).billing
    hf.provider.terminate([allocation_id])


def test_every_page_of_the_list_is_read(hf):
    ids = {hf.launch()[1] for _ in range(3)}
    hf.sim.faults({"pages": {"size": 1, "times": None}})
    assert {one.id for one in hf.provider.allocations()} == ids
    hf.provider.terminate(list(ids))
    assert [one for one in hf.provider.allocations() if one.billing] == []


def test_a_page_that_fails_is_an_error_and_no_shorter_list(hf):
    ids = [hf.launch()[1] for _ in range(2)]
    hf.sim.faults({"pages": {"size": 1, "times": None}, "forbidden": {"of": "list", "skip": 1}})
    with pytest.raises(CredentialsError):
        hf.provider.allocations()
    hf.provider.terminate(ids)


def test_a_cancel_that_is_ignored_leaves_it_billing_and_can_be_said_again(hf):
    _, allocation_id = hf.launch()
    hf.sim.faults(["cancel_ignored"])
    hf.provider.terminate([allocation_id])
    assert hf.provider.inspect(allocation_id).billing
    for _ in range(2):
        hf.provider.terminate([allocation_id])
    assert not hf.provider.inspect(allocation_id).billing


def test_the_hub_s_own_limit_and_the_watchdog_are_named_as_holders(hf):
    holders = hf.provider.holders(hf.job(), hf.offer())
    assert [one.place for one in holders] == [Place.SERVER, Place.MACHINE]
    assert not any(one.extendable for one in holders)


def test_offers_name_cards_as_people_do_and_divide_their_memory(hf):
    offers = {offer.name: offer for offer in hf.provider.offers()}
    four, small = offers["l4x4"], offers["t4-small"]
    assert (four.gpu, four.gpu_count, four.vram_gib) == ("l4", 4, 22.5)
    assert (small.gpu, small.price.quantize(Decimal("0.01"))) == ("t4", Decimal("0.40"))
    assert (offers["cpu-basic"].gpu, offers["cpu-basic"].gpu_count) == ("", 0)


def test_the_namespace_is_asked_for_once_and_never_again(hf):
    for _ in range(2):
        provider = hf.open(GPURUN_HF_NAMESPACE="")
        assert provider.account() == hf.provider.account() == "hf-alice@127.0.0.1"
    assert len(hf.sim.asked("whoami")) == 1


def test_without_a_token_the_variable_is_named_and_one_of_hf_auth_login_is_taken(tmp_path, hf):
    home = {"HF_HOME": str(tmp_path / "hub")}
    with pytest.raises(CredentialsError, match="HF_TOKEN") as caught:
        HfProvider.from_home(tmp_path, home)
    assert "huggingface.co/settings/tokens" in caught.value.hint
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub" / "token").write_text(hf.sim.exports["HF_TOKEN"] + "\n")
    url = {"HF_ENDPOINT": hf.sim.url}
    assert HfProvider.from_home(tmp_path, {**home, **url, "GPURUN_HF_NAMESPACE": "alice"}).offers()


def test_a_token_goes_to_https_or_this_computer_only(tmp_path):
    with pytest.raises(UsageError, match="HF_ENDPOINT"):
        HfProvider.from_home(tmp_path, {"HF_TOKEN": "hf_x", "HF_ENDPOINT": "http://example.com"})


def test_tidying_removes_the_files_of_this_home_s_ended_runs_and_nobody_else_s(hf):
    mine, other = hf.launch(), hf.launch()
    for job, _ in (mine, other):
        (hf.path / "home" / "runs" / job.mark.run_id).mkdir(parents=True)
    (hf.path / "home" / "runs" / other[0].mark.run_id).rmdir()  # as if launched from another home
    hf.provider.terminate([mine[1], other[1]])
    hf.provider.tidy([])
    left = hf.sim.state()["buckets"]["alice/gpurun"]
    assert not [name for name in left if mine[0].mark.run_id in name]
    assert [name for name in left if other[0].mark.run_id in name]


@pytest.mark.usefixtures("hf")
def test_a_hub_that_nobody_reaches_is_said_to_be_one_in_plain_words(tmp_path):
    nobody = HfProvider(tmp_path, Secret("hf_unit_00000000"), url="http://127.0.0.1:9", namespace="alice")
    with pytest.raises(UnreachableError, match="hardware: no connection, or it broke off") as raised:
        nobody.offers()
    assert "status.huggingface.co" in raised.value.hint


@pytest.mark.parametrize(("is_right", "verdict"), [(True, "ok"), (False, "bad")])
def test_doctor_tries_a_token_before_a_first_launch_and_believes_no_list_that_all_may_read(
    hf, tmp_path, monkeypatch, is_right, verdict
):
    monkeypatch.setenv("HF_ENDPOINT", hf.sim.url)
    monkeypatch.setenv("HF_TOKEN", hf.sim.exports["HF_TOKEN"] if is_right else "hf_wrong_0000000000")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(HfProvider, "offers", lambda _self: [])  # the vendor's hardware needs no token to be read
    found = {one.name: one.verdict for one in checks.vendors(Home(tmp_path / "fresh"))}
    assert found["provider hf"] == verdict
