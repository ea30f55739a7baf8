"""The short cut under the packets: the same bytes with it and without it, over new keys; a spoilt packet is fatal."""

from __future__ import annotations

import random
import socket
import threading
from dataclasses import replace
from hashlib import sha256
from typing import TYPE_CHECKING

import paramiko
import pytest
from paramiko.packet import Packetizer
from sshd import QUICK, Sshd

from providers.errors import UnreachableError
from providers.ssh import packets
from providers.ssh.bulk import pull, push
from providers.ssh.link import Link
from providers.ssh.packets import LARGEST
from providers.ssh.pulse import PulseSocket

if TYPE_CHECKING:
    from pathlib import Path

SIZE = 6 * 2**20
LONG = 10_000  # bytes


def there_and_back(link: Link, folder: Path) -> None:
    data = random.Random(0).randbytes(SIZE)
    (folder / "a").write_bytes(data)
    digest = sha256(data).hexdigest()
    push(link, folder / "a", str(folder / "b"), digest)
    pull(link, str(folder / "b"), folder / "c", SIZE, digest)
    assert (folder / "c").read_bytes() == data


def test_keys_are_renewed_in_the_middle_of_a_file(sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packets.Packets, "REKEY_BYTES", 2**20)
    link = sshd.link()
    link.connect()
    first = link._connection.transport.H
    there_and_back(link, tmp_path)
    assert link.connections == 1
    assert first != link._connection.transport.H
    link.close()


def test_a_paramiko_that_keeps_other_books_goes_its_own_way(
    sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packets, "_BOOKS", ("of_another_name",))
    link = sshd.link()
    there_and_back(link, tmp_path)
    assert link.connections == 1
    link.close()


def test_large_packets_take_the_short_cut(sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ways = {"read": Packetizer.read_message, "sent": Packetizer.send_message}
    long = []

    def read(self: Packetizer) -> tuple[int, paramiko.Message]:
        kind, message = ways["read"](self)
        long.extend([kind] * (len(message.asbytes()) > LONG))
        return kind, message

    def send(self: Packetizer, message: paramiko.Message) -> None:
        long.extend(["sent"] * (len(message.asbytes()) > LONG))
        ways["sent"](self, message)

    monkeypatch.setattr(Packetizer, "read_message", read)
    monkeypatch.setattr(Packetizer, "send_message", send)
    link = sshd.link()
    there_and_back(link, tmp_path)
    link.close()
    assert len(long) < SIZE / LARGEST / 10


def test_a_byte_that_was_changed_on_the_way_ends_the_connection(sshd: Sshd) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        middle = threading.Thread(target=spoil, args=(listener, sshd.port))
        middle.start()
        link = Link(replace(sshd.target(), port=listener.getsockname()[1]), replace(QUICK, tries=1))
        with pytest.raises(UnreachableError):
            link.run("head -c 1000000 /dev/zero", timeout=5)
        link.close()
        middle.join()


def spoil(listener: socket.socket, port: int) -> None:
    """Forward, but change a byte once the daemon has said 200 kB."""
    client, _ = listener.accept()
    with client, socket.create_connection(("127.0.0.1", port)) as server:
        threading.Thread(target=pump, args=(client, server), daemon=True).start()
        said = 0
        try:
            while data := server.recv(4096):
                said += len(data)
                client.sendall(data if said < 200_000 else data[:-1] + bytes([data[-1] ^ 1]))
        except OSError:
            return


def pump(source: socket.socket, sink: socket.socket) -> None:
    try:
        while data := source.recv(4096):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        return


def test_a_packet_longer_than_any_is_not_waited_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        sock = PulseSocket(socket.create_connection(server.getsockname()), ping_seconds=1, misses=1)
        with sock, pytest.raises(paramiko.SSHException, match="longer than any"):
            packets.Packets(sock).read_all(2**31)
