"""Lambda on loopback, opened by us, with a machine on it, and a server in its place that says what it is told to.

Every request to the simulator is held to the official document.
"""

from __future__ import annotations

import pytest
from lambdas import hold_to_the_document, lambda_job, offer_of, open_lambda

from providers.lambdalabs import LambdaProvider


@pytest.fixture
def sim(lambda_sim):
    yield lambda_sim
    hold_to_the_document(lambda_sim)


@pytest.fixture
def provider(sim, tmp_path):
    return open_lambda(sim, tmp_path / "home")


@pytest.fixture
def rented(sim, provider, tmp_path):
    """A machine, as (job, id); ended afterwards."""
    job = lambda_job(tmp_path / "home")
    allocation_id = provider.launch(job, offer_of(provider))
    yield job, allocation_id
    sim.terminate(allocation_id)


@pytest.fixture
def client(server, tmp_path):
    environ = {
        "LAMBDA_API_KEY": "secret_unit_00000000.1111",
        "GPURUN_LAMBDA_URL": server.url,
        "GPURUN_LAMBDA_PACE": "1000",
    }
    yield (client := LambdaProvider.from_home(tmp_path / "home", environ))
    client._api._http._session.close()
