"""What a test, a rehearsal or a curious person may ask beside the vendor's API; the same for every simulator.

GET  /meter     what is billed            GET /requests[?since=N]   what was asked       GET /state   everything
POST /faults    as `--faults`             DELETE /faults            disarm               GET /faults  what is armed
POST /clock     {"advance": s, "rate": x, "prices": {name: "1.49"}, "capacity": {name: [region, …]}}
POST /link      {"instance": id or null, "do": "cut" | "blackhole" | "freeze" | "heal", "after_bytes": n, …}
POST /launch    the vendor's own launch body: somebody starts one by hand, past limits and faults; a list: so many
"""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Protocol

from simulators.faults import FaultError
from simulators.server import Reply, Request, as_json

if TYPE_CHECKING:
    import threading
    from collections.abc import Mapping

    from simulators.clock import Agenda, Clock
    from simulators.faults import Book, Faults, Hit
    from simulators.journal import Journal

# What a link can be told, and how: `seconds` are the vendor's, after which it heals by itself.
LINK_WORDS = {
    "cut": ("after_bytes", "times"),
    "blackhole": ("after_bytes", "seconds"),
    "freeze": ("after_bytes", "seconds"),
    "heal": (),
}


class WishError(ValueError):
    """What was asked of the control makes no sense."""


class World(Protocol):
    """What a vendor's world offers to its control."""

    lock: threading.RLock
    clock: Clock
    agenda: Agenda
    book: Book
    faults: Faults
    journal: Journal

    def meter_report(self) -> dict[str, object]:
        """Tell the bill."""

    def state(self) -> dict[str, object]:
        """Tell what there is, without secrets."""

    def arm(self, hits: list[Hit]) -> None:
        """Arm faults, or let them strike what is there."""

    def set_price(self, name: str, price: Decimal) -> None:
        """Ask another price an hour from the next launch on."""

    def set_capacity(self, name: str, regions: list[str]) -> None:
        """Have capacity in these regions only."""

    def links(self, instance_id: str | None, what: str, options: Mapping[str, float]) -> int:
        """Do that to the link of one instance or all; how many there were."""

    def launch_by_hand(self, order: object) -> str:
        """Launch as a person at the console would."""


class Control:
    """The control's own small API over a world."""

    def __init__(self, world: World) -> None:
        self._world = world

    def answer(self, request: Request) -> Reply:
        """Answer one request."""
        with self._world.lock:
            self._world.agenda.run_due()
            try:
                return as_json(200, self._route(request))
            except LookupError as error:
                return as_json(404, {"error": str(error.args[0])})
            except (WishError, FaultError, ValueError) as error:
                return as_json(400, {"error": str(error)})

    def _route(self, request: Request) -> object:
        match request.method, request.path.rstrip("/"):
            case "GET", "/meter":
                return self._world.meter_report()
            case "GET", "/requests":
                return {"requests": self._world.journal.since(int(request.query.get("since", "0")))}
            case "GET", "/state":
                return self._world.state()
            case "GET" | "POST" | "DELETE", "/faults":
                return self._faults(request)
            case "POST", "/clock":
                return self._clock(request.json())
            case "POST", "/link":
                return self._link(request.json())
            case "POST", "/launch":
                wish = request.json()
                if isinstance(wish, list):
                    return {"ids": [self._world.launch_by_hand(each) for each in wish]}
                return {"id": self._world.launch_by_hand(wish)}
        raise LookupError(f"the control has no {request.method} {request.path}")

    def _faults(self, request: Request) -> object:
        if request.method == "POST":
            self._world.arm(self._world.book.parse(request.json()))
        if request.method == "DELETE":
            self._world.faults.clear()
        return {"armed": self._world.faults.armed(), "struck": self._world.faults.struck}

    def _clock(self, wish: object) -> object:
        wish = _known(wish, {"advance", "rate", "prices", "capacity"})
        for name, price in _known(wish.get("prices", {})).items():
            self._world.set_price(name, _dollars(price))
        for name, regions in _known(wish.get("capacity", {})).items():
            self._world.set_capacity(name, _words(regions))
        if "rate" in wish:
            self._world.clock.set_rate(_number(wish["rate"]))
        if "advance" in wish:
            self._world.clock.advance(_number(wish["advance"]))
        self._world.agenda.moved()
        return {"now": self._world.clock.now(), "rate": self._world.clock.rate}

    def _link(self, wish: object) -> object:
        wish = dict(_known(wish, {"instance", "do", "after_bytes", "times", "seconds"}))
        instance, what = wish.pop("instance", None), wish.pop("do", None)
        if what not in LINK_WORDS or not (instance is None or isinstance(instance, str)):
            raise WishError(f'"do" is one of {", ".join(LINK_WORDS)}; "instance" an id or null')
        options = {name: _number(value) for name, value in wish.items()}
        if options.keys() - LINK_WORDS[str(what)]:
            raise WishError(f"{what} takes {', '.join(LINK_WORDS[str(what)]) or 'no option'}")
        return {"links": self._world.links(instance, str(what), options)}


def _known(wish: object, names: set[str] | None = None) -> dict[str, object]:
    if not isinstance(wish, dict) or (names is not None and not wish.keys() <= names):
        raise WishError(f"expected an object of {', '.join(sorted(names or {'names'}))}")
    return wish


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise WishError(f"{value!r} is no number")
    return float(value)


def _dollars(value: object) -> Decimal:
    try:
        return Decimal(str(value))
    except InvalidOperation:
        raise WishError(f"{value!r} is no price") from None


def _words(value: object) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
        raise WishError(f"{value!r} is no list of names")
    return value
