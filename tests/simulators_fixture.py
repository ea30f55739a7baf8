"""Lambda on loopback for tests. How to use it:

    def test_x(lambda_sim):                                  # the API alone, at pace 1000, boot at once
        lambda_sim.exports, lambda_sim.url, lambda_sim.control

    def test_y(start_lambda):                                # with options; `machines=True` for real sshd
        sim = start_lambda(pace=100, boot_seconds=60, faults={"launch_capacity": 2})
        sim = start_lambda(rate=0.01)                    # a clock that stands nearly still: `advance` moves it

What every simulator has, and how a test on it is judged: sims.py.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from sims import Sim, judged

from simulators.lambda_cloud import LambdaSimulator
from simulators.lambda_cloud.faults import BOOK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import requests

PUBLIC_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAICN+lJwsONkwrdsSnQsu1ydUkIuIg5oOC+Eslvmtt60T nobody's"


@dataclass
class LambdaSim(Sim):
    """A running simulator, known by its announcement only."""

    KEY = "LAMBDA_API_KEY"

    def data(self, method: str, path: str, body: object = None, **more: Any) -> Any:
        """Ask, and give the data of the answer, which must be a success."""
        return super().data(method, path, body, **more)["data"]

    def launch(self, key: str = PUBLIC_KEY, **body: object) -> requests.Response:
        """Register a key under the name "key", once, and launch an A10 with it."""
        if "key" not in self.state()["keys"]:
            self.data("POST", "/ssh-keys", {"name": "key", "public_key": key})
        usual = {"region_name": "us-west-1", "instance_type_name": "gpu_1x_a10", "ssh_key_names": ["key"]}
        return self.call("POST", "/instance-operations/launch", {**usual, **body})

    def launched(self, **body: object) -> str:
        """Launch, and give the id."""
        reply = self.launch(**body)
        assert reply.status_code == 200, reply.text
        return str(reply.json()["data"]["instance_ids"][0])

    def terminate(self, *ids: str) -> requests.Response:
        return self.call("POST", "/instance-operations/terminate", {"instance_ids": list(ids)})


@contextmanager
def lambda_running(
    *,
    pace: float | None = None,
    rate: float = 1,
    boot_seconds: float = 0,
    linger_seconds: float = 15,
    faults: object = (),
    seed: int | None = None,
    machines: bool = False,
) -> Iterator[LambdaSim]:
    """Start one in this process, and judge what is left at the end."""
    with LambdaSimulator(
        pace=pace or (1000 if rate == 1 else 1),
        rate=rate,
        boot_seconds=boot_seconds,
        linger_seconds=linger_seconds,
        faults=BOOK.parse(faults) if faults else (),
        seed=seed,
        machines=machines,
    ) as simulator:
        told = simulator.announcement()
        with judged(LambdaSim(told["url"], told["control"], told["exports"])) as sim:
            yield sim


@pytest.fixture
def lambda_sim() -> Iterator[LambdaSim]:
    """Lambda's API without machines, fast."""
    with lambda_running() as sim:
        yield sim


@pytest.fixture
def start_lambda() -> Iterator[Callable[..., LambdaSim]]:
    """Start any number of them, with the options of `lambda_running`."""
    with ExitStack() as running:
        yield lambda **options: running.enter_context(lambda_running(**options))
