"""The connection to a machine: whom it trusts, what it survives, and that it never waits for ever."""

from __future__ import annotations

import os
import shlex
import shutil
import socket
import subprocess
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from sshd import QUICK, Proxy, Sshd, free_port

from providers.errors import HostKeyError, RemoteError, StateError, UnreachableError
from providers.ssh import keys
from providers.ssh.link import Link, Target

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

ALL_BYTES = bytes(range(256)) * 300


@pytest.fixture
def to(sshd: Sshd, proxy: Proxy, tmp_path: Path) -> Target:
    return replace(sshd.target(proxy.port), access=sshd.access(tmp_path / "attempt"))


@pytest.fixture
def link(to: Target) -> Iterator[Link]:
    link = Link(to, QUICK)
    yield link
    link.close()


def test_a_command_gets_its_input_and_gives_its_output_and_code(link: Link) -> None:
    ran = link.run("cat; echo why >&2; exit 7", stdin=ALL_BYTES, timeout=30)
    assert (ran.code, ran.out, ran.err) == (7, ALL_BYTES, b"why\n")


def test_a_nasty_word_arrives_as_it_is(link: Link, nasty: str) -> None:
    assert link.run(f"printf %s {shlex.quote(nasty)}", timeout=30).out == nasty.encode()


def test_a_command_ended_by_a_signal_is_told_from_a_dropped_link(link: Link) -> None:
    assert link.run("kill -9 $$", timeout=30).code == -1
    assert link.connections == 1


def test_a_command_may_leave_its_input_unread(link: Link) -> None:
    assert link.run("exec <&-; exit 3", stdin=bytes(8 * 2**20), timeout=30).code == 3


def test_a_command_that_takes_too_long_is_left_and_the_link_stands(link: Link) -> None:
    with pytest.raises(RemoteError, match="too long"):
        link.run("sleep 600", timeout=0.2)
    assert link.run("echo on", timeout=30).out == b"on\n"
    assert link.connections == 1


@pytest.mark.parametrize("to_where", ["", ">&2"])
def test_output_is_bounded(link: Link, to_where: str) -> None:
    with pytest.raises(RemoteError, match="more than 100000 bytes"):
        link.run(f"head -c 200000 /dev/zero {to_where}", timeout=30, limit=100_000)


def test_many_commands_share_one_connection(link: Link, proxy: Proxy) -> None:
    for number in range(5):
        assert link.run(f"echo {number}", timeout=30).out == b"%d\n" % number
    assert proxy.connections == 1


def test_a_machine_that_refuses_another_session_is_no_dead_link(tmp_path: Path) -> None:
    with Sshd(tmp_path / "machine", sessions=1) as sshd:
        link = sshd.link()
        stream = link.open("sleep 9")
        with pytest.raises(RemoteError, match="refuses another session"):
            link.open("true")
        stream.close()
        assert link.connections == 1
        link.close()


def test_a_stream_gives_what_comes_when_it_comes(link: Link) -> None:
    stream = link.open("echo one; read line; echo got $line")
    assert stream.read(5) == b"one\n"
    with pytest.raises(TimeoutError):
        stream.read(0.05)
    stream.write(b"two\n", 5)
    assert stream.read(5) == b"got two\n"
    assert (stream.read(5), stream.code(5)) == (b"", 0)
    stream.close()


@pytest.mark.parametrize("content", [None, b"", b"noise"])
def test_a_key_of_ours_that_is_gone_or_spoilt_is_told_as_ours(to: Target, proxy: Proxy, content: bytes | None) -> None:
    private = to.access.folder / "client_ed25519"
    private.unlink()
    if content is not None:
        private.write_bytes(content)
    with pytest.raises(StateError, match="client_ed25519, can't be read"):
        Link(to, QUICK).connect()
    assert proxy.connections == 0


def test_a_folder_of_ours_that_can_not_be_written_is_told_as_ours(to: Target) -> None:
    (to.access.folder / "config").mkdir()
    with pytest.raises(StateError, match="can't be written"):
        Link(to, QUICK).connect()


# ── whom it trusts ───────────────────────────────────────────────────────────────────────────────────────────────


def other_key(folder: Path) -> str:
    keys.make_pair(folder / "other")
    return keys.public_line(folder / "other") + "\n"


def test_another_host_key_is_refused_at_once_and_before_the_login(tmp_path: Path) -> None:
    with Sshd(tmp_path / "machine") as sshd, Proxy(sshd.port) as proxy:
        (sshd.folder / "host_ed25519.pub").write_text(other_key(tmp_path))
        with pytest.raises(HostKeyError, match="another host key"):
            sshd.link(proxy.port).run("echo secret", timeout=30)
        assert proxy.connections == 1
        proxy.cut()
        assert "Connection from" in sshd.log
        assert "publickey" not in sshd.log  # what a login leaves there, taken or refused
        assert not (sshd.folder / "config").exists()


def test_a_host_key_that_changes_later_is_refused(tmp_path: Path) -> None:
    with Sshd(tmp_path / "machine") as sshd:
        link = Link(replace(sshd.target(), access=sshd.access(tmp_path / "attempt")), QUICK)
        link.connect()
        sshd.stop()
        (sshd.folder / "host_ed25519").unlink()
        keys.make_pair(sshd.folder / "host_ed25519")
        sshd.start()
        with pytest.raises(HostKeyError):
            link.run("true", timeout=30)


def test_a_machine_without_an_ed25519_key_is_not_ours(tmp_path: Path) -> None:
    sshd = Sshd(tmp_path / "machine")
    form = serialization
    ecdsa = ec.generate_private_key(ec.SECP256R1())
    (sshd.folder / "host_ed25519").write_bytes(
        ecdsa.private_bytes(form.Encoding.PEM, form.PrivateFormat.OpenSSH, form.NoEncryption()),
    )
    with sshd, pytest.raises(HostKeyError, match="no ssh-ed25519 host key"):
        sshd.link().connect()


def test_without_a_known_key_nobody_is_even_called(to: Target, proxy: Proxy) -> None:
    (to.access.folder / "host_ed25519.pub").unlink()
    with pytest.raises(HostKeyError, match="no host key is known"):
        Link(to, QUICK).connect()
    assert proxy.connections == 0


def test_leave_to_trust_on_first_use_pins_what_was_seen_first(sshd: Sshd, to: Target, tmp_path: Path) -> None:
    pin = to.access.folder / "host_ed25519.pub"
    pin.unlink()
    trusting = replace(to, access=replace(to.access, trust_on_first_use=True))
    link = Link(trusting, QUICK)
    link.connect()
    link.close()
    assert pin.read_text().strip() == keys.public_line(sshd.folder / "host_ed25519")
    pin.write_text(other_key(tmp_path))
    with pytest.raises(HostKeyError):
        link.connect()


def test_no_key_of_the_user_is_looked_at(to: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The right key lies in ~/.ssh and in an agent, the attempt's own is a wrong one: refused."""
    home, private = tmp_path / "user", to.access.folder / "client_ed25519"
    (home / ".ssh").mkdir(parents=True)
    shutil.move(private, home / ".ssh/id_ed25519")
    (home / ".ssh/config").write_text(f"Host *\n  IdentityFile {home}/.ssh/id_ed25519\n")
    keys.make_pair(private)
    monkeypatch.setenv("HOME", str(home))
    with agent_with(home / ".ssh/id_ed25519", tmp_path / "agent") as address:
        monkeypatch.setenv("SSH_AUTH_SOCK", address)
        with pytest.raises(UnreachableError, match="refuses the key"):
            Link(to, QUICK).connect()


class agent_with:  # noqa: N801 - reads as a verb where it is used
    def __init__(self, private: Path, address: Path) -> None:
        self._private, self._address = private, str(address)

    def __enter__(self) -> str:
        self._agent = subprocess.Popen(["ssh-agent", "-D", "-a", self._address], stdout=subprocess.DEVNULL)
        while not os.path.exists(self._address):  # noqa: PTH110
            time.sleep(0.01)
        env = {"PATH": os.environ["PATH"], "SSH_AUTH_SOCK": self._address}
        self._private.chmod(0o600)
        subprocess.run(["ssh-add", "-q", self._private], env=env, check=True)
        return self._address

    def __exit__(self, *_args: object) -> None:
        self._agent.terminate()
        self._agent.wait()


def test_the_fast_cipher_is_agreed_on(link: Link) -> None:
    link.connect()
    transport = link._connection.transport
    assert (transport.local_cipher, transport.remote_cipher) == ("aes128-gcm@openssh.com",) * 2


def test_the_system_ssh_gets_in_with_what_a_login_leaves(link: Link, to: Target) -> None:
    link.connect()
    folder = to.access.folder
    for name in ("config", "known_hosts"):
        assert (folder / name).stat().st_mode & 0o777 == 0o600
    command = ["ssh", "-F", folder / "config", "gpurun", "echo in"]
    assert subprocess.run(command, capture_output=True, timeout=30, check=True).stdout == b"in\n"


def test_the_system_ssh_refuses_another_machine(link: Link, to: Target, tmp_path: Path) -> None:
    link.connect()
    (to.access.folder / "known_hosts").write_text(keys.known_hosts_line(other_key(tmp_path)))
    command = ["ssh", "-F", to.access.folder / "config", "gpurun", "true"]
    assert subprocess.run(command, capture_output=True, timeout=30, check=False).returncode == 255


# ── what it survives ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("fault", ["cut", "blackhole", "freeze"])
def test_a_dead_link_is_noticed_by_whoever_waits_and_mended_by_the_next(link: Link, proxy: Proxy, fault: str) -> None:
    stream = link.open("sleep 600")
    getattr(proxy, fault)()
    with pytest.raises(UnreachableError):
        stream.read(None)
    proxy.open()
    assert link.run("echo back", timeout=30).out == b"back\n"
    assert link.connections == 2


@pytest.mark.parametrize("fault", ["cut", "blackhole", "freeze"])
def test_a_dead_link_is_noticed_by_whoever_writes(link: Link, proxy: Proxy, fault: str) -> None:
    stream = link.open("sleep 600")
    getattr(proxy, fault)()
    with pytest.raises(UnreachableError):
        stream.write(bytes(64 * 2**20), None)


def test_a_quiet_machine_is_not_a_dead_one(link: Link) -> None:
    assert link.run("sleep 0.6; echo still here", timeout=30).out == b"still here\n"
    assert link.connections == 1


def test_a_link_that_died_unnoticed_is_mended_before_the_next_command(link: Link, proxy: Proxy) -> None:
    link.connect()
    proxy.cut()
    assert link.run("echo on", timeout=30).out == b"on\n"


def test_what_may_be_repeated_is_and_what_may_not_is_not(link: Link, proxy: Proxy, tmp_path: Path) -> None:
    def runs(name: str) -> int:
        return (tmp_path / name).read_text().count("x") if (tmp_path / name).exists() else 0

    def command(name: str) -> str:
        file = shlex.quote(str(tmp_path / name))
        return f"echo x >> {file}; [ $(wc -l < {file}) -gt 1 ] || sleep 60; echo done"

    threading.Thread(target=cut_when, args=(proxy, lambda: runs("once") == 1)).start()
    with pytest.raises(UnreachableError, match="dropped"):
        link.run(command("once"), timeout=30)
    threading.Thread(target=cut_when, args=(proxy, lambda: runs("twice") == 1)).start()
    assert link.run(command("twice"), timeout=30, repeatable=True).out == b"done\n"
    assert (runs("once"), runs("twice")) == (1, 2)


def cut_when(proxy: Proxy, is_time: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not is_time() and time.monotonic() < end:
        time.sleep(0.01)
    proxy.cut()


def test_a_restarted_machine_is_found_again_on_its_new_port(tmp_path: Path) -> None:
    with Sshd(tmp_path / "machine") as sshd:
        link = Link(sshd.target, QUICK)
        link.connect()
        sshd.restart()
        assert link.run("echo same", timeout=30).out == b"same\n"
        sshd.restart(free_port())
        assert link.run("echo new", timeout=30).out == b"new\n"
        assert f"Port {sshd.port}\n" in (sshd.folder / "config").read_text()
        link.close()


def test_a_first_connection_is_tried_once_and_a_lost_one_mended_a_few_times(link: Link, proxy: Proxy) -> None:
    proxy.refuse()
    with pytest.raises(UnreachableError):
        link.connect()
    assert proxy.connections == 1
    proxy.open()
    link.connect()
    proxy.refuse()
    with pytest.raises(UnreachableError):
        link.run("true", timeout=30)
    assert proxy.connections == 2 + QUICK.tries


def test_where_nobody_listens_is_told_at_once(to: Target) -> None:
    with pytest.raises(UnreachableError, match="refused"):
        Link(replace(to, port=free_port())).connect()


@pytest.mark.parametrize(
    "words",
    [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\xff\xfe\x00" * 50 + b"\n", b"SSH-2.0-x\r\n" + os.urandom(4000)],
    ids=["silence", "http", "binary", "noise"],
)
def test_what_is_no_sshd_is_given_up_within_the_patience(to: Target, words: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ends = threading.Thread(target=say, args=(listener, words))
        ends.start()
        patience = replace(QUICK, connect_seconds=0.3)
        with pytest.raises(UnreachableError):
            Link(replace(to, port=listener.getsockname()[1]), patience).connect()
        ends.join()


def say(listener: socket.socket, words: bytes) -> None:
    connection, _ = listener.accept()
    with connection:
        connection.settimeout(3)
        connection.sendall(words)
        try:
            while connection.recv(4096):
                pass
        except OSError:
            return


def test_closing_wakes_whoever_waits(link: Link) -> None:
    stream = link.open("sleep 600")
    threading.Timer(0.1, link.close).start()
    with pytest.raises(UnreachableError):
        stream.read(None)


def test_a_connection_that_breaks_leaves_no_line_of_paramikos_in_a_log(
    link: Link, proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    link.connect()
    reader = link._connection.transport
    proxy.cut()
    reader.join(5)
    assert not reader.is_alive()
    assert caplog.records == []
