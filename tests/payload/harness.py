"""Run a payload script in a job's folder as the agent would, kill it at a step, and read what it left.

    job = Job(tmp_path, "train_loop.py", {"method": "loop", "max_steps": 12})
    job.run(kill_at=7)                  # SIGKILL as soon as step 7's metrics line is out
    done = job.run()                    # carries on from checkpoints/
    assert done.code == 0 and done.metrics == …

Metrics are compared as the contract says: lines of one step merged, the last value wins, keys of the clock left out.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

PAYLOAD = Path(__file__).parents[2] / "payload"
CLOCK_KEYS = {"time", "tokens_per_second", "samples_per_second", "peak_memory_gib", "flop_utilisation"}
PREFIX = "::metrics "
ENV = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1", "TOKENIZERS_PARALLELISM": "false"}


@dataclass(frozen=True)
class Ended:
    """How one run of a script ended: `code` is negative when a signal ended it."""

    code: int
    output: str

    @property
    def lines(self) -> list[dict]:
        """Every metrics line, in order."""
        return parse(self.output)

    @property
    def text(self) -> str:
        """The log without its metrics lines."""
        return "\n".join(line for line in self.output.splitlines() if not line.startswith(PREFIX))


class Job:
    """A job's folder and the script that runs in it; `output` gathers the log of all its runs."""

    def __init__(self, folder: Path, script: str, config: dict) -> None:
        self.folder = folder
        self.script = PAYLOAD / script
        self.output = ""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(config))

    def run(
        self,
        *,
        kill_at: int | None = None,
        number: int = signal.SIGKILL,
        patch: str = "",
        env: dict | None = None,
        frozen_until: str = "",
    ) -> Ended:
        """Run to the end, or send signal `number` once a line with step >= `kill_at` is out.

        `frozen_until` holds the script itself still before that until a path below its folder exists: what it started
        runs ahead of it meanwhile.

        `patch` is Python that runs in the script's process before it: `import checkpoint; checkpoint.free_bytes = …`.
        """
        start = f"import sys; sys.path.insert(0, {str(PAYLOAD)!r})\n{patch}\nimport runpy, sys\n"
        start += f"sys.argv = [{str(self.script)!r}, 'config.json']\nrunpy.run_path(sys.argv[0], run_name='__main__')"
        argv = [sys.executable, "-c", start] if patch else [sys.executable, str(self.script), "config.json"]
        output, pipe = [], subprocess.PIPE
        with subprocess.Popen(
            argv,
            cwd=self.folder,
            stdout=pipe,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, **ENV, **(env or {})},
        ) as process:
            for line in process.stdout:
                output.append(line)
                if kill_at is not None and any(seen.get("step", -1) >= kill_at for seen in parse(line)):
                    time.sleep(random.random() / 50)  # somewhere in what follows the line, not right at it
                    if frozen_until:
                        process.send_signal(signal.SIGSTOP)
                        await_path(self.folder / frozen_until)
                    process.send_signal(number)
                    kill_at = None
        self.output += "".join(output)
        return Ended(process.returncode, "".join(output))

    @property
    def lines(self) -> list[dict]:
        """Every metrics line of all runs so far, in order."""
        return parse(self.output)

    @property
    def metrics(self) -> dict[int, dict]:
        """The same merged by step."""
        return by_step(parse(self.output))

    @property
    def checkpoints(self) -> list[str]:
        """The checkpoints' names, oldest first."""
        return sorted((path.name for path in self.folder.glob("checkpoints/step-*")), key=lambda name: int(name[5:]))

    def weights(self, folder: str = "artifacts") -> dict[str, str]:
        """Give the sha256 of every safetensors file below `folder`, by name."""
        found = sorted((self.folder / folder).rglob("*.safetensors"))
        assert found, f"no weights below {folder}"
        return {path.relative_to(self.folder).as_posix(): sha256(path) for path in found}

    def summary(self) -> dict:
        """Read summary.json."""
        return json.loads((self.folder / "summary.json").read_text())


def await_path(path: Path) -> None:
    """Wait until something is there."""
    end = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < end, f"never there: {path}"
        time.sleep(0.01)


def parse(text: str) -> list[dict]:
    """Read the metrics lines in a log; a line cut off by a kill is none."""
    whole = (line for line in text.splitlines() if line.startswith(PREFIX) and line.endswith("}"))
    return [json.loads(line[len(PREFIX) :]) for line in whole]


def by_step(lines: list[dict]) -> dict[int, dict]:
    """Merge the lines of each step, last value wins; stages and what the clock says are left out."""
    merged: dict[int, dict] = {}
    for line in lines:
        if "step" in line:
            facts = {key: value for key, value in line.items() if key not in CLOCK_KEYS | {"stage"}}
            merged.setdefault(line["step"], {}).update(facts)
    return merged


def sha256(path: Path) -> str:
    """Hash a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
