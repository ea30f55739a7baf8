"""What a test, a rehearsal or a curious person may ask beside the Hub's API.

GET  /meter  what is billed      GET /requests[?since=N]  what was asked      GET /state  everything
POST /faults as `--faults`       DELETE /faults           disarm              GET /faults what is armed
POST /clock  {"advance": s, "rate": x, "prices": {flavor: "1.49"}}            USD an hour, from the next job on
POST /write  {"bucket": "alice/gpurun", "path": …, "text": …}                 behind everybody's back
POST /repo   {"id": "acme/model" | "datasets/acme/rows", "files": {name: text}, "private", "gated", "card"}   somebody's
POST /token  {"scoped": [["bucket", "alice/store", ["repo.write", "repo.content.read"]]], "everywhere": [], "role": …}
POST /bucket {"id": "alice/store", "private": true}
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

from simulators.faults import FaultError
from simulators.hf_jobs.buckets import Bucket, Scope
from simulators.hf_jobs.faults import BOOK
from simulators.hf_jobs.repos import Repo
from simulators.server import Reply, Request, as_json

if TYPE_CHECKING:
    from simulators.hf_jobs.world import HubWorld


class Control:
    """The control's own small API over a world."""

    def __init__(self, world: HubWorld) -> None:
        self._world = world

    def answer(self, request: Request) -> Reply:
        """Answer one request."""
        with self._world.lock:
            self._world.agenda.run_due()
            try:
                return as_json(200, self._route(request))
            except LookupError as error:
                return as_json(404, {"error": str(error)})
            except (FaultError, ValueError, TypeError, ArithmeticError) as error:
                return as_json(400, {"error": str(error)})

    def _route(self, request: Request) -> object:
        world = self._world
        makers = {
            "/clock": self._clock,
            "/write": self._write,
            "/repo": self._repo,
            "/token": self._new_token,
            "/bucket": self._new_bucket,
        }
        match request.method, request.path.rstrip("/"):
            case "GET", "/meter":
                return world.meter_report()
            case "GET", "/requests":
                return {"requests": world.journal.since(int(request.query.get("since", "0")))}
            case "GET", "/state":
                return world.state()
            case "POST", "/faults":
                world.arm(BOOK.parse(request.json()))
            case "DELETE", "/faults":
                world.faults.clear()
            case "POST", path if path in makers:
                return makers[path](request.json())
            case _, "/faults":
                pass
            case _:
                raise LookupError(f"the control has no {request.method} {request.path}")
        return {"armed": world.faults.armed(), "struck": world.faults.struck}

    def _clock(self, wish: Any) -> object:
        world = self._world
        for name, price in wish.get("prices", {}).items():
            if name not in world.micro:
                raise LookupError(f"no flavor {name!r}")
            world.micro[name] = int(Decimal(price) * 10**6 / 60)
        if "rate" in wish:
            world.clock.set_rate(float(wish["rate"]))
        if "advance" in wish:
            world.clock.advance(float(wish["advance"]))
        world.agenda.moved()
        return {"now": world.clock.now(), "rate": world.clock.rate}

    def _repo(self, wish: Any) -> object:
        world = self._world
        made = Repo(wish["id"], bool(wish.get("private")), world.clock.now())
        made.gated, made.card = bool(wish.get("gated")), dict(wish.get("card", {}))
        made.commit({name: text.encode() for name, text in wish.get("files", {}).items()}, world.hexes(40))
        world.repos[made.id] = made
        return made.state()

    def _new_token(self, wish: Any) -> object:
        rows = tuple((kind, name, tuple(may)) for kind, name, may in wish.get("scoped", ()))
        token = f"hf_{self._world.hexes(34)}"
        role = str(wish.get("role", "fineGrained"))
        self._world.tokens[token] = Scope(rows, tuple(wish.get("everywhere", ())), role)
        return {"token": token}

    def _new_bucket(self, wish: Any) -> object:
        world = self._world
        folder = world.folder / "buckets" / wish["id"]
        folder.mkdir(parents=True, exist_ok=True)
        world.buckets[wish["id"]] = Bucket(wish["id"], folder, bool(wish.get("private", True)), world.clock.now())
        return {"files": list(world.buckets[wish["id"]].names())}

    def _write(self, wish: Any) -> object:
        place = self._world.buckets[wish["bucket"]].place(wish["path"])
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(wish["text"])
        return {"size": place.stat().st_size}
