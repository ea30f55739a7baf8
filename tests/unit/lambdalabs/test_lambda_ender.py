"""What a machine at Lambda ends itself by: given with leave only, for its own id, and used by the shipped ender."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace

import pytest
from boxes import PAYLOAD
from lambdas import offer_of

from providers.base import Access, Place, Proof
from providers.lambdalabs import ender as lambda_ender


@pytest.fixture(scope="module")
def ender():
    """The program as it runs on the machine, alone."""
    spec = importlib.util.spec_from_file_location("ender_alone", PAYLOAD / "ender.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def orders(sim, provider, rented):
    return json.loads(lambda_ender.orders(sim.url, provider._key, rented[1]).reveal())


def test_without_leave_nobody_holds_and_nothing_is_given(provider, rented, tmp_path):
    job, allocation_id = rented
    assert provider.holders(job, offer_of(provider)) == []
    remote = provider.remote(allocation_id, Access(tmp_path))
    assert remote._ender is None
    remote.close()


def test_with_leave_the_watchdog_holds_and_gets_orders_for_this_machine_only(sim, provider, rented, tmp_path):
    job, allocation_id = rented
    (holder,) = provider.holders(replace(job, key_on_machine=True), offer_of(provider))
    assert (holder.place, holder.proof, holder.extendable) == (Place.MACHINE, Proof.UNPROVEN, True)
    assert holder.worst_overrun_seconds > 0
    remote = provider.remote(allocation_id, Access(tmp_path, key_on_machine=True))
    orders = json.loads(remote._ender.reveal())
    remote.close()
    assert sim.key not in repr(remote._ender)
    assert [route["body"] for route in orders["routes"]] == [{"instance_ids": [allocation_id]}]
    assert orders["look"]["url"] == f"{sim.url}/instances/{allocation_id}"
    assert {one["headers"]["Authorization"] for one in (*orders["routes"], orders["look"])} == {f"Bearer {sim.key}"}


def test_the_ender_sees_its_machine_and_ends_it_and_no_other(sim, rented, ender, orders):
    other = sim.launched(name="somebody's")
    assert ender.look(orders)["said"] == "alive"
    said = []
    sim.may_hurry = True
    ender.fire(None, said.append, lambda _seconds: None, lambda _folder: orders)
    assert said[-1]["said"] == "gone"
    assert {row["id"]: row["ended"] is None for row in sim.meter()["allocations"]} == {rented[1]: False, other: True}
    sim.terminate(other)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ({"key_rejected": {"times": 1}}, "refused"),
        ({"account_inactive": {"times": 1}}, "refused"),
        ({"cloudflare": {"times": 1}}, "refused"),
        ({"unavailable": {"times": 1}}, "unclear"),
        ({"bad_gateway": {"times": 1}}, "unclear"),
        ({"redirect": {"times": 1}}, "unclear"),
        ({"rate_limited": {"times": 1}}, "unclear"),
        ({"reply_garbled": {"times": 1, "of": "get"}}, "unclear"),
        ({"get_flicker": {"times": 1}}, "gone"),
        ({"unknown_status": {"times": 1}}, "alive"),
    ],
)
def test_every_mood_of_lambda_s_is_told_right(sim, ender, orders, fault, said):
    sim.faults(fault)
    assert ender.look(orders)["said"] == said
    assert ender.look(orders)["said"] == "alive"


def test_terminates_that_are_ignored_are_told_again(sim, rented, ender, orders):
    sim.faults({"terminate_ignored": {"times": 30}})
    sim.may_hurry = True
    said = []
    ender.fire(None, said.append, lambda _seconds: None, lambda _folder: orders)
    assert len(said) == 33
    (row,) = sim.meter()["allocations"]
    assert (row["id"], row["ended_by"]) == (rented[1], "terminate")
