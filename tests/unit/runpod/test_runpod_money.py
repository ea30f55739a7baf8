"""RunPod's money plane on the simulator: offers, one pod and its end, what is told of the account."""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from decimal import Decimal

import pytest
from runpods import RTX_3090, hold_to_the_document, offer_of, open_runpod, runpod_job

from providers.base import Phase, Place, Proof, Provider
from providers.errors import CredentialsError, NoCapacityError, ProviderError, UnreachableError, UsageError
from providers.optional import Adopts, Funded, Funds

DISK = 60 * Decimal("0.10") / 730
PRICE = (Decimal("0.50") + DISK).quantize(Decimal("0.000001"))


def names(provider, **facts) -> set[str]:
    return {one.name for one in provider.offers() if all(getattr(one, key) == value for key, value in facts.items())}


def until(fact):
    while not (found := fact()):
        continue
    return found


def test_the_adapter_keeps_the_contract_and_marks_nothing_that_runs(provider):
    assert isinstance(provider, Provider)
    assert isinstance(provider, Funded)
    assert not isinstance(provider, Adopts)  # an edit would reset the pod


def test_a_type_is_offered_anywhere_then_by_data_center_with_its_disk_in_the_price(provider):
    offers = [one for one in provider.offers() if one.gpu == "rtx-3090" and one.gpu_count == 1 and not one.cloud]
    assert [one.name for one in offers] == [RTX_3090, f"{RTX_3090}@EU-CZ-1", f"{RTX_3090}@US-KS-2"]
    assert [one.region for one in offers] == ["", "EU-CZ-1", "US-KS-2"]
    assert {one.price for one in offers} == {PRICE}
    two = offer_of(provider, f"2x {RTX_3090}")
    assert (two.gpu_count, two.price) == (2, (1 + DISK).quantize(Decimal("0.000001")))


def test_strangers_machines_are_offered_under_their_own_word_and_in_no_data_center(provider):
    found = [one for one in provider.offers() if one.cloud]
    assert {one.cloud for one in found} == {"community"}
    assert {one.name.partition("@")[2] for one in found} == {"community"}
    assert {one.region for one in found} == {""}
    assert "NVIDIA A40@community" not in {one.name for one in found}  # a price of 0 where a cloud has none


def test_what_is_sold_out_is_offered_as_such_and_what_cannot_run_our_image_not_at_all(provider):
    assert not offer_of(provider, "NVIDIA L40").available
    assert not any("AMD" in name for name in names(provider))


def test_a_pod_is_found_by_its_mark_billed_from_its_creation_and_gone_by_the_vendor_s_word(sim, provider, tmp_path):
    job = runpod_job(tmp_path / "home")
    allocation_id = provider.launch(job, offer_of(provider))
    other = open_runpod(sim, tmp_path / "home")
    (found,) = other.find(job.mark)
    assert (found.id, found.mark, found.billing, found.price) == (allocation_id, job.mark, True, PRICE)
    look = until(lambda: (one := other.inspect(allocation_id)).phase is Phase.READY and one)
    assert (look.billing, look.price, look.billed_from) == (True, PRICE, found.since)
    assert not provider.extend(allocation_id, job.ceiling.replace(year=job.ceiling.year + 1))
    provider.terminate([allocation_id, "no-such-id", allocation_id])
    gone = provider.inspect(allocation_id)
    assert (gone.phase, gone.billing, gone.ended) == (Phase.ABSENT, False, True)
    assert gone.evidence.startswith("DELETE → 204, GET /pods/")
    (row,) = sim.meter()["allocations"]
    ended = datetime.fromisoformat(row["ended"])
    assert gone.billed_until <= ended <= gone.billed_until + timedelta(seconds=gone.billed_within)
    seen, began = provider.inspect(allocation_id), datetime.fromisoformat(row["started"])
    assert seen.billed_within <= gone.billed_within  # the first read of its absence, however often it is read
    assert look.billed_from <= began <= look.billed_from + timedelta(seconds=look.billed_within)
    blind = other.inspect(allocation_id)  # who did not end it has no word for it: three reads
    assert (blind.phase, blind.ended, blind.billed_until) == (Phase.ABSENT, False, None)
    assert "PATCH" not in {one["method"] for one in sim.asked()}


def ended_by_the_meter(sim, allocation_id: str) -> datetime:
    (row,) = (row for row in sim.meter()["allocations"] if row["id"] == allocation_id)
    return datetime.fromisoformat(row["ended"])


def holds(look, moment: datetime) -> bool:
    return look.billed_until <= moment <= look.billed_until + timedelta(seconds=look.billed_within)


def test_a_begin_is_dated_by_our_order_and_its_answer(sim, provider, tmp_path):
    allocation_id = provider.launch(runpod_job(tmp_path / "home"), offer_of(provider))
    look = provider.inspect(allocation_id)
    began = datetime.fromisoformat(sim.meter()["allocations"][0]["started"])
    assert look.billed_from <= began <= look.billed_from + timedelta(seconds=look.billed_within)
    assert look.billed_within <= 1
    provider.terminate([allocation_id])


def test_an_end_is_dated_however_it_came_and_whatever_the_clock_did_then(sim, provider, tmp_path):
    home, offer = tmp_path / "home", offer_of(provider)
    sim.faults({"terminated_lingers": {"seconds": 60_000}})
    itself = provider.launch(runpod_job(home), offer)
    provider.inspect(itself)
    sim.delete(itself)  # its own watchdog's, a little before ours
    time.sleep(0.5)
    provider.terminate([itself])
    assert holds(provider.inspect(itself), ended_by_the_meter(sim, itself))
    moved = provider.launch(runpod_job(home), offer)
    provider.inspect(moved)
    provider.terminate([moved])
    sim.advance(600)
    assert holds(provider.inspect(moved), ended_by_the_meter(sim, moved))
    twice = provider.launch(runpod_job(home), offer)
    provider.inspect(twice)
    sim.faults({"delete_ignored": {"times": 1}, "get_flicker": {"times": 1}})
    provider.terminate([twice])
    time.sleep(1.2)
    provider.terminate([twice])
    assert holds(provider.inspect(twice), ended_by_the_meter(sim, twice))


def test_every_endpoint_that_we_use_was_asked_and_is_as_documented(sim, provider, rented):
    sim.faults({"conflict": 1})
    provider.terminate([rented[1]])
    provider._api.log(rented[1], lambda _line: True)
    assert hold_to_the_document(sim) == {
        ("GET", "/v2/catalog/gpus"),
        ("POST", "/v2/pods"),
        ("GET", "/v2/pods/{id}/logs"),
        ("DELETE", "/v2/pods/{id}"),
        ("POST", "/v2/pods/{id}/action"),
        ("GET", "/v2/pods/{id}"),  # at once: nobody but us dates its end
    }
    provider.inspect(rented[1])
    assert ("GET", "/v2/pods") in hold_to_the_document(sim)


def test_others_pods_are_shown_and_a_stopped_one_bills_only_for_a_volume(sim, provider):
    plain = sim.created(name="mine")
    volume = sim.created(name="kept", mounts={"persistent": {"size": 20, "path": "/workspace"}})
    for one in (plain, volume):
        until(lambda one=one: sim.pod(one)["status"] == "RUNNING")
        sim.call("POST", f"/pods/{one}/action", {"action": "stop"})
    listed = {one.id: one for one in provider.allocations()}
    assert {one.mark for one in listed.values()} == {None}
    assert [listed[one].billing for one in (plain, volume)] == [False, True]
    for one in (plain, volume):
        sim.delete(one)


def test_ours_that_was_stopped_is_broken_and_to_be_ended(sim, provider, rented):
    until(lambda: provider.inspect(rented[1]).phase is Phase.READY)
    sim.call("POST", f"/pods/{rented[1]}/action", {"action": "stop"})
    look = provider.inspect(rented[1])
    assert (look.billing, look.phase) == (True, Phase.QUEUED)
    assert look.failure.startswith("EXITED")
    assert [one.billing for one in provider.allocations()] == [True]


@pytest.mark.parametrize(
    ("fault", "least", "most"), [({}, "0.508", "0.509"), ({"cost_with_disk": 1}, "0.508", "0.509")]
)
def test_the_price_is_read_back_with_its_disk_whether_the_vendor_counts_it_or_not(
    sim, provider, tmp_path, fault, least, most
):
    sim.faults(fault)
    one = provider.launch(runpod_job(tmp_path / "home"), offer_of(provider))
    assert Decimal(least) < provider.inspect(one).price < Decimal(most)
    provider.terminate([one])


def test_a_dearer_pod_shows_it_at_once(sim, provider, tmp_path):
    sim.faults({"price_dearer": 1})
    one = provider.launch(runpod_job(tmp_path / "home"), offer_of(provider))
    assert provider.inspect(one).price > Decimal("0.75")
    provider.terminate([one])


@pytest.mark.parametrize("fault", [{"pages": {"size": 1}}, {"no_pagination": {}}, {"pages": {"size": 2}}])
def test_every_page_of_the_list_is_read(sim, provider, fault):
    ids = {sim.created() for _ in range(3)}
    sim.faults(fault)
    assert {one.id for one in provider.allocations()} == ids
    for one in ids:
        sim.delete(one)


def test_a_404_of_what_is_listed_is_no_absence(sim, provider, rented):
    sim.faults({"get_flicker": 1})
    with pytest.raises(UnreachableError, match="yet it is listed"):
        provider.inspect(rented[1])
    assert provider.inspect(rented[1]).billing


def test_an_end_that_is_answered_and_not_carried_out_is_none(sim, provider, rented):
    sim.faults({"delete_ignored": {"times": 1}})
    provider.terminate([rented[1]])
    assert provider.inspect(rented[1]).billing
    provider.terminate([rented[1]])
    assert provider.inspect(rented[1]).ended


def test_where_delete_is_closed_the_action_ends_it(sim, provider, rented):
    sim.faults({"delete_500": {"times": None}})
    provider.terminate([rented[1]])
    assert provider.inspect(rented[1]).ended


def test_an_end_that_nobody_takes_is_an_error_that_names_the_pod(sim, provider, rented):
    sim.faults({"unavailable": {"times": 10}})
    with pytest.raises(UnreachableError) as raised:
        provider.terminate([rented[1]])
    assert raised.value.allocation_id == rented[1]
    until(lambda: sim.delete(rented[1]).status_code == 204)


def test_a_word_that_the_vendor_made_up_later_bills_and_waits(sim, provider, rented):
    until(lambda: provider.inspect(rented[1]).phase is Phase.READY)
    sim.faults({"unknown_status": {"times": 1}})
    look = provider.inspect(rented[1])
    assert (look.phase, look.billing, look.failure) == (Phase.QUEUED, True, "")


def test_the_pod_itself_is_the_holder_and_nobody_vouches_for_it_before_it_runs(provider, tmp_path):
    (holder,) = provider.holders(runpod_job(tmp_path / "home"), offer_of(provider))
    assert (holder.place, holder.proof, holder.extendable) == (Place.MACHINE, Proof.UNPROVEN, True)


def test_balance_spending_and_limit_are_told_and_silently_not_when_graphql_is_gone(sim, provider):
    assert provider.funds() == Funds(Decimal("100.0"), Decimal("0.0"), Decimal("80.0"))
    for fault in ({"graphql_errors": 1}, {"graphql_retired": 1}):
        sim.faults(fault)
        assert provider.funds() is None


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ({"capacity": 1}, NoCapacityError),
        ({"forbidden": 1}, NoCapacityError),
        ({"key_rejected": 1}, CredentialsError),
    ],
)
def test_what_a_refused_create_says_is_told_apart_and_rents_nothing(sim, provider, tmp_path, fault, error):
    offer = offer_of(provider)
    sim.faults(fault)
    with pytest.raises(error):
        provider.launch(runpod_job(tmp_path / "home"), offer)
    assert sim.meter()["allocations"] == []


def test_capacity_is_by_data_center(sim, provider, tmp_path):
    gone = offer_of(provider, f"{RTX_3090}@US-KS-2")
    sim.tell("/clock", {"capacity": {RTX_3090: ["EU-CZ-1"]}})
    with pytest.raises(NoCapacityError):
        provider.launch(runpod_job(tmp_path / "home"), gone)
    one = provider.launch(runpod_job(tmp_path / "home"), offer_of(provider, f"{RTX_3090}@EU-CZ-1"))
    assert sim.pod(one)["dataCenterId"] == "EU-CZ-1"
    provider.terminate([one])


@pytest.mark.parametrize(
    ("more", "kind"),
    [
        ({"RUNPOD_API_KEY": ""}, CredentialsError),
        ({"RUNPOD_API_KEY": "with space"}, CredentialsError),
        ({"GPURUN_RUNPOD_URL": "http://example.org/v2"}, UsageError),
        ({"GPURUN_RUNPOD_PACE": "fast"}, UsageError),
        ({"GPURUN_RUNPOD_DISK_GB": "10"}, UsageError),
    ],
)
def test_a_setting_that_makes_no_sense_is_named(sim, tmp_path, more, kind):
    with pytest.raises(kind, match=next(iter(more))):
        open_runpod(sim, tmp_path, **more)


def test_an_unnamed_refusal_of_the_list_is_an_error(sim, provider):
    sim.faults({"bad_gateway": {"times": 10}})
    with pytest.raises(ProviderError):
        provider.allocations()
