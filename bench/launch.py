"""From a machine that can be used to the first training step: gpurun, as a ratio to the same commands typed by hand.

    python bench/launch.py [--rounds N] [--template NAME] [--pace X] [--boot SECONDS]   # 5, demo, 1, 8

Both rent the same kind of machine of one simulated Lambda, fresh each time, and take turns. The time begins when the
vendor says active and sshd says its banner, whichever is later; it ends with the first metrics line that has a step, by
that line's own time. By hand: scp of the same bundle, data and config, ssh to unpack, ssh to run payload/setup.sh and
the training in what that made; a person who types without a pause and needs no watchdog. Medians count; a first round
that is not counted warms the files. Writes bench/results/local/launch.json. Goal: at most 1.2 x.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import requests

RESULTS = Path(__file__).parent / "results" / "local" / "launch.json"
GOAL = 1.2
KIND = "gpu_1x_a10"
GPURUN = [sys.executable, "-m", "orchestrator.cli"]
LIMIT_SECONDS = 300


class Vendor:
    """The simulator, as a process of its own."""

    def __init__(self, pace: float, boot: float) -> None:
        argv = [sys.executable, "-m", "simulators", "lambda", "--pace", str(pace), "--boot", str(boot)]
        argv += ["--linger", "1", "--with-stdin"]
        self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        told = json.loads(self._process.stdout.readline())
        self.boot = boot
        self._control, self.url, self.exports = told["control"], told["url"], told["exports"]
        self.port = int(self.exports["GPURUN_LAMBDA_SSH_PORT"])
        self.user = self.exports["GPURUN_LAMBDA_SSH_USER"]

    def ask(self, path: str) -> dict[str, Any]:
        """Ask its control."""
        return requests.get(self._control + path, timeout=30).json()

    def tell(self, path: str, body: object) -> dict[str, Any]:
        """Tell its control."""
        reply = requests.post(self._control + path, json=body, timeout=60)
        reply.raise_for_status()
        return reply.json()

    def call(self, method: str, path: str, body: object = None) -> Any:
        """Ask the API with the key."""
        headers = {"Authorization": f"Bearer {self.exports['LAMBDA_API_KEY']}"}
        reply = requests.request(method, self.url + path, json=body, headers=headers, timeout=60)
        reply.raise_for_status()
        return reply.json()["data"]

    def known(self) -> set[str]:
        """Name every machine that there ever was."""
        return {one["id"] for one in self.ask("/meter")["allocations"]}

    def close(self) -> None:
        """End it, with all its machines."""
        self._process.terminate()
        self._process.wait(60)


class Watch(threading.Thread):
    """Notes when the machine that was not there before can be used."""

    def __init__(self, vendor: Vendor) -> None:
        super().__init__(daemon=True)
        self._vendor, self._old = vendor, vendor.known()
        vendor.tell(
            "/faults", {"slow_boot": {"seconds": vendor.boot * random.uniform(1.0, 1.5)}}
        )  # no beat to fall into
        self.id = self.ip = ""
        self.usable = 0.0

    def run(self) -> None:
        """Look until it answers."""
        until = time.monotonic() + LIMIT_SECONDS
        while not self.usable and time.monotonic() < until:
            for one in self._vendor.ask("/state")["instances"]:
                if one["id"] not in self._old and one["status"] == "active" and self._answers(one["address"]):
                    self.id, self.ip, self.usable = one["id"], one["address"], time.time()
            time.sleep(0.02)

    def _answers(self, ip: str) -> bool:
        try:
            with socket.create_connection((ip, self._vendor.port), timeout=1) as sock:
                return sock.recv(8).startswith(b"SSH-")
        except OSError:
            return False


def first_step(lines: list[str]) -> float | None:
    """Find the time of the first metrics line with a step, epoch seconds."""
    for line in lines:
        head, _, text = line.partition(" ")
        if head == "::metrics":
            values = json.loads(text)
            if values.get("step"):
                return float(values["time"])
    return None


def by_gpurun(vendor: Vendor, home: Path, words: list[str]) -> float:
    """Launch, and stop it after its first step; gives the seconds."""
    env = {**os.environ, **vendor.exports, "GPURUN_HOME": str(home)}
    before = set(home.glob("runs/*"))
    watch = Watch(vendor)
    watch.start()
    wish = [*words, "--provider", "lambda", "--gpu", "a10", "-y", "--accept-risk", "--detach"]
    subprocess.run([*GPURUN, "launch", *wish], env=env, check=True, capture_output=True)
    watch.join()
    (folder,) = set(home.glob("runs/*")) - before
    until, stepped = time.monotonic() + LIMIT_SECONDS, None
    while stepped is None:
        if time.monotonic() > until:
            sys.exit(f"no step in {LIMIT_SECONDS} s: {folder}")
        time.sleep(0.2)
        log = folder / "log.txt"
        stepped = first_step(log.read_text(errors="replace").splitlines()[:-1]) if log.exists() else None
    subprocess.run([*GPURUN, "stop", "-y"], env=env, check=False, capture_output=True)
    return stepped - watch.usable


def by_hand(vendor: Vendor, folder: Path, sample: Path) -> float:
    """Type the same commands; gives the seconds."""
    key = folder / "key"
    if not key.exists():
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
        public = key.with_suffix(".pub").read_text()
        vendor.call("POST", "/ssh-keys", {"name": "by-hand", "public_key": public})
    watch = Watch(vendor)
    watch.start()
    order = {"region_name": "us-east-1", "instance_type_name": KIND, "ssh_key_names": ["by-hand"], "name": "by-hand"}
    vendor.tell("/launch", order)
    watch.join()
    job = json.loads((sample / "job.json").read_text())
    options = ["-q", "-F", "none", "-i", str(key)]
    options += ["-o", "StrictHostKeyChecking=no", "-o", f"UserKnownHostsFile={folder / 'known'}-{watch.id}"]
    ssh = ["ssh", *options, "-p", str(vendor.port), f"{vendor.user}@{watch.ip}"]
    scp = ["scp", *options, "-P", str(vendor.port), str(sample / "bundle.tar.gz"), *(blob[2] for blob in job["blobs"])]
    subprocess.run([*scp, f"{vendor.user}@{watch.ip}:"], check=True)
    moves = [f"mkdir -p {Path(name).parent} && mv ~/{Path(path).name} {name}" for *_, path, name in job["blobs"]]
    subprocess.run([*ssh, " && ".join(["mkdir job", "cd job", "tar -xzf ../bundle.tar.gz", *moves])], check=True)
    command = " ".join(job["command"]).replace("{python}", "env/bin/python")
    with subprocess.Popen(
        [*ssh, f"cd job && {' '.join(job['setup'])} && {command}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        lines: list[str] = []
        while first_step(lines) is None:
            line = process.stdout.readline()
            if not line:
                sys.exit(f"the training by hand ended without a step:\n{''.join(lines)}")
            lines.append(line)
        process.terminate()
    vendor.call("POST", "/instance-operations/terminate", {"instance_ids": [watch.id]})
    return first_step(lines) - watch.usable


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--template", default="demo")
    parser.add_argument("--pace", type=float, default=1.0)
    parser.add_argument("--boot", type=float, default=8.0)
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    words = [options.template]
    if options.template == "loop":
        words += ["--set", "epochs=100000", "--set", "log_every_steps=1"]
    took: dict[str, list[float]] = {"gpurun": [], "by hand": []}
    vendor = Vendor(options.pace, options.boot)
    try:
        with tempfile.TemporaryDirectory(prefix="gpurun-launch-") as folder:
            home = Path(folder) / "home"
            for number in range(options.rounds + 1):
                ours = by_gpurun(vendor, home, words)
                sample = next(home.glob("runs/*"))
                theirs = by_hand(vendor, Path(folder), sample)
                print(f"round {number}: gpurun {ours:6.2f} s, by hand {theirs:6.2f} s", flush=True)
                if number:
                    took["gpurun"].append(ours)
                    took["by hand"].append(theirs)
        left = vendor.ask("/meter")["billing_now"]
    finally:
        vendor.close()
    medians = {name: statistics.median(values) for name, values in took.items()}
    ratio = medians["gpurun"] / medians["by hand"]
    print(f"{'':<10}{'median s':>10}{'least':>8}{'most':>8}")
    for name, values in took.items():
        print(f"{name:<10}{medians[name]:>10.2f}{min(values):>8.2f}{max(values):>8.2f}")
    print(f"ratio {ratio:.2f}; goal: at most {GOAL}; still billing: {left}")
    report = {
        "rounds": options.rounds, "template": options.template, "pace": options.pace, "boot_seconds": options.boot,
        "cpus": os.cpu_count(), "load": os.getloadavg()[0], "seconds": took, "ratio": ratio,
    }  # fmt: skip
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(report, indent=1) + "\n")
    return 0 if ratio <= GOAL and not left else 1


if __name__ == "__main__":
    sys.exit(main())
