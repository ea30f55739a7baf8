"""Large files over SSH: whole or not at all, whatever happens to the link, the disks and the file under way."""

from __future__ import annotations

import contextlib
import json
import os
import random
import resource
import signal
import time
from dataclasses import replace
from hashlib import sha256
from typing import TYPE_CHECKING

import pytest
from sshd import QUICK, Proxy, Sshd

from providers.errors import IntegrityError, RemoteError, UnreachableError
from providers.ssh.bulk import pull, push

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from providers.ssh.link import Link

MIB = 2**20
A_CUT = 4 * MIB  # what one may cost
FRAMES = 1.01  # SSH's own bytes around the content, and a few KiB for each login


@pytest.fixture
def link(sshd: Sshd, proxy: Proxy) -> Iterator[Link]:
    link = sshd.link(proxy.port)
    yield link
    link.close()


@pytest.fixture
def there(tmp_path: Path) -> Path:
    """A folder on the machine."""
    folder = tmp_path / "there"
    folder.mkdir()
    return folder


@pytest.fixture
def here(tmp_path: Path) -> Path:
    return tmp_path / "here"


def make(path: Path, size: int, seed: int = 0) -> str:
    data = random.Random(seed).randbytes(size)
    path.write_bytes(data)
    return sha256(data).hexdigest()


def digest(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()


@contextlib.contextmanager
def no_file_larger_than(size: int) -> Iterator[None]:
    """Let our own disk be full beyond so many bytes a file."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


# ── to here ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("size", [0, 1, 255 * 1024, 3 * MIB + 17])
def test_a_file_arrives_whole_and_private(link: Link, there: Path, here: Path, size: int) -> None:
    digest_there, told = make(there / "model", size), []
    pull(link, str(there / "model"), here / "sub/model", size, digest_there, told.append)
    assert digest(here / "sub/model") == digest_there
    assert [path.name for path in (here / "sub").iterdir()] == ["model"]
    assert (here / "sub/model").stat().st_mode & 0o777 == 0o600
    assert told == sorted(told)
    assert told[-1:] == ([size] if size else [])


def test_any_name_serves_on_both_sides(link: Link, nasty: str, there: Path, here: Path) -> None:
    digest_there = make(there / nasty, 1000)
    pull(link, str(there / nasty), here / nasty, 1000, digest_there)
    push(link, here / nasty, str(there / f"{nasty}2"), digest_there)
    assert digest(there / f"{nasty}2") == digest_there
    assert sorted(path.name for path in there.iterdir()) == sorted([nasty, f"{nasty}2"])


def test_a_path_of_the_machine_begins_at_home(link: Link, sshd: Sshd, here: Path) -> None:
    digest_there = make(sshd.home / "at-home", 5000)
    pull(link, "at-home", here / "a", 5000, digest_there)
    push(link, here / "a", "back-home", digest_there)
    assert digest(sshd.home / "back-home") == digest_there


def test_a_file_that_is_here_already_is_not_fetched_again(link: Link, proxy: Proxy, there: Path, here: Path) -> None:
    digest_there = make(there / "a", MIB)
    pull(link, str(there / "a"), here / "a", MIB, digest_there)
    moved = proxy.moved
    pull(link, str(there / "a"), here / "a", MIB, digest_there)
    assert proxy.moved == moved


def test_a_pull_is_finished_over_many_cuts_at_the_cost_of_what_was_under_way(
    link: Link, proxy: Proxy, there: Path, here: Path
) -> None:
    size, told = 24 * MIB, []
    digest_there = make(there / "a", size)
    proxy.cuts = [6 * MIB, 14 * MIB, 22 * MIB]
    pull(link, str(there / "a"), here / "a", size, digest_there, told.append)
    assert digest(here / "a") == digest_there
    assert link.connections == 4
    assert proxy.moved < size * FRAMES + 3 * A_CUT
    assert told == sorted(told)


@pytest.mark.parametrize("fault", ["blackhole", "freeze"])
def test_a_pull_over_a_link_that_goes_silent_carries_on(
    link: Link, proxy: Proxy, there: Path, here: Path, fault: str
) -> None:
    size, faults = 10 * MIB, [fault]
    digest_there = make(there / "a", size)

    def watch(done: int) -> None:
        if faults and done > 4 * MIB:
            getattr(proxy, faults.pop())()
            proxy.later(0.6, "open")

    link.patience = replace(QUICK, tries=8)
    pull(link, str(there / "a"), here / "a", size, digest_there, watch)
    assert digest(here / "a") == digest_there


def begin(link: Link, there: Path, here: Path, size: int, stop_at: int) -> str:
    """Pull a part, as a process does that then ends."""
    digest_there = make(there / "a", size)

    def stop(done: int) -> None:
        if done > stop_at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pull(link, str(there / "a"), here / "a", size, digest_there, stop)
    assert not (here / "a").exists()
    link.close()
    return digest_there


def test_a_later_process_carries_on_from_what_is_whole(link: Link, proxy: Proxy, there: Path, here: Path) -> None:
    digest_there = begin(link, there, here, 16 * MIB, 12 * MIB)
    proxy.moved = 0
    pull(link, str(there / "a"), here / "a", 16 * MIB, digest_there)
    assert digest(here / "a") == digest_there
    assert proxy.moved < 5 * MIB
    assert [path.name for path in here.iterdir()] == ["a"]


def part_of(folder: Path) -> tuple[Path, Path]:
    (part,) = folder.glob(".*.part")
    (note,) = folder.glob(".*.part.json")
    return part, note


def test_a_process_that_is_killed_costs_little_more_than_a_cut(
    link: Link, proxy: Proxy, there: Path, here: Path
) -> None:
    """Its last note is old and its part too long: what lies beyond the note is not believed."""
    digest_there = begin(link, there, here, 16 * MIB, 12 * MIB)
    part, note = part_of(here)
    said = json.loads(note.read_text())
    note.write_text(json.dumps(said | {"offset": 8 * MIB}))
    with part.open("r+b") as file:
        file.seek(9 * MIB)
        file.write(bytes(8 * MIB))
    proxy.moved = 0
    pull(link, str(there / "a"), here / "a", 16 * MIB, digest_there)
    assert digest(here / "a") == digest_there
    assert proxy.moved < 9 * MIB


def test_a_part_that_rotted_is_fetched_anew(link: Link, there: Path, here: Path) -> None:
    digest_there = begin(link, there, here, 12 * MIB, 8 * MIB)
    with part_of(here)[0].open("r+b") as file:
        file.write(b"rot")
    pull(link, str(there / "a"), here / "a", 12 * MIB, digest_there)
    assert digest(here / "a") == digest_there


@pytest.mark.parametrize(
    "note",
    [b"", b"[]", b'{"remote": 1}', b'{"offset": -5}', b'{"offset": 1e99, "modified": 1}', b"\xff", b"[" * 9999],
)
def test_a_note_that_makes_no_sense_is_no_note(link: Link, there: Path, here: Path, note: bytes) -> None:
    digest_there = begin(link, there, here, 4 * MIB, 2 * MIB)
    part_of(here)[1].write_bytes(note)
    pull(link, str(there / "a"), here / "a", 4 * MIB, digest_there)
    assert digest(here / "a") == digest_there


def test_a_file_that_was_written_anew_is_fetched_from_its_beginning(
    link: Link, proxy: Proxy, there: Path, here: Path
) -> None:
    begin(link, there, here, 8 * MIB, 6 * MIB)
    digest_there = make(there / "a", 8 * MIB, seed=1)
    os.utime(there / "a", (1, 1))
    proxy.moved = 0
    pull(link, str(there / "a"), here / "a", 8 * MIB, digest_there)
    assert digest(here / "a") == digest_there
    assert 8 * MIB < proxy.moved < 9 * MIB


@pytest.mark.parametrize("said", ["shorter", "longer", "other"])
def test_a_manifest_that_lies_gets_an_error_and_leaves_nothing(link: Link, there: Path, here: Path, said: str) -> None:
    size, digest_there = 2 * MIB, make(there / "a", 2 * MIB)
    size += {"shorter": -1, "longer": 1, "other": 0}[said]
    digest_there = digest_there if said != "other" else "0" * 64
    with pytest.raises(IntegrityError):
        pull(link, str(there / "a"), here / "a", size, digest_there)
    assert list(here.iterdir()) == []


def test_a_file_that_shrinks_under_way_is_an_error(link: Link, there: Path, here: Path) -> None:
    size, digest_there = 12 * MIB, make(there / "a", 12 * MIB)
    with pytest.raises(IntegrityError, match="ends on the machine"):
        pull(link, str(there / "a"), here / "a", size, digest_there, lambda _: os.truncate(there / "a", MIB))
    assert not (here / "a").exists()


@pytest.mark.parametrize("digest_told", ["", "../../x", "0" * 63, "G" * 64])
def test_a_sum_that_is_none_is_refused_unasked(link: Link, proxy: Proxy, here: Path, digest_told: str) -> None:
    with pytest.raises(IntegrityError):
        pull(link, "a", here / "a", 1, digest_told)
    assert proxy.connections == 0


def test_a_file_that_is_not_there_is_told_by_name(link: Link, there: Path, here: Path) -> None:
    with pytest.raises(RemoteError, match=r"gone.*no such file"):
        pull(link, str(there / "gone"), here / "a", 1, "0" * 64)
    make(there / "file", 10)
    with pytest.raises(RemoteError, match=r"gone.*no such file"):
        push(link, there / "file", str(there / "gone/a"), "0" * 64)


def test_a_disk_without_room_is_told_before_a_byte_moves(link: Link, there: Path, here: Path) -> None:
    with (there / "huge").open("wb") as file:
        file.truncate(2**42)
    with pytest.raises(RemoteError, match=rf"no room for {here}/a: it has {2**42} bytes, and \d+ are free"):
        pull(link, str(there / "huge"), here / "a", 2**42, "0" * 64)


def test_a_disk_that_fills_up_under_way_loses_nothing(link: Link, proxy: Proxy, there: Path, here: Path) -> None:
    digest_there = make(there / "a", 12 * MIB)
    with no_file_larger_than(8 * MIB), pytest.raises(RemoteError, match=f"no room for {here}/a: it has {12 * MIB}"):
        pull(link, str(there / "a"), here / "a", 12 * MIB, digest_there)
    proxy.moved = 0
    pull(link, str(there / "a"), here / "a", 12 * MIB, digest_there)
    assert digest(here / "a") == digest_there
    assert proxy.moved < 5 * MIB


def test_time_that_is_up_ends_a_pull_and_keeps_its_part(link: Link, there: Path, here: Path) -> None:
    digest_there = make(there / "a", 4 * MIB)
    with pytest.raises(UnreachableError, match="too slow"):
        pull(link, str(there / "a"), here / "a", 4 * MIB, digest_there, give_up_at=time.monotonic() - 1)
    part_of(here)
    pull(link, str(there / "a"), here / "a", 4 * MIB, digest_there, give_up_at=time.monotonic() + 60)
    assert digest(here / "a") == digest_there


def test_a_machine_whose_disk_hangs_is_not_waited_for(sshd: Sshd, link: Link, there: Path, here: Path) -> None:
    """The link lives and answers; only its file server stands still."""
    digest_there, stopped = make(there / "a", 10 * MIB), []

    def hang(done: int) -> None:
        if done > 4 * MIB and not stopped:
            stopped.extend(sshd.below("internal-sftp") or sshd.below("sftp"))
            for pid in stopped:
                os.kill(pid, signal.SIGSTOP)

    link.patience = replace(QUICK, stall_seconds=0.3)
    pull(link, str(there / "a"), here / "a", 10 * MIB, digest_there, hang)
    assert stopped
    for pid in stopped:
        os.kill(pid, signal.SIGKILL)
    assert digest(here / "a") == digest_there


def test_a_server_that_tells_no_limits_is_asked_for_less(tmp_path: Path, there: Path, here: Path) -> None:
    with Sshd(tmp_path / "machine", sftp="-P limits") as sshd:
        link, digest_there = sshd.link(), make(there / "a", 2 * MIB)
        pull(link, str(there / "a"), here / "a", 2 * MIB, digest_there)
        push(link, here / "a", str(there / "b"), digest_there)
        link.close()
    assert digest(there / "b") == digest_there


# ── to there ─────────────────────────────────────────────────────────────────────────────────────────────────────


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
