"""What lies in a store, run by run, its cost a month, and what may be taken away."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from orchestrator import store_page
from orchestrator.home import Home
from orchestrator.store import open_store, parse
from providers.base import Mark
from providers.errors import RefusedError, UsageError

NOW = datetime.now(UTC)
RUN = "demo-261122-abcdef"


def listed(address: str) -> dict[str, store_page.There]:
    where = parse(address)
    return {one.run_id: one for one in store_page.look(where, open_store(where))}


def test_what_jobs_left_in_the_account_s_bucket_is_shown_as_their_runs_and_their_cost(hub_bucket) -> None:
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
    store_page.refuse_live(found[over.run_id], NOW)
    with pytest.raises(RefusedError, match="may use them until") as caught:
        store_page.refuse_live(found[live.run_id], NOW)
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
