"""A simulated vendor for the benchmarks that launch at one: its process, its bill as it goes, what it left behind.

with Vendor(folder, faults={…}) as vendor:  vendor.environ(home)  vendor.meter()  vendor.most_at_once  vendor.secrets()

Everything is asked through its control, as anyone could; no code of the product is trusted to judge the product.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Self

import psutil

_POLL_SECONDS = 0.2
_OURS = re.compile(r"GPURUN_|LAMBDA_API_KEY|RUNPOD_|GOOGLE_")
_QUIET_SECONDS = 20.0  # that a machine's processes may take to be gone on a busy computer


class Vendor:
    """One simulator process; its meter is read five times a second, and two that bill at once are remembered."""

    def __init__(
        self,
        folder: Path,
        *,
        pace: float,
        boot: float,
        linger: float = 15,
        faults: object = None,
        provider: str = "lambda",
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._log = (folder / "simulator.log").open("ab")
        argv = [sys.executable, "-m", "simulators", provider, "--pace", f"{pace:g}", "--boot", f"{boot:g}"]
        argv += ["--linger", f"{linger:g}"]
        self.process = subprocess.Popen(
            [*argv, "--with-stdin", "--faults", json.dumps(faults or {})],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=clean_environ(),
        )
        self.most_at_once = 0
        self._ended = threading.Event()
        self._watch = threading.Thread(target=self._poll, daemon=True)
        first = self.process.stdout.readline() if self.process.stdout else b""
        if not first:
            raise RuntimeError(f"the simulator did not start: {(folder / 'simulator.log').read_text()[-300:]}")
        told = json.loads(first)
        self.exports: dict[str, str] = told["exports"]
        self._control: str = told["control"]

    def __enter__(self) -> Self:
        """Begin to read the meter."""
        self._watch.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End it, with its machines."""
        self._ended.set()
        self._watch.join()
        self.process.terminate()
        self.process.wait(60)
        for pipe in (self.process.stdin, self.process.stdout, self._log):
            if pipe is not None:
                pipe.close()

    def environ(self, home: Path) -> dict[str, str]:
        """Give the environment of a gpurun command against this vendor."""
        return {**clean_environ(), **self.exports, "GPURUN_HOME": str(home)}

    def ask(self, path: str, wish: object = None) -> dict[str, Any]:
        """Ask the control, or tell it something."""
        body = None if wish is None else json.dumps(wish).encode()
        request = urllib.request.Request(self._control + path, body)  # noqa: S310 - its own announcement
        with urllib.request.urlopen(request, timeout=30) as reply:  # noqa: S310
            return dict(json.load(reply))

    def meter(self) -> dict[str, Any]:
        """Read the bill, but for what somebody else opened by hand."""
        bill = self.ask("/meter")
        rows = [row for row in bill["allocations"] if not row["name"].startswith("by hand")]
        if len(rows) == len(bill["allocations"]):
            return bill
        billing, spent = sum(row["ended"] is None for row in rows), sum(Decimal(row["usd"]) for row in rows)
        return {**bill, "allocations": rows, "billing_now": billing, "usd": str(spent)}

    def _poll(self) -> None:
        while not self._ended.wait(_POLL_SECONDS):
            try:
                self.most_at_once = max(self.most_at_once, self.meter()["billing_now"])
            except (OSError, urllib.error.URLError):
                continue

    def overlap(self) -> bool:
        """Tell whether two machines were ever there at once, by the poll or by the bill's own times."""
        spans = sorted((row["launched"], row["ended"] or "9") for row in self.meter()["allocations"])
        return self.most_at_once > 1 or any(one[1] > other[0] for one, other in itertools.pairwise(spans))

    def secrets(self) -> dict[str, set[bytes]]:
        """Give what must be in no file: our key, all that the vendor told in confidence, all private keys sent."""
        keys = {value.encode() for name, value in self.exports.items() if name.endswith("_API_KEY")}
        found = {"API key": keys, "Jupyter": set(), "private key": set()}
        if login := self.exports.get("GOOGLE_APPLICATION_CREDENTIALS"):
            told = json.loads(Path(login).read_text(encoding="utf-8"))
            keys |= {told[name].encode() for name in ("refresh_token", "client_secret")}
        for record in self.ask("/requests")["requests"]:
            text = json.dumps(record["reply"]) + json.dumps(record["body"])
            found["Jupyter"] |= {one.encode() for one in re.findall(r'"jupyter_token": "(\w+)"', text)}
            found["Jupyter"] |= {one.encode() for one in re.findall(r"https://(jupyter-\w+)", text)}
            key = re.search(r"BEGIN OPENSSH PRIVATE KEY-----(.*?)-----END", text)
            lines = re.findall(r"[A-Za-z0-9+/=]{60,}", key[1]) if key else []
            found["private key"] |= {line.encode() for line in lines[1:]}  # the first is the format's
        return found

    def left(self, home: Path) -> list[str]:
        """Name the processes that live on though the run is over: machines, their sshd, controllers."""
        end = time.monotonic() + _QUIET_SECONDS
        while (found := self._living(home)) and time.monotonic() < end:
            time.sleep(0.1)
        return found

    def _living(self, home: Path) -> list[str]:
        found = [*psutil.Process(self.process.pid).children(recursive=True)]
        for process in psutil.process_iter():
            try:
                if process.pid != os.getpid() and process.environ().get("GPURUN_HOME") == str(home):
                    found.append(process)
            except psutil.Error:
                continue
        return [_words(process) for process in found]

    def machines(self) -> list[psutil.Process]:
        """List every process of its machines."""
        try:
            return psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []


def clean_environ() -> dict[str, str]:
    """Give our environment without what points gpurun elsewhere."""
    kept = {name: value for name, value in os.environ.items() if not _OURS.match(name)}
    return {**kept, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def leaked(home: Path, secrets: dict[str, set[bytes]]) -> list[str]:
    """Search every file of a home for secrets."""
    secrets = {**secrets, "private key": secrets["private key"] | {b"PRIVATE KEY"}}
    found = []
    for path in sorted(one for one in home.rglob("*") if one.is_file()):
        data = path.read_bytes()
        found += [
            f"{kind} in {path.relative_to(home)}" for kind, all_ in secrets.items() if any(s in data for s in all_)
        ]
    return found


def usd(rows: list[dict[str, Any]]) -> tuple[Decimal, Decimal]:
    """Sum what `gpurun ps --json` says that all runs of a home cost."""
    low = sum((Decimal(str(row["accrued_low_usd"])) for row in rows), Decimal(0))
    return low, sum((Decimal(str(row["accrued_usd"])) for row in rows), Decimal(0))


def today() -> str:
    return datetime.now().astimezone().date().isoformat()


def _words(process: psutil.Process) -> str:
    try:
        return f"{process.pid} {' '.join(process.cmdline())[:100]}"
    except psutil.Error:
        return str(process.pid)
