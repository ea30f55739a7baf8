"""paramiko's packet layer with a short cut for what large files are made of.

Packets are opened in the socket's buffer, all that have come at once, and handed on as they are; those on their way out
are sealed one behind the other and sent in one call. paramiko's own way copies each five and eight times and wakes
somebody for it: a third of all the CPU (2026-11). Everything else, key exchanges included, goes paramiko's way, and so
does every packet where a paramiko keeps its books under other names.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from paramiko.common import MSG_CHANNEL_DATA
from paramiko.message import Message
from paramiko.packet import Packetizer
from paramiko.ssh_exception import SSHException

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from providers.ssh.pulse import PulseSocket

_TAG = 16  # bytes of AES-GCM's seal
_LONGEST = 2**20  # bytes of any packet: four times what OpenSSH takes or sends
_BOOKS = (
    *("aead_in", "block_engine_in", "iv_in", "sequence_number_in", "received_bytes", "received_packets", "need_rekey"),
    *("aead_out", "block_engine_out", "iv_out", "sequence_number_out", "sent_bytes", "sent_packets", "write_lock"),
)
_AT_ONCE = 8  # packets sent in one call: a request of 255 KiB
LARGEST = 2**15  # bytes of data in one packet of ours: what OpenSSH takes
_AROUND = 64  # bytes, at most, that a packet holds besides


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


class Burst:
    """Data of one channel, in pieces that are a packet each: sealed one by one, sent in one call."""

    def __init__(self, channel: int, pieces: list[memoryview]) -> None:
        self._channel, self._pieces = channel, pieces

    def packets(self) -> Iterator[tuple[bytes, memoryview]]:
        """Give what a packet holds: its head, and the data."""
        for piece in self._pieces:
            yield struct.pack(">BII", MSG_CHANNEL_DATA, self._channel, len(piece)), piece


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
        books = all(hasattr(self, f"_Packetizer__{name}") for name in _BOOKS)
        self._known = books and hasattr(AESGCM, "encrypt_into")  # an older cryptography has none
        self._shaken = False
        self._plain = memoryview(bytearray(LARGEST + _AROUND))
        self._sealed = memoryview(bytearray(_AT_ONCE * (LARGEST + _AROUND)))
        self.tap: tuple[bytes, Callable[[list[memoryview]], None]] | None = None  # how a packet of it begins, its user

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
        """Give the next packet's kind and content; what the tap takes goes there, as much at once as has come."""
        burst: list[memoryview] = []
        while True:
            tap, opened = self.tap, self._open(wait=not burst)
            while opened is not None and tap is not None and opened[:5] == tap[0]:
                burst.append(opened[9 : 9 + int.from_bytes(opened[5:9], "big")])
                opened = self._open(wait=False)
            if not burst or tap is None:
                break
            tap[1](burst)
            burst = []
            if opened is not None:
                break
        if opened is None:
            return super().read_message()
        message = Content(opened[1:]) if opened[0] == MSG_CHANNEL_DATA else Message(opened[1:].tobytes())
        message.seqno = (self._Packetizer__sequence_number_in - 1) & 0xFFFFFFFF
        return opened[0], message

    def _open(self, *, wait: bool) -> memoryview | None:
        """Give the next packet's kind and content; None = paramiko is to do it, or not to `wait` and it is not here."""
        if not (self._known and self._Packetizer__aead_in) or self._Packetizer__need_rekey:
            return None
        head = self._sock.gather(4, wait=wait)
        size = 0 if head is None else int.from_bytes(head, "big")
        whole = 4 + size + _TAG
        sealed = None if size < _TAG or self._due(whole) else self._sock.gather(whole, wait=wait)
        if sealed is None:
            return None
        packet = self._Packetizer__block_engine_in.decrypt(self._Packetizer__iv_in, sealed[4:], sealed[:4])
        self._sock.skip(whole)
        self._Packetizer__iv_in = _next_iv(self._Packetizer__iv_in)
        self._Packetizer__sequence_number_in = (self._Packetizer__sequence_number_in + 1) & 0xFFFFFFFF
        self._Packetizer__received_bytes += whole
        self._Packetizer__received_packets += 1
        return memoryview(packet)[1 : size - packet[0]]

    def send_message(self, data: Message | Burst) -> None:
        """Seal a message and send it, or a burst of them."""
        if not isinstance(data, Burst):
            super().send_message(data)
            return
        with self._Packetizer__write_lock:
            end = 0
            for head, piece in data.packets():
                size = len(head) + len(piece)
                if self._Packetizer__aead_out and self._known and not self._due_out(size):
                    if end + size + _AROUND > len(self._sealed):
                        self.write_all(self._sealed[:end])
                        end = 0
                    end = self._seal(head, piece, end)
                    continue
                self.write_all(self._sealed[:end])
                end = 0
                super().send_message(Message(head + piece))
            self.write_all(self._sealed[:end])

    def _seal(self, head: bytes, piece: memoryview, at: int) -> int:
        """Seal a packet behind those that are sealed; give where it ends."""
        size = 1 + len(head) + len(piece)
        padding = 4 + -(size + 4) % 16  # to whole blocks, at least four bytes; not random: GCM needs none
        plain, whole = self._plain, size + padding
        plain[0] = padding
        plain[1 : 1 + len(head)] = head
        plain[1 + len(head) : size] = piece
        length, end = self._sealed[at : at + 4], at + 4 + whole + _TAG
        length[:] = whole.to_bytes(4, "big")
        self._Packetizer__block_engine_out.encrypt_into(
            self._Packetizer__iv_out, plain[:whole], length, self._sealed[at + 4 : end]
        )
        self._Packetizer__iv_out = _next_iv(self._Packetizer__iv_out)
        self._Packetizer__sequence_number_out += 1
        self._Packetizer__sent_bytes += end - at
        self._Packetizer__sent_packets += 1
        return end

    def _due_out(self, size: int) -> bool:
        return (
            self._Packetizer__sent_bytes + size + _AROUND >= self.REKEY_BYTES
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
