"""How bytes get from this machine into the store, by the leave in store.json: no key is here.

    courier = Courier(grant)            # {"prefix", "until", "part_bytes", "checksums", "post" or "put"}
    courier.send(name, file, 0, size)   # one object, checked by the checksum that the store tells; gives its MD5

`post` is a signed policy: any name below the prefix, each an object. `put` is a pool of signed slots: those names only.
One try each: waiting and trying again is upload.py's. Standard library only, Python 3.9.
"""

from __future__ import annotations

import hashlib
import http.client
import re
import secrets
import ssl
from typing import Any, BinaryIO, Callable, Dict, List, Optional, Tuple
from urllib.parse import urlsplit

BLOCK = 1 << 19  # bytes
TIMEOUT = 60.0  # seconds without a byte
LAST_WORD = 2.0  # seconds for what a store says that takes no more
LONGEST = 65536  # bytes of an answer that are read
SEALS = ("CHECKPOINT.json", "SOFAR.json", "files.json", "result.json")  # they name others, by names of their own
PLAIN = re.compile(r"[A-Za-z0-9._ +@=-]+(?:/[A-Za-z0-9._ +@=-]+)*")


class FailedError(Exception):
    """It did not get there, this time."""


class RefusedError(FailedError):
    """The store does not take it: the leave is over, or the clock is wrong. Soon again is no use."""


class StuckError(FailedError):
    """It has not ended in time, and may still write later: only the end of this process stops that."""


class ChangedError(Exception):
    """The file ended early: it is not the one that was named."""


class NoRoomError(Exception):
    """The leave names no object that is free: signed slots are a pool, and it is used up."""


class Courier:
    """One attempt's leave to write."""

    def __init__(self, grant: Dict[str, Any]) -> None:
        self.sent = 0  # bytes, of all tries
        self.tick: Callable[[], None] = lambda: None  # called for each block
        self.take(grant)

    def take(self, grant: Dict[str, Any]) -> None:
        """Write by this leave from now on.

        Raises:
            KeyError, TypeError, ValueError: it is none.
        """
        prefix, part_bytes, until = str(grant["prefix"]), int(grant["part_bytes"]), float(grant.get("until") or 0.0)
        self.prefix, self.part_bytes, self.until = prefix, part_bytes, until
        self.checksums = grant.get("checksums") is True
        self.post: Optional[Dict[str, Any]] = grant.get("post")
        self.put: Dict[str, str] = grant.get("put") or {}

    def takes(self, name: str) -> bool:
        """Whether there is leave to write an object of this name."""
        if self.post is None:
            return name in self.put
        return bool(PLAIN.fullmatch(name)) and not any(part.strip(".") == "" for part in name.split("/"))

    def send(self, name: str, file: BinaryIO, start: int, size: int, digest: Any = None) -> str:
        """Write `size` bytes of a file from `start` on as one object; `digest` sees them too. Gives their MD5.

        Raises:
            FailedError, RefusedError: it is not there, or not as it was sent.
            ChangedError: the file is shorter.
        """
        url, kind, head, tail = self._framed(name)
        seen = hashlib.new("md5", usedforsecurity=False)
        file.seek(start)
        connection = connect(url)
        try:
            parts = urlsplit(url)
            target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            connection.putrequest("POST" if kind else "PUT", target)
            if kind:
                connection.putheader("Content-Type", kind)
            connection.putheader("Content-Length", str(len(head) + size + len(tail)))
            connection.endheaders()
            try:
                connection.send(head)
                self._pour(connection, file, size, [seen] if digest is None else [seen, digest])
                connection.send(tail)
            except OSError as error:  # a store may refuse at once, and take no more
                raise self._refusal(connection) or error from None
            return self._answer(connection, seen.hexdigest())
        except (OSError, http.client.HTTPException) as error:
            raise FailedError(f"{type(error).__name__}: {error}"[:200]) from error
        finally:
            connection.close()

    def _pour(self, connection: http.client.HTTPConnection, file: BinaryIO, left: int, digests: List[Any]) -> None:
        """Send the bytes themselves."""
        while left:
            block = file.read(min(BLOCK, left))
            if not block:
                raise ChangedError(f"{left} bytes are missing")
            connection.send(block)
            for digest in digests:
                digest.update(block)
            left -= len(block)
            self.sent += len(block)
            self.tick()

    def _framed(self, name: str) -> Tuple[str, str, bytes, bytes]:
        """Give the address, the content's type where it is a form, and what stands before and after the bytes."""
        if self.post is None:
            if name not in self.put:
                raise RefusedError(f"there is no slot for {name}")
            return self.put[name], "", b"", b""
        boundary = f"gpurun-{secrets.token_hex(16)}"
        fields = {**self.post["fields"], "key": self.prefix + name}
        parts: List[str] = [
            f'--{boundary}\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'
            for key, value in fields.items()
        ]
        parts.append(
            f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="object"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        )
        kind = f"multipart/form-data; boundary={boundary}"
        return str(self.post["url"]), kind, "".join(parts).encode(), f"\r\n--{boundary}--\r\n".encode()

    def _refusal(self, connection: http.client.HTTPConnection) -> Optional[FailedError]:
        """Hear what the store said before it hung up; None = nothing."""
        try:
            connection.sock.settimeout(LAST_WORD)
            self._answer(connection, "")
        except FailedError as error:
            return error
        except (OSError, http.client.HTTPException):
            pass
        return None

    def _answer(self, connection: http.client.HTTPConnection, seen: str) -> str:
        answer = connection.getresponse()
        said = answer.read(LONGEST)
        if answer.status not in (200, 201, 204):
            code = re.search(rb"<Code>([A-Za-z]{1,60})</Code>", said)
            words = f"the store says {answer.status}{f' {code[1].decode()}' if code else ''}"
            if answer.status in (400, 401, 403, 404, 405, 411, 413):
                raise RefusedError(words)
            raise FailedError(words)
        tag = (answer.getheader("ETag") or "").strip('"')
        if self.checksums and tag != seen:
            raise FailedError(f"the store keeps other bytes: their MD5 is {tag[:40] or 'not told'}")
        return seen


def connect(url: str) -> http.client.HTTPConnection:
    """Open a connection; nothing is sent yet."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme == "https":
        return http.client.HTTPSConnection(host, parts.port, timeout=TIMEOUT, context=ssl.create_default_context())
    return http.client.HTTPConnection(host, parts.port, timeout=TIMEOUT)
