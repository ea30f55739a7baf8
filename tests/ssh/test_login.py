"""`gpurun ssh` and forwarded ports over a real sshd, with the configuration that the byte plane leaves."""

from __future__ import annotations

import getpass
import os
import socket
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest
from past import NOW, admit
from sshd import Proxy, Sshd, free_port

from orchestrator import glance
from orchestrator.forward import Forwarder, Port
from orchestrator.home import Home
from orchestrator.ledger import Ledger
from orchestrator.lifecycle import Memory
from orchestrator.login import config_of
from orchestrator.words import Launch, State
from providers.ssh import keys

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

RUN = "demo-261122-aaaaaa"
RUNNING = Memory(state=State.RUNNING, launch=Launch.ACCEPTED, allocation_id="i-1")


@pytest.fixture
def sshd(home: Path) -> Iterator[Sshd]:
    """The machine of a run's first attempt; its keys lie where that attempt's do."""
    admit(home, RUN, RUNNING)
    ledger = Ledger(home / "ledger.sqlite")
    ledger._db.execute("UPDATE runs SET provider = 'lambda', lease_until = 9e9")
    ledger.close()
    with Sshd(Home(home).run(RUN).ssh / "1") as machine:
        yield machine


def settle(sshd: Sshd, port: int) -> glance.Run:
    """Write what the byte plane writes once the machine was reached."""
    sshd.folder.joinpath("known_hosts").write_text(
        keys.known_hosts_line((sshd.folder / "host_ed25519.pub").read_text().strip()) + "\n"
    )
    sshd.folder.joinpath("config").write_text(keys.config_lines("127.0.0.1", port, getpass.getuser(), sshd.folder))
    run = glance.find(Home(sshd.folder.parents[3]), RUN, NOW)
    assert config_of(Home(sshd.folder.parents[3]), run) == sshd.folder / "config"
    return run


def gpurun(*args: str) -> subprocess.CompletedProcess[str]:
    code = (
        "import sys; from orchestrator import glance; glance.Run.held = lambda *_: True\n"  # held on another computer
        "from orchestrator.cli import main; main(sys.argv[1:])"
    )
    return subprocess.run(
        [sys.executable, "-c", code, *args], capture_output=True, text=True, timeout=30, check=False, env=os.environ
    )


def test_ssh_gives_output_words_and_exit_code_of_the_command(sshd: Sshd) -> None:
    settle(sshd, sshd.port)
    done = gpurun("ssh", RUN, "--", "sh", "-c", "printf '%s|' \"$@\"; exit 7", "sh", "a b", "; echo c", "*")
    assert (done.returncode, done.stdout) == (7, "a b|; echo c|*|"), done.stderr
    assert gpurun("ssh", "--", "echo $((40 + 2)) && false").stdout == "42\n"


def test_ssh_refuses_another_host_key(sshd: Sshd) -> None:
    settle(sshd, sshd.port)
    keys.make_pair(sshd.folder / "other")
    known = keys.known_hosts_line((sshd.folder / "other.pub").read_text().strip())
    (sshd.folder / "known_hosts").write_text(known + "\n")
    done = gpurun("ssh", "--", "touch", str(sshd.home / "was-here"))
    assert done.returncode == 255
    assert "HOST IDENTIFICATION HAS CHANGED" in done.stderr.upper()
    assert not (sshd.home / "was-here").exists()


class Echo:
    """A service on the machine that says who called."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._socket.getsockname()[1])
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                caller, _ = self._socket.accept()
            except OSError:
                return
            with caller:
                caller.sendall(b"from the machine")

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(5)


def answer(port: int) -> bytes:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as caller:
            return caller.recv(100)
    except OSError:
        return b""


def look_until(forwarder: Forwarder, run: glance.Run, fact, *, faster: float = 1.0) -> None:
    """Look as a viewer does; `faster` moves the clock that is handed in."""
    begun = time.monotonic()
    while not fact():
        assert time.monotonic() < begun + 15
        forwarder.look(run, NOW + (time.monotonic() - begun) * faster)
        time.sleep(0.02)


def test_a_port_is_forwarded_as_long_as_somebody_looks_and_again_after_a_cut(sshd: Sshd) -> None:
    said: list[str] = []
    service = Echo()
    with Proxy(sshd.port) as proxy:
        run = settle(sshd, proxy.port)
        here = free_port()
        forwarder = Forwarder(Home(sshd.folder.parents[3]), [Port(here, service.port)], said.append)
        look_until(forwarder, run, lambda: any("http://localhost" in line for line in said))
        assert answer(here) == b"from the machine"
        proxy.cut()
        look_until(forwarder, run, lambda: any("forwarding stopped" in line for line in said))
        look_until(forwarder, run, lambda: answer(here) == b"from the machine", faster=50)
        forwarder.look(run._replace(state="terminating"), NOW)
        assert answer(here) == b""
        forwarder.close()
    service.close()


def test_a_port_that_is_taken_here_is_said_in_sshs_words(sshd: Sshd) -> None:
    said: list[str] = []
    run = settle(sshd, sshd.port)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = int(taken.getsockname()[1])
        forwarder = Forwarder(Home(sshd.folder.parents[3]), [Port(port, port)], said.append)
        look_until(forwarder, run, lambda: said)
        forwarder.close()
    assert "forwarding stopped, it is tried again" in said[0]
    assert str(port) in said[0] or "forward" in said[0]


def test_a_tunnel_ends_with_a_viewer_that_is_killed(sshd: Sshd) -> None:
    settle(sshd, sshd.port)
    here = free_port()
    code = (
        "import sys, time; from orchestrator import glance; from orchestrator.forward import Forwarder, Port\n"
        "from orchestrator.home import Home\n"
        "home = Home.default(); run = glance.find(home, None, time.time())\n"
        "forwarder = Forwarder(home, [Port(int(sys.argv[1]), 9)], print)\n"
        "while True: forwarder.look(run, time.time()); sys.stdout.flush(); time.sleep(0.02)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(here)], stdout=subprocess.PIPE, text=True, env=os.environ
    ) as viewer:
        assert viewer.stdout is not None
        assert "http://localhost" in viewer.stdout.readline()
        viewer.kill()
    until = time.monotonic() + 10
    while _listens(here):
        assert time.monotonic() < until, "the tunnel outlives its viewer"
        time.sleep(0.05)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
