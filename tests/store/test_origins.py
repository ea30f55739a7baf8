"""Never two machines for one run, whichever home launched them: who goes on with a run waits for another home's."""

from __future__ import annotations

import json
import tarfile
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from io import BytesIO
from typing import TYPE_CHECKING

import pytest
from fakes import OFFER, START, Clock, FakeCloud, Machine
from folders import RUN
from lambdas import open_lambda
from past import output
from worlds import World

from orchestrator import again, origins, run_file
from orchestrator.glance import store_troubles
from orchestrator.home import Home, read_json
from orchestrator.ledger import Ledger
from orchestrator.origins import Origin
from orchestrator.store import Ability, Store, as_json, parse
from orchestrator.store_s3 import S3Store
from orchestrator.words import State
from providers.base import Mark
from providers.errors import IntegrityError, ProviderError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from simulators_fixture import LambdaSim

    from orchestrator.records import RunRow

SURE = Ability(policies=True, checksums=True)
HOUR = timedelta(hours=1)
THEIRS = Origin("beef", "fake", "acct-fake", (START + HOUR).timestamp())
FACTS = {
    "run_id": RUN,
    "home": "beef",
    "template": "demo",
    "provider": "fake",
    "created": START.timestamp(),
    "deadline": THEIRS.ceiling,
    "ceiling": THEIRS.ceiling,
    "grace_seconds": 60,
    "max_cost": None,
    "job": {"command": ["x"], "blobs": [], "max_idle_seconds": 60, "secrets": [], "setup": [], "gpus": 1},
}


def machine_of(cloud: FakeCloud, home: str = "beef", run: str = RUN) -> Machine:
    made = Machine("m-theirs", Mark(home, run, 1, START + HOUR), OFFER.price, START - HOUR, 0.0)
    cloud.machines[made.id] = made
    return made


def word(cloud: FakeCloud, origin: Origin = THEIRS) -> origins.Word:
    return origins.ask(origin, RUN, cloud.clock(), lambda _name: cloud)


@pytest.fixture
def cloud() -> FakeCloud:
    return FakeCloud(Clock())


def test_another_home_s_machine_bills_as_long_as_its_vendor_lists_it(cloud: FakeCloud) -> None:
    machine_of(cloud, run="other-261122-abcdef")
    assert not word(cloud).may_bill
    machine = machine_of(cloud)
    said = word(cloud)
    assert (said.may_bill, said.ids) == (True, ("m-theirs",))
    assert "IT STILL BILLS as m-theirs" in said.text
    machine.ended = START
    assert not word(cloud).may_bill


@pytest.mark.parametrize("origin", [THEIRS, replace(THEIRS, account="acct-another")])
def test_what_can_not_be_asked_may_bill_until_its_ceiling(cloud: FakeCloud, origin: Origin) -> None:
    cloud.faults["allocations"].extend(["unreachable"] * 2)
    assert word(cloud, origin).may_bill
    cloud.clock.advance(3600 + 301)
    assert not word(cloud, origin).may_bill


def told(store: Store, **more: object) -> None:
    """Write run.json as another home would."""
    times = {"deadline": "2026-11-22T13:00:00+00:00", "ceiling": "2026-11-22T13:00:00+00:00"}
    plan = {
        "offer": {"provider": "fake", "name": "a10", "price": "1"},
        "store": as_json(store.address, SURE),
        "times": times,
        "account": "acct-fake",
    }
    plan |= {"launched": START.isoformat(), "holders": [], "quote": {"worst": "1.39"}}
    facts = {**FACTS, "plan": plan, **more}
    store.put(store.address.run(RUN, "run.json"), json.dumps(facts).encode())


def test_a_store_tells_who_launched_a_run_after_this_home_did(store: Store, row) -> None:
    mine = row(State.DONE)
    assert origins.of(mine, "cafe") == []
    told(store)
    assert origins.of(mine, "beef") == []
    assert origins.of(mine, "cafe") == [THEIRS]
    later = replace(THEIRS, ceiling=THEIRS.ceiling + 60)
    known = replace(mine, plan={**mine.plan, "origins": [asdict(later)]})
    assert origins.of(known, "cafe") == [later]


@pytest.fixture
def fast_world(tmp_path: Path, store: Store) -> World:
    return World(tmp_path, hours=0.02, plan={"store": as_json(store.address, SURE), "account": "acct-fake"})


def test_nothing_is_launched_beside_another_home_s_machine_which_is_left_alone(fast_world: World, store: Store) -> None:
    told(store)
    machine = machine_of(fast_world.cloud)
    fast_world.drive(until=lambda: (fast_world.clock() - START).total_seconds() > 4)
    assert (fast_world.memory.state, list(fast_world.cloud.machines)) == (State.PENDING, ["m-theirs"])
    assert machine.billing
    (words,) = store_troubles(fast_world.home, [fast_glance(fast_world)]).values()
    assert "another home's machine of it goes first: IT STILL BILLS" in words[0]
    machine.ended = fast_world.clock()
    fast_world.drive(until=lambda: len(fast_world.cloud.machines) > 1)
    assert fast_world.cloud.most_billing == 1
    assert (read_json(fast_world.home.run(RUN).status) or {})["launch_waits"] == ""


def fast_glance(world: World):
    from orchestrator.glance import find

    return find(world.home, RUN, world.clock().timestamp())


def test_a_refused_key_of_the_store_s_launches_nothing_and_the_limits_hold(
    fast_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another-secret-entirely-000000000")
    fast_world.drive()
    assert fast_world.cloud.machines == {}
    assert (fast_world.memory.state, fast_world.memory.reason) == (State.DONE, "deadline")


# ── adopt, and resume after it ──────────────────────────────────────────────────────────────────────────────────────


def left_behind(store: Store, name: str = RUN, **more: object) -> None:
    """Leave a whole run there that has no result yet."""
    told(store, **more)
    packed = BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as bundle:
        bundle.addfile(tarfile.TarInfo("config.json"))
    store.put(store.address.run(name, "bundle.tar.gz"), packed.getvalue())
    store.put(store.address.attempt(name, 1) + "log.txt", b"hello\n")


def adopt(capsys: pytest.CaptureFixture[str], store: Store, *words: str) -> tuple[int, str, str]:
    return output(capsys, "adopt", "--store", str(store.address), "--s3-endpoint", store.address.endpoint, *words)


def test_a_run_that_bills_elsewhere_is_adopted_with_5_and_waits_for_that_machine(
    store: Store, home: Path, lambda_sim: LambdaSim, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in lambda_sim.exports.items():
        monkeypatch.setenv(name, value)
    ends = datetime.now(UTC).replace(microsecond=0) + HOUR
    machine = lambda_sim.launched(name=str(Mark("beef", RUN, 1, ends)))
    left_behind(store, provider="lambda", ceiling=ends.timestamp())
    facts = json.loads(store.get(store.address.run(RUN, "run.json")))
    facts["plan"]["account"] = open_lambda(lambda_sim, home).account()
    told(store, **facts)

    code, out, err = adopt(capsys, store, "--json")
    assert code == 5
    assert [(one["run_id"], one["may_bill"], one["allocations"]) for one in json.loads(out)] == [(RUN, True, [machine])]
    assert f"IT STILL BILLS as {machine}" in err
    assert "gpurun sweep" in err
    shown = " ".join(output(capsys, "ps")[1].split())
    assert "another home's machine of it billed when it was adopted" in shown
    shown = " ".join(output(capsys, "show")[1].split())
    assert "cost at most $1.39 not known in this home" in shown
    code, _, err = output(capsys, "resume", RUN, "--provider", "local", "-y")
    assert code == 4
    assert f"IT STILL BILLS as {machine}" in err
    assert f"gpurun stop {RUN}" in err

    lambda_sim.terminate(machine)
    assert adopt(capsys, store, RUN)[0] == 0  # looked at again
    planned = again.prepare(Home(home), RUN, again.Wanted(provider="local"), datetime.now(UTC))
    assert planned.row.memory.attempt == 2
    assert planned.row.plan["origins"][0]["home"] == "beef"
    store.put(store.address.attempt(RUN, 1) + "result.json", b'{"reason": "completed", "exit_code": 0}')
    with pytest.raises(UsageError, match="completed in another home"):
        again.prepare(Home(home), RUN, again.Wanted(provider="local"), datetime.now(UTC))


def adopted(store: Store, home: Path, capsys: pytest.CaptureFixture[str], able: Ability) -> RunRow:
    """A run of a computer that is gone, known in this home; its store was seen to be `able` of this once."""
    left_behind(store, provider="local")
    facts = json.loads(store.get(store.address.run(RUN, "run.json")) or b"")
    facts["plan"] |= {"store": as_json(store.address, able), "checked": ["the key of then may write"]}
    told(store, **facts)
    assert adopt(capsys, store)[0] == 0
    ledger = Ledger(home / "ledger.sqlite")
    try:
        return ledger.run(RUN)
    finally:
        ledger.close()


def test_a_run_is_carried_on_only_where_its_store_serves_now(
    store: Store, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    row = adopted(store, home, capsys, Ability(policies=False, checksums=False))
    assert not row.plan["store"]["policies"]
    planned = again.prepare(Home(home), RUN, again.Wanted(provider="local"), datetime.now(UTC))
    assert planned.plan["store"] == as_json(store.address, SURE)  # as it was tried just now
    assert planned.plan["checked"] == []
    monkeypatch.setattr(S3Store, "size", lambda *_: 1)  # what was deleted stays
    with pytest.raises(ProviderError, match="does not delete"):
        again.prepare(Home(home), RUN, again.Wanted(provider="local"), datetime.now(UTC))


def test_what_a_machine_s_token_opens_is_told_when_a_run_is_carried_on(hub_bucket, row) -> None:
    kept = as_json(parse(hub_bucket.address), SURE)
    made = again._with_store(replace(row(State.DONE), plan={"store": kept}), "lambda")
    (words,) = made.plan["checked"]
    assert "HF_STORE_TOKEN writes, reads and deletes in alice/store" in words


@pytest.mark.parametrize("wrong", [{"home": "../x"}, {"plan": {}}, {"job": {}}])
def test_a_run_that_makes_no_sense_is_named_and_keeps_no_other_away(
    store: Store, home: Path, capsys: pytest.CaptureFixture[str], wrong: dict[str, object]
) -> None:
    left_behind(store, provider="local")
    other = "other-261122-abcdef"
    store.put(store.address.run(other, "run.json"), json.dumps({**FACTS, **wrong}).encode())
    code, _, err = adopt(capsys, store)
    assert code == 3
    assert f"{RUN} is here" in err
    assert f"{other} is left out: run.json of {other}" in err
    assert adopt(capsys, store, other)[0] == 3
    assert not (home / "runs" / other).exists()


PLANNED: dict[str, object] = {"offer": {}, "quote": {}, "store": {}, "times": {}, "launched": "now"}
KNOWN = {"home": "beef", "provider": "lambda", "account": "", "ceiling": 1e9}


@pytest.mark.parametrize(
    "wrong",
    [
        {"plan": {**PLANNED, "origins": [{"home": "beef"}]}},
        {"plan": {**PLANNED, "origins": [{**KNOWN, "ceiling": "soon"}]}},
        {"plan": {**PLANNED, "origins": [{**KNOWN, "ceiling": 1e300}]}},
        {"plan": {**PLANNED, "origins": {"x": 1}}},
        {"plan": PLANNED, "ceiling": 1e300},
    ],
)
def test_who_launched_a_run_is_held_to_its_shape(store: Store, wrong: dict[str, object]) -> None:
    key = store.address.run(RUN, "run.json")
    store.put(key, json.dumps({**FACTS, "plan": {**PLANNED, "origins": [KNOWN]}}).encode())
    assert [one.ceiling for one in origins.named_in(run_file.read(store, RUN))] == [THEIRS.ceiling, 1e9]
    store.put(key, json.dumps({**FACTS, **wrong}).encode())
    with pytest.raises(IntegrityError, match="makes no sense"):
        run_file.read(store, RUN)


@pytest.mark.parametrize("words", [["--hours", "3"], ["--provider", "lambda"]])
def test_options_for_an_instance_are_refused_beside_a_store(
    store: Store, home: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    assert adopt(capsys, store, *words)[0] == 2
    assert not home.exists()
