"""Every fault of Colab's table does what its row says, as often as it says, and no more."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import requests
from colab_fixture import PREFIX, new_nbh

from simulators.colab.faults import BOOK

if TYPE_CHECKING:
    from collections.abc import Callable

    from colab_fixture import ColabSim


@pytest.fixture
def still(start_colab: Callable[..., ColabSim]) -> ColabSim:
    """A world that moves only when it is told to."""
    return start_colab(rate=0.01)


def ended_by(sim: ColabSim) -> list[str]:
    return [row["ended_by"] for row in sim.meter()["allocations"]]


@pytest.mark.parametrize(
    ("fault", "status"),
    [({"capacity": 1}, 503), ({"too_many": 1}, 412), ({"not_entitled": 1}, 400), ({"xsrf_rejected": 1}, 403)],
)
def test_a_refused_assign_assigns_nothing_and_the_next_is_taken(still, fault: dict, status: int):
    still.faults(fault)
    assert still.assign().status_code == status
    assert still.meter()["allocations"] == []
    assert still.assign().status_code == 200
    still.end()


@pytest.mark.parametrize("code", [1, 2, 5])
def test_an_outcome_comes_as_a_success_without_an_endpoint(still, code: int):
    still.faults({"outcome": {"code": code}})
    assert still.assigned() == {"outcome": code}
    assert still.meter()["allocations"] == []


def test_a_stock_out_can_be_of_one_accelerator_only(still):
    still.faults({"capacity": {"times": None, "type": "L4"}})
    assert [still.assign(name).status_code for name in ("L4", "T4")] == [503, 200]
    still.end()


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        ("key_rejected", 401),
        ("rate_limited", 429),
        ("server_error", 500),
        ("bad_gateway", 502),
        ("unavailable", 503),
        ("gateway_timeout", 504),
    ],
)
def test_a_request_is_turned_away_as_often_as_it_says(still, fault: str, status: int):
    still.faults({fault: {"times": 2, "of": "list"}})
    assert [still.tunnel("GET", "/assignments").status_code for _ in range(3)] == [status, status, 200]


@pytest.mark.parametrize(("fault", "status"), [("reply_lost", None), ("reply_500", 500), ("reply_504", 504)])
def test_a_lost_answer_leaves_a_vm_that_is_not_listed_and_that_its_notebook_knows(still, fault: str, status):
    nbh = new_nbh()
    still.faults({fault: 1})
    try:
        seen = still.assign(nbh=nbh).status_code
    except requests.ConnectionError:
        seen = None
    assert seen == status
    assert still.listed() == []
    endpoint = still.told("GET", "/assign", params={"nbh": nbh, "variant": "GPU", "accelerator": "T4"})["endpoint"]
    still.advance(30)
    assert [row["endpoint"] for row in still.listed()] == [endpoint]
    still.end()


def test_an_assign_that_hangs_has_assigned(start_colab):
    sim = start_colab(pace=1000)
    nbh = new_nbh()
    sim.faults({"assign_hangs": {"seconds": 300}})
    with pytest.raises(requests.ConnectionError):
        sim.assign(nbh=nbh)
    assert sim.told("GET", "/assign", params={"nbh": nbh, "variant": "GPU", "accelerator": "T4"})["endpoint"]
    sim.end()


def test_a_garbled_answer_is_no_json(still):
    still.faults({"reply_garbled": 1})
    with pytest.raises(json.JSONDecodeError):
        json.loads(still.assign().text.removeprefix(PREFIX))
    still.advance(30)
    still.end()


def test_another_card_may_be_given_and_both_answers_say_so(still):
    still.faults({"substituted": {"to": "L4"}})
    given = still.assigned("A100")
    assert (given["accelerator"], still.listed()[0]["accelerator"]) == ("L4", "L4")
    assert still.ccu()["consumptionRateHourly"] == pytest.approx(1.71)
    still.end()


def test_a_browser_may_be_asked_for(still):
    still.faults({"recaptcha": 1})
    params = {"nbh": new_nbh(), "variant": "GPU", "accelerator": "T4"}
    assert [still.told("GET", "/assign", params=params)["p"] for _ in range(2)] == [True, False]


def test_a_vm_may_vanish(still):
    still.faults({"vanish": {"after": 60}})
    endpoint = still.assigned()["endpoint"]
    still.advance(61)
    assert (still.listed(), ended_by(still)) == ([], ["vanished"])
    assert still.tunnel("GET", f"/unassign/{endpoint}").status_code == 404


def test_faults_strike_a_vm_that_is_there_where_they_can(still):
    endpoint = still.assigned()["endpoint"]
    still.faults({"vanish": {"instance": endpoint, "after": 10}})
    still.advance(11)
    assert ended_by(still) == ["vanished"]
    with pytest.raises(requests.HTTPError):
        still.faults({"substituted": {"instance": "*"}})


def test_an_unassign_may_fail_three_times(still):
    endpoint = still.assigned()["endpoint"]
    still.faults({"unassign_500": 3})
    assert [still.unassign(endpoint).status_code for _ in range(4)] == [500, 500, 500, 204]


def test_an_unassign_may_be_taken_and_forgotten(still):
    endpoint = still.assigned()["endpoint"]
    still.faults({"unassign_ignored": 1})
    assert still.unassign(endpoint).status_code == 204
    assert len(still.listed()) == 1
    assert still.unassign(endpoint).status_code == 204
    assert still.listed() == []


def test_a_list_may_lag_flicker_and_linger(still):
    still.faults({"list_lag": {"seconds": 30}, "lingers": {"seconds": 30}})
    endpoint = still.assigned()["endpoint"]
    assert still.listed() == []
    still.advance(31)
    still.faults({"list_flicker": 1})
    assert [len(still.listed()) for _ in range(2)] == [0, 1]
    still.unassign(endpoint)
    assert len(still.listed()) == 1
    still.advance(31)
    assert still.listed() == []


def test_others_vms_are_listed_too(still):
    still.faults({"foreign": {"count": 2}})
    assert len(still.listed()) == 2
    assert still.ccu()["assignmentsCount"] == 2
    still.end()


def test_a_keep_alive_may_never_answer_and_counts_all_the_same(start_colab):
    sim = start_colab(rate=100)  # an answer is held back for a minute of the vendor's
    endpoint = sim.assigned()["endpoint"]
    sim.faults({"keep_alive_silent": 1})
    before = sim.state()["instances"][0]["pinged"]
    with pytest.raises(requests.ConnectionError):
        sim.tunnel("GET", f"/{endpoint}/keep-alive/", headers={"X-Colab-Tunnel": "Google"})
    assert sim.state()["instances"][0]["pinged"] > before
    sim.end()


def test_google_may_refuse_to_refresh(still):
    still.faults({"token_refused": 1})
    assert still.refreshed().json()["error"] == "invalid_grant"
    assert still.refreshed().status_code == 200


def test_a_rate_may_be_dearer_than_the_table(still):
    still.faults({"rate_dearer": {"factor": 2}})
    still.assigned("T4")
    assert still.ccu()["consumptionRateHourly"] == pytest.approx(2.14)
    still.end()


def test_the_api_may_be_down(still):
    assert still.ccu()
    still.faults({"api_down": {"how": "503", "seconds": 60}})
    assert still.tunnel("GET", "/ccu-info").status_code == 503
    still.advance(61)
    assert still.tunnel("GET", "/ccu-info").status_code == 200


def test_every_fault_of_the_table_is_carried_out_somewhere():
    folder = Path(__file__).parents[2] / "simulators"
    code = "".join(path.read_text() for path in folder.rglob("*.py") if path.name != "faults.py")
    links = {"link_cut", "link_blackhole", "link_freeze"}  # simulators/roads.py reads the word behind `link_`
    assert [name for name in BOOK.table if f'"{name}"' not in code and name not in links] == []
