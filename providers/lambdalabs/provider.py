"""The money plane of Lambda Cloud.

    launch -> an instance that bears the mark in its name, a tag and the name of its key
    find, allocations -> the account's own list       inspect -> GET by id: Lambda's view only

Lambda tells no account: the key's fingerprint stands for it, so a run needs the key that it was launched with.
"""

from __future__ import annotations

import functools
import logging
import os
import time
from dataclasses import replace
from datetime import timedelta
from hashlib import sha256
from typing import TYPE_CHECKING

from providers import ending
from providers import environ as settings
from providers.base import Mark, Observation, Phase, Secret, Traits, utc
from providers.errors import CredentialsError, ProviderError, RefusedError, UnreachableError, UsageError
from providers.http import Http, base_url, printable
from providers.lambdalabs import api, ender, launch, reading
from providers.pacing import pacer_for

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    from providers.base import Access, Allocation, Holder, Job, Offer, Remote
    from providers.lambdalabs.reading import Instance

log = logging.getLogger("gpurun.lambda")

URL = "https://cloud.lambda.ai/api/v1"
_PACE = {"": 1.1, launch.LANE: 13.0}  # seconds; the API allows 1 request a second, 1 launch in 12
_LEAST_SECONDS = 10.0  # of patience with a machine, however hurried its vendor: its processes start in our world
_BATCH = 20
_JUST_SECONDS = 5.0  # since a machine was looked at: its address is still the same
_DEAD_CEILING = timedelta(hours=1)  # past its ceiling, a mark's key opens nothing that may live

_FAILURES = {
    "unhealthy": "unhealthy: the machine failed Lambda's own check",
    "preempted": "preempted: Lambda took the machine back",
}


class LambdaProvider:
    """One account at Lambda, through one key. `home` tells which runs are ours."""

    name = "lambda"

    def __init__(
        self,
        home: Path,
        key: Secret,
        *,
        url: str = URL,
        ssh_port: int = 22,
        ssh_user: str = "ubuntu",
        pace: float = 1.0,
    ) -> None:
        self._home = home
        self._url, self._key = url.rstrip("/"), key
        self._fingerprint = "lambda-key-" + sha256(key.reveal().encode()).hexdigest()[:12]
        self._ssh = (ssh_port, ssh_user)
        self._seen: tuple[float, Instance] | None = None  # the last one that was looked at, and when
        intervals = {lane: seconds / pace for lane, seconds in _PACE.items()}
        self._api = api.Api(Http("Lambda", url, key, pacer_for("lambda", url, self._fingerprint, intervals), pace=pace))
        self.traits = Traits(
            list_lag_seconds=60.0 / pace,  # nothing is promised, and no lag was reported: a minute to be safe
            boot_limit_seconds=max(1200.0 / pace, _LEAST_SECONDS),  # 2-15 min seen (2026-08), 8 GPUs the slowest
            start_limit_seconds=3600.0,  # data and packages come over our own world's links
            poll_seconds=max(5.0 / pace, 0.1),
            billing_step_seconds=60,  # lambda.ai/pricing: one-minute increments
            console_url=reading.CONSOLE,
            ssh=True,
            retry_seconds=30.0 / pace,
            ending_seconds=max(180.0 / pace, _LEAST_SECONDS),
            key_on_machine=True,
        )

    @classmethod
    def from_home(cls, home: Path, environ: Mapping[str, str] | None = None) -> LambdaProvider:
        """Open the account of `LAMBDA_API_KEY`.

        Raises:
            CredentialsError: the key is missing, or can't be one.
            UsageError: another setting makes no sense.
        """
        environ = os.environ if environ is None else environ
        return cls(
            home,
            settings.key(environ, api.KEY_VARIABLE, "Lambda", api.NEW_KEY),
            url=base_url(environ.get("GPURUN_LAMBDA_URL") or URL, "GPURUN_LAMBDA_URL"),
            ssh_port=int(settings.number(environ, "GPURUN_LAMBDA_SSH_PORT", 22, 1, 65535)),
            ssh_user=environ.get("GPURUN_LAMBDA_SSH_USER") or "ubuntu",
            pace=settings.number(environ, "GPURUN_LAMBDA_PACE", 1, 1e-6, 10**6),
        )

    @property
    def skew(self) -> timedelta:
        """Lambda's clock minus ours at its last answer."""
        return self._api.skew

    def account(self) -> str:
        """Fingerprint of the key: Lambda has no endpoint that names the account."""
        return self._fingerprint

    def offers(self) -> Sequence[Offer]:
        """Every type in every region that has room now; sold-out types once, as not available."""
        return list(reading.offers(*self._api.instance_types()))

    def holders(self, job: Job, offer: Offer) -> Sequence[Holder]:  # noqa: ARG002 (the contract's shape)
        """The watchdog where the key may lie on the machine, else nobody: Lambda ends nothing by itself."""
        return [ender.HOLDER] if job.key_on_machine else []

    def launch(self, job: Job, offer: Offer) -> str:
        """Rent a machine that shows the host key of this job from its first second; see launch.py."""
        import providers.ssh.remote  # noqa: F401 - a quarter of a second, taken while nothing bills

        return launch.launch(self._api, job, offer)

    def find(self, mark: Mark) -> Sequence[Allocation]:
        """Look through the whole list for a name, a tag or a key of this attempt."""
        return [one.allocation() for one in self._api.instances() if reading.same_attempt(one.mark, mark)]

    def inspect(self, allocation_id: str) -> Observation:
        """Look at one instance; ABSENT on Lambda's own "no such instance" or "terminated" only."""
        if not reading.is_id(allocation_id):
            return _absent(f"{printable(allocation_id, 40)!r} is no id that Lambda gives")
        found = self._get(allocation_id)
        return found if isinstance(found, Observation) else _observation(found)

    def _get(self, allocation_id: str) -> Instance | Observation:
        """Read one instance, or Lambda's word that there is none."""
        reply = self._api.reply("GET", f"/instances/{allocation_id}")
        code = api.code_of(reply)
        evidence = f"GET /instances/{allocation_id} → {reply.status} {code}"
        if reply.status == 404 and code == api.NO_SUCH_INSTANCE:
            return _absent(evidence)
        if reply.status == 404 and code == api.NOTHING_THERE:
            # Also said of an address that does not exist: only a list that works and lacks it makes it an absence.
            if allocation_id not in [one.id for one in self._api.instances()]:
                return _absent(f"{evidence}, and not listed")
            raise UnreachableError(f"{evidence}, and yet it is listed", allocation_id=allocation_id)
        found = reading.instance(api.data_of(reply))
        if found.id != allocation_id:
            raise ProviderError(f"{reply.what} answered with another instance", allocation_id=allocation_id)
        self._seen = time.monotonic(), found
        return found

    def terminate(self, allocation_ids: Sequence[str]) -> None:
        """End these; where Lambda refuses them together, each by itself.

        Raises:
            ProviderError: some may live on; the message names them.
        """
        ids = [one for one in dict.fromkeys(allocation_ids) if reading.is_id(one)]
        refused: dict[str, ProviderError] = {}
        for start in range(0, len(ids), _BATCH):
            refused |= self._terminate(ids[start : start + _BATCH])
        ending.tell(refused, reading.CONSOLE)

    def _terminate(self, ids: Sequence[str]) -> dict[str, ProviderError]:
        """End some; gives those whose end Lambda refuses, which keep none of the others from theirs."""
        reply = self._api.reply("POST", "/instance-operations/terminate", body={"instance_ids": list(ids)}, safe=True)
        if 200 <= reply.status < 300:
            return {}  # whatever the body says: `inspect` proves it
        refusal = api.error_of(reply)
        if isinstance(refusal, CredentialsError | UnreachableError):
            raise refusal
        if len(ids) > 1:  # one of them may be gone: what becomes of the others is not documented
            return self._one_by_one(ids)
        look = self.inspect(ids[0])  # ending it twice was seen to answer global/unknown (SkyPilot 3410, 2024-04)
        return {ids[0]: refusal} if look.billing and not look.ending else {}

    def _one_by_one(self, ids: Sequence[str]) -> dict[str, ProviderError]:
        refused: dict[str, ProviderError] = {}
        for one in ids:
            try:
                refused |= self._terminate([one])
            except ProviderError as error:
                refused[one] = error
        return refused

    def extend(self, allocation_id: str, ceiling: datetime) -> bool:
        """Rename it to its mark with the new ceiling; nothing else holds a limit."""
        found = self._living(allocation_id)
        if found is None or found.mark is None:
            return False
        return self._rename(allocation_id, replace(found.mark, ceiling=ceiling))

    def adopt(self, allocation_id: str, mark: Mark) -> None:
        """Rename a machine that somebody else started to this mark: from here on it is ours to end.

        Raises:
            UsageError: there is no such machine, or it has ended.
            RefusedError: another run's mark is on it, and its ceiling is not past.
        """
        found = self._living(allocation_id)
        if found is None:
            raise UsageError(
                f"Lambda has no machine {printable(allocation_id, 40)!r}", hint=f"look at {reading.CONSOLE}"
            )
        other = found.mark
        if other is not None and not reading.same_attempt(other, mark) and self._earliest_now() < other.ceiling:
            raise RefusedError(f"{allocation_id} belongs to {other.run_id}", hint=f"gpurun show {other.run_id}")
        if not self._rename(allocation_id, mark):
            raise ProviderError(f"Lambda did not give {allocation_id} its new name", allocation_id=allocation_id)

    def _living(self, allocation_id: str) -> Instance | None:
        found = self._get(allocation_id) if reading.is_id(allocation_id) else None
        return None if found is None or isinstance(found, Observation) or found.gone else found

    def _just_seen(self, allocation_id: str) -> Instance | None:
        """Give what was seen a moment ago, if it can be reached: another look costs a second of what bills."""
        at, one = self._seen or (0.0, None)
        fresh = one is not None and one.id == allocation_id and time.monotonic() - at < _JUST_SECONDS
        return one if fresh and one is not None and one.ip and not one.gone else None

    def _rename(self, allocation_id: str, mark: Mark) -> bool:
        body = {"name": str(mark)}
        renamed = reading.instance(
            api.data_of(self._api.reply("POST", f"/instances/{allocation_id}", body=body, safe=True))
        )
        return renamed.id == allocation_id and renamed.name == str(mark)

    def allocations(self) -> Sequence[Allocation]:
        """Everything on the account, every page of it."""
        return [one.allocation() for one in self._api.instances()]

    def tidy(self, live: Collection[Mark]) -> None:
        """Delete the keys that ended attempts left registered: ours, and anybody's whose ceiling is long past."""
        keys = [(key, mark) for key in self._api.list_keys() if key.id and (mark := Mark.parse(key.name)) is not None]
        dead = [(key, mark) for key, mark in keys if self._is_over(mark, live)]
        if not dead:
            return
        listed = [mark for one in self._api.instances() if not one.gone for mark in one.marks]
        for key, mark in dead:
            if not any(reading.same_attempt(one, mark) for one in listed):
                self._api.drop_key(key.id)

    def _is_over(self, mark: Mark, live: Collection[Mark]) -> bool:
        ours = (self._home / "runs" / mark.run_id).is_dir()  # ids are random: no other home has this run
        past = self._earliest_now() > mark.ceiling + _DEAD_CEILING
        return (ours or past) and not any(reading.same_attempt(one, mark) for one in live)

    def _earliest_now(self) -> datetime:
        """The time, by whichever clock is behind: what is another's is spared for longer."""
        return utc(time.time()) + min(self.skew, timedelta(0))

    def remote(self, allocation_id: str, access: Access) -> Remote:
        """Reach the machine over SSH; once that works, its key is deleted at Lambda.

        Raises:
            UnreachableError: it has no address yet, or is gone.
        """
        from providers.ssh.link import Target
        from providers.ssh.remote import SshRemote

        try:
            found = self._just_seen(allocation_id) or self._living(allocation_id)
        except ProviderError as error:
            raise UnreachableError(f"where {allocation_id} is can't be told: {error}", hint=error.hint) from error
        if found is None or not found.ip or found.birth_mark is None:
            raise UnreachableError(f"{printable(allocation_id, 40)} has no address", allocation_id=allocation_id)
        port, user = self._ssh
        target = Target(found.ip, port, user, access)
        forget = functools.partial(launch.forget_key, self._api, access.folder)
        orders = ender.orders(self._url, self._key, found.id) if access.key_on_machine else None
        return SshRemote(
            target,
            found.birth_mark,
            on_login=forget,
            progress=access.progress,
            go_on=access.go_on,
            ender=orders,
            ahead=self.skew.total_seconds(),
        )


def _absent(evidence: str) -> Observation:
    return Observation(Phase.ABSENT, billing=False, evidence=evidence)


def _observation(one: Instance) -> Observation:
    """Say what a status means for the money: whatever is not "terminated" may bill, a word made up later too."""
    word = printable(one.status, 40) or "no status"
    evidence = f"GET /instances/{one.id} → {word}"
    if one.gone:
        return replace(_absent(evidence), price=one.price, billed_from=one.billed_from, ended=True)
    ready = one.status in {"active", "unhealthy"} and one.ip
    return Observation(
        Phase.READY if ready else Phase.QUEUED,
        billing=True,
        evidence=evidence,
        price=one.price,
        billed_from=one.billed_from,
        message=word,
        failure=_FAILURES.get(one.status, ""),
        ending=one.status == "terminating",
    )
