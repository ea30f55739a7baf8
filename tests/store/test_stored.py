"""What the controller concludes from a store: a silent one proves nothing, and the newest checkpoint comes home."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from decisions import GONE, in_state, saw
from folders import RUN, Folder, run_row

from orchestrator import pull, stored
from orchestrator.credentials import Redactor
from orchestrator.home import RunFolder
from orchestrator.reach import Reach
from orchestrator.store import Ability, open_store, parse
from orchestrator.words import Reason, State
from providers.base import Phase, RemoteStatus
from providers.errors import ProviderError
from providers.local.remote import LocalRemote

SURE = Ability(policies=True, checksums=True)


@pytest.fixture
def brought(bucket, tmp_path):
    """Have an attempt's files brought into the store."""

    def bring(attempt: int, *steps: int, result: str = "", **files: bytes) -> Folder:
        folder = Folder(tmp_path / f"attempt-{attempt}")
        store = open_store(parse(bucket.address, bucket.endpoint))
        grant = store.grant(RUN, attempt, datetime.now(UTC) + timedelta(hours=1), SURE)
        folder.write("store.json", grant.reveal().encode())
        for step in steps:
            folder.checkpoint(step)
        for name, content in files.items():
            folder.write(f"code/outputs/{name}", content)
        if result:
            folder.result(None if result == "completed" or steps else {}, reason=result)
        else:
            folder.write("watchdog.json", b'{"ended": "the agent is gone"}')
        assert folder.upload()["state"] == "whole"
        return folder

    return bring


def test_a_store_that_can_t_be_asked_leaves_a_machine_that_is_gone_undecided(row) -> None:
    said: list[str] = []
    seen = stored.look(row(endpoint="http://127.0.0.1:9"), GONE, said.append)
    assert (seen.observation, seen.stored) == (None, False)
    assert said
    ending = stored.look(row(State.TERMINATING, endpoint="http://127.0.0.1:9"), GONE, said.append)
    assert ending.observation == GONE.observation  # what bills is ended whatever the store says
    assert (seen.mute, ending.mute) == (False, True)


def test_a_result_in_the_store_speaks_for_a_machine_that_is_gone(row, brought) -> None:
    brought(1, result="completed")
    seen = stored.look(row(), GONE, pytest.fail)
    assert seen.stored
    assert seen.remote is not None
    assert (seen.remote.phase, seen.remote.reason) == (Phase.EXITED, "completed")


def test_a_machine_s_word_that_all_is_stored_is_checked_there(row, bucket, brought) -> None:
    says = saw(Phase.READY, RemoteStatus(Phase.EXITED, reason="completed", store="whole"))
    assert not stored.look(row(), says, pytest.fail).stored
    brought(1, result="completed")
    assert stored.look(row(), says, pytest.fail).stored
    model = next(name for name in bucket.names() if name.endswith("model.bin"))
    bucket.client().delete_object(Bucket=bucket.name, Key=model)
    assert not stored.look(row(), says, pytest.fail).stored


def test_a_run_without_a_store_asks_nobody() -> None:
    plain = replace(run_row(RUN), memory=in_state(State.RUNNING))
    assert stored.look(plain, GONE, pytest.fail) == GONE
    assert stored.grant(plain) is None
    assert not stored.bring_result(plain, RunFolder(None))


class Here:
    """A vendor whose machines are a folder."""

    def __init__(self, folder) -> None:
        self.remote = lambda *_: LocalRemote(folder)


def leave(until: datetime, **more) -> RemoteStatus:
    return RemoteStatus(Phase.RUNNING, store="busy", store_until=until, **more)


@pytest.mark.parametrize("hours", [2, 200, 700])
@pytest.mark.parametrize("lasting", [True, False])
def test_a_leave_never_ends_under_a_run_whose_controller_is_awake_more_often_than_half_its_life(
    row, hours: int, *, lasting: bool
) -> None:
    made, begun, renewed = row(), datetime.now(UTC), 0
    ability = replace(SURE, lasting=lasting)
    ceiling = begun + timedelta(hours=hours)
    kept = {**made.plan["store"], "lasting": lasting}
    made = replace(made, ceiling=ceiling.timestamp(), plan={**made.plan, "store": kept})
    now = begun
    until = min(ceiling + stored.SPARE, now + ability.life)
    while now < ceiling:
        now = min(now + ability.life / 3, ceiling)
        assert now < until
        if stored.is_leave_due(made, leave(until), now):
            until, renewed = min(ceiling + stored.SPARE, now + ability.life), renewed + 1
    assert bool(renewed) == (timedelta(hours=hours) > ability.life)


def test_an_extension_asks_for_a_longer_leave_at_once(row) -> None:
    now = datetime.now(UTC)
    made = replace(row(), ceiling=(now + timedelta(hours=2)).timestamp())
    until = now + timedelta(hours=2) + stored.SPARE
    assert not stored.is_leave_due(made, leave(until), now)
    assert stored.is_leave_due(replace(made, ceiling=(now + timedelta(hours=100)).timestamp()), leave(until), now)


def test_a_fresh_leave_goes_to_the_machine_and_not_again_at_once(row, tmp_path) -> None:
    made = replace(row(allocation_id="a"), ceiling=datetime.now(UTC).timestamp() + 7200)
    reach = Reach(Here(tmp_path), RunFolder(tmp_path / "run"), "abcd", Redactor(), lambda: False)
    said = leave(datetime.now(UTC) + timedelta(minutes=1))
    reach.renew_leave(made, said, datetime.now(UTC))
    sent = json.loads((tmp_path / "store.json").read_bytes())
    assert sent["until"] > datetime.now(UTC).timestamp() + 86_400
    assert not (tmp_path / "order.json").exists()
    (tmp_path / "store.json").unlink()
    reach.renew_leave(made, said, datetime.now(UTC))
    assert not (tmp_path / "store.json").exists()


def test_a_leave_that_is_refused_is_signed_anew_and_one_that_nobody_needs_is_not(row) -> None:
    now = datetime.now(UTC)
    made, until = replace(row(), ceiling=(now + timedelta(hours=2)).timestamp()), now + timedelta(hours=26)
    words = "the store says 403 InvalidAccessKeyId"
    assert stored.is_leave_due(made, leave(until, store_error=words, store_failing=now), now)
    assert not stored.is_leave_due(made, leave(until, store_error="the store says 500", store_failing=now), now)
    late = now + timedelta(days=9)
    assert not stored.is_leave_due(made, replace(leave(until), store="whole"), late)
    assert not stored.is_leave_due(replace(made, plan={}), leave(until), late)
    assert not stored.is_leave_due(replace(made, provider="hf"), leave(until), late)
    assert not stored.is_leave_due(made, RemoteStatus(Phase.RUNNING, store="busy"), late)


def test_the_newest_whole_checkpoint_of_all_attempts_comes_home_unless_home_has_a_newer_one(
    row, brought, tmp_path
) -> None:
    brought(1, 4, 8)
    brought(2, 12)
    folder = RunFolder(tmp_path / "home-run")
    folder.path.mkdir()
    third = row(State.PENDING, attempt=3)
    stored.bring_newest(third, folder)
    assert json.loads((folder.checkpoints / "step-12" / "CHECKPOINT.json").read_text())["step"] == 12
    brought_home = sorted(path.name for path in folder.checkpoints.iterdir())
    stored.bring_newest(third, folder)
    assert sorted(path.name for path in folder.checkpoints.iterdir()) == brought_home
    with pytest.raises(ProviderError):
        stored.bring_newest(row(State.PENDING, attempt=3, endpoint="http://127.0.0.1:9"), folder)


def test_the_last_attempt_there_is_told_whatever_the_ledger_knows(row, brought) -> None:
    assert stored.last_attempt(row(State.PENDING)) == 0
    brought(2, 4)
    assert stored.last_attempt(row(State.PENDING)) == 2
    assert stored.last_attempt(replace(row(State.PENDING), plan={})) == 0
    with pytest.raises(ProviderError):
        stored.last_attempt(row(State.PENDING, endpoint="http://127.0.0.1:9"))


def test_a_checkpoint_that_was_spoiled_in_the_store_is_passed_over_for_an_older_one(
    row, bucket, brought, tmp_path
) -> None:
    brought(1, 4)
    brought(2, 8)
    parts = [name for name in bucket.names() if "/2/parts/" in name]
    for name in parts:
        bucket.client().put_object(Bucket=bucket.name, Key=name, Body=b"?" * len(bucket.read(name)))
    folder = RunFolder(tmp_path / "home-run")
    folder.path.mkdir()
    stored.bring_newest(row(State.PENDING, attempt=3), folder)
    assert [path.parent.name for path in folder.checkpoints.glob("*/CHECKPOINT.json")] == ["step-4"]


def test_what_nobody_needs_any_more_is_tidied_and_a_result_never(row, bucket, brought) -> None:
    brought(1, 4)
    brought(2, 8, result="failed")
    stored.tidy(row(State.DONE, attempt=2, reason=Reason.FAILED))
    left = bucket.names()
    assert not [name for name in left if "/1/" in name]
    assert stored.remote(row(attempt=2)).newest_step() == 8
    stored.tidy(row(State.DONE, attempt=2, reason=Reason.COMPLETED))
    there = stored.remote(row(attempt=2))
    assert (there.newest_step(), there.is_whole()) == (-1, True)


def test_an_attempt_that_ended_with_nothing_takes_nothing_of_an_earlier_one_along(row, brought, tmp_path) -> None:
    brought(1, 500, model=b"half")
    brought(2, result="failed")
    over = row(State.DONE, attempt=2, reason=Reason.FAILED)
    stored.tidy(over)
    there = stored.remote(over, 1)
    assert (there.newest_step(), there.kinds()) == (500, {"left"})
    home = RunFolder(tmp_path / "home-run")
    home.path.mkdir()
    assert stored.bring_result(over, home)
    pulled = pull.pull(home, tmp_path / "out")
    assert (pulled.files, pulled.is_all) == (("outputs/model",), False)


def test_a_newer_checkpoint_makes_up_for_an_older_one_and_for_no_artifact(row, bucket, brought) -> None:
    brought(1, 2, result="deadline")
    brought(2, 3)
    stored.tidy(row(State.DONE, attempt=2, reason=Reason.LOST))
    first, second = (stored.remote(row(attempt=2), number) for number in (1, 2))
    assert (first.newest_step(), first.is_whole(), second.newest_step()) == (-1, True, 3)
    assert not [name for name in bucket.names() if "/1/parts/" in name]
    brought(3, result="completed")
    stored.tidy(row(State.DONE, attempt=3, reason=Reason.COMPLETED))
    assert not [name for name in bucket.names() if "/1/" in name or "/2/" in name]
