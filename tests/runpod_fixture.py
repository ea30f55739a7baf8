"""RunPod on loopback for tests. How to use it:

    def test_x(runpod_sim):                                  # the API alone, at pace 1000, RUNNING at once
        runpod_sim.exports, runpod_sim.url, runpod_sim.control

    def test_y(start_runpod):                                # with options; `machines=True` for real containers
        sim = start_runpod(pace=100, start_seconds=60, faults={"capacity": 2})
        sim = start_runpod(rate=0.01)                    # a clock that stands nearly still: `advance` moves it

A test that leaves something billing fails, unless it said `sim.may_bill = True`. So does one that ran into a rate
limit (`sim.may_hurry = True` lifts that) and one whose containers had troubles. All goes through HTTP, as for anyone.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import requests

from simulators.runpod import RunPodSimulator
from simulators.runpod.faults import BOOK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

IMAGE = "runpod/pytorch:1.0.2-cu1281-torch280-ubuntu2404"
RTX_3090 = "NVIDIA GeForce RTX 3090"


@dataclass
class RunPodSim:
    """A running simulator, known by its announcement only, but for what only its containers see."""

    url: str
    control: str
    exports: dict[str, str]
    key_inside: Callable[[str], str]  # a pod's own key, by its id
    may_bill: bool = False
    may_hurry: bool = False

    @property
    def key(self) -> str:
        return self.exports["RUNPOD_API_KEY"]

    def ask(self, path: str) -> dict[str, Any]:
        reply = requests.get(self.control + path, timeout=30)
        reply.raise_for_status()
        return reply.json()

    def tell(self, path: str, wish: object) -> dict[str, Any]:
        reply = requests.post(self.control + path, json=wish, timeout=60)
        reply.raise_for_status()
        return reply.json()

    def call(self, method: str, path: str, body: object = None, **more: Any) -> requests.Response:
        """Ask the vendor's API with the key; `more` goes to requests."""
        headers = {"Authorization": f"Bearer {self.key}", **more.pop("headers", {})}
        options = {"timeout": 30, "allow_redirects": False, **more}
        return requests.request(method, self.url + path, json=body, headers=headers, **options)  # noqa: S113 - in options

    def data(self, method: str, path: str, body: object = None, **more: Any) -> Any:
        """Ask, and give the answer, which must be a success."""
        reply = self.call(method, path, body, **more)
        assert reply.status_code in {200, 201}, reply.text
        return reply.json()

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

    def meter(self) -> dict[str, Any]:
        return self.ask("/meter")

    def state(self) -> dict[str, Any]:
        return self.ask("/state")

    def asked(self) -> list[dict[str, Any]]:
        return self.ask("/requests")["requests"]

    def faults(self, wish: object) -> None:
        self.tell("/faults", wish)

    def advance(self, seconds: float) -> None:
        self.tell("/clock", {"advance": seconds})


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
        sim = RunPodSim(told["url"], told["control"], told["exports"], lambda pod: simulator.world.pods[pod].key)
        yield sim
        billing = [row for row in sim.meter()["allocations"] if row["ended"] is None]
        state = sim.state()
    assert not billing or sim.may_bill, f"left billing: {billing}"
    assert not state["violations"] or sim.may_hurry, f"{state['violations']} requests broke the rate limits"
    assert state["troubles"] == []


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
