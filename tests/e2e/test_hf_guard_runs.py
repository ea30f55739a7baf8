"""A guard in a scheduled job of the Hub's: it ends what is overdue at another vendor, with this computer out of it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from desk import Desk, wait_for
from hf_ground import HfSim, hf_running
from simulators_fixture import PUBLIC_KEY, LambdaSim, lambda_running

from providers.base import Mark

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@dataclass
class Both(Desk):
    """A computer with the keys of both accounts."""

    hub: HfSim = field(kw_only=True)
    cloud: LambdaSim = field(kw_only=True)

    def rents(self, name: str) -> str:
        """Somebody launched one by hand, under this name; gives its id."""
        usual = {"region_name": "us-west-1", "instance_type_name": "gpu_1x_a10", "ssh_key_names": ["key"]}
        return self.cloud.tell("/launch", [{**usual, "name": name}])["ids"][0]

    def alive(self) -> set[str]:
        return {row["id"] for row in self.cloud.meter()["allocations"] if row["ended"] is None}

    def jobs(self) -> list[dict[str, Any]]:
        return [one for one in self.hub.state()["jobs"] if one["stage"] in {"SCHEDULING", "RUNNING"}]


def mark(hours: float, number: int) -> str:
    return str(Mark("0bad", f"unit-261122-{number:06x}", 1, datetime.now(UTC) + timedelta(hours=hours)))


@pytest.fixture
def desk(tmp_path: Path, home: Path) -> Iterator[Both]:
    with hf_running(pace=100) as hub, lambda_running() as cloud:
        cloud.data("POST", "/ssh-keys", {"name": "key", "public_key": PUBLIC_KEY})
        cloud.may_hurry = True  # its guard looks twice a second here
        found = Both({**hub.exports, **cloud.exports}, tmp_path, home, hub=hub, cloud=cloud)
        yield found
        cloud.terminate(*found.alive())


def test_a_guard_in_a_scheduled_job_ends_what_is_overdue_at_lambda_hour_after_hour(desk):
    _, live, foreign = desk.rents(mark(-1, 1)), desk.rents(mark(9, 2)), desk.rents("by-hand")
    done = desk.gpurun("guard", "install", "--on", "hf", "-y")
    assert done.code == 0, done
    assert "$0.01/h, so $0.24 a day and $7.3" in done.err
    assert "LAMBDA_API_KEY" in done.err
    assert desk.alive() == {live, foreign}  # the first pass is the proof

    # What the Hub shows of it holds no key, and the key of the Hub itself is not in it.
    shown = json.dumps(desk.hub.state()["scheduled"])
    (asked,) = desk.hub.asked("schedule")
    assert list(asked["body"]["jobSpec"]["secrets"]) == ["LAMBDA_API_KEY"]
    assert desk.cloud.key not in shown
    kept = b"".join(path.read_bytes() for path in desk.home.rglob("*") if path.is_file())
    assert desk.cloud.key.encode() not in kept
    assert asked["body"]["jobSpec"]["timeoutSeconds"] > 3600

    # It goes on by itself: in this job, and in the next one, which the Hub starts at its minute.
    later = desk.rents(mark(-1, 3))
    wait_for(lambda: later not in desk.alive(), "the next pass")
    first = {one["id"] for one in desk.jobs()}
    desk.hub.advance(3600)
    wait_for(
        lambda: any(one["stage"] == "RUNNING" and one["id"] not in first for one in desk.jobs()), "the next hour's job"
    )
    desk.hub.advance(2400)  # past the first job's limit
    wait_for(lambda: not first & {one["id"] for one in desk.jobs()}, "the end of the first job")
    last = desk.rents(mark(-1, 4))
    wait_for(lambda: last not in desk.alive(), "a pass of the next hour's guard")

    # This computer knows how it is, and plans count on it.
    status = desk.gpurun("guard", "status", "--json")
    told = json.loads(status.out)["afar"]
    assert (status.code, told["scheduled"], told["stale"]) == (0, True, ""), status
    plan = desk.gpurun("launch", "loop", "--provider", "lambda", "--gpu", "a10", "--dry-run", "--json")
    assert plan.code == 0, plan
    (holder,) = [one for one in json.loads(plan.out)["holders"] if one["place"] == "elsewhere"]
    assert (holder["name"], holder["proof"]) == ("the guard at alice", "proven")

    gone = desk.gpurun("guard", "uninstall", "--on", "hf")
    assert gone.code == 0, gone
    assert desk.hub.state()["scheduled"] == []
    wait_for(lambda: desk.jobs() == [], "its jobs' end")
    assert desk.hub.state()["buckets"] == {"alice/gpurun": []}
    assert "afar" not in json.loads(desk.gpurun("guard", "status", "--json").out)


def test_a_guard_that_can_t_look_is_said_to_stay_scheduled_and_is_removed_by_the_command_that_is_named(desk):
    done = desk.gpurun("guard", "install", "--on", "hf", "-y", LAMBDA_API_KEY="secret_wrong_0123456789abcdef")
    assert (done.code, "gpurun guard uninstall --on hf" in done.err) == (3, True), done
    assert "can't tell" in done.err
    assert len(desk.hub.state()["scheduled"]) == 1
    assert desk.gpurun("guard", "status").code == 5
    assert desk.gpurun("guard", "uninstall", "--on", "hf").code == 0
    assert desk.hub.state()["scheduled"] == []
    wait_for(lambda: desk.jobs() == [], "its jobs' end")


def test_without_an_answer_or_another_vendor_s_key_nothing_is_scheduled(desk):
    refused = desk.gpurun("guard", "install", "--on", "hf")
    assert (refused.code, "$7.3" in refused.err, "add -y" in refused.err) == (2, True, True), refused
    none = desk.gpurun("guard", "install", "--on", "hf", "-y", LAMBDA_API_KEY="")
    assert (none.code, "nothing to guard" in none.err) == (3, True), none
    assert desk.hub.state()["scheduled"] == []
