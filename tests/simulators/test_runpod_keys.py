"""What the key inside a pod may, in its three settings, and GraphQL when it fails or is retired."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from runpod_fixture import RunPodSim

TERMINATE = 'mutation { podTerminate(input: {podId: "%s"}) }'


@pytest.fixture
def still(start_runpod: Callable[..., RunPodSim]) -> RunPodSim:
    """A world that moves only when it is told to; a minute from create to RUNNING."""
    return start_runpod(rate=0.01, start_seconds=60)


def billing(sim: RunPodSim) -> list[str]:
    return [row["id"] for row in sim.meter()["allocations"] if row["ended"] is None]


def end(sim: RunPodSim) -> None:
    for one in billing(sim):
        assert sim.delete(one).status_code == 204


@pytest.mark.parametrize(
    ("may", "rest", "graphql"),
    [("none", 403, False), ("graphql", 403, True), ("all", 200, True), (None, 403, True)],
)
def test_the_key_inside_a_pod_may_what_it_is_set_to(still, may: str | None, rest: int, *, graphql: bool) -> None:
    if may:
        still.faults({"pod_key": {"may": may}})
    one, other = still.created(), still.created()
    key = _key_inside(still, one)
    own = {"Authorization": f"Bearer {key}"}
    assert still.call("GET", f"/pods/{one}", headers=own).status_code == rest
    assert still.call("GET", "/pods", headers=own).status_code == 403
    assert still.call("DELETE", f"/pods/{other}", headers=own).status_code == 403
    assert still.call("POST", "/pods", {}, headers=own).status_code == 403
    assert "errors" in still.graphql(TERMINATE % other, key=key).json()
    assert "errors" in still.graphql("query { myself { clientBalance } }", key=key).json()
    assert billing(still) == [one, other]
    if graphql:
        assert still.graphql(TERMINATE % one, key=key).json() == {"data": {"podTerminate": None}}
        assert still.graphql(TERMINATE % one, key=key).status_code == 401  # the key goes with its pod
    else:
        assert "errors" in still.graphql(TERMINATE % one, key=key).json()
    assert (one in billing(still)) is not graphql
    end(still)


def test_a_key_that_may_all_ends_its_pod_by_rest(still: RunPodSim) -> None:
    still.faults({"pod_key": {"may": "all", "times": 2}})
    ways = (("DELETE", "", None), ("POST", "/action", {"action": "terminate"}))
    for method, path, body in ways:
        one = still.created()
        own = {"Authorization": f"Bearer {_key_inside(still, one)}"}
        assert still.call(method, f"/pods/{one}{path}", body, headers=own).status_code == 204
    assert billing(still) == []


def _key_inside(sim: RunPodSim, one: str) -> str:
    """Tell the key that a pod was given: it is in its environment, and nowhere in the API."""
    assert "RUNPOD_API_KEY" not in sim.pod(one)["env"]
    return sim.key_inside(one)


def test_graphql_can_be_retired_and_can_fail(still: RunPodSim) -> None:
    still.faults({"graphql_errors": 1})
    reply = still.graphql("query { myself { id } }")
    assert (reply.status_code, reply.json()["data"]) == (200, None)
    assert "data" in still.graphql("query { myself { id } }").json()
    still.faults(["graphql_retired"])
    assert still.graphql("query { myself { id } }").status_code == 410
