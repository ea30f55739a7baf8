"""The byte plane of this computer: a job's folder, read and written in place.

What runs in that folder is not trusted with paths: names lead to nothing outside it, links are not followed out of it.
"""

from __future__ import annotations

import json
import os
import shutil
import tarfile
import tempfile
import time
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from providers import wire
from providers.base import Entry, Manifest
from providers.errors import IntegrityError, RemoteError, StartError
from providers.local import processes
from providers.starting import alone

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from providers.base import Job, Order, RemoteStatus

_BUNDLED = {"payload", "code", "config.json"}
_LOG_PIECE = 4 * 2**20  # bytes
_TO_THE_LOCK = 0.05  # seconds from a lock's file to its lock


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
            with alone(self._folder / ".start.lock"):
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
                if job.store is not None:
                    write_json(self._folder / "store.json", json.loads(job.store.reveal()))
                write_json(self._folder / "job.json", wire.job_json(job))
        except (OSError, tarfile.TarError) as error:
            raise StartError(f"the job can't be put into {self._folder}: {error}") from error

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
        target = wire.inside(self._folder, name)
        if target.exists() and wire.digest_of(target) == digest:
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
        lock = self._folder / ".agent.lock"
        began = lock.exists()  # before its lock: one that comes now is no dead one
        agent = processes.held(lock)  # before the result: see payload/watchdog.py
        if began and not agent:  # it may be on its way to the lock
            time.sleep(_TO_THE_LOCK)
            agent = processes.held(lock)
        said = {
            "began": began,
            "agent": agent,
            "watchdog": processes.held(self._folder / ".watchdog.lock"),
            "result": read_json(self._folder / "result.json"),
            "status": read_json(self._folder / "status.json"),
            "proof": read_json(self._folder / "watchdog.json"),
        }
        return wire.status_of(said, time.time())

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
        """Leave an order; the agent looks for one twenty times a second. A fresh leave to write is the uploader's."""
        said = wire.order_json(order)
        name, content = ("store.json", said["store"]) if "store" in said else ("order.json", said)
        try:
            write_json(self._folder / name, content)
        except OSError as error:
            raise RemoteError(f"the order can't be left: {error}") from error

    def manifest(self) -> Manifest:
        """Name whole checkpoints while it runs; the artifacts too once result.json says that they are whole."""
        result = read_json(self._folder / "result.json")
        entries = list(self._checkpoints())
        if result:
            entries += [entry for entry in map(wire.entry_of, _list(result.get("artifacts"))) if entry is not None]
            for name in ("metrics.jsonl", "summary.json", "result.json"):
                entries += self._small(name)
        return Manifest(tuple(entries), final=bool(result))

    def _checkpoints(self) -> Iterator[Entry]:
        for seal in sorted(self._folder.glob("checkpoints/step-*/CHECKPOINT.json")):
            base = seal.parent.relative_to(self._folder).as_posix()
            listed = read_json(seal).get("files")
            entries = [
                wire.entry_of({"name": f"{base}/{name}", **facts})
                for name, facts in (listed.items() if isinstance(listed, dict) else ())
                if isinstance(facts, dict)
            ]
            if entries and all(entry is not None and self._has(entry) for entry in entries):
                yield from (entry for entry in entries if entry is not None)
                yield from self._small(f"{base}/CHECKPOINT.json")

    def _has(self, entry: Entry) -> bool:
        try:
            return wire.inside(self._folder, entry.name).stat().st_size == entry.size
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
            target = wire.inside(dest, name)
            if name not in known:
                raise RemoteError(f"{name!r} is not among the whole files of this job (any more)")
            source = wire.inside(self._folder, name)
            try:
                if not (target.is_file() and not target.is_symlink() and wire.digest_of(target) == known[name].sha256):
                    _copy(source, target, known[name].sha256, link=name.startswith(("artifacts/", "checkpoints/")))
            except OSError as error:
                raise RemoteError(f"{name!r} can't be fetched: {error}") from error

    def close(self) -> None:
        """Nothing is held open."""


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
        found = wire.digest_of(aside)
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


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


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
