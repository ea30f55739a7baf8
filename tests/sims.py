"""A simulated vendor as a test sees it: known by its announcement, asked over HTTP as by anyone, judged at its end.

    class LambdaSim(Sim): KEY = "LAMBDA_API_KEY"; …       # in the vendor's own fixture file
    with judged(LambdaSim(told["url"], told["control"], told["exports"])) as sim: …

`sim.meter()`, `sim.asked()`, `sim.state()`, `sim.faults({...})`, `sim.advance(60)`, `sim.tell("/link", {...})`. A test
that leaves something billing fails, unless it said `sim.may_bill = True`. So does one that ran into a rate limit
(`sim.may_hurry = True` lifts that), and one whose machines had troubles.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import requests

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass
class Sim:
    """A running simulator."""

    KEY: ClassVar[str] = ""  # which of its exports opens the vendor's API
    GOOD: ClassVar[frozenset[int]] = frozenset({200})  # statuses of a success

    url: str
    control: str
    exports: dict[str, str]
    may_bill: bool = False
    may_hurry: bool = False

    @property
    def key(self) -> str:
        return self.exports[self.KEY]

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
        assert reply.status_code in self.GOOD, reply.text
        return reply.json()

    def meter(self) -> dict[str, Any]:
        return self.ask("/meter")

    def state(self) -> dict[str, Any]:
        return self.ask("/state")

    def asked(self, operation: str = "") -> list[dict[str, Any]]:
        return [one for one in self.ask("/requests")["requests"] if operation in {"", one["operation"]}]

    def faults(self, wish: object) -> None:
        self.tell("/faults", wish)

    def advance(self, seconds: float) -> None:
        self.tell("/clock", {"advance": seconds})


S = TypeVar("S", bound=Sim)


@contextmanager
def judged(sim: S) -> Iterator[S]:
    """Give a simulator that runs, and judge what is left on it when the test is through."""
    yield sim
    billing = [row for row in sim.meter()["allocations"] if row["ended"] is None]
    state = sim.state()
    assert not billing or sim.may_bill, f"left billing: {billing}"
    broken = state.get("violations")  # the Hub has no limits of its own
    assert not broken or sim.may_hurry, f"{broken} requests broke the rate limits"
    assert state["troubles"] == []
