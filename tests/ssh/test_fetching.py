"""Data that a machine fetches by itself, over a real sshd and from a real S3; what does not come so is shipped."""

from __future__ import annotations

import json
import os
from hashlib import sha256

import pytest

from orchestrator import stored_data
from orchestrator.store import open_store, parse
from providers.base import Secret
from providers.errors import RemoteError

LARGE = os.urandom(3 * 2**20)


@pytest.fixture
def shipped(machine, bucket):
    """Start a job whose one large file lies in the store, as `change` has it; gives what went over SSH, in bytes."""

    def ship(change=lambda _sources: None, **more) -> int:
        blobs = (machine.blob("data/large", LARGE), machine.blob("data/small", b"small"))
        store = open_store(parse(bucket.address, bucket.endpoint))
        stored_data.keep(store, blobs, "lambda")
        sources = json.loads(stored_data.sources(store, blobs, "lambda").reveal())
        assert set(sources) == {blobs[0].sha256}
        change(sources[blobs[0].sha256])
        job = machine.job(blobs=blobs, sources=Secret(json.dumps(sources)))
        before, remote = machine.proxy.sent, machine.remote(job, **more)
        remote.start(job)
        machine.ended(remote)
        assert (machine.folder(job) / "data/large").read_bytes() == LARGE
        assert (machine.folder(job) / "data/small").read_bytes() == b"small"
        return machine.proxy.sent - before

    return ship


def test_a_machine_fetches_from_the_store_what_lies_there_and_no_address_stays(machine, shipped, bucket) -> None:
    told: list[tuple[int, int]] = []
    assert shipped(progress=lambda done, whole: told.append((done, whole))) < len(LARGE) / 2
    assert max(done for done, _ in told) >= len(LARGE)
    kept = [path for path in machine.sshd.home.rglob("*") if path.is_file()]
    assert not [path for path in kept if b"X-Amz-Signature" in path.read_bytes()]
    assert bucket.names() != []


def test_what_the_store_refuses_is_shipped(shipped) -> None:
    assert shipped(lambda source: source.update(url=source["url"].replace("Signature=", "Signature=0"))) > len(LARGE)


def test_a_file_that_was_spoiled_in_the_store_is_never_trained_on(machine, shipped, bucket) -> None:
    def spoil(_source) -> None:
        key = f"under/here/blobs/{sha256(LARGE).hexdigest()}"
        bucket.client().put_object(Bucket=bucket.name, Key=key, Body=LARGE[::-1])

    assert shipped(spoil) > len(LARGE)
    assert not list((machine.sshd.home / ".gpurun" / "blobs").glob(".*.fetched"))


def test_one_who_is_no_longer_wanted_stops_fetching(shipped) -> None:
    def stop(done: int, _whole: int) -> None:
        if done:
            raise RemoteError("left off")

    with pytest.raises(RemoteError, match="left off"):
        shipped(progress=stop)
