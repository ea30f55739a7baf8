"""Putting a job into place on a machine: what door.py does before the training begins.

    seed   arm the watchdog; tell which blobs are here
    begin  bundle, data, checkpoint and secrets into place, job.json last

All of it may be cut off at any line and done again. Blobs lie in ~/.gpurun/blobs under their sha256, jobs in
~/.gpurun/jobs under their mark. Standard library only, Python 3.9.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
from pathlib import Path, PurePosixPath
from typing import Any, Dict, Iterator, List, Optional

sys.path.insert(0, str(Path(__file__).resolve().parent))

import lever
import processes as ps

HOME = Path.home() / ".gpurun"
BLOBS = HOME / "blobs"
BUNDLED = ("payload", "code", "config.json")
PATIENCE = 20.0  # seconds that another start may hold the folder
ARMS = 30.0  # seconds for a watchdog to arm
SMALL = 1 << 20  # bytes: what is larger was shipped by itself


class DoorError(Exception):
    """What was asked for can't be done; the message is the answer."""


# ---- deeds -----------------------------------------------------------------------------------------------------------


def seed(folder: Path, request: Dict[str, Any]) -> Dict[str, Any]:
    """Arm the watchdog before all else is shipped; tell what is here."""
    BLOBS.mkdir(mode=0o700, exist_ok=True)
    if not refuse_or_begun(folder):
        with alone(folder):
            if not (folder / "arm.json").exists():
                write_aside(folder / "arm.json", json.dumps(request["arm"]).encode())
            arm(folder)
    here = [digest for digest, size in request["want"] if size_of(BLOBS / digest) == size]
    return {
        "begun": (folder / "job.json").exists(),
        "ender": lever.folder_of(folder.name) is not None,
        "folder": str(folder),
        "blobs": str(BLOBS),
        "here": here,
        "free": shutil.disk_usage(BLOBS).free,
        "time": time.time(),
    }


def refuse_or_begun(folder: Path) -> bool:
    """Whether the job has begun here already.

    Raises:
        DoorError: it was ended before it began.
    """
    if (folder / "end.json").exists():
        raise DoorError("this attempt was ended before it began")
    return (folder / "job.json").exists()


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Two controllers may start at once, the one of them waking late.

    Raises:
        DoorError: the other one takes too long.
    """
    handle = os.open(folder / ".start.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    until = time.monotonic() + PATIENCE
    try:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                if time.monotonic() > until:
                    raise DoorError("another gpurun is starting this job right now") from None
                time.sleep(0.05)
                continue
            break
        yield
    finally:
        os.close(handle)


def arm(folder: Path) -> None:
    """Start the watchdog, unless one lives or the agent had its day.

    Raises:
        DoorError: it did not arm.
    """
    if ps.held(folder / ".watchdog.lock") or (folder / ".agent.lock").exists():
        return
    mark = str(ps.read_json(folder / "arm.json").get("mark") or "")
    argv = [sys.executable, "-B", str(folder / "payload" / "watchdog.py"), "--detach", str(folder)]
    done = subprocess.run(
        argv,
        env=dict(os.environ, GPURUN_MARK=mark),
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=ARMS,
        start_new_session=True,
        check=False,
    )
    if done.returncode:
        words = done.stderr + read_end(folder / "watchdog.log")
        raise DoorError("the watchdog did not arm: " + words.decode("utf-8", "replace").strip()[-300:])


def begin(folder: Path, request: Dict[str, Any]) -> Dict[str, Any]:
    """Put bundle, data, checkpoint and secrets into place, then job.json: the watchdog starts the agent on it."""
    if refuse_or_begun(folder):
        return {}
    with alone(folder):
        if refuse_or_begun(folder):
            return {}
        broken = not_whole(request["want"])
        if broken:
            return {"broken": broken}
        unpack(folder, BLOBS / request["bundle"])
        for name, digest in request["data"]:
            link(BLOBS / digest, inside(folder, name))
        if request["seed"]:
            plant(folder, request["step"], request["seed"])
        if request["secrets"]:
            write_aside(folder / "secrets.json", json.dumps(request["secrets"]).encode())
        if request.get("store"):
            write_aside(folder / "store.json", json.dumps(request["store"]).encode())
        arm(folder)
        armed = ps.read_json(folder / "arm.json")  # both count from the arming
        job = {**request["job"], "max_seconds": armed.get("max_seconds", request["job"]["max_seconds"])}
        write_aside(folder / "job.json", json.dumps(job).encode())
        for _, digest in request["seed"]:  # a checkpoint is pruned by deleting it: no second name may keep its bytes
            with contextlib.suppress(FileNotFoundError):
                (BLOBS / digest).unlink()
    return {}


def not_whole(want: List[Any]) -> List[str]:
    """Look at what was shipped; what is not what its name says goes, and is named.

    A large one was hashed here while it came, before it got its name: once is enough, unless a job has had it.
    """
    found = []
    for digest, size in want:
        blob = BLOBS / digest
        here = size_of(blob) == size
        if not here or ((size < SMALL or blob.stat().st_nlink > 1) and digest_of(blob) != digest):
            found.append(digest)
            with contextlib.suppress(FileNotFoundError):
                blob.unlink()
    return found


def unpack(folder: Path, bundle: Path) -> None:
    """Unpack file by file, each moved into place: the guards are replaced under their own feet.

    Raises:
        DoorError: it holds what no bundle of ours holds: links, devices, names that lead outside.
    """
    with tarfile.open(bundle) as tar:
        for member in tar:
            name = PurePosixPath(member.name)
            if member.isdir() or not name.parts or name.parts[0] not in BUNDLED:
                continue  # never job.json, order.json or a lock
            source = tar.extractfile(member) if member.isreg() else None
            if source is None:
                raise DoorError(f"the bundle's {member.name!r} is no plain file")
            path = inside(folder, member.name)
            aside = path.with_name(f".{path.name[:100]}.{os.getpid()}")
            with source, aside.open("wb") as file:
                shutil.copyfileobj(source, file)
            aside.chmod(0o755 if member.mode & 0o100 else 0o644)
            aside.replace(path)


def plant(folder: Path, step: str, files: List[List[str]]) -> None:
    """Bring the checkpoint to carry on from into place in one stroke."""
    target = inside(folder, f"checkpoints/{step}")
    aside = inside(folder, f"checkpoints/.{step}.seed")
    if target.exists():
        return
    shutil.rmtree(aside, ignore_errors=True)
    for name, digest in files:
        link(BLOBS / digest, inside(aside, name))
    aside.rename(target)


def link(source: Path, target: Path) -> None:
    """Give a blob its name; copied where it can't be linked."""
    aside = target.with_name(f".{target.name[:100]}.{os.getpid()}")
    with contextlib.suppress(FileNotFoundError):
        aside.unlink()
    try:
        os.link(source, aside)
    except OSError:
        shutil.copyfile(source, aside)
    aside.replace(target)
    with contextlib.suppress(FileNotFoundError):
        aside.unlink()  # both were one file already: then moving does nothing


# ---- files -----------------------------------------------------------------------------------------------------------


def write_aside(path: Path, content: bytes) -> None:
    """Write aside for our user's eyes only, durably, then move into place."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    handle = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            aside.unlink()
        raise


def inside(folder: Path, name: str) -> Path:
    """Find a name under a folder, and make the folders on the way.

    Raises:
        DoorError: it leads outside.
    """
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts:
        raise DoorError(f"the name {name!r} leads outside")
    path = folder.joinpath(*parts)
    path.parent.mkdir(parents=True, exist_ok=True)
    real = os.path.realpath(folder)
    if os.path.commonpath([real, os.path.realpath(path.parent)]) != real:
        raise DoorError(f"the name {name!r} leads outside, through a link")
    return path


def digest_of(path: Path) -> str:
    """Hash a file: its sha256 in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def size_of(path: Path) -> Optional[int]:
    """Size of a file in bytes; None = it is not there."""
    try:
        return path.stat().st_size
    except (OSError, ValueError):
        return None


def read_end(path: Path) -> bytes:
    """The last words of a file; empty = there are none."""
    try:
        return path.read_bytes()[-1000:]
    except OSError:
        return b""
