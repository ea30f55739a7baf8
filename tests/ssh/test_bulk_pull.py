"""Large files from a machine: whole or not at all, whatever happens to the link, the disks and the file under way."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from large import A_CUT, FRAMES, MIB, digest, make
from sshd import QUICK, Proxy, Sshd

from providers.errors import IntegrityError, RemoteError, UnreachableError
from providers.ssh.bulk import pull, push

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from providers.ssh.link import Link


@contextlib.contextmanager
def no_file_larger_than(size: int) -> Iterator[None]:
    """Let our own disk be full beyond so many bytes a file."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


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
    assert proxy.moved < 8.25 * MIB  # the third that was missing, and what a cut may cost: 4 MiB again


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
