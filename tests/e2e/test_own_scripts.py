"""A user's own script and notebook, by the same commands on every provider: what a stranger could see of them."""

from __future__ import annotations

import functools
import http.server
import json
import os
import subprocess
import sys
import threading
import zipfile
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
import requests

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

GPURUN = [sys.executable, "-m", "orchestrator.cli"]
# provider -> its simulator, and what to ask for there; none = this computer
PLACES = {
    "local": ([], ["--gpu", "cpu"]),
    "lambda": (["lambda", "--boot", "10", "--pace", "40"], ["--gpu", "a10", "--accept-risk"]),
    "runpod": (["runpod", "--boot", "10", "--pace", "40"], ["--gpu", "3090", "--accept-risk"]),
    "hf": (["hf", "--boot", "10", "--pace", "100"], ["--gpu", "cpu"]),
}
SCRIPT = """
# /// script
# requires-python = ">=3.10"
# dependencies = ["gpurun-tiny==1.0"]
# ///
import pathlib, sys
import gpurun_tiny
print("words:", gpurun_tiny.WORD, sys.argv[1:], pathlib.Path("rows/a b.txt").read_text())
def bar(step):
    print(f"\\r{50 * step}%|###  | {step}/2 [00:01<00:02, 1.00s/it]", end="", file=sys.stderr, flush=True)
bar(0)
for step in (1, 2):
    print("\\r", end="", file=sys.stderr, flush=True)  # as tqdm clears it
    print({"loss": str(1 / step), "epoch": str(step / 2)}, flush=True)
    bar(step)
pathlib.Path("outputs/checkpoint-2").mkdir(parents=True)
pathlib.Path("outputs/checkpoint-2/weights.bin").write_bytes(bytes(range(256)) * 1000)
pathlib.Path("artifacts").mkdir()
pathlib.Path("artifacts/card.md").write_text("# card")
"""
CELLS = [
    'import pathlib, nbclient\nprint(\'::metrics {"step": 1, "loss": 0.5}\')',
    "!echo from the shell\npathlib.Path('outputs').mkdir()\npathlib.Path('outputs/kept.txt').write_text('kept')",
    "1 / 0",
]


def make_wheel(folder: Path) -> None:
    """Write a package that no other index has."""
    folder.mkdir(parents=True)
    path, info = folder / "gpurun_tiny-1.0-py3-none-any.whl", "gpurun_tiny-1.0.dist-info"
    files = {
        "gpurun_tiny.py": "WORD = 'from the wheel'\n",
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: gpurun-tiny\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    with zipfile.ZipFile(path, "w") as wheel:
        for name, text in files.items():
            wheel.writestr(name, text)
        wheel.writestr(f"{info}/RECORD", "".join(f"{name},,\n" for name in (*files, f"{info}/RECORD")))


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Lists folders as an index does."""

    def log_message(self, *_args: object) -> None:
        pass


@pytest.fixture(autouse=True)
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A package index on loopback: this computer's, and that of every simulated machine."""
    make_wheel(tmp_path / "served" / "simple" / "gpurun-tiny")
    handler = functools.partial(Quiet, directory=str(tmp_path / "served"))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{server.server_port}/simple")
    yield
    server.shutdown()
    server.server_close()


@pytest.fixture
def work(tmp_path: Path) -> Path:
    folder = tmp_path / "my work"
    (folder / "rows").mkdir(parents=True)
    (folder / "rows" / "a b.txt").write_text("row 1")
    (folder / "train.py").write_text(SCRIPT)
    cells = [
        {"cell_type": "code", "source": cell, "metadata": {}, "outputs": [], "execution_count": None} for cell in CELLS
    ]
    (folder / "note.ipynb").write_text(json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 4}))
    return folder


@contextmanager
def vendor(argv: list[str]) -> Iterator[dict[str, str]]:
    """A vendor's exports; at the end it bills nothing."""
    if not argv:
        yield {}
        return
    argv = [sys.executable, "-m", "simulators", *argv, "--with-stdin"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        try:
            yield told["exports"]
            meter = requests.get(told["control"] + "/meter", timeout=30).json()
        finally:
            process.terminate()
            process.wait(30)
    assert meter["billing_now"] == 0


def launch(work: Path, exports: dict[str, str], *words: str) -> subprocess.Popen[str]:
    paths = os.pathsep.join(filter(None, sys.path))
    env = {**os.environ, **exports, "PYTHONPATH": paths, "HF_HUB_OFFLINE": "0"}
    argv = [*GPURUN, "launch", *words]
    return subprocess.Popen(argv, cwd=work, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("place", PLACES)
def test_a_script_and_a_notebook_run_by_the_same_command_and_come_home(place: str, work: Path, home: Path) -> None:
    if place == "runpod" and os.geteuid() != 0:
        pytest.skip("needs root for a container with a root of its own")
    simulator, wish = PLACES[place]
    limits = ["--provider", place, *wish, "--max-hours", "0.3", "-y"]
    with vendor(simulator) as exports:
        script = launch(work, exports, "train.py", *limits, "--include", "rows", "--", "--lr", "1e-4")
        notebook = launch(work, exports, "note.ipynb", *limits)
        told, tale = script.communicate(timeout=270)[0], notebook.communicate(timeout=270)[0]
    assert (script.returncode, notebook.returncode) == (0, 1), told + tale
    (folder,) = home.glob("runs/train-*")
    assert "words: from the wheel ['--lr', '1e-4'] row 1" in (folder / "log.txt").read_text()
    assert (folder / "artifacts/outputs/checkpoint-2/weights.bin").stat().st_size == 256_000
    assert (folder / "artifacts/card.md").read_text() == "# card"
    losses = [
        (one["step"], one["total_steps"], one["loss"]) for one in lines(folder / "metrics.jsonl") if "loss" in one
    ]
    assert losses == [(1, 2, 1.0), (2, 2, 0.5)]
    (folder,) = home.glob("runs/note-*")
    executed = json.loads((folder / "artifacts/note.ipynb").read_text())
    outputs = [[out.get("text", out.get("ename")) for out in cell["outputs"]] for cell in executed["cells"]]
    assert "from the shell" in str(outputs[1])
    assert outputs[2] == ["ZeroDivisionError"]
    assert (folder / "artifacts/outputs/kept.txt").read_text() == "kept"
    assert "ZeroDivisionError: division by zero" in json.loads((folder / "result.json").read_text())["detail"]
