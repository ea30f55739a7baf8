"""A guard of ours in a scheduled job: the Hub starts it by its own clock, whatever becomes of this computer.

    <namespace>/gpurun: guard/<home>/in/   afar.py request.json gpurun.tar.gz     mounted; see payload/afar.py
                        guard/<home>/out/  guard.json (its pulse) trouble.json

Each job makes passes for an hour and a little longer, until the next one's have begun. The vendors' keys go as the
job's secrets, of which the Hub shows the names; the Hub's own token stays here. Not here: what a guard does.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from providers.errors import ProviderError, RemoteError
from providers.hf_jobs import images, launch, reading
from providers.hf_jobs.hub import MissingError
from providers.hf_jobs.provider import CONSOLE, HfProvider
from providers.http import printable

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from decimal import Decimal

    from huggingface_hub import HfApi, ScheduledJobInfo

    from providers.base import Secret

SCHEDULE = "0 * * * *"
PASSES_SECONDS = 3900  # a job's passes: an hour, and five minutes in which the next job may begin
BEAT_SECONDS = 30.0  # from pass to pass
_LEAST_BEAT_SECONDS = 0.5
FLAVOR = "cpu-basic"
_LABEL, _POST = "gpurun-guard", "gpurun-post"
_LIMIT_SECONDS = PASSES_SECONDS + 900  # a pass that ends many machines takes minutes
_PULSE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Post:
    """What a guard afar needs: gpurun itself, what it imports, the keys, and settings that are no secrets."""

    home: str  # the id of the home that installs it
    number: str  # new each time, so that its first pulse is known
    archive: bytes  # tar.gz with orchestrator/ and providers/
    requirements: tuple[str, ...]
    secrets: Mapping[str, Secret]
    settings: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Standing:
    """A guard that the Hub starts by the clock, as the Hub shows it."""

    id: str
    number: str
    schedule: str
    suspended: bool
    next_at: datetime | None
    console_url: str = CONSOLE


class HfOutpost:
    """Guards of one namespace."""

    def __init__(self, provider: HfProvider) -> None:
        self._provider = provider
        self._hub = provider.hub
        self._beat = max(BEAT_SECONDS / provider.pace, _LEAST_BEAT_SECONDS)

    @classmethod
    def from_home(cls, home: Path) -> HfOutpost:
        """Open the account of `HF_TOKEN`, see provider.py."""
        return cls(HfProvider.from_home(home))

    @property
    def namespace(self) -> str:
        """Who pays."""
        return self._provider.namespace

    def address(self, home: str) -> str:
        """Spell where the pulse of a home's guard is to be found."""
        return f"hf://{self.namespace}/{home}"

    def hourly(self) -> Decimal:
        """USD an hour that it costs, all the time.

        Raises:
            ProviderError: the Hub rents no such hardware any more.
        """
        found = next((offer.price for offer in self._provider.offers() if offer.name == FLAVOR), None)
        if found is None:
            raise ProviderError(f"Hugging Face rents no {FLAVOR} any more", hint="gpurun offers --provider hf")
        return found

    # ── its life ─────────────────────────────────────────────────────────────────────────────────────────────────

    def install(self, post: Post) -> str:
        """Ship it and schedule it; gives the schedule's id. An answer that was lost is looked for by its label.

        Raises:
            ProviderError: it was not scheduled, as far as the Hub's own list tells.
        """
        bucket = launch.bucket_of(self.namespace)
        self._hub.make_bucket(bucket)
        self._hub.upload(bucket, _shipment(post, self._beat))
        before = {one.id for one in self.standing(post.home)}
        try:
            made = self._hub.run("schedule", lambda api: self._create(api, post), 60.0)
            return str(made.id)
        except ProviderError:
            fresh = [one.id for one in self.standing(post.home) if one.id not in before]
            if not fresh:
                raise
            return fresh[0]

    def _create(self, api: HfApi, post: Post) -> ScheduledJobInfo:
        from huggingface_hub import Volume

        volume = Volume(
            type="bucket",
            source=launch.bucket_of(self.namespace),
            mount_path=launch.MOUNT,
            path=_prefix(post.home),
        )
        return api.create_scheduled_job(
            image=images.UV,
            command=["python3", "-B", f"{launch.MOUNT}/in/afar.py", launch.MOUNT],
            schedule=SCHEDULE,
            concurrency=True,  # two guards at once are no harm, none at all is
            env=dict(post.settings),
            secrets={name: secret.reveal() for name, secret in post.secrets.items()},
            flavor=FLAVOR,
            timeout=_LIMIT_SECONDS,
            attempts=1,
            name=f"gpurun-guard-{post.home}",
            labels={_LABEL: post.home, _POST: post.number},
            volumes=[volume],
            namespace=self.namespace,
        )

    def standing(self, home: str) -> list[Standing]:
        """List the guards of a home that the Hub starts by the clock."""

        def call(api: HfApi) -> list[ScheduledJobInfo]:
            return api.list_scheduled_jobs(namespace=self.namespace, labels={_LABEL: home})

        return [_standing(one) for one in self._hub.run("list of schedules", call)]

    def start_now(self, schedule: str) -> str:
        """Start a job of it beside its schedule; gives the job's id."""

        def call(api: HfApi) -> str:
            return str(api.trigger_scheduled_job(scheduled_job_id=schedule, namespace=self.namespace).id)

        return self._hub.run("start the guard", call)

    def end_of(self, job_id: str) -> str:
        """Say how a job of it ended; "" = it waits or runs."""
        job = self._hub.job(self.namespace, job_id)
        if not reading.is_over(job):
            return ""
        return f"{reading.stage_of(job)}{f': {printable(job.status.message, 200)}' if job.status.message else ''}"

    def remove(self, home: str, *, but: str = "") -> list[str]:
        """Forget a home's schedules and end their jobs, all but one post's; gives what is gone, read back.

        Raises:
            ProviderError: some of it is still there.
        """
        gone = [one.id for one in self.standing(home) if one.number != but]
        for one in gone:
            self._unschedule(one)
        left = {one.id for one in self.standing(home)} & set(gone)
        if left:
            raise ProviderError(f"still scheduled: {' '.join(sorted(left))}", hint=f"look at {CONSOLE}")
        self._end_jobs(home, but)
        return gone

    def _unschedule(self, schedule: str) -> None:
        def call(api: HfApi) -> None:
            api.delete_scheduled_job(scheduled_job_id=schedule, namespace=self.namespace)

        try:
            self._hub.run("unschedule", call)
        except MissingError:
            return

    def _end_jobs(self, home: str, but: str) -> None:
        jobs = self._hub.jobs(self.namespace, labels={_LABEL: home}, stages=reading.LIVE)
        self._provider.terminate([one.id for one in jobs if (one.labels or {}).get(_POST) != but])

    def forget(self, home: str) -> None:
        """Remove a home's guard from the bucket."""
        bucket = launch.bucket_of(self.namespace)
        paths = list(self._hub.sizes(bucket, _prefix(home)))
        if paths:
            self._hub.delete(bucket, paths)

    # ── what it says ─────────────────────────────────────────────────────────────────────────────────────────────

    def pulse(self, home: str) -> bytes | None:
        """Read the last pulse; None = there is none yet."""
        return self._read(home, "guard.json")

    def trouble(self, home: str, number: str = "") -> str:
        """Say what kept a guard, of this post where one is named, from its passes; "" = it says nothing of that."""
        try:
            said = json.loads(self._read(home, "trouble.json") or b"{}")
        except ValueError:
            return ""
        if not isinstance(said, dict) or (number and said.get("post") != number):
            return ""
        return printable(str(said.get("error", "")), 300)

    def _read(self, home: str, name: str) -> bytes | None:
        bucket, path = launch.bucket_of(self.namespace), f"{_prefix(home)}/out/{name}"
        return self._hub.run(name, lambda _: self._hub.read(bucket, path), _PULSE_SECONDS)


def _prefix(home: str) -> str:
    if not home.isalnum():
        raise RemoteError(f"{printable(home, 20)!r} is no home's id")
    return f"guard/{home}"


def _shipment(post: Post, beat: float) -> list[tuple[Path | bytes, str]]:
    from hashlib import sha256

    request: dict[str, Any] = {
        "post": post.number,
        "sha256": sha256(post.archive).hexdigest(),
        "requirements": list(post.requirements),
        "beat_seconds": beat,
        "seconds": PASSES_SECONDS,
    }
    base = f"{_prefix(post.home)}/in"
    return [
        (Path(str(files("payload").joinpath("afar.py"))), f"{base}/afar.py"),
        (post.archive, f"{base}/gpurun.tar.gz"),
        (json.dumps(request).encode(), f"{base}/request.json"),
    ]


def _standing(one: ScheduledJobInfo) -> Standing:
    number = str((one.job_spec.labels or {}).get(_POST, ""))
    return Standing(str(one.id), number, str(one.schedule or ""), bool(one.suspend), one.status.next_job_run_at)
