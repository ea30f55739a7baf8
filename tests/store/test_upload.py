"""The uploader on a real S3 server: what is whole gets there, in an order in which a reader finds only whole states."""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime, timedelta

import pytest
from folders import RUN, Folder, sha, until
from relay import Fault, Relay

from orchestrator.store import Ability, open_store, parse
from orchestrator.store_remote import StoreRemote
from providers.base import Phase

SURE = Ability(policies=True, checksums=True)
SLOTS = Ability(policies=False, checksums=True)
AT = f"under/here/runs/{RUN}/1/"


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path / "job")


def soon():
    return datetime.now(UTC) + timedelta(hours=1)


def remote_of(bucket) -> StoreRemote:
    return StoreRemote(parse(bucket.address, bucket.endpoint), RUN, 1)


@pytest.mark.parametrize("ability", [SURE, SLOTS], ids=["policy", "slots"])
def test_everything_of_a_finished_run_can_be_brought_home_from_there(folder, store, bucket, tmp_path, ability) -> None:
    folder.grant(store, soon(), ability, part_bytes=20_000)
    for step in (4, 8, 12):
        folder.checkpoint(step)
    model = bytes(range(256)) * 300
    folder.result({"artifacts/model.bin": model, "artifacts/naïve name;.txt": b"x", "artifacts/none": b""}, "stopped")
    assert folder.upload()["state"] == "whole"
    remote = remote_of(bucket)
    assert remote.is_whole()
    assert remote.newest_step() == 12
    status, manifest = remote.status(), remote.manifest()
    assert (status.phase, status.reason, manifest.final) == (Phase.EXITED, "stopped", True)
    names = {entry.name for entry in manifest.entries}
    assert {
        "artifacts/model.bin",
        "artifacts/naïve name;.txt",
        "artifacts/none",
        "result.json",
        "summary.json",
    } <= names
    remote.fetch(sorted(names), tmp_path / "home")
    for entry in manifest.entries:
        assert sha((tmp_path / "home" / entry.name).read_bytes()) == entry.sha256
    assert (tmp_path / "home/artifacts/model.bin").read_bytes() == model
    assert remote.logs(2) == b"llo\n"


def test_an_artifact_lies_under_its_own_name_where_it_can(folder, store, bucket) -> None:
    folder.grant(store, soon(), SURE)
    folder.result({"artifacts/adapter/model.safetensors": b"weights"})
    assert folder.upload()["state"] == "whole"
    assert bucket.read(f"{AT}artifacts/adapter/model.safetensors") == b"weights"
    assert json.loads(bucket.read(f"{AT}result.json"))["reason"] == "completed"


def test_two_checkpoints_are_kept_there_and_their_room_is_used_again(folder, store, bucket) -> None:
    folder.grant(store, soon(), SURE)
    with folder.uploader() as process:
        remote = remote_of(bucket)
        for step in range(1, 8):
            folder.checkpoint(step, {"state.pt": str(step).encode() * 100})
            until(lambda step=step: remote.newest_step() == step, f"checkpoint {step}")
        parts = [key for key in bucket.names() if "/parts/" in key]
        folder.result()
        assert process.wait(60) == 0
        process.stdout.read()
    assert len(parts) <= 6  # two files each: two kept, one on its way
    seal = json.loads(bucket.read(f"{AT}CHECKPOINT.json"))
    assert [one["step"] for one in seal["checkpoints"]] == [7, 6]


def test_the_same_bytes_are_sent_once(folder, store, bucket) -> None:
    folder.grant(store, soon(), SURE)
    same = b"the same weights" * 1000
    folder.checkpoint(1, {"a": same, "b": b"1"})
    folder.result({"artifacts/model": same}, "failed")
    said = folder.upload()
    assert said["state"] == "whole"
    assert said["sent"] < 2 * len(same)
    assert remote_of(bucket).is_whole()


def test_a_completed_run_brings_its_artifacts_and_no_checkpoint_before_them(folder, store, bucket) -> None:
    folder.grant(store, soon(), SURE)
    folder.checkpoint(1)
    folder.result()
    assert folder.upload()["state"] == "whole"
    assert f"{AT}CHECKPOINT.json" not in bucket.names()


def test_a_file_that_is_not_what_its_seal_names_is_never_named_there(folder, store, bucket) -> None:
    folder.grant(store, soon(), SURE)
    folder.checkpoint(1, {"state": b"good"})
    folder.checkpoint(2, {"state": b"good"})
    (folder.path / "checkpoints/step-2/state").write_bytes(b"evil")
    folder.result({}, "failed")
    assert folder.upload()["state"] == "whole"
    assert remote_of(bucket).newest_step() == 1


def test_a_job_that_ended_without_a_result_brings_its_checkpoint_and_log(folder, store, bucket) -> None:
    folder.grant(store, soon(), SURE)
    folder.checkpoint(3)
    folder.write("watchdog.json", b'{"ended": "the agent is gone"}')
    assert folder.upload()["state"] == "whole"
    remote = remote_of(bucket)
    assert remote.newest_step() == 3
    assert remote.status().reason == ""
    assert not remote.is_whole()
    assert remote.logs(0) == b"hello\n"


def test_what_the_store_can_t_vouch_for_is_not_called_verified(folder, store) -> None:
    folder.grant(store, soon(), Ability(policies=True, checksums=False))
    folder.result()
    assert folder.upload()["state"] == "sent"


def test_a_store_with_too_few_slots_is_told_and_never_called_whole(folder, store) -> None:
    folder.grant(store, soon(), SLOTS)
    grant = json.loads((folder.path / "store.json").read_text())
    kept = {name: url for name, url in grant["put"].items() if not name.startswith("parts/")}
    folder.write("store.json", json.dumps({**grant, "put": kept}).encode())
    folder.result()
    with folder.uploader() as process:
        said = until(lambda: (one := json.loads(process.stdout.readline()))["error"] and one, "its trouble")
        process.kill()
        process.stdout.read()
    assert "no slot is left" in said["error"]
    assert said["state"] == "busy"


def test_one_that_nobody_hears_any_more_leaves(folder, store) -> None:
    folder.grant(store, soon(), SURE)
    with folder.uploader() as process:
        process.stdout.close()
        assert process.wait(60) == 0


def test_errors_of_the_server_delay_it_and_lose_nothing(folder, bucket, tmp_path) -> None:
    with Relay(bucket.endpoint) as relay:
        relay.spoil = lambda number: Fault(error=True) if number % 3 else None
        folder.grant(open_store(parse(bucket.address, relay.endpoint)), soon(), SURE)
        folder.checkpoint(5)
        folder.result(reason="failed")
        assert folder.upload()["state"] == "whole"
    remote = remote_of(bucket)
    assert remote.is_whole()
    remote.fetch([entry.name for entry in remote.manifest().entries], tmp_path / "home")


def test_whatever_the_seal_names_is_whole_through_fifty_cuts_and_five_kills(folder, bucket, tmp_path) -> None:
    rng, cuts, steps = random.Random(8), 0, 0

    def spoil(_number: int) -> Fault | None:
        nonlocal cuts
        cuts += 1
        sort = rng.randrange(4)
        return (None, Fault(cut_up=rng.randrange(60_000)), Fault(cut_down=rng.randrange(200)), Fault(error=True))[sort]

    with Relay(bucket.endpoint) as relay:
        relay.spoil = spoil
        folder.grant(open_store(parse(bucket.address, relay.endpoint)), soon(), SURE, part_bytes=30_000)
        remote = remote_of(bucket)
        for _ in range(6):
            steps += 1
            folder.checkpoint(steps)
            with folder.uploader() as process:
                before = cuts
                until(lambda before=before: cuts >= before + 8, "connections")
                process.kill()
                process.stdout.read()
            if remote.newest_step() >= 0:
                remote.fetch([entry.name for entry in remote.manifest().entries], tmp_path / f"home-{steps}")
        assert cuts >= 48
        relay.spoil = lambda number: Fault(cut_up=40_000) if number % 5 == 0 else None
        folder.result(reason="deadline")
        assert folder.upload()["state"] == "whole"
    assert remote.newest_step() == steps
    assert remote.is_whole()
    remote.fetch([entry.name for entry in remote.manifest().entries], tmp_path / "home")
