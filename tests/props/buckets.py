"""An object store as it truly is: what lies in it, since when, on whose leave; and its faults.

    a machine's courier --Connection--┐
    a controller's S3Store --Client---┴--> Bucket: objects, and each change of one, for the oracle

Both ends above are shipped code; what stands here is a server of S3, the connection to it and boto3's client. It keeps
to what S3 promises: an object is written whole or not at all, and whoever reads sees the last one. A leave is a text
with its prefix and its end. Knows nothing of runs.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sys
from dataclasses import dataclass
from datetime import datetime
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

from botocore.exceptions import BotoCoreError, ClientError, EndpointConnectionError, ReadTimeoutError
from engine import current

from orchestrator import store_s3
from payload import upload

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from computers import Computer
    from dogs import Machine
    from weather import Span
    from world import World

    from orchestrator.store import Address

courier = sys.modules[upload.Courier.__module__]  # the very one that the uploader uses
NAME, URL = "results", "http://store.invalid"
PAGE = 10  # objects of a list
_PATIENCE = 20.0  # seconds until boto3 gives up
_FLAWS = ("refused", "500", "503", "cut", "lost reply")


@dataclass(frozen=True)
class StoreNature:
    """What kind of store it is; seconds."""

    policies: bool = True  # else numbered slots
    checksums: bool = True
    flaws: float = 0.0  # share of requests that fail by themselves
    slow: float = 0.0  # seconds that each request takes besides
    part_bytes: int = 2**30
    full_status: int = 507  # how it says so


class Bucket:
    """The store's own memory; every method happens at the present moment, on its side of the wire."""

    def __init__(self, nature: StoreNature, world: World) -> None:
        self.nature, self.world = nature, world
        self.objects: dict[str, bytes] = {}
        self.log: list[tuple[float, int, str, bytes | None]] = []
        self.down: list[Span] = []
        self.full: list[Span] = []
        self.locked: list[Span] = []  # its owner's key is not taken
        self.crawls: list[Span] = []
        self.void_before = 0.0  # every leave from before is over
        self._requests = 0

    @property
    def now(self) -> float:
        return self.world.engine.now

    def holds(self, spans: list[Span]) -> bool:
        return any(start <= self.now < end for start, end in spans)

    def pause(self) -> float:
        """Say how long the bytes of a request take."""
        return self.world.luck.random() * 0.4 + self.nature.slow + (45.0 if self.holds(self.crawls) else 0.0)

    def flaw(self) -> str:
        """Draw what goes wrong with a request; "" = nothing."""
        luck = self.world.luck
        return luck.choice(_FLAWS) if luck.random() < self.nature.flaws else ""

    def count(self, what: str) -> None:
        self.world.counts[f"store: {what}"] += 1

    # ── objects ─────────────────────────────────────────────────────────────────────────────────

    def write(self, key: str, content: bytes) -> str:
        """Write an object; gives its ETag."""
        self._requests += 1
        self.objects[key] = content
        self.log.append((self.now, self._requests, key, content))
        tag = hashlib.md5(content, usedforsecurity=False).hexdigest()
        return tag if self.nature.checksums else "0-1"

    def delete(self, keys: list[str]) -> None:
        self._requests += 1
        for key in keys:
            if self.objects.pop(key, None) is not None:
                self.log.append((self.now, self._requests, key, None))

    # ── leave ───────────────────────────────────────────────────────────────────────────────────

    def leave(self, prefix: str, seconds: int) -> str:
        """Sign one: it ends by the store's clock when its signer's says so."""
        return json.dumps({"prefix": prefix, "until": current().computer.wall() + seconds, "signed": self.now})

    def refuses(self, leave: str, key: str) -> tuple[int, str]:
        """Say why a machine may not write this now; (0, "") = it may."""
        said = json.loads(leave)
        if self.holds(self.locked):
            return 403, "InvalidAccessKeyId"
        if self.now >= said["until"] or said["signed"] < self.void_before:
            return 403, "AccessDenied"
        if not key.startswith(said["prefix"]):
            return 403, "AccessDenied"
        if self.holds(self.full):
            return self.nature.full_status, "QuotaExceeded"
        return 0, ""


# ── a machine's end ─────────────────────────────────────────────────────────────────────────────


class Connection:
    """What http.client gives the courier."""

    def __init__(self, _url: str) -> None:
        process = current()
        self._machine: Machine = process.computer
        self._bucket: Bucket = self._machine.world.bucket
        self._flaw = self._bucket.flaw()
        self._sent = bytearray()
        self._method = self._target = self._kind = ""

    def putrequest(self, method: str, target: str) -> None:
        self._method, self._target = method, target

    def putheader(self, name: str, value: str) -> None:
        if name == "Content-Type":
            self._kind = value

    def endheaders(self) -> None:
        bucket = self._bucket
        if bucket.holds(bucket.down):
            bucket.count("down")
            self._wait(courier.TIMEOUT if bucket.world.luck.random() < 0.5 else 0.1)
            raise OSError("no route")
        if self._flaw == "refused":
            bucket.count(self._flaw)
            raise ConnectionRefusedError("refused")

    def send(self, data: bytes) -> None:
        self._sent += data

    def getresponse(self) -> Any:
        bucket = self._bucket
        self._wait(bucket.pause())
        if self._flaw == "cut" or bucket.holds(bucket.down):
            bucket.count("cut")
            raise ConnectionResetError("cut")
        if self._flaw in {"500", "503"}:
            bucket.count(self._flaw)
            return answer(int(self._flaw), b"<Error><Code>SlowDown</Code></Error>")
        key, leave, content = self._read()
        status, why = bucket.refuses(leave, key)
        if status:
            bucket.count(why)
            return answer(status, f"<Error><Code>{why}</Code></Error>".encode())
        tag = bucket.write(key, content)
        if self._flaw == "lost reply":
            bucket.count(self._flaw)
            self._wait(courier.TIMEOUT)
            raise TimeoutError("no answer")
        self._wait(0.05)
        if key.endswith("/result.json") and self._bucket.nature.checksums:
            bucket.world.history.sealed(self._machine.thing)
        return answer(201, b"", tag)

    def close(self) -> None:
        """Nothing is held."""

    def _read(self) -> tuple[str, str, bytes]:
        """Take a request apart: the key, the leave, the bytes."""
        if self._method == "PUT":
            parts = urlsplit(self._target)
            return unquote(parts.path).partition(f"/{NAME}/")[2], parse_qs(parts.query)["leave"][0], bytes(self._sent)
        mark = b"--" + self._kind.partition("boundary=")[2].encode()
        fields = {}
        for piece in bytes(self._sent).split(mark)[1:-1]:
            head, _, value = piece.partition(b"\r\n\r\n")
            fields[head.partition(b'name="')[2].partition(b'"')[0].decode()] = value.removesuffix(b"\r\n")
        return fields["key"].decode(), fields["policy"].decode(), fields["file"]

    def _wait(self, seconds: float) -> None:
        self._machine.pause(seconds)


def answer(status: int, said: bytes, tag: str = "") -> Any:
    """An answer as http.client gives it."""
    headers = {"ETag": f'"{tag}"'}
    return SimpleNamespace(status=status, read=lambda _size: said, getheader=headers.get)


# ── a controller's end ──────────────────────────────────────────────────────────────────────────


class Client:
    """What boto3 gives S3Store, for the computer of whoever asks."""

    def __init__(self) -> None:
        self._computer: Computer = current().computer
        self._bucket: Bucket = self._computer.world.bucket

    def _ask(self, verb: str, what: Callable[[], Any], *, writes: bool = False) -> Any:
        try:
            return self._answer(verb, what, writes=writes)
        except (BotoCoreError, ClientError) as error:
            if not isinstance(error, ClientError) or error.response["Error"]["Code"] != "NoSuchKey":
                self._bucket.world.history.silent(current().home)
            raise

    def _answer(self, verb: str, what: Callable[[], Any], *, writes: bool) -> Any:
        process, bucket, engine = current(), self._bucket, self._computer.world.engine
        process.step()
        engine.sleep(bucket.pause() / 2)
        flaw = bucket.flaw()
        if flaw == "refused" or bucket.holds(bucket.down) or not self._computer.online(bucket.now):
            bucket.count("unreachable")
            engine.sleep(_PATIENCE)
            raise EndpointConnectionError(endpoint_url=URL)
        if flaw in {"500", "503"}:
            raise refusal("SlowDown", verb)
        if bucket.holds(bucket.locked):
            bucket.count("wrong key")
            raise refusal("InvalidAccessKeyId", verb)
        if writes and bucket.holds(bucket.full):
            raise refusal("QuotaExceeded", verb)
        result = what()
        engine.sleep(bucket.pause() / 2)
        if flaw in {"cut", "lost reply"} or not self._computer.online(bucket.now):
            bucket.count("no answer")
            raise ReadTimeoutError(endpoint_url=URL)
        process.step()
        return result

    def generate_presigned_post(self, bucket: str, key: str, **asked: Any) -> dict[str, Any]:
        leave = self._bucket.leave(key.removesuffix("${filename}"), asked["ExpiresIn"])
        return {"url": f"{URL}/{bucket}", "fields": {**asked["Fields"], "key": key, "policy": leave}}

    def generate_presigned_url(self, verb: str, **asked: Any) -> str:
        assert verb == "put_object"
        key = asked["Params"]["Key"]
        return f"{URL}/{NAME}/{key}?leave={self._bucket.leave(key, asked['ExpiresIn'])}"

    def get_object(self, **asked: Any) -> dict[str, Any]:
        start = int(asked.get("Range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))
        content = self._ask("GetObject", lambda: self._found(asked["Key"]))[start:]
        return {"Body": SimpleNamespace(read=lambda: content, iter_chunks=lambda _size: iter([content]))}

    def head_object(self, **asked: Any) -> dict[str, Any]:
        return {"ContentLength": len(self._ask("HeadObject", lambda: self._found(asked["Key"])))}

    def _found(self, key: str) -> bytes:
        if key not in self._bucket.objects:
            raise refusal("NoSuchKey", "GetObject")
        return self._bucket.objects[key]

    def put_object(self, **asked: Any) -> None:
        self._ask("PutObject", lambda: self._bucket.write(asked["Key"], asked["Body"]), writes=True)

    def get_paginator(self, verb: str) -> Any:
        assert verb == "list_objects_v2"
        return SimpleNamespace(paginate=self._pages)

    def _pages(self, **asked: Any) -> Iterator[dict[str, Any]]:
        objects, prefix = self._bucket.objects, asked["Prefix"]
        shown = self._ask("List", lambda: sorted(key for key in objects if key.startswith(prefix)))
        for at in range(0, len(shown), PAGE):  # another request for each further one
            page = shown[:PAGE] if not at else self._ask("List", lambda at=at: shown[at : at + PAGE])
            facts = [(key, objects.get(key, b"")) for key in page]
            when = self._computer.clock()
            yield {"Contents": [{"Key": key, "Size": len(content), "LastModified": when} for key, content in facts]}

    def delete_objects(self, **asked: Any) -> dict[str, Any]:
        keys = [one["Key"] for one in asked["Delete"]["Objects"]]
        self._ask("DeleteObjects", lambda: self._bucket.delete(keys))
        return {}


def refusal(code: str, verb: str) -> ClientError:
    """Make the error that boto3 makes of an answer."""
    return ClientError({"Error": {"Code": code}, "ResponseMetadata": {"HTTPHeaders": {}}}, verb)


class _Datetime(datetime):
    """The time by the clock of the computer that asks."""

    @classmethod
    def now(cls, _zone: Any = None) -> datetime:
        return current().computer.clock()


def _client(_address: Address) -> tuple[Client, bool]:
    return Client(), True


@contextlib.contextmanager
def reached(world: World) -> Iterator[None]:
    """Let the shipped courier and S3Store reach the simulated store."""
    swaps = [
        (courier, "connect", Connection),
        (store_s3, "_client", _client),
        (store_s3, "datetime", _Datetime),
        (store_s3, "PART_BYTES", world.bucket.nature.part_bytes),
    ]
    real = [(module, name, getattr(module, name)) for module, name, _ in swaps]
    for module, name, ours in swaps:
        setattr(module, name, ours)
    try:
        yield
    finally:
        for module, name, theirs in real:
            setattr(module, name, theirs)
