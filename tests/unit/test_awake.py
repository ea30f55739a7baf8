"""A run that only this computer keeps: said in the plan, on --detach and after a sleep; judged in Python and in SQL."""

from __future__ import annotations

import json
import sqlite3
from typing import TYPE_CHECKING

import pytest
from past import NOW, admit

from orchestrator import awake, glance, screens
from orchestrator.cli.common import tell_detached
from orchestrator.facts import Memory
from orchestrator.home import Home
from orchestrator.words import State

if TYPE_CHECKING:
    from pathlib import Path

RUN = "demo-261122-aaaaaa"


def placed(home: Path, provider: str, store: dict[str, str] | None) -> glance.Run:
    admit(home, RUN, Memory(state=State.RUNNING), price="0.11")
    with sqlite3.connect(home / "ledger.sqlite") as ledger:
        plan = json.loads(ledger.execute("SELECT plan FROM runs").fetchone()[0])
        plan = {**plan, "offer": {**plan["offer"], "provider": provider}, "store": store}
        ceiling = NOW + 86400
        ledger.execute("UPDATE runs SET provider = ?, plan = ?, ceiling = ?", (provider, json.dumps(plan), ceiling))
    ledger.close()
    [run] = glance.runs(Home(home), NOW + 21600)
    assert run.needs_us == awake.must_stay(plan)
    return run


@pytest.mark.parametrize(
    ("provider", "store", "needed"),
    [("colab", None, True), ("colab", {"url": "s3://bucket/prefix"}, False), ("runpod", None, False)],
)
def test_only_what_lies_at_colab_alone_needs_this_computer_awake(
    capsys: pytest.CaptureFixture[str],
    home: Path,
    provider: str,
    store: dict[str, str] | None,
    needed: bool,  # noqa: FBT001 (of a table)
) -> None:
    run = placed(home, provider, store)
    shown = " ".join(screens.runs_table([run], NOW + 21600, {}).split())
    assert "seen 6 h ago; up to $0.66" in shown
    assert ("Colab may have taken it meanwhile" in shown) == needed
    tell_detached(Home(home), run, as_json=False)
    assert ("must stay awake" in capsys.readouterr().err) == needed
