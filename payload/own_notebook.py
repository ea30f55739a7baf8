"""Execute a notebook from its first cell to its last, and keep it with its outputs, also when a cell fails.

    python own_notebook.py train.ipynb        # in its folder; the executed one is artifacts/train.ipynb

What cells print goes to the log as it comes, so metrics lines count. The first cell that fails is the last: exit 1.
SIGTERM interrupts the running cell as the stop button does (KeyboardInterrupt), keeps what there is, and leaves with 5.
Needs nbclient, nbformat and ipykernel.
"""

import asyncio
import atexit
import json
import os
import shutil
import signal
import sys
import tempfile
import threading
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from traitlets.config import Config

SAVE_EVERY = 20.0  # seconds: what a kill can lose of the outputs


class Teller(NotebookClient):
    """Executes, and prints what the cells say."""

    def process_message(self, msg, cell, cell_index):
        """Print, then do what must be done."""
        kind, content = msg["msg_type"], msg["content"]
        if kind == "stream":
            tell(content["text"], end="")
        elif kind in {"execute_result", "display_data"}:
            tell(content["data"].get("text/plain", ""))
        elif kind == "error":
            tell("\n".join(content["traceback"]))
        return super().process_message(msg, cell, cell_index)


def tell(text, end="\n"):
    """Print at once."""
    print(text, end=end, flush=True)


def main(argv):
    """Execute in a thread; this one saves, and listens to signals."""
    source = Path(argv[1])
    notebook = nbformat.read(source, as_version=4)
    target = Path("artifacts", source.name)
    target.parent.mkdir(exist_ok=True)
    private = Path("..", ".jupyter").resolve()  # not among the user's own settings and connections
    os.environ.update(JUPYTER_RUNTIME_DIR=str(private), IPYTHONDIR=str(private / "ipython"))
    private.mkdir(exist_ok=True)
    wires = tempfile.mkdtemp(prefix="gpurun-")  # sockets with short names: nothing listens on the network
    atexit.register(shutil.rmtree, wires, ignore_errors=True)
    client = Teller(
        notebook,
        config=Config({"KernelManager": {"transport": "ipc", "ip": f"{wires}/kernel"}}),
        timeout=None,
        kernel_name="python3",  # this very Python, whatever the kernel was called where it was written
        resources={"metadata": {"path": "."}},
        on_cell_start=lambda cell, cell_index: announce(notebook, cell, cell_index),
    )
    asked, ended = threading.Event(), []
    signal.signal(signal.SIGTERM, lambda *_: (asked.set(), interrupt(client)))
    worker = threading.Thread(target=lambda: ended.append(execute(client)), daemon=True)
    worker.start()
    while worker.is_alive():
        worker.join(SAVE_EVERY)
        save(notebook, target)
    save(notebook, target)
    return 5 if asked.is_set() else ended[0] if ended else 1


def announce(notebook, cell, cell_index):
    """Say which code cell begins."""
    code = [number for number, each in enumerate(notebook.cells) if each.cell_type == "code"]
    if cell.cell_type == "code" and cell.source.strip():
        stage = f"cell {code.index(cell_index) + 1}/{len(code)}"
        tell("::metrics " + json.dumps({"stage": stage}))


def execute(client):
    """Execute all cells; give the exit code."""
    try:
        asyncio.run(client.async_execute())
    except CellExecutionError as error:  # printed as it came, and kept in the cell
        tell(f"the notebook's cell failed: {error.ename}: {error.evalue}")
        return 1
    except DeadKernelError:
        tell("the notebook's kernel died: out of memory?")
        return 1
    return 0


def interrupt(client):
    """Interrupt the running cell, if the kernel is there yet."""
    provisioner = getattr(client.km, "provisioner", None)
    if provisioner is not None and provisioner.pid:
        os.kill(provisioner.pid, signal.SIGINT)


def save(notebook, target):
    """Write aside, then move into place; while a cell is at work it may have to wait for the next time."""
    try:
        text = nbformat.writes(notebook)
    except RuntimeError:  # the dictionary changed meanwhile
        return
    aside = target.with_name(f".{target.name}.{os.getpid()}")
    aside.write_text(text, encoding="utf-8")
    aside.replace(target)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
