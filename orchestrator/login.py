"""The way into a run's machine by the system's own ssh, with the key and the host key of its present attempt.

The byte plane writes `runs/<id>/ssh/<attempt>/config` once it knows host and port; when the run is over, the folder
is gone.
"""

from __future__ import annotations

import shlex
import shutil
from typing import TYPE_CHECKING

from providers.errors import StateError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from orchestrator.glance import Run
    from orchestrator.home import Home

ALIAS = "gpurun"  # the one host that the config names
ADOPTED = "adopt"  # template of a run that was not launched from here


def config_of(home: Home, run: Run) -> Path:
    """Name the ssh config of the run's present attempt; it is there once the machine was reached."""
    return home.run(run.run_id).ssh / str(run.attempt) / "config"


def ssh_argv(home: Home, run: Run, command: Sequence[str] = ()) -> list[str]:
    """Give the argv that opens a session: one word is a line for the shell there, several are passed as they are.

    Raises:
        UsageError: there is no machine to log in to, or none yet.
        StateError: this computer has no ssh.
    """
    if run.provider == "local":
        where = home.run(run.run_id).path
        raise UsageError(
            f"{run.run_id} runs on this computer: there is nothing to log in to", hint=f"cd {shlex.quote(str(where))}"
        )
    if run.is_done:
        raise UsageError(f"{run.run_id} is over: its machine is gone", hint=f"gpurun show {run.run_id}")
    if run.provider == "colab":
        words = f"{run.run_id} runs on Colab: gpurun opens no shell there"
        raise UsageError(words, hint=f"gpurun logs -f {run.run_id}")
    config = config_of(home, run)
    if run.template == ADOPTED and not config.is_file():
        raise UsageError(f"{run.run_id} was started by hand: gpurun has no key to it", hint="log in with your own")
    if not config.is_file():
        raise UsageError(
            f"the machine of {run.run_id} was not reached yet: {run.state}{f', {run.detail}' if run.detail else ''}",
            hint=f"gpurun logs -f {run.run_id}, or the same command in a minute",
        )
    return [ssh_program(), "-F", str(config), ALIAS, *_line(command)]


def _line(command: Sequence[str]) -> list[str]:
    # ssh joins its words with blanks and hands them to a shell: quoted here, each arrives as it was typed.
    return [command[0] if len(command) == 1 else shlex.join(command)] if command else []


def ssh_program() -> str:
    """Find the system's ssh.

    Raises:
        StateError: there is none.
    """
    found = shutil.which("ssh")
    if found is None:
        raise StateError("this computer has no ssh", hint="on Debian and Ubuntu: apt-get install openssh-client")
    return found
