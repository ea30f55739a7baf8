"""A store in S3 (AWS, R2, MinIO, SeaweedFS, …) by boto3, which is looked for here and nowhere else.

A machine's grant is a POST policy: any number of objects under one prefix, within a size and a time. A store that has
no policies, or does not hold to them, gives signed PUTs of numbered slots instead. Signing needs no network.
"""

from __future__ import annotations

import contextlib
import json
import re
import secrets
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from hashlib import md5
from typing import TYPE_CHECKING, Any, cast

import requests

from orchestrator.store import LIFE, SESSION, Ability, Kept
from providers.base import Secret
from providers.errors import CredentialsError, ProviderError, UnreachableError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from orchestrator.store import Address

PART_BYTES = 2**30  # a file goes in pieces of this: what a cut costs to send again
SLOTS = 600  # of a store without policies: three checkpoints, the artifacts
FIXED = ("log.txt", "metrics.jsonl", "summary.json", "CHECKPOINT.json", "SOFAR.json", "files.json", "result.json")
_MOST_BYTES = 5 * 10**9  # of one object by POST or PUT (S3's own limit)
_BLOCK = 2**20
_PATIENCE = 20.0  # seconds
_NONE = {"NoSuchKey", "404", "NotFound"}
_PAUSES = (0.5, 2.0)  # seconds before it is tried again
_MOMENTS = {0, 429, 500, 502, 503, 504}  # no answer, or none to what was asked; 501 is one: it has no policies
_SKEW_MOST = 300.0  # seconds; S3 takes no signature that is 900 off
_FULL = re.compile(r"Quota|Full|InsufficientStorage", re.IGNORECASE)
_KEY_HINT = "look at AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and at what that key may"
_KEYS = {"AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "403", "ExpiredToken", "InvalidToken"}


class S3Store:
    """One address in S3."""

    def __init__(self, address: Address) -> None:
        """Raises: UsageError without boto3, CredentialsError without a key."""
        self.address = address
        self._client, self._lasting = _client(address)

    # ── what a machine may do ───────────────────────────────────────────────────────────────────

    def try_out(self) -> Ability:
        """Put, read back and delete a test object.

        Raises:
            CredentialsError, ProviderError: it can't be written, read or deleted.
        """
        folder = self.address.key(f".gpurun-test-{secrets.token_hex(6)}")
        inside, outside = f"{folder}/in/object", f"{folder}/out"
        try:
            found = self._probed(folder, inside, outside)
        except ProviderError:
            with contextlib.suppress(ProviderError):  # what is wrong is told, not what follows from it
                self.delete([inside, outside])
            raise
        self.delete([inside, outside])
        if self.size(inside) is not None:
            raise ProviderError(f"{self.address} does not delete: nothing there could be tidied up")
        return found

    def _probed(self, folder: str, inside: str, outside: str) -> Ability:
        """Write as a machine would, where it may and where it may not."""
        until, content = _now() + timedelta(minutes=10), secrets.token_hex(500).encode()
        grant = self._policy(f"{folder}/in/", until)
        posted = _tried(lambda: _post(grant, inside, content))
        policies = posted.took and self.get(inside) == content
        policies = policies and 400 <= _tried(lambda: _post(grant, outside, content)).status < 500
        put = posted if policies else _tried(lambda: _put(self._slot(inside, until), content))
        if not put.took:
            raise _refused(self.address, put)
        if self.get(inside) != content:
            raise ProviderError(f"{self.address} gives another object than it took")
        return Ability(policies, put.tag == md5(content, usedforsecurity=False).hexdigest(), self._lasting)

    def grant(self, run_id: str, attempt: int, until: datetime, ability: Ability) -> Secret:
        """Sign the leave to write under an attempt's prefix."""
        prefix = self.address.attempt(run_id, attempt)
        until = min(until, _now() + (LIFE if self._lasting else SESSION))
        grant: dict[str, Any] = {
            "prefix": prefix,
            "until": until.timestamp(),
            "part_bytes": PART_BYTES,
            "checksums": ability.checksums,
        }
        if ability.policies:
            grant["post"] = self._policy(prefix, until)
        else:
            names = [*FIXED, *(f"parts/{number:04d}" for number in range(SLOTS))]
            grant["put"] = {name: self._slot(prefix + name, until) for name in names}
        return Secret(json.dumps(grant))

    def _policy(self, prefix: str, until: datetime) -> dict[str, Any]:
        with _told(self.address):
            post = self._client.generate_presigned_post(
                self.address.bucket,
                prefix + "${filename}",
                Fields={"success_action_status": "201"},
                Conditions=[
                    ["starts-with", "$key", prefix],
                    {"success_action_status": "201"},
                    ["content-length-range", 0, _MOST_BYTES],
                ],
                ExpiresIn=_seconds_to(until),
            )
        return cast("dict[str, Any]", post)

    def _slot(self, key: str, until: datetime) -> str:
        with _told(self.address):
            where = {"Bucket": self.address.bucket, "Key": key}
            return str(self._client.generate_presigned_url("put_object", Params=where, ExpiresIn=_seconds_to(until)))

    def link(self, key: str, until: datetime) -> dict[str, str]:
        """Sign a GET of one object."""
        with _told(self.address):
            where = {"Bucket": self.address.bucket, "Key": key}
            until = min(until, _now() + (LIFE if self._lasting else SESSION))
            return {"url": self._client.generate_presigned_url("get_object", where, ExpiresIn=_seconds_to(until))}

    # ── objects ─────────────────────────────────────────────────────────────────────────────────

    def get(self, key: str) -> bytes | None:
        """Read a small object whole; None = the store's own "no such key"."""
        with _told(self.address, absent=None) as found:
            answer = self._client.get_object(Bucket=self.address.bucket, Key=key)
            found.append(answer["Body"].read())
        return cast("bytes", found[0]) if found else None

    def stream(self, key: str, start: int = 0) -> Iterator[bytes]:
        """Read an object from a byte on."""
        with _told(self.address):
            answer = self._client.get_object(Bucket=self.address.bucket, Key=key, Range=f"bytes={start}-")
            yield from answer["Body"].iter_chunks(_BLOCK)

    def put(self, key: str, content: bytes) -> None:
        """Write a small object."""
        with _told(self.address):
            self._client.put_object(Bucket=self.address.bucket, Key=key, Body=content)

    def upload(self, key: str, path: str) -> None:
        """Write a file of any size."""
        with _told(self.address):
            self._client.upload_file(path, self.address.bucket, key)

    def size(self, key: str) -> int | None:
        """Tell the size of an object in bytes; None = no such key."""
        with _told(self.address, absent=None) as found:
            found.append(self._client.head_object(Bucket=self.address.bucket, Key=key)["ContentLength"])
        if found:
            return int(found[0])
        next(self.kept(key), None)  # a HEAD's 404 has no words: a list tells a bucket that is gone from a key
        return None

    def kept(self, prefix: str) -> Iterator[Kept]:
        """List every object whose key begins so, every page of it."""
        with _told(self.address):
            pages = self._client.get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self.address.bucket, Prefix=prefix):
                for one in page.get("Contents", ()):
                    yield Kept(one["Key"], one["Size"], one["LastModified"])

    def delete(self, keys: Sequence[str]) -> None:
        """Delete objects; one that is not there is no error."""
        with _told(self.address):
            for start in range(0, len(keys), 1000):  # the API's own limit
                wanted = {"Objects": [{"Key": key} for key in keys[start : start + 1000]], "Quiet": True}
                answer = self._client.delete_objects(Bucket=self.address.bucket, Delete=wanted)
                for error in answer.get("Errors", ()):
                    raise ProviderError(f"{self.address}: {error.get('Key')} stays: {error.get('Code')}")


def _client(address: Address) -> tuple[Any, bool]:
    """Open a client; the second: whether its key has no end, as a session's has."""
    try:
        import boto3
        from botocore.config import Config
    except ImportError as error:
        raise UsageError("a store in S3 takes boto3", hint="pip install 'gpurun[s3]'") from error
    with _told(address):
        session = boto3.Session()
        found = session.get_credentials()
        if found is None:
            raise CredentialsError(
                f"no key opens {address}: AWS_ACCESS_KEY_ID is not set, nor is there a profile",
                hint="export AWS_ACCESS_KEY_ID=… AWS_SECRET_ACCESS_KEY=…",
            )
        lasting = not found.get_frozen_credentials().token
        client = session.client(
            "s3",
            endpoint_url=address.endpoint or None,
            region_name=session.region_name or ("auto" if "r2.cloudflare" in address.endpoint else "us-east-1"),
            config=Config(
                signature_version="s3v4",
                connect_timeout=_PATIENCE,
                read_timeout=60,
                retries={"mode": "standard", "max_attempts": 4},
                s3={"addressing_style": "path" if address.endpoint else "auto"},
                request_checksum_calculation="when_required",  # R2, SeaweedFS and older MinIO refuse the new trailers
                response_checksum_validation="when_required",
            ),
        )
        return client, lasting


@contextlib.contextmanager
def _told(address: Address, absent: object = ...) -> Iterator[list[Any]]:
    """Turn boto3's errors into ours; with `absent` given, the store's own "no such key" passes in silence."""
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import (
        BotoCoreError,
        ClientError,
        NoCredentialsError,
        PartialCredentialsError,
        ProfileNotFound,
    )
    from urllib3.exceptions import HTTPError

    try:
        yield []
    except (NoCredentialsError, PartialCredentialsError) as error:
        raise CredentialsError(f"no key opens {address}", hint="export AWS_ACCESS_KEY_ID=…") from error
    except ProfileNotFound as error:
        raise CredentialsError(f"no key opens {address}: {error}", hint="look at AWS_PROFILE") from error
    except ClientError as error:
        code, said = error.response["Error"].get("Code", ""), error.response["Error"].get("Message", "")
        if code in _NONE and absent is None:
            return
        skew = _skew(error.response["ResponseMetadata"].get("HTTPHeaders", {}).get("date", ""))
        if abs(skew) > _SKEW_MOST and (code in _KEYS or "TimeTooSkewed" in code):
            raise _clocks(address, skew) from error
        if code in _KEYS:
            raise CredentialsError(f"{address}: {said or code}", hint=_KEY_HINT) from error
        if code == "NoSuchBucket":
            raise ProviderError(f"there is no bucket {address.bucket}", hint="make it first") from error
        raise UnreachableError(f"{address}: {code} {said}".strip()) from error
    except (BotoCoreError, Boto3Error, HTTPError, OSError) as error:  # HTTPError: a body that was cut
        raise UnreachableError(f"{address} can't be reached: {error}") from error


def _now() -> datetime:
    return datetime.now(UTC)


def _seconds_to(until: datetime) -> int:
    return max(int((until - _now()).total_seconds()), 1)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a store said to a machine's way of writing."""

    status: int = 0  # 0 = none came
    tag: str = ""
    code: str = ""  # S3's own word for what is wrong
    skew: float = 0.0  # seconds that its clock is ahead of ours

    @property
    def took(self) -> bool:
        """Whether it took the object."""
        return self.status in {200, 201, 204}


def _tried(send: Callable[[], Answer]) -> Answer:
    """Send once more where it was the line, or the server's bad moment."""
    for pause in _PAUSES:
        answer = send()
        if answer.status not in _MOMENTS:
            return answer
        time.sleep(pause)
    return answer


def _post(grant: dict[str, Any], key: str, content: bytes) -> Answer:
    """Post as a machine would."""
    fields = {**grant["fields"], "key": key}
    return _sent("POST", grant["url"], data=fields, files={"file": ("object", content)})


def _put(url: str, content: bytes) -> Answer:
    return _sent("PUT", url, data=content)


def _sent(verb: str, url: str, **body: Any) -> Answer:
    try:
        said = requests.request(verb, url, timeout=_PATIENCE, allow_redirects=False, **body)
    except requests.RequestException:  # its text would hold the signed address
        return Answer()
    code = re.search(r"<Code>([A-Za-z]{1,60})</Code>", said.text[:65536])
    return Answer(
        said.status_code,
        said.headers.get("ETag", "").strip('"'),
        code[1] if code else "",
        _skew(said.headers.get("Date", "")),
    )


def _refused(address: Address, put: Answer) -> ProviderError:
    """Say why no machine could write there, and what to do about it."""
    if not put.status:
        return UnreachableError(f"{address} can't be reached")
    if abs(put.skew) > _SKEW_MOST:
        return _clocks(address, put.skew)
    if put.status == 403 or put.code in _KEYS:
        return CredentialsError(f"{address} takes no object of this key: {put.code or put.status}", hint=_KEY_HINT)
    if put.code == "NoSuchBucket":
        return ProviderError(f"there is no bucket {address.bucket}", hint="make it first")
    full = put.status == 507 or _FULL.search(put.code)
    words = f"{put.status} {put.code}".strip()
    return ProviderError(
        f"{address} takes no object: it answers {words}{': it is full' if full else ''}",
        hint=f"gpurun store ls {address}, gpurun store rm RUN" if full else "--store another, or --store none",
    )


def _clocks(address: Address, skew: float) -> ProviderError:
    """Say that the two clocks differ: S3 takes nothing that was signed at another time than its own."""
    way = "behind" if skew > 0 else "ahead of"
    return CredentialsError(
        f"this computer's clock is {abs(skew) / 60:.0f} min {way} that of {address}, which takes no signature of it",
        hint="set the clock (timedatectl set-ntp true), then again",
    )


def _skew(date: str) -> float:
    """Seconds that a Date header is ahead of our clock; 0 = it tells none."""
    try:
        return (parsedate_to_datetime(date) - _now()).total_seconds()
    except (TypeError, ValueError):
        return 0.0
