"""How much a user installs: packages and MB of the base install, from a wheel, in a fresh environment.

    python bench/footprint.py     # prints a table, writes bench/results/local/footprint.json

Goal: at most 40 packages, gpurun among them, and 90 MB of site-packages; pip and compiled files are not counted.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
RESULT = ROOT / "bench" / "results" / "local" / "footprint.json"
GOAL_PACKAGES, GOAL_MB = 40, 90
SHIPPED = ("orchestrator", "providers", "payload", "templates")

# Run inside the fresh environment: every distribution with the bytes of its files. Compiled files are counted apart.
MEASURE = """
import importlib.metadata, json
rows = []
for dist in importlib.metadata.distributions():
    sizes = {"mb": 0.0, "compiled_mb": 0.0}
    for file in dist.files or ():
        path = dist.locate_file(file)
        if path.is_file():
            sizes["compiled_mb" if path.suffix == ".pyc" else "mb"] += path.stat().st_size / 1e6
    rows.append({"package": dist.name, "version": dist.version, **sizes})
print(json.dumps(rows))
"""

# Run inside the fresh environment, away from the repository: what a bundle needs is found as resources.
RESOURCES = """
from importlib.resources import files
assert (files("payload") / "agent.py").is_file()
assert (files("payload") / "README.md").is_file()
assert (files("templates") / "demo.yaml").is_file()
"""


def run(*command: str | Path, cwd: Path) -> str:
    """Run a command to its end; its output, or the reason why it failed, and out."""
    # The folder a developer stands in, and a PYTHONPATH, must not help.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "GPURUN_"))}
    environment["GPURUN_HOME"] = str(cwd / "home")
    argv = [str(part) for part in command]
    done = subprocess.run(argv, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(argv)}\nexited {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def build_wheel(folder: Path) -> Path:
    """Build the wheel; every file that git knows of the shipped folders must be in it."""
    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--wheel-dir", folder, ROOT, cwd=folder)
    wheel = next(folder.glob("gpurun-*.whl"))
    tracked = run("git", "-C", ROOT, "ls-files", "-z", "--", *SHIPPED, cwd=folder).split("\0")
    lacking = {name for name in tracked if name and (ROOT / name).exists()} - set(zipfile.ZipFile(wheel).namelist())
    if lacking:
        sys.exit("the wheel lacks " + ", ".join(sorted(lacking)))
    return wheel


def smoke(bin_folder: Path, cwd: Path) -> None:
    """Show that an installed gpurun answers and finds its templates and its payload."""
    run(bin_folder / "gpurun", "--help", cwd=cwd)
    if "demo" not in run(bin_folder / "gpurun", "templates", cwd=cwd):
        sys.exit("`gpurun templates` does not list the demo")
    run(bin_folder / "python", "-c", RESOURCES, cwd=cwd)


def measure(folder: Path) -> list[dict[str, object]]:
    """Install the wheel with its base packages into a fresh environment, check it, then check an editable install."""
    wheel = build_wheel(folder)
    run(sys.executable, "-m", "venv", folder / "venv", cwd=folder)
    bin_folder = folder / "venv" / ("Scripts" if os.name == "nt" else "bin")
    pip = (bin_folder / "python", "-m", "pip", "-qq", "--no-input", "--disable-pip-version-check")
    run(*pip, "install", "--constraint", ROOT / "constraints.txt", wheel, cwd=folder)
    rows = json.loads(run(bin_folder / "python", "-c", MEASURE, cwd=folder))
    smoke(bin_folder, folder)
    run(*pip, "install", "--no-deps", "--editable", ROOT, cwd=folder)
    smoke(bin_folder, folder)
    seed = {"pip", "setuptools"}  # what `python -m venv` puts there itself
    return sorted((row for row in rows if row["package"] not in seed), key=lambda row: -row["mb"])


def verdict(unit: str, seen: float, goal: int) -> str:
    """Say whether a goal is met."""
    return f"{seen} {unit}, goal {goal}: {'met' if seen <= goal else f'missed by {seen - goal:g}'}"


def main() -> None:
    """Measure, print, write."""
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(Path(folder))
    mb = sum(row["mb"] for row in rows)
    compiled_mb = sum(row["compiled_mb"] for row in rows)
    print(f"{'package':<24}{'version':<16}{'MB':>8}")
    for row in rows:
        print(f"{row['package']:<24}{row['version']:<16}{row['mb']:>8.1f}")
    print(f"\n{verdict('packages', len(rows), GOAL_PACKAGES)}; {verdict('MB', round(mb, 1), GOAL_MB)}")
    print(f"compiled files: {compiled_mb:.1f} MB more")
    print("wheel and editable install: gpurun answers, templates and payload are found")
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    totals = {"packages": len(rows), "mb": round(mb, 1), "compiled_mb": round(compiled_mb, 1)}
    RESULT.write_text(json.dumps({**totals, "rows": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
