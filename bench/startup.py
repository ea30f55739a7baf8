"""How quick `gpurun --help` and `gpurun ps` are: as ratios to a bare click script and to `hf --help`.

    python bench/startup.py [rounds]      # 20 by default; prints a table, writes bench/results/local/startup.json

All commands take turns within a round, so that a busy moment hits each alike; the medians are compared. Wall time and
CPU time (user + system of the child) are both told: on a busy computer only the second is steady.
Goals: at most 1.5 x the bare script and 0.5 x `hf --help`.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

from orchestrator.facts import Memory
from orchestrator.home import Home
from orchestrator.ledger import Ledger
from orchestrator.records import RunRow
from orchestrator.words import Reason, State

BARE = '''import click

@click.group()
def cli():
    """A group with one command."""

@cli.command()
def hello():
    """Say hello."""

cli()
'''
RESULTS = Path(__file__).parent / "results" / "local" / "startup.json"
GOALS = {"bare": 1.5, "hf": 0.5}


def commands(folder: Path) -> dict[str, list[str]]:
    """Name the argv of each contestant; all run on this interpreter."""
    bare = folder / "bare.py"
    bare.write_text(BARE)
    scripts = Path(sys.executable).parent
    return {
        "bare": [sys.executable, str(bare), "--help"],
        "hf": [str(scripts / "hf"), "--help"],
        "gpurun --help": [str(scripts / "gpurun"), "--help"],
        "gpurun ps": [str(scripts / "gpurun"), "ps"],
    }


def fill(home: Path) -> None:
    """Give `ps` something to list: twelve runs that are over."""
    ledger = Ledger(Home(home).ensure().ledger)
    now = datetime.now(UTC)
    over = Memory(state=State.DONE, reason=Reason.COMPLETED, step=125, evidence="not listed")
    for number in range(12):
        row = RunRow(
            run_id=f"demo-261122-{number:06x}", template="demo", provider="local", created=now.timestamp(),
            deadline=now.timestamp(), ceiling=now.timestamp(), grace_seconds=60, max_attempts=3, max_cost=None,
            worst=Decimal(0), plan={}, memory=over, seen=None, ended=None, lease_holder=None, lease_epoch=0,
            lease_until=None, spells=(),
        )  # fmt: skip
        ledger.admit(row, now)
    ledger.close()


def measure(argv: list[str], env: dict[str, str]) -> tuple[float, float]:
    """Run once with its output thrown away; give (wall, CPU) seconds."""
    begun = time.perf_counter()
    with Path(os.devnull).open("wb") as sink:
        actions = [(os.POSIX_SPAWN_DUP2, sink.fileno(), 1), (os.POSIX_SPAWN_DUP2, sink.fileno(), 2)]
        pid = os.posix_spawn(argv[0], argv, env, file_actions=actions)
        _, status, usage = os.wait4(pid, 0)
    wall = time.perf_counter() - begun
    if status:
        sys.exit(
            f"{' '.join(argv)} ended with {os.waitstatus_to_exitcode(status)}; is gpurun installed beside this Python?"
        )
    return wall, usage.ru_utime + usage.ru_stime


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    with tempfile.TemporaryDirectory() as folder:
        env = {**os.environ, "GPURUN_HOME": str(Path(folder) / "home"), "HF_HUB_OFFLINE": "1"}
        contestants = commands(Path(folder))
        fill(Path(folder) / "home")
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in contestants}
        for number in range(rounds + 1):  # the first round warms the caches and is not counted
            for name, argv in contestants.items():
                took = measure(argv, env)
                if number:
                    times[name].append(took)
    medians = {
        name: [statistics.median(column) for column in zip(*taken, strict=True)] for name, taken in times.items()
    }
    report = {"rounds": rounds, "python": sys.version.split()[0], "cpus": os.cpu_count(), "commands": {}}
    print(f"{'command':<16}{'wall ms':>9}{'CPU ms':>9}{'x bare':>9}{'(CPU)':>8}{'x hf':>8}{'(CPU)':>8}")
    for name, (wall, cpu) in medians.items():
        ratios = {other: [wall / medians[other][0], cpu / medians[other][1]] for other in GOALS}
        report["commands"][name] = {"wall_ms": 1e3 * wall, "cpu_ms": 1e3 * cpu, "wall_and_cpu_ratio_to": ratios}
        figures = "".join(
            f"{ratios[other][0]:>{9 - column}.2f}{ratios[other][1]:>8.2f}" for column, other in enumerate(GOALS)
        )
        print(f"{name:<16}{1e3 * wall:>9.1f}{1e3 * cpu:>9.1f}{figures}")
    print(
        f"goals: at most {GOALS['bare']} x bare and {GOALS['hf']} x hf, for both gpurun commands; medians of {rounds}"
    )
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
