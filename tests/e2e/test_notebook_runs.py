"""A notebook for Colab, executed from its first cell to its last by a real kernel, as `jupyter nbconvert` does."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from typing import TYPE_CHECKING

import pytest
from boxes import until
from colab_fixture import ColabVm
from notebooks import execute, runtime
from websocket import WebSocketConnectionClosedException

from orchestrator.cli import run as gpurun

if TYPE_CHECKING:
    from pathlib import Path


def written(tmp_path: Path) -> Path:
    """A notebook of the lightest template."""
    notebook = tmp_path / "work" / "loop.ipynb"
    notebook.parent.mkdir()
    settings = ["--set", "epochs=1", "--set", "rows=200"]
    assert gpurun(["notebook", "loop", "--gpu", "t4", *settings, "-o", str(notebook)]) == 0
    return notebook


def test_it_arms_trains_keeps_what_it_made_and_releases_its_machine(tmp_path: Path) -> None:
    notebook, machine = written(tmp_path), tmp_path / "machine"
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


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root for a container with a root of its own")
def test_on_a_vm_of_the_simulated_colab_it_finds_the_card_trains_on_it_and_unassigns_itself(start_colab, tmp_path):
    sim = start_colab(machines=True, pace=20)
    vm = ColabVm.of(sim.assigned("T4"))
    kernel = vm.new_kernel()
    cells = json.loads(written(tmp_path).read_text())["cells"]
    told = {}
    for cell in cells:
        if cell["cell_type"] == "code" and cell["id"] != "release":
            told[cell["id"]] = vm.run(kernel, "".join(cell["source"]))
    assert "its release address answers" in told["unpack"]
    assert told["start"].startswith("GPU: Tesla T4\nStarted.")
    assert "device: Tesla T4" in told["follow"]
    assert "\ncompleted" in told["follow"]
    assert told["save"].startswith("/content/loop-artifacts.zip: ")
    with pytest.raises((WebSocketConnectionClosedException, OSError)):  # the machine goes, and its kernel with it
        vm.run(kernel, "run.release()")
    until(lambda: not sim.listed(), "the end of the assignment")
    assert [row["ended_by"] for row in sim.meter()["allocations"]] == ["inside"]
