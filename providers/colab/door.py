"""The way into one VM, as the money plane gives it to the byte plane: address, fresh token, sign of life.

    provider.py ── Door(endpoint, proxy, keep_alive, pace) ──> remote.py: ColabRemote(door, mark, access)
                                                               jupyter.py: read_small, write_small (the marker file)

A proxy's token lasts for an hour and is minted anew by each look at the list of assignments; an expired one gets 404,
sometimes 401, though the VM lives. So a 404 says "gone" of a file only when the token is fresh, and never of the VM:
that is for `inspect` alone to say.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from providers.base import Secret

MARKER = "content/gpurun-mark"  # below the contents' root `/`: the mark of the attempt, a line of text


@dataclass(frozen=True, slots=True)
class Proxy:
    """Where a VM's Jupyter server answers, and what it takes to be let in."""

    url: str  # without a slash at its end; may change with the token
    token: Secret  # header X-Colab-Runtime-Proxy-Token, or the query colab-runtime-proxy-token


@dataclass(frozen=True, slots=True)
class Door:
    """What the byte plane needs of the money plane. Its callables raise `ProviderError`; none of them waits."""

    endpoint: str
    # proxy(False): one whose token lasts for minutes yet, asked for again before it expires; the list is asked rarely.
    # proxy(True): one whose token was minted just now, for after a 401 or 404. UnreachableError: it is not listed now.
    proxy: Callable[[bool], Proxy]
    keep_alive: Callable[[], None]  # Colab's own ping, at most one a minute however often it is called; never raises
    pace: float = 1.0  # the vendor's waits are that many times shorter: a simulator in a hurry
    agent: str = "gpurun"  # X-Colab-Client-Agent
