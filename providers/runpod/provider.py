"""The money plane of RunPod.

    launch -> a pod that bears the mark in its name and its environment     find, allocations -> the account's own list
    inspect -> GET by id      terminate -> DELETE, read back      stop -> never: a stopped pod is not gone, and may bill

RunPod tells no account: the key's fingerprint stands for it, so a run needs the key that it was launched with.
"""

from __future__ import annotations

import contextlib
import os
import time
from datetime import timedelta
from hashlib import sha256
from typing import TYPE_CHECKING

from providers import ending
from providers import environ as settings
from providers.base import Observation, Phase, Secret, Traits, utc
from providers.errors import ProviderError, UnreachableError
from providers.http import base_url, printable
from providers.optional import Funds
from providers.pacing import pacer_for
from providers.runpod import api, billing, ender, launch, reading
from providers.runpod.witness import Witness

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    from providers.base import Access, Allocation, Holder, Job, Mark, Offer, Remote
    from providers.optional import Bill
    from providers.runpod.reading import Address, Pod

URL = "https://api.runpod.io/v2"
_PACE = {"": 0.4}  # seconds between two requests; 60 a minute are allowed, at the least (2026-08)
_LEAST_SECONDS = 10.0  # of patience with a machine, however hurried its vendor: its processes start in our world
_LEAST_BOOT_SECONDS = 30.0  # the same, for a container with its keys and its watchdog
_DISK_GB = 60
_COUNTS = (1, 2, 4, 8)
_JUST_SECONDS = 3.0  # since a pod was looked at: its address is still the same

_FAILURES = {
    "ERROR": "ERROR: RunPod calls the container broken for good",
    "EXITED": "EXITED: RunPod stopped the pod (its balance or a limit?): its GPU is given away",
}


class RunpodProvider:
    """One account at RunPod, through one key."""

    name = "runpod"

    def __init__(self, home: Path, key: Secret, *, url: str = URL, disk_gb: int = _DISK_GB, pace: float = 1.0) -> None:
        self._home = home
        self._url = url.rstrip("/").removesuffix("/v2")
        self._fingerprint = "runpod-key-" + sha256(key.reveal().encode()).hexdigest()[:12]
        self._disk_gb = disk_gb
        self._pace = pace
        self._seen: tuple[float, Pod] | None = None  # the last one that was looked at, and when
        self._told: dict[str, dict[Address, tuple[str, ...]]] = {}  # host keys of a pod, by the log, at each address
        intervals = {lane: seconds / pace for lane, seconds in _PACE.items()}
        pacer = pacer_for("runpod", self._url, self._fingerprint, intervals)
        self._api = api.Api(api.open_http("RunPod", self._url, key, pacer, pace=pace))
        self._witness = Witness(self._api.ahead)
        self.traits = Traits(
            list_lag_seconds=20.0 / pace,  # a fresh pod was missing for seconds; unclear ones are sought for a minute
            # 20 GB of an image take minutes; dstack waits so long.
            boot_limit_seconds=max(1200.0 / pace, _LEAST_BOOT_SECONDS),
            start_limit_seconds=3600.0,  # data and packages come over our own world's links
            poll_seconds=max(6.0 / pace, 0.1),
            billing_step_seconds=1,  # docs.runpod.io/pods/pricing: by the second
            console_url=reading.CONSOLE,
            ssh=True,
            host_key_sent=False,  # the environment is told to everybody on the account
            retry_seconds=30.0 / pace,
            ending_seconds=max(120.0 / pace, _LEAST_SECONDS),
        )

    @classmethod
    def from_home(cls, home: Path, environ: Mapping[str, str] | None = None) -> RunpodProvider:
        """Open the account of `RUNPOD_API_KEY`.

        Raises:
            CredentialsError: the key is missing, or can't be one.
            UsageError: another setting makes no sense.
        """
        environ = os.environ if environ is None else environ
        return cls(
            home,
            settings.key(environ, api.KEY_VARIABLE, "RunPod", api.NEW_KEY),
            url=base_url(environ.get("GPURUN_RUNPOD_URL") or URL, "GPURUN_RUNPOD_URL"),
            disk_gb=int(settings.number(environ, "GPURUN_RUNPOD_DISK_GB", _DISK_GB, 20, 10_000)),
            pace=settings.number(environ, "GPURUN_RUNPOD_PACE", 1, 1e-6, 10**6),
        )

    @property
    def skew(self) -> timedelta:
        """RunPod's clock minus ours at its last answer."""
        return self._api.skew

    def account(self) -> str:
        """Fingerprint of the key: v2 has no endpoint that names the account."""
        return self._fingerprint

    def offers(self) -> Sequence[Offer]:
        """Every type on both clouds, alone and several on one host, its disk in the price."""
        asked = [("SECURE", count) for count in _COUNTS] + [("COMMUNITY", 1)]
        found: list[Offer] = []
        for cloud, count in asked:
            data, at = self._api.gpus(cloud, count, launch.CUDA)
            found += reading.offers(data, cloud, count, self._disk_gb, at)
        return found

    def funds(self) -> Funds | None:
        """Tell balance, spending and limit, by GraphQL as long as there is one; see `Funded`."""
        told = self._api.graphql("query { myself { clientBalance currentSpendPerHr spendLimit } }").get("myself")
        if not isinstance(told, dict):
            return None
        names = ("clientBalance", "currentSpendPerHr", "spendLimit")
        balance, spends, limit = (reading.usd(told.get(name)) for name in names)
        return None if balance is spends is limit is None else Funds(balance, spends, limit)

    @property
    def billed_late(self) -> timedelta:
        """How long a charge may be missing from what `billed` tells."""
        return timedelta(seconds=billing.LAG_SECONDS / self._pace)

    def billed(self, since: datetime) -> Sequence[Bill]:
        """Tell what was charged from the full hour before `since` on: pods by id, all else without one."""
        return billing.billed(self._api, since, self._now())

    def holders(self, job: Job, offer: Offer) -> Sequence[Holder]:  # noqa: ARG002 (the contract's shape)
        """The watchdog in the pod: RunPod ends nothing by itself."""
        return [ender.HOLDER]

    def launch(self, job: Job, offer: Offer) -> str:
        """Rent a pod whose own command starts the watchdog; see launch.py."""
        import providers.ssh.remote  # noqa: F401 - a quarter of a second, taken while nothing bills

        return launch.launch(self._api, job, offer, ender.orders(self._url, self._pace), self._witness)

    def find(self, mark: Mark) -> Sequence[Allocation]:
        """Look through the whole list for a name, or an environment, of this attempt."""
        return [one.allocation() for one in self._api.pods() if reading.same_attempt(one.mark, mark)]

    def inspect(self, allocation_id: str) -> Observation:
        """Look at one pod; ABSENT on RunPod's own "not found" where its list lacks it too, or "TERMINATED"."""
        if not reading.is_id(allocation_id):
            evidence = f"{printable(allocation_id, 40)!r} is no id that RunPod gives"
            return Observation(Phase.ABSENT, billing=False, evidence=evidence)
        found = self._get(allocation_id)
        if not isinstance(found, Observation):
            return _observation(found, *self._witness.began(found))
        return found

    def _get(self, pod_id: str) -> Pod | Observation:
        """Read one pod, or RunPod's word that there is none."""
        found, evidence = self._read(pod_id)
        if found is None and pod_id in [one.id for one in self._api.pods() if not one.gone]:
            # Not found is also said of an address that does not exist: a list that lacks it makes it an absence.
            self._witness.doubted(pod_id)
            raise UnreachableError(f"{evidence}, and yet it is listed", allocation_id=pod_id)
        if found is not None and not found.gone:
            self._seen = time.monotonic(), found
            return found
        return self._gone(pod_id, evidence if found else f"{evidence}, and not listed", word=found is not None)

    def _read(self, pod_id: str) -> tuple[Pod | None, str]:
        """Ask for one pod; None = RunPod's own "not found"."""
        reply = self._api.reply("GET", f"/pods/{pod_id}")
        evidence = f"GET /pods/{pod_id} → {reply.status}"
        if api.is_problem(reply, 404):
            self._witness.gone(pod_id, reply, word=False)
            return None, evidence
        found = reading.pod(api.ok(reply))
        if found.id != pod_id:
            raise ProviderError(f"{reply.what} answered with another pod", allocation_id=pod_id)
        if found.gone:
            self._witness.gone(pod_id, reply, word=True)
        else:
            self._witness.lives(pod_id, reply)
        return found, f"{evidence} TERMINATED"

    def _gone(self, pod_id: str, evidence: str, *, word: bool) -> Observation:
        """Say that there is none (any more): one whose end RunPod took from us ended between that and now."""
        ended = self._witness.ended(pod_id)
        if ended is None:
            return Observation(Phase.ABSENT, billing=False, evidence=evidence, ended=word)
        until, within = ended
        said = f"DELETE → 204, {evidence}"
        return Observation(
            Phase.ABSENT, billing=False, evidence=said, billed_until=until, billed_within=within, ended=True
        )

    def terminate(self, allocation_ids: Sequence[str]) -> None:
        """Delete these; none keeps another from its end.

        Raises:
            ProviderError: some may live on; the message names them.
        """
        doomed = list(dict.fromkeys(filter(reading.is_id, allocation_ids)))
        ending.each(doomed, self._terminate, reading.CONSOLE)
        if len(doomed) == 1:  # of many, each is ended before one is looked at
            with contextlib.suppress(ProviderError):  # `inspect` looks again, and proves it
                self._read(doomed[0])

    def _terminate(self, pod_id: str) -> None:
        """Delete one; where that road is closed, take the other. Which is gone already is fine: `inspect` proves it."""
        first = reply = self._api.reply("DELETE", f"/pods/{pod_id}")
        if not 200 <= reply.status < 300 and not api.is_problem(reply, 404) and reply.status not in {401, 429}:
            body = {"action": "terminate"}
            reply = self._api.reply("POST", f"/pods/{pod_id}/action", body=body, safe=True)
        if 200 <= reply.status < 300:
            self._witness.taken(pod_id, first)
        elif not api.is_problem(reply, 404):
            raise api.error_of(reply)

    def _now(self) -> datetime:
        return utc(time.time()) + self.skew

    def extend(self, allocation_id: str, ceiling: datetime) -> bool:  # noqa: ARG002 (the contract's shape)
        """A pod's name can't be changed while it runs: an edit resets it, and what is on its disk is gone."""
        return False

    def allocations(self) -> Sequence[Allocation]:
        """Everything on the account, every page of it."""
        return [one.allocation() for one in self._api.pods()]

    def tidy(self, live: Collection[Mark]) -> None:
        """Nothing is left behind: keys and commands went with the pods."""

    def remote(self, allocation_id: str, access: Access) -> Remote:
        """Reach the pod over SSH at its own address; see door.py.

        Raises:
            UnreachableError: it has no address yet, or is gone.
        """
        from providers.runpod.door import Door
        from providers.ssh.remote import SshRemote

        found = self._just_seen(allocation_id) or self._look(allocation_id)
        if found is None or found.mark is None:
            raise UnreachableError(f"{printable(allocation_id, 40)} is not there", allocation_id=allocation_id)
        told = self._told.setdefault(allocation_id, {})
        door = Door(self._api, allocation_id, access, lambda: self._address(allocation_id), told)
        return SshRemote(
            door.target,
            found.mark,
            on_login=door.settle,
            progress=access.progress,
            go_on=access.go_on,
            ender=Secret(ender.as_text(self._url, self._pace)),
            ahead=self.skew.total_seconds(),
        )

    def _address(self, pod_id: str) -> Address | None:
        found = self._just_seen(pod_id) or self._look(pod_id)
        return None if found is None else found.address

    def _look(self, pod_id: str) -> Pod | None:
        """Look at a pod for its address: what can't be told now is no absence.

        Raises:
            UnreachableError: RunPod does not tell.
        """
        try:
            found = self._get(pod_id) if reading.is_id(pod_id) else None
        except ProviderError as error:
            raise UnreachableError(f"where {pod_id} is can't be told: {error}", hint=error.hint) from error
        return None if isinstance(found, Observation) else found

    def _just_seen(self, pod_id: str) -> Pod | None:
        """Give what was seen a moment ago, if it can be reached."""
        at, one = self._seen or (0.0, None)
        fresh = one is not None and one.id == pod_id and time.monotonic() - at < _JUST_SECONDS / self._pace
        return one if fresh and one is not None and one.address else None


def _observation(one: Pod, began: datetime | None, within: float) -> Observation:
    """Say what a status means for the money: whatever is not gone may bill, a word made up later too."""
    word = printable(one.status, 40) or "no status"
    message = word if one.address or one.status != "RUNNING" else "RUNNING, without an address for SSH yet"
    return Observation(
        Phase.READY if one.address else Phase.QUEUED,
        billing=True,
        evidence=f"GET /pods/{one.id} → {word}",
        price=one.price,
        billed_from=began,
        billed_within=within,
        message=message,
        failure=_FAILURES.get(one.status, ""),
    )
