"""A bucket of the simulated Hub's for a test, and the tokens to it in the environment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hf_ground import HfSim

import pytest
import requests
from hf_ground import hf_running

NAME = "alice/store"
MAY = ["repo.content.read", "repo.write"]


@dataclass(frozen=True, slots=True)
class HubBucket:
    """A bucket, empty at the test's beginning."""

    sim: HfSim
    name: str = NAME

    @property
    def address(self) -> str:
        return f"hf://buckets/{self.name}/under/here"

    def token(self, **wish: object) -> str:
        """Make a token that opens this bucket, unless another wish is given."""
        return self.sim.tell("/token", wish or {"scoped": [["bucket", self.name, MAY]]})["token"]

    def names(self) -> list[str]:
        return self.sim.tell("/bucket", {"id": self.name})["files"]

    def read(self, key: str) -> bytes:
        headers = {"Authorization": f"Bearer {self.sim.exports['HF_TOKEN']}"}
        answer = requests.get(f"{self.sim.url}/buckets/{self.name}/resolve/{key}", headers=headers, timeout=30)
        answer.raise_for_status()
        return answer.content

    def write(self, key: str, text: str) -> None:
        self.sim.tell("/write", {"bucket": self.name, "path": key, "text": text})


@pytest.fixture
def hub_bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubBucket]:
    """A Hub with one bucket, this computer's token and a machine's."""
    with hf_running() as sim:
        made = HubBucket(sim)
        made.names()
        for name, value in sim.exports.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("HF_STORE_TOKEN", made.token())
        yield made
