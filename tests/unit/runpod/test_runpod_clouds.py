"""Which of RunPod's clouds a command takes: its own, unless strangers' machines are asked for, and then it says so."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from fakes import OFFER

from orchestrator.cli import main
from orchestrator.cloud import asked_for, of_cloud
from providers.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

STRANGERS = replace(OFFER, name="cheap@community", cloud="community")
BOTH = [STRANGERS, OFFER]


@pytest.fixture
def plan(sim, home, monkeypatch, capsys) -> Callable[..., tuple[int, str, str]]:  # noqa: ARG001 (its home)
    for name, value in sim.exports.items():
        monkeypatch.setenv(name, value)

    def plan(*more: str) -> tuple[int, str, str]:
        try:
            code = main(["launch", "loop", "--provider", "runpod", "--gpu", "3090", "--dry-run", *more])
        except SystemExit as left:
            code = left.code
        return code or 0, *capsys.readouterr()

    return plan


@pytest.mark.parametrize("cloud", ["", "secure"])
def test_the_vendor_s_own_machines_are_taken_unless_another_cloud_is_named(cloud):
    assert of_cloud(BOTH, cloud) == asked_for(BOTH, cloud) == [OFFER]
    assert of_cloud(BOTH, "community") == asked_for(BOTH, "community") == [STRANGERS]


def test_a_vendor_without_such_a_cloud_says_so():
    with pytest.raises(UsageError, match="no community cloud"):
        asked_for([OFFER], "community")
    assert of_cloud([OFFER], "community") == []


def test_a_plan_takes_runpod_s_own_and_names_a_stranger_s_machine_only_where_asked(plan):
    code, out, _ = plan()
    assert (code, "COMMUNITY" in out, "@community" in out, "$0.51/h" in out) == (0, False, False, True)
    code, out, _ = plan("--cloud", "community")
    assert (code, "@community" in out, "$0.23/h" in out) == (0, True, True)
    assert out.count("COMMUNITY: private data and tokens then lie on a stranger's machine") == 1
    assert "watchdog (machine): unproven until start" in out


def test_every_candidate_of_a_plan_is_of_its_cloud(plan):
    for cloud in ("secure", "community"):
        _, out, _ = plan("--cloud", cloud, "--json")
        clouds = {one["cloud"] for one in json.loads(out)["candidates"]}
        assert clouds == {"" if cloud == "secure" else cloud}


def test_the_account_s_key_has_no_use_there(plan):
    code, _, err = plan("--key-on-machine")
    assert (code, "no use on runpod" in err) == (2, True)
