"""Colab's control plane as its official command speaks it (`/tun/m`), and Google's tokens at the same address.

    what stands in front -> bearer token -> authuser -> the operation -> the fate of its reply -> )]}' in front of it

What changes something takes two steps: GET tells a token for this very address, POST brings it in a header.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from simulators.colab import google
from simulators.colab.catalogue import FREE_GPUS, FREE_TPUS, GPUS, TPUS, Kind, find
from simulators.colab.vms import Vm, spell, spell_assigned
from simulators.server import Reply, Request, as_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from simulators.colab.world import ColabWorld

PREFIX = b")]}'\n"
_XSRF = "x-goog-colab-token"
_NBH = re.compile(r"[A-Za-z0-9_-]{36}\.{8}")
_TOKEN = re.compile(rb'"token": "[^"]*"')
_MOST_FREE, _MOST_PAID = 1, 5  # VMs at once; "a small number" is all that is said of paying accounts
_REFILL_SECONDS = 86400
_ROUTES = [
    ("GET", "/tun/m/assign", "assign_get"),
    ("POST", "/tun/m/assign", "assign"),
    ("GET", "/tun/m/assignments", "list"),
    ("GET", "/tun/m/ccu-info", "ccu"),
    ("GET", "/tun/m/unassign/{id}", "unassign_get"),
    ("POST", "/tun/m/unassign/{id}", "unassign"),
    ("GET", "/tun/m/{id}/keep-alive/", "keep_alive"),
    ("GET", "/tun/m/credentials-propagation/{id}", "credentials"),
    ("POST", "/tun/m/credentials-propagation/{id}", "credentials"),
    ("POST", "/token", "token"),
    ("GET", "/tokeninfo", "tokeninfo"),
]
_PATTERNS = [
    (method, re.compile(path.replace("{id}", "(?P<id>[^/]+)")), operation) for method, path, operation in _ROUTES
]
_IN_FRONT = (("server_error", 500), ("bad_gateway", 502), ("unavailable", 503), ("gateway_timeout", 504))


class RefusedError(Exception):
    """An answer that is no success."""

    def __init__(self, status: int, words: str = "") -> None:
        super().__init__(words or str(status))
        self.status = status


class Api:
    """Answers the vendor's API over a world."""

    def __init__(self, world: ColabWorld) -> None:
        self._world = world
        self._secret = world.word(32).encode()

    def answer(self, request: Request) -> Reply:
        """Answer one request, and keep it in the journal."""
        world = self._world
        with world.lock:
            world.agenda.run_due()
            before = len(world.faults.struck)
            operation, item = _find(request)
            who = self._who(request)
            reply = self._fate(operation, self._answer(request, operation, item, who))
            now = world.clock.now()
            skew = world.faults.take("clock_skew", of=operation)
            reply.date = now + (skew.number("seconds") if skew else 0)
            told = (
                request
                if operation not in {"token", "tokeninfo"}
                else Request(request.method, request.path, {}, {}, b"")
            )
            said = _TOKEN.sub(rb'"token": "***"', reply.body.removeprefix(PREFIX)) if told is request else b""
            kept = Reply(reply.status, said, drop=reply.drop)
            struck = world.faults.struck[before:]
            world.journal.add(told, kept, when=now, authorization=who, operation=operation, faults=struck)
            return reply

    def _answer(self, request: Request, operation: str, item: str, who: str) -> Reply:
        try:
            self._in_front(operation)
            if operation in {"token", "tokeninfo"}:
                return self._google(operation, request)
            self._admit(request, operation, who)
            handle: Callable[[Request, str], Reply] = getattr(self, f"_do_{operation}")
            reply = handle(request, item)
        except RefusedError as refused:
            return (
                _page(refused.status)
                if refused.status in {502, 504}
                else as_json(refused.status, {"error": str(refused)})
            )
        if reply.body and not self._world.faults.take("no_prefix", of=operation):
            reply.body = PREFIX + reply.body
        return reply

    def _in_front(self, operation: str) -> None:
        """Let what stands before the API answer in its place.

        Raises:
            RefusedError: it does.
        """
        world = self._world
        if world.outage.until > world.clock.now():
            raise RefusedError(503)
        for fault, status in _IN_FRONT:
            if world.faults.take(fault, of=operation):
                raise RefusedError(status)

    def _google(self, operation: str, request: Request) -> Reply:
        if operation == "tokeninfo":
            return self._world.google.info(request)
        refused = self._world.faults.take("token_refused", of=operation)
        return google.refusal() if refused else self._world.google.refresh(request)

    def _who(self, request: Request) -> str:
        """Tell whose token it is: right, narrow (without the scope that it takes), wrong, none."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if not token or scheme.lower() != "bearer":
            return "none"
        grant = self._world.google.grant(token)
        return "wrong" if grant is None else ("right" if grant.may_colab else "narrow")

    def _admit(self, request: Request, operation: str, who: str) -> None:
        """Let a caller in.

        Raises:
            RefusedError: it is not let in.
        """
        faults = self._world.faults
        if not operation:
            raise RefusedError(404, f"no {request.method} {request.path}")
        if who != "right" or faults.take("key_rejected", of=operation):
            raise RefusedError(401, "Request is missing required authentication credential")
        if request.query.get("authuser") != "0":
            raise RefusedError(400, "authuser=0 belongs to every call")
        if faults.take("rate_limited", of=operation):
            raise RefusedError(429)

    def _fate(self, operation: str, reply: Reply) -> Reply:
        """Lose or spoil the answer to a deed that is done, or hold it back."""
        world = self._world
        rate = world.clock.rate
        if reply.status < 300:
            hit = world.faults.take("assign_hangs") if operation == "assign" else None
            if hit:
                return Reply(200, drop=True, hold_seconds=hit.number("seconds") / rate)
            for name, spoil in _SPOILT.items():
                hit = world.faults.take(name, of=operation)
                if hit is not None:
                    if operation == "assign":
                        self._hide(hit.number("hidden_seconds"))
                    reply = spoil()
                    break
        slow = world.faults.take("slow_reply", of=operation)
        if slow:
            reply.hold_seconds = slow.number("seconds") / rate
        return reply

    def _hide(self, seconds: float) -> None:
        """Leave the youngest VM out of the list for a while; who asks by its notebook finds it."""
        vm = list(self._world.vms.values())[-1]
        vm.listed_from = max(vm.listed_from, self._world.clock.now() + seconds)

    # ── the two steps ────────────────────────────────────────────────────────────────────────────────────────────

    def _xsrf(self, request: Request) -> str:
        """Make the token for this very address."""
        words = f"{request.path}?{urlencode(sorted(request.query.items()))}"
        return hmac.new(self._secret, words.encode(), hashlib.sha256).hexdigest()

    def _check_xsrf(self, request: Request, operation: str) -> None:
        rejected = self._world.faults.take("xsrf_rejected", of=operation)
        if rejected or not hmac.compare_digest(request.headers.get(_XSRF, ""), self._xsrf(request)):
            raise RefusedError(403, "XSRF token")

    # ── assign ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _do_assign_get(self, request: Request, _item: str) -> Reply:
        nbh, kind = self._order(request)
        vm = self._world.lives.of_nbh(nbh)
        if vm is not None:
            return as_json(200, self._assigned(vm))
        prompt = self._world.faults.take("recaptcha", of="assign_get") is not None
        body = {"acc": kind.accelerator, "nbh": nbh, "p": prompt, "token": self._xsrf(request), "variant": kind.variant}
        return as_json(200, body)

    def _do_assign(self, request: Request, _item: str) -> Reply:
        self._check_xsrf(request, "assign")
        world = self._world
        nbh, kind = self._order(request)
        vm = world.lives.of_nbh(nbh)
        if vm is None:
            denied = self._denied(kind)
            if denied is not None:
                return as_json(200, {"outcome": denied})
            vm = world.lives.assign(kind, nbh, faults=world.faults.take_for_instance(type=kind.name))
        return as_json(200, self._assigned(vm))

    def _order(self, request: Request) -> tuple[str, Kind]:
        query = request.query
        nbh = query.get("nbh", "")
        if not _NBH.fullmatch(nbh):
            raise RefusedError(400, "nbh is 36 characters and eight dots")
        variant = query.get("variant", "DEFAULT")
        accelerator = query.get("accelerator", "NONE" if variant == "DEFAULT" else "")
        kind = find(variant, accelerator, query.get("shape", ""))
        if kind is None:
            raise RefusedError(400, "no such variant, accelerator and shape")
        return nbh, kind

    def _denied(self, kind: Kind) -> int | None:
        """Refuse an assign; gives the outcome where it is told as a success.

        Raises:
            RefusedError: it is told by its status.
        """
        world, account = self._world, self._world.account
        for fault, status in (("too_many", 412), ("not_entitled", 400), ("capacity", 503)):
            if world.faults.take(fault, type=kind.name):
                raise RefusedError(status)
        hit = world.faults.take("outcome", type=kind.name)
        if hit is not None:
            return int(hit.number("code"))
        if account.is_free and not kind.free:
            raise RefusedError(400, "not entitled")
        alive = sum(1 for vm in world.vms.values() if vm.alive)
        if alive >= (_MOST_FREE if account.is_free else _MOST_PAID):
            raise RefusedError(412, "too many active assignments")
        if kind.name not in world.capacity:
            raise RefusedError(503, "no backend with that accelerator")
        return 2 if account.is_free and account.free_left <= 0 else None

    def _assigned(self, vm: Vm) -> dict[str, object]:
        return spell_assigned(vm, *self._world.lives.mint(vm), self._world.account.tier)

    # ── what there is, and its end ───────────────────────────────────────────────────────────────────────────────

    def _do_list(self, _request: Request, _item: str) -> Reply:
        lives = self._world.lives
        vms = [] if self._world.faults.take("list_flicker", of="list") else lives.listed()
        return as_json(200, {"assignments": [spell(vm, *lives.mint(vm)) for vm in vms]})

    def _do_unassign_get(self, request: Request, item: str) -> Reply:
        self._known(item)
        return as_json(200, {"token": self._xsrf(request)})

    def _do_unassign(self, request: Request, item: str) -> Reply:
        self._check_xsrf(request, "unassign")
        vm = self._known(item)
        world = self._world
        if world.faults.take("unassign_500", of="unassign"):
            raise RefusedError(500)
        if not world.faults.take("unassign_ignored", of="unassign"):
            world.lives.end(vm, "unassign")
            world.outage.at("unassign", world.clock.now())
        return Reply(204)

    def _known(self, item: str) -> Vm:
        vm = self._world.vms.get(item)
        if vm is None or not vm.alive:
            raise RefusedError(404, "no such assignment")
        return vm

    def _do_keep_alive(self, request: Request, item: str) -> Reply:
        if request.headers.get("x-colab-tunnel") != "Google":
            raise RefusedError(400, "X-Colab-Tunnel")
        vm = self._known(item)
        vm.pinged = vm.active = self._world.clock.now()
        if self._world.faults.take("keep_alive_silent"):
            return Reply(200, drop=True, hold_seconds=60 / self._world.clock.rate)
        return Reply(200)

    def _do_credentials(self, _request: Request, item: str) -> Reply:
        self._known(item)
        words = "https://accounts.google.com/o/oauth2/auth?simulated=1"
        return as_json(200, {"success": False, "unauthorized_redirect_uri": words})

    # ── units ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _do_ccu(self, _request: Request, _item: str) -> Reply:
        account, now = self._world.account, self._world.clock.now()
        gpus, tpus = (FREE_GPUS, FREE_TPUS) if account.is_free else (GPUS, TPUS)
        body: dict[str, object] = {
            "currentBalance": float(round(account.balance, 6)),
            "consumptionRateHourly": float(account.meter.rate()),
            "assignmentsCount": sum(1 for vm in self._world.vms.values() if vm.alive),
            "eligibleGpus": list(gpus),
            "ineligibleGpus": [name for name in GPUS if name not in gpus],
            "eligibleTpus": list(tpus),
            "ineligibleTpus": [name for name in TPUS if name not in tpus],
        }
        if account.is_free:
            tokens = str(int(account.free_left * 1000))  # thousandths of a unit, as text
            body["freeCcuQuotaInfo"] = {"remainingTokens": tokens, "nextRefillTimestampSec": int(now) + _REFILL_SECONDS}
        return as_json(200, body)


_SPOILT: dict[str, Callable[[], Reply]] = {
    "reply_lost": lambda: Reply(200, drop=True),
    "reply_500": lambda: as_json(500, {"error": "500"}),
    "reply_504": lambda: _page(504),
    "reply_garbled": lambda: Reply(200, PREFIX + json.dumps({"accelerator": "T4"}).encode()[:9]),
}


def _page(status: int) -> Reply:
    return Reply(status, f"<html><title>Error {status}</title></html>".encode(), content_type="text/html")


def _find(request: Request) -> tuple[str, str]:
    for method, pattern, operation in _PATTERNS:
        match = pattern.fullmatch(request.path)
        if match and method == request.method:
            return operation, match.groupdict().get("id", "")
    return "", ""
