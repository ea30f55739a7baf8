"""The law of the store: that it holds in worlds with one, and that its judge sees each breach."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

import oracle_store
import pytest
from oracle import Claim, Fact, History, Holder, Told, judge
from player import play, retell
from story import draw

RUN = "demo-261122-000000"
CEILING = 9000
NAME = f"gpurun-0001-{RUN}-1-t0006y0"  # its ceiling, in base 36
WORLDS = [seed for seed in range(600_000, 600_200) if draw(seed).store is not None][:30]


@pytest.mark.parametrize("chunk", range(3))
def test_every_law_holds_in_drawn_worlds_with_a_store(chunk: int) -> None:
    for seed in WORLDS[chunk::3]:
        if play(seed).violations:
            pytest.fail("\n".join(retell(seed)), pytrace=False)


# Each tells of a bug that tests/mutants/keeping.py seeds.
@pytest.mark.parametrize("seed", [24, 42, 62, 157, 174, 325, 418, 1711, 2095])
def test_every_law_holds_in_a_world_that_told_of_a_bug(seed: int) -> None:
    if play(seed).violations:
        pytest.fail("\n".join(retell(seed)), pytrace=False)


def test_the_judge_knows_the_store_by_its_bytes_alone() -> None:
    for name in ("oracle.py", "oracle_store.py", "weather.py"):
        text = (Path(__file__).parent / name).read_text()
        assert not any(
            word in text for word in ("import orchestrator", "from orchestrator", "from payload", "providers")
        )


# ── what it sees ────────────────────────────────────────────────────────────────────────────────


class Writer:
    """Writes a store's log by hand."""

    def __init__(self) -> None:
        self.history = History(now=10_000.0)
        self.at = 0.0

    def put(self, name: str, content: bytes | None, attempt: int = 1) -> None:
        self.at += 10.0
        key = f"mine/runs/{RUN}/{attempt}/{name}"
        self.history.objects.append((self.at, len(self.history.objects), key, content))

    def checkpoint(self, step: int, attempt: int = 1) -> None:
        content = f"s-{attempt} after {step}".encode()
        self.put(f"parts/{step:04d}", content, attempt)
        fact = file(f"checkpoints/step-{step}/model.bin", f"parts/{step:04d}", content)
        self.put("CHECKPOINT.json", json.dumps({"checkpoints": [{"step": step, "files": [fact]}]}).encode(), attempt)

    def result(self, reason: str = "completed") -> None:
        artifact = b"a.bin of s-1"
        listed = [{"name": "artifacts/a.bin", "sha256": sha256(artifact).hexdigest()}]
        result = json.dumps({"reason": reason, "step": 90, "artifacts": listed}).encode()
        self.put("artifacts/a.bin", artifact)
        facts = [file("artifacts/a.bin", "artifacts/a.bin", artifact), file("result.json", "result.json", result)]
        self.put("files.json", json.dumps({"files": facts}).encode())
        self.put("result.json", result)

    def breaches(self) -> list[str]:
        return [words for words in judge(self.history).violations if words.startswith("(7)")]


def file(name: str, key: str, content: bytes) -> dict[str, object]:
    return {
        "name": name,
        "size": len(content),
        "sha256": sha256(content).hexdigest(),
        "parts": [[key, len(content), ""]],
    }


@pytest.fixture
def store() -> Writer:
    return Writer()


def rented(made: float, ended: float | None, number: int = 1) -> Fact:
    name = NAME.replace("-1-t", f"-{number}-t")
    return Fact(f"s-{number}", name, "acct-a", made, made, ended, 1.2, 1, number)


def test_whole_states_one_after_another_break_nothing(store: Writer) -> None:
    store.checkpoint(30)
    store.checkpoint(60)
    store.put("parts/0030", None)
    store.result()
    store.put("CHECKPOINT.json", None)
    store.put("parts/0060", None)
    store.history.things.append(rented(0, store.at + 20))
    assert store.breaches() == []


def test_a_part_that_a_seal_names_is_neither_missed_nor_written_over(store: Writer) -> None:
    store.checkpoint(30)
    store.put("parts/0030", b"s-1 after 60")
    store.put("parts/0030", None)
    assert [words.partition(": ")[2][:60] for words in store.breaches()[:2]] == [
        "the seal of attempt 1 names checkpoints/step-30/model.bin, w"
    ] * 2


@pytest.mark.parametrize("attempt", [1, 2])
def test_a_newer_whole_state_never_gives_way_to_an_older_one(store: Writer, attempt: int) -> None:
    store.checkpoint(60)
    store.checkpoint(30, attempt)
    store.put("CHECKPOINT.json", None)
    assert any("had (False, 60) of it" in words for words in store.breaches())


def test_a_completed_result_stays_and_nothing_is_rented_after_it(store: Writer) -> None:
    store.result()
    store.history.things += [rented(0, store.at), rented(store.at + 5, store.at + 50, 2)]
    assert ["s-2 was rented" in words for words in store.breaches()] == [True]
    store.put("artifacts/a.bin", None)
    assert any("had (True, 90) of it, and has (False, -1) left" in words for words in store.breaches())


@pytest.mark.parametrize(("stays", "sealed", "waits"), [(100, True, False), (130, True, True), (130, False, False)])
def test_a_machine_that_has_all_there_and_can_end_itself_waits_for_nobody(
    store: Writer, *, stays: int, sealed: bool, waits: bool
) -> None:
    store.result()
    store.history.things.append(rented(0, store.at + stays))
    store.history.holders.append(Holder("watchdog", "acct-a", ((0.0, 10_000.0),), id="s-1"))
    store.history.sealed += [(store.at, "s-1")] * sealed
    assert ["waited" in words for words in store.breaches()] == [True] * waits


def test_weather_in_which_its_order_is_not_heard_excuses_a_machine(store: Writer) -> None:
    store.result()
    store.history.things.append(rented(0, store.at + 200))
    store.history.holders.append(Holder("watchdog", "acct-a", ((0.0, 10_000.0),), id="s-1"))
    store.history.sealed.append((store.at, "s-1"))
    store.history.down.append((store.at + 20, store.at + 150))
    assert store.breaches() == []


@pytest.mark.parametrize(("failures", "excused"), [(1, False), (2, True)])
def test_a_result_is_left_in_a_store_only_that_failed_again_and_again(
    store: Writer, *, failures: int, excused: bool
) -> None:
    store.result()
    store.history.claims.append(Claim(store.at + 100, "0001", "acct-a", RUN))
    store.history.silent += [(store.at + 50 + one, "0001") for one in range(failures)]
    told = Told("0001", RUN, "done", "completed", 0, 0, False, 1, 1.2, (), (), Path(), True, True)  # noqa: FBT003
    assert oracle_store.was_tried(store.history, told) is excused
    store.put("artifacts/a.bin", None)
    assert not oracle_store.was_tried(History(claims=store.history.claims, silent=store.history.silent), told)
