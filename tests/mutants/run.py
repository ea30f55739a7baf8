"""Seed known bugs one at a time and demand that a test catches each by an assertion.

    python tests/mutants/run.py [NAME …] [--list]

Each mutant is one exact replacement in one file (mutants.py, guards.py, machines.py). The tree is copied, the bug is put in, the
named tests run, two mutants at a time. A mutant is caught when a test fails with an AssertionError (or pytest's own `fail`), not with an import or type
error: those would say that the mutant is broken, not that the law is held.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING

import cells
import guards
import holders
import jobs
import keeping
import machines
import meter
import mutants
import pods
import pricetags
import stores

if TYPE_CHECKING:
    from mutant import Mutant

ROOT = Path(__file__).resolve().parents[2]
MUTANTS = (
    *mutants.MUTANTS,
    *machines.MUTANTS,
    *guards.MUTANTS,
    *keeping.MUTANTS,
    *holders.MUTANTS,
    *meter.MUTANTS,
    *jobs.MUTANTS,
    *pods.MUTANTS,
    *pricetags.MUTANTS,
    *cells.MUTANTS,
    *stores.MUTANTS,
)
PARTS = ("orchestrator", "providers", "payload", "simulators", "templates", "tests", "pyproject.toml")
ASSERTIONS = {"AssertionError", "Failed"}
AT_ONCE = 2
LIMIT_SECONDS = 300


def copy_tree(dest: Path) -> Path:
    """Copy what the tests need."""
    dest.mkdir()
    for part in PARTS:
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, dest / part, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
        else:
            shutil.copy2(source, dest / part)
    return dest


def judge(mutant: Mutant, tree: Path) -> str:
    """Put the bug in, run its tests, take it out; gives "" when caught, else what went wrong."""
    path = tree / mutant.file
    sound = path.read_text()
    if sound.count(mutant.old) != 1:
        return f"its line stands {sum(1 for _ in sound.split(mutant.old)) - 1} times in {mutant.file}"
    path.write_text(sound.replace(mutant.old, mutant.new))
    report = tree / "witness.json"
    report.unlink(missing_ok=True)
    try:
        return _run(mutant, tree, report)
    finally:
        path.write_text(sound)


def _run(mutant: Mutant, tree: Path, report: Path) -> str:
    argv = [sys.executable, "-B", "-m", "pytest", "-x", "-q", "--no-header", "-p", "witness", "-p", "no:cacheprovider"]
    argv += ["-p", "no:randomly"]  # the quick tests of a file stand before its slow ones
    env = {
        **os.environ,
        "PYTHONPATH": f"{tree}:{tree / 'tests' / 'mutants'}",
        "WITNESS": str(report),
        "OMP_NUM_THREADS": "1",
    }
    try:
        done = subprocess.run(
            [*argv, *mutant.tests],
            cwd=tree,
            env=env,
            capture_output=True,
            text=True,
            timeout=LIMIT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"no verdict in {LIMIT_SECONDS} s"
    if not report.exists():
        return f"the tests did not run: {(done.stdout + done.stderr).strip()[-400:]}"
    failures: list[str] = json.loads(report.read_text())
    if not failures:
        return "SURVIVED: no test failed"
    return "" if set(failures) <= ASSERTIONS else f"caught only by {failures}"


def main() -> int:
    """Judge all mutants, or the named ones."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*")
    parser.add_argument("--list", action="store_true")
    options = parser.parse_args()
    chosen = [mutant for mutant in MUTANTS if not options.names or mutant.name in options.names]
    if options.list:
        print("\n".join(f"{mutant.name:40s} {mutant.file}" for mutant in chosen))
        return 0
    with tempfile.TemporaryDirectory(prefix="gpurun-mutants-") as folder, ThreadPoolExecutor(AT_ONCE) as pool:
        trees: SimpleQueue[Path] = SimpleQueue()
        for number in range(AT_ONCE):
            trees.put(copy_tree(Path(folder) / str(number)))

        def told(mutant: Mutant) -> str:
            tree, began = trees.get(), time.monotonic()
            wrong = judge(mutant, tree)
            trees.put(tree)
            took = f"{time.monotonic() - began:6.1f} s"
            print(f"{'caught' if not wrong else 'ESCAPED':8s}{took}  {mutant.name}  {wrong}", flush=True)
            return wrong

        escaped = sum(map(bool, pool.map(told, chosen)))
    print(f"{len(chosen)} mutants, {len(chosen) - escaped} caught by an assertion, {escaped} escaped")
    return 1 if escaped else 0


if __name__ == "__main__":
    sys.exit(main())
