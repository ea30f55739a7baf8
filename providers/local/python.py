"""The interpreter that runs the payload: this one where it has torch, else one that the user made for it."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from providers.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

_NEEDS_TORCH = re.compile(r"(^|/)payload/(train_\w+|export)\.py$")
INSTALL = "pip install 'gpurun[payload]'"


def payload_python(home: Path) -> Path:
    """Find a Python with torch: this one, else $GPURUN_PYTHON, else <home>/env.

    Raises:
        UsageError: there is none; the hint is the one command that gets it.
    """
    if importlib.util.find_spec("torch") is not None:
        return Path(sys.executable)
    named = os.environ.get("GPURUN_PYTHON", "")
    if named:
        if _has_torch(Path(named)):
            return Path(named)
        raise UsageError(f"GPURUN_PYTHON={named} is no Python that has torch", hint=f"{named} -m {INSTALL}")
    own = home / "env" / "bin" / "python"
    if _has_torch(own):
        return own
    raise UsageError(f"no Python with torch was found: {sys.executable} has none", hint=INSTALL)


def python_for(command: Sequence[str], home: Path) -> Path:
    """Find the interpreter for a command; one that trains nothing of ours runs without torch."""
    try:
        return payload_python(home)
    except UsageError:
        if any(_NEEDS_TORCH.search(part) for part in command):
            raise
        return Path(sys.executable)


def _has_torch(python: Path) -> bool:
    code = "import importlib.util as u, sys; sys.exit(u.find_spec('torch') is None)"
    try:
        return subprocess.run([python, "-c", code], capture_output=True, timeout=30, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False
