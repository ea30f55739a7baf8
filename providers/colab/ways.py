"""The list of VMs and the ways into them: each look at the list mints tokens, kept for who goes there next."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from providers.base import Mark
from providers.colab.door import MARKER, Door
from providers.errors import RemoteError, UnreachableError

if TYPE_CHECKING:
    from providers.colab.api import Api
    from providers.colab.door import Proxy
    from providers.colab.reading import Assignment

_PING_SECONDS = 60.0  # between two signs of life: Colab's own clients give one each one to five minutes
_LEAST_PING_SECONDS = 1.0
_NO_MARK_SECONDS = 60.0  # for which a VM without a marker is not asked again


class Ways:
    """What is known of how to reach this account's VMs."""

    def __init__(self, colab: Api, pace: float, agent: str) -> None:
        self._api = colab
        self._pace = pace
        self._agent = agent
        self._proxies: dict[str, tuple[float, Proxy]] = {}  # endpoint -> until when it is taken, and the way in
        self._pinged: dict[str, float] = {}
        self._unmarked: dict[str, float] = {}  # endpoint -> when it was asked

    def list(self) -> list[Assignment]:
        """List every VM of the account."""
        listed = self._api.assignments()
        for one in listed:
            self.keep(one)
        return listed

    def keep(self, one: Assignment) -> None:
        """Remember a way in, for half the time that its token lasts."""
        if one.proxy is not None:
            until = time.monotonic() + one.proxy_seconds / 2 / max(self._pace, 1.0)
            self._proxies[one.endpoint] = until, one.proxy

    def door(self, endpoint: str) -> Door:
        """Give the way into one VM to the byte plane."""
        proxy, ping = (lambda fresh: self._proxy(endpoint, fresh=fresh)), (lambda: self._ping(endpoint))
        return Door(endpoint, proxy, ping, self._pace, self._agent)

    def _proxy(self, endpoint: str, *, fresh: bool) -> Proxy:
        until, known = self._proxies.get(endpoint, (0.0, None))
        if fresh or known is None or time.monotonic() > until:
            self._proxies.pop(endpoint, None)
            self.list()
            _, known = self._proxies.get(endpoint, (0.0, None))
        if known is None:
            raise UnreachableError(f"{endpoint} is not listed, so there is no way in", allocation_id=endpoint)
        return known

    def _ping(self, endpoint: str) -> None:
        wait = max(_PING_SECONDS / self._pace, _LEAST_PING_SECONDS)
        if time.monotonic() - self._pinged.get(endpoint, float("-inf")) < wait:
            return
        self._pinged[endpoint] = time.monotonic()
        self._api.keep_alive(endpoint)

    def marker(self, endpoint: str) -> tuple[Mark | None, str]:
        """Read whose a VM is off its own disk; what can't be read is not known, and so nobody's to end."""
        if time.monotonic() - self._unmarked.get(endpoint, float("-inf")) < _NO_MARK_SECONDS / self._pace:
            return None, "a notebook of somebody's"
        from providers.colab.jupyter import read_small

        try:
            data = read_small(self.door(endpoint), MARKER)
        except (UnreachableError, RemoteError):
            return None, "unknown: the VM does not tell whose it is"
        mark = Mark.parse((data or b"").decode(errors="replace").strip())
        if mark is None:
            self._unmarked[endpoint] = time.monotonic()
            return None, "a notebook of somebody's"
        return mark, ""
