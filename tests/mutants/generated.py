"""Let mutmut change each line of the pure cores, and demand a test or a written reason for each change.

    python tests/mutants/generated.py [FILE …] [--tests TEST …]

The seeded mutants (run.py) are bugs that somebody thought of; these are all that a machine can think of. The tree is
copied, mutmut runs the quick tests of each file against every mutant, one at a time. One that no test notices must
stand in survivors.txt with its reason; an entry there that a test notices by now is told too, so that the list stays
true. mutmut is no development dependency: it brings a screen toolkit along, and nobody needs it to work here. It is
installed when this first runs. One that never ends is told like a survivor: it may be the computer that was slow.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from run import PARTS, ROOT, copy_tree

MUTMUT = "mutmut==3.8.1"
JUDGED = Path(__file__).with_name("survivors.txt")
TESTS = {
    "orchestrator/lifecycle.py": (
        "tests/unit/test_decide.py",
        "tests/unit/test_decide_ends.py",
        "tests/unit/test_decide_strays.py",
    ),
    "orchestrator/guard.py": ("tests/unit/test_guard_judge.py", "tests/unit/test_guard_rounds.py"),
}
SECONDS = 4.0  # times mutmut's own 15: a busy computer must not pass for a mutant that never ends


@dataclass(frozen=True)
class Change:
    """What a mutant changed: it keeps its name when lines move or mutants are numbered anew."""

    function: str  # "orchestrator.guard Post._waits"
    old: str
    new: str

    def __str__(self) -> str:
        """Spell it as survivors.txt does."""
        return f"{self.function}\n  - {self.old}\n  + {self.new}"


def read_judged(text: str) -> dict[Change, str]:
    """Read blocks of four lines: function, old, new, reason; `#` begins a comment."""
    kept = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    judged = {}
    for block in filter(None, re.split(r"\n\s*\n", kept.strip())):
        function, old, new, reason = block.splitlines()
        judged[Change(function.strip(), old.strip()[2:], new.strip()[2:])] = reason.strip()
    return judged


def configuration(files: list[str], tests: list[str]) -> str:
    """Write mutmut's setup.cfg."""

    def listed(values: list[str]) -> str:
        return "".join(f"\n    {value}" for value in values)

    folders = [part for part in PARTS if "." not in part and part not in {"orchestrator", "tests"}]
    return (
        f"[mutmut]\nsource_paths = orchestrator\nonly_mutate ={listed(files)}\nalso_copy ={listed(folders)}\n"
        f"pytest_add_cli_args ={listed(['-p', 'no:cacheprovider'])}\n"
        f"pytest_add_cli_args_test_selection ={listed(tests)}\n"
        f"timeout_constant = {SECONDS}\nuse_setproctitle = False\nuse_git_change_detection = False\n"
    )


def mutmut(tree: Path, *args: str) -> str:
    """Run mutmut in the tree; gives what it printed."""
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    argv = [sys.executable, "-m", "mutmut", *args]
    done = subprocess.run(argv, cwd=tree, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"mutmut {args[0]} failed: {(done.stdout + done.stderr)[-2000:]}")
    return done.stdout


def verdicts(tree: Path) -> dict[str, str]:
    """Give each mutant's name and what became of it."""
    lines = mutmut(tree, "results", "--all", "true").splitlines()
    return dict(line.strip().split(": ", 1) for line in lines if ": " in line)


def change_of(tree: Path, name: str) -> Change:
    """Ask mutmut what a mutant changed."""
    module, mangled = name.rsplit(".", 1)
    function = re.sub(r"__mutmut_\d+$", "", mangled).removeprefix("x_").removeprefix("xǁ").replace("ǁ", ".")
    lines = mutmut(tree, "show", name).splitlines()
    parts = [
        " ".join(line[1:].strip() for line in lines if line.startswith(sign) and not line.startswith(sign * 3))
        for sign in "-+"
    ]
    return Change(f"{module} {function}", *parts)


def install() -> None:
    """See to it that mutmut is there."""
    if importlib.util.find_spec("mutmut") is None:
        argv = [sys.executable, "-m", "pip", "install", "-qq", "-c", str(ROOT / "constraints.txt"), MUTMUT]
        subprocess.run(argv, check=True)


def main() -> int:
    """Judge all mutants of the files."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("files", nargs="*", default=list(TESTS), help=f"{', '.join(TESTS)} unless told")
    parser.add_argument("--tests", nargs="+", default=[], help="that must notice; known for the files above")
    options = parser.parse_args()
    if not options.tests and set(options.files) - TESTS.keys():
        parser.error("name the quick tests of that file: --tests tests/unit/test_….py")
    tests = options.tests or [test for file in options.files for test in TESTS[file]]
    modules = {file.removesuffix(".py").replace("/", ".") for file in options.files}
    judged = {
        change: reason
        for change, reason in read_judged(JUDGED.read_text(encoding="utf-8")).items()
        if change.function.split()[0] in modules
    }
    install()
    with tempfile.TemporaryDirectory(prefix="gpurun-generated-") as folder:
        tree = copy_tree(Path(folder) / "tree")
        (tree / "setup.cfg").write_text(configuration(options.files, tests), encoding="utf-8")
        print(f"mutmut changes {', '.join(options.files)}: some minutes", flush=True)
        mutmut(tree, "run", "--max-children", "1")
        became = verdicts(tree)
        survivors = {change_of(tree, name): what for name, what in became.items() if what != "killed"}
    return report(became, survivors, judged)


def report(became: dict[str, str], survivors: dict[Change, str], judged: dict[Change, str]) -> int:
    """Say what nobody noticed and nobody judged, and what was judged and is noticed."""
    for change, what in survivors.items():
        if change not in judged:
            print(f"\n{what.upper()}, and not judged in {JUDGED.name}:\n{change}")
    for change in judged.keys() - survivors.keys():
        print(f"\nJudged in {JUDGED.name}, and caught or gone by now:\n{change}")
    counts = ", ".join(f"{number} {what}" for what, number in Counter(became.values()).most_common())
    print(f"{len(became)} generated mutants: {counts}; {len(judged)} judged")
    return 1 if survivors.keys() ^ judged.keys() or not became else 0


if __name__ == "__main__":
    sys.exit(main())
