"""A bundle is the same bytes for the same tree, with no secret and no link out of it; data goes by its content."""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from typing import TYPE_CHECKING

import pytest
from nasty import NASTY

from orchestrator import templates
from orchestrator.bundle import IGNORE_FILE, blobs, pack
from providers.errors import BundleError

if TYPE_CHECKING:
    from pathlib import Path


def names(bundle: Path) -> set[str]:
    with tarfile.open(bundle) as tar:
        return set(tar.getnames())


def test_the_same_tree_gives_the_same_bytes_whatever_its_times_and_order(tmp_path: Path) -> None:
    for folder, order in (("one", "abc"), ("two", "cba")):
        (tmp_path / folder).mkdir()
        for letter in order:
            path = tmp_path / folder / f"{letter}.py"
            path.write_text(letter)
            os.utime(path, (len(folder + letter) * 1000, 5))
    first = pack(tmp_path / "1.tar.gz", {"b": 1, "a": 2}, tmp_path / "one")
    second = pack(tmp_path / "2.tar.gz", {"b": 1, "a": 2}, tmp_path / "two")
    assert first.sha256 == second.sha256
    assert first.path.read_bytes() == second.path.read_bytes()


def test_it_holds_the_whole_payload_and_the_config(tmp_path: Path) -> None:
    found = names(pack(tmp_path / "b.tar.gz", {}).path)
    assert {"config.json", "payload/agent.py", "payload/watchdog.py", "payload/train_sft.py"} <= found
    assert not [name for name in found if "__pycache__" in name or name.endswith(".pyc")]


def test_the_steps_of_a_chain_stay_in_their_order(tmp_path: Path) -> None:
    bundle = pack(tmp_path / "b.tar.gz", templates.load("chain").config)
    with tarfile.open(bundle.path) as tar:
        config = json.loads(tar.extractfile("config.json").read())  # type: ignore[union-attr]
    assert list(config["steps"]) == ["pretrain", "sft", "merge", "quantize"]


@pytest.mark.parametrize(
    "secret", [".env", ".env.local", "key.pem", "deep/id_rsa", "deep/id_ed25519.bak", ".netrc", ".aws/credentials"]
)
def test_key_files_are_left_out_and_named(tmp_path: Path, secret: str) -> None:
    path = tmp_path / "code" / secret
    path.parent.mkdir(parents=True)
    path.write_text("hush")
    (tmp_path / "code" / "train.py").write_text("pass")
    bundle = pack(tmp_path / "b.tar.gz", {}, tmp_path / "code")
    assert bundle.left_out == (secret,)
    assert {name for name in names(bundle.path) if name.startswith("code/")} == {"code/train.py"}


def test_an_ignore_file_is_honoured_like_git_s(tmp_path: Path) -> None:
    code = tmp_path / "code"
    for name in ("train.py", "runs/a.log", "runs/keep.txt", "data.bin"):
        (code / name).parent.mkdir(parents=True, exist_ok=True)
        (code / name).write_text(name)
    (code / IGNORE_FILE).write_text("runs/*\n!runs/keep.txt\n*.bin\n")
    found = names(pack(tmp_path / "b.tar.gz", {}, code).path)
    assert {name for name in found if name.startswith("code/")} == {
        f"code/{IGNORE_FILE}",
        "code/train.py",
        "code/runs/keep.txt",
    }


def test_caches_and_environments_stay_at_home(tmp_path: Path) -> None:
    code = tmp_path / "code"
    for name in ("train.py", "__pycache__/x.pyc", ".git/config", ".venv/bin/python", "node_modules/a.js"):
        (code / name).parent.mkdir(parents=True, exist_ok=True)
        (code / name).write_text(name)
    found = names(pack(tmp_path / "b.tar.gz", {}, code).path)
    assert {name for name in found if name.startswith("code/")} == {"code/train.py"}


def test_a_link_that_leads_out_is_refused_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "elsewhere.txt").write_text("private")
    (tmp_path / "code" / "link.txt").symlink_to(tmp_path / "elsewhere.txt")
    with pytest.raises(BundleError, match=r"link\.txt"):
        pack(tmp_path / "b.tar.gz", {}, tmp_path / "code")


def test_code_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="nowhere"):
        pack(tmp_path / "b.tar.gz", {}, tmp_path / "nowhere")


@pytest.mark.parametrize("name", NASTY.values(), ids=NASTY)
def test_any_file_name_travels_as_it_is(tmp_path: Path, name: str) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / name).write_text("x")
    assert f"code/{name}" in names(pack(tmp_path / "b.tar.gz", {}, tmp_path / "code").path)


def test_data_is_named_by_its_content_and_read_once(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"rows")
    (blob,) = blobs([(path, "data/rows.jsonl")], tmp_path / "hashes.json")
    assert (blob.sha256, blob.size) == (hashlib.sha256(b"rows").hexdigest(), 4)
    facts = path.stat()
    path.write_bytes(b"ROWS")  # same size, same time, same inode: what the cache knows it by
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert blobs([(path, "data/rows.jsonl")], tmp_path / "hashes.json")[0].sha256 == blob.sha256
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns + 1))
    assert blobs([(path, "data/rows.jsonl")], tmp_path / "hashes.json")[0].sha256 == hashlib.sha256(b"ROWS").hexdigest()


def test_a_folder_of_data_keeps_its_shape(tmp_path: Path) -> None:
    for name in ("a.jsonl", "deep/b.jsonl"):
        (tmp_path / "rows" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "rows" / name).write_text(name)
    found = blobs([(tmp_path / "rows", "data/rows")], tmp_path / "hashes.json")
    assert [blob.name for blob in found] == ["data/rows/a.jsonl", "data/rows/deep/b.jsonl"]


@pytest.mark.parametrize("kind", ["missing", "pipe"])
def test_data_that_is_no_plain_file_is_told_by_its_path(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "rows.jsonl"
    if kind == "pipe":
        os.mkfifo(path)
    with pytest.raises(BundleError, match=r"rows\.jsonl"):
        blobs([(path, "data/rows.jsonl")], tmp_path / "hashes.json")
