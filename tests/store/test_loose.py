"""A user's own script seals nothing: what it leaves is in the store once it rests, and at its end in any case."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime, timedelta

import pytest
from folders import RUN, Folder, sha, until

from orchestrator import pull, stored
from orchestrator.home import RunFolder
from orchestrator.store import Ability, parse
from orchestrator.store_remote import StoreRemote
from orchestrator.words import Reason, State

SURE = Ability(policies=True, checksums=True)
SLOTS = Ability(policies=False, checksums=True)
AT = f"under/here/runs/{RUN}/1/"
QUICK = "import loose; loose.RESTS = 0.3"


@pytest.fixture
def folder(tmp_path, store):
    made = Folder(tmp_path / "job")
    made.grant(store, datetime.now(UTC) + timedelta(hours=1), SURE)
    return made


def remote_of(bucket) -> StoreRemote:
    return StoreRemote(parse(bucket.address, bucket.endpoint), RUN, 1)


def named(bucket) -> dict[str, str]:
    return {entry.name: entry.sha256 for entry in remote_of(bucket).manifest().entries}


def test_what_a_script_leaves_is_there_as_it_arises_and_a_lost_machine_takes_none_of_it_along(
    folder, bucket, tmp_path, row
) -> None:
    folder.write("code/outputs/checkpoint-5/model.bin", b"five" * 1000)
    folder.write("code/artifacts/card.md", b"# card")
    (folder.path / "code/outputs/link").symlink_to("/etc/passwd")
    with folder.uploader(QUICK) as process:
        until(lambda: len(named(bucket)) == 2, "both files")
        folder.write("code/outputs/checkpoint-9/model.bin", b"nine" * 1000)
        shutil.rmtree(folder.path / "code/outputs/checkpoint-5")
        until(lambda: "artifacts/outputs/checkpoint-9/model.bin" in named(bucket), "the next one")
        until(lambda: "artifacts/outputs/checkpoint-5/model.bin" not in named(bucket), "the end of the first")
        process.kill()
        process.stdout.read()
    home = RunFolder(tmp_path / "home-run")
    home.path.mkdir()
    assert not stored.bring_result(row(State.DONE, reason=Reason.LOST), home)
    pulled = pull.pull(home, tmp_path / "out")
    assert not pulled.is_all
    assert (tmp_path / "out/outputs/checkpoint-9/model.bin").read_bytes() == b"nine" * 1000
    assert set(pulled.files) == {"card.md", "outputs/checkpoint-9/model.bin"}


def test_a_file_that_still_grows_waits_and_one_that_changes_is_named_by_its_new_bytes(folder, bucket) -> None:
    place = folder.path / "code/outputs/events.log"
    folder.write("code/outputs/still.txt", b"still")
    folder.write("code/outputs/events.log", b"0")
    with folder.uploader("import loose; loose.RESTS = 1.5") as process:
        for _ in range(20):
            with place.open("ab") as file:
                file.write(b"more\n")
            until(lambda: True, "nothing")
        until(lambda: "artifacts/outputs/events.log" in named(bucket), "the log, at rest")
        before = place.read_bytes()
        assert named(bucket)["artifacts/outputs/events.log"] == sha(before)
        place.write_bytes(before + b"again\n")
        until(lambda: named(bucket)["artifacts/outputs/events.log"] == sha(before + b"again\n"), "its new bytes")
        process.kill()
        process.stdout.read()
    remote_of(bucket).fetch(list(named(bucket)), folder.path / "back")


def test_at_the_end_nothing_is_sent_twice_and_the_result_takes_over(folder, bucket, row) -> None:
    content = {"artifacts/outputs/model.bin": b"weights" * 50_000, "artifacts/outputs/late.txt": b"late"}
    folder.write("code/outputs/model.bin", content["artifacts/outputs/model.bin"])
    with folder.uploader(QUICK) as process:
        until(lambda: "artifacts/outputs/model.bin" in named(bucket), "the model")
        folder.write("code/outputs/late.txt", b"late")
        (folder.path / "artifacts").mkdir()
        (folder.path / "code/outputs").rename(
            folder.path / "artifacts/outputs"
        )  # as the agent does, and then it hashes
        until(lambda: "artifacts/outputs/late.txt" in named(bucket), "the last file")
        folder.result(content)
        *_, last = [json.loads(line) for line in process.stdout]
    assert last["state"] == "whole"
    assert last["sent"] < 1.5 * len(content["artifacts/outputs/model.bin"])
    assert {name: sha(made) for name, made in content.items()}.items() <= named(bucket).items()
    assert bucket.read(f"{AT}artifacts/outputs/model.bin") == content["artifacts/outputs/model.bin"]
    stored.tidy(row(State.DONE, reason=Reason.COMPLETED))
    assert f"{AT}SOFAR.json" not in bucket.names()
    assert remote_of(bucket).is_whole()


DEAD = b'{"ended": "the agent is gone"}'


@pytest.mark.parametrize("ability", [SURE, SLOTS], ids=["policy", "slots"])
def test_an_agent_that_died_leaves_its_files_to_the_store_a_script_s_and_any_training_s(
    folder, store, bucket, ability
) -> None:
    folder.grant(store, datetime.now(UTC) + timedelta(hours=1), ability)
    folder.write("code/artifacts/half.bin", b"half" * 100)
    folder.write("artifacts/adapter.bin", b"adapter")
    folder.write("summary.json", b'{"device": "cpu"}')
    folder.write("watchdog.json", DEAD)
    assert folder.upload()["state"] == "whole"
    assert named(bucket) == {"artifacts/half.bin": sha(b"half" * 100), "artifacts/adapter.bin": sha(b"adapter")}
    assert bucket.read(f"{AT}summary.json") == b'{"device": "cpu"}'


def words_of(folder, patch: str = "") -> dict:
    """Let an uploader work until it is in trouble; gives what it says."""
    with folder.uploader(patch) as process:
        said = until(lambda: (one := json.loads(process.stdout.readline()))["error"] and one, "its trouble")
        process.kill()
        process.stdout.read()
    return said


@pytest.mark.parametrize("names", [("parts/0000", "parts/0001"), ("parts/0000", "SOFAR.json")])
def test_files_that_find_no_slot_are_told_and_the_machine_s_results_never_called_whole(
    folder, store, bucket, names
) -> None:
    folder.grant(store, datetime.now(UTC) + timedelta(hours=1), SLOTS)
    grant = json.loads((folder.path / "store.json").read_text())
    lack = {name for name in grant["put"] if name.startswith("parts/") or name == "SOFAR.json"} - set(names)
    kept = {name: url for name, url in grant["put"].items() if name not in lack}
    folder.write("store.json", json.dumps({**grant, "put": kept}).encode())
    for number in range(3):
        folder.write(f"code/outputs/{number}.bin", bytes([number]) * 100)
    folder.write("watchdog.json", DEAD)
    said = words_of(folder)
    assert (said["state"], "no slot" in said["error"]) == ("busy", True)
    assert len(named(bucket)) == ("SOFAR.json" in names)
    assert not [name for name in bucket.names() if "/parts/" in name and b'"files"' in bucket.read(name)]


@pytest.mark.parametrize(
    ("patch", "words"),
    [
        ("loose.MOST = 2", "1 files beyond 2 are not there"),
        ("loose.stamp_of = lambda _, count=iter(range(10**9)): (next(count), 0, 0)", "or is written to"),
    ],
)
def test_what_is_passed_over_at_the_end_is_told_and_the_rest_never_called_whole(folder, patch, words) -> None:
    for number in range(3):
        folder.write(f"code/outputs/{number}.bin", bytes([number]) * 100)
    folder.write("watchdog.json", DEAD)
    said = words_of(folder, f"import loose; {patch}")
    assert said["state"] == "busy"
    assert words in said["error"]
