"""RunPod on loopback for tests. How to use it:

    def test_x(runpod_sim):                                  # the API alone, at pace 1000, RUNNING at once
        runpod_sim.exports, runpod_sim.url, runpod_sim.control

    def test_y(start_runpod):                                # with options; `machines=True` for real containers
        sim = start_runpod(pace=100, start_seconds=60, faults={"capacity": 2})
        sim = start_runpod(rate=0.01)                    # a clock that stands nearly still: `advance` moves it

What every simulator has, and how a test on it is judged: sims.py.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
import requests
from sims import Sim, judged

from simulators.runpod import RunPodSimulator
from simulators.runpod.faults import BOOK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

IMAGE = "runpod/pytorch:1.0.2-cu1281-torch280-ubuntu2404"
RTX_3090 = "NVIDIA GeForce RTX 3090"


@dataclass
class RunPodSim(Sim):
    """A running simulator, known by its announcement only, but for what only its containers see."""

    KEY = "RUNPOD_API_KEY"
    GOOD = frozenset({200, 201})

    key_inside: Callable[[str], str] = field(kw_only=True)  # a pod's own key, by its id

    def graphql(self, query: str, key: str = "", **variables: object) -> requests.Response:
        """Ask GraphQL, with the account's key or another."""
        headers = {"Authorization": f"Bearer {key or self.key}"}
        body = {"query": query, "variables": variables}
        return requests.post(self.exports["GPURUN_RUNPOD_GRAPHQL_URL"], json=body, headers=headers, timeout=30)

    def create(self, **body: object) -> requests.Response:
        """Create a pod with an RTX 3090."""
        usual = {"name": "pod", "image": IMAGE, "gpu": {"id": RTX_3090}, "disk": 50, "ports": ["22/tcp"]}
        return self.call("POST", "/pods", {**usual, **body})

    def created(self, **body: object) -> str:
        """Create, and give the id."""
        reply = self.create(**body)
        assert reply.status_code == 201, reply.text
        return str(reply.json()["id"])

    def pod(self, pod_id: str) -> dict[str, Any]:
        return self.data("GET", f"/pods/{pod_id}")

    def delete(self, pod_id: str) -> requests.Response:
        return self.call("DELETE", f"/pods/{pod_id}")


@contextmanager
def runpod_running(
    *,
    pace: float | None = None,
    rate: float = 1,
    start_seconds: float = 0,
    faults: object = (),
    seed: int | None = None,
    machines: bool = False,
) -> Iterator[RunPodSim]:
    """Start one in this process, and judge what is left at the end."""
    with RunPodSimulator(
        pace=pace or (1000 if rate == 1 else 1),
        rate=rate,
        start_seconds=start_seconds,
        faults=BOOK.parse(faults) if faults else (),
        seed=seed,
        machines=machines,
    ) as simulator:
        told = simulator.announcement()
        addresses = (told["url"], told["control"], told["exports"])
        with judged(RunPodSim(*addresses, key_inside=lambda pod: simulator.world.pods[pod].key)) as sim:
            yield sim


@pytest.fixture
def runpod_sim() -> Iterator[RunPodSim]:
    """RunPod's API without containers, fast."""
    with runpod_running() as sim:
        yield sim


@pytest.fixture
def start_runpod() -> Iterator[Callable[..., RunPodSim]]:
    """Start any number of them, with the options of `runpod_running`."""
    with ExitStack() as running:
        yield lambda **options: running.enter_context(runpod_running(**options))
