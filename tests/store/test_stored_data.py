"""Data on their way past this computer: kept in the store by content, once; signed for a machine; checked there."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
from relay import Fault, Relay

from orchestrator import stored, stored_data
from orchestrator.credentials import Redactor
from orchestrator.home import RunFolder
from orchestrator.jobs import JobFile
from orchestrator.reach import Reach
from orchestrator.store import open_store, parse
from providers.base import Blob
from providers.errors import BundleError
from providers.local import LocalProvider

sys.path.insert(0, str(Path(__file__).parents[2] / "payload"))
import fetch

LARGE = os.urandom(2 * 2**20)
NAME = sha256(LARGE).hexdigest()


@pytest.fixture
def large(tmp_path) -> Blob:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(LARGE)
    return Blob(NAME, len(LARGE), path, "data/rows.jsonl")


def signed(store, blob: Blob, provider: str = "lambda") -> dict:
    found = stored_data.sources(store, [blob], provider)
    return json.loads(found.reveal()) if found else {}


def brought(folder: Path, sources: dict, seconds: float = 60.0) -> dict:
    folder.mkdir(exist_ok=True)
    return fetch.fetch(folder, {"sources": sources, "seconds": seconds})


def test_data_go_into_the_store_once_for_all_runs(store, bucket, large) -> None:
    stored_data.keep(store, [large], "lambda")
    assert bucket.read(f"under/here/blobs/{NAME}") == LARGE
    bucket.client().put_object(Bucket=bucket.name, Key=f"under/here/blobs/{NAME}", Body=LARGE[::-1])
    stored_data.keep(store, [large, large], "runpod")
    assert bucket.read(f"under/here/blobs/{NAME}") == LARGE[::-1]  # nothing was sent


def test_a_file_that_changed_while_it_went_up_leaves_nothing_under_its_name(store, bucket, large) -> None:
    large.path.write_bytes(LARGE[::-1])
    with pytest.raises(BundleError, match="changed"):
        stored_data.keep(store, [large], "lambda")
    assert bucket.names() == []


def test_large_data_go_up_only_where_a_machine_fetches_them(large, monkeypatch) -> None:
    monkeypatch.setattr(stored_data, "SMALL", 100)
    small = Blob("0" * 64, 10, large.path, "data/small")
    afar = Blob("1" * 64, len(LARGE), large.path, "data/afar", source="s3://bucket/rows.jsonl")
    assert stored_data.for_store([large, small, afar], "lambda") == [large]
    assert stored_data.for_store([large, small, afar], "local") == []
    assert stored_data.for_store([small], "local") == [small]


def test_a_machine_fetches_what_was_signed_for_it(store, large, tmp_path) -> None:
    stored_data.keep(store, [large], "lambda")
    sources = signed(store, large)
    assert brought(tmp_path / "there", sources) == {"here": [NAME], "bytes": len(LARGE), "failed": {}}
    assert (tmp_path / "there" / NAME).read_bytes() == LARGE
    assert signed(store, large, "local") == signed(store, large, "hf") == {}


def test_a_job_is_handed_what_its_machine_may_fetch_at_each_start(row, store, large, tmp_path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    folder.bundle.write_bytes(b"bundle")
    JobFile(command=("true",), blobs=(large,), max_idle_seconds=60, secrets=()).write(folder)
    stored.keep_data(replace(row(), provider="lambda"), JobFile.read(folder))
    assert store.size(f"under/here/blobs/{NAME}") == len(LARGE)
    reach = Reach(LocalProvider(tmp_path), folder, "abcd", Redactor(), lambda: False)
    assert json.loads(reach.job(replace(row(), provider="lambda")).sources.reveal())[NAME]["size"] == len(LARGE)
    assert reach.job(row()).sources is None


def test_data_from_s3_are_fetched_from_where_they_lie_without_any_store(bucket, large, tmp_path) -> None:
    bucket.client().put_object(Bucket=bucket.name, Key="my rows.jsonl", Body=LARGE)
    source = {"source": f"s3://{bucket.name}/my rows.jsonl", "endpoint": bucket.endpoint}
    afar = Blob(large.sha256, large.size, large.path, large.name, **source)
    assert brought(tmp_path / "there", signed(None, afar))["here"] == [NAME]


def test_a_store_that_can_t_be_asked_signs_nothing_and_hinders_nobody(bucket, large) -> None:
    assert signed(open_store(parse(bucket.address, "http://127.0.0.1:9")), large) == {}
    assert signed(None, large) == {}


def test_cuts_and_rounds_cost_what_had_not_come_and_nothing_more(bucket, large, tmp_path) -> None:
    with Relay(bucket.endpoint) as relay:
        store = open_store(parse(bucket.address, relay.endpoint))
        stored_data.keep(store, [large], "lambda")
        sources = signed(store, large)
        first = relay.connections
        relay.spoil = lambda number: Fault(cut_down=900_000) if number < first + 2 else None
        assert brought(tmp_path / "there", sources)["here"] == []
        part = (tmp_path / "there" / f".{NAME}.fetched").stat().st_size
        assert 0 < part < len(LARGE)
        assert brought(tmp_path / "there", sources, seconds=0.0)["bytes"] == part
        for _ in range(5):
            said = brought(tmp_path / "there", sources)
            if said["here"]:
                break
    assert said["here"] == [NAME]
    assert (tmp_path / "there" / NAME).read_bytes() == LARGE


def test_what_is_not_what_its_name_says_gets_no_name(store, bucket, large, tmp_path) -> None:
    stored_data.keep(store, [large], "lambda")
    bucket.client().put_object(Bucket=bucket.name, Key=f"under/here/blobs/{NAME}", Body=LARGE[::-1])
    said = brought(tmp_path / "there", signed(store, large))
    assert (said["here"], list(said["failed"])) == ([], [NAME])
    assert list((tmp_path / "there").iterdir()) == []


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("Signature=", "Signature=0", "403"),
        ("/blobs/", "/blobs/0", "403"),
        ("http://", "http://127.0.0.1:9/", "reached"),
    ],
    ids=["refused", "another", "unreachable"],
)
def test_why_data_did_not_come_is_said_without_the_signed_address(store, large, tmp_path, old, new, words) -> None:
    stored_data.keep(store, [large], "lambda")
    sources = signed(store, large)
    sources[NAME]["url"] = sources[NAME]["url"].replace(old, new)
    said = brought(tmp_path / "there", sources)["failed"][NAME]
    assert words in said
    assert "X-Amz" not in said


def test_from_a_bucket_of_the_hub_a_machine_fetches_by_its_own_token(hub_bucket, large, tmp_path) -> None:
    store = open_store(parse(hub_bucket.address))
    stored_data.keep(store, [large], "lambda")
    sources = signed(store, large)
    assert hub_bucket.sim.exports["HF_TOKEN"] not in json.dumps(sources)
    assert brought(tmp_path / "there", sources)["here"] == [NAME]
    (tmp_path / "there" / NAME).unlink()
    sources[NAME]["token"] = "hf_another"  # noqa: S105 - nobody's
    said = brought(tmp_path / "there", sources)
    assert (said["here"], said["failed"]) == ([], {NAME: "the store says 401"})
