"""Whether the simulated Colab is one for Google's own client: the official google-colab-cli 0.7.5, command by command.

    python bench/colab_cli.py [--keep FOLDER]     # writes bench/results/colab_cli.json; exits 1 where one fails

The command line is unmodified, in an environment of its own (it wants Python 3.12; $PYTHON312 names one, else pyenv's
3.12.1, or python3.12 on PATH). It has no setting for its host, so a few lines before its `main` name ours. Judged by
what it prints, by what arrived, and by the simulator's meter: nothing may be assigned at the end. `--keep` keeps the
environment for the next time.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results" / "colab_cli.json"
PACKAGE = "google-colab-cli==0.7.5"
SECONDS = 120.0
SHIM = """\
import sys
from colab_cli import common
base, real = sys.argv.pop(1), common.Prod
common.Prod = lambda: real(domain=base, api=base)
from colab_cli import cli
sys.exit(cli.main())
"""

if TYPE_CHECKING:
    from collections.abc import Callable


def python312() -> list[str]:
    """Find a Python 3.12 or newer."""
    tries = [[os.environ["PYTHON312"]]] if os.environ.get("PYTHON312") else []
    for argv in [*tries, ["python3.12"], ["python"], ["python3.13"]]:
        try:
            told = _ask([*argv, "-c", "import sys; print(sys.version_info >= (3, 12))"])
        except OSError:
            continue
        if told == "True":
            return argv
    sys.exit("the official command needs Python 3.12 or newer: PYTHON312=/path/to/python3.12 python bench/colab_cli.py")


def _ask(argv: list[str]) -> str:
    environ = {**os.environ, "PYENV_VERSION": "3.12.1"}
    return subprocess.run(argv, capture_output=True, text=True, check=False, env=environ).stdout.strip()


def environment(folder: Path) -> Path:
    """Make the environment, or use the one that was kept; gives its python."""
    python = folder / "bin" / "python"
    if not (folder / "bin" / "colab").exists():
        print(f"installing {PACKAGE} into an environment of its own", file=sys.stderr)
        _ask([*python312(), "-m", "venv", str(folder)])
        subprocess.run([str(python), "-m", "pip", "install", "-qq", PACKAGE], check=True, stdout=sys.stderr)
    return python


class Colab:
    """The official command against one simulator."""

    def __init__(self, python: Path, told: dict[str, Any], home: Path) -> None:
        self._python, self._told, self._home = python, told, home
        self.seconds = 0.0
        (home / ".config").mkdir(parents=True)
        shutil.copytree(Path(told["cli_home"]) / ".config" / "colab-cli", home / ".config" / "colab-cli")
        (home / ".config" / "colab-cli" / "settings.json").write_text('{"enable_update_check": false}')
        (home / "shim.py").write_text(SHIM)

    def __call__(self, *argv: str, code: int = 0, typed: str = "") -> str:
        """Run one command, and give all that it printed; it must leave with this code."""
        environ = {
            "HOME": str(self._home),
            "PATH": os.environ["PATH"],
            "TERM": "dumb",
            "NO_COLOR": "1",
            "COLUMNS": "200",
            "COLAB_CLI_RETRY_BACKOFF": "1",
        }
        command = [str(self._python), str(self._home / "shim.py"), self._told["url"], *argv]
        began = time.monotonic()
        done = subprocess.run(
            command,
            input=typed,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
            env=environ,
            cwd=self._home,
        )
        self.seconds = time.monotonic() - began
        said = done.stdout + done.stderr
        if done.returncode != code:
            raise AssertionError(f"left with {done.returncode}, not {code}: {said.strip()[-400:]}")
        return said

    def control(self, path: str, wish: object = None) -> dict[str, Any]:
        """Ask the simulator itself, or tell it something."""
        body = None if wish is None else json.dumps(wish).encode()
        with urllib.request.urlopen(self._told["control"] + path, body, timeout=30) as reply:  # noqa: S310 - loopback
            return dict(json.load(reply))


def must(said: str, *parts: str) -> None:
    """Hold that all of this was said."""
    for part in parts:
        if not re.search(part, said):
            raise AssertionError(f"{part!r} is not in: {said.strip()[-400:]}")


class Cases:
    """Every command, and what it must do; in the order of `all`."""

    def __init__(self, colab: Colab, folder: Path) -> None:
        self._colab = colab
        self._code, self._data, self._back = (folder / name for name in ("code.py", "data.bin", "back.bin"))
        self._script = folder / "job.py"
        self._code.write_text("import os\nprint('six by', 42, os.getcwd(), os.path.getsize('/content/data.bin'))\n")
        self._data.write_bytes(os.urandom(3_000_000))
        self._script.write_text("import os, sys\nprint('ran', sys.argv[1:], os.environ['WORD'])\nsys.exit(3)\n")

    def all(self) -> dict[str, Callable[[], None]]:
        """Name them, in order."""
        return {
            "usage": lambda: must(self._colab("usage"), r"balance: 87\.\d+", r"rate: 0", "assignments: 0"),
            "new": self._new,
            "sessions": lambda: must(self._colab("sessions"), r"\[bench\] gpu-t4-\S+ \| Hardware: T4"),
            "usage, one assigned": lambda: must(self._colab("usage"), r"rate: 1\.07", "assignments: 1"),
            "upload": lambda: must(self._in("upload", str(self._data), "content/data.bin"), "data.bin"),
            "exec": lambda: must(self._in("exec", "-f", str(self._code)), "six by 42 /content 3000000"),
            "ls": lambda: must(self._in("ls", "content"), r"data\.bin"),
            "download": self._download,
            "status": lambda: must(self._in("status"), "bench"),
            "console": lambda: must(self._in("console", typed="echo six$((6 * 7))\nexit\n"), "six42"),
            "restart-kernel": self._restart_kernel,
            "run": self._run,
            "new, 412": lambda: self._refused("too_many", "precondition failed"),
            "new, 400": lambda: self._refused("not_entitled", "rejected accelerator"),
            "new, 503 and then one": self._retried,
            "rm": self._rm,
            "stop": self._stop,
            "sessions, none": lambda: must(self._colab("sessions"), "(?i)no "),
        }

    def _in(self, command: str, *argv: str, typed: str = "") -> str:
        return self._colab(command, "-s", "bench", *argv, typed=typed)

    def _new(self) -> None:
        must(self._in("new", "--gpu", "T4"), "READY")
        rows = self._colab.control("/state")["instances"]
        if [row["type"] for row in rows] != ["T4"]:
            raise AssertionError(f"assigned: {rows}")

    def _download(self) -> None:
        self._in("download", "content/data.bin", str(self._back))
        if sha256(self._back.read_bytes()).digest() != sha256(self._data.read_bytes()).digest():
            raise AssertionError("what came back is something else")

    def _run(self) -> None:
        must(self._colab("run", "--env", "WORD=hello", str(self._script), "one", code=3), r"ran \['one'\] hello")
        if self._colab.control("/meter")["billing_now"] != 1:
            raise AssertionError("it left something assigned")

    def _restart_kernel(self) -> None:
        self._in("exec", typed="kept = 1\n")
        self._in("restart-kernel")
        must(self._in("exec", typed="print(kept)\n"), "NameError")

    def _refused(self, fault: str, words: str) -> None:
        self._colab.control("/faults", {fault: 1})
        must(self._colab("new", "-s", "other", "--gpu", "T4", code=1), words)

    def _retried(self) -> None:
        self._colab.control("/faults", {"capacity": 2})
        must(self._colab("new", "-s", "other", "--gpu", "T4"), "READY")
        self._colab("stop", "-s", "other")

    def _rm(self) -> None:
        self._in("rm", "content/data.bin")
        if "data.bin" in self._in("ls", "content"):
            raise AssertionError("it is listed yet")

    def _stop(self) -> None:
        self._in("stop")
        if self._colab.control("/meter")["billing_now"]:
            raise AssertionError("something draws units yet")


def judge(python: Path, told: dict[str, Any], folder: Path) -> list[dict[str, Any]]:
    """Run every case; one that fails does not stop the others."""
    colab, rows = Colab(python, told, folder / "home"), []
    for name, case in Cases(colab, folder).all().items():
        words = ""
        try:
            case()
        except (AssertionError, subprocess.TimeoutExpired, OSError) as error:
            words = str(error)
        rows.append({"command": name, "passed": not words, "seconds": round(colab.seconds, 1), "why": words})
        print(f"{'FAIL' if words else 'pass'}  {name:22} {colab.seconds:6.1f} s  {words}", flush=True)
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--keep", metavar="FOLDER", type=Path, help="where the environment stays for the next time")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gpurun-bench-colab-") as name:
        folder = Path(name)
        python = environment(options.keep.absolute() if options.keep else folder / "environment")
        version = _ask([str(python), "-c", "import platform; print(platform.python_version())"])
        simulator = subprocess.Popen(
            [sys.executable, "-m", "simulators", "colab", "--with-stdin"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
        )
        try:
            told = json.loads(simulator.stdout.readline() if simulator.stdout else b"{}")
            rows = judge(python, told, folder)
        finally:
            simulator.communicate()  # its standard input ends, and so does it
    result = {
        "client": PACKAGE,
        "date": datetime.now(UTC).date().isoformat(),
        "python": version,
        "passed": all(row["passed"] for row in rows),
        "commands": rows,
    }
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(f"{json.dumps(result, indent=1)}\n")
    return 0 if result["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
