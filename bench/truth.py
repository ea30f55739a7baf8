"""What runs paid against what they were quoted: the shipped plan and life cycle in simulated time.

    python bench/truth.py [--runs 200] [--from SEED] [--rows]

Boot, link and speed of each run are drawn (tests/truths.py). First each in a home of its own, all modelled; then one
work over and over in one home, which learns from what it measured. Goals: the worst case exceeded in 0 %; paid between
low and likely x 1.5 in at least 90 %. Writes bench/results/local/truth.json; exits 1 where a goal is missed.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from truths import Outcome, Study  # noqa: E402 (found by the line above)

RESULT = ROOT / "bench" / "results" / "local" / "truth.json"
GOAL = 0.90
FAST = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108 (a ledger waits for the disk)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--from", dest="first", type=int, default=0)
    parser.add_argument("--rows", action="store_true", help="print every run")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    seeds = range(options.first, options.first + options.runs)
    told = {}
    for name, learns in (("modelled", False), ("measured", True)):
        began = time.monotonic()
        with tempfile.TemporaryDirectory(dir=FAST) as folder:
            study = Study(Path(folder), learns=learns)
            found = [study.run(seed) for seed in seeds]
        if options.rows:
            print("\n".join(map(str, found)))
        told[name] = summary(found)
        print(f"{name:9} {told[name]['words']}; {time.monotonic() - began:.0f} s")
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    return int(any(one["exceeded"] or one["inside"] < GOAL for one in told.values()))


def summary(found: list[Outcome]) -> dict[str, object]:
    exceeded = sum(one.exceeded for one in found) / len(found)
    inside = sum(one.inside for one in found) / len(found)
    below = sum(one.paid < one.low for one in found)
    ratio = median(float(one.paid / one.likely) for one in found)
    ends = ", ".join(f"{reason} {count}" for reason, count in Counter(one.reason for one in found).most_common())
    words = (
        f"{len(found)} runs ({ends}): worst case exceeded in {exceeded:.1%}, paid inside low..likely x 1.5 in"
        f" {inside:.1%} ({below} below), paid / likely {ratio:.2f} in the middle"
    )
    return {"exceeded": exceeded, "inside": inside, "median_ratio": ratio, "runs": len(found), "words": words}


if __name__ == "__main__":
    sys.exit(main())
