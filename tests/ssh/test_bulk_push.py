"""Large files to a machine: whole or not at all, whatever happens to the link, the disks and the file under way."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from large import A_CUT, FRAMES, MIB, digest, make
from sshd import Proxy, Sshd

from providers.errors import IntegrityError, RemoteError
from providers.ssh.bulk import push

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from providers.ssh.link import Link


@pytest.mark.parametrize("size", [0, 1, 255 * 1024, 3 * MIB + 17])
def test_a_file_is_sent_whole_and_takes_the_place_of_another(
    link: Link, there: Path, tmp_path: Path, size: int
) -> None:
    digest_here, told = make(tmp_path / "blob", size), []
    make(there / "blob", 99, seed=1)
    push(link, tmp_path / "blob", str(there / "blob"), digest_here, told.append, mode=0o640)
    assert digest(there / "blob") == digest_here
    assert [path.name for path in there.iterdir()] == ["blob"]
    assert (there / "blob").stat().st_mode & 0o777 == 0o640
    assert told[-1:] == ([size] if size else [])


def test_a_push_is_finished_over_many_cuts_at_the_cost_of_what_was_under_way(
    link: Link, proxy: Proxy, there: Path, tmp_path: Path
) -> None:
    size, told = 24 * MIB, []
    digest_here = make(tmp_path / "blob", size)
    proxy.cuts = [6 * MIB, 14 * MIB, 22 * MIB]
    push(link, tmp_path / "blob", str(there / "blob"), digest_here, told.append)
    assert digest(there / "blob") == digest_here
    assert link.connections == 4
    assert proxy.sent < size * FRAMES + 3 * A_CUT
    assert told == sorted(told)


def begin_push(link: Link, source: Path, there: Path, digest_here: str, stop_at: int) -> Path:
    def stop(done: int) -> None:
        if done > stop_at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        push(link, source, str(there / "blob"), digest_here, stop)
    link.close()
    assert not (there / "blob").exists()
    (part,) = there.iterdir()
    return part


def test_a_later_process_carries_on_sending(link: Link, proxy: Proxy, there: Path, tmp_path: Path) -> None:
    digest_here = make(tmp_path / "blob", 16 * MIB)
    begin_push(link, tmp_path / "blob", there, digest_here, 12 * MIB)
    proxy.sent = 0
    push(link, tmp_path / "blob", str(there / "blob"), digest_here)
    assert digest(there / "blob") == digest_here
    assert proxy.sent < 9 * MIB


@pytest.mark.parametrize("size", [0, 9 * MIB, 12 * MIB])
def test_a_part_on_the_machine_that_is_rubbish_is_sent_anew(link: Link, there: Path, tmp_path: Path, size: int) -> None:
    digest_here = make(tmp_path / "blob", 10 * MIB)
    begin_push(link, tmp_path / "blob", there, digest_here, 4 * MIB).write_bytes(bytes(size))
    push(link, tmp_path / "blob", str(there / "blob"), digest_here)
    assert digest(there / "blob") == digest_here


def test_a_source_that_changed_is_an_error_and_leaves_nothing(link: Link, there: Path, tmp_path: Path) -> None:
    make(tmp_path / "blob", MIB)
    with pytest.raises(IntegrityError, match="not what was to be sent"):
        push(link, tmp_path / "blob", str(there / "blob"), "0" * 64)
    assert list(there.iterdir()) == []


def test_a_machine_without_room_is_told_and_a_later_push_succeeds(link: Link, there: Path, tmp_path: Path) -> None:
    digest_here = make(tmp_path / "blob", 8 * MIB)
    part = there / f"blob.{digest_here[:16]}.part"
    part.symlink_to("/dev/full")
    with pytest.raises(RemoteError, match=r"blob.* its disk may be full"):
        push(link, tmp_path / "blob", str(there / "blob"), digest_here)
    assert not (there / "blob").exists()
    part.unlink()
    push(link, tmp_path / "blob", str(there / "blob"), digest_here)
    assert digest(there / "blob") == digest_here


def test_a_file_never_takes_the_place_of_a_folder(link: Link, there: Path, tmp_path: Path) -> None:
    digest_here = make(tmp_path / "blob", 10)
    (there / "blob").mkdir()
    with pytest.raises(RemoteError, match="can't be put into place"):
        push(link, tmp_path / "blob", str(there / "blob"), digest_here)
    assert list((there / "blob").iterdir()) == []


@pytest.mark.parametrize("missing", [["openssl"], ["openssl", "sha256sum"]])
def test_the_machine_hashes_with_what_it_has(tmp_path: Path, there: Path, missing: list[str]) -> None:
    with Sshd(tmp_path / "machine") as sshd:
        (sshd.home / "bin").mkdir()
        for name in missing:
            (sshd.home / "bin" / name).write_text("#!/bin/sh\nexit 127\n")
            (sshd.home / "bin" / name).chmod(0o755)
        link, digest_here = sshd.link(), make(tmp_path / "blob", MIB)
        push(link, tmp_path / "blob", str(there / "blob"), digest_here)
        link.close()
    assert digest(there / "blob") == digest_here


@pytest.mark.parametrize("python", ["works", "is missing"])
def test_a_large_file_is_hashed_while_it_comes_and_read_again_only_where_that_fails(
    tmp_path: Path, there: Path, python: str
) -> None:
    with Sshd(tmp_path / "machine") as sshd:
        (sshd.home / "bin").mkdir()
        scripts = {"openssl": 'touch "$HOME/read-again"; exec sha256sum'}
        for name, script in (scripts | ({} if python == "works" else {"python3": "exit 127"})).items():
            (sshd.home / "bin" / name).write_text(f"#!/bin/sh\n{script}\n")
            (sshd.home / "bin" / name).chmod(0o755)
        link, digest_here = sshd.link(), make(tmp_path / "blob", 17 * MIB)
        push(link, tmp_path / "blob", str(there / "blob"), digest_here)
        assert digest(there / "blob") == digest_here
        assert (sshd.home / "read-again").exists() == (python != "works")
        until(lambda: not sshd.below("hashlib"))
        link.close()


def until(fact: Callable[[], bool]) -> None:
    end = time.monotonic() + 5
    while not fact():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_nobody_follows_a_file_whose_sender_is_gone(link: Link, sshd: Sshd, there: Path, tmp_path: Path) -> None:
    digest_here, seen = make(tmp_path / "blob", 17 * MIB), []

    def stop(done: int) -> None:
        seen.extend(sshd.below("hashlib"))
        if done > 8 * MIB and seen:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        push(link, tmp_path / "blob", str(there / "blob"), digest_here, stop)
    until(lambda: not sshd.below("hashlib"))
    assert seen


@pytest.mark.parametrize("old", [False, True])
def test_a_part_that_vanished_is_no_file_that_arrived(link: Link, there: Path, tmp_path: Path, *, old: bool) -> None:
    digest_here = make(tmp_path / "blob", 17 * MIB)
    if old:
        make(there / "blob", 99, seed=1)

    def lose(done: int) -> None:
        if done == 17 * MIB:
            (there / f"blob.{digest_here[:16]}.part").unlink()

    with pytest.raises(RemoteError):
        push(link, tmp_path / "blob", str(there / "blob"), digest_here, lose)
