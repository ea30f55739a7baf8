"""The simulated Hub is one: what a client may rely on there, it may rely on here, and its traps are the real ones."""

from __future__ import annotations

import json
import time
import uuid
from contextlib import ExitStack
from pathlib import Path

import pytest
import requests
from hf_ground import HfSim, hf_running

PATIENCE = 30.0


class Client:
    """Asks with the token, and nothing but HTTP."""

    def __init__(self, sim: HfSim) -> None:
        self.sim = sim

    def ask(self, method: str, path: str, body: object = None, **more):
        headers = {"Authorization": f"Bearer {self.sim.exports['HF_TOKEN']}", **more.pop("headers", {})}
        return requests.request(method, self.sim.url + path, json=body, headers=headers, timeout=30, **more)

    def submit(self, *command: str, **more) -> str:
        body = {
            "command": list(command),
            "dockerImage": "python:3.12",
            "flavor": "cpu-basic",
            "environment": {},
            **more,
        }
        reply = self.ask("POST", "/api/jobs/alice", body)
        assert reply.status_code == 200, reply.text
        return reply.json()["id"]

    def job(self, job_id: str) -> dict:
        return self.ask("GET", f"/api/jobs/alice/{job_id}").json()

    def ended(self, job_id: str) -> dict:
        until = time.monotonic() + PATIENCE
        while self.job(job_id)["status"]["stage"] in {"SCHEDULING", "RUNNING"}:
            assert time.monotonic() < until, "it never ends"
            time.sleep(0.02)
        return self.job(job_id)

    def log(self, job_id: str) -> list[str]:
        lines = self.ask("GET", f"/api/jobs/alice/{job_id}/logs").text.splitlines()
        return [json.loads(line.removeprefix("data: "))["data"] for line in lines if line.startswith("data: {")]


@pytest.fixture
def start():
    with ExitStack() as running:
        yield lambda **options: Client(running.enter_context(hf_running(**options)))


@pytest.fixture
def hub(start):
    return start(pace=200)


@pytest.fixture
def still(start):
    """A Hub whose clock stands nearly still."""
    return start(rate=0.001, pace=1, schedule_seconds=10)


def test_a_job_is_a_process_with_the_environment_and_the_secrets_that_it_was_given(hub):
    code = "import os; print(os.environ['A'], os.environ['S'], os.environ['JOB_ID'], os.environ['ACCELERATOR'])"
    job_id = hub.submit("python3", "-c", code, environment={"A": "1"}, secrets={"S": "hidden"})
    told = hub.ended(job_id)
    assert told["status"]["stage"] == "COMPLETED"
    assert hub.log(job_id)[1:] == [f"1 hidden {job_id} none"]
    assert (told["secrets"], "hidden" in json.dumps(told)) == (["S"], False)


def test_every_reading_of_a_log_begins_with_its_first_line(hub):
    job_id = hub.submit("python3", "-c", "print('a'); print('b')")
    hub.ended(job_id)
    first = hub.log(job_id)
    assert first[0].startswith("===== Job started")
    assert first[1:] == ["a", "b"]
    assert hub.log(job_id) == first


def test_a_silent_log_stays_silent_for_longer_than_the_vendor_s_command_waits(hub):
    job_id = hub.submit("sleep", "600")
    headers = {"Authorization": f"Bearer {hub.sim.exports['HF_TOKEN']}"}
    address = f"{hub.sim.url}/api/jobs/alice/{job_id}/logs"
    with (
        requests.get(address, headers=headers, stream=True, timeout=(30, 1)) as reply,
        pytest.raises(requests.ConnectionError, match="timed out"),  # a comment each 0.15 s would keep it for ever
    ):
        list(reply.iter_lines())
    hub.ask("POST", f"/api/jobs/alice/{job_id}/cancel")


def test_an_exit_code_stands_in_the_message(hub):
    told = hub.ended(hub.submit("python3", "-c", "raise SystemExit(3)"))
    assert told["status"] == {
        "stage": "ERROR",
        "message": "Job failed with exit code: 3. Reason: Error.",
        "exposeUrls": None,
        "sshUrl": None,
    }


def test_a_job_ends_at_its_limit_and_without_one_after_half_an_hour(still):
    limited, default = still.submit("sleep", "999", timeoutSeconds=60), still.submit("sleep", "999")
    still.sim.advance(10)
    still.sim.advance(61)
    assert still.job(limited)["status"]["message"] == "Job timeout"
    assert still.job(default)["status"]["stage"] == "RUNNING"
    still.sim.advance(1800)
    assert still.job(default)["status"]["message"] == "Job timeout"


def test_minutes_begun_are_billed_from_running_on_and_waiting_is_not(still):
    job_id = still.submit("sleep", "999", timeoutSeconds=3600)
    still.sim.advance(10)  # scheduled
    still.sim.advance(61)
    still.ask("POST", f"/api/jobs/alice/{job_id}/cancel")
    (row,) = still.sim.meter()["allocations"]
    assert (row["minutes"], row["ended_by"]) == (2, "canceled")
    assert still.ask("POST", f"/api/jobs/alice/{job_id}/cancel").status_code == 400


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"flavor": "h100"}, 400),
        ({"labels": {"a": "no spaces"}}, 400),
        ({"labels": {"a": "x" * 101}}, 400),
        ({"volumes": [{"type": "bucket", "source": "alice/none", "mountPath": "/x"}]}, 404),
    ],
)
def test_a_job_that_makes_no_sense_is_refused_and_not_made(still, change, status):
    body = {"command": ["true"], "dockerImage": "python:3.12", "flavor": "cpu-basic", "environment": {}, **change}
    assert still.ask("POST", "/api/jobs/alice", body).status_code == status
    assert still.sim.state()["jobs"] == []


def test_a_stranger_s_token_and_another_namespace_open_nothing(still):
    assert still.ask("GET", "/api/jobs/alice", headers={"Authorization": "Bearer hf_no"}).status_code == 401
    refused = still.ask("GET", "/api/jobs/somebody")
    assert (refused.status_code, bool(refused.headers["X-Error-Message"])) == (403, True)


def test_a_bucket_takes_and_gives_files_through_the_vendor_s_own_storage_library(still, tmp_path):
    from huggingface_hub import HfApi

    api = HfApi(endpoint=still.sim.url, token=still.sim.exports["HF_TOKEN"])
    for _ in range(2):  # there already: 409, with the url that the client reads
        assert api.create_bucket("alice/b", private=True, exist_ok=True).bucket_id == "alice/b"
    large = bytes(range(256)) * 2000
    api.batch_bucket_files("alice/b", add=[(large, "deep dir/large"), (b"", "empty")])
    listed = {one.path: one.size for one in api.list_bucket_tree("alice/b", recursive=True)}
    assert listed == {"deep dir/large": len(large), "empty": 0}
    api.download_bucket_files("alice/b", [(name, tmp_path / name) for name in listed])
    assert (tmp_path / "deep dir" / "large").read_bytes() == large
    part = still.ask("GET", "/buckets/alice/b/resolve/deep%20dir%2Flarge", headers={"Range": "bytes=256-511"})
    assert (part.status_code, part.content) == (206, bytes(range(256)))
    api.batch_bucket_files("alice/b", delete=list(listed))
    assert list(api.list_bucket_tree("alice/b", recursive=True)) == []


def test_a_bucket_is_mounted_at_its_path_and_shows_the_folder_that_was_named(hub):
    from huggingface_hub import HfApi

    api = HfApi(endpoint=hub.sim.url, token=hub.sim.exports["HF_TOKEN"])
    api.create_bucket("alice/b", private=True)
    api.batch_bucket_files("alice/b", add=[(b"in it", "runs/a/name"), (b"beside it", "name")])
    volume = {"type": "bucket", "source": "alice/b", "mountPath": "/hf-test-data", "path": "runs/a"}
    copy = "cp /hf-test-data/name /hf-test-data/copy"
    told = hub.ended(hub.submit("sh", "-c", copy, volumes=[volume]))
    assert told["status"]["stage"] == "COMPLETED"
    assert hub.ask("GET", "/buckets/alice/b/resolve/runs%2Fa%2Fcopy").content == b"in it"
    assert not Path("/hf-test-data").exists()


def test_what_a_job_started_dies_with_it_though_it_hid(hub):
    nap = f"77.{uuid.uuid4().int % 10**9}"  # known by it among all processes
    hide = f"import subprocess; subprocess.Popen(['sleep', '{nap}'], start_new_session=True); print('hid')"
    job_id = hub.submit("python3", "-c", hide)
    hub.ended(job_id)
    assert hub.log(job_id)[1:] == ["hid"]
    assert [line for line in _command_lines() if nap.encode() in line] == []


def _command_lines() -> list[bytes]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(path.read_bytes())
        except OSError:
            continue
    return found
