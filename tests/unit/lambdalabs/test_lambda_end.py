"""The end of what was rented at Lambda, its ceiling, its key, and the way to it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from lambdas import A10, lambda_job, offer_of

from providers.base import Access, Mark
from providers.errors import (
    NoCapacityError,
    ProviderError,
    RefusedError,
    UnreachableError,
    UsageError,
)


def key_names(sim):
    return {key["name"] for key in sim.data("GET", "/ssh-keys")}


# ── the end ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_many_are_ended_together_and_an_unknown_one_among_them_harms_none(sim, provider, tmp_path):
    ids = [provider.launch(lambda_job(tmp_path / "home"), offer_of(provider)) for _ in range(2)]
    provider.terminate([ids[0], "0" * 32, "../x", ids[1], ids[0]])
    assert sim.meter()["billing_now"] == 0


@pytest.mark.parametrize("how", ["unknown", "404"])
def test_ending_twice_is_fine_whatever_the_second_answer_is(sim, provider, rented, how):
    sim.faults({"terminate_again": {"how": how}})
    for _ in range(3):
        provider.terminate([rented[1]])
    assert sim.meter()["billing_now"] == 0


def test_one_that_is_ending_already_does_not_keep_the_others(sim, provider, tmp_path):
    one, other = (provider.launch(lambda_job(tmp_path / "home"), offer_of(provider)) for _ in range(2))
    provider.terminate([one])
    sim.faults({"terminate_again": {"how": "unknown"}})
    provider.terminate([one, other])
    assert sim.meter()["billing_now"] == 0


def test_an_end_that_is_refused_is_an_error_with_the_machine_in_it(sim, provider, rented):
    sim.faults({"terminate_unknown": {"times": None}})
    with pytest.raises(ProviderError, match="global/unknown") as caught:
        provider.terminate([rented[1]])
    assert caught.value.allocation_id == rented[1]
    sim.faults({"terminate_unknown": 0})


def test_one_whose_end_is_refused_keeps_none_of_the_others(sim, provider, tmp_path, monkeypatch):
    monkeypatch.setattr("providers.lambdalabs.provider._BATCH", 1)
    ids = [provider.launch(lambda_job(tmp_path / "home"), offer_of(provider)) for _ in range(3)]
    sim.faults({"terminate_unknown": {"times": 1}})
    with pytest.raises(ProviderError, match="global/unknown") as caught:
        provider.terminate(ids)
    assert caught.value.allocation_id == ids[0]
    assert sim.meter()["billing_now"] == 1
    sim.terminate(ids[0])


def test_an_end_that_was_taken_and_ignored_still_bills(sim, provider, rented):
    sim.faults({"terminate_ignored": {"times": 1}})
    provider.terminate([rented[1]])
    assert provider.inspect(rented[1]).billing
    provider.terminate([rented[1]])
    assert sim.meter()["billing_now"] == 0


def test_trouble_on_the_way_does_not_keep_an_end_from_being_sent(sim, provider, rented):
    sim.faults({"server_error": {"times": 1, "of": "terminate"}, "rate_limited": {"times": 1, "of": "terminate"}})
    provider.terminate([rented[1]])
    assert sim.meter()["billing_now"] == 0


# ── ceilings, adoption ────────────────────────────────────────────────────────────────────────────────────────────


def test_a_ceiling_moves_with_the_name_and_the_machine_is_found_by_both_marks(provider, rented):
    job, allocation_id = rented
    later = job.ceiling + timedelta(hours=5)
    assert provider.extend(allocation_id, later)
    (listed,) = provider.allocations()
    assert listed.mark == replace(job.mark, ceiling=later)
    assert (
        [one.id for one in provider.find(job.mark)] == [one.id for one in provider.find(listed.mark)] == [allocation_id]
    )


def test_what_is_gone_or_not_ours_is_not_extended(sim, provider):
    foreign = sim.launched(name="my box")
    assert not provider.extend(foreign, datetime.now(UTC))
    assert not provider.extend("0" * 32, datetime.now(UTC))
    assert not provider.extend("../x", datetime.now(UTC))
    assert sim.data("GET", f"/instances/{foreign}")["name"] == "my box"
    sim.terminate(foreign)


def test_a_foreign_machine_is_adopted_by_its_name(sim, provider, tmp_path):
    foreign, mark = sim.launched(name="my box"), lambda_job(tmp_path).mark
    for _ in range(2):
        provider.adopt(foreign, mark)
    assert [one.mark for one in provider.allocations()] == [mark]
    provider.terminate([foreign])


def test_what_another_run_holds_is_not_adopted_before_its_ceiling(sim, provider, rented, tmp_path):
    job, allocation_id = rented
    with pytest.raises(RefusedError, match=job.mark.run_id):
        provider.adopt(allocation_id, lambda_job(tmp_path).mark)
    old = replace(job.mark, ceiling=datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=1))
    foreign = sim.launched(name=str(old))
    provider.adopt(foreign, mark := lambda_job(tmp_path).mark)
    assert [one.id for one in provider.find(mark)] == [foreign]
    sim.terminate(foreign)


@pytest.mark.parametrize("unknown", ["0" * 32, "", "../../etc"])
def test_what_is_not_there_is_not_adopted(provider, tmp_path, unknown):
    with pytest.raises(UsageError):
        provider.adopt(unknown, lambda_job(tmp_path).mark)


# ── keys that were left ───────────────────────────────────────────────────────────────────────────────────────────


def left_key(sim, mark: Mark) -> None:
    public = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAICN+lJwsONkwrdsSnQsu1ydUkIuIg5oOC+Eslvmtt60T"
    sim.data("POST", "/ssh-keys", {"name": str(mark), "public_key": public})


def test_only_keys_of_ended_attempts_are_tidied_away(sim, provider, rented, tmp_path):
    job, _ = rented
    ended, waiting = lambda_job(tmp_path / "home").mark, lambda_job(tmp_path / "home").mark
    elsewhere = replace(lambda_job(tmp_path / "elsewhere").mark, home="cafe")
    past = replace(elsewhere, attempt=7, ceiling=datetime.now(UTC).replace(microsecond=0) - timedelta(hours=2))
    for mark in (ended, waiting, elsewhere, past):
        left_key(sim, mark)
    sim.data("POST", "/ssh-keys", {"name": "mine", "public_key": "ssh-ed25519 AAAA"})
    provider.tidy([replace(waiting, ceiling=waiting.ceiling + timedelta(hours=1))])
    assert key_names(sim) == {"mine", str(job.mark), str(waiting), str(elsewhere)}


def test_a_key_whose_machine_still_lives_is_kept_even_unnamed(sim, provider, rented):
    provider.tidy([])
    assert key_names(sim) == {str(rented[0].mark)}
    provider.terminate([rented[1]])
    sim.advance(60)
    provider.tidy([])
    assert key_names(sim) == set()


# ── the way to the machine ────────────────────────────────────────────────────────────────────────────────────────


def test_the_key_is_deleted_once_the_first_login_works(sim, provider, rented):
    job, allocation_id = rented
    remote = provider.remote(allocation_id, Access(job.client_key.parent))
    assert key_names(sim) == {str(job.mark)}
    remote._on_login()
    assert key_names(sim) == set()
    assert not (job.client_key.parent / "registered").exists()
    remote._on_login()
    remote.close()


def test_a_key_that_can_not_be_deleted_now_is_left_to_tidy(sim, provider, rented, caplog):
    job, allocation_id = rented
    remote = provider.remote(allocation_id, Access(job.client_key.parent))
    sim.faults({"key_rejected": {"times": None, "of": "drop_key"}})
    remote._on_login()
    assert (job.client_key.parent / "registered").exists()
    assert "still registered" in caplog.text
    remote.close()


def test_the_job_s_folder_keeps_its_name_when_the_ceiling_moves(provider, rented):
    job, allocation_id = rented
    provider.extend(allocation_id, job.ceiling + timedelta(hours=5))
    remote = provider.remote(allocation_id, Access(job.client_key.parent))
    assert remote._door._mark == str(job.mark)
    remote.close()


def test_what_is_gone_or_can_not_be_asked_after_is_unreachable(sim, provider, rented, tmp_path):
    for unknown in ("0" * 32, "", "../x"):
        with pytest.raises(UnreachableError):
            provider.remote(unknown, Access(tmp_path))
    sim.faults({"key_rejected": 1})
    with pytest.raises(UnreachableError):
        provider.remote(rented[1], Access(tmp_path))


def test_where_a_machine_is_is_not_asked_twice_in_a_moment(sim, provider, rented, monkeypatch):
    job, allocation_id = rented
    provider.inspect(allocation_id)
    asked = len(sim.asked())
    provider.remote(allocation_id, Access(job.client_key.parent)).close()
    assert len(sim.asked()) == asked
    monkeypatch.setattr("providers.lambdalabs.provider._JUST_SECONDS", 0.0)
    provider.remote(allocation_id, Access(job.client_key.parent)).close()
    assert len(sim.asked()) == asked + 1


def test_a_sold_out_offer_is_refused_unasked(sim, provider, tmp_path):
    offer = replace(offer_of(provider), name=A10.partition("@")[0], region="", available=False)
    asked = len(sim.asked())
    with pytest.raises(NoCapacityError, match="sold out"):
        provider.launch(lambda_job(tmp_path), offer)
    assert len(sim.asked()) == asked
