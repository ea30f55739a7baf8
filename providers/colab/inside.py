"""What a kernel on the VM runs for us, sent whole as a cell (Python 3.9+, standard library): questions by number.

    gpurun_answer(word, verb, arguments) -> JSON, or "z" + base64 of it compressed

A word asked again gets the answer that it got: a question whose connection broke off is put anew, and done once.
Bodies, with what is secret in them, come as files of our own eyes' in `content/gpurun/in`, and go once they are read;
pieces of files leave through `content/gpurun/out`.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import subprocess
import sys
import time
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

HERE = Path.cwd() if Path.cwd().name == "content" else Path.cwd() / "content"
BASE = HERE / "gpurun"
HOME = Path.home() / ".gpurun"
BLOBS = HOME / "blobs"
KEPT = 8  # answers that are remembered: two controllers may ask
LEFT_SECONDS = 1800.0  # that a part may wait to be fetched
LONG = 1 << 16  # characters of an answer: from there on it is compressed
BLOCK = 1 << 20
LONGEST = 300  # characters of an error
OURS = ("MPLBACKEND", "JPY_PARENT_PID", "JPY_SESSION_NAME")  # of a kernel, and no training's

KNOWN: dict[str, str] = {}


def answer(word: str, verb: str, arguments: str) -> str:
    """Do one thing, once; what goes wrong is an answer too."""
    if word not in KNOWN:
        try:
            said = VERBS[verb](word, *json.loads(arguments))
        except (OSError, ValueError, KeyError, TypeError, subprocess.SubprocessError) as error:
            said = {"error": (f"{type(error).__name__}: {error}")[:LONGEST]}
        text = said if isinstance(said, str) else json.dumps(said)
        KNOWN[word] = text if len(text) < LONG else "z" + base64.b64encode(zlib.compress(text.encode(), 1)).decode()
        for old in list(KNOWN)[:-KEPT]:
            del KNOWN[old]
    return KNOWN[word]


# ---- questions -------------------------------------------------------------------------------------------------------


def hello(_word: str, role: str, kernel: str) -> Any:
    """Make our folders, and say which kernel this is for whoever comes next."""
    mask = os.umask(0o077)
    for folder in (BASE, BASE / "in", BASE / "out"):
        folder.mkdir(parents=True, exist_ok=True)
    os.umask(mask)
    for path in (BASE / "in").iterdir():  # whoever sent it, its kernel was gone before it was asked
        if path.stat().st_mtime < time.time() - LEFT_SECONDS:
            path.unlink()
    write(BASE / (role + ".kernel"), kernel.encode())
    return {"folder": str(BASE)}


def room(_word: str, name: str) -> Any:
    """Make a file for nobody's eyes but ours, before there is anything in it."""
    os.close(os.open(BASE / "in" / name, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
    return {}


def ask(word: str, mark: str, verb: str, body: str, seconds: float) -> Any:
    """Put a question to payload/door.py; its body goes, whatever comes of it."""
    door = HOME / "jobs" / mark / "payload" / "door.py"
    stdin = read(BASE / "in" / body) if body else b""
    if stdin is None:
        return {"missing": True}
    try:
        if not door.exists():
            return {"nothing": True}
        return run(word, [str(door), word, mark, verb], stdin, seconds)
    finally:
        if body:
            (BASE / "in" / body).unlink()


def first(word: str, mark: str, body: str, seconds: float) -> Any:
    """Put the guards into place, door.py as the last of them, and have it seed."""
    path = BASE / "in" / body
    stdin = read(path)
    if stdin is None:
        return {"missing": True}
    path.unlink()
    request = json.loads(stdin)
    job = HOME / "jobs" / mark
    payload = job / "payload"
    mask = os.umask(0o077)
    payload.mkdir(parents=True, exist_ok=True)
    os.umask(mask)
    for name, text in request["files"].items() if not (job / "job.json").exists() else ():
        write(payload / name, text.encode())
    return run(word, [str(payload / "door.py"), word, mark, "seed"], json.dumps(request["seed"]).encode(), seconds)


def run(word: str, argv: list[str], stdin: bytes, seconds: float) -> Any:
    """Run one of the payload's programs; gives the JSON behind the word in what it says."""
    environment = {name: value for name, value in os.environ.items() if name not in OURS}
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-B", *argv],
        input=stdin,
        capture_output=True,
        timeout=seconds,
        env=environment,
        check=False,
    )
    _, found, said = done.stdout.rpartition(b"\n" + word.encode() + b" ")
    if found:
        return said.decode()
    last = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
    return {"error": f"not a word (exit code {done.returncode}): {''.join(last)[-LONGEST:]}"}


def log(_word: str, mark: str, offset: int, most: int) -> Any:
    """Read on in the log."""
    try:
        handle = os.open(HOME / "jobs" / mark / "log.txt", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return {"size": 0, "data": ""}
    try:
        return {"size": os.fstat(handle).st_size, "data": base64.b64encode(os.pread(handle, most, offset)).decode()}
    finally:
        os.close(handle)


def wait(_word: str, mark: str) -> Any:
    """Keep this kernel busy as long as the VM is wanted: until its ceiling, or the end of its job's folder."""
    folder = HOME / "jobs" / mark
    while folder.exists() and not (folder / "end.json").exists():
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            if time.time() > float(json.loads((folder / "watchdog.json").read_bytes())["ceiling"]):
                break
        time.sleep(1.0)
    return {}


# ---- files that come -------------------------------------------------------------------------------------------------


def have(_word: str, digests: list[str]) -> Any:
    """Tell which pieces of files that are on their way have come."""
    return {digest: pieces(digest) for digest in digests}


def pieces(digest: str) -> list[list[int]]:
    """Read what was noted: [offset, length] of each."""
    try:
        lines = coming(digest, "noted").read_text().splitlines()
    except FileNotFoundError:
        return []
    return [[int(number) for number in line.split()] for line in lines if len(line.split()) == 2]


def coming(digest: str, what: str) -> Path:
    """Name the files of a blob that is not whole yet."""
    return BLOBS / (f".{digest}.{what}")


def take(_word: str, parts: list[Any]) -> Any:
    """Take parts that came, [name, sha256, [[blob, its size, offset, length], ...]]; name those to be sent again."""
    broken = []
    for name, digest, segments in parts:
        path = BASE / "in" / name
        data = read(path)
        if data is None or hashlib.sha256(data).hexdigest() != digest:
            broken.append(name)
            continue
        start = 0
        for blob, size, offset, length in segments:
            place(blob, size, offset, data[start : start + length])
            start += length
        path.unlink()
    return {"broken": broken}


def place(blob: str, size: int, offset: int, data: bytes) -> None:
    """Put a piece where it belongs; one that is all of a small file is judged by whoever begins the job."""
    if offset == 0 and len(data) == size:
        write(BLOBS / blob, data)
        return
    handle = os.open(coming(blob, "data"), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        left, at = memoryview(data), offset
        while left:
            count = os.pwrite(handle, left, at)
            left, at = left[count:], at + count
    finally:
        os.close(handle)
    with coming(blob, "noted").open("a") as noted:
        noted.write(f"{offset} {len(data)}\n")


def whole(_word: str, blobs: list[Any]) -> Any:
    """Hash what has come in pieces, and give it its name; what is not what its name says goes, and is named."""
    broken = []
    for digest, size in blobs:
        path = coming(digest, "data")
        if not path.exists() and (BLOBS / digest).exists():
            continue
        if path.exists() and path.stat().st_size == size and digest_of(path) == digest:
            path.replace(BLOBS / digest)
        else:
            broken.append(digest)
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
        with contextlib.suppress(FileNotFoundError):
            coming(digest, "noted").unlink()
    return {"broken": broken}


# ---- files that leave ------------------------------------------------------------------------------------------------


def cut(word: str, mark: str, parts: list[Any], gone: list[str]) -> Any:
    """Cut parts out of files, each [[name, offset, length], ...], for whoever fetches them; earlier ones go."""
    drop(word, [*gone, *left_behind()])
    folder = HOME / "jobs" / mark
    told = []
    for number, segments in enumerate(parts):
        data = bytearray()
        for name, offset, length in segments:
            piece = slice_of(folder, name, offset, length)
            if piece is None or len(piece) != length:
                return {"gone": name}
            data += piece
        part = f"{word}-{number}"
        write(BASE / "out" / part, bytes(data))
        told.append([part, hashlib.sha256(data).hexdigest()])
    return {"parts": told}


def left_behind() -> list[str]:
    """Name the parts of fetches that were cut off; another controller's are younger."""
    return [path.name for path in (BASE / "out").iterdir() if path.stat().st_mtime < time.time() - LEFT_SECONDS]


def drop(_word: str, names: list[str]) -> Any:
    """Let go of parts that are home."""
    for name in names:
        with contextlib.suppress(FileNotFoundError):
            (BASE / "out" / name).unlink()
    return {}


def slice_of(folder: Path, name: str, offset: int, length: int) -> bytes | None:
    """Read a piece of a file; None = there is no such file."""
    try:
        handle = os.open(folder / name, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        return os.pread(handle, length, offset)
    finally:
        os.close(handle)


# ---- files -----------------------------------------------------------------------------------------------------------


def read(path: Path) -> bytes | None:
    """Read a file; None = it is not there."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def write(path: Path, data: bytes) -> None:
    """Write aside for our eyes only, then move into place."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    handle = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
    aside.replace(path)


def digest_of(path: Path) -> str:
    """Hash a file: its sha256 in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(BLOCK), b""):
            digest.update(block)
    return digest.hexdigest()


VERBS: dict[str, Callable[..., Any]] = {
    "hello": hello,
    "room": room,
    "ask": ask,
    "first": first,
    "log": log,
    "wait": wait,
    "have": have,
    "take": take,
    "whole": whole,
    "cut": cut,
    "drop": drop,
}
