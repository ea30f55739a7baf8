"""A store in S3 (AWS, R2, MinIO, SeaweedFS, …) by boto3, which is looked for here and nowhere else.

A machine's grant is a POST policy: any number of objects under one prefix, within a size and a time. A store that has
no policies, or does not hold to them, gives signed PUTs of numbered slots instead. Signing needs no network.
"""

from __future__ import annotations

import json
import secrets
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from hashlib import md5
from typing import TYPE_CHECKING, Any, cast

import requests

from orchestrator.store import Ability, Kept
from providers.base import Secret
from providers.errors import CredentialsError, ProviderError, UnreachableError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from orchestrator.store import Address

PART_BYTES = 2**30  # a file goes in pieces of this: what a cut costs to send again
SLOTS = 600  # of a store without policies: three checkpoints, the artifacts
FIXED = ("log.txt", "metrics.jsonl", "CHECKPOINT.json", "files.json", "result.json")
_MOST_BYTES = 5 * 10**9  # of one object by POST or PUT (S3's own limit)
_BLOCK = 2**20
_PATIENCE = 20.0  # seconds
_NONE = {"NoSuchKey", "404", "NotFound"}
_KEYS = {"AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "403", "ExpiredToken", "InvalidToken"}


class S3Store:
    """One address in S3."""

    def __init__(self, address: Address) -> None:
        """Raises: UsageError without boto3, CredentialsError without a key."""
        self.address = address
        self._client = _client(address)

    # ── what a machine may do ───────────────────────────────────────────────────────────────────

    def try_out(self) -> Ability:
        """Put, read back and delete a test object.

        Raises:
            CredentialsError, ProviderError: it can't be written, read or deleted.
        """
        folder = self.address.key(f".gpurun-test-{secrets.token_hex(6)}")
        inside, outside, content = f"{folder}/in/object", f"{folder}/out", secrets.token_hex(500).encode()
        until = datetime.now(UTC) + timedelta(minutes=10)
        grant = self._policy(f"{folder}/in/", until)
        try:
            said, tag = _post(grant, inside, content)
            policies = said in {200, 201, 204} and self.get(inside) == content
            policies = policies and _post(grant, outside, content)[0] in range(400, 500)
            if not policies:
                said, tag = _put(self._slot(inside, until), content)
                if said not in {200, 201, 204}:
                    raise ProviderError(f"{self.address} takes no object: it answers {said}")
            if self.get(inside) != content:
                raise ProviderError(f"{self.address} gives another object than it took")
        finally:
            self.delete([inside, outside])
        if self.size(inside) is not None:
            raise ProviderError(f"{self.address} does not delete: nothing there could be tidied up")
        return Ability(policies, tag == md5(content, usedforsecurity=False).hexdigest())

    def grant(self, run_id: str, attempt: int, until: datetime, ability: Ability) -> Secret:
        """Sign the leave to write under an attempt's prefix."""
        prefix = self.address.attempt(run_id, attempt)
        until = min(until, datetime.now(UTC) + timedelta(days=7) - timedelta(minutes=1))
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
        return int(found[0]) if found else None

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


def _client(address: Address) -> Any:
    try:
        import boto3
        from botocore.config import Config
    except ImportError as error:
        raise UsageError("a store in S3 takes boto3", hint="pip install 'gpurun[s3]'") from error
    session = boto3.Session()
    with _told(address):
        if session.get_credentials() is None:
            raise CredentialsError(
                f"no key opens {address}: AWS_ACCESS_KEY_ID is not set, nor is there a profile",
                hint="export AWS_ACCESS_KEY_ID=… AWS_SECRET_ACCESS_KEY=…",
            )
        return session.client(
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


@contextmanager
def _told(address: Address, absent: object = ...) -> Iterator[list[Any]]:
    """Turn boto3's errors into ours; with `absent` given, the store's own "no such key" passes in silence."""
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError
    from urllib3.exceptions import HTTPError

    try:
        yield []
    except (NoCredentialsError, PartialCredentialsError) as error:
        raise CredentialsError(f"no key opens {address}", hint="export AWS_ACCESS_KEY_ID=…") from error
    except ClientError as error:
        code, said = error.response["Error"].get("Code", ""), error.response["Error"].get("Message", "")
        if code in _NONE and absent is None:
            return
        if code in _KEYS:
            raise CredentialsError(f"{address}: {said or code}", hint="look at AWS_ACCESS_KEY_ID") from error
        if code == "NoSuchBucket":
            raise ProviderError(f"there is no bucket {address.bucket}", hint="make it first") from error
        raise UnreachableError(f"{address}: {code} {said}".strip()) from error
    except (BotoCoreError, Boto3Error, HTTPError, OSError) as error:  # HTTPError: a body that was cut
        raise UnreachableError(f"{address} can't be reached: {error}") from error


def _seconds_to(until: datetime) -> int:
    return max(int((until - datetime.now(UTC)).total_seconds()), 1)


def _post(grant: dict[str, Any], key: str, content: bytes) -> tuple[int, str]:
    """Post as a machine would; gives the status and the ETag."""
    try:
        answer = requests.post(
            grant["url"],
            data={**grant["fields"], "key": key},
            files={"file": ("object", content)},
            timeout=_PATIENCE,
            allow_redirects=False,
        )
    except requests.RequestException as error:
        raise UnreachableError(f"the store can't be reached: {type(error).__name__}") from error
    return answer.status_code, answer.headers.get("ETag", "").strip('"')


def _put(url: str, content: bytes) -> tuple[int, str]:
    try:
        answer = requests.put(url, data=content, timeout=_PATIENCE, allow_redirects=False)
    except requests.RequestException as error:  # its text would hold the signed address
        raise UnreachableError(f"the store can't be reached: {type(error).__name__}") from error
    return answer.status_code, answer.headers.get("ETag", "").strip('"')
