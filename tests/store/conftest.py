"""Stores on a real S3 server."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from decisions import in_state
from folders import RUN, run_row
from hub_bucket import hub_bucket  # noqa: F401 - a fixture for all of these

from orchestrator.store import Ability, Store, as_json, open_store, parse
from orchestrator.words import State

if TYPE_CHECKING:
    from seaweed import Bucket


@pytest.fixture
def store(bucket: Bucket) -> Store:
    return open_store(parse(bucket.address, bucket.endpoint))


@pytest.fixture
def row(bucket):
    def make(state: State = State.RUNNING, endpoint: str = "", **memory):
        kept = as_json(parse(bucket.address, endpoint or bucket.endpoint), Ability(policies=True, checksums=True))
        made = run_row(RUN)
        return replace(made, plan={**made.plan, "store": kept}, memory=in_state(state, **memory))

    return make
