"""Stores on a real S3 server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from seaweed import bucket, seaweed  # noqa: F401 - fixtures for all here

from orchestrator.store import Store, open_store, parse

if TYPE_CHECKING:
    from seaweed import Bucket


@pytest.fixture
def store(bucket: Bucket) -> Store:  # noqa: F811
    return open_store(parse(bucket.address, bucket.endpoint))
