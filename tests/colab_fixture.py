"""Colab on loopback for tests. How to use it:

    def test_x(colab_sim):                                   # the API alone, at pace 1000
        colab_sim.exports, colab_sim.url, colab_sim.control

    def test_y(start_colab):                                 # with options; `machines=True` for real Jupyter servers
        sim = start_colab(pace=100, faults={"capacity": 2})
        sim = start_colab(rate=0.01)                     # a clock that stands nearly still: `advance` moves it

Judged as in sims.py. All goes through HTTP, as it would for anyone; the key is minted once, as a login's refresh does.
"""

from __future__ import annotations

import json
import uuid
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests
import websocket
from sims import Sim, judged

from simulators.colab import ColabSimulator
from simulators.colab.faults import BOOK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PREFIX = ")]}'\n"
TUNNEL = "/tun/m"


def new_nbh() -> str:
    """Make up a notebook's hash, as the official clients do."""
    return f"{uuid.uuid4()}".replace("-", "_") + "." * 8


@dataclass
class ColabSim(Sim):
    """A running simulator, and the steps of its protocol."""

    _token: list[str] = field(default_factory=list)

    @property
    def login(self) -> dict[str, Any]:
        return json.loads(Path(self.exports["GOOGLE_APPLICATION_CREDENTIALS"]).read_text())

    @property
    def key(self) -> str:
        if not self._token:
            self._token.append(self.refreshed().json()["access_token"])
        return self._token[0]

    def refreshed(self, **wrong: str) -> requests.Response:
        """Ask for an access token, with something wrong or not."""
        known = {name: self.login[name] for name in ("refresh_token", "client_id", "client_secret")}
        form = {"grant_type": "refresh_token", **known, **wrong}
        return requests.post(self.login["token_uri"], data=form, timeout=30)

    def tunnel(self, method: str, path: str, **more: Any) -> requests.Response:
        """Call the control plane as the official command does."""
        params = {"authuser": "0", **more.pop("params", {})}
        return self.call(method, TUNNEL + path, params=params, **more)

    def told(self, method: str, path: str, **more: Any) -> Any:
        """Call, and read the answer, which must be a success."""
        reply = self.tunnel(method, path, **more)
        assert reply.status_code == 200, reply.text
        return json.loads(reply.text.removeprefix(PREFIX))

    def two_steps(self, path: str, **params: str) -> requests.Response:
        """GET the token, POST with it."""
        token = self.told("GET", path, params=params)["token"]
        return self.tunnel("POST", path, params=params, headers={"X-Goog-Colab-Token": token})

    def assign(self, accelerator: str = "T4", nbh: str = "", **more: str) -> requests.Response:
        """Assign a VM, in two steps."""
        params = {"nbh": nbh or new_nbh(), "variant": "GPU", "accelerator": accelerator, **more}
        return self.two_steps("/assign", **params)

    def assigned(self, accelerator: str = "T4", nbh: str = "", **more: str) -> dict[str, Any]:
        """Assign, and give what was answered."""
        reply = self.assign(accelerator, nbh, **more)
        assert reply.status_code == 200, reply.text
        return json.loads(reply.text.removeprefix(PREFIX))

    def unassign(self, endpoint: str) -> requests.Response:
        return self.two_steps(f"/unassign/{endpoint}")

    def listed(self) -> list[dict[str, Any]]:
        return self.told("GET", "/assignments")["assignments"]

    def ccu(self) -> dict[str, Any]:
        return self.told("GET", "/ccu-info")

    def end(self) -> None:
        """Unassign everything."""
        for row in self.listed():
            assert self.unassign(row["endpoint"]).status_code == 204


@dataclass
class ColabVm:
    """A VM's way in, by an answer of the control plane."""

    url: str
    token: str

    @classmethod
    def of(cls, row: dict[str, Any]) -> ColabVm:
        info = row["runtimeProxyInfo"]
        return cls(info["url"], info["token"])

    def call(self, method: str, path: str, **more: Any) -> requests.Response:
        """Ask its Jupyter server."""
        headers = {"X-Colab-Runtime-Proxy-Token": self.token, **more.pop("headers", {})}
        return requests.request(method, self.url + path, headers=headers, timeout=120, **more)

    def new_kernel(self) -> str:
        reply = self.call("POST", "/api/kernels", json={"name": "python3", "path": None})
        assert reply.status_code == 201, reply.text
        return str(reply.json()["id"])

    def connect(self, path: str) -> websocket.WebSocket:
        """Open a websocket."""
        url = self.url.replace("http://", "ws://") + path
        header = {"X-Colab-Runtime-Proxy-Token": self.token}
        return websocket.create_connection(url, header=header, timeout=120, suppress_origin=True)

    def run(self, kernel: str, code: str) -> str:
        """Run a cell, and give what it printed."""
        channel = self.connect(f"/api/kernels/{kernel}/channels?session_id={uuid.uuid4().hex}")
        try:
            return heard(channel, ask(channel, code))
        finally:
            channel.shutdown()


def ask(channel: websocket.WebSocket, code: str) -> str:
    """Send a cell; gives its id."""
    question = uuid.uuid4().hex
    header = {"msg_id": question, "username": "", "session": "s", "msg_type": "execute_request", "version": "5.3"}
    content = {"code": code, "silent": False, "store_history": False, "user_expressions": {}, "allow_stdin": False}
    message = {"header": {**header, "date": ""}, "parent_header": {}, "metadata": {}, "content": content}
    channel.send(json.dumps({**message, "channel": "shell"}))
    return question


def heard(channel: websocket.WebSocket, question: str) -> str:
    """Read until a cell is over; gives what it printed, errors as well."""
    said = ""
    while True:
        message = json.loads(channel.recv())
        if message["parent_header"].get("msg_id") != question:
            continue
        content = message["content"]
        said += content["text"] if message["msg_type"] == "stream" else ""
        said += "\n".join(content["traceback"]) if message["msg_type"] == "error" else ""
        if message["msg_type"] == "status" and content["execution_state"] == "idle":
            return said


@contextmanager
def colab_sim_running(
    *,
    pace: float | None = None,
    rate: float = 1,
    faults: object = (),
    seed: int | None = None,
    machines: bool = False,
) -> Iterator[ColabSim]:
    """Start one in this process, and judge what is left at the end."""
    with ColabSimulator(
        pace=pace or (1000 if rate == 1 else 1),
        rate=rate,
        faults=BOOK.parse(faults) if faults else (),
        seed=seed,
        machines=machines,
    ) as simulator:
        told = simulator.announcement()
        with judged(ColabSim(told["url"], told["control"], told["exports"])) as sim:
            yield sim


@pytest.fixture
def colab_sim() -> Iterator[ColabSim]:
    """Colab's API without machines, fast."""
    with colab_sim_running() as sim:
        yield sim


@pytest.fixture
def start_colab() -> Iterator[Callable[..., ColabSim]]:
    """Start any number of them, with the options of `colab_sim_running`."""
    with ExitStack() as running:
        yield lambda **options: running.enter_context(colab_sim_running(**options))
