"""The user's data on their way to a rented machine, past this computer's own line where that is possible.

    before the launch   keep: into the run's store, by content, once for all runs: nothing bills while it goes up
    at a start          sources: signed addresses, in the store or where the data lay; payload/fetch.py brings them

What does not come that way is shipped from here, as it is without a store. This computer needs no way past itself, and
a job of Hugging Face's has its data mounted.
"""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from orchestrator.render import size
from orchestrator.store import BLOBS, Address, open_store
from orchestrator.terminal import Terminal
from providers.base import Secret
from providers.errors import BundleError, GpurunError
from providers.wire import digest_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.store import Store
    from providers.base import Blob

SMALL = 64 * 2**20  # bytes of data that are kept beside any run: with them another home can carry it on
LEAST = 2**20  # bytes: what is smaller goes quicker in one stream from here
LIFE = timedelta(hours=6)  # of a signed address: each start signs anew
_TOLD_BYTES = 2**24

log = logging.getLogger("gpurun.store")


def goes_by_store(provider: str) -> bool:
    """Say whether what this vendor rents can fetch its data by itself."""
    return provider not in {"local", "hf"}


def for_store(blobs: Sequence[Blob], provider: str) -> list[Blob]:
    """Name what is to lie in a run's store."""
    if sum(blob.size for blob in blobs) <= SMALL:
        return list(blobs)
    large = [blob for blob in blobs if blob.size >= LEAST and not blob.source.startswith("s3://")]
    return large if goes_by_store(provider) else []


def keep(store: Store, blobs: Sequence[Blob], provider: str) -> None:
    """Bring into the store what is not there yet.

    Raises:
        BundleError: a file changed while it went up.
        ProviderError: the store does not take it.
    """
    wanted = for_store(blobs, provider)
    there = _there(store) if wanted else {}
    missing = {one.sha256: one for one in wanted if there.get(one.sha256) != one.size}
    whole = sum(one.size for one in missing.values())
    if whole > _TOLD_BYTES:
        Terminal().say(f"sending {size(whole)} of data to {store.address}, once for all runs")
    for digest, blob in missing.items():
        key = store.address.key(BLOBS, digest)
        store.upload(key, str(blob.path))
        if digest_of(blob.path) != digest or store.size(key) != blob.size:
            store.delete([key])
            raise BundleError(f"{blob.path} changed while it went into the store", hint="launch again")


def sources(store: Store | None, blobs: Sequence[Blob], provider: str) -> Secret | None:
    """Sign what the machine may fetch by itself; None = nothing.

    Where that can't be found out, the data are shipped from here: no run waits for it.
    """
    large = [blob for blob in blobs if blob.size >= LEAST]
    if not large or not goes_by_store(provider):
        return None
    until, found = datetime.now(UTC) + LIFE, {}
    try:
        there = {} if store is None else _there(store)
        for blob in large:
            link = _link(blob, store if there.get(blob.sha256) == blob.size else None, until, provider)
            if link:
                found[blob.sha256] = {**link, "size": blob.size}
    except GpurunError as error:
        log.warning("data are shipped from here: %s", error)
    return Secret(json.dumps(found)) if found else None


def _link(blob: Blob, store: Store | None, until: datetime, provider: str) -> dict[str, str]:
    if store is not None:
        key = store.address.key(BLOBS, blob.sha256)
        if not store.address.is_hub:
            return store.link(key, until)
        from orchestrator.store_hub import for_machine

        return for_machine(store.address, provider).link(key, until)
    scheme, _, rest = blob.source.partition("://")
    if scheme != "s3":
        return {}
    bucket, _, key = rest.partition("/")
    return open_store(Address(bucket, endpoint=blob.endpoint)).link(key, until)


def _there(store: Store) -> dict[str, int]:
    """List the data that a store has: sizes in bytes, by sha256."""
    base = store.address.key(BLOBS) + "/"
    return {one.key.removeprefix(base): one.size for one in store.kept(base)}
