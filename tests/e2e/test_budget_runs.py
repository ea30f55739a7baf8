"""Money limits on the real stack, the vendor's clock hurried: a budget holds the meter, an extension moves the mark."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

import psutil
import pytest
from desk import Desk, simulated, wait_for

from orchestrator.render import rfc3339
from providers.base import Mark

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ENDLESS = ["--set", "epochs=1000000", "--set", "checkpoint_every_steps=500", "--set", "log_every_steps=50"]
A10 = ["--provider", "lambda", "--gpu", "a10", "-y", "--accept-risk"]


class Account(Desk):
    """A simulated account on which an A10 costs $3.00/h, and a person with a home."""

    def clock(self, **wish: object) -> None:
        self.tell("/clock", wish)

    def billed(self) -> Decimal:
        return Decimal(self.ask("/meter")["usd"])

    def trains(self) -> bool:
        return any(path.read_text().count('"step"') > 5 for path in self.home.glob("runs/*/metrics.jsonl"))

    def marks(self) -> list[Mark]:
        rows = self.ask("/meter")["allocations"]
        return [mark for row in rows if not row["ended"] and (mark := Mark.parse(row["name"])) is not None]


@pytest.fixture
def account(tmp_path: Path, home: Path) -> Iterator[Account]:
    with simulated("lambda", "--boot", "10", "--pace", "20") as told:
        found = Account(told["exports"], tmp_path, home, told["control"])
        found.clock(prices={"gpu_1x_a10": "3.00"})
        yield found


def test_a_dollar_at_three_dollars_an_hour_stays_a_dollar_and_brings_the_last_checkpoint_home(account: Account) -> None:
    launch = account.start("launch", "loop", *ENDLESS, "--max-hours", "10", "--max-cost", "1.00", *A10, "--json")
    wait_for(account.trains, "a training")
    account.clock(rate=60)
    wait_for(lambda: account.billed() > Decimal("0.50"), "half of the budget")
    account.clock(rate=10)
    code, out, err = launch.end(300)
    assert code == 4, err
    last = json.loads(out.splitlines()[-1])
    assert (last["reason"], last["state"]) == ("budget", "done")
    meter = account.billed()
    assert Decimal("0.50") < meter <= Decimal("1.00")
    shown = account.shown()
    assert Decimal(str(shown["accrued_low_usd"])) <= meter <= Decimal(str(shown["accrued_usd"]))
    folder = account.home / "runs" / last["run_id"]
    newest = max(int(path.parent.name.removeprefix("step-")) for path in folder.glob("checkpoints/*/CHECKPOINT.json"))
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert newest >= max(line["step"] for line in lines if "step" in line)


def test_an_extension_past_the_ceiling_moves_the_mark_even_when_its_controller_was_killed(account: Account) -> None:
    limits = ["--max-hours", "0.2", "--set", "max_idle_minutes=60"]
    code, _, err = account.gpurun("launch", "loop", *ENDLESS, *limits, *A10, "--detach")
    assert code == 0, err
    wait_for(account.trains, "a training")
    (before,) = account.marks()
    holder = wait_for(account.holder, "a controller")
    psutil.Process(holder).kill()
    until = rfc3339((before.ceiling + timedelta(hours=2)).timestamp())
    code, out, err = account.gpurun("extend", "--hours", "2", "-y", "--json")
    assert (code, json.loads(out)["granted"]) in {(0, True), (3, None)}, err  # a loaded computer answers later
    wait_for(lambda: account.shown()["ceiling"] == until, "the extension")
    (after,) = account.marks()
    assert rfc3339(after.ceiling.timestamp()) == until == account.shown()["deadline"]
    code, _, err = account.gpurun("extend", "--hours", "2", "--max-cost", "1")
    assert (code, "the budget is $1" in err) == (4, True), err
    assert account.gpurun("stop", "-y").code == 0


def test_a_probe_on_a_rented_machine_ends_at_once_what_the_budget_cant_hold(account: Account) -> None:
    code, out, err = account.gpurun(
        "launch", "loop", *ENDLESS, "--max-hours", "10", "--max-cost", "1.00", "--probe", *A10, "--json"
    )
    assert code == 4, err
    last = json.loads(out.splitlines()[-1])
    assert (last["reason"], last["state"]) == ("budget", "done")
    shown = account.shown()
    assert re.match(r"the probe: \d+ steps at .* for this machine; .*; saved and left at step", shown["detail"])
    assert (shown["probe"]["holds"], shown["probe"]["steps"] >= 20, shown["probe"]["usd"] > 0.5) == (False, True, True)
    assert account.billed() < Decimal("0.50")
    folder = account.home / "runs" / last["run_id"]
    assert list(folder.glob("checkpoints/*/CHECKPOINT.json"))
    assert ": stopped here\n" in (folder / "log.txt").read_text()
