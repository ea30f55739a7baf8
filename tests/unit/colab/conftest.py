"""Colab on loopback without machines, opened by us."""

from __future__ import annotations

import pytest
from colab_ground import colab_job, offer_of, open_colab


@pytest.fixture
def sim(colab_sim):
    return colab_sim


@pytest.fixture
def provider(sim, tmp_path):
    return open_colab(sim, tmp_path / "home")


@pytest.fixture
def given(provider, tmp_path):
    """A T4, as (job, id); ended afterwards."""
    job = colab_job(tmp_path / "home")
    allocation_id = provider.launch(job, offer_of(provider))
    yield job, allocation_id
    provider.terminate([allocation_id])
