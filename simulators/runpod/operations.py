"""What each operation of REST v2 does. Called under the world's lock, by a caller that was let in."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from simulators.runpod import billing, checks
from simulators.runpod.account import SPEND_LIMIT
from simulators.runpod.catalogue import COMMUNITY, CUDA_VERSIONS, DATA_CENTERS, KINDS, Kind, spell_data_center
from simulators.runpod.logs import moment
from simulators.runpod.pods import ACTIONS, Pod, spell
from simulators.runpod.replies import CAPACITY, ProblemError
from simulators.server import Reply, Request, as_json

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from simulators.runpod.world import PodWorld

_MOST_PAGE = 1000
_MOST_TAIL = 5000
_SSE = {"Cache-Control": "no-cache", "Connection": "keep-alive", "X-Accel-Buffering": "no"}


class Operations:
    """One method an operation: request and the id in its path -> reply. Raises `ProblemError`."""

    def __init__(self, world: PodWorld, user: str) -> None:
        self._world = world
        self._user = user

    # ── pods ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def do_list(self, request: Request, _item: str) -> Reply:
        """List pods, the newest first; by pages since 2026-09."""
        faults, rows = self._world.faults, self._world.listed()
        if rows and faults.take("list_flicker", of="list"):
            rows = []
        if faults.take("no_pagination", of="list"):
            return as_json(200, {"pods": [self._spell(each) for each in rows]})
        forced = faults.take("pages", of="list")
        size = min(_limit(request), int(forced.number("size")) if forced else _MOST_PAGE)
        after = _cursor(request)
        rest = [each for each in rows if after is None or each.number < after]
        more = len(rest) > size
        cursor = f"pod-{rest[size - 1].number}" if more else None
        pages = {"nextCursor": cursor, "hasNextPage": more}
        return as_json(200, {"pods": [self._spell(each) for each in rest[:size]], "pagination": pages})

    def do_get(self, _request: Request, item: str) -> Reply:
        """Show one pod."""
        pod = self._found(item)
        if self._world.faults.take("get_flicker", of="get"):
            raise ProblemError(404)
        return as_json(200, self._spell(pod))

    def do_create(self, request: Request, _item: str) -> Reply:
        """Create one pod."""
        world, wish = self._world, checks.body(request, checks.CREATE)
        order = checks.order(wish, world.capacity)
        where = {"type": order.kind.id, "region": order.data_center or COMMUNITY, "of": "create"}
        if world.faults.take("forbidden", **where):
            raise ProblemError(403)
        full = world.faults.take("capacity", **where)
        if full:
            raise ProblemError(400, CAPACITY[int(full.number("words"))])
        price = world.account.price(order.kind.id, order.cloud) * order.count + order.disk_price(running=True)
        if world.account.balance() < price or world.faults.take("no_balance", **where):
            raise ProblemError(402)
        if world.account.meter.rate() + price > SPEND_LIMIT:
            raise ProblemError(402, "spend limit reached")  # the words are ours
        if wish.get("startSsh") and world.keys and "PUBLIC_KEY" not in order.env:
            order = replace(order, env={**order.env, "PUBLIC_KEY": "\n".join(world.keys)})
        pod = world.lives.create(order, faults=world.faults.take_for_instance(**where))
        # An empty object, as in the document's example, though its schema says null.
        return as_json(201, {**self._spell(pod), "runtime": {}})

    def do_update(self, request: Request, item: str) -> Reply:
        """Change a pod: its name and lock at once, all else by a reset."""
        pod, wish = self._found(item), checks.body(request, checks.UPDATE)
        if "mounts" in wish and wish["mounts"] != pod.order.mounts:
            raise ProblemError(400, "mounts can't be changed")
        pod.name = wish.get("name", pod.name)
        pod.locked = wish.get("locked", pod.locked)
        self._world.account.meter.rename(pod.id, pod.name)
        changes: dict[str, Any] = {name: wish[name] for name in ("image", "disk", "env", "args") if name in wish}
        changes |= {name: tuple(wish[name]) for name in ("ports", "entrypoint", "cmd") if name in wish}
        if changes:
            order = replace(pod.order, **changes)
            argv = checks.command(order.args, order.entrypoint, order.cmd, order.image)
            self._world.lives.reset(pod, replace(order, argv=argv))
        return as_json(200, self._spell(pod))

    def do_delete(self, _request: Request, item: str) -> Reply:
        """Terminate a pod."""
        pod, faults = self._found(item), self._world.faults
        if faults.take("conflict", of="delete"):
            raise ProblemError(409, "pod belongs to a cluster")
        if faults.take("delete_500", of="delete"):
            raise ProblemError(500)
        if pod.alive and not faults.take("delete_ignored", of="delete"):
            self._world.lives.terminate(pod)
        return Reply(204)

    def do_action(self, request: Request, item: str) -> Reply:
        """Start, stop, restart or terminate a pod."""
        pod, action = self._found(item), checks.body(request, checks.ACTION)["action"]
        if self._world.faults.take("conflict", of="action"):
            raise ProblemError(409)
        if action not in ACTIONS[pod.status] or (pod.locked and action in {"stop", "restart"}):
            raise ProblemError(409, f"cannot {action} a pod that is {pod.status}")
        if action == "terminate":
            self._world.lives.terminate(pod, "action")
            return Reply(204)
        {"start": self._world.lives.start, "stop": self._world.lives.stop, "restart": self._world.lives.restart}[
            action
        ](pod)
        return as_json(200, self._spell(pod))

    def do_logs(self, request: Request, item: str) -> Reply:
        """Stream a pod's log."""
        pod, faults, query = self._found(item), self._world.faults, request.query
        if faults.take("logs_refused", of="logs"):
            raise ProblemError(400)
        source, since = query.get("source", ""), query.get("since")
        try:
            tail = int(query.get("tail", "100"))
            begin = None if since is None else moment(since)
        except ValueError:
            raise ProblemError(422) from None
        if source not in {"", "container", "system"} or not 0 <= tail <= _MOST_TAIL:
            raise ProblemError(422)
        logs = self._world.logs
        after = logs.start(pod, tail, begin, request.headers.get("last-event-id", ""))
        cut = faults.take("logs_cut", of="logs")
        flow = logs.flow(pod, after, source, int(cut.number("events")) if cut else None)
        return Reply(200, content_type="text/event-stream", headers=dict(_SSE), stream=flow)

    def _found(self, item: str) -> Pod:
        pod = self._world.found(item)
        if pod is None:
            raise ProblemError(404)
        return pod

    def _spell(self, pod: Pod) -> dict[str, object]:
        row = spell(pod, self._world.clock.now(), self._user)
        word = self._world.faults.take("unknown_status") if row["status"] == "RUNNING" else None
        if word:
            row["status"] = word.text("word")
        return row

    # ── the shop window ──────────────────────────────────────────────────────────────────────────────────────────

    def do_gpus(self, request: Request, _item: str) -> Reply:
        """Show every GPU type; with `countryCodes` those that are there."""
        asked = _availability(request)
        rows = [self._kind(kind, asked) for kind in KINDS.values()]
        if asked.get("countryCodes"):
            rows = [row for row in rows if "dataCenters" in row]
        return as_json(200, {"gpus": rows})

    def do_gpu(self, request: Request, item: str) -> Reply:
        """Show one GPU type."""
        if item not in KINDS:
            raise ProblemError(404)
        return as_json(200, self._kind(KINDS[item], _availability(request)))

    def do_data_centers(self, request: Request, _item: str) -> Reply:
        """List data centers."""
        regions = _words(request.query.get("regions"))
        rows = [self._data_center(name, request) for name in DATA_CENTERS]
        return as_json(200, {"dataCenters": [row for row in rows if not regions or row["region"] in regions]})

    def do_data_center(self, request: Request, item: str) -> Reply:
        """Show one data center."""
        if item not in DATA_CENTERS:
            raise ProblemError(404)
        return as_json(200, self._data_center(item, request))

    def _data_center(self, name: str, request: Request) -> dict[str, object]:
        row = spell_data_center(name)
        if "GPU_AVAILABILITY" in _words(request.query.get("include")):
            stock = [
                {"id": kind, "name": KINDS[kind].name, "availability": "HIGH"}
                for kind, places in self._world.capacity.items()
                if name in places
            ]
            row |= {"gpuAvailability": stock} if stock else {}
        return row

    def _kind(self, kind: Kind, asked: Mapping[str, Any]) -> dict[str, object]:
        world = self._world
        prices = {
            cloud.lower(): float(0 if kind.price(cloud) is None else world.account.price(kind.id, cloud))
            for cloud in ("SECURE", COMMUNITY)
        }
        row: dict[str, object] = {
            "id": kind.id,
            "name": kind.name,
            "pool": kind.pool,
            "manufacturer": kind.manufacturer,
            "memory": kind.gb,
            "secure": kind.secure is not None,
            "community": kind.community is not None,
            "price": prices,
            "maxCount": {cloud.lower(): kind.most_of(cloud) for cloud in ("SECURE", COMMUNITY)},
        }
        return row | self._stock(kind, asked) if asked else row

    def _stock(self, kind: Kind, asked: Mapping[str, Any]) -> dict[str, object]:
        """Tell where it is to be had. Not split by cloud for a data center, as with the vendor (runpodctl#326)."""
        places = self._world.capacity[kind.id]
        cloud, countries = asked["cloud"], asked["countryCodes"]
        centers = [place for place in places if place != COMMUNITY]
        centers = [place for place in centers if not countries or DATA_CENTERS[place][2] in countries]
        there = COMMUNITY in places if cloud == COMMUNITY else bool(centers)
        versions = [version for version in CUDA_VERSIONS if asked["cuda"](version)]
        there = there and asked["count"] <= kind.most_of(cloud) and bool(versions)
        level = ("MEDIUM" if len(centers) == 1 else "HIGH") if there else "NONE"
        row: dict[str, object] = {"availability": level}
        if there and centers:
            row["dataCenters"] = [
                {"id": place, "name": DATA_CENTERS[place][0], "availability": "MEDIUM"} for place in centers
            ]
        if kind.manufacturer == "NVIDIA":
            row["cudaVersions"] = [{"version": version, "available": there} for version in versions]
        return row

    # ── the account ──────────────────────────────────────────────────────────────────────────────────────────────

    def do_ssh_keys(self, _request: Request, _item: str) -> Reply:
        """List the account's keys."""
        return as_json(200, {"keys": self._world.keys})

    def do_put_ssh_keys(self, request: Request, _item: str) -> Reply:
        """Replace the account's keys."""
        self._world.keys = list(checks.body(request, checks.KEYS)["keys"])
        return as_json(200, {"keys": self._world.keys})

    def do_pod_billing(self, request: Request, _item: str) -> Reply:
        """Tell what pods cost: a record for each pod and bucket in which it billed."""
        return billing.of_pods(request, self._world.account, *self._recorded())

    def do_billing(self, request: Request, _item: str) -> Reply:
        """Tell what all costs together: a record for each bucket in which anything billed."""
        return billing.of_all(request, self._world.account, *self._recorded())

    def _recorded(self) -> tuple[float, float]:
        now = self._world.clock.now()
        late = self._world.faults.take("bills_late")
        return now, now - (late.number("seconds") if late else 0.0)


def _availability(request: Request) -> dict[str, Any]:
    """Read what the catalogue is asked about stock; {} = nothing.

    Raises:
        ProblemError: 400 where `include` and `product` are not together, 422 for what makes no sense.
    """
    query = request.query
    include, product = _words(query.get("include")), _words(query.get("product"))
    if include not in ([], ["AVAILABILITY"]) or not set(product) <= {"POD", "CLUSTER", "SERVERLESS"}:
        raise ProblemError(422)
    only = {"count", "cloud", "countryCodes", "cudaVersions", "minCudaVersion", "product"} & query.keys()
    if bool(include) != bool(product) or (only and not include):
        raise ProblemError(400, "product is required with include=AVAILABILITY, and valid only with it")
    if not include:
        return {}
    count, cloud = query.get("count", "1"), query.get("cloud", "SECURE")
    if not count.isdecimal() or int(count) < 1 or cloud not in {"SECURE", "COMMUNITY"}:
        raise ProblemError(422)
    return {
        "count": int(count),
        "cloud": cloud,
        "countryCodes": _words(query.get("countryCodes")),
        "cuda": _cuda(query.get("cudaVersions"), query.get("minCudaVersion")),
    }


def _cuda(exact: str | None, least: str | None) -> Callable[[str], bool]:
    """Read the filter of CUDA versions.

    Raises:
        ProblemError: 400 where there are two, 422 where it is none.
    """
    if exact and least:
        raise ProblemError(400, "cudaVersions and minCudaVersion are mutually exclusive")
    if not all(re.fullmatch(r"\d+\.\d+", each) for each in _words(exact)) or not re.fullmatch(
        r"\d+(\.\d+)?", least or "0"
    ):
        raise ProblemError(422)
    if exact:
        return lambda version: version in _words(exact)
    return lambda version: checks.number(version) >= checks.number(least or "0")


def _words(text: str | None) -> list[str]:
    return text.split(",") if text else []


def _limit(request: Request) -> int:
    text = request.query.get("limit", str(_MOST_PAGE))
    if not text.isdecimal() or not 1 <= int(text) <= _MOST_PAGE:
        raise ProblemError(422)
    return int(text)


def _cursor(request: Request) -> int | None:
    text = request.query.get("cursor")
    if not text:
        return None
    number = text.removeprefix("pod-")
    if not number.isdecimal():
        raise ProblemError(422, "invalid cursor")
    return int(number)
