"""What a notebook's kernel finds around it: Colab or not, a GPU, secrets, and perhaps a browser that looks on.

google.colab waits for a browser without a limit, and a browser may be closed: here nothing waits for long.
Standard library only, Python 3.9; google.colab where it is.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import signal
import subprocess
from typing import Iterator, List

ANSWERS = 15.0  # seconds that a browser may take to answer
SECRET_ANSWERS = 120.0  # a person is asked to allow the notebook its secrets


class RefusedError(Exception):
    """The training does not start here; the message says why, and what to do."""


class NoAnswerError(BaseException):
    """No browser answers. No `Exception`: google.colab swallows those while it waits."""


def on_colab() -> bool:
    """Whether this kernel is Colab's."""
    try:
        return importlib.util.find_spec("google.colab") is not None
    except ModuleNotFoundError:
        return False


def gpu_names() -> List[str]:
    """What nvidia-smi names."""
    try:
        argv = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60.0, check=False)
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in done.stdout.splitlines() if line.strip()] if done.returncode == 0 else []


def secret(name: str) -> str:
    """Find a secret's value: in the environment, else among Colab's own (the key in the left margin).

    Raises:
        RefusedError: it is in neither.
    """
    if os.environ.get(name):
        return os.environ[name]
    why = "it is not in the environment"
    if on_colab():
        userdata = importlib.import_module("google.colab.userdata")
        troubles = (importlib.import_module("google.colab.errors").Error, userdata.NotebookAccessError)
        try:
            with within(SECRET_ANSWERS):
                return str(userdata.get(name))
        except (NoAnswerError, *troubles) as error:
            why = f"{error or 'no browser answers'}: add it under the key in the left margin, and allow this notebook"
    raise RefusedError(f"the secret {name} is needed: {why}")


def answers() -> bool:
    """Whether a browser shows this notebook now."""
    output = importlib.import_module("google.colab.output")
    errors = importlib.import_module("google.colab.errors")
    try:
        with within(ANSWERS):
            return bool(output.eval_js("6 * 7") == 42)
    except (NoAnswerError, errors.Error):
        return False


@contextlib.contextmanager
def within(seconds: float) -> Iterator[None]:
    """Give up after so long, whatever waits: google.colab waits for a browser without a limit.

    Raises:
        NoAnswerError: it took longer.
    """

    def give_up(*_: object) -> None:
        raise NoAnswerError(f"no browser answers within {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
