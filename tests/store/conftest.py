"""Stores on a real S3 server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hub_bucket import hub_bucket  # noqa: F401 - a fixture for all of these

from orchestrator.store import Store, open_store, parse

if TYPE_CHECKING:
    from seaweed import Bucket


@pytest.fixture
def store(bucket: Bucket) -> Store:
    return open_store(parse(bucket.address, bucket.endpoint))
