"""What lies in a store, run by run, its cost a month, and what may be taken away."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from past import admit, done, output

from orchestrator import store_page
from orchestrator.facts import Memory
from orchestrator.home import Home
from orchestrator.ledger import Ledger
from orchestrator.store import open_store, parse
from orchestrator.words import Reason, State
from providers.base import Mark
from providers.errors import RefusedError, UsageError

NOW = datetime.now(UTC)
RUN = "demo-261122-abcdef"


def listed(address: str) -> dict[str, store_page.There]:
    where = parse(address)
    return {one.run_id: one for one in store_page.look(where, open_store(where))}


def test_what_jobs_left_in_the_account_s_bucket_is_shown_as_their_runs_and_their_cost(hub_bucket, home) -> None:
    over, live = (Mark("beef", f"demo-261122-00000{n}", n, NOW + timedelta(hours=n - 2)) for n in (1, 3))
    for mark in (over, live):
        hub_bucket.write(f"runs/{mark}/in/blobs/data", "x" * 1000)
        hub_bucket.write(f"runs/{mark}/out/files/result.json", "{}")
    found = listed("hf://buckets/alice/store")
    assert [(one.size, one.attempts, one.results, one.named) for one in found.values()] == [
        (1002, {3}, {3}, False),
        (1002, {1}, {1}, False),
    ]
    shown = store_page.screen(parse("hf://buckets/alice/store"), list(found.values()), NOW)
    assert "a month past the account's free storage" in " ".join(shown.split())
    where, everything = open_store(parse("hf://buckets/alice/store")), list(found.values())
    store_page.refuse_live(Home(home), where, found[over.run_id], everything, NOW)
    with pytest.raises(RefusedError, match="may use them until") as caught:
        store_page.refuse_live(Home(home), where, found[live.run_id], everything, NOW)
    assert "gpurun stop" in caught.value.hint


def test_runs_and_data_of_a_bucket_at_the_hub_are_counted_apart(hub_bucket) -> None:
    hub_bucket.write(f"under/here/runs/{RUN}/run.json", "{}")
    hub_bucket.write(f"under/here/runs/{RUN}/1/result.json", "{}")
    hub_bucket.write("under/here/blobs/" + "0" * 64, "rows")
    hub_bucket.write("under/here/runs/never a run/x", "no run")
    found = listed(hub_bucket.address)
    assert {name: (one.size, one.named, one.results) for name, one in found.items()} == {
        RUN: (4, True, {1}),
        "data": (4, False, set()),
    }


def test_where_no_store_is_named_the_shapes_of_one_are(home) -> None:
    with pytest.raises(UsageError) as caught:
        store_page.chosen(Home(home), None, None)
    assert "s3://" in caught.value.hint
    assert "hf://buckets/" in caught.value.hint


def removed(capsys, bucket, *words: str) -> tuple[int, str]:
    where = ["--store", bucket.address, "--s3-endpoint", bucket.endpoint]
    code, _, err = output(capsys, "store", "rm", *words, *where, "-y")
    return code, err


def test_what_a_run_of_this_home_uses_is_not_taken_away_while_it_goes_on(bucket, store, home, capsys) -> None:
    for key in (store.address.run(RUN, "run.json"), store.address.attempt(RUN, 1) + "log.txt", "under/here/blobs/x"):
        store.put(key, b"{}")
    admit(home, RUN, Memory(state=State.RUNNING))
    for word in (RUN, "data"):
        code, err = removed(capsys, bucket, word)
        assert code == 4
        assert f"{RUN} goes on" in err
    assert len(bucket.names()) == 3


def facts(**more: object) -> bytes:
    plan = {"offer": {}, "quote": {}, "store": {}, "times": {}, "launched": "now"}
    job = {"command": ["x"], "blobs": [], "max_idle_seconds": 60}
    known = {"home": "beef", "template": "demo", "provider": "fake", "created": 0.0, "grace_seconds": 60, "plan": plan}
    ends = (NOW + timedelta(hours=1)).timestamp()
    return json.dumps({**known, "job": job, "deadline": ends, "ceiling": ends, **more}).encode()


@pytest.mark.usefixtures("home")
def test_another_home_s_run_is_left_alone_until_its_ceiling_or_its_result(bucket, store, capsys) -> None:
    at, blob = store.address.run(RUN, "run.json"), "under/here/blobs/x"
    store.put(blob, b"x")
    store.put(at, facts())
    for word in (RUN, "data"):
        code, err = removed(capsys, bucket, word)
        assert code == 4
        assert f"{RUN} may go on in another home until" in err
    store.put(at, facts(ceiling=NOW.timestamp() - 1))
    assert removed(capsys, bucket, "data")[0] == 0
    store.put(at, facts())
    store.put(store.address.attempt(RUN, 1) + "result.json", b"{}")
    assert removed(capsys, bucket, RUN)[0] == 0
    assert bucket.names() == []


def test_a_run_that_is_over_here_goes_unless_another_home_carried_it_on(bucket, store, home, capsys) -> None:
    admit(home, RUN, done(Reason.LOST), ended=True)
    store.put(store.address.run(RUN, "run.json"), facts())
    assert removed(capsys, bucket, RUN)[0] == 4
    ledger = Ledger(home / "ledger.sqlite")
    store.put(store.address.run(RUN, "run.json"), facts(home=ledger.home_id))
    ledger.close()
    assert removed(capsys, bucket, RUN)[0] == 0


def test_a_result_of_before_the_run_was_carried_on_ends_nothing() -> None:
    there = store_page.There(RUN, attempts={1}, results={1}, launched=NOW, resulted=NOW - timedelta(seconds=1))
    assert not there.is_over
    assert replace(there, resulted=NOW).is_over
    assert not replace(there, resulted=NOW, attempts={1, 2}).is_over


def test_the_word_data_means_the_data_beside_a_run_called_so() -> None:
    found = [store_page.There("data-261122-abcdef"), store_page.There("data")]
    address = parse("s3://bucket/prefix")
    assert store_page.pick(address, found, "data") is found[1]
    assert store_page.pick(address, found, "data-") is found[0]
