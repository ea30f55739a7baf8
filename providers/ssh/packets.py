"""paramiko's packet layer with a short cut for what large files are made of.

A packet is gathered in the socket's buffer, decrypted from there and handed on as it is; paramiko's own way copies it
five times, and eight times on its way out: a quarter of all the CPU (2026-11). Everything else, key exchanges included,
goes paramiko's way, and so does every packet where a paramiko keeps its books under other names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from paramiko.common import MSG_CHANNEL_DATA
from paramiko.message import Message
from paramiko.packet import Packetizer
from paramiko.ssh_exception import SSHException

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    from providers.ssh.pulse import PulseSocket

_TAG = 16  # bytes of AES-GCM's seal
_LONGEST = 2**20  # bytes of any packet: four times what OpenSSH takes or sends
_BOOKS = (
    *("aead_in", "block_engine_in", "iv_in", "sequence_number_in", "received_bytes", "received_packets", "need_rekey"),
    *("aead_out", "block_engine_out", "iv_out", "sequence_number_out", "sent_bytes", "sent_packets", "write_lock"),
)
_LARGE = 4096  # bytes of a message that is worth a short cut


class Content(Message):
    """A packet of channel data, read in place."""

    def __init__(self, view: memoryview) -> None:
        self._view = view
        self._at = 0

    def get_int(self) -> int:
        """Read four bytes."""
        self._at += 4
        return int.from_bytes(self._view[self._at - 4 : self._at], "big")

    def get_binary(self) -> memoryview:  # type: ignore[override]
        """Read a length, and give that much without copying it."""
        size = self.get_int()
        return self._view[self._at : self._at + size]


class Packets(Packetizer):
    """One connection's packets."""

    _Packetizer__aead_in: bool
    _Packetizer__block_engine_in: AESGCM
    _Packetizer__iv_in: bytes
    _Packetizer__sequence_number_in: int
    _Packetizer__received_bytes: int
    _Packetizer__received_packets: int
    _Packetizer__need_rekey: bool
    _Packetizer__aead_out: bool
    _Packetizer__block_engine_out: AESGCM
    _Packetizer__iv_out: bytes
    _Packetizer__sequence_number_out: int
    _Packetizer__sent_bytes: int
    _Packetizer__sent_packets: int
    _Packetizer__write_lock: AbstractContextManager[bool]

    def __init__(self, sock: PulseSocket) -> None:
        super().__init__(sock)
        self._sock = sock
        self._known = all(hasattr(self, f"_Packetizer__{name}") for name in _BOOKS)
        self._shaken = False

    def complete_handshake(self) -> None:
        """Take the handshake for done; paramiko says it again with every packet."""
        if not self._shaken:
            super().complete_handshake()
            self._shaken = True

    def read_all(self, n: int, check_rekey: bool = False) -> bytes:  # noqa: FBT001, FBT002 - paramiko's own shape
        """Read so much; a length is believed before its seal is checked, so that it must be bounded here."""
        if n > _LONGEST:
            raise SSHException("the machine announces a packet longer than any that it may send")
        return super().read_all(n, check_rekey)

    def read_message(self) -> tuple[int, Message]:
        """Give the next packet's kind and content."""
        if not (self._known and self._Packetizer__aead_in) or self._Packetizer__need_rekey:
            return super().read_message()
        head = self._sock.gather(4)
        size = 0 if head is None else int.from_bytes(head, "big")
        whole = 4 + size + _TAG
        sealed = None if size < _TAG or self._due(whole) else self._sock.gather(whole)
        if sealed is None:
            return super().read_message()
        packet = self._Packetizer__block_engine_in.decrypt(self._Packetizer__iv_in, sealed[4:], sealed[:4])
        self._sock.skip(whole)
        self._Packetizer__iv_in = _next_iv(self._Packetizer__iv_in)
        number = self._Packetizer__sequence_number_in
        self._Packetizer__sequence_number_in = (number + 1) & 0xFFFFFFFF
        self._Packetizer__received_bytes += whole
        self._Packetizer__received_packets += 1
        content = memoryview(packet)[2 : size - packet[0]]
        message = Content(content) if packet[1] == MSG_CHANNEL_DATA else Message(content.tobytes())
        message.seqno = number
        return packet[1], message

    def send_message(self, data: Message) -> None:
        """Seal a message and send it."""
        if not (self._known and self._Packetizer__aead_out):
            super().send_message(data)
            return
        with data.packet.getbuffer() as content, self._Packetizer__write_lock:
            size = len(content)
            if size < _LARGE or self._due_out(size):
                super().send_message(data)
                return
            padding = 19 - (size + 4) % 16  # to whole blocks, at least four bytes; not random: GCM needs none
            head = (size + padding + 1).to_bytes(4, "big")
            plain = b"".join((bytes((padding,)), content, bytes(padding)))
            sealed = self._Packetizer__block_engine_out.encrypt(self._Packetizer__iv_out, plain, head)
            self._Packetizer__iv_out = _next_iv(self._Packetizer__iv_out)
            self._Packetizer__sequence_number_out += 1
            self.write_all(head + sealed)
            self._Packetizer__sent_bytes += len(sealed)
            self._Packetizer__sent_packets += 1

    def _due_out(self, size: int) -> bool:
        return (
            self._Packetizer__sent_bytes + size + _LARGE >= self.REKEY_BYTES
            or self._Packetizer__sent_packets + 1 >= self.REKEY_PACKETS
            or self._Packetizer__sequence_number_out == 0xFFFFFFFF
        )

    def _due(self, whole: int) -> bool:
        """Leave the packet that makes new keys due to paramiko, which asks for them."""
        return (
            self._Packetizer__received_bytes + whole >= self.REKEY_BYTES
            or self._Packetizer__received_packets + 1 >= self.REKEY_PACKETS
            or self._Packetizer__sequence_number_in == 0xFFFFFFFF
        )


def _next_iv(iv: bytes) -> bytes:
    """Count the last eight bytes up: RFC 5647, 7.1."""
    return iv[:4] + ((int.from_bytes(iv[4:], "big") + 1) & 0xFFFFFFFFFFFFFFFF).to_bytes(8, "big")
