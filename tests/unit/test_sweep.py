"""What commands say of a damaged home, of what a guard could not prove gone, of a guard that died; and their codes."""

from __future__ import annotations

import time
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest
from fakes import START
from past import output
from scenes import Scene, mark

from orchestrator import bills, checks, guard_here, guard_pulse
from orchestrator.accounts import Whose
from orchestrator.guard_pulse import Pulse, Seen
from providers.base import Allocation
from providers.errors import CredentialsError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def scene(fast_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    """One account in which nothing bills, opened by the command line too."""
    made = Scene(fast_path)
    monkeypatch.setattr(guard_here, "vendors", lambda _home: made.providers)
    monkeypatch.setattr(guard_here, "_now", made.clock)
    monkeypatch.setenv("GPURUN_HOME", str(made.home.root))
    return made


def owes(scene: Scene, one: str) -> None:
    debt = {"id": one, "account": "acct-fake", "name": str(mark(-1)), "kind": "overdue", "told": 1.0, "unlisted": []}
    seen = {"fake": Seen("acct-fake", {}, unproven=[debt])}
    guard_pulse.write(scene.home, Pulse(START.timestamp(), "here", providers=seen))


def test_where_nothing_bills_a_sweep_says_so(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    assert output(capsys, "sweep")[:2] == (0, "nothing bills\n")
    scene.providers["fake"] = CredentialsError("no key")
    assert output(capsys, "sweep")[0] == 5


@pytest.mark.parametrize("name", ["ledger.sqlite", "guard.json"])
@pytest.mark.parametrize("damage", [b"", b"neither of them" * 100])
def test_a_damaged_home_is_said_and_is_no_success(
    scene: Scene, capsys: pytest.CaptureFixture[str], name: str, damage: bytes
) -> None:
    (scene.home.root / name).write_bytes(damage)
    for words in (["sweep"], ["sweep", "--json"]):
        code, out, _ = output(capsys, *words)
        assert code == 3
        assert "this home: " in out
        assert "CAN'T TELL" not in out
    scene.bills(mark(-1))
    assert output(capsys, "sweep", "--json")[0] == 5


def test_what_a_guard_did_not_prove_gone_is_not_gone_because_one_list_lacks_it(
    scene: Scene, capsys: pytest.CaptureFixture[str]
) -> None:
    owes(scene, "m-9")
    code, out, _ = output(capsys, "sweep")
    assert code == 5
    assert f"fake: NOT PROVEN GONE: {mark(-1)} (overdue), id m-9" in " ".join(out.split())
    assert "gpurun guard once" in out
    code, out, _ = output(capsys, "sweep", "--json")
    assert (code, '"m-9"' in out) == (5, True)


def test_what_a_guard_owes_and_the_list_shows_stands_there_once(
    scene: Scene, capsys: pytest.CaptureFixture[str]
) -> None:
    owes(scene, scene.bills(mark(-1)).id)
    code, out, _ = output(capsys, "sweep", "--json")
    assert (code, out.count('"overdue"')) == (5, 1)


def test_what_a_guard_did_not_prove_gone_keeps_every_look_at_5(
    scene: Scene, capsys: pytest.CaptureFixture[str]
) -> None:
    assert output(capsys, "ps")[0] == 0
    owes(scene, "m-9")
    code, _, err = output(capsys, "ps")
    assert (code, "1 NOT PROVEN GONE: gpurun guard once" in err) == (5, True)  # long ago, and nobody looks again
    assert output(capsys, "ps", "--json")[:2] == (5, "[]\n")
    assert output(capsys, "guard", "status")[0] == 5
    found = checks._guard(scene.home)
    assert (found.verdict, checks.exit_code([found])) == ("bad", 5)


def test_a_long_name_of_anothers_hides_no_verdict_at_80_columns(
    scene: Scene, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.bills(mark(-1))
    foreign, told = scene.bills(None), scene.cloud.allocations
    long = {foreign.id: "a-box-of-my-own" * 4 + "-end"}
    monkeypatch.setattr(
        scene.cloud, "allocations", lambda: [replace(one, name=long.get(one.id, one.name)) for one in told()]
    )
    _, out, _ = output(capsys, "sweep")
    late, box = [line for line in out.splitlines() if "  fake  " in line]
    assert ("  OVERDUE  " in late, "  also bil" in box) == (True, True)
    assert max(map(len, out.splitlines())) <= 80
    line = bills._line(Allocation("i", None, long[foreign.id], billing=True, price=Decimal(1)), Whose.FOREIGN, 0.0)
    assert "also billing here: not gpurun's" in " ".join(line.split())
    assert max(map(len, line.splitlines())) <= 80


def test_a_watch_that_died_is_not_well(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    seen = {"fake": Seen("acct-fake", {})}
    now = time.time()
    for age, code in ((40, 0), (7200, 5)):
        guard_pulse.write(scene.home, Pulse(now - age, "here", providers=seen, watched=True))
        left, out, _ = output(capsys, "guard", "status")
        assert left == code
        assert ("SILENT" in out) == ("CAN'T TELL: silent for 2 h; when it last looked: all well" in out) == bool(code)
