"""How a pod ends itself: the shipped ender with the pod's own key, in each state in which that key was ever found."""

from __future__ import annotations

import importlib.util
import json

import pytest
from boxes import PAYLOAD

from providers.base import Access
from providers.runpod import ender as runpod_ender


@pytest.fixture(scope="module")
def ender():
    """The program as it runs in the pod, alone."""
    spec = importlib.util.spec_from_file_location("ender_in_a_pod", PAYLOAD / "ender.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def inside(sim, rented, monkeypatch):
    """Stand in the pod: its id, its own key; `may` says what that key may."""
    monkeypatch.setenv("RUNPOD_POD_ID", rented[1])
    monkeypatch.setenv("RUNPOD_API_KEY", sim.key_inside(rented[1]))
    return lambda may: sim.faults({"pod_key": {"instance": "*", "may": may}})


@pytest.fixture
def orders(sim):
    return runpod_ender.orders(sim.url.removesuffix("/v2"), 1000)


@pytest.mark.parametrize(
    ("may", "said", "evidence"),
    [
        # GraphQL refuses with 200, as it tells of any trouble: only its words differ
        ("none", "unclear", "→ 403, refused; POST 127.0.0.1/graphql → 200, unclear"),
        ("graphql", "alive", "→ 403, refused; POST 127.0.0.1/graphql → 200, alive"),
        ("all", "alive", "GET 127.0.0.1/v2/pods/… → 200, alive"),
    ],
)
def test_the_probe_says_which_ways_are_open_and_changes_nothing(
    provider, rented, inside, ender, orders, may, said, evidence
):
    inside(may)
    told = ender.look(orders)
    assert (told["said"], evidence in told["evidence"]) == (said, True), told
    assert provider.inspect(rented[1]).billing


@pytest.mark.parametrize(
    ("may", "ends", "by"), [("none", False, ""), ("graphql", True, "graphql"), ("all", True, "delete")]
)
def test_it_ends_its_pod_by_whichever_way_is_open_and_never_takes_a_refusal_for_an_end(
    sim, provider, rented, inside, ender, orders, may, ends, by
):
    inside(may)
    said = ender.end_once(orders, lambda _seconds: None)
    (row,) = sim.meter()["allocations"]
    assert (row["ended"] is not None, said["said"] == "gone") == (ends, False)
    operations = [one["operation"] for one in sim.asked() if one["operation"] in {"delete", "action", "graphql"}]
    assert operations[0] == "delete"
    if by == "delete":
        assert "stop" not in json.dumps([one["body"] for one in sim.asked()])
    assert provider.inspect(rented[1]).billing is not ends


def test_a_404_is_no_end_for_one_who_may_not_look(ender, orders):
    problem = {"title": "Not Found", "status": 404, "detail": "resource not found"}
    for way in (orders, *orders["more"]):
        for answer in (ender.Answer(404, problem), ender.Answer(200, {"data": {"pod": None}}), ender.Answer(200, None)):
            assert not any(ender.fits(rule, answer) for rule in (*way["gone"], *way["alive"]))


def test_the_account_s_key_is_in_nothing_that_goes_to_the_pod(sim, provider, rented, tmp_path):
    remote = provider.remote(rented[1], Access(tmp_path, key_on_machine=True))
    assert sim.key not in remote._ender.reveal()
    assert "{env:RUNPOD_API_KEY}" in remote._ender.reveal()
    remote.close()
