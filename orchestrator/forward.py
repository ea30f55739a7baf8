"""Ports of a run's machine on this computer, as long as somebody watches: one child ssh, begun again when it drops.

localhost:8888 ── ssh -L 8888:localhost:8888 ──> the machine's 8888
"""

from __future__ import annotations

import os
import subprocess
from typing import IO, TYPE_CHECKING, NamedTuple, cast

from orchestrator.login import ALIAS, config_of, ssh_program
from orchestrator.render import clean

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from orchestrator.glance import Run
    from orchestrator.home import Home

_REACHABLE = ("starting", "running", "collecting")
_LONGEST_PAUSE = 30.0  # seconds between two tries
_UP = b"gpurun-forward-is-up"
# `cat` and not -N: it ends with our end of the pipe, so that no tunnel outlives a killed viewer.
_HOLD = f"echo {_UP.decode()}; exec cat >/dev/null"
_OPTIONS = ("ExitOnForwardFailure=yes", "ServerAliveInterval=5", "ServerAliveCountMax=3", "ConnectTimeout=15")


class Port(NamedTuple):
    """A port here, and the one of the machine that it stands for."""

    here: int
    there: int


class Forwarder:
    """Keeps the ports forwarded; to be looked at again and again, and closed at the end."""

    def __init__(self, home: Home, ports: Sequence[Port], say: Callable[[str], None]) -> None:
        self._home = home
        self._ports = ports
        self._say = say
        self._child: subprocess.Popen[bytes] | None = None
        self._config: Path | None = None
        self._heard = b""
        self._told = ""
        self._up = False
        self._pause = 1.0
        self._next = 0.0

    def look(self, run: Run, now: float) -> None:
        """Start, restart or end the child, as the run's state asks for; `now` is epoch seconds."""
        config = config_of(self._home, run)
        if run.provider == "local":
            self._tell("nothing is forwarded: the run is on this computer")
        elif run.state not in _REACHABLE or not config.is_file():
            self.close()
        elif self._child is None or config != self._config:
            if now >= self._next or config != self._config:
                self._start(config)
        else:
            self._listen(self._child, now)

    def close(self) -> None:
        """End the child."""
        if self._child is not None:
            self._child.terminate()
            with self._child:  # closes its pipes and waits
                self._child = None

    def _start(self, config: Path) -> None:
        self.close()
        options = [word for option in _OPTIONS for word in ("-o", option)]
        ports = [word for port in self._ports for word in ("-L", f"127.0.0.1:{port.here}:localhost:{port.there}")]
        self._child = subprocess.Popen(
            [ssh_program(), "-F", str(config), "-T", *options, *ports, ALIAS, _HOLD],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for the viewer, which asks
        )
        os.set_blocking(_pipe(self._child).fileno(), False)
        self._config, self._heard, self._up = config, b"", False

    def _listen(self, child: subprocess.Popen[bytes], now: float) -> None:
        over = child.poll() is not None
        self._heard = (self._heard + (_pipe(child).read() or b""))[-4096:]
        if not self._up and _UP in self._heard:
            self._up, self._pause = True, 1.0
            self._tell(" ".join(f"http://localhost:{port.here} is the machine's {port.there}" for port in self._ports))
        if over:
            self._dropped(now)

    def _dropped(self, now: float) -> None:
        self.close()
        self._next, self._pause = now + self._pause, min(2 * self._pause, _LONGEST_PAUSE)
        lines = [line for line in self._heard.replace(_UP, b"").decode(errors="replace").splitlines() if line.strip()]
        self._tell(f"forwarding stopped, it is tried again: {clean(lines[-1]) if lines else 'the connection ended'}")

    def _tell(self, text: str) -> None:
        if text != self._told:
            self._told = text
            self._say(text)


def _pipe(child: subprocess.Popen[bytes]) -> IO[bytes]:
    return cast("IO[bytes]", child.stdout)  # it was started with one
