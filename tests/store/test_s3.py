"""A store in S3, on a real server: what it can do is found out by trying, and a grant opens one prefix."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
import requests

from orchestrator.store import Ability, Address, as_json, from_json, open_store, parse
from providers.errors import CredentialsError, ProviderError, UnreachableError, UsageError

RUN = "demo-261122-abcdef"


def _until(hours: float = 1.0) -> datetime:
    return datetime.now(UTC) + timedelta(hours=hours)


def _post(grant: dict, key: str, content: bytes) -> int:
    post = grant["post"]
    return requests.post(
        post["url"], data={**post["fields"], "key": key}, files={"file": ("f", content)}, timeout=20
    ).status_code


def test_trying_it_out_finds_what_it_can_and_leaves_nothing(store, bucket) -> None:
    assert store.try_out() == Ability(policies=True, checksums=True)
    assert bucket.names() == []


def test_a_policy_opens_the_prefix_of_its_attempt_and_no_other(store, bucket) -> None:
    grant = json.loads(store.grant(RUN, 2, _until(), Ability(policies=True, checksums=True)).reveal())
    mine = f"under/here/runs/{RUN}/2/"
    assert grant["prefix"] == mine
    assert _post(grant, f"{mine}log.txt", b"hello") == 201
    for other in (f"under/here/runs/{RUN}/1/log.txt", f"under/here/runs/{RUN}/20/log.txt", "log.txt"):
        assert _post(grant, other, b"hello") == 403
    assert bucket.names() == [f"{mine}log.txt"]


def test_a_policy_ends(store) -> None:
    grant = json.loads(store.grant(RUN, 1, _until(-1), Ability(policies=True, checksums=True)).reveal())
    deadline = datetime.now(UTC) + timedelta(seconds=30)
    while (said := _post(grant, f"{grant['prefix']}log.txt", b"x")) == 201 and datetime.now(UTC) < deadline:
        pass
    assert said == 403


def test_slots_are_signed_one_by_one_where_there_are_no_policies(store, bucket) -> None:
    grant = json.loads(store.grant(RUN, 1, _until(), Ability(policies=False, checksums=True)).reveal())
    assert "post" not in grant
    assert requests.put(grant["put"]["parts/0007"], data=b"seven", timeout=20).status_code == 200
    assert bucket.read(f"under/here/runs/{RUN}/1/parts/0007") == b"seven"


def test_no_key_is_in_a_grant(store) -> None:
    from seaweed import SECRET

    for policies in (True, False):
        secret = store.grant(RUN, 1, _until(), Ability(policies=policies, checksums=True))
        assert SECRET not in secret.reveal()
        assert "http" not in repr(secret)


def test_objects_are_written_read_listed_and_deleted(store) -> None:
    store.put("under/here/a", b"0123456789")
    store.put("under/here/b/c", b"")
    assert store.get("under/here/a") == b"0123456789"
    assert b"".join(store.stream("under/here/a", 4)) == b"456789"
    assert store.size("under/here/a") == 10
    assert {(one.key, one.size) for one in store.kept("under/here/")} == {("under/here/a", 10), ("under/here/b/c", 0)}
    store.delete(["under/here/a", "under/here/never"])
    assert store.get("under/here/a") is None
    assert store.size("under/here/a") is None


def test_a_wrong_key_is_told_as_one(bucket, monkeypatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another-secret-entirely-000000000")
    store = open_store(parse(bucket.address, bucket.endpoint))
    with pytest.raises(CredentialsError):
        store.get("under/here/a")
    with pytest.raises(ProviderError):
        store.try_out()


def test_a_bucket_that_is_not_there_is_no_empty_one(bucket) -> None:
    store = open_store(parse("s3://never-made-here/x", bucket.endpoint))
    with pytest.raises(ProviderError):
        store.get("x/a")


def test_a_server_that_does_not_answer_says_nothing_about_its_objects(bucket) -> None:
    store = open_store(parse(bucket.address, "http://127.0.0.1:9"))
    with pytest.raises(UnreachableError):
        store.size("x")


def test_no_key_names_the_variable(bucket, monkeypatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    with pytest.raises(CredentialsError, match="AWS_ACCESS_KEY_ID"):
        open_store(parse(bucket.address, bucket.endpoint))


@pytest.mark.parametrize(
    "text", ["", "bucket", "s3://", "s3://a", "s3://UPPER/x", "s3://good/../x", "https://x/y", "s3://b c/d"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse(text)


def test_an_address_is_spelt_as_it_was_typed() -> None:
    assert str(parse("s3://my-bucket/a/b/")) == "s3://my-bucket/a/b"
    assert parse("s3://my-bucket").attempt("r", 3) == "runs/r/3/"
    assert parse("s3://my-bucket/p").attempt("r", 3) == "p/runs/r/3/"
    assert from_json(
        json.loads(json.dumps(as_json(Address("b-1", "p", "http://h"), Ability(policies=True, checksums=False))))
    ) == (
        Address("b-1", "p", "http://h"),
        Ability(policies=True, checksums=False),
    )


def test_the_monthly_cost_is_told_where_it_is_known() -> None:
    assert str(parse("s3://my-bucket").monthly_usd(10**12)) == "23.000"
    assert str(parse("s3://my-bucket", "https://1.r2.cloudflarestorage.com").monthly_usd(10**9)) == "0.015"
    assert parse("s3://my-bucket", "http://127.0.0.1:1").monthly_usd(1) is None


def test_a_bucket_that_is_gone_is_no_key_that_is_not_there(store, bucket) -> None:
    assert store.size("no/such/key") is None
    gone = open_store(parse("s3://gone-gone-gone/p", bucket.endpoint))
    with pytest.raises(ProviderError, match="there is no bucket"):
        gone.size("no/such/key")


def test_a_profile_that_is_not_there_is_a_missing_key(bucket, monkeypatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nope")
    with pytest.raises(CredentialsError, match="nope") as caught:
        open_store(parse(bucket.address, bucket.endpoint))
    assert "AWS_PROFILE" in caught.value.hint
