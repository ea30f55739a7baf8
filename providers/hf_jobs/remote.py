"""The byte plane of a job: its prefix in the bucket, which the job has mounted, and its log over SSE.

    start   nothing: the job began with its launch      status, manifest  out/said.json, out/manifest.json + the list
    tell    in/order.json                               logs  log.py      fetch   plain HTTP, resumed, verified

What a job writes shows up late, after its end too. So an end counts here once its last file is listed whole, or the
patience for that is over; until then nothing is known, which is an error and no fact.
"""

from __future__ import annotations

import json
import time
from dataclasses import replace
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from providers import wire
from providers.base import Entry, Manifest, OrderKind, Phase, RemoteStatus, seconds_between
from providers.errors import IntegrityError, ProviderError, RemoteError, UnreachableError
from providers.hf_jobs import inline, launch, reading
from providers.hf_jobs.hub import MissingError
from providers.hf_jobs.log import LogReader

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from huggingface_hub import JobInfo

    from providers.base import Access, Job, Order
    from providers.hf_jobs.hub import Hub
    from providers.hf_jobs.inline import Said
    from providers.hf_jobs.provider import HfProvider

_LOG_PIECE = 4 * 2**20  # bytes
_PATIENCE_SECONDS = 60.0  # after the end, for the last files: the mount's own window is 30 s
_LOG_SECONDS = 20.0  # for the last lines
_LOG_ALONE_SECONDS = 900.0  # the same where nothing else brings anything home
_LEAST_SECONDS = 5.0
_STALE_SECONDS = 90.0  # what the job said longer ago says nothing of now
_CUT = ".part"


class HfRemote:
    """One job. Nothing is asked before the first verb."""

    def __init__(self, provider: HfProvider, hub: Hub, job_id: str, access: Access, pace: float) -> None:
        self._provider = provider
        self._hub = hub
        self._id = job_id
        self._access = access
        self._pace = pace
        self._prefix = ""
        self._bucket = ""
        self._said: dict[str, Any] = {}
        self._over = False
        self._log: LogReader | None = None
        self._late_since: float | None = None
        self._inline: Said | None = None  # of a job that has no bucket: all that it says, it says in its log

    def start(self, job: Job) -> None:
        """Nothing is left to do: the job was shipped and started by its launch."""

    def status(self) -> RemoteStatus:
        """Read what the job says of itself, beside what the Hub says of the job.

        Raises:
            UnreachableError: it has ended, and its last word is still on its way.
        """
        job = self._look()
        self._over = reading.is_over(job)  # before its words are read: these are no older then
        if self._inline is not None:
            return self._spoken_in_log(job, self._inline)
        said = self._json("said.json")
        self._said = said
        if said.get("result"):
            spoken = self._spoken(said)
            # The Hub's own limit comes as a SIGTERM, which the agent takes for an order to stop.
            late = reading.timed_out(job) and spoken.reason == "stopped"
            return replace(spoken, reason="deadline") if late else spoken
        if self._over:
            self._wait_for_files(job, "its last word")
            return _unspoken(job, said)
        if said.get("error"):
            return RemoteStatus(Phase.EXITED, reason="lost", detail=str(said["error"])[:500])
        return self._spoken(said) if said else RemoteStatus(Phase.RUNNING, stage="boot")

    def _spoken_in_log(self, job: JobInfo, said: Said) -> RemoteStatus:
        reader = self._reader()
        last = reader.read(0, 2**40).rpartition(b"::metrics ")[2].partition(b"\n")[0]
        if self._over and said.end is None:
            reader.wait(2**62, max(_LOG_SECONDS / self._pace, _LEAST_SECONDS))
        status = said.status()
        if status is not None:
            late = reading.timed_out(job) and status.reason == "stopped"
            return replace(status, reason="deadline") if late else status
        if not self._over:
            return said.running(last)
        if not reader.ended:
            self._wait_for_files(job, "the end of its log", _LOG_ALONE_SECONDS)
        return _unspoken(job, {})

    def _spoken(self, said: dict[str, Any]) -> RemoteStatus:
        here, there = time.time(), wire.number(said.get("time")) or 0.0
        fresh = abs(here - there) < _STALE_SECONDS
        status = wire.status_of(said, there if fresh else here)
        return replace(status, phase=Phase.RUNNING) if status.phase is Phase.READY else status

    def _wait_for_files(self, job: JobInfo, what: str, most: float = _PATIENCE_SECONDS) -> None:
        """Be patient for so many of the vendor's seconds after the end.

        Raises:
            UnreachableError: it may still come.
        """
        self._late_since = self._late_since or time.monotonic()
        patience = max(most / self._pace, _LEAST_SECONDS * most / _PATIENCE_SECONDS)
        # By the Hub's own record: after such an error another remote is opened, which remembers nothing.
        if job.finished_at is not None:
            since = seconds_between(job.finished_at, self._provider.now())
        else:
            since = time.monotonic() - self._late_since
        if since < patience:
            words = f"{what} is not here yet: it may take {patience:.0f} s after the end"
            raise UnreachableError(words, allocation_id=self._id)

    def tell(self, order: Order) -> None:
        """Leave an order in the bucket; the job looks for one whenever it copies."""
        self._look()
        if self._inline is not None and order.kind is OrderKind.STOP:
            self._provider.terminate([self._id])  # the Hub's SIGTERM is the one order that reaches such a job: it saves
            return
        if self._inline is not None:
            raise RemoteError("no order can reach a job without a bucket (hf_xet was not installed at its launch)")
        content = json.dumps(wire.order_json(order)).encode()
        try:
            self._hub.upload(self._bucket, [(content, f"{self._prefix}/in/order.json")])
        except MissingError as error:
            raise RemoteError(f"the order can't be left: {error}") from error

    # ── files ────────────────────────────────────────────────────────────────────────────────────────────────────

    def manifest(self) -> Manifest:
        """Name the files that are in the bucket whole; final once that is all that result.json speaks of.

        Raises:
            UnreachableError: the job has ended, and not all of it is there yet.
        """
        job = self._look()
        if self._inline is not None:
            self.status()
            return self._inline.manifest()
        said = self._json("manifest.json")
        listed = said.get("entries")
        named = wire.manifest_of(listed if isinstance(listed, list) else [], final=said.get("final") is True)
        sizes = self._hub.sizes(self._bucket, f"{self._prefix}/out/files") if named.entries else {}
        here = [one for one in named.entries if sizes.get(self._path(one.name)) == one.size]
        whole = len(here) == len(named.entries)
        if reading.is_over(job) and not (named.final and whole):
            self._wait_for_files(job, "all of it")
        return Manifest(tuple(here), final=named.final and whole)

    def _path(self, name: str) -> str:
        return f"{self._prefix}/out/files/{name}"

    def fetch(self, names: Sequence[str], dest: Path) -> None:
        """Bring files home, each verified; a half one is carried on with."""
        known = {entry.name: entry for entry in self.manifest().entries}
        if self._inline is not None:
            self._inline.fetch(names, dest)
            return
        looked_at: set[str] = set()
        for name in names:
            target = wire.inside(dest, name, looked_at)
            if name not in known:
                raise RemoteError(f"{name!r} is not among the whole files of this job (any more)")
            try:
                if not (target.is_file() and not target.is_symlink() and _is(target, known[name])):
                    self._bring(known[name], target)
            except OSError as error:
                raise RemoteError(f"{name!r} can't be written here: {error.strerror or error}") from error

    def _bring(self, entry: Entry, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = target.with_name(f".{target.name[:100]}.{entry.sha256[:12]}{_CUT}")
        done = aside.stat().st_size if aside.exists() else 0
        if done > entry.size:
            aside.unlink()
            done = 0
        with aside.open("ab") as file:
            if done < entry.size:
                for piece in self._hub.stream(self._bucket, self._path(entry.name), done):
                    file.write(piece)
                    self._go_on()
        if not _is(aside, entry):
            aside.unlink()
            raise IntegrityError(f"{entry.name!r} came, and its bytes are not those of the manifest")
        aside.replace(target)

    def _go_on(self) -> None:
        if self._access.go_on is not None:
            self._access.go_on()

    # ── the log ──────────────────────────────────────────────────────────────────────────────────────────────────

    def logs(self, offset: int) -> bytes:
        """Give what has come from a byte offset; after the end, waits for what the job says that it wrote."""
        self._look_once()
        reader = self._reader()
        piece = reader.read(offset, _LOG_PIECE)
        lines = self._said.get("lines")
        if not piece and (self._over or isinstance(lines, int)):
            wanted = lines if isinstance(lines, int) else 2**62
            reader.wait(wanted, max(_LOG_SECONDS / self._pace, _LEAST_SECONDS))
            piece = reader.read(offset, _LOG_PIECE)
        return piece

    def _reader(self) -> LogReader:
        """Give the one reader of the log; a new one begins anew."""
        if self._log is None:
            take = (lambda _line: False) if self._inline is None else self._inline.anew().take
            namespace = self._provider.namespace
            self._log = LogReader(self._hub, namespace, self._id, lambda: self._over, self._pace, take)
        return self._log

    def close(self) -> None:
        """Let go of the log; the job goes on."""
        if self._log is not None:
            self._log.close()
            self._log = None

    # ── asking ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _look_once(self) -> None:
        if not self._prefix:
            self._look()

    def _look(self) -> JobInfo:
        """Read the job, and where its files are.

        Raises:
            UnreachableError: the Hub knows no such job, or no job of ours.
        """
        try:
            job = self._provider.look(self._id, fresh=False)
        except MissingError as error:
            raise UnreachableError(str(error), allocation_id=self._id) from error
        except (UnreachableError, RemoteError):
            raise
        except ProviderError as error:
            raise UnreachableError(str(error), hint=error.hint, allocation_id=self._id) from error
        mark = reading.mark_of(job)
        if mark is None:
            raise UnreachableError(f"{self._id} bears no mark of ours", allocation_id=self._id)
        self._prefix = launch.prefix_of(mark)
        self._bucket = launch.bucket_of(self._provider.namespace)
        if self._inline is None and (job.labels or {}).get(inline.LABEL):
            self._inline = inline.Said()
        return job

    def _json(self, name: str) -> dict[str, Any]:
        """Read a file of the job's; {} = it is not there yet, or half of it is."""
        data = self._hub.read(self._bucket, f"{self._prefix}/out/{name}")
        try:
            found = json.loads(data or b"{}")
        except (ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}


def _unspoken(job: JobInfo, said: dict[str, Any]) -> RemoteStatus:
    """Say how a job ended that left no result: what the Hub says of it."""
    words = job.status.message or reading.stage_of(job)
    reason = "deadline" if reading.timed_out(job) else ""
    detail = f"{reading.stage_of(job)} on Hugging Face: {words}"
    beat = wire.status_of({**said, "agent": False, "watchdog": False}, time.time())
    return replace(
        beat, phase=Phase.EXITED, reason=reason, detail=beat.detail or detail, exit_code=reading.exit_code(job)
    )


def _is(path: Path, entry: Entry) -> bool:
    if path.stat().st_size != entry.size:
        return False
    digest = sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest() == entry.sha256
