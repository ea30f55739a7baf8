"""The byte plane of this computer: a job's folder, read and written in place.

What runs in that folder is not trusted with paths: names lead to nothing outside it, links are not followed out of it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
import shutil
import tarfile
import tempfile
import time
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from providers.base import Entry, Holder, Manifest, OrderKind, Phase, Place, Proof, RemoteStatus, utc
from providers.errors import IntegrityError, RemoteError, StartError
from providers.local import processes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from providers.base import Job, Order

_BUNDLED = {"payload", "code", "config.json"}
_LOG_PIECE = 4 * 2**20  # bytes
_FRESH_SECONDS = 10.0  # a watchdog that wrote so lately is proven


class LocalRemote:
    """One job's folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def start(self, job: Job) -> None:
        """Put everything into place, job.json last: the watchdog starts the agent when it sees that.

        Raises:
            StartError: the bundle, a blob or the disk is at fault.
        """
        if not (self._folder / "arm.json").exists():
            raise StartError(f"{self._folder} is gone")
        if (self._folder / "end.json").exists():
            raise StartError("this attempt was ended before it began")
        try:
            with self._alone():
                if (self._folder / "job.json").exists():
                    return
                self._unpack(job.bundle)
                for blob in job.blobs:
                    self._place(blob.path, blob.name, blob.sha256)
                if job.checkpoint is not None:
                    self._seed(job.checkpoint)
                secrets = {name: secret.reveal() for name, secret in job.secrets.items()}
                if secrets:
                    write_json(self._folder / "secrets.json", secrets)
                write_json(self._folder / "job.json", _wire(job))
        except (OSError, tarfile.TarError) as error:
            raise StartError(f"the job can't be put into {self._folder}: {error}") from error

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Two controllers may start at once, the one of them waking late."""
        handle = os.open(self._folder / ".start.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise StartError("another gpurun is starting this job right now") from error
            yield
        finally:
            os.close(handle)

    def _unpack(self, bundle: Path) -> None:
        """Unpack aside, then move file by file: the watchdog's own files are replaced under its feet."""
        aside = Path(tempfile.mkdtemp(prefix=".unpack-", dir=self._folder))
        try:
            with tarfile.open(bundle) as tar:
                tar.extractall(aside, filter="data")
            for path in sorted(path for path in aside.rglob("*") if path.is_symlink() or not path.is_dir()):
                name = path.relative_to(aside)
                if name.parts[0] not in _BUNDLED:
                    continue  # never job.json, order.json or a lock
                target = self._folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                path.replace(target)
        finally:
            shutil.rmtree(aside, ignore_errors=True)

    def _place(self, source: Path, name: str, digest: str) -> None:
        """Copy the user's file, never link it: a training that writes into its data must not reach the original."""
        target = _inside(self._folder, name)
        if target.exists() and _digest(target) == digest:
            return
        try:
            _copy(source, target, digest, link=False)
        except IntegrityError as error:
            raise StartError(f"{source} changed since the launch: launch again", permanent=True) from error

    def _seed(self, checkpoint: Path) -> None:
        """Bring the checkpoint to carry on from; linked, since both sides only ever replace such files."""
        target = self._folder / "checkpoints" / checkpoint.name
        if target.exists():
            return
        aside = target.with_name(f".{target.name}.{os.getpid()}")
        shutil.rmtree(aside, ignore_errors=True)
        shutil.copytree(checkpoint, aside, copy_function=_link_or_copy)
        aside.rename(target)

    def status(self) -> RemoteStatus:
        """Put status.json, result.json and watchdog.json together; the locks say who lives."""
        agent = processes.held(self._folder / ".agent.lock")  # before the result: see payload/watchdog.py
        guarded = processes.held(self._folder / ".watchdog.lock")
        result = read_json(self._folder / "result.json")
        beat = read_json(self._folder / "status.json")
        proof = read_json(self._folder / "watchdog.json")
        began = (self._folder / ".agent.lock").exists()
        over = bool(result) or not (agent or (guarded and not began))
        deadline, heard = _number(beat.get("deadline")), _number(beat.get("time"))
        return RemoteStatus(
            phase=Phase.EXITED if over else Phase.RUNNING if agent else Phase.READY,
            heartbeat=None if heard is None else utc(heard),
            stage=str(beat.get("stage") or ""),
            step=int(_number(beat.get("step")) or 0),
            total_steps=int(_number(beat.get("total_steps")) or 0),
            exit_code=_code(result.get("exit_code")),
            reason=str(result.get("reason") or ""),
            detail=str((result or beat).get("detail") or ("" if result else proof.get("ended") or "")),
            deadline=None if deadline is None else utc(deadline),
            watchdog=_holder(proof, held=guarded),
        )

    def logs(self, offset: int) -> bytes:
        """Read on from a byte offset."""
        try:
            with (self._folder / "log.txt").open("rb") as file:
                file.seek(offset)
                return file.read(_LOG_PIECE)
        except FileNotFoundError:
            return b""
        except (OSError, ValueError) as error:
            raise RemoteError(f"the log can't be read: {error}") from error

    def tell(self, order: Order) -> None:
        """Leave an order; the agent looks for one twenty times a second."""
        content: dict[str, object] = {"id": order.id, "kind": str(order.kind)}
        if order.kind is OrderKind.DEADLINE and order.deadline is not None:
            content["deadline"] = order.deadline.timestamp()
        try:
            write_json(self._folder / "order.json", content)
        except OSError as error:
            raise RemoteError(f"the order can't be left: {error}") from error

    def manifest(self) -> Manifest:
        """Name whole checkpoints while it runs; the artifacts too once result.json says that they are whole."""
        result = read_json(self._folder / "result.json")
        entries = list(self._checkpoints())
        if result:
            entries += [entry for entry in map(_entry, _list(result.get("artifacts"))) if entry is not None]
            for name in ("metrics.jsonl", "summary.json", "result.json"):
                entries += self._small(name)
        return Manifest(tuple(entries), final=bool(result))

    def _checkpoints(self) -> Iterator[Entry]:
        for seal in sorted(self._folder.glob("checkpoints/step-*/CHECKPOINT.json")):
            base = seal.parent.relative_to(self._folder).as_posix()
            listed = read_json(seal).get("files")
            entries = [
                _entry({"name": f"{base}/{name}", **facts})
                for name, facts in (listed.items() if isinstance(listed, dict) else ())
                if isinstance(facts, dict)
            ]
            if entries and all(entry is not None and self._has(entry) for entry in entries):
                yield from (entry for entry in entries if entry is not None)
                yield from self._small(f"{base}/CHECKPOINT.json")

    def _has(self, entry: Entry) -> bool:
        try:
            return _inside(self._folder, entry.name).stat().st_size == entry.size
        except (OSError, IntegrityError):
            return False

    def _small(self, name: str) -> list[Entry]:
        try:
            content = (self._folder / name).read_bytes()
        except OSError:
            return []
        return [Entry(name, len(content), sha256(content).hexdigest())]

    def fetch(self, names: Sequence[str], dest: Path) -> None:
        """Bring files home: linked where the disk is the same, verified in any case.

        Raises:
            IntegrityError: a name leads outside, or the bytes are not the manifest's.
            RemoteError: a file is gone, or can't be written here.
        """
        known = {entry.name: entry for entry in self.manifest().entries}
        for name in names:
            target = _inside(dest, name)
            if name not in known:
                raise RemoteError(f"{name!r} is not among the whole files of this job (any more)")
            source = _inside(self._folder, name)
            try:
                if not (target.is_file() and not target.is_symlink() and _digest(target) == known[name].sha256):
                    _copy(source, target, known[name].sha256, link=name.startswith(("artifacts/", "checkpoints/")))
            except OSError as error:
                raise RemoteError(f"{name!r} can't be fetched: {error}") from error

    def close(self) -> None:
        """Nothing is held open."""


def _wire(job: Job) -> dict[str, object]:
    """Spell a job as payload/README.md does."""
    return {
        "mark": str(job.mark),
        "command": list(job.command),
        "deadline": job.deadline.timestamp(),
        "ceiling": job.ceiling.timestamp(),
        "max_seconds": job.max_seconds,
        "grace_seconds": job.grace_seconds,
        "max_idle_seconds": job.max_idle_seconds,
        "log_limit_bytes": job.log_limit_bytes,
    }


def _inside(folder: Path, name: str) -> Path:
    """Find a name under a folder; one that leads out of it is an attack or a bug, and refused.

    Raises:
        IntegrityError: absolute, `..`, empty, or through a link that leaves the folder.
    """
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or "\0" in name:
        raise IntegrityError(f"the name {name!r} leads outside")
    path = folder.joinpath(*parts)
    real = folder.resolve()
    if not path.parent.resolve().is_relative_to(real) or (path.exists() and not path.resolve().is_relative_to(real)):
        raise IntegrityError(f"the name {name!r} leads outside, through a link")
    return path


def _copy(source: Path, target: Path, digest: str, *, link: bool) -> None:
    """Link or copy aside, verify, then move into place."""
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.with_name(f".{target.name[:100]}.{os.getpid()}.part")
    try:
        aside.unlink(missing_ok=True)
        if link:
            _link_or_copy(source, aside)
        else:
            shutil.copyfile(source, aside)
        found = _digest(aside)
        if found != digest:
            raise IntegrityError(f"{source.name!r} has sha256 {found[:12]}…, not {digest[:12]}…")
        aside.replace(target)  # a no-op when both are one file already: then aside stays, and goes below
    finally:
        aside.unlink(missing_ok=True)


def _link_or_copy(source: str | Path, target: str | Path) -> str:
    try:
        os.link(os.path.realpath(source), target)
    except OSError:
        shutil.copyfile(source, target)
    return str(target)


def _digest(path: Path) -> str:
    digest = sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _holder(proof: dict[str, Any], *, held: bool) -> Holder:
    """Say what is known of the watchdog: its lock proves that it lives, its file when it last looked."""
    seen = _number(proof.get("time"))
    at: datetime | None = None if seen is None else utc(seen)
    fresh = held and seen is not None and abs(time.time() - seen) < _FRESH_SECONDS
    words = f"pid {proof.get('pid')} looked at {at:%H:%M:%S} UTC" if at is not None else "never looked"
    return Holder(
        "watchdog",
        Place.MACHINE,
        Proof.PROVEN if fresh else Proof.UNPROVEN if held else Proof.ABSENT,
        extendable=True,
        worst_overrun_seconds=2,
        evidence=f"its lock is {'held' if held else 'free'}; {words}",
        proven_at=at if fresh else None,
    )


def _entry(facts: object) -> Entry | None:
    """Read one line of a manifest; None = it makes no sense."""
    if not isinstance(facts, dict):
        return None
    name, size, digest = facts.get("name"), facts.get("size"), facts.get("sha256")
    if isinstance(name, str) and isinstance(size, int) and isinstance(digest, str):
        return Entry(name, size, digest)
    return None


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _number(value: object) -> float | None:
    usable = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if usable else None  # type: ignore[arg-type]


def _code(value: object) -> int | None:
    return value if isinstance(value, int) else None


def read_json(path: Path) -> dict[str, Any]:
    """Read an object that the machine wrote; {} = not there, or no sense in it."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def write_json(path: Path, content: object) -> None:
    """Write aside for our eyes only, then move into place."""
    handle, aside = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # mode 0600
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(content, file)
            file.flush()
            os.fsync(file.fileno())
        Path(aside).replace(path)
    except OSError:
        Path(aside).unlink(missing_ok=True)
        raise
