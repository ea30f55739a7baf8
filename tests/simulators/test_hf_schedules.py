"""Scheduled jobs and repositories of the simulated Hub, by the vendor's own client."""

from __future__ import annotations

import time
from contextlib import ExitStack
from datetime import UTC, datetime
from hashlib import sha256

import pytest
from hf_ground import hf_running
from huggingface_hub.errors import BadRequestError, HfHubHTTPError, RepositoryNotFoundError

from simulators.hf_jobs.scheduled import CronError, next_minute

PATIENCE = 30.0


@pytest.fixture
def start():
    from huggingface_hub import HfApi

    with ExitStack() as running:

        def begin(**options):
            sim = running.enter_context(hf_running(**options))
            return sim, HfApi(endpoint=sim.url, token=sim.exports["HF_TOKEN"])

        yield begin


def until(fact):
    end = time.monotonic() + PATIENCE
    while not (found := fact()):
        assert time.monotonic() < end, "it never came"
        time.sleep(0.02)
    return found


@pytest.mark.parametrize(
    ("line", "after", "due"),
    [
        ("* * * * *", "2026-11-22 10:00:30", "2026-11-22 10:01"),
        ("*/15 * * * *", "2026-11-22 10:45:00", "2026-11-22 11:00"),
        ("@hourly", "2026-11-22 23:00:00", "2026-11-23 00:00"),
        ("0 9 * * 1", "2026-11-22 10:00:00", "2026-11-23 09:00"),
        ("5,35 8-10 * * *", "2026-11-22 10:35:00", "2026-11-23 08:05"),
        ("0 0 13 * 5", "2026-11-22 10:00:00", "2026-11-27 00:00"),  # both restricted: a Friday will do
        ("0 0 29 2 *", "2026-11-22 10:00:00", "2028-02-29 00:00"),
        ("0 0 * * 7", "2026-11-22 10:00:00", "2026-11-29 00:00"),
    ],
)
def test_a_schedule_is_due_at_its_next_minute(line, after, due):
    moment = datetime.fromisoformat(after).replace(tzinfo=UTC).timestamp()
    assert datetime.fromtimestamp(next_minute(line, moment), UTC).strftime("%Y-%m-%d %H:%M") == due


@pytest.mark.parametrize("line", ["", "* * * *", "60 * * * *", "a * * * *", "*/0 * * * *", "5-1 * * * *", "0 0 31 2 *"])
def test_what_is_no_schedule_is_refused(line):
    with pytest.raises(CronError):
        next_minute(line, 0)


def test_a_scheduled_job_runs_at_its_minutes_and_not_while_it_is_suspended_or_gone(start):
    sim, api = start(pace=200)
    here = {"namespace": "alice"}
    one = api.create_scheduled_job(
        image="python:3.12", command=["true"], schedule="*/5 * * * *", secrets={"S": "hidden"}, timeout=60, **here
    )
    assert (one.schedule, one.suspend, one.status.last_job, one.job_spec.secrets) == ("*/5 * * * *", False, None, ["S"])
    jobs = lambda: list(api.list_jobs(namespace="alice"))  # noqa: E731 - asked again and again
    assert jobs() == []
    sim.advance(300)
    (first,) = jobs()
    told = api.inspect_scheduled_job(scheduled_job_id=one.id, **here)
    assert (told.status.last_job.id, first.initiator.type) == (first.id, "scheduled-job")
    assert told.status.last_job.at.minute % 5 == 0
    until(lambda: api.inspect_job(job_id=first.id, **here).status.stage == "COMPLETED")
    api.suspend_scheduled_job(scheduled_job_id=one.id, **here)
    sim.advance(900)
    assert len(jobs()) == 1
    api.resume_scheduled_job(scheduled_job_id=one.id, **here)
    sim.advance(300)
    until(lambda: len(jobs()) == 2 and all(job.status.stage == "COMPLETED" for job in jobs()))
    api.delete_scheduled_job(scheduled_job_id=one.id, **here)
    sim.advance(900)
    assert len(jobs()) == 2
    assert api.list_scheduled_jobs(**here) == []


def test_while_one_runs_the_next_is_left_out_unless_several_may(start):
    sim, api = start(rate=0.001, pace=1, schedule_seconds=1)
    for concurrency, many in ((False, 1), (True, 3)):
        one = api.create_scheduled_job(
            image="python:3.12",
            command=["sleep", "99"],
            schedule="* * * * *",
            timeout=3600,
            concurrency=concurrency,
            namespace="alice",
        )
        for _ in range(3):
            sim.advance(60)
        ran = [job for job in api.list_jobs(namespace="alice") if job.status.stage in {"SCHEDULING", "RUNNING"}]
        assert len(ran) == many
        if not concurrency:
            with pytest.raises(HfHubHTTPError, match="409"):
                api.trigger_scheduled_job(scheduled_job_id=one.id, namespace="alice")
        api.delete_scheduled_job(scheduled_job_id=one.id, namespace="alice")
        for job in ran:
            api.cancel_job(job_id=job.id, namespace="alice")


def test_a_trigger_and_another_schedule_do_what_they_say(start):
    sim, api = start(rate=0.001, pace=1, schedule_seconds=1)
    one = api.create_scheduled_job(image="python:3.12", command=["true"], schedule="@yearly", namespace="alice")
    job = api.trigger_scheduled_job(scheduled_job_id=one.id, namespace="alice")
    assert job.status.stage == "SCHEDULING"
    api.cancel_job(job_id=job.id, namespace="alice")
    again = api.update_scheduled_job_schedule(scheduled_job_id=one.id, schedule="@hourly", namespace="alice")
    assert again.status.next_job_run_at < one.status.next_job_run_at
    with pytest.raises(BadRequestError):
        api.update_scheduled_job_schedule(scheduled_job_id=one.id, schedule="now", namespace="alice")
    assert sim.state()["scheduled"][0]["schedule"] == "@hourly"


def test_a_folder_is_pushed_and_a_snapshot_of_it_is_the_same_to_the_byte(start, tmp_path):
    from huggingface_hub import snapshot_download

    sim, api = start(rate=0.001, pace=1)
    source = tmp_path / "artifacts"
    (source / "deep dir").mkdir(parents=True)
    (source / "model.safetensors").write_bytes(bytes(range(256)) * 5000)
    (source / "deep dir" / "é.txt").write_text("card")
    for _ in range(2):  # there already: 409, and the client goes on
        api.create_repo("alice/model", private=True, exist_ok=True)
    pushed = api.upload_folder(repo_id="alice/model", folder_path=source)
    home = snapshot_download(
        "alice/model",
        local_dir=tmp_path / "home",
        endpoint=sim.url,
        token=sim.exports["HF_TOKEN"],
        revision=pushed.oid,
    )
    for name in ("model.safetensors", "deep dir/é.txt"):
        assert (tmp_path / "home" / name).read_bytes() == (source / name).read_bytes()
    told = sim.state()["repos"]["alice/model"]
    weights = sha256((source / "model.safetensors").read_bytes()).hexdigest()
    assert (told["private"], told["files"]["model.safetensors"]) == (True, weights)
    assert str(tmp_path / "home") == home


def test_a_repository_that_is_not_there_or_not_ours_says_so(start):
    sim, api = start(rate=0.001, pace=1)
    with pytest.raises(RepositoryNotFoundError):
        api.auth_check("alice/none", write=True)
    with pytest.raises(HfHubHTTPError, match="403"):
        api.create_repo("somebody/model")
    api.create_repo("alice/model")
    api.auth_check("alice/model", write=True)
    sim.faults({"read_only_token": {"times": None}})
    with pytest.raises(HfHubHTTPError, match="403"):
        api.auth_check("alice/model", write=True)
