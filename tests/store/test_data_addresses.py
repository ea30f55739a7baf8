"""Data at an address: brought here by our keys, looked into as any file, shipped as bytes, and told by its address."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from orchestrator import checks, data_preview, data_remote, store_page, templates, wish
from orchestrator.data_files import DataFile
from orchestrator.home import Home
from providers.errors import ConfigError, CredentialsError, GpurunError, StateError, UsageError

ROWS = '{"text": "one", "label": "a"}\n{"text": "two", "label": "b"}\n'
TEMPLATE = """\
name: mine
training:
  method: classify
  model: pypi:wordnet
  data: {{train: "{address}"}}
"""


@pytest.fixture
def load(tmp_path, home):
    def read(address: str, endpoint: str | None = None) -> templates.Template:
        (tmp_path / "mine.yaml").write_text(TEMPLATE.format(address=address))
        return templates.load(str(tmp_path / "mine.yaml"), bring=data_remote.Bringer(Home(home), endpoint))

    return read


def shown(template: templates.Template) -> str:
    return dict(data_preview.remarks(template.files))["data"]


def test_a_file_in_s3_is_counted_shown_and_shipped_as_bytes(load, bucket) -> None:
    bucket.client().put_object(Bucket=bucket.name, Key="sets/my rows.jsonl", Body=ROWS.encode())
    template = load(f"s3://{bucket.name}/sets/my rows.jsonl", bucket.endpoint)
    (file,) = template.files
    assert file.path.read_text() == ROWS
    assert template.config["data"]["train"] == file.name == "data/my_rows.jsonl"
    assert f"from s3://{bucket.name}/sets/my rows.jsonl: 60 B, 2 rows, first:" in shown(template)
    assert bucket.endpoint not in json.dumps(template.config)


def test_a_launch_asks_the_server_that_was_typed_else_the_default_s(home, bucket, tmp_path) -> None:
    bucket.client().put_object(Bucket=bucket.name, Key="rows.jsonl", Body=ROWS.encode())
    (tmp_path / "mine.yaml").write_text(TEMPLATE.format(address=f"s3://{bucket.name}/rows.jsonl"))
    typed = wish.Wish(str(tmp_path / "mine.yaml"), None, None, (), s3_endpoint=bucket.endpoint)
    found = wish.read_template(Home(home), typed, {}).files[0]
    assert (found.source, found.endpoint) == (f"s3://{bucket.name}/rows.jsonl", bucket.endpoint)
    (home / "config.toml").write_text(f's3-endpoint = "{bucket.endpoint}"\n')
    assert wish.read_template(Home(home), replace(typed, s3_endpoint=None), {}).files[0] == found


def test_what_is_here_already_is_not_brought_again_and_what_changed_is(load, bucket) -> None:
    address, client = f"s3://{bucket.name}/rows.jsonl", bucket.client()
    client.put_object(Bucket=bucket.name, Key="rows.jsonl", Body=ROWS.encode())
    (first,) = load(address, bucket.endpoint).files
    assert load(address, bucket.endpoint).files[0].path == first.path
    before = first.path.stat().st_ino
    client.put_object(Bucket=bucket.name, Key="rows.jsonl", Body=ROWS.encode() * 2)
    (second,) = load(address, bucket.endpoint).files
    assert second.path.read_text() == ROWS * 2
    assert first.path.stat().st_ino == before  # an earlier run's data stay what they were
    assert first.path.read_text() == ROWS


def test_a_folder_in_s3_is_all_its_data_and_nothing_else(load, bucket) -> None:
    for name in (
        "sets/a.jsonl",
        "sets/more/b.jsonl",
        "sets/README.md",
        "sets/.hidden.jsonl",
        "sets/model.bin",
        "sets2/c.jsonl",
    ):
        bucket.client().put_object(Bucket=bucket.name, Key=name, Body=ROWS.encode())
    for address in (f"s3://{bucket.name}/sets", f"s3://{bucket.name}/sets/"):
        template = load(address, bucket.endpoint)
        assert [file.name for file in template.files] == ["data/sets/a.jsonl", "data/sets/more/b.jsonl"]
        assert template.config["data"]["train"] == "data/sets"


def test_what_is_wrong_in_data_from_afar_is_told_by_its_address(load, bucket) -> None:
    bucket.client().put_object(Bucket=bucket.name, Key="rows.jsonl", Body=b'{"text": "one"}\n')
    with pytest.raises(ConfigError, match=rf'line 5: s3://{bucket.name}/rows.jsonl row 1 has no "text" and "label"'):
        load(f"s3://{bucket.name}/rows.jsonl", bucket.endpoint)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("sets/rosw.jsonl", "did you mean s3://{bucket}/sets/rows.jsonl"),
        ("never/", "there is nothing at s3://{bucket}/never/"),
        ("bin", "holds no data: 1 other files"),
    ],
)
def test_an_address_with_nothing_to_train_on_says_what_is_near(load, bucket, path, words) -> None:
    for name in ("sets/rows.jsonl", "bin/model.bin"):
        bucket.client().put_object(Bucket=bucket.name, Key=name, Body=ROWS.encode())
    with pytest.raises(ConfigError) as caught:
        load(f"s3://{bucket.name}/{path}", bucket.endpoint)
    assert words.format(bucket=bucket.name) in str(caught.value)


@pytest.mark.parametrize("text", ["s3://", "s3://UPPER/x.jsonl", "hf://alice/rows", "hf://buckets/x", "gs://a/b.csv"])
def test_what_is_no_address_of_data_is_told_the_shapes_of_one(load, text) -> None:
    with pytest.raises(ConfigError, match="no address of data") as caught:
        load(text)
    assert "hf://datasets/you/name" in caught.value.hint


def test_a_wrong_key_names_the_setting_and_the_variable(load, bucket, monkeypatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another-secret-entirely-000000000")
    with pytest.raises(CredentialsError, match="line 5") as caught:
        load(f"s3://{bucket.name}/rows.jsonl", bucket.endpoint)
    assert "AWS_ACCESS_KEY_ID" in caught.value.hint
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    with pytest.raises(CredentialsError, match="AWS_ACCESS_KEY_ID is not set"):
        load(f"s3://{bucket.name}/rows.jsonl", bucket.endpoint)


def test_a_bucket_or_a_server_that_is_not_there_is_told_with_the_setting(load, bucket) -> None:
    for address, endpoint in (
        ("s3://never-made-here/a.csv", bucket.endpoint),
        ("s3://some-bucket/a.csv", "http://127.0.0.1:9"),
    ):
        with pytest.raises(GpurunError, match="line 5: s3://") as caught:
            load(address, endpoint)
        assert caught.value.hint


def test_data_that_this_disk_has_no_room_for_are_not_begun(load, bucket, monkeypatch, home) -> None:
    bucket.client().put_object(Bucket=bucket.name, Key="rows.jsonl", Body=ROWS.encode())
    monkeypatch.setattr(data_remote, "_SPARE_BYTES", 2**60)
    with pytest.raises(StateError, match="are free here"):
        load(f"s3://{bucket.name}/rows.jsonl", bucket.endpoint)
    assert not list((home / "data").rglob("*.jsonl"))


def test_files_of_a_bucket_and_of_a_data_set_on_the_hub_come_the_same_way(load, hub_bucket) -> None:
    hub_bucket.write("sets/rows.jsonl", ROWS)
    hub_bucket.write("sets/more.csv", "text,label\none,a\n")
    assert [file.name for file in load("hf://buckets/alice/store/sets").files] == [
        "data/sets/more.csv",
        "data/sets/rows.jsonl",
    ]
    files = {"rows.jsonl": ROWS, "README.md": "# rows", "deep/more.jsonl": ROWS}
    hub_bucket.sim.tell("/repo", {"id": "datasets/acme/rows", "files": files, "private": True})
    template = load("hf://datasets/acme/rows/rows.jsonl")
    assert template.files[0].path.read_text() == ROWS
    assert "data/rows.jsonl from hf://datasets/acme/rows@" in shown(template)
    whole = load("hf://datasets/acme/rows@main")
    assert [file.name.partition("/")[2].partition("/")[2] for file in whole.files] == ["deep/more.jsonl", "rows.jsonl"]


def test_a_data_set_that_may_not_be_read_says_what_to_do(load, hub_bucket) -> None:
    hub_bucket.sim.tell("/repo", {"id": "datasets/acme/shut", "files": {"rows.jsonl": ROWS}, "gated": True})
    with pytest.raises(CredentialsError) as caught:
        load("hf://datasets/acme/shut/rows.jsonl")
    assert "huggingface.co" in caught.value.hint
    with pytest.raises(ConfigError, match="no data set acme/never at v2"):
        load("hf://datasets/acme/never@v2/rows.jsonl")


@pytest.mark.parametrize("endpoint", ["foo", "ftp://host", "http://"])
def test_a_server_that_is_no_address_is_refused_in_words(load, endpoint: str) -> None:
    with pytest.raises(ConfigError, match="is no endpoint") as caught:
        load("s3://bucket/rows.jsonl", endpoint)
    assert "--s3-endpoint" in caught.value.hint


def test_a_server_that_nobody_would_ask_is_refused(tmp_path) -> None:
    here = DataFile(tmp_path / "x", "data/x", (), "x")
    there = replace(here, source="s3://bucket/x")
    for store, files in (("s3://bucket/p", [here]), ("none", [here, there])):
        data_remote.refuse_unused("http://host", store, files)
    for store in ("", "none", "hf://buckets/a/b"):
        data_remote.refuse_unused(None, store, [here])
        with pytest.raises(UsageError, match="neither the store nor the data"):
            data_remote.refuse_unused("http://host", store, [here])
    with pytest.raises(UsageError, match="not of hf://"):
        store_page.chosen(Home(tmp_path), "hf://buckets/a/b", "http://host")


def test_what_was_brought_is_counted_and_told(home) -> None:
    made = Home(home).ensure()
    assert "from addresses" not in checks._disk(made).text
    (home / "data" / "x").mkdir(parents=True)
    (home / "data" / "x" / "rows.jsonl").write_bytes(b"x" * 5000)
    assert "5.0 kB brought from addresses" in checks._disk(made).text
