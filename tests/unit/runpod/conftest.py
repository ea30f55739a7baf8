"""RunPod on loopback, opened by us, with a pod on it, and a server in its place that says what it is told to.

Every request to the simulator is held to the official document.
"""

from __future__ import annotations

import pytest
from runpods import hold_to_the_document, offer_of, open_runpod, runpod_job

from providers.runpod import RunpodProvider


@pytest.fixture
def sim(runpod_sim):
    yield runpod_sim
    hold_to_the_document(runpod_sim)


@pytest.fixture
def provider(sim, tmp_path):
    return open_runpod(sim, tmp_path / "home")


@pytest.fixture
def rented(sim, provider, tmp_path):
    """A pod, as (job, id); ended afterwards."""
    job = runpod_job(tmp_path / "home")
    allocation_id = provider.launch(job, offer_of(provider))
    yield job, allocation_id
    sim.delete(allocation_id)


@pytest.fixture
def client(server, tmp_path):
    environ = {
        "RUNPOD_API_KEY": "rpa_secret_unit_00000000",
        "GPURUN_RUNPOD_URL": f"{server.url}/v2",
        "GPURUN_RUNPOD_PACE": "1000",
    }
    yield (client := RunpodProvider.from_home(tmp_path / "home", environ))
    client._api._http._session.close()
