"""A store that refuses, is full, is slow, or lives by another clock: nothing whole is lost, and the reason is told."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import botocore.auth
import botocore.signers
import pytest
import requests
from folders import RUN, Folder, sha, until
from relay import Fault, Relay, answer

from orchestrator import store_s3
from orchestrator.store import Ability, open_store, parse
from orchestrator.store_remote import StoreRemote
from providers.errors import CredentialsError, ProviderError, UnreachableError

SURE = Ability(policies=True, checksums=True)
SLOTS = Ability(policies=False, checksums=True)
AT = f"under/here/runs/{RUN}/1/"


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path / "job")


def soon(hours: float = 1.0) -> datetime:
    return datetime.now(UTC) + timedelta(hours=hours)


def remote_of(bucket) -> StoreRemote:
    return StoreRemote(parse(bucket.address, bucket.endpoint), RUN, 1)


def trouble_of(process, words: str) -> dict:
    """Read what an uploader says until it says this."""

    def look():
        said = json.loads(process.stdout.readline())
        return said if words in said["error"] else None

    return until(look, words)


def brought_home(bucket, home) -> set[str]:
    """Bring all home that the store's seals name, each checked by its sha256."""
    remote = remote_of(bucket)
    manifest = remote.manifest()
    remote.fetch([entry.name for entry in manifest.entries], home)
    for entry in manifest.entries:
        assert sha((home / entry.name).read_bytes()) == entry.sha256
    return {entry.name for entry in manifest.entries}


# ── the machine's leave ─────────────────────────────────────────────────────────────────────────


def refuses(folder: Folder) -> bool:
    post = json.loads((folder.path / "store.json").read_text())["post"]
    data = {**post["fields"], "key": f"{AT}probe"}
    return requests.post(post["url"], data=data, files={"file": ("f", b"x")}, timeout=20).status_code == 403


@pytest.mark.parametrize("wrong", ["another key", "revoked key", "ended"])
def test_a_leave_that_the_store_refuses_is_told_and_a_fresh_one_is_taken_up_at_once(
    folder, bucket, tmp_path, monkeypatch, wrong: str
) -> None:
    with monkeypatch.context() as other:
        if wrong == "another key":
            other.setenv("AWS_SECRET_ACCESS_KEY", "another-secret-entirely-000000000")
        elif wrong == "revoked key":
            other.setenv("AWS_ACCESS_KEY_ID", "GPURUNREVOKED00001")
        folder.grant(open_store(parse(bucket.address, bucket.endpoint)), soon(-1 if wrong == "ended" else 1), SURE)
    until(lambda: refuses(folder), "a refusal")  # no leave is shorter than a second
    folder.checkpoint(3)
    with folder.uploader("upload.REFUSED = upload.MOST = 600.0") as process:
        said = trouble_of(process, "the store says 403")
        assert said["state"] == "busy"
        assert said["failing"] > 0
        folder.grant(open_store(parse(bucket.address, bucket.endpoint)), soon(), SURE)
        until(lambda: remote_of(bucket).newest_step() == 3, "the checkpoint")
        folder.result(reason="stopped")
        *_, last = [json.loads(line) for line in process.stdout]
    assert (last["state"], last["error"], last["failing"]) == ("whole", "", 0.0)
    assert {"checkpoints/step-3/state.pt", "result.json"} <= brought_home(bucket, tmp_path / "home")


@pytest.mark.parametrize("minutes", [-20, 20])
def test_the_clock_of_the_machine_does_not_matter(folder, store, bucket, minutes: int) -> None:
    folder.grant(store, soon(0.1), SURE)
    folder.result()
    patch = f"import time; right = time.time; time.time = lambda: right() + {60 * minutes}"
    assert folder.upload(patch)["state"] == "whole"
    assert remote_of(bucket).is_whole()


def test_a_full_bucket_is_told_and_all_gets_there_once_there_is_room(folder, bucket, tmp_path) -> None:
    full = True
    with Relay(bucket.endpoint) as relay:
        relay.spoil = lambda _number: Fault(answer=answer(507, "XMinioStorageFull")) if full else None
        folder.grant(open_store(parse(bucket.address, relay.endpoint)), soon(), SURE)
        folder.checkpoint(1, {"state.pt": bytes(3_000_000)})
        folder.result(reason="failed")
        with folder.uploader() as process:
            assert trouble_of(process, "507 XMinioStorageFull")["state"] == "busy"
            full = False
            *_, last = [json.loads(line) for line in process.stdout]
    assert last["state"] == "whole"
    assert "checkpoints/step-1/state.pt" in brought_home(bucket, tmp_path / "home")


def test_a_slow_line_delays_it_and_spoils_nothing(folder, bucket, tmp_path) -> None:
    with Relay(bucket.endpoint) as relay:
        relay.spoil = lambda _number: Fault(pause=0.02)
        folder.grant(open_store(parse(bucket.address, relay.endpoint)), soon(), SURE)
        folder.checkpoint(2)
        folder.result(reason="deadline")
        assert folder.upload()["state"] == "whole"
    assert "checkpoints/step-2/state.pt" in brought_home(bucket, tmp_path / "home")


# ── a store without policies ────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "fault",
    [Fault(answer=answer(501, "NotImplemented"), of=b"POST"), Fault(cut_up=1, of=b"POST")],
    ids=["it says so", "it hangs up"],
)
def test_a_store_that_takes_no_post_is_found_out_and_gets_everything_through_slots(
    folder, bucket, tmp_path, monkeypatch, fault: Fault
) -> None:
    monkeypatch.setattr(store_s3, "_PAUSES", (0.0, 0.0))
    with Relay(bucket.endpoint) as relay:
        relay.spoil = lambda _number: fault
        store = open_store(parse(bucket.address, relay.endpoint))
        ability = store.try_out()
        assert ability == SLOTS
        assert bucket.names() == []
        folder.grant(store, soon(), ability, part_bytes=20_000)
        folder.checkpoint(7)
        folder.result({"artifacts/a/model.bin": b"weights" * 9_000}, "stopped")
        assert folder.upload()["state"] == "whole"
    names = brought_home(bucket, tmp_path / "home")
    assert {"checkpoints/step-7/state.pt", "artifacts/a/model.bin", "log.txt"} <= names


def test_a_bad_moment_of_a_store_with_policies_does_not_cost_it_them(bucket) -> None:
    with Relay(bucket.endpoint) as relay:
        relay.spoil = lambda number: Fault(error=True, of=b"POST") if number == 0 else None
        assert open_store(parse(bucket.address, relay.endpoint)).try_out() == SURE


def test_a_checkpoint_of_too_many_files_is_told_while_all_else_gets_there(folder, store, bucket, tmp_path) -> None:
    few(folder, store, 8)
    folder.checkpoint(1, {f"{name}.pt": bytes([name]) * 100 for name in range(3)})
    with folder.uploader() as process:
        until(lambda: remote_of(bucket).newest_step() == 1, "the first checkpoint")
        folder.checkpoint(2, {f"{name}.pt": bytes([name + 100]) * 100 for name in range(30)})
        trouble_of(process, "checkpoint 2 is not there: no slot is left")
        folder.write("log.txt", b"hello\nand more\n")
        until(lambda: remote_of(bucket).logs(0).endswith(b"more\n"), "the log")
        folder.result({"artifacts/model.bin": b"weights"}, "stopped")
        until(lambda: remote_of(bucket).is_whole(), "the result")
        said = trouble_of(process, "checkpoint 2")
        process.kill()
        process.stdout.read()
    assert said["state"] == "busy"  # the machine has what nobody else has: it waits
    names = brought_home(bucket, tmp_path / "home")
    assert {"checkpoints/step-1/2.pt", "artifacts/model.bin"} <= names


def test_artifacts_take_the_slots_of_checkpoints_that_nobody_needs_any_more(folder, store, bucket, tmp_path) -> None:
    few(folder, store, 8)
    with folder.uploader() as process:
        for step in (1, 2):
            folder.checkpoint(step, {f"{step}-{name}.pt": bytes([step, name]) * 50 for name in range(2)})
            until(lambda step=step: remote_of(bucket).newest_step() == step, f"checkpoint {step}")
        folder.result({f"artifacts/{name}.bin": bytes([name]) * 30 for name in range(5)})
        *_, last = [json.loads(line) for line in process.stdout]
    assert last["state"] == "whole"
    assert {f"artifacts/{name}.bin" for name in range(5)} <= brought_home(bucket, tmp_path / "home")


def few(folder: Folder, store, count: int) -> None:
    """Give it leave for so few parts."""
    folder.grant(store, soon(), SLOTS)
    grant = json.loads((folder.path / "store.json").read_text())
    kept = {name: url for name, url in grant["put"].items() if not name.startswith("parts/") or int(name[6:]) < count}
    folder.write("store.json", json.dumps({**grant, "put": kept}).encode())


# ── before the launch ───────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("minutes", [-20, 20])
def test_a_clock_of_ours_that_is_off_is_told_as_that(bucket, monkeypatch, minutes: int) -> None:
    def now(*_args, **_more) -> datetime:
        return datetime.now(UTC) + timedelta(minutes=minutes)

    for module, name in ((botocore.auth, "get_current_datetime"), (botocore.signers, "get_current_datetime")):
        monkeypatch.setattr(module, name, lambda **_more: now().replace(tzinfo=None))
    monkeypatch.setattr(store_s3, "_now", now)
    store = open_store(parse(bucket.address, bucket.endpoint))
    words = f"clock is 20 min {'ahead of' if minutes > 0 else 'behind'}"
    with pytest.raises(CredentialsError, match=words) as told:
        store.try_out()
    assert "timedatectl" in told.value.hint
    with pytest.raises(CredentialsError, match=words):
        store.get("under/here/a")


@pytest.mark.parametrize(
    ("status", "code", "kind", "words"),
    [
        (507, "XMinioStorageFull", ProviderError, "it is full"),
        (400, "XMinioAdminBucketQuotaExceeded", ProviderError, "it is full"),
        (403, "AccessDenied", CredentialsError, "AccessDenied"),
        (405, "MethodNotAllowed", ProviderError, "405 MethodNotAllowed"),
    ],
)
def test_what_a_store_refuses_before_the_launch_is_told_with_the_way_out(
    bucket, status: int, code: str, kind: type[ProviderError], words: str
) -> None:
    with Relay(bucket.endpoint) as relay:
        relay.spoil = lambda _number: Fault(answer=answer(status, code))
        with pytest.raises(kind, match=words) as told:
            open_store(parse(bucket.address, relay.endpoint)).try_out()
    assert told.value.hint
    assert bucket.names() == []


def test_a_store_that_says_nothing_at_all_can_t_be_reached(bucket, monkeypatch) -> None:
    monkeypatch.setattr(store_s3, "_PAUSES", (0.0, 0.0))
    with pytest.raises(UnreachableError):
        open_store(parse(bucket.address, "http://127.0.0.1:9")).try_out()


def test_a_session_s_key_gives_a_leave_of_an_hour_that_is_renewed(bucket, monkeypatch) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "of-a-session")
    store = open_store(parse(bucket.address, bucket.endpoint))
    kept = Ability(policies=True, checksums=True, lasting=False)
    grant = json.loads(store.grant(RUN, 1, soon(100), kept).reveal())
    assert abs(grant["until"] - soon().timestamp()) < 60
    assert kept.life == timedelta(hours=1)
