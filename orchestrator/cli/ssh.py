"""`gpurun ssh`."""

from __future__ import annotations

import os
import sys

import click

from orchestrator.cli.common import WithCommand, find_run, run_argument, take_up
from orchestrator.home import Home


@click.command(cls=WithCommand)
@run_argument
@click.pass_obj
def ssh(command: list[str], /, run: str | None) -> None:
    """Log in to a run's machine, or run one command there.

    RUN is the beginning of a run's id; the newest run when none is given. Becomes the system's ssh, with the run's own
    key and only the host key that was made for this machine; its exit code is the command's. A single word behind -- is
    a line for the shell there.

    \b
    Examples:
      gpurun ssh
      gpurun ssh rent-26 -- nvidia-smi
      gpurun ssh -- 'tail -f ~/.gpurun/jobs/*/log.txt'
    """
    from orchestrator.login import ssh_argv

    home = Home.default()
    take_up(home)
    argv = ssh_argv(home, find_run(home, run), command)
    sys.stdout.flush()
    os.execv(argv[0], argv)  # noqa: S606 (argv, no shell: this process becomes ssh)
