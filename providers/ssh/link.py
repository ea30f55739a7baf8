"""One SSH connection to one machine: pinned, kept, noticed when it dies, mended a few times, never waited for forever.

    Link ── run(command) -> Ran          one command, bounded output
         ├─ open(command) -> Stream      one command whose output is read as it comes
         └─ sftp() -> Channel            for bulk.py
    fabric.Connection connects; the socket below it is pulse.py's; the host's key is checked before anything is sent.

Raises HostKeyError (another machine, or somebody between: nothing was sent), UnreachableError (no connection, or it
dropped: what was asked for may or may not have been done), RemoteError (the rest).
"""

from __future__ import annotations

import logging
import random
import socket
import struct
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import paramiko
from fabric import Config, Connection
from paramiko.config import SSHConfig

from providers.errors import HostKeyError, RemoteError, StateError, UnreachableError
from providers.ssh import keys
from providers.ssh.packets import Packets
from providers.ssh.pulse import PulseSocket
from providers.ssh.stream import DROPPED, Ran, Stream, collect, quicken

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from providers.base import Access

__all__ = ["Link", "Patience", "Ran", "Stream", "Target"]

_WINDOW = 16 * 2**20  # bytes; paramiko's own 2 MiB cap a channel near 52 MB/s at 40 ms
_PACKET = 128 * 2**10  # bytes
_GCM = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com")  # half the CPU of paramiko's first choice
_HOST_KEY = "ssh-ed25519"  # the only kind that is made here, so the only kind that is asked for
_KEEPALIVE = b"\x50" + struct.pack(">I", 21) + b"keepalive@openssh.com" + b"\x01"  # global request, reply wanted

logging.getLogger("paramiko").setLevel(logging.CRITICAL)  # our errors say it; its tracebacks are not for people


@dataclass(frozen=True, slots=True)
class Target:
    """Where a machine answers, and what is known of it."""

    host: str
    port: int
    user: str
    access: Access
    fingerprints: tuple[str, ...] = ()  # "SHA256:…": the vendor's own word on its host key, before what is pinned


@dataclass(frozen=True, slots=True)
class Patience:
    """How long what may take. A first connection is tried once: waiting for a machine is the controller's."""

    connect_seconds: float = 15.0  # each of: TCP, banner and keys, login, a channel
    ping_seconds: float = 5.0  # silence before it is asked for a sign of life
    misses: int = 3  # unanswered questions before it is taken for dead
    stall_seconds: float = 60.0  # a transfer that stands still while the link lives: the machine's disk hangs
    tries: int = 4  # to mend a connection that stood
    wait_seconds: float = 0.5  # before the second try; doubles, with jitter
    longest_wait_seconds: float = 8.0


class Link:
    """The one connection to a machine. One user thread at a time; `close` may come from another."""

    def __init__(self, where: Target | Callable[[], Target], patience: Patience | None = None) -> None:
        """`where` may be asked again before each connection: a restarted machine can answer on another port."""
        self._where = where
        self.patience = patience or Patience()
        self._connection: Connection | None = None
        self._stood = False
        self._lock = threading.RLock()
        self.connections = 0  # so far

    def connect(self) -> None:
        """Stand, connecting if need be; for those who want to know before they ask for anything."""
        self._transport()

    @property
    def alive(self) -> bool:
        """Whether the connection stands, as far as is known without asking."""
        connection = self._connection
        return connection is not None and connection.is_connected

    def run(
        self, command: str, *, stdin: bytes = b"", timeout: float, limit: int = 8 * 2**20, repeatable: bool = False
    ) -> Ran:
        """Run a command in the user's login shell; `limit` = most bytes of output, each of both kinds.

        `repeatable` = it may be run again when the connection drops under it.

        Raises:
            UnreachableError: no connection, or it dropped: the command may have run.
            RemoteError: it took more than `timeout` seconds, or said more than `limit`.
        """
        until = time.monotonic() + timeout
        for left in range(self.patience.tries if repeatable else 1, 0, -1):
            try:
                return collect(self.open(command), stdin, until, limit)
            except UnreachableError:
                if left == 1 or time.monotonic() > until:
                    raise
        raise AssertionError  # the last try returned or raised

    def open(self, command: str) -> Stream:
        """Start a command and give its streams."""
        channel = self._channel()
        try:
            channel.exec_command(command.encode("utf-8", "surrogateescape"))
        except DROPPED as error:
            channel.close()
            raise self._dropped(error) from error
        return Stream(channel, self.name, self.patience.stall_seconds)

    def sftp(self) -> paramiko.Channel:
        """Open a channel that speaks SFTP."""
        channel = self._channel()
        try:
            channel.invoke_subsystem("sftp")
        except DROPPED as error:
            channel.close()
            if self.alive:
                raise RemoteError(f"{self.name} offers no SFTP") from error
            raise self._dropped(error) from error
        return channel

    def close(self) -> None:
        """Let go; the next use connects again."""
        with self._lock:
            connection, self._connection = self._connection, None
        if connection is not None:
            connection.client.close()

    @property
    def name(self) -> str:
        """Who it is, for messages."""
        where = self._where if isinstance(self._where, Target) else None
        return f"{where.host}:{where.port}" if where else "the machine"

    # ── one channel, on a connection that stands ─────────────────────────────────────────────────────────────────

    def _channel(self) -> paramiko.Channel:
        """Open a channel. That a connection died unnoticed shows here: then a new one is made, once."""
        for last in (False, True):
            transport = self._transport()
            try:
                return quicken(transport.open_session(timeout=self.patience.connect_seconds))
            except paramiko.ChannelException as error:
                raise RemoteError(f"{self.name} refuses another session: {error.text}") from error
            except DROPPED as error:
                self.close()
                if last:
                    raise self._dropped(error) from error
        raise AssertionError

    def _dropped(self, error: BaseException) -> UnreachableError:
        return UnreachableError(f"the connection to {self.name} dropped: {_words(error)}")

    def _transport(self) -> paramiko.Transport:
        with self._lock:
            if self._connection is None or not self.alive:
                self.close()
                self._connection = self._mend()
                self._stood = True
                self.connections += 1
            transport: paramiko.Transport = self._connection.transport
            return transport

    def _mend(self) -> Connection:
        wait = self.patience.wait_seconds
        for left in range(self.patience.tries if self._stood else 1, 0, -1):
            try:
                return self._connect_once(self._where if isinstance(self._where, Target) else self._where())
            except UnreachableError:
                if left == 1:
                    raise
            time.sleep(wait * random.uniform(0.5, 1.5))  # noqa: S311 - hides no secret
            wait = min(2 * wait, self.patience.longest_wait_seconds)
        raise AssertionError

    # ── connecting ───────────────────────────────────────────────────────────────────────────────────────────────

    def _connect_once(self, where: Target) -> Connection:
        patience, name = self.patience, f"{where.host}:{where.port}"
        pin = _Pin(where)
        key = _client_key(where.access.folder / "client_ed25519")
        sock = self._dial(where)
        connection = Connection(
            where.host, user=where.user, port=where.port,
            config=Config(lazy=True, ssh_config=SSHConfig()),  # nothing of the user's own configuration
            connect_kwargs={
                "sock": sock, "pkey": key, "allow_agent": False, "look_for_keys": False,
                "timeout": patience.connect_seconds, "banner_timeout": patience.connect_seconds,
                "auth_timeout": patience.connect_seconds, "channel_timeout": patience.connect_seconds,
                "transport_factory": self._make_transport,
            },
        )  # fmt: skip
        connection.client.set_missing_host_key_policy(pin)  # in place of fabric's, which takes any key
        try:
            connection.open()
            _settle(where.access.folder, where, pin.key)
        except BaseException as error:
            connection.client.close()
            sock.close()
            if isinstance(error, paramiko.AuthenticationException):
                raise UnreachableError(f"{name} refuses the key of {where.user!r} made for this attempt") from error
            if isinstance(error, paramiko.ssh_exception.IncompatiblePeer) and "host key" in str(error):
                raise HostKeyError(f"{name} has no {_HOST_KEY} host key, so not the one made for it") from error
            if isinstance(error, DROPPED):
                raise UnreachableError(f"{name} does not answer over SSH: {_words(error)}") from error
            raise
        return connection

    def _dial(self, where: Target) -> PulseSocket:
        patience = self.patience
        try:
            plain = socket.create_connection((where.host, where.port), timeout=patience.connect_seconds)
        except (OSError, UnicodeError) as error:
            raise UnreachableError(f"{where.host}:{where.port} does not answer: {_words(error)}") from error
        return PulseSocket(plain, ping_seconds=patience.ping_seconds, misses=patience.misses)

    def _make_transport(self, sock: PulseSocket, **_options: object) -> paramiko.Transport:
        """Make a transport as measured fastest, that asks for nothing but the kind of host key that is pinned."""
        transport = paramiko.Transport(
            sock, default_window_size=_WINDOW, default_max_packet_size=_PACKET, packetizer_class=Packets
        )
        options = transport.get_security_options()
        options.ciphers = (*_GCM, *(name for name in options.ciphers if name not in _GCM))
        options.key_types = (_HOST_KEY,)
        transport.handshake_timeout = self.patience.connect_seconds
        transport.clear_to_send_timeout = self.patience.ping_seconds * (self.patience.misses + 1)
        question = paramiko.Message(_KEEPALIVE)

        def ask() -> None:
            if transport.clear_to_send.is_set() and not transport.packetizer.need_rekey():
                transport.packetizer.send_message(question)

        sock.ask_with(ask)
        return transport


class _Pin(paramiko.MissingHostKeyPolicy):
    """Take the one key that is pinned, or the first that is seen where the user gave explicit leave."""

    def __init__(self, where: Target) -> None:
        path = where.access.folder / "host_ed25519.pub"
        self._name = f"{where.host}:{where.port}"
        self._told = where.fingerprints
        self.key = keys.read_public(path) if path.exists() and not self._told else ""
        if not self.key and not self._told and not where.access.trust_on_first_use:
            raise HostKeyError(f"no host key is known for {self._name}, and none is trusted unseen")

    def missing_host_key(self, client: paramiko.SSHClient, hostname: str, key: paramiko.PKey) -> None:  # noqa: ARG002
        """Judge before the login: nothing of ours has been sent yet."""
        shown = f"{key.get_name()} {key.get_base64()}"
        if self._told and f"{key.fingerprint}".rstrip("=") not in self._told:
            raise HostKeyError(f"{self._name} shows another host key than its vendor names: {key.fingerprint}")
        if self.key and shown != self.key:
            message = f"{self._name} shows another host key than the one made for it: {key.fingerprint}"
            raise HostKeyError(message, hint="if all of them do: launch with --trust-on-first-use, from a safe network")
        self.key = shown


def _client_key(path: Path) -> paramiko.Ed25519Key:
    try:
        return paramiko.Ed25519Key.from_private_key_file(str(path))
    except (OSError, ValueError, paramiko.SSHException) as error:
        raise StateError(f"the key of this attempt, {path}, can't be read: {_words(error)}") from error


def _settle(folder: Path, where: Target, host_key: str) -> None:
    """Pin what was seen, and leave what `ssh -F <folder>/config gpurun` needs."""
    files = {
        "host_ed25519.pub": f"{host_key}\n",
        "known_hosts": keys.known_hosts_line(host_key) + "\n",
        "config": keys.config_lines(where.host, where.port, where.user, folder),
    }
    try:
        for name, content in files.items():
            path = folder / name
            if name == "config" and "\n" in str(path):
                continue  # a newline can't be spelt in ssh's configuration
            if name == "host_ed25519.pub" and path.exists() and keys.read_public(path) == host_key:
                continue  # pinned already, perhaps with a comment
            if not path.exists() or path.read_text() != content:
                keys.write_private(path, content.encode())
    except OSError as error:
        raise StateError(f"{folder} can't be written: {_words(error)}") from error


def _words(error: BaseException) -> str:
    """Say an error in words; an EOF has none."""
    spoken = str(getattr(error, "strerror", None) or error)
    return spoken or {"EOFError": "it was closed", "TimeoutError": "timed out"}.get(type(error).__name__, repr(error))
