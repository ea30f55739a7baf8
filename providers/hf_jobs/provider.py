"""The money plane of Hugging Face Jobs.

    launch -> a job that bears the mark in a label, and the Hub's own time limit
    find, allocations -> the account's list      inspect -> GET by id      terminate -> cancel

The Hub tells no cost: prices come from its hardware list, by the minute, and what a job cost is an estimate from its
own start and end.
"""

from __future__ import annotations

import json
import os
import time
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from providers.base import Holder, Mark, Observation, Phase, Place, Proof, Secret, Traits, utc
from providers.errors import CredentialsError, ProviderError, UsageError
from providers.hf_jobs import images, inline, launch, reading
from providers.hf_jobs.hub import NEW_TOKEN, TOKEN_VARIABLE, Hub, MissingError, RefusalError
from providers.http import base_url, printable
from providers.table import SIGNS

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from datetime import datetime, timedelta
    from decimal import Decimal

    from huggingface_hub import JobInfo

    from providers.base import Access, Allocation, Job, Offer, Remote

URL = "https://huggingface.co"
CONSOLE = f"{URL}/settings/jobs"
_NAMESPACE = "GPURUN_HF_NAMESPACE"
_PACE = "GPURUN_HF_PACE"
_PRICES_SECONDS = 600.0
_LEAST_SECONDS = 10.0
_JUST_SECONDS = 1.0


class HfProvider:
    """One namespace at the Hub, through one token."""

    name = "hf"

    def __init__(self, home: Path, token: Secret, *, url: str = URL, namespace: str = "", pace: float = 1.0) -> None:
        self._home = home
        self._token = token
        self._namespace = namespace
        self.pace = pace
        self.hub = Hub(url, token)
        self._prices: tuple[float, dict[str, Decimal]] | None = None
        self._seen: dict[str, tuple[float, JobInfo]] = {}
        self.traits = Traits(
            list_lag_seconds=max(30.0 / pace, 0.5),  # nothing is promised, and no lag was reported
            boot_limit_seconds=max(2 * launch.QUEUE_SECONDS / pace, 120.0),  # the job's own queue limit comes first
            start_limit_seconds=max(900.0 / pace, 120.0),
            poll_seconds=max(5.0 / pace, 0.2),  # 1,000 calls in 5 minutes are allowed, 3 a look are made
            billing_step_seconds=60,  # hub-docs: by the minute; the client's guide says by the second
            console_url=CONSOLE,
            retry_seconds=60.0 / pace,
            ending_seconds=max(120.0 / pace, _LEAST_SECONDS),
            queue_seconds=max(launch.QUEUE_SECONDS / pace, 5.0),
        )

    @classmethod
    def from_home(cls, home: Path, environ: Mapping[str, str] | None = None) -> HfProvider:
        """Open the account of `HF_TOKEN`, else of the token that `hf auth login` left.

        Raises:
            CredentialsError: there is neither.
            UsageError: another setting makes no sense.
        """
        environ = os.environ if environ is None else environ
        token = environ.get(TOKEN_VARIABLE, "").strip() or saved_token(environ)
        if not token:
            raise CredentialsError(f"no token for Hugging Face: {TOKEN_VARIABLE} is not set", hint=NEW_TOKEN)
        if not token.isascii() or not token.isprintable() or " " in token:
            raise CredentialsError(f"{TOKEN_VARIABLE} holds characters that no token has", hint=NEW_TOKEN)
        pace = environ.get(_PACE) or "1"
        if not pace.replace(".", "", 1).isdigit() or not float(pace):
            raise UsageError(f"{_PACE} is no number above 0", hint=f"unset {_PACE}")
        return cls(
            home,
            Secret(token),
            url=base_url(environ.get("HF_ENDPOINT") or URL, "HF_ENDPOINT"),
            namespace=environ.get(_NAMESPACE, "").strip(),
            pace=float(pace),
        )

    @property
    def skew(self) -> timedelta:
        """The Hub's clock minus ours at its last answer."""
        return self.hub.skew

    @property
    def namespace(self) -> str:
        """Who pays: a user or an organisation. Asked once, and kept: whoami is strictly limited."""
        if not self._namespace:
            path = _cache()
            key = sha256(f"{self.hub.endpoint} {self._token.reveal()}".encode()).hexdigest()[:16]
            known = _read(path)
            if not isinstance(known.get(key), str):
                known = {key: self.hub.whoami()}
                _keep(path, known)
            self._namespace = known[key]
        return self._namespace

    def account(self) -> str:
        """Name the namespace: another token of the same one opens the same jobs."""
        place = urlsplit(self.hub.endpoint).hostname
        return f"hf-{self.namespace}" if place == urlsplit(URL).hostname else f"hf-{self.namespace}@{place}"

    def offers(self) -> Sequence[Offer]:
        """Every flavor with its price now; whether one is free, the Hub does not tell."""
        rows = self.hub.hardware()
        found = list(reading.offers(rows, utc(time.time())))
        self._prices = time.monotonic(), {one.name: one.price for one in found}
        return found

    def holders(self, job: Job, offer: Offer) -> Sequence[Holder]:  # noqa: ARG002 (the contract's shape)
        """The Hub itself, by the time limit that every job is given, and the watchdog in the container."""
        timeout = launch.timeout_of(job, self.traits.queue_seconds)
        words = f"timeoutSeconds={timeout}, from the start of the job on; it is cancelled if it waits for longer"
        theirs = reading.limit(Proof.UNPROVEN, words)
        if inline.is_needed():
            return [theirs]
        ours = "its end is the job's"
        return [
            theirs,
            Holder("watchdog", Place.MACHINE, Proof.UNPROVEN, worst_overrun_seconds=60, evidence=ours),
        ]

    def remarks(self, command: Sequence[str], offer: Offer) -> Sequence[tuple[str, str]]:
        """Name the image, and why it is that one."""
        image = images.image_for(command, offer.gpu_count)
        by_log = [("inline", inline.REMARK)] if inline.is_needed() else []
        return [("image", f"{image.name}: {image.reason}"), *by_log]

    def launch(self, job: Job, offer: Offer) -> str:
        """Ship the job and submit it once; see launch.py."""
        _leave_sign(self._home)
        return launch.launch(self.hub, self.namespace, job, offer, self.traits.queue_seconds, self.pace)

    def find(self, mark: Mark) -> Sequence[Allocation]:
        """Look for the run's label, whatever became of the job."""
        listed = self.hub.jobs(self.namespace, labels={reading.RUN: mark.run_id})
        return [self._allocation(one) for one in listed if _same_attempt(reading.mark_of(one), mark)]

    def inspect(self, allocation_id: str) -> Observation:
        """Look at one job; ABSENT on the Hub's own "no such job" only."""
        if not reading.is_id(allocation_id):
            words = f"{printable(allocation_id, 40)!r} is no id that the Hub gives"
            return Observation(Phase.ABSENT, billing=False, evidence=words)
        try:
            job = self.look(allocation_id)
        except MissingError as error:
            return Observation(Phase.ABSENT, billing=False, evidence=str(error))
        return reading.observation(job, self._price(job), self.now())

    def look(self, job_id: str, *, fresh: bool = True) -> JobInfo:
        """Read a job; not `fresh` = what was read a moment ago will do.

        Raises:
            MissingError: there is none.
        """
        at, known = self._seen.get(job_id, (0.0, None))
        if not fresh and known is not None and time.monotonic() - at < max(_JUST_SECONDS / self.pace, 0.05):
            return known
        found = self.hub.job(self.namespace, job_id)
        if found.id != job_id:
            raise ProviderError("Hugging Face answered with another job", allocation_id=job_id)
        self._seen[job_id] = time.monotonic(), found
        return found

    def now(self) -> datetime:
        """The time by the Hub's clock."""
        return utc(time.time()) + self.skew

    def terminate(self, allocation_ids: Sequence[str]) -> None:
        """Cancel these; what has ended already is fine.

        Raises:
            ProviderError: some may live on; the message names them.
        """
        refused: dict[str, ProviderError] = {}
        for one in dict.fromkeys(allocation_ids):
            if reading.is_id(one):
                try:
                    self._cancel(one)
                except ProviderError as error:
                    refused[one] = error
        if refused:
            words = "; ".join(f"{one}: {error}" for one, error in refused.items())
            raise ProviderError(f"not ended: {words}", hint=f"look at {CONSOLE}", allocation_id=next(iter(refused)))

    def _cancel(self, job_id: str) -> None:
        try:
            self.hub.cancel(self.namespace, job_id)
        except MissingError:
            return
        except RefusalError:  # what one gets for a job that has ended is not documented: a look tells
            if self.inspect(job_id).billing:
                raise

    def extend(self, allocation_id: str, ceiling: datetime) -> bool:  # noqa: ARG002 (the contract's shape)
        """The Hub has no call that moves a job's time limit."""
        return False

    def allocations(self) -> Sequence[Allocation]:
        """Everything of the namespace that waits or runs, and all that bears our label, ended or in whatever stage.

        A filter by stage knows no stage that the Hub makes up later: what is ours must not hide behind one.
        """
        listed = {one.id: one for one in self.hub.jobs(self.namespace, stages=reading.LIVE)}
        listed |= {one.id: one for one in self.hub.jobs(self.namespace, labels=reading.OURS)}
        return [self._allocation(one) for one in listed.values()]

    def _allocation(self, job: JobInfo) -> Allocation:
        return reading.allocation(job, self._price(job))

    def _price(self, job: JobInfo) -> Decimal | None:
        """USD an hour of its flavor now; None = it can't be told."""
        at, prices = self._prices or (0.0, {})
        if self._prices is None or time.monotonic() - at > _PRICES_SECONDS:
            self.offers()
            prices = self._prices[1] if self._prices else {}
        return prices.get(str(getattr(job.flavor, "value", job.flavor)))

    def tidy(self, live: Collection[Mark]) -> None:
        """Remove the files of this home's ended runs from the bucket: what was to come home is home."""
        bucket = launch.bucket_of(self.namespace)
        spared = {mark.run_id for mark in live}
        try:
            paths = list(self.hub.sizes(bucket, "runs"))
        except MissingError:
            return
        marks = {path: Mark.parse(path.split("/")[1]) for path in paths if path.count("/") > 1}
        dead = {path: mark for path, mark in marks.items() if mark is not None and mark.run_id not in spared}
        ours = {path: mark for path, mark in dead.items() if (self._home / "runs" / mark.run_id).is_dir()}
        if not ours:
            return
        living = [mark for one in self.allocations() if one.billing and (mark := one.mark) is not None]
        gone = [path for path, mark in ours.items() if not any(_same_attempt(one, mark) for one in living)]
        if gone:
            self.hub.delete(bucket, gone)

    def remote(self, allocation_id: str, access: Access) -> Remote:
        """Open the prefix of a job; nothing is asked before the first verb."""
        from providers.hf_jobs.remote import HfRemote

        return HfRemote(self, self.hub, allocation_id, access, self.pace)


def _same_attempt(one: Mark | None, other: Mark) -> bool:
    if one is None:
        return False
    return (one.home, one.run_id, one.attempt, one.node) == (other.home, other.run_id, other.attempt, other.node)


def saved_token(environ: Mapping[str, str]) -> str:
    """Read the token that the vendor's own `hf auth login` keeps; "" = there is none."""
    home = Path(environ.get("HF_HOME") or "~/.cache/huggingface").expanduser()
    try:
        return Path(environ.get("HF_TOKEN_PATH") or home / "token").read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _leave_sign(home: Path) -> None:
    """Let guard and costs look here from now on, see providers/table.py; a home that can't be written has no ledger."""
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    (home / SIGNS["hf"][1]).touch()


def _cache() -> Path:
    import platformdirs

    return Path(platformdirs.user_cache_dir("gpurun", appauthor=False)) / "hf-account.json"


def _read(path: Path) -> dict[str, str]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _keep(path: Path, content: dict[str, str]) -> None:
    """Remember it for the next process; where the disk does not let us, that one asks again."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        aside.write_text(json.dumps(content))
        aside.replace(path)
    except OSError:
        return
