"""Colab's money plane on its simulator: orders, refusals, whose a VM is, units and dollars."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from boxes import until
from colab_ground import colab_job, offer_of, open_colab

from orchestrator.estimate import catalogue
from providers.base import Mark, Offer, Phase
from providers.colab import api, rates, reading
from providers.colab.marks import nbh_of
from providers.errors import (
    CredentialsError,
    NoCapacityError,
    ProviderError,
    QuotaError,
    UnclearError,
    UnreachableError,
)


def released(sim) -> None:
    assert sim.meter()["billing_now"] == 0


# ── orders ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_vm_is_given_found_listed_and_released(provider, given, tmp_path, sim):
    job, allocation_id = given
    other = open_colab(sim, tmp_path / "another home")
    assert [(one.id, one.mark) for one in other.find(job.mark)] == [(allocation_id, job.mark)]
    assert [(one.id, one.mark) for one in provider.allocations()] == [(allocation_id, job.mark)]
    look = provider.inspect(allocation_id)
    assert (look.phase, look.billing, look.price, look.failure) == (Phase.READY, True, Decimal("0.1069"), "")
    provider.terminate([allocation_id])
    gone = provider.inspect(allocation_id)
    assert (gone.phase, gone.billing, gone.ended) == (Phase.ABSENT, False, True)
    assert provider.find(job.mark) == []


def test_the_notebook_of_an_attempt_is_always_the_same_and_no_other_s():
    mark = Mark("beef", "demo-261122-abcdef", 1, datetime(2026, 11, 22, tzinfo=UTC))
    again = Mark("beef", "demo-261122-abcdef", 1, mark.ceiling.replace(year=2027))
    other = Mark("beef", "demo-261122-abcdef", 2, mark.ceiling)
    assert nbh_of(mark) == nbh_of(again) != nbh_of(other)
    assert (len(nbh_of(mark)), nbh_of(mark)[36:], "-" in nbh_of(mark)) == (44, "........", False)


def test_an_order_given_twice_has_one_vm(provider, given):
    job, allocation_id = given
    assert provider.launch(job, offer_of(provider)) == allocation_id
    assert len(provider.allocations()) == 1


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ({"capacity": 2}, NoCapacityError),
        ({"too_many": True}, NoCapacityError),
        ({"not_entitled": True}, QuotaError),
        ({"outcome": {"code": 1}}, QuotaError),
        ({"outcome": {"code": 2}}, QuotaError),
        ({"outcome": {"code": 5}}, CredentialsError),
        ({"recaptcha": True}, CredentialsError),
    ],
)
def test_a_refusal_says_that_nothing_was_given(sim, provider, tmp_path, fault, kind):
    offer = offer_of(provider)
    sim.faults(fault)
    job = colab_job(tmp_path / "home")
    with pytest.raises(kind) as caught:
        provider.launch(job, offer)
    assert not isinstance(caught.value, UnclearError)
    assert provider.find(job.mark) == []
    released(sim)


@pytest.mark.parametrize("fault", ["reply_lost", "reply_500", "reply_504", "reply_garbled"])
def test_a_lost_answer_is_unclear_and_settled_by_the_same_question(sim, provider, tmp_path, fault):
    offer = offer_of(provider)
    sim.faults({fault: True})
    job = colab_job(tmp_path / "home")
    with pytest.raises(UnclearError):
        provider.launch(job, offer)
    (found,) = open_colab(sim, tmp_path / "home").find(job.mark)
    provider.terminate([found.id])
    released(sim)


def test_an_order_whose_answer_was_lost_is_ours_in_the_list_too(sim, provider, tmp_path):
    offer = offer_of(provider)
    sim.faults({"reply_lost": True})
    job = colab_job(tmp_path / "home")
    with pytest.raises(UnclearError):
        provider.launch(job, offer)
    (listed,) = until(open_colab(sim, tmp_path / "home").allocations, "it is listed")
    assert listed.mark == job.mark
    provider.terminate([listed.id])


def test_a_token_of_the_second_step_that_is_refused_once_is_taken_anew(sim, provider, tmp_path):
    offer = offer_of(provider)
    sim.faults({"xsrf_rejected": {"of": "assign"}})
    allocation_id = provider.launch(colab_job(tmp_path / "home"), offer)
    sim.faults({"xsrf_rejected": {"of": "unassign"}})
    provider.terminate([allocation_id])
    released(sim)


def test_another_gpu_is_a_failure_unless_that_was_allowed(sim, provider, tmp_path):
    offer = offer_of(provider, "H100")
    for allowed in (False, True):
        sim.faults({"substituted": {"to": "G4"}})
        allocation_id = provider.launch(colab_job(tmp_path / "home", take_substitute=allowed), offer)
        failure = provider.inspect(allocation_id).failure
        assert failure == ("" if allowed else "Colab gave G4 in place of H100: not taken without --allow-substitute")
        provider.terminate([allocation_id])
    assert provider.inspect(allocation_id).billing is False
    assert offer_of(provider, "H100").price == offer.price  # what another draws is not learnt for it


def test_an_a100_without_its_memory_is_another_gpu(sim, provider, tmp_path):
    sim.faults({"substituted": {"to": "A100"}})
    allocation_id = provider.launch(colab_job(tmp_path / "home"), offer_of(provider, "A100+highmem"))
    assert "in place of A100+highmem" in provider.inspect(allocation_id).failure
    provider.terminate([allocation_id])


# ── the list and the end ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_body_without_its_prefix_is_read_as_well(sim, provider, given):
    sim.faults({"no_prefix": True})
    assert provider.inspect(given[1]).billing


def test_an_end_that_fails_three_times_is_told_until_it_is_taken(sim, provider, given):
    sim.faults({"unassign_500": {"times": 3}})
    provider.terminate([given[1]])
    assert provider.inspect(given[1]).ended


def test_an_end_that_was_not_carried_out_is_no_end(sim, provider, given):
    sim.faults({"unassign_ignored": {"times": 1}})
    provider.terminate([given[1]])
    assert provider.inspect(given[1]).billing
    provider.terminate([given[1]])
    assert provider.inspect(given[1]).ended


def test_a_list_that_is_empty_for_once_is_no_proof(sim, provider, given):
    sim.faults({"list_flicker": {"times": 1}})
    look = provider.inspect(given[1])
    assert (look.phase, look.ended, look.billed_until) == (Phase.ABSENT, False, None)
    assert provider.inspect(given[1]).billing


def test_one_end_that_can_t_be_told_keeps_no_other_from_its_own(sim, provider, tmp_path):
    offer = offer_of(provider)
    ids = [provider.launch(colab_job(tmp_path / "home"), offer) for _ in range(2)]
    sim.faults({"server_error": {"of": "unassign_get", "times": 4}})
    with pytest.raises(UnreachableError) as caught:
        provider.terminate(ids)
    assert caught.value.allocation_id == ids[0]
    assert [one.id for one in provider.allocations()] == [ids[0]]
    provider.terminate(ids)


def test_a_vm_of_somebody_s_that_can_t_be_read_is_unknown_and_bears_no_mark(sim, provider, given):
    sim.faults({"foreign": {"count": 1}})
    sim.may_bill = True
    others = [one for one in provider.allocations() if one.id != given[1]]
    assert [(one.mark, one.billing) for one in others] == [(None, True)]
    assert "unknown" in others[0].name


def test_a_row_that_can_t_be_named_is_an_error_and_no_absence():
    with pytest.raises(ProviderError):
        reading.assignments({"assignments": [{"endpoint": "../../etc"}]}, "list")
    with pytest.raises(ProviderError):
        reading.assignments({}, "list")


# ── money ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_table_is_the_estimate_s(provider):
    known = {one.name: one for one in catalogue.listed() if one.provider == "colab"}
    ours = rates.table()
    assert {name: (one.units, one.gpu) for name, one in ours.items()} == {
        name: (one.units_hour, one.card.name) for name, one in known.items()
    }
    offers = {one.name: one.price for one in provider.offers()}
    assert offers == {name: rates.dollars(one.units, None) for name, one in ours.items()}
    assert all(0 <= price - known[name].price <= Decimal("0.0001") for name, price in offers.items())  # never less


def test_the_live_rate_is_what_a_vm_adds_to_all_and_the_next_quote_s(sim, provider, tmp_path):
    offer = offer_of(provider)
    sim.faults({"rate_dearer": {"factor": 1.5}})
    first = provider.launch(colab_job(tmp_path / "home"), offer)
    dearer = Decimal("1.605") * rates.UNIT_USD
    assert provider.inspect(first).price == pytest.approx(dearer, abs=Decimal("0.0001"))
    second = provider.launch(colab_job(tmp_path / "home"), offer)
    assert provider.inspect(second).price == Decimal("0.1069")  # of both together, less the first
    assert offer_of(open_colab(sim, tmp_path / "home")).price == Decimal("0.1069")
    provider.terminate([first, second])


def test_the_balance_is_told_in_units_and_dollars(sim, provider):
    sim.faults({"balance": {"units": 12.5}})
    funds = provider.funds()
    assert (funds.balance, funds.words) == (Decimal("1.2488"), "12.50 compute units")
    assert funds.page


def test_a_balance_that_is_used_up_ends_what_it_paid_for(sim, provider, given):
    sim.faults({"balance": {"units": 0, "free": 4}})
    provider._balance = None
    assert provider.inspect(given[1]).failure == "the account's compute units are used up"
    with pytest.raises(QuotaError, match="no compute units"):
        provider.launch(colab_job(provider._home), Offer("colab", "T4", "t4", 1, Decimal("0.1069")))


def test_the_free_tier_has_one_vm_no_price_and_the_hours_of_its_quota(sim, provider, tmp_path):
    sim.faults({"free_tier": {"units": 2.14}})
    offers = {one.name: one for one in provider.offers()}
    offer = offers["T4@free"]
    assert (offer.price, offer.cloud, offer.most_hours, offer.available) == (0, "free", 2.0, True)
    assert [one.available for one in offers.values()].count(True) == 1
    allocation_id = provider.launch(colab_job(tmp_path / "home"), offer)
    assert provider.inspect(allocation_id).price == 0
    with pytest.raises(QuotaError, match="one VM"):
        provider.launch(colab_job(tmp_path / "home"), offer)
    provider.terminate([allocation_id])


@pytest.mark.usefixtures("given")
def test_nothing_that_opens_anything_is_in_what_is_kept(provider, sim):
    told = [path.read_text() for path in provider._home.rglob("*.json")]
    login = json.loads(Path(sim.exports["GOOGLE_APPLICATION_CREDENTIALS"]).read_text())
    assert told
    for secret in (login["refresh_token"], login["client_secret"], provider._login.reveal()):
        assert all(secret not in text for text in told)


def test_an_answer_that_quotes_the_token_is_not_quoted(provider):
    reply = provider._api.reply("GET", "/nothing-there")
    assert provider._login.reveal() not in str(api.error_of(reply))
