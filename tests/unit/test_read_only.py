"""A home that can't be written: what only looks works there, and leaves it as it is."""

from __future__ import annotations

import os
import sqlite3
from typing import TYPE_CHECKING

import pytest
from ledgers import two_months
from past import output

from orchestrator.database import read_only

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("written_now", [False, True])
def test_where_nothing_can_be_written_the_ledger_is_read_and_left_as_it_is(
    tmp_path: Path, *, written_now: bool
) -> None:
    path, ledger = tmp_path / "ledger.sqlite", two_months(tmp_path).ledger
    if not written_now:
        ledger.close()
    before = sorted(one.name for one in tmp_path.iterdir())
    reader = read_only(path)
    assert reader.execute("SELECT count(*) FROM runs").fetchone() == (4,)
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        reader.execute("DELETE FROM runs")
    reader.close()
    assert sorted(one.name for one in tmp_path.iterdir()) == before
    if written_now:
        ledger.close()


def test_commands_that_only_look_work_in_a_home_that_can_not_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "home"
    two_months(home).ledger.close()
    before = (home / "ledger.sqlite").read_bytes()
    monkeypatch.setenv("GPURUN_HOME", str(home))
    monkeypatch.setattr(os, "access", lambda *_: False)  # these tests run as root too, whom no mode keeps out
    for command in (["ps"], ["show", "over"], ["receipt", "over"], ["costs"]):
        code, out, err = output(capsys, *command)
        assert "over-261031-aaaaaa" in out, err
        assert code in {0, 5}, err  # 5: the run under way there is long past its ceiling
    code, _, err = output(capsys, "stop", "going", "-y", "--detach")
    assert (code != 0, "must be yours to write" in err) == (True, True)
    assert (home / "ledger.sqlite").read_bytes() == before
