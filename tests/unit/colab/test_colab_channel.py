"""The websocket's way in: what a refusal means, whom the token is shown to, and that nothing of it is said."""

from __future__ import annotations

import datetime as dt
import socket
import ssl
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from providers.base import Secret
from providers.colab.channel import Channel, CutError, ShutError
from providers.colab.door import Proxy
from providers.errors import UnreachableError

if TYPE_CHECKING:
    from pathlib import Path

TOKEN = "proxy-token-verysecret"  # noqa: S105 (opens nothing)


class Server:
    """Answers each connection with the same bytes; `heard` is what came."""

    def __init__(self, answer: str, context: ssl.SSLContext | None = None) -> None:
        self._answer, self._context = answer.encode(), context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.heard = b""
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                plain, _ = self._listener.accept()
                with plain, suppress(OSError):
                    self._talk(plain)

    def _talk(self, plain: socket.socket) -> None:
        client = self._context.wrap_socket(plain, server_side=True) if self._context else plain
        with client:
            self.heard += client.recv(65536)
            client.sendall(self._answer)


def answer(status: str, more: str = "") -> str:
    return f"HTTP/1.1 {status}\r\n{more}Content-Length: 0\r\nConnection: close\r\n\r\n"


def open_at(port: int, scheme: str = "http") -> Channel:
    return Channel(Proxy(f"{scheme}://localhost:{port}", Secret(TOKEN)), "kernel-1", "gpurun")


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        (answer("404 Not Found"), ShutError),
        (answer("401 Unauthorized"), ShutError),
        (answer("502 Bad Gateway"), CutError),
        ("no HTTP at all\r\n\r\n", CutError),
        ("", CutError),
    ],
)
def test_only_401_and_404_may_be_the_token_s_end_and_no_error_tells_it(said: str, kind: type[UnreachableError]) -> None:
    with Server(said) as server, pytest.raises(UnreachableError) as raised:
        open_at(server.port)
    assert type(raised.value) is kind
    assert TOKEN.encode() in server.heard
    assert TOKEN not in f"{raised.value!r} {raised.value.__cause__!r}"


def test_no_redirect_is_followed_with_the_token() -> None:
    with Server(answer("404 Not Found")) as other:
        away = answer("302 Found", f"Location: ws://127.0.0.1:{other.port}/\r\n")
        with Server(away) as server, pytest.raises(CutError):
            open_at(server.port)
        assert other.heard == b""


def test_a_server_that_nobody_vouches_for_gets_no_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate, context = certified(tmp_path)
    with Server(answer("404 Not Found"), context) as server:
        with pytest.raises(CutError):
            open_at(server.port, "https")
        assert server.heard == b""
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
        with pytest.raises(ShutError):
            open_at(server.port, "https")
        assert TOKEN.encode() in server.heard


def certified(folder: Path) -> tuple[Path, ssl.SSLContext]:
    """A certificate for localhost that vouches for itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path, private = folder / "certificate.pem", folder / "key.pem"
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path, private)
    return path, context
