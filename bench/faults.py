"""The deterministic fault simulation: the shipped controller, guard and ledger in worlds where everything goes wrong.

    python bench/faults.py SEEDS [--from N] [--jobs 2] [--story]

Each seed is a world of its own (tests/props/story.py draws it, world.py plays it, oracle.py and oracle_store.py judge
it). Prints schedules a second, the worst overrun, false kills, work lost a crash and how often each fault occurred;
exits 1 with the stories of all that broke a law. `--story` tells worlds again, line by line, and judges nothing else.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "props")]

from player import Outcome, play, retell  # noqa: E402 (found by the line above)

if TYPE_CHECKING:
    from collections.abc import Iterable

RESULTS = Path(__file__).parent / "results" / "local" / "faults.json"
CHUNK = 20
_SHOWN = 5  # stories told in full


def many(seeds: range) -> list[Outcome]:
    logging.disable(logging.CRITICAL)
    return [play(seed) for seed in seeds]


def gather(first: int, count: int, jobs: int) -> list[Outcome]:
    chunks = [range(at, min(at + CHUNK, first + count)) for at in range(first, first + count, CHUNK)]
    outcomes: list[Outcome] = []
    if jobs == 1:
        _hear(map(many, chunks), outcomes)
        return outcomes
    with ProcessPoolExecutor(jobs) as pool:
        _hear(pool.map(many, chunks), outcomes)
    return outcomes


def _hear(chunks: Iterable[list[Outcome]], outcomes: list[Outcome]) -> None:
    """Gather what comes and tell breaches at once; Ctrl-C leaves what was played until then."""
    with contextlib.suppress(KeyboardInterrupt):
        for found in chunks:
            outcomes += found
            for one in found:
                for words in one.violations:
                    print(f"seed {one.seed}: {words}", flush=True)


def summary(outcomes: list[Outcome], seconds: float) -> dict[str, object]:
    counts: Counter[str] = Counter()
    for one in outcomes:
        counts.update(one.counts)
    lost = [minutes for one in outcomes for minutes in one.lost_minutes]
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "schedules": len(outcomes),
        "seconds": round(seconds, 1),
        "schedules_a_second": round(len(outcomes) / seconds, 1),
        "violations": sum(bool(one.violations) for one in outcomes),
        "false_kills": sum(one.false_kills for one in outcomes),
        "worst_overrun_seconds": round(max(one.worst_overrun for one in outcomes), 1),
        "longest_past_ceiling_in_any_weather_seconds": round(max(one.longest_past for one in outcomes), 1),
        "minutes_lost_a_crash": {
            "crashes": len(lost), "median": round(median(lost), 2), "worst": round(max(lost), 2),
        } if lost else {},
        "reasons": dict(Counter(reason for one in outcomes for reason in one.reasons).most_common()),
        "faults": dict(counts.most_common()),
    }  # fmt: skip


def show(values: dict[str, object]) -> None:
    for name, value in values.items():
        if isinstance(value, dict):
            print(f"{name.replace('_', ' ')}:")
            for key, number in value.items():
                print(f"    {key:<42}{number}")
        else:
            print(f"{name.replace('_', ' '):<46}{value}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("seeds", type=int)
    parser.add_argument("--from", dest="first", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--story", action="store_true", help="tell each world line by line")
    options = parser.parse_args()
    if options.story:
        for seed in range(options.first, options.first + options.seeds):
            print("\n".join(retell(seed)))
        return 0
    started = time.monotonic()
    outcomes = gather(options.first, options.seeds, options.jobs)
    values = summary(outcomes, time.monotonic() - started)
    show(values)
    broken = [one for one in outcomes if one.violations]
    for one in broken[:_SHOWN]:
        print("\n" + "\n".join(retell(one.seed)))
    for one in broken:
        print(f"broken: {one.violations[0]}\n    python bench/faults.py 1 --from {one.seed} --story")
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(values | {"broken": [one.seed for one in broken]}, indent=1) + "\n")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
