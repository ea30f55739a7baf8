"""Run the user's own script or notebook in its own folder, where its files lie. What the agent starts for it.

    python payload/own_script.py config.json        # in a job's folder

    config.json: {"script": "train.py", "arguments": ["--lr", "1e-4"], …}; the script lies in code/

It becomes the script: the same process, so that signals reach it and its exit code is the script's.
What it leaves in artifacts/ and outputs/ there, the agent makes the job's. Standard library only, Python 3.9.
"""

import json
import os
import sys
from pathlib import Path


def main(argv):
    """Go where the script is and become it."""
    job = Path.cwd()
    config = json.loads(Path(argv[1]).read_text(encoding="utf-8"))
    script, here = config["script"], Path(__file__).resolve().parent
    os.chdir(job / "code")
    script = f"./{script}" if script.startswith("-") else script
    notebook = [str(here / "own_notebook.py")] if script.endswith(".ipynb") else []
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, *notebook, script, *config.get("arguments", [])])  # noqa: S606 (that is the point)


if __name__ == "__main__":
    main(sys.argv)
