"""Answers as nvidia-smi does, for the GPUs in etc/gpu.json: -L, --query-gpu, --query-compute-apps, and the table.

What is asked that no simulated GPU knows is `[N/A]`, as on a card that lacks it.
"""

from __future__ import annotations

import json
import sys
import uuid
from pathlib import Path
from typing import Any

_UNITS = {"memory": "MiB", "utilization": "%", "power": "W", "clocks": "MHz"}


def fields_of(gpu: dict[str, Any], index: int) -> dict[str, str]:
    """Give what one GPU says of itself, by the names of --query-gpu."""
    total = gpu["memory_mib"]
    return {
        "index": str(index),
        "count": str(gpu["count"]),
        "name": gpu["name"],
        "gpu_name": gpu["name"],
        "uuid": uuid_of(gpu, index),
        "gpu_uuid": uuid_of(gpu, index),
        "pci.bus_id": bus_of(index),
        "driver_version": gpu["driver"],
        "memory.total": str(total),
        "memory.used": "1",
        "memory.free": str(total - 1),
        "utilization.gpu": "0",
        "utilization.memory": "0",
        "temperature.gpu": "31",
        "power.draw": "25.00",
        "compute_cap": ".".join(map(str, gpu["capability"])),
        "compute_mode": "Default",
        "mig.mode.current": "[N/A]",
        "pstate": "P0",
    }


def uuid_of(gpu: dict[str, Any], index: int) -> str:
    """Give a number that stays the same."""
    return "GPU-" + str(uuid.uuid5(uuid.NAMESPACE_DNS, f"{gpu['name']} {index}"))


def bus_of(index: int) -> str:
    """Give a place on the bus."""
    return f"00000000:{index + 1:02X}:00.0"


def unit_of(name: str) -> str:
    """Give the unit that stands behind a value, in brackets in a header."""
    return _UNITS.get(name.partition(".")[0], "")


def query(gpu: dict[str, Any], chosen: list[int], names: list[str], form: set[str]) -> list[str]:
    """Give the rows of --query-gpu."""
    known = fields_of(gpu, 0)
    for name in names:
        if name not in known:
            raise SystemExit(f'Field "{name}" is not a valid field to query.')
    units = {name: unit_of(name) for name in names}
    head = [", ".join(f"{name} [{units[name]}]" if units[name] else name for name in names)]
    rows = []
    for index in chosen:
        values = fields_of(gpu, index)
        bare = "nounits" in form
        rows.append(", ".join(values[n] + (f" {units[n]}" if units[n] and not bare else "") for n in names))
    return rows if "noheader" in form else head + rows


def table(gpu: dict[str, Any], chosen: list[int]) -> list[str]:
    """Give the plain table."""
    line = "+-----------------------------------------------------------------------------------------+"
    versions = f"NVIDIA-SMI {gpu['driver']}   Driver Version: {gpu['driver']}   CUDA Version: {gpu['cuda']}"
    head = f"{'GPU':>4}  {'Name':<30} {'Bus-Id':<18} {'Memory-Usage':>20} {'GPU-Util':>9}"
    memory = f"1MiB / {gpu['memory_mib']}MiB"
    rows = [f"{index:>4}  {gpu['name']:<30} {bus_of(index):<18} {memory:>20} {'0%':>9}" for index in chosen]
    body = [versions, "", head, *rows, "", "Processes:", "  No running processes found"]
    return [line, *(f"| {text:<87} |" for text in body), line]


def main(words: list[str]) -> None:
    """Answer."""
    root = Path(__file__).resolve().parents[2]
    gpu = json.loads((root / "etc" / "gpu.json").read_text(encoding="utf-8"))
    chosen = list(range(gpu["count"]))
    options: dict[str, str] = {}
    while words:
        name, _, value = words.pop(0).partition("=")
        if name in {"-i", "--id"}:
            value = value or words.pop(0)
            chosen = [int(number) for number in value.split(",")]
        options[name] = value
    if not gpu["count"] or any(index >= gpu["count"] for index in chosen):
        raise SystemExit("No devices were found")
    form = {word.strip() for word in options.get("--format", "").split(",")}
    if "-L" in options or "--list-gpus" in options:
        lines = [f"GPU {index}: {gpu['name']} (UUID: {uuid_of(gpu, index)})" for index in chosen]
    elif "--query-gpu" in options:
        lines = query(gpu, chosen, [name.strip() for name in options["--query-gpu"].split(",")], form)
    elif "--query-compute-apps" in options:
        lines = []
    else:
        lines = table(gpu, chosen)
    print("\n".join(lines))  # noqa: T201 (that is what it does)


if __name__ == "__main__":
    main(sys.argv[1:])
