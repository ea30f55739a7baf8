"""A notebook for Colab, executed from its first cell to its last by a real kernel, as `jupyter nbconvert` does."""

from __future__ import annotations

import hashlib
import json
import zipfile
from typing import TYPE_CHECKING

from notebooks import execute, runtime

from orchestrator.cli import run as gpurun

if TYPE_CHECKING:
    from pathlib import Path


def test_it_arms_trains_keeps_what_it_made_and_releases_its_machine(tmp_path: Path) -> None:
    notebook, machine = tmp_path / "work" / "loop.ipynb", tmp_path / "machine"
    notebook.parent.mkdir()
    settings = ["--set", "epochs=1", "--set", "rows=200"]
    assert gpurun(["notebook", "loop", "--gpu", "t4", *settings, "-o", str(notebook)]) == 0
    with runtime() as released:
        ended = execute(notebook, machine, released.address)
        assert ended.code == 0, ended.words
        assert released.posted == ["/unassign"]
    told = [line for line in ended.printed.splitlines() if line]
    assert told[0].startswith("The watchdog is armed: this machine releases itself by ")
    assert "WARNING: the quote is for T4, this machine has no GPU: time and price are not those of the quote" in told
    assert any(line.startswith("setup: python: ") and line.endswith("way: image") for line in told)  # its own torch
    assert [line.partition(" · ")[0] for line in told if line.startswith("step")][-1] == "step 3/3"
    assert any(line.startswith("completed") for line in told)
    with zipfile.ZipFile(notebook.with_name("loop-artifacts.zip")) as kept:
        sums = dict(line.split("  ")[::-1] for line in kept.read("SHA256SUMS").decode().splitlines())
        assert {name: hashlib.sha256(kept.read(name)).hexdigest() for name in sums} == sums
        assert {*sums, "SHA256SUMS"} == set(kept.namelist())
        assert {"artifacts/model.safetensors", "result.json", "log.txt"} <= set(sums)
        assert json.loads(kept.read("result.json"))["reason"] == "completed"
