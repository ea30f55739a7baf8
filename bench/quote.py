"""How long quoting takes: one offer, and `gpurun compare` over a catalogue of 10,000. CPU seconds of the whole command.

    python bench/quote.py [--offers 10000]

The command is the shipped one in a process of its own, its catalogue swapped for one of so many rows made of the
bundled ones. Goals: compare under 0.6 s of CPU in all; an offer within 20 microseconds. Writes
bench/results/local/quote.json; exits 1 where a goal is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from decimal import Decimal
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

RESULT = ROOT / "bench" / "results" / "local" / "quote.json"
GOALS = {"compare": 0.6, "offer": 20e-6}
ASKED = ("--model", "Qwen2.5-7B", "--method", "qlora", "--rows", "12000")
_COMPARE = """
import sys
from dataclasses import replace
from decimal import Decimal
from orchestrator.estimate import catalogue
rows = catalogue.listed()
many = [
    replace(rows[number % len(rows)], name=f"offer-{number}", price=Decimal(number % 900 + 10) / 100)
    for number in range(int(sys.argv[1]))
]
catalogue.listed = lambda: tuple(many)
made = __import__("time").process_time()
from orchestrator.cli import run
code = run(["compare", *sys.argv[2:]])
print(f"made {made}", file=sys.stderr)
sys.exit(code)
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--offers", type=int, default=10_000)
    options = parser.parse_args()
    table, as_json = (best(options.offers, *more) for more in ((), ("--json",)))
    offer = an_offer()
    print(f"compare over {options.offers} offers, as a table   {table:.3f} s of CPU, goal {GOALS['compare']} s")
    print(f"compare over {options.offers} offers, as JSON      {as_json:.3f} s of CPU")
    print(f"one offer of a known kind              {offer * 1e6:.1f} us, goal {GOALS['offer'] * 1e6:.0f} us")
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    found = {"offers": options.offers, "compare_seconds": table, "json_seconds": as_json, "offer_seconds": offer}
    RESULT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return int(table > GOALS["compare"] or offer > GOALS["offer"])


def best(count: int, *more: str) -> float:
    """CPU seconds of the command, start-up included and the making of the rows left out: the least of five."""
    return min(compare(count, *more) for _ in range(5))


def compare(count: int, *more: str) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with tempfile.TemporaryDirectory() as home:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("LAMBDA", "HF_", "RUNPOD"))}
        done = subprocess.run(
            [sys.executable, "-c", _COMPARE, str(count), *ASKED, *more],
            check=True, capture_output=True, text=True, cwd=ROOT, env={**kept, "GPURUN_HOME": home},
        )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if len(done.stdout.splitlines()) < count / 2:
        sys.exit(f"not all offers were quoted: {done.stdout[-500:]}")
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return spent - float(done.stderr.rpartition("made ")[2]) + STARTED


def an_offer() -> float:
    """CPU seconds that one more offer of a known kind takes."""
    from orchestrator.estimate import gpus, models
    from orchestrator.estimate.quote import Rental, estimate
    from orchestrator.estimate.work import Amount, Loss, Work

    work = Work(models.find("Qwen/Qwen2.5-7B"), method="lora", bits=4, loss=Loss.LINEAR, checkpointing=True)
    amount, card = Amount(12_000, 6_000_000), gpus.card("4090")
    rentals = [Rental("lambda", Decimal(cents) / 100, 60) for cents in range(1, 5001)]
    spent = []
    for _ in range(5):
        began = time.process_time()
        for rental in rentals:
            estimate(work, card, 1, amount).price(rental)
        spent.append((time.process_time() - began) / len(rentals))
    return min(spent)


def started() -> float:
    """CPU seconds of a bare interpreter: the command's own share of what the making of the rows took."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", ""], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


STARTED = started()


if __name__ == "__main__":
    sys.exit(main())
