"""The guard on Hugging Face: marks alone, from an empty home; what hides in a stage that nobody knows is found too."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import requests

from orchestrator.guard import Kind, Known, Post, patrol


def by_hand(hf) -> str:
    """A job that somebody started without us."""
    body = {"command": ["sleep", "99"], "dockerImage": "python:3.12", "flavor": "cpu-basic", "environment": {}}
    headers = {"Authorization": f"Bearer {hf.sim.exports['HF_TOKEN']}"}
    return requests.post(f"{hf.sim.url}/api/jobs/alice", json=body, headers=headers, timeout=30).json()["id"]


def long_lived(hf) -> str:
    job = hf.job()
    later = job.mark.ceiling + timedelta(hours=9)
    return hf.provider.launch(replace(job, mark=replace(job.mark, ceiling=later), max_seconds=9 * 3600), hf.offer())


def test_a_guard_with_the_token_alone_ends_what_is_past_its_ceiling_and_nothing_else(start_hf):
    hf = start_hf(rate=0.001, pace=1, schedule_seconds=1, faults={"unknown_stage": {"seconds": 1e6}})
    _, overdue = hf.launch()  # it will hide in a stage that nobody knows
    foreign, live = by_hand(hf), long_lived(hf)
    late = 1000.0
    hf.sim.advance(late)

    def clock() -> datetime:
        return datetime.now(UTC) + timedelta(seconds=late)

    def pause(seconds: float) -> None:
        nonlocal late
        late += max(seconds, 10.0)
        hf.sim.advance(max(seconds, 10.0))

    post = Post(hf.open(), Known(), clock)
    patrol([post], pause)
    assert [(one.id, one.kind) for one in post.ended] == [(overdue, Kind.OVERDUE)]
    assert not post.may_bill
    assert not hf.provider.inspect(overdue).billing
    assert {one.id for one in hf.provider.allocations() if one.billing} == {foreign, live}
    assert {verdict.kind for verdict in post.verdicts} == {Kind.FOREIGN, Kind.LIVE}
    hf.provider.terminate([foreign, live])


def test_a_guard_that_is_refused_the_list_says_so_and_calls_nothing_gone(start_hf):
    hf = start_hf(rate=0.001, pace=1)
    _, allocation_id = hf.launch()
    hf.sim.faults({"forbidden": {"of": "list", "times": None}})
    post = Post(hf.open(), Known(), lambda: datetime.now(UTC))
    post.round()
    assert post.may_bill
    assert "403" in post.trouble
    hf.sim.faults({"forbidden": 0})
    hf.provider.terminate([allocation_id])
