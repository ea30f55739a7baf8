"""Where results live when both ends may die: an address, its layout, what a store must be able to do. No I/O here.

    <address>/runs/<run id>/run.json bundle.tar.gz           what the run is: written from home, at the launch
    <address>/runs/<run id>/<attempt>/                       what one attempt brought there: payload/README.md
    <address>/blobs/<sha256>                                 data, once for all runs

The controller holds the keys; a machine gets a *grant*: leave to write under its attempt's prefix, until a time; on
the Hub, a token for one bucket. S3 is store_s3.py, a bucket of the Hub's store_hub.py, what is read store_remote.py.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Protocol

from providers.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from providers.base import Secret

RUNS, BLOBS = "runs", "blobs"
HUB_SHAPE = "hf://buckets/you/name/prefix"
LIFE = timedelta(days=7) - timedelta(minutes=1)  # of a grant: what a signature of S3 (SigV4) may live; clocks differ
SESSION = timedelta(hours=1)  # what a session's key is taken to last: AWS's own default, and many tell no end
_BUCKET = re.compile(r"[a-z0-9](?:[a-z0-9.-]{1,61})[a-z0-9]")
_PREFIX = re.compile(r"[A-Za-z0-9._=-]+(?:/[A-Za-z0-9._=-]+)*")
_HUB_BUCKET = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
_GB = Decimal(10**9)
_HUB_USD = Decimal("0.018")  # a GB and month past what an account has free: hub-docs, 2026-08
HUB_FREE = "past the account's free storage: 100 GB, 1 TB with PRO"
# USD a GB and month of standard storage, by the end of the endpoint's host. Read from the vendors' pages, 2026-11.
_PRICES = {"amazonaws.com": Decimal("0.023"), "r2.cloudflarestorage.com": Decimal("0.015")}


@dataclass(frozen=True, slots=True)
class Address:
    """A place in a store. `str` spells it as it is typed."""

    bucket: str  # "namespace/name" on the Hub
    prefix: str = ""  # no slash at its ends
    endpoint: str = ""  # "" = AWS; the Hub's is HF_ENDPOINT, as for its own client
    scheme: str = "s3"  # or "hf"

    def __str__(self) -> str:
        """Spell it as it is typed, the endpoint left out."""
        scheme = "hf://buckets" if self.is_hub else "s3:/"
        return f"{scheme}/{self.bucket}{'/' if self.prefix else ''}{self.prefix}"

    @property
    def is_hub(self) -> bool:
        """Whether it is a bucket of the Hub's."""
        return self.scheme == "hf"

    def key(self, *parts: str) -> str:
        """Name a key below it."""
        return "/".join([part for part in (self.prefix, *parts) if part])

    def run(self, run_id: str, *parts: str) -> str:
        """Name a key of a run."""
        return self.key(RUNS, run_id, *parts)

    def attempt(self, run_id: str, number: int) -> str:
        """Name an attempt's prefix; ends with a slash."""
        return self.run(run_id, str(number)) + "/"

    @property
    def usd_per_gb_month(self) -> Decimal | None:
        """What a GB costs there a month; None = not known."""
        if self.is_hub:
            return _HUB_USD
        host = self.endpoint.split("://")[-1].split("/")[0].split(":")[0] or "amazonaws.com"
        return next((usd for end, usd in _PRICES.items() if host.endswith(end)), None)

    def monthly_usd(self, size: int) -> Decimal | None:
        """What so many bytes cost there a month; None = not known."""
        usd = self.usd_per_gb_month
        return None if usd is None else usd * size / _GB


@dataclass(frozen=True, slots=True)
class Ability:
    """What a store was seen to do, by trying it."""

    policies: bool  # it takes POST policies and holds to them; else a pool of signed slots serves
    checksums: bool  # it tells the MD5 of what it keeps: what was sent can be verified by its word
    lasting: bool = True  # our key has no end; what a session's key signs dies with the session

    @property
    def life(self) -> timedelta:
        """How long a grant lives at most."""
        return LIFE if self.lasting else SESSION


@dataclass(frozen=True, slots=True)
class Kept:
    """One object there."""

    key: str
    size: int  # bytes
    written: datetime


class Store(Protocol):
    """Objects by keys, and leave for a machine to write some. Raises `ProviderError`; an error is never absence."""

    address: Address

    def try_out(self) -> Ability:
        """Put, read back and delete a test object, as a machine would and as we do."""

    def grant(self, run_id: str, attempt: int, until: datetime, ability: Ability) -> Secret:
        """Sign the leave to write under an attempt's prefix: store.json for the machine, as JSON."""

    def link(self, key: str, until: datetime) -> dict[str, str]:
        """Give what a machine fetches an object by, without a key: {"url"}, and "token" where its own is taken."""

    def get(self, key: str) -> bytes | None:
        """Read a small object whole; None = the store's own "no such key"."""

    def stream(self, key: str, start: int = 0) -> Iterator[bytes]:
        """Read an object from a byte on."""

    def put(self, key: str, content: bytes) -> None:
        """Write a small object."""

    def size(self, key: str) -> int | None:
        """Tell the size of an object in bytes; None = no such key."""

    def upload(self, key: str, path: str) -> None:
        """Write a file of any size."""

    def kept(self, prefix: str) -> Iterator[Kept]:
        """List every object whose key begins so, every page of it."""

    def delete(self, keys: Sequence[str]) -> None:
        """Delete objects; one that is not there is no error."""


def parse(text: str, endpoint: str = "") -> Address:
    """Read an address as it is typed.

    Raises:
        UsageError: it is none.
    """
    scheme, _, rest = text.strip().partition("://")
    if scheme == "hf":
        return _parse_hub(text, rest)
    bucket, _, prefix = rest.strip("/").partition("/")
    if scheme != "s3":
        raise UsageError(f'"{text}" is no store', hint=f"--store s3://bucket/prefix, or --store {HUB_SHAPE}")
    if not _BUCKET.fullmatch(bucket) or (prefix and not _PREFIX.fullmatch(prefix)) or ".." in prefix:
        raise UsageError(
            f'"{text}": a bucket has 3 to 63 characters of a-z 0-9 . -, a prefix letters, digits and . _ = - /',
            hint="--store s3://bucket/prefix",
        )
    if endpoint and not is_endpoint(endpoint):
        raise UsageError(f'"{endpoint}" is no endpoint', hint="--s3-endpoint https://host")
    return Address(bucket, prefix, endpoint.rstrip("/"))


def _parse_hub(text: str, rest: str) -> Address:
    kind, _, rest = rest.strip("/").partition("/")
    namespace, _, rest = rest.partition("/")
    name, _, prefix = rest.partition("/")
    bucket = f"{namespace}/{name}"
    sound = kind == "buckets" and _HUB_BUCKET.fullmatch(bucket) and (not prefix or _PREFIX.fullmatch(prefix))
    if not sound or ".." in rest:
        raise UsageError(f'"{text}" is no bucket of the Hub\'s', hint=f"--store {HUB_SHAPE}")
    return Address(bucket, prefix, scheme="hf")


def is_address(text: str) -> bool:
    """Say whether a text is a store's address."""
    try:
        parse(text)
    except UsageError:
        return False
    return True


def is_endpoint(text: str) -> bool:
    """Say whether a text is a server's address."""
    return bool(re.fullmatch(r"https?://[A-Za-z0-9.:\[\]-]+(?:/[\w./-]*)?", text))


def open_store(address: Address) -> Store:
    """Open a store; nothing is sent yet.

    Raises:
        UsageError: the package that it takes is not installed.
        CredentialsError: no key is to be had.
    """
    if address.is_hub:
        from orchestrator.store_hub import HubStore

        return HubStore.open(address)
    from orchestrator.store_s3 import S3Store

    return S3Store(address)


def as_json(address: Address, ability: Ability) -> dict[str, Any]:
    """Spell what a run must remember of its store; no key is in it."""
    return {
        "bucket": address.bucket,
        "prefix": address.prefix,
        "endpoint": address.endpoint,
        "scheme": address.scheme,
        "policies": ability.policies,
        "checksums": ability.checksums,
        "lasting": ability.lasting,
    }


def from_json(values: Mapping[str, Any]) -> tuple[Address, Ability]:
    """Read it back."""
    return (
        Address(values["bucket"], values["prefix"], values["endpoint"], values.get("scheme", "s3")),
        Ability(bool(values["policies"]), bool(values["checksums"]), bool(values.get("lasting", True))),
    )
