"""Key pairs of an attempt, and what the system's ssh reads of them."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from providers.errors import StateError
from providers.ssh import keys

if TYPE_CHECKING:
    from pathlib import Path


def test_a_pair_is_read_by_openssh_and_by_nobody_else(nasty_folder: Path) -> None:
    private = nasty_folder / "client_ed25519"
    keys.make_pair(private, "gpurun\nx")
    assert {path.stat().st_mode & 0o777 for path in nasty_folder.iterdir()} == {0o600}
    public = subprocess.run(["ssh-keygen", "-y", "-f", private], capture_output=True, check=True, text=True).stdout
    assert public.split()[:2] == keys.public_line(private).split()
    assert (nasty_folder / "client_ed25519.pub").read_text() == f"{keys.public_line(private)} gpurunx\n"


def test_a_whole_pair_is_kept_and_a_lost_half_made_again(tmp_path: Path) -> None:
    private = tmp_path / "pair"
    keys.make_pair(private)
    before = private.read_bytes(), keys.public_path(private).read_bytes()
    keys.make_pair(private)
    assert (private.read_bytes(), keys.public_path(private).read_bytes()) == before
    keys.public_path(private).write_text("ssh-ed25519 AAAAother")
    keys.make_pair(private)
    assert keys.public_path(private).read_bytes() == before[1]


@pytest.mark.parametrize("content", [b"", b"-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n", b"\xff" * 99])
def test_a_private_half_that_makes_no_sense_is_an_error_and_kept(tmp_path: Path, content: bytes) -> None:
    private = tmp_path / "pair"
    private.write_bytes(content)
    with pytest.raises(StateError, match="can't be read"):
        keys.make_pair(private)
    assert private.read_bytes() == content


@pytest.mark.parametrize("content", ["", "ssh-rsa AAAA", "ssh-ed25519"])
def test_what_pins_nothing_is_an_error(tmp_path: Path, content: str) -> None:
    (tmp_path / "host.pub").write_text(content)
    with pytest.raises(StateError):
        keys.read_public(tmp_path / "host.pub")


def test_a_pin_stands_under_one_name_whatever_the_address(tmp_path: Path) -> None:
    keys.make_pair(tmp_path / "host", "a comment")
    line = keys.known_hosts_line((tmp_path / "host.pub").read_text())
    assert line == f"gpurun {keys.public_line(tmp_path / 'host')}"


def test_ssh_reads_the_paths_of_any_folder(nasty: str, tmp_path: Path) -> None:
    folder = tmp_path / f"100% {nasty}".replace("\n", "")  # a newline can't be spelt there
    folder.mkdir()
    config = tmp_path / "config"
    config.write_text(keys.config_lines("192.0.2.1", 2222, "ubuntu", folder))
    told = subprocess.run(["ssh", "-G", "-F", config, "gpurun"], capture_output=True, check=True, text=True).stdout
    assert f"identityfile {folder.resolve()}/client_ed25519".replace("%", "%%") in told.splitlines()
    assert {"hostname 192.0.2.1", "port 2222", "user ubuntu", "hostkeyalias gpurun"} <= set(told.splitlines())
