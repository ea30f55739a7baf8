"""Data that this machine fetches by itself: by addresses that are signed for a while, or with the bucket's own token.

    fetch(blobs, {"sources": {sha256: {"url", "size", "token"?}}, "seconds": 20})  ->  {"here", "bytes", "failed"}

A round ends after so many seconds, so that the asker may tell how far it is, and stop; the next goes on where it was.
What came is kept under its sha256 only once it has that. Standard library only, Python 3.9.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any, Dict, List

if TYPE_CHECKING:
    from pathlib import Path

BLOCK = 1 << 20  # bytes
SILENCE = 30.0  # seconds without a byte


class NotThereError(Exception):
    """It can't be had from there; the message is for a person, and names no address: that is signed."""


def fetch(blobs: Path, request: Dict[str, Any]) -> Dict[str, Any]:
    """Bring what is not here yet, for so many seconds."""
    until = time.monotonic() + float(request["seconds"])
    here: List[str] = []
    failed: Dict[str, str] = {}
    count = 0
    for digest, source in request["sources"].items():
        name = str(digest)
        if len(name) != 64 or not name.isalnum():
            raise ValueError("a source is named by a sha256")
        if size_of(blobs / name) != source["size"] and time.monotonic() < until:
            try:
                bring(blobs, name, source, until)
            except (NotThereError, OSError, http.client.HTTPException, ValueError) as error:
                failed[name] = str(error)[:200] if isinstance(error, NotThereError) else type(error).__name__
        if size_of(blobs / name) == source["size"]:
            here.append(name)
        count += max(size_of(blobs / name), size_of(part_of(blobs, name)), 0)
    return {"here": here, "bytes": count, "failed": failed}


def bring(blobs: Path, name: str, source: Dict[str, Any], until: float) -> None:
    """Go on with one file; it gets its name once it is whole and what it should be.

    Raises:
        NotThereError, OSError: it did not come.
    """
    part, size = part_of(blobs, name), int(source["size"])
    if size_of(part) > size:
        part.unlink()
    if size_of(part) < size:
        with opened(source, max(size_of(part), 0)) as answer:
            begun = answer.status == 206
            with part.open("ab" if begun else "wb") as file:
                while time.monotonic() < until:
                    block = answer.read(BLOCK)
                    file.write(block)
                    if not block:
                        break
    if size_of(part) < size:
        return
    if size_of(part) > size or digest_of(part) != name:
        part.unlink()
        raise NotThereError("what lies there is not what it should be")
    part.replace(blobs / name)


def opened(source: Dict[str, Any], start: int) -> Any:
    """Ask for a file, from a byte on.

    Raises:
        NotThereError: the store refuses it.
    """
    request = urllib.request.Request(str(source["url"]), headers={"Accept-Encoding": "identity"})  # noqa: S310 (http or https, as our controller says)
    if start:
        request.add_header("Range", f"bytes={start}-")
    if source.get("token"):  # never to where we are sent on: that address is signed, and another's
        request.add_unredirected_header("Authorization", f"Bearer {source['token']}")
    try:
        return urllib.request.urlopen(request, timeout=SILENCE)  # noqa: S310 (as above)
    except urllib.error.HTTPError as error:
        with contextlib.closing(error):
            raise NotThereError(f"the store says {error.code}") from None
    except urllib.error.URLError as error:
        raise NotThereError(f"the store can't be reached: {type(error.reason).__name__}") from None


def part_of(blobs: Path, name: str) -> Path:
    """Name what has come of a file so far."""
    return blobs / f".{name}.fetched"


def digest_of(path: Path) -> str:
    """Hash a file: its sha256 in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(BLOCK), b""):
            digest.update(block)
    return digest.hexdigest()


def size_of(path: Path) -> int:
    """Size of a file in bytes; -1 = it is not there."""
    try:
        return path.stat().st_size
    except OSError:
        return -1
