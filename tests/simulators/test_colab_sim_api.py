"""The simulated Colab speaks as colab.md says the real one does: two steps, prefix, tokens, one VM a notebook."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING

import pytest
import requests
from colab_fixture import PREFIX, TUNNEL, new_nbh

if TYPE_CHECKING:
    from collections.abc import Callable

    from colab_fixture import ColabSim


@pytest.fixture
def still(start_colab: Callable[..., ColabSim]) -> ColabSim:
    """A world that moves only when it is told to."""
    return start_colab(rate=0.01)


def test_an_assign_is_offered_a_token_and_given_a_vm(colab_sim):
    nbh = new_nbh()
    offered = colab_sim.told("GET", "/assign", params={"nbh": nbh, "variant": "GPU", "accelerator": "T4"})
    assert offered["token"]
    assert (offered["acc"], offered["nbh"], offered["p"], offered["variant"]) == ("T4", nbh, False, "GPU")
    given = colab_sim.assigned(nbh=nbh)
    assert (given["accelerator"], given["variant"], given["machineShape"], given["outcome"]) == ("T4", 1, 0, 4)
    assert given["runtimeProxyInfo"].keys() == {"token", "tokenExpiresInSeconds", "url"}
    colab_sim.end()


def test_one_notebook_has_one_vm_however_often_it_asks(colab_sim):
    nbh = new_nbh()
    params = {"nbh": nbh, "variant": "GPU", "accelerator": "T4"}
    token = colab_sim.told("GET", "/assign", params=params)["token"]
    posted = [
        colab_sim.tunnel("POST", "/assign", params=params, headers={"X-Goog-Colab-Token": token}) for _ in range(2)
    ]
    endpoints = {json.loads(reply.text.removeprefix(PREFIX))["endpoint"] for reply in posted}
    assert endpoints == {colab_sim.told("GET", "/assign", params=params)["endpoint"]}
    assert len(colab_sim.listed()) == 1
    colab_sim.end()


@pytest.mark.parametrize(
    ("wrong", "status"),
    [
        ({"nbh": "short"}, 400),
        ({"accelerator": "A1000"}, 400),
        ({"variant": "TPU"}, 400),
        ({"accelerator": "L4", "shape": "hm"}, 400),
        ({"authuser": ""}, 400),
    ],
)
def test_an_assign_that_makes_no_sense_is_refused(colab_sim, wrong: dict, status: int):
    params = {"nbh": new_nbh(), "variant": "GPU", "accelerator": "T4", **wrong}
    assert colab_sim.tunnel("GET", "/assign", params=params).status_code == status


def test_nothing_is_changed_without_the_token_for_this_very_address(colab_sim):
    one = {"nbh": new_nbh(), "variant": "GPU", "accelerator": "T4"}
    other = colab_sim.told("GET", "/assign", params={**one, "nbh": new_nbh()})["token"]
    for headers in ({}, {"X-Goog-Colab-Token": other}):
        assert colab_sim.tunnel("POST", "/assign", params=one, headers=headers).status_code == 403
    assert colab_sim.meter()["allocations"] == []


def test_every_list_mints_fresh_tokens(colab_sim):
    first = colab_sim.assigned()["runtimeProxyInfo"]["token"]
    tokens = {first, *(colab_sim.listed()[0]["runtimeProxyInfo"]["token"] for _ in range(2))}
    assert len(tokens) == 3
    colab_sim.end()


def test_what_is_unassigned_is_gone_and_draws_nothing(colab_sim):
    endpoint = colab_sim.assigned()["endpoint"]
    assert colab_sim.unassign(endpoint).status_code == 204
    assert colab_sim.listed() == []
    assert colab_sim.tunnel("GET", f"/unassign/{endpoint}").status_code == 404
    assert colab_sim.ccu()["consumptionRateHourly"] == 0


def test_a_keep_alive_wants_its_header_and_a_vm(colab_sim):
    endpoint = colab_sim.assigned()["endpoint"]
    path, header = f"/{endpoint}/keep-alive/", {"X-Colab-Tunnel": "Google"}
    assert colab_sim.tunnel("GET", path).status_code == 400
    assert colab_sim.tunnel("GET", path, headers=header).status_code == 200
    colab_sim.end()
    assert colab_sim.tunnel("GET", path, headers=header).status_code == 404


def test_bodies_come_behind_a_prefix_unless_a_fault_takes_it(colab_sim):
    assert colab_sim.tunnel("GET", "/assignments").text.startswith(PREFIX)
    colab_sim.faults({"no_prefix": 1})
    assert colab_sim.tunnel("GET", "/assignments").json() == {"assignments": []}
    assert colab_sim.tunnel("GET", "/assignments").text.startswith(PREFIX)


# ── who is let in ────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_stranger_is_not_let_in(colab_sim):
    for headers in ({}, {"Authorization": "Bearer ya29.wrong"}):
        reply = requests.get(f"{colab_sim.url}{TUNNEL}/ccu-info", params={"authuser": "0"}, headers=headers, timeout=30)
        assert reply.status_code == 401


def test_an_access_token_ends_and_is_refreshed(colab_sim):
    old = colab_sim.key
    assert 3500 < colab_sim.refreshed().json()["expires_in"] <= 3600
    assert colab_sim.tunnel("GET", "/ccu-info").status_code == 200
    colab_sim.faults({"login_ends": 1})
    assert colab_sim.tunnel("GET", "/ccu-info").status_code == 401
    colab_sim._token.clear()
    assert colab_sim.tunnel("GET", "/ccu-info").status_code == 200
    assert colab_sim.key != old


def test_a_login_at_google_does_not_age_with_the_vendors_clock(still):
    assert still.key
    still.advance(7200)
    assert still.tunnel("GET", "/ccu-info").status_code == 200


def test_a_refresh_tells_scopes_and_whose_it_is(colab_sim):
    told = colab_sim.refreshed().json()
    info = requests.get(f"{colab_sim.url}/tokeninfo", params={"access_token": told["access_token"]}, timeout=30).json()
    assert "https://www.googleapis.com/auth/userinfo.email" in info["scope"].split()
    body = told["id_token"].split(".")[1]
    assert json.loads(base64.urlsafe_b64decode(body + "=="))["email"] == info["email"]


def test_a_refresh_with_the_wrong_word_is_refused(colab_sim):
    assert colab_sim.refreshed(refresh_token="1//other").json()["error"] == "invalid_grant"  # noqa: S106 - nobody's
    assert colab_sim.refreshed(client_secret="other").json()["error"] == "invalid_client"  # noqa: S106 - nobody's


def test_a_service_account_gets_what_it_asks_for_and_no_address_means_no_way_in(colab_sim):
    claim = {"iss": "robot@example.iam.gserviceaccount.com", "scope": "https://www.googleapis.com/auth/cloud-platform"}
    coded = base64.urlsafe_b64encode(json.dumps(claim).encode()).decode().rstrip("=")
    form = {"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion": f"e30.{coded}.e30"}
    token = requests.post(f"{colab_sim.url}/token", data=form, timeout=30).json()["access_token"]
    headers = {"Authorization": f"Bearer {token}"}
    assert colab_sim.tunnel("GET", "/ccu-info", headers=headers).status_code == 401


def test_no_token_and_no_key_stands_in_the_journal(colab_sim):
    given = colab_sim.assigned()
    colab_sim.end()
    journal = json.dumps(colab_sim.asked())
    for secret in (colab_sim.key, colab_sim.login["refresh_token"], given["runtimeProxyInfo"]["token"]):
        assert secret not in journal
    assert {one["operation"] for one in colab_sim.asked()} >= {"token", "assign_get", "assign", "list", "unassign"}
