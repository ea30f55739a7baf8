"""A private sshd with a home of its own, and a TCP proxy in front of it that cuts, blackholes and freezes.

    with Sshd(folder) as sshd, Proxy(sshd.port) as proxy: ...

No root is needed for either; the daemon runs as whoever runs the tests, and only that user can log in. Its sessions
start in `folder/home` (libnss-wrapper, where there is one): a login shell's own files would cost a quarter of a second
each. What lies in `folder/home/bin` is found first there. No watchdog is put into anybody's systemd or crontab.
"""

from __future__ import annotations

import ctypes.util
import getpass
import os
import pwd
import selectors
import shutil
import signal
import socket
import struct
import subprocess
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

from providers.base import Access
from providers.ssh import keys
from providers.ssh.link import Link, Patience, Target

if TYPE_CHECKING:
    from types import TracebackType

# A test run that is killed takes its daemons with it (Linux).
DIE_WITH_PARENT = ["setpriv", "--pdeathsig", "TERM"] if shutil.which("setpriv") else []
SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
QUICK = Patience(connect_seconds=10, ping_seconds=0.3, misses=2, tries=4, wait_seconds=0.02, longest_wait_seconds=0.1)

# What a machine has comes first; a developer's own wrappers (pyenv's take 0.1 s each) only where that is all there is.
_PATH = f"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:{os.environ.get('PATH', '')}"

_CONFIG = """\
Port {port}
ListenAddress 127.0.0.1
AddressFamily inet
HostKey "{folder}/host_ed25519"
PidFile none
AuthorizedKeysFile "{folder}/client_ed25519.pub"
AuthenticationMethods publickey
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
PermitUserRC no
StrictModes no
UsePAM no
UseDNS no
PrintMotd no
PrintLastLog no
MaxStartups 100:30:200
MaxSessions {sessions}
LoginGraceTime 20
LogLevel VERBOSE
Subsystem sftp internal-sftp {sftp}
SetEnv "HOME={home}" "PATH={home}/bin:{path}" "GPURUN_REARM=none"
"""


class Sshd:
    """One daemon on loopback; its keys lie in `folder` as an attempt's do, so that `folder` serves as `Access`."""

    def __init__(self, folder: Path, *, port: int = 0, sessions: int = 64, sftp: str = "") -> None:
        self.folder = folder
        self.home = folder / "home"
        self.home.mkdir(parents=True, exist_ok=True)
        for name in ("client_ed25519", "host_ed25519"):
            keys.make_pair(folder / name)
        self.port = port or free_port()
        self._settings = {"sessions": sessions, "sftp": sftp, "path": _PATH}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        config = self.folder / "sshd_config"
        config.write_text(
            _CONFIG.format(folder=self.folder, home=self.home, port=self.port, **self._settings),
        )
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)  # where sshd locks itself up before the login
        with (self.folder / "sshd.log").open("ab") as log:
            self._process = subprocess.Popen(
                [*DIE_WITH_PARENT, SSHD or "sshd", "-D", "-e", "-f", config], env=self._environment(),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        until = time.monotonic() + 5
        while not _listens(self.port):
            if self._process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"sshd did not start: {self.log}")
            time.sleep(0.01)
        return self

    def _environment(self) -> dict[str, str]:
        """Put the daemon's own view of its user in place of /etc/passwd: the home is `folder/home`."""
        env = {
            "PATH": os.environ.get("PATH", os.defpath),
            "GPURUN_TEST_SESSION": os.environ.get("GPURUN_TEST_SESSION", ""),
        }
        wrapper = ctypes.util.find_library("nss_wrapper") or _wrapper()
        if wrapper:
            users = [pwd.getpwuid(os.geteuid())]
            lines = [f"{user.pw_name}:x:{user.pw_uid}:{user.pw_gid}:x:{self.home}:/bin/bash\n" for user in users]
            lines.append("sshd:x:65533:65534::/run/sshd:/usr/sbin/nologin\n")
            (self.folder / "passwd").write_text("".join(lines))
            (self.folder / "group").write_text("root:x:0:\nnogroup:x:65534:\n")
            env |= {
                "LD_PRELOAD": wrapper,
                "NSS_WRAPPER_PASSWD": str(self.folder / "passwd"),
                "NSS_WRAPPER_GROUP": str(self.folder / "group"),
            }
        return env

    @property
    def log(self) -> str:
        return (self.folder / "sshd.log").read_text()

    @property
    def pid(self) -> int:
        return self._process.pid if self._process else 0

    def below(self, word: str) -> list[int]:
        """Name the processes of its sessions whose command line holds a word."""
        found = []
        for pid in _descendants(self.pid):
            try:
                if word in Path(f"/proc/{pid}/cmdline").read_text():
                    found.append(pid)
            except OSError:
                continue
        return found

    def stop(self) -> None:
        """End the daemon and every session of it, as a reboot would."""
        process, self._process = self._process, None
        if process is None:
            return
        children = _descendants(process.pid)
        process.terminate()
        process.wait(timeout=5)
        for pid in children:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue

    def restart(self, port: int = 0) -> None:
        self.stop()
        self.port = port or self.port
        self.start()

    def access(self, folder: Path | None = None, *, trust: bool = False) -> Access:
        """Give what a controller has of an attempt, in a folder of its own where one is named."""
        if folder is None:
            return Access(self.folder, trust_on_first_use=trust)
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("client_ed25519", "host_ed25519.pub"):
            shutil.copy(self.folder / name, folder / name)
        return Access(folder, trust_on_first_use=trust)

    def target(self, port: int = 0) -> Target:
        return Target("127.0.0.1", port or self.port, getpass.getuser(), self.access())

    def link(self, port: int = 0, patience: Patience = QUICK) -> Link:
        return Link(self.target(port), patience)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()


class Proxy:
    """Forwards to a port of 127.0.0.1, one thread for all connections, until told otherwise."""

    def __init__(self, to: int) -> None:
        self.to = to
        self.moved = 0  # bytes from the daemon to the client, over all connections
        self.sent = 0  # bytes from the client to the daemon
        self.cuts: list[int] = []  # cut all when so many bytes have moved (either way), the next one first
        self.connections = 0
        self._mode = "open"
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._select = selectors.DefaultSelector()
        self._select.register(self._listener, selectors.EVENT_READ)
        self._peers: dict[socket.socket, socket.socket] = {}
        self._clients: set[socket.socket] = set()
        self._wake, self._woken = socket.socketpair()
        self._select.register(self._woken, selectors.EVENT_READ)
        self._orders: list[str] = []
        self._thread = threading.Thread(target=self._run, daemon=True)

    def cut(self) -> None:
        """Reset every connection; new ones are taken."""
        self._order("cut")

    def blackhole(self) -> None:
        """Take what comes and pass nothing on; new connections are taken and get nothing either."""
        self._order("blackhole")

    def freeze(self) -> None:
        """Read nothing any more: the peer's kernel acknowledges until its buffers are full, and nobody answers."""
        self._order("freeze")

    def open(self) -> None:
        """Forward again. What was swallowed is lost."""
        self._order("open")

    def refuse(self) -> None:
        """Cut, and reset every new connection."""
        self._order("refuse")

    def later(self, seconds: float, word: str) -> None:
        """Do one of these after a while, by itself."""
        threading.Timer(seconds, self._order, (word,)).start()

    def _order(self, word: str) -> None:
        self._orders.append(word)
        self._wake.send(b"x")
        until = time.monotonic() + 5
        while self._orders and time.monotonic() < until:
            time.sleep(0.001)

    def _run(self) -> None:
        while True:
            for key, _ in self._select.select():
                if key.fileobj is self._woken:
                    self._woken.recv(100)
                    while self._orders:
                        if self._obey(self._orders[0]):
                            return
                        self._orders.pop(0)
                elif key.fileobj is self._listener:
                    self._accept()
                elif key.fileobj in self._peers:
                    self._forward(key.fileobj)

    def _obey(self, word: str) -> bool:
        if word in {"cut", "refuse", "end"}:
            self._cut()
        if word != "cut":
            self._mode = word
        for each in self._peers:
            self._watch(each, wanted=word != "freeze")
        return word == "end"

    def _watch(self, each: socket.socket, *, wanted: bool) -> None:
        known = each.fileno() in self._select.get_map()
        if wanted and not known:
            self._select.register(each, selectors.EVENT_READ)
        elif known and not wanted:
            self._select.unregister(each)

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        self.connections += 1
        if self._mode == "refuse":
            _reset(client)
            return
        try:
            server = socket.create_connection(("127.0.0.1", self.to), timeout=5)
        except OSError:
            _reset(client)
            return
        self._clients.add(client)
        for one, other in ((client, server), (server, client)):
            one.settimeout(5)
            self._peers[one] = other
            self._watch(one, wanted=self._mode != "freeze")

    def _forward(self, source: socket.socket) -> None:
        peer = self._peers[source]
        try:
            data = source.recv(1 << 16)
            if not data:
                self._drop(source, peer)
                return
            if self._mode == "open":
                peer.sendall(data)
        except OSError:
            self._drop(source, peer)
            return
        if source in self._clients:
            self.sent += len(data)
        else:
            self.moved += len(data)
        if self.cuts and self.moved + self.sent >= self.cuts[0]:
            self.cuts.pop(0)
            self._cut()

    def _drop(self, *pair: socket.socket) -> None:
        for each in pair:
            self._watch(each, wanted=False)
            self._peers.pop(each, None)
            self._clients.discard(each)
            each.close()

    def _cut(self) -> None:
        for each in list(self._peers):
            self._watch(each, wanted=False)
            _reset(each)
        self._peers.clear()
        self._clients.clear()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._orders.append("end")
        self._wake.send(b"x")
        self._thread.join(timeout=5)
        self._select.close()
        for each in (self._listener, self._wake, self._woken):
            each.close()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _wrapper() -> str:
    found = sorted(Path("/usr/lib").glob("*/libnss_wrapper.so*"))
    return str(found[0]) if found else ""


def _descendants(pid: int) -> list[int]:
    """Name all processes below one; Linux only, as /proc is."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found, level = [], {pid}
    while level:
        level = {child for child, parent in parents.items() if parent in level}
        found.extend(level)
    return found
