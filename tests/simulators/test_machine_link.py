"""The wire to a simulated machine, before an echo: what is cut, blackholed or frozen, and what passes afterwards."""

from __future__ import annotations

import contextlib
import errno
import socket
import threading
import time
import uuid
from typing import TYPE_CHECKING

import pytest
from boxes import until

from simulators.machine import Link

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE = 10.0


def echo(server: socket.socket) -> None:
    """Send back what comes, each connection in a thread, until the server is closed."""

    def serve(one: socket.socket) -> None:
        with one, contextlib.suppress(OSError):
            while data := one.recv(2**18):
                one.sendall(data)

    threads = []
    with contextlib.suppress(OSError):
        while True:
            threads.append(threading.Thread(target=serve, args=(server.accept()[0],)))
            threads[-1].start()
    for thread in threads:
        thread.join()


@pytest.fixture
def link() -> Iterator[Link]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=echo, args=(server,))
        thread.start()
        wire = Link((f"127.{uuid.uuid4().int % 200 + 20}.{uuid.uuid4().int % 250 + 1}.1", 2200), server.getsockname())
        wire.open()
        yield wire
        wire.close()
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.fixture
def client(link: Link) -> Iterator[socket.socket]:
    with socket.create_connection(link.listen, timeout=PATIENCE) as one:
        yield one


def exchange(client: socket.socket, data: bytes) -> bytes:
    sender = threading.Thread(target=client.sendall, args=(data,))
    sender.start()
    found = b""
    while len(found) < len(data) and (part := client.recv(2**18)):
        found += part
    sender.join()
    return found


def test_bytes_come_back_as_they_went(link, client):
    data = bytes(range(256)) * 8192
    assert exchange(client, data) == data
    until(lambda: link.passed_bytes == 2 * len(data), "the count, which its thread makes after it has sent")


def test_an_end_of_stream_passes_with_everything_before_it(client):
    client.sendall(b"x" * 100_000)
    client.shutdown(socket.SHUT_WR)
    assert sum(iter(lambda: len(client.recv(2**16)), 0)) == 100_000


def test_a_cut_resets_what_is_connected_and_lets_new_connections_through(link, client):
    exchange(client, b"hello")
    link.cut()
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    with socket.create_connection(link.listen, timeout=PATIENCE) as again:
        assert exchange(again, b"hello") == b"hello"


def test_a_cut_comes_after_so_many_bytes_and_as_often_as_told(link):
    link.cut(after_bytes=1000, times=2)
    for _ in range(2):
        before = link.passed_bytes
        with socket.create_connection(link.listen, timeout=PATIENCE) as one:
            exchange(one, b"x" * 300)
            with pytest.raises(ConnectionError):
                exchange(one, b"x" * 300)
        assert link.passed_bytes - before == 1000
    with socket.create_connection(link.listen, timeout=PATIENCE) as one:
        assert exchange(one, b"x" * 3000) == b"x" * 3000


def test_a_cut_comes_after_some_time(link, client):
    exchange(client, b"hello")
    begun = time.monotonic()
    link.cut(after_seconds=0.2)
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    assert time.monotonic() - begun >= 0.2


def test_into_a_blackhole_nothing_is_acknowledged(link, client):
    exchange(client, b"hello")
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 300)
    link.blackhole()
    client.sendall(b"is anybody there?")
    with pytest.raises(TimeoutError) as seen:
        client.recv(1)
    assert seen.value.errno == errno.ETIMEDOUT, "the kernel's word, not the socket's own timeout"
    with pytest.raises(TimeoutError), socket.create_connection(link.listen, timeout=0.1):
        pass


def test_a_frozen_peer_acknowledges_and_says_nothing(link, client):
    exchange(client, b"hello")
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 200)
    client.settimeout(0.5)
    link.freeze()
    client.sendall(b"is anybody there?")
    with pytest.raises(TimeoutError) as seen:
        client.recv(1)
    assert seen.value.errno is None, "the socket's own timeout, not the kernel's"
    link.heal()
    assert client.recv(100) == b"is anybody there?"


@pytest.mark.parametrize("fault", ["blackhole", "freeze"])
def test_what_a_fault_held_back_comes_when_it_is_over(link, client, fault):
    exchange(client, b"hello")
    getattr(link, fault)(for_seconds=0.1)
    client.sendall(b"late")
    assert client.recv(100) == b"late"


def test_one_fault_takes_the_place_of_another(link, client):
    exchange(client, b"hello")
    link.blackhole()
    link.freeze()
    client.sendall(b"1")
    link.heal()
    assert client.recv(10) == b"1"
    link.freeze()
    link.cut()
    with pytest.raises(ConnectionResetError):
        client.recv(1)


def test_healing_forgets_the_faults_to_come(link, client):
    link.cut(after_bytes=10)
    link.heal()
    assert exchange(client, b"x" * 100) == b"x" * 100


def test_what_is_shut_refuses_until_it_is_opened(link, client):
    link.shut()
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(link.listen)
    link.open()
    with socket.create_connection(link.listen, timeout=PATIENCE) as again:
        assert exchange(again, b"hello") == b"hello"


def test_where_nobody_listens_behind_it_a_connection_is_reset(link):
    link.target = ("127.0.0.1", 1)
    # The reset may be there before `connect` has looked.
    with pytest.raises(ConnectionResetError), socket.create_connection(link.listen, timeout=PATIENCE) as one:
        one.recv(1)


def test_a_port_that_is_taken_is_an_error_of_whoever_opens(link):
    other = Link(link.listen, link.target)
    with pytest.raises(OSError, match="in use"):
        other.open()
    other.close()


def test_closing_twice_and_faults_on_what_is_closed_do_nothing(link):
    link.close()
    link.close()
    link.cut()
    link.heal()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(link.listen)


def test_a_reader_who_is_slow_gets_everything(client):
    sender = threading.Thread(target=client.sendall, args=(b"y" * 2**23,))
    sender.start()
    time.sleep(0.1)  # buffers fill, and the wire has to wait
    found = 0
    while found < 2**23:
        found += len(client.recv(2**16))
    sender.join()
