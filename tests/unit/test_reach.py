"""Shipping: told to the viewer while it lasts, and stopped when the user wants it no more."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from worlds import RUN, World

from orchestrator.credentials import Redactor
from orchestrator.reach import Reach
from providers.errors import RemoteError

if TYPE_CHECKING:
    from orchestrator.home import RunFolder


def reach(world: World, folder: RunFolder) -> Reach:
    return Reach(world.cloud, folder, "abcd", Redactor(), lambda: world.memory.stop_requested)


def test_what_is_shipped_is_told_beside_the_run(world: World) -> None:
    folder = world.home.run(RUN)
    access = reach(world, folder)._access(world.row)
    assert access.progress is not None
    access.progress(3, 9)
    assert json.loads(folder.shipping.read_text()) == {"done": 3, "whole": 9}


def test_a_stop_ends_the_shipping_and_none_that_is_over_anyway(world: World) -> None:
    access = reach(world, world.home.run(RUN))._access(world.row)
    assert access.progress is not None
    world.ledger.request_stop(RUN, world.clock())
    access.progress(9, 9)
    with pytest.raises(RemoteError, match="stopped while"):
        reach(world, world.home.run(RUN))._shipped(3, 9)


@pytest.mark.parametrize("trust", [True, False])
def test_leave_to_trust_what_is_seen_first_makes_no_host_key_that_only_could_be_trusted(
    world: World, *, trust: bool
) -> None:
    folder = world.home.run(RUN)
    world.cloud.traits = replace(world.cloud.traits, ssh=True)
    row = replace(world.row, plan={**world.row.plan, "trust_on_first_use": trust})
    job = reach(world, folder).job(row)
    assert job.client_key is not None
    assert (job.host_key is None) is trust
    assert (folder.ssh / "1" / "host_ed25519.pub").exists() is not trust


def test_each_attempt_has_its_own_keys(world: World) -> None:
    one = reach(world, world.home.run(RUN))._access(world.row).folder
    assert one == world.home.run(RUN).ssh / "1"
