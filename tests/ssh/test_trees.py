"""Many small files in one stream: all or nothing, and no name of the machine's choosing becomes a path."""

from __future__ import annotations

import io
import random
import resource
import tarfile
from dataclasses import replace
from hashlib import sha256
from typing import TYPE_CHECKING

import pytest
from nasty import NASTY
from sshd import Proxy, Sshd

from providers.base import Entry
from providers.errors import IntegrityError, RemoteError, UnreachableError
from providers.ssh import trees
from providers.ssh.trees import pull_tree, push_tree

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from providers.ssh.link import Link

ODD = [*NASTY.values(), "back\\slash", "\\101", "-T", "é" * 120, "--checkpoint-action=exec=touch owned", "x\\n"]
NO_SUM = "0" * 64


def fill(folder: Path, names: list[str], size: int = 100) -> dict[str, Path]:
    files = {}
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(random.Random(name).randbytes(size))
        files[name] = path
    return files


def entries(files: dict[str, Path]) -> list[Entry]:
    return [Entry(name, path.stat().st_size, sha256(path.read_bytes()).hexdigest()) for name, path in files.items()]


def content(folder: Path) -> dict[str, bytes]:
    found = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} if folder.exists() else {}
    return {path.relative_to(folder).as_posix(): data for path, data in found.items()}


def left(folder: Path) -> list[Path]:
    return list(folder.rglob("*")) if folder.exists() else []


# ── to here ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_tree_arrives_whole_whatever_its_names(link: Link, there: Path, here: Path) -> None:
    files = fill(there, [*ODD, *(f"in {outer}/{inner}" for outer in ("deep/er", *ODD[:4]) for inner in ODD)])
    files |= fill(there, ["empty"], 0) | fill(there, ["large"], 3 * 2**20)
    told: list[int] = []
    pull_tree(link, str(there), entries(files), here, told.append)
    assert content(here) == content(there)
    assert told == sorted(told)
    assert told[-1] == sum(path.stat().st_size for path in files.values())
    assert not (there / "owned").exists()


def test_only_what_was_named_arrives_and_the_rest_stays(link: Link, sshd: Sshd, here: Path) -> None:
    files = fill(sshd.home / "base", ["a", "b/c", "d"])
    fill(here, ["b/old", "a"])
    pull_tree(link, "base", entries(files)[:2], here)
    assert sorted(content(here)) == ["a", "b/c", "b/old"]
    assert content(here)["a"] == files["a"].read_bytes()
    pull_tree(link, "base", [], here)


def test_more_names_than_fit_at_once_are_asked_for_in_turn(
    link: Link, there: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trees, "_NAMES", 60)
    pull_tree(link, str(there), entries(fill(there, [f"name-{number:02}" for number in range(20)])), here)
    assert content(here) == content(there)


def test_hard_links_and_links_are_brought_as_files(link: Link, there: Path, here: Path) -> None:
    files = fill(there, ["a"])
    (there / "b").hardlink_to(there / "a")
    (there / "c").symlink_to("a")
    files |= {"b": there / "b", "c": there / "c"}
    pull_tree(link, str(there), entries(files), here)
    assert all(path.is_file() and not path.is_symlink() for path in here.iterdir())
    assert content(here) == content(there)


def test_a_cut_asks_for_the_rest_only(link: Link, proxy: Proxy, there: Path, here: Path) -> None:
    files = fill(there, [f"{number}" for number in range(40)], 256 * 1024)
    proxy.cuts = [4 * 2**20, 8 * 2**20]
    pull_tree(link, str(there), entries(files), here)
    assert content(here) == content(there)
    assert link.connections == 3
    assert [path.name for path in here.iterdir() if path.is_dir()] == []


def test_a_link_that_can_not_be_mended_leaves_nothing_half(link: Link, proxy: Proxy, there: Path, here: Path) -> None:
    files = fill(there, [f"{number}" for number in range(40)], 256 * 1024)
    with pytest.raises(UnreachableError):
        pull_tree(link, str(there), entries(files), here, lambda _: proxy.refuse())
    assert left(here) == []


def test_a_file_that_is_gone_is_told_in_the_machines_words(link: Link, there: Path, here: Path) -> None:
    told = [*entries(fill(there, ["a"])), Entry("gone", 1, NO_SUM)]
    with pytest.raises(RemoteError, match=r"gone: .*No such file"):
        pull_tree(link, str(there), told, here)
    assert left(here) == []


def test_a_full_disk_here_is_told_and_leaves_nothing(link: Link, there: Path, here: Path) -> None:
    told = entries(fill(there, ["a", "b"], 2 * 2**20))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, before[1]))
    try:
        with pytest.raises(RemoteError, match=rf"no room for {here}: it has {4 * 2**20} bytes"):
            pull_tree(link, str(there), told, here)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert left(here) == []


# ── what is hostile ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "names",
    [
        ["../out"], ["a/../../out"], ["/etc/out"], [""], ["."], ["a/."], ["a//b"], ["a/"], ["nul\0"], ["a", "a"],
        ["a", "a/b"], ["a/b/c", "a/b"], ["x" * 5000],
    ],
    ids=lambda names: repr(names)[:20],
)  # fmt: skip
def test_a_manifest_of_impossible_names_is_refused_unasked(
    link: Link, proxy: Proxy, here: Path, names: list[str]
) -> None:
    with pytest.raises(IntegrityError):
        pull_tree(link, "/", [Entry(name, 1, NO_SUM) for name in names], here)
    assert (left(here), proxy.connections) == ([], 0)


@pytest.mark.parametrize("entry", [Entry("a", -1, NO_SUM), Entry("a", 1, "../" * 20), Entry("a", 1, "")])
def test_a_manifest_of_impossible_facts_is_refused_unasked(link: Link, here: Path, entry: Entry) -> None:
    with pytest.raises(IntegrityError):
        pull_tree(link, "/", [entry], here)
    assert left(here) == []


def test_a_manifest_of_a_million_names_is_refused_unasked(link: Link, here: Path) -> None:
    with pytest.raises(IntegrityError, match="1000000 files"):
        pull_tree(link, "/", [Entry("a", 1, NO_SUM)] * 10**6, here)
    assert left(here) == []


@pytest.mark.parametrize("size", [99, 101])
def test_a_size_that_lies_is_an_error(link: Link, there: Path, here: Path, size: int) -> None:
    (entry,) = entries(fill(there, ["a"]))
    with pytest.raises(IntegrityError, match="something else than 'a'"):
        pull_tree(link, str(there), [replace(entry, size=size)], here)
    assert left(here) == []


def test_a_sum_that_lies_leaves_none_of_the_others_either(link: Link, there: Path, here: Path) -> None:
    first, second = entries(fill(there, ["a", "b"]))
    with pytest.raises(IntegrityError, match="'b' arrived with another sha256"):
        pull_tree(link, str(there), [first, replace(second, sha256=NO_SUM)], here)
    assert left(here) == []


@pytest.mark.parametrize("name", ["sub/b", "sub/deep/b"])
def test_a_link_in_the_way_leads_nobody_out(link: Link, there: Path, here: Path, tmp_path: Path, name: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    here.mkdir()
    (here / "sub").symlink_to(outside)
    with pytest.raises(IntegrityError, match="leads outside"):
        pull_tree(link, str(there), entries(fill(there, ["a", name])), here)
    assert left(outside) == []
    assert left(here) == [here / "sub"]


def member(name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, **more: object) -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, len(data)
    for field, value in more.items():
        setattr(info, field, value)
    padded = data + bytes(-len(data) % 512)
    return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape") + padded


HOSTILE = {
    "another name": member("./b", b"hello"),
    "outside": member("../a", b"hello"),
    "absolute": member("/tmp/a", b"hello"),
    "a link": member("./a", kind=tarfile.SYMTYPE, linkname="/etc/passwd"),
    "a hard link": member("./a", kind=tarfile.LNKTYPE, linkname="/etc/passwd"),
    "a folder": member("./a", kind=tarfile.DIRTYPE),
    "a device": member("./a", kind=tarfile.CHRTYPE, devmajor=1, devminor=5),
    "a pipe": member("./a", kind=tarfile.FIFOTYPE),
    "first a link, then through it": member("./a", kind=tarfile.SYMTYPE, linkname="/") + member("./a", b"hello"),
    "another size": member("./a", b"hello, you"),
    "a size that is not there": member("./a", b"hello")[:514],
    "a header of a gigabyte": member("./a", kind=tarfile.XHDTYPE)[:124]
    + b"10000000000\0"
    + member("./a", kind=tarfile.XHDTYPE)[136:]
    + bytes(2**20),
    "headers without end": member("././@LongLink", b"x" * 100, tarfile.GNUTYPE_LONGNAME) * 5000,
    "noise": bytes(random.Random(0).randbytes(5000)),
    "nothing": b"",
    "an end": bytes(10240),
}


@pytest.fixture(scope="module")
def liar(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """A machine whose tar sends what lies in its home."""
    with Sshd(tmp_path_factory.mktemp("liar")) as sshd:
        (sshd.home / "bin").mkdir()
        (sshd.home / "bin/tar").write_text('#!/bin/sh\ncat > /dev/null\ncat "$HOME/said"\n')
        (sshd.home / "bin/tar").chmod(0o755)
        yield sshd


@pytest.mark.parametrize("said", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_tar_is_an_error_and_leaves_nothing(liar: Sshd, here: Path, tmp_path: Path, said: bytes) -> None:
    (liar.home / "said").write_bytes(said)
    link = liar.link()
    with pytest.raises(IntegrityError):
        pull_tree(link, "/", [Entry("a", 5, sha256(b"hello").hexdigest())], here)
    link.close()
    assert left(here) == []
    assert not (tmp_path / "a").exists()


def test_the_tars_above_are_refused_for_what_they_say(liar: Sshd, here: Path) -> None:
    (liar.home / "said").write_bytes(member("./a", b"hello"))
    link = liar.link()
    pull_tree(link, "/", [Entry("a", 5, sha256(b"hello").hexdigest())], here)
    link.close()
    assert content(here) == {"a": b"hello"}


# ── to there ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_tree_is_sent_whole_whatever_its_names(link: Link, there: Path, tmp_path: Path) -> None:
    files = fill(tmp_path / "source", [*ODD, *(f"deep/{name}" for name in ODD)])
    files |= fill(tmp_path / "source", ["empty"], 0) | fill(tmp_path / "source", ["large"], 3 * 2**20)
    files["empty"].chmod(0o755)
    fill(there, ["empty", "stays"])
    push_tree(link, files, str(there))
    stays = content(there).pop("stays")
    assert content(there) == content(tmp_path / "source") | {"stays": stays}
    assert (there / "empty").stat().st_mode & 0o777 == 0o755


def test_a_tree_goes_to_a_folder_at_home_that_is_made(link: Link, sshd: Sshd, tmp_path: Path) -> None:
    push_tree(link, fill(tmp_path / "source", ["a/b"]), "-new/base")
    assert content(sshd.home / "-new/base") == content(tmp_path / "source")


def test_a_cut_sends_the_tree_again(link: Link, proxy: Proxy, there: Path, tmp_path: Path) -> None:
    files = fill(tmp_path / "source", [f"{number}" for number in range(20)], 256 * 1024)
    proxy.cuts = [2 * 2**20]
    push_tree(link, files, str(there))
    assert content(there).items() >= content(tmp_path / "source").items()
    assert link.connections == 2


def test_a_tree_that_is_wanted_no_more_is_not_sent_to_its_end(link: Link, there: Path, tmp_path: Path) -> None:
    asked = []

    def go_on() -> None:
        asked.append(1)
        if len(asked) > 5:
            raise RemoteError("something else comes first")

    with pytest.raises(RemoteError, match="comes first"):
        push_tree(link, fill(tmp_path / "source", ["a"], 8 * 2**20), str(there), go_on)
    assert content(there) == {}
    assert len(asked) < 20


@pytest.mark.parametrize("name", ["../out", "/etc/out", "", "a/../../out"])
def test_a_name_that_leads_out_of_the_base_is_refused(link: Link, proxy: Proxy, there: Path, name: str) -> None:
    files = fill(there, ["a"])
    with pytest.raises(IntegrityError):
        push_tree(link, {name: files["a"]}, str(there))
    assert proxy.connections == 0


def test_a_machine_that_can_not_write_says_why(link: Link, there: Path, tmp_path: Path) -> None:
    fill(there, ["base"])
    with pytest.raises(RemoteError, match=r"can't send or take the files: .*exists"):
        push_tree(link, fill(tmp_path / "source", ["a"]), str(there / "base"))


def test_a_file_that_can_not_be_read_is_told_by_name(link: Link, there: Path, tmp_path: Path) -> None:
    with pytest.raises(RemoteError, match="gone can't be read"):
        push_tree(link, fill(tmp_path / "source", ["a"]) | {"b": tmp_path / "gone"}, str(there))
    assert content(there) == {}


@pytest.mark.parametrize("said", HOSTILE.values(), ids=HOSTILE)
def test_the_receiver_takes_nothing_without_the_sums(said: bytes, link: Link, sshd: Sshd) -> None:
    """What a dropped link leaves on the machine is a stream that ends early."""
    receiver = (trees.Path(trees.__file__).parent / "receiver.py").read_text()
    base = f"cut-{abs(hash(said))}"
    stream = link.open(f"python3 -c {trees.shlex.quote(receiver)} {base}")
    try:
        stream.write(io.BytesIO(said).read(), 5)
        stream.finish()
    except BrokenPipeError:
        pass
    assert stream.code(5) not in {0, -1}
    stream.close()
    assert left(sshd.home / base) == []
