"""Key pairs of one attempt: made here, so that both ends know each other before the first connection.

No key of the user's is ever looked at. Private halves lie in OpenSSH's format, 0600, and are deleted with the attempt.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from providers.errors import StateError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

ALIAS = "gpurun"  # the machine's name in config and known_hosts, whatever its address


def make_pair(path: Path, comment: str = "") -> None:
    """Make an ed25519 pair at `path` and `path`.pub; a whole pair that is there already is kept.

    Raises:
        StateError: the folder can't be written, or holds a private key that can't be read.
    """
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    try:
        if not path.exists():
            key = Ed25519PrivateKey.generate()
            private = key.private_bytes(form.Encoding.PEM, form.PrivateFormat.OpenSSH, form.NoEncryption())
            write_private(path, private)
        line = f"{_public_half(_load(path))} {_plain(comment)}".rstrip() + "\n"
        public = public_path(path)
        if not public.exists() or _words(public.read_text()) != _words(line):
            write_private(public, line.encode())
    except OSError as error:
        raise StateError(f"the key pair {path.name} can't be kept in {path.parent}: {error.strerror}") from error


def public_path(private: Path) -> Path:
    """Name the public half's file."""
    return private.with_name(private.name + ".pub")


def public_line(private: Path) -> str:
    """Spell the public half as `ssh-ed25519 AAAA…`, without a comment, from the private file.

    Raises:
        StateError: there is no such key, or it makes no sense.
    """
    return _public_half(_load(private))


def known_hosts_line(public: str, name: str = ALIAS) -> str:
    """Spell a line of known_hosts that pins `public` (`ssh-ed25519 AAAA…`) under a name."""
    return " ".join([name, *_words(public)])


def read_public(path: Path) -> str:
    """Read `ssh-ed25519 AAAA…` from a `.pub` file.

    Raises:
        StateError: it can't be read, or is no ed25519 key.
    """
    try:
        words = _words(path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise StateError(f"the public key {path} can't be read") from error
    if len(words) != 2 or words[0] != "ssh-ed25519":
        raise StateError(f"{path} holds no ed25519 public key")
    return " ".join(words)


def write_private(path: Path, content: bytes, *, sync: bool = True) -> None:
    """Write aside for our eyes only, then move into place."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle, aside = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # mode 0600
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        Path(aside).replace(path)
    except OSError:
        Path(aside).unlink()
        raise


def _load(path: Path) -> Ed25519PrivateKey:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_ssh_private_key

    try:
        key = load_ssh_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise StateError(f"the private key {path} can't be read") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise StateError(f"{path} is no ed25519 key")
    return key


def _public_half(key: Ed25519PrivateKey) -> str:
    from cryptography.hazmat.primitives import serialization as form

    return key.public_key().public_bytes(form.Encoding.OpenSSH, form.PublicFormat.OpenSSH).decode()


def _words(line: str) -> list[str]:
    """Keep type and key: a comment says nothing about who it is."""
    return line.split()[:2]


def _plain(comment: str) -> str:
    return "".join(letter for letter in comment if letter.isprintable())


def config_lines(host: str, port: int, user: str, folder: Path) -> str:
    """Spell a configuration for the system's ssh: `ssh -F <folder>/config gpurun`."""
    lines = {
        "HostName": host,
        "Port": port,
        "User": user,
        "HostKeyAlias": ALIAS,
        "IdentityFile": _quoted(folder / "client_ed25519"),
        "IdentitiesOnly": "yes",
        "IdentityAgent": "none",
        "UserKnownHostsFile": _quoted(folder / "known_hosts"),
        "GlobalKnownHostsFile": "/dev/null",
        "HostKeyAlgorithms": "ssh-ed25519",
        "StrictHostKeyChecking": "yes",
        "UpdateHostKeys": "no",
        "PasswordAuthentication": "no",
        "KbdInteractiveAuthentication": "no",
        "ServerAliveInterval": 15,
        "ServerAliveCountMax": 4,
    }
    return f"Host {ALIAS}\n" + "".join(f"  {word} {value}\n" for word, value in lines.items())


def _quoted(path: Path) -> str:
    """Quote a path for ssh's configuration, which also reads `%` in it."""
    text = str(path.resolve()).replace("%", "%%")
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
