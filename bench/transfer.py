"""How quick files move over SSH: as ratios to `scp` and `rsync` against the same sshd, and what a cut link costs.

    python bench/transfer.py [--rounds N] [--mib M] [--cuts C]   # 5, 1024, 10; writes bench/results/local/transfer.json

A private sshd on loopback, files in memory where they fit; all methods take turns within a round, and a first round
that is not counted touches the memory: fresh pages of a virtual machine cost ten times as much. Medians count. Wall
time includes connecting, for ours without the interpreter's start; CPU is the client's alone, and steadier on a busy
computer. What arrives is compared with what was sent, outside the time that is taken.
Goals: 1 GiB <= 1.15 x scp (CPU <= 1.35 x), 2,000 small files <= 1.3 x rsync, 1 GiB <= 4.5 x 256 MiB, a cut <= 4 MiB.
"""

from __future__ import annotations

import argparse
import filecmp
import json
import os
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from sshd import Proxy, Sshd  # noqa: E402 - found by the line above

from providers.base import Entry  # noqa: E402
from providers.ssh.bulk import pull, push  # noqa: E402
from providers.ssh.link import Link, Patience  # noqa: E402
from providers.ssh.trees import pull_tree, push_tree  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable

RESULTS = Path(__file__).parent / "results" / "local" / "transfer.json"
FILES, FILE_BYTES = 2000, 4096
MIB = 2**20
QUICK = Patience(wait_seconds=0.05)
# what is measured: (ours, theirs, greatest ratio of wall, greatest ratio of CPU or None)
GOALS = {
    "pull": ("pull", "scp pull", 1.15, 1.35),
    "push": ("push", "scp push", 1.15, 1.35),
    "pull of small files": ("tree pull", "rsync pull", 1.3, None),
    "push of small files": ("tree push", "rsync push", 1.3, None),
    "whole to a quarter": ("pull", "pull of a quarter", 4.5, None),
    "whole to a quarter, push": ("push", "push of a quarter", 4.5, None),
}


class Ground:
    """A machine, and what lies on both sides of it."""

    def __init__(self, folder: Path, sshd: Sshd, mib: int) -> None:
        self.sshd, self.out = sshd, folder / "out"
        self.config = sshd.folder / "config"
        self.large, self.quarter, self.tree = folder / "large", folder / "quarter", folder / "tree"
        block = random.Random(0).randbytes(MIB)
        for path, count in ((self.large, mib), (self.quarter, mib // 4)):
            with path.open("wb") as file:
                for number in range(count):
                    file.write(number.to_bytes(8, "big") + block[8:])
        for number in range(FILES):
            path = self.tree / f"{number % 20}" / f"{number}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(random.Random(number).randbytes(FILE_BYTES))
        self.files = {str(path.relative_to(self.tree)): path for path in self.tree.rglob("*") if path.is_file()}
        self.entries = [Entry(name, path.stat().st_size, digest(path)) for name, path in self.files.items()]
        self.sums = {path: digest(path) for path in (self.large, self.quarter)}

    def methods(self) -> dict[str, tuple[Callable[[], None], Path]]:
        """Name what takes turns, each with what must have arrived."""
        scp = ["scp", "-q", "-c", "aes128-gcm@openssh.com", "-F", str(self.config)]
        rsync = ["rsync", "-a", "-e", f"ssh -F '{self.config}'"]
        large, tree, out = str(self.large), f"{self.tree}/", str(self.out)
        return {
            "pull": (lambda: self.pull(self.large), self.large),
            "scp pull": (lambda: call(*scp, f"gpurun:{large}", out), self.large),
            "push": (lambda: self.push(self.large), self.large),
            "scp push": (lambda: call(*scp, large, f"gpurun:{out}"), self.large),
            "pull of a quarter": (lambda: self.pull(self.quarter), self.quarter),
            "push of a quarter": (lambda: self.push(self.quarter), self.quarter),
            "tree pull": (lambda: self.with_link(self.pull_tree), self.tree),
            "rsync pull": (lambda: call(*rsync, f"gpurun:{tree}", out), self.tree),
            "tree push": (lambda: self.with_link(lambda link: push_tree(link, self.files, out)), self.tree),
            "rsync push": (lambda: call(*rsync, tree, f"gpurun:{out}"), self.tree),
        }

    def with_link(self, work: Callable[[Link], None], port: int = 0) -> None:
        """Connect, work, let go."""
        link = Link(self.sshd.target(port), QUICK)
        work(link)
        link.close()

    def pull(self, path: Path, port: int = 0) -> None:
        """Bring one large file."""
        size = path.stat().st_size
        self.with_link(lambda link: pull(link, str(path), self.out, size, self.sums[path]), port)

    def push(self, path: Path) -> None:
        """Send one large file."""
        self.with_link(lambda link: push(link, path, str(self.out), self.sums[path]))

    def pull_tree(self, link: Link) -> None:
        """Bring all small files."""
        pull_tree(link, str(self.tree), self.entries, self.out)

    def check(self, source: Path) -> None:
        """Compare what arrived with what was sent, and take it away."""
        if source.is_dir():
            _, differ, lost = filecmp.cmpfiles(source, self.out, list(self.files), shallow=False)
            same = not differ and not lost
            shutil.rmtree(self.out)
        else:
            same = filecmp.cmp(source, self.out, shallow=False)
            self.out.unlink()
        if not same:
            sys.exit(f"what arrived of {source.name} is not what was sent")


def digest(path: Path) -> str:
    with path.open("rb") as file:
        found = sha256()
        while block := file.read(MIB):
            found.update(block)
    return found.hexdigest()


def call(*argv: str) -> None:
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL)


def cpu() -> float:
    """Seconds of ours and of children that have ended; the sshd, a child that lives, is not among them."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def race(ground: Ground, rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Let all take turns, in another order each round; give (wall, CPU) seconds."""
    methods = ground.methods()
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in methods}
    for number in range(rounds + 1):
        order = list(methods)
        random.Random(number).shuffle(order)
        for name in order:
            work, source = methods[name]
            begun, used = time.perf_counter(), cpu()
            work()
            took = time.perf_counter() - begun, cpu() - used
            ground.check(source)
            if number:
                times[name].append(took)
    return times


def cut(ground: Ground, count: int) -> dict[str, float]:
    """Cut the link so many times during one pull; give what it cost."""
    size = ground.large.stat().st_size
    with Proxy(ground.sshd.port) as proxy:
        proxy.cuts = [size * number // (count + 1) for number in range(1, count + 1)]
        begun = time.perf_counter()
        ground.pull(ground.large, proxy.port)
        seconds = time.perf_counter() - begun
        connections, moved = proxy.connections, proxy.moved
    ground.check(ground.large)
    return {
        "cuts": connections - 1,
        "seconds": round(seconds, 2),
        "mib_moved_beyond_the_file": round((moved - size) / MIB, 2),
        "mib_a_cut": round((moved - size) / MIB / max(1, connections - 1), 2),
    }


def judge(medians: dict[str, list[float]]) -> dict[str, dict[str, float | bool | None]]:
    verdicts: dict[str, dict[str, float | bool | None]] = {}
    for name, (ours, theirs, most_wall, most_cpu) in GOALS.items():
        wall, used = (medians[ours][each] / medians[theirs][each] for each in range(2))
        met = wall <= most_wall and (most_cpu is None or used <= most_cpu)
        verdicts[name] = {"wall": wall, "goal": most_wall, "cpu": used, "cpu_goal": most_cpu, "met": met}
    return verdicts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--cuts", type=int, default=10)
    options = parser.parse_args()
    room = shutil.disk_usage("/dev/shm").free if Path("/dev/shm").exists() else 0  # noqa: S108
    parent = "/dev/shm" if room > 4 * options.mib * MIB else None  # noqa: S108
    with tempfile.TemporaryDirectory(dir=parent) as folder, Sshd(Path(folder) / "machine") as sshd:
        ground = Ground(Path(folder), sshd, options.mib)
        ground.with_link(lambda link: link.connect())  # leaves the configuration for scp and rsync
        times = race(ground, options.rounds)
        cost = cut(ground, options.cuts)
    medians = {
        name: [statistics.median(column) for column in zip(*taken, strict=True)] for name, taken in times.items()
    }
    verdicts = judge(medians)
    print(f"{'method':<20}{'wall s':>9}{'best':>9}{'CPU s':>9}")
    for name, (wall, used) in medians.items():
        print(f"{name:<20}{wall:>9.2f}{min(taken[0] for taken in times[name]):>9.2f}{used:>9.2f}")
    print(f"\n{'ratio':<26}{'wall':>7}{'goal':>7}{'CPU':>7}{'goal':>7}")
    for name, found in verdicts.items():
        goals = f"{found['wall']:>7.2f}{found['goal']:>7}{found['cpu']:>7.2f}{found['cpu_goal'] or '':>7}"
        print(f"{name:<26}{goals}  {'met' if found['met'] else 'MISSED'}")
    print(f"\n{cost['cuts']} cuts during a pull: equal by sha256, {cost['mib_a_cut']} MiB a cut moved twice (goal: 4)")
    report = {
        "rounds": options.rounds, "mib": options.mib, "cpus": os.cpu_count(), "load": os.getloadavg()[0],
        "seconds_wall_and_cpu": medians, "ratios": verdicts, "cut": cost,
    }  # fmt: skip
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
