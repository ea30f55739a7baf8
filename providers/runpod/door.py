"""Where a pod answers, and that it is that pod: both by RunPod's own word, each time a connection is made.

GET the pod -> `ssh.direct`; the log of its container -> the fingerprints of the host keys that its start script made

No secret is exposed by it, and nobody in between can name a key of his own (reference: 4.4). A restarted pod answers on
another port, perhaps with other keys: both are read again then. Where the log does not tell, what was verified before
still counts; else the user's leave to trust the first is needed.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from providers.errors import StateError, UnreachableError
from providers.ssh.keys import write_private
from providers.ssh.link import Target

if TYPE_CHECKING:
    from collections.abc import Callable

    from providers.base import Access
    from providers.runpod.api import Api
    from providers.runpod.reading import Address

_VERIFIED = "verified.json"  # beside the keys: the address at which the pinned key was seen
_FINGERPRINT = re.compile(r"\b256 SHA256:(?P<hash>[A-Za-z0-9+/]{43})=? .*\(ED25519\)")


class Door:
    """The way to one pod. `find` gives its address as of now, None where it has none."""

    def __init__(
        self,
        runpod: Api,
        pod_id: str,
        access: Access,
        find: Callable[[], Address | None],
        told: dict[Address, tuple[str, ...]] | None = None,
    ) -> None:
        """`told`: the keys that the log named, by address; a pod that is slow to answer has its log read once."""
        self._runpod = runpod
        self._pod_id = pod_id
        self._access = access
        self._find = find
        self._told = {} if told is None else told

    def target(self) -> Target:
        """Say where to connect, and which host keys may answer there.

        Raises:
            UnreachableError: it has no address yet, or its host key is not told yet.
        """
        at = self._find()
        if at is None:
            raise UnreachableError(f"{self._pod_id} has no address for SSH", allocation_id=self._pod_id)
        return Target(at.host, at.port, at.user, self._access, self._fingerprints(at))

    def settle(self) -> None:
        """Remember that the key that is pinned now was verified where the pod answers now."""
        at = self._find()
        if at is not None and at in self._told:
            write_private(self._access.folder / _VERIFIED, json.dumps([at.host, at.port]).encode(), sync=False)

    def _fingerprints(self, at: Address) -> tuple[str, ...]:
        """Give the keys that may answer; () = the one that is pinned, or the first where the user gave leave."""
        pinned = (self._access.folder / "host_ed25519.pub").exists()
        if pinned and self._verified() == [at.host, at.port]:
            return ()
        if at not in self._told:
            told = fingerprints(self._runpod.log(self._pod_id, None if pinned else _tells))
            if told:
                self._told[at] = told
        if at not in self._told and not pinned and not self._access.trust_on_first_use:
            message = f"the log of {self._pod_id} does not name its host key yet: nothing is sent to it"
            raise UnreachableError(message, allocation_id=self._pod_id, hint="or take it unseen: --trust-on-first-use")
        return self._told.get(at, ())

    def _verified(self) -> object:
        try:
            return json.loads((self._access.folder / _VERIFIED).read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise StateError(f"{self._access.folder} can't be read: {type(error).__name__}") from error


def fingerprints(lines: list[str]) -> tuple[str, ...]:
    """Give every ed25519 host key that a container's log names, as "SHA256:…"."""
    found = (_FINGERPRINT.search(line) for line in lines)
    return tuple(dict.fromkeys(f"SHA256:{match['hash']}" for match in found if match))


def _tells(line: str) -> bool:
    return _FINGERPRINT.search(line) is not None
