"""Colab's control plane, `/tun/m`: what its own command line tool asks, and what the answers mean in our tree.

401, 403   CredentialsError     404 = there is none (the caller's to judge)     429, 5xx   UnreachableError
400        QuotaError           412 = too many VMs, or a limit for a while      503 to an order: NoCapacityError

What changes something goes in two steps: GET gives a token, POST with that token does it.
"""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Any

from providers.colab import credentials, reading
from providers.errors import CredentialsError, ProviderError, UnreachableError
from providers.http import Http, printable

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import timedelta

    from providers.colab.credentials import Login
    from providers.http import Reply

AGENT = "gpurun"
_PING_SECONDS = 10.0  # the VM often never answers; that it was asked is what counts
_ORDER_SECONDS = 200.0  # an assign may take Colab's own 180
_ENDS_SECONDS = 60.0
_TOKEN_REFUSED = 403  # of the second step: the first gives another


class Api:
    """The endpoints that gpurun uses. Safe from several threads: one asks at a time."""

    def __init__(self, http: Tunnel, login: Login) -> None:
        self._http = http
        self._login = login
        self._lock = threading.RLock()
        self._pings = http.another({"X-Colab-Tunnel": "Google"})

    @property
    def skew(self) -> timedelta:
        """Colab's clock minus ours."""
        return self._http.skew

    def reply(self, method: str, path: str, headers: Mapping[str, str] | None = None, **how: Any) -> Reply:
        """Ask with a token that lasts; a 401 once more with a new one. Leaves the judging to the caller."""
        params = {"authuser": "0", **(how.pop("params", None) or {})}
        with self._lock:
            self._login.freshen()
            reply = self._http.beside(headers or {}, method, f"/tun/m{path}", params=params, **how)
            if reply.status != 401:
                return reply
            self._login.freshen(now=True)
            return self._http.beside(headers or {}, method, f"/tun/m{path}", params=params, **how)

    def assignments(self) -> list[reading.Assignment]:
        """List every VM of the account, with a way into each that was minted just now."""
        reply = self.reply("GET", "/assignments")
        return reading.assignments(ok(reply), reply.what)

    def account(self) -> reading.Account:
        """Read the balance and what all VMs draw together."""
        reply = self.reply("GET", "/ccu-info")
        return reading.account(ok(reply), reply.what)

    def look(self, nbh: str, params: Mapping[str, str]) -> Reply:
        """Ask what is assigned to a notebook: an assignment, or a token with which to order one."""
        return self.reply("GET", "/assign", params={"nbh": nbh, **params})

    def order(self, nbh: str, params: Mapping[str, str], token: str) -> Reply:
        """Order a VM: sent once."""
        how = {"params": {"nbh": nbh, **params}, "read_seconds": _ORDER_SECONDS}
        return self.reply("POST", "/assign", _xsrf(token), **how)

    def unassign(self, endpoint: str) -> bool:
        """End a VM; False = Colab knows none of that name.

        Raises:
            ProviderError: it may live on.
        """
        path = f"/unassign/{endpoint}"
        for left in (1, 0):
            asked = self.reply("GET", path)
            if asked.status == 404:
                return False
            token = token_of(ok(asked), asked.what)
            reply = self.reply("POST", path, _xsrf(token), safe=True, read_seconds=_ENDS_SECONDS)
            if reply.status == 404:
                return False
            if 200 <= reply.status < 300:
                return True
            if reply.status != _TOKEN_REFUSED or not left:
                break
        raise error_of(reply)

    def keep_alive(self, endpoint: str) -> None:
        """Tell Colab that somebody is there; whatever becomes of it says nothing about the VM.

        Nobody waits for it: the answer is the VM's own, which often never comes.
        """
        threading.Thread(target=self._ping, args=(endpoint,), daemon=True, name="keep-alive").start()

    def _ping(self, endpoint: str) -> None:
        path, params = f"/tun/m/{endpoint}/keep-alive/", {"authuser": "0"}
        with contextlib.suppress(ProviderError):
            with self._lock:
                self._login.freshen()
            self._pings.call("GET", path, params=params, safe=False, read_seconds=_PING_SECONDS)


class Tunnel(Http):
    """An API some of whose requests carry headers of their own."""

    def introduce(self, agent: str) -> None:
        """Name the client on every request."""
        self._session.headers["X-Colab-Client-Agent"] = agent

    def another(self, headers: Mapping[str, str]) -> Tunnel:
        """Give a second client of the same place, with connections of its own: who waits there is in nobody's way."""
        made = Tunnel(self._vendor, self._base, self._key, self._pacer, pace=self._pace)
        made._session.headers.update({**self._session.headers, **headers})
        return made

    def beside(self, headers: Mapping[str, str], method: str, path: str, **how: Any) -> Reply:
        """Ask with these headers; see `call`."""
        self._session.headers.update(headers)
        try:
            return self.call(method, path, **how)
        finally:
            for name in headers:
                del self._session.headers[name]


def _xsrf(token: str) -> dict[str, str]:
    return {"X-Goog-Colab-Token": token}


def token_of(body: Mapping[str, Any], what: str) -> str:
    """Give the token that an order takes.

    Raises:
        ProviderError: there is none.
    """
    token = body.get("token")
    if not isinstance(token, str) or not token.isprintable() or not token:
        raise ProviderError(f"{what} gave no token to go on with")
    return token


def ok(reply: Reply) -> Mapping[str, Any]:
    """Give the body of an answer that says yes.

    Raises:
        ProviderError: it is a refusal, or makes no sense.
    """
    if not 200 <= reply.status < 300:
        raise error_of(reply)
    if reply.body is None:
        raise ProviderError(f"{reply.what} answered with something that is no JSON object ({reply.kind})")
    return reply.body


def words(reply: Reply) -> str:
    """Give Colab's own words, where it has any."""
    error = (reply.body or {}).get("error")
    said = error.get("message") if isinstance(error, dict) else (reply.body or {}).get("message", error)
    return printable(said, 200) if isinstance(said, str) else ""


def error_of(reply: Reply) -> ProviderError:
    """Turn a refusal into an error of our tree."""
    said = words(reply)
    text = f"{reply.what} answered {reply.status}{f': {said}' if said else ''}"
    if reply.may_pass or reply.status == 408:
        return UnreachableError(text, hint="try again shortly")
    if reply.status in {401, 403}:
        return CredentialsError(text, hint=credentials.SIGN_IN)
    return ProviderError(text)
