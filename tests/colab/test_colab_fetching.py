"""Data that a VM of Colab's fetches by itself from a real S3; what does not come so is shipped."""

from __future__ import annotations

import json
import os

import pytest

from orchestrator import stored_data
from orchestrator.store import open_store, parse
from providers.base import Secret

SIZE = 3 * 2**20


@pytest.mark.parametrize("good", [True, False], ids=["an address", "an address that the store refuses"])
def test_a_vm_fetches_from_the_store_what_lies_there_and_gets_the_rest_shipped(ground, bucket, *, good: bool) -> None:
    large = os.urandom(SIZE)
    blobs = (ground.blob("data/large", large), ground.blob("data/small", b"small"))
    store = open_store(parse(bucket.address, bucket.endpoint))
    stored_data.keep(store, blobs, "colab")
    sources = json.loads(stored_data.sources(store, blobs, "colab").reveal())
    assert set(sources) == {blobs[0].sha256}
    if not good:
        source = sources[blobs[0].sha256]
        source["url"] = source["url"].replace("Signature=", "Signature=0")
    job = ground.job(blobs=blobs, sources=Secret(json.dumps(sources)))
    told: list[tuple[int, int]] = []
    remote = ground.remote(job, progress=lambda done, whole: told.append((done, whole)))
    remote.start(job)
    ground.ended(remote)
    assert (ground.folder(job) / "data/large").read_bytes() == large
    assert (ground.folder(job) / "data/small").read_bytes() == b"small"
    assert (told[-1][1] < SIZE) is good  # of what was shipped, last
    assert any(done >= SIZE for done, _ in told)
    kept = [path for path in ground.vm.folder.rglob("*") if path.is_file() and not path.is_symlink()]
    assert not [path for path in kept if b"X-Amz-Signature" in path.read_bytes()]
