"""A store in a bucket of the Hub's: any store's verbs, and a machine's token is looked at before it goes."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from folders import RUN, Folder, sha

from orchestrator import store_hub
from orchestrator.store import Ability, Address, as_json, from_json, open_store, parse
from orchestrator.store_remote import StoreRemote
from providers.base import Phase
from providers.errors import CredentialsError, ProviderError, RefusedError, UnreachableError, UsageError

SURE = Ability(policies=False, checksums=True)
AT = f"under/here/runs/{RUN}/1/"


def soon() -> datetime:
    return datetime.now(UTC) + timedelta(hours=1)


@pytest.fixture
def hub_store(hub_bucket):
    return open_store(parse(hub_bucket.address))


def test_trying_a_bucket_out_finds_what_it_can_and_leaves_nothing(hub_store, hub_bucket) -> None:
    assert hub_store.try_out() == SURE
    assert hub_bucket.names() == []


def test_objects_of_a_bucket_are_written_read_listed_and_deleted(hub_store, tmp_path) -> None:
    hub_store.put("under/here/a", b"0123456789")
    (tmp_path / "file").write_bytes(b"x" * 5000)
    hub_store.upload("under/here/b/c d", str(tmp_path / "file"))
    hub_store.put("under/hereafter", b"another's")
    assert hub_store.get("under/here/a") == b"0123456789"
    assert b"".join(hub_store.stream("under/here/a", 4)) == b"456789"
    assert hub_store.size("under/here/b/c d") == 5000
    found = {(one.key, one.size) for one in hub_store.kept("under/here/")}
    assert found == {("under/here/a", 10), ("under/here/b/c d", 5000)}
    hub_store.delete(["under/here/a", "under/here/never"])
    assert hub_store.get("under/here/a") is None
    assert hub_store.size("under/here/a") is None
    assert list(hub_store.kept("never/")) == []


@pytest.mark.usefixtures("hub_bucket")
def test_a_bucket_of_the_hub_that_is_not_there_is_no_empty_one() -> None:
    store = open_store(parse("hf://buckets/alice/never/x"))
    for ask in (lambda: store.get("x/a"), lambda: store.size("x/a"), lambda: list(store.kept("x/")), store.try_out):
        with pytest.raises(ProviderError, match="no bucket alice/never") as caught:
            ask()
        assert "hf buckets create alice/never --private" in caught.value.hint


def test_a_bucket_that_everybody_can_read_is_refused(hub_bucket) -> None:
    hub_bucket.sim.tell("/bucket", {"id": "alice/open", "private": False})
    with pytest.raises(UsageError, match="public"):
        open_store(parse("hf://buckets/alice/open")).try_out()


def test_a_hub_that_does_not_answer_says_nothing_about_its_objects(hub_store, hub_bucket) -> None:
    hub_bucket.sim.faults({"server_error": {"of": "resolve", "times": None}})
    with pytest.raises(UnreachableError):
        hub_store.get("under/here/a")


def test_an_address_at_the_hub_is_spelt_as_it_was_typed_and_costs_what_the_hub_asks() -> None:
    text = "hf://buckets/my-Org/ckpts.v1/runs/of_mine"
    address = parse(text)
    assert (str(address), address.bucket, address.prefix) == (text, "my-Org/ckpts.v1", "runs/of_mine")
    assert address.attempt("r", 3) == "runs/of_mine/runs/r/3/"
    assert from_json(json.loads(json.dumps(as_json(address, SURE)))) == (address, SURE)
    assert from_json({"bucket": "b", "prefix": "", "endpoint": "", "policies": True, "checksums": True})[0] == Address(
        "b"
    )
    assert str(address.monthly_usd(10**12)) == "18.000"


@pytest.mark.parametrize(
    "text",
    ["hf://alice/store", "hf://buckets/alice", "hf://buckets/alice/", "hf://buckets//x", "hf://buckets/a/b/../c"],
)
def test_what_is_no_bucket_of_the_hub_is_refused_with_the_shape_of_one(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(text)
    assert "hf://buckets/" in caught.value.hint


# ── what a machine gets ──────────────────────────────────────────────────────────────────────────


def test_a_machine_gets_the_token_of_the_bucket_and_never_this_computer_s(hub_bucket, monkeypatch) -> None:
    address, own = parse(hub_bucket.address), hub_bucket.sim.exports["HF_TOKEN"]
    grant = store_hub.leave(address, "lambda", RUN, 2, soon())
    assert own not in grant.reveal()
    assert json.loads(grant.reveal())["prefix"] == f"under/here/runs/{RUN}/2/"
    assert "token" not in store_hub.leave(address, "hf", RUN, 2, soon()).reveal()
    monkeypatch.setenv("HF_STORE_TOKEN", own)
    with pytest.raises(CredentialsError, match="opens more"):
        store_hub.leave(address, "lambda", RUN, 2, soon())
    monkeypatch.delenv("HF_STORE_TOKEN")
    with pytest.raises(CredentialsError, match="HF_STORE_TOKEN is not set"):
        store_hub.leave(address, "lambda", RUN, 2, soon())


def test_a_token_for_the_bucket_alone_is_told_as_that(hub_bucket) -> None:
    (words,) = store_hub.check_machine(parse(hub_bucket.address), "lambda")
    assert "nothing else" in words
    assert hub_bucket.names() == []
    assert store_hub.check_machine(parse(hub_bucket.address), "hf") == ()


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        ({"role": "write"}, "opens all of alice's"),
        ({"scoped": [["user", "alice", ["repo.write", "repo.content.read", "job.write"]]]}, "job.write"),
        (
            {"scoped": [["bucket", "alice/store", ["repo.write", "repo.content.read"]]], "everywhere": ["inference.x"]},
            "cost money",
        ),
        ({"scoped": [["bucket", "alice/other", ["repo.write", "repo.content.read"]]]}, "HF_STORE_TOKEN"),
        ({"scoped": [["bucket", "alice/store", ["repo.content.read"]]]}, "HF_STORE_TOKEN"),
    ],
)
def test_a_token_that_may_too_much_or_too_little_is_refused(hub_bucket, monkeypatch, wish, words) -> None:
    monkeypatch.setenv("HF_STORE_TOKEN", hub_bucket.token(**wish))
    with pytest.raises((RefusedError, CredentialsError), match=words) as caught:
        store_hub.check_machine(parse(hub_bucket.address), "lambda")
    assert "huggingface.co/settings/tokens" in caught.value.hint


def test_what_else_a_token_opens_is_said_loudly(hub_bucket, monkeypatch) -> None:
    rights = ["repo.write", "repo.content.read"]
    token = hub_bucket.token(scoped=[["bucket", hub_bucket.name, rights], ["org", "acme", ["repo.write"]]])
    monkeypatch.setenv("HF_STORE_TOKEN", token)
    (words,) = store_hub.check_machine(parse(hub_bucket.address), "lambda")
    assert "IT OPENS MORE: org acme (repo.write)" in words


# ── the uploader ─────────────────────────────────────────────────────────────────────────────────


def test_an_attempt_is_brought_into_a_bucket_whole_and_comes_home_from_there(hub_bucket, tmp_path) -> None:
    folder = Folder(tmp_path / "job")
    address = parse(hub_bucket.address)
    folder.write("store.json", store_hub.leave(address, "lambda", RUN, 1, soon()).reveal().encode())
    folder.checkpoint(4)
    model = bytes(range(256)) * 300
    folder.result({"artifacts/model.bin": model, "artifacts/naïve name;.txt": b"x", "artifacts/none": b""}, "stopped")
    assert folder.upload()["state"] == "whole"
    remote = StoreRemote(address, RUN, 1)
    assert remote.is_whole()
    assert remote.newest_step() == 4
    status, manifest = remote.status(), remote.manifest()
    assert (status.phase, status.reason, manifest.final) == (Phase.EXITED, "stopped", True)
    remote.fetch([entry.name for entry in manifest.entries], tmp_path / "home")
    for entry in manifest.entries:
        assert sha((tmp_path / "home" / entry.name).read_bytes()) == entry.sha256
    assert hub_bucket.read(f"{AT}artifacts/model.bin") == model
    assert remote.logs(2) == b"llo\n"
    token = json.loads((folder.path / "store.json").read_text())["hub"]["token"]
    written = [path for path in folder.path.rglob("*") if path.is_file() and path.name != "store.json"]
    assert not [path for path in written if token.encode() in path.read_bytes()]


def test_refusals_and_errors_of_the_hub_delay_the_uploader_and_lose_nothing(hub_bucket, tmp_path) -> None:
    folder = Folder(tmp_path / "job")
    address = parse(hub_bucket.address)
    folder.write("store.json", store_hub.leave(address, "lambda", RUN, 1, soon()).reveal().encode())
    folder.checkpoint(1)
    folder.result(reason="failed")
    hub_bucket.sim.faults({"batch_fails": 2, "forbidden": {"of": "batch"}, "reply_lost": {"of": "paths_info"}})
    assert folder.upload()["state"] == "whole"
    assert StoreRemote(address, RUN, 1).is_whole()


def test_a_checkpoint_that_the_training_deletes_meanwhile_is_brought_all_the_same(hub_bucket, tmp_path) -> None:
    folder = Folder(tmp_path / "job")
    address = parse(hub_bucket.address)
    folder.write("store.json", store_hub.leave(address, "lambda", RUN, 1, soon()).reveal().encode())
    folder.checkpoint(1)
    folder.write("watchdog.json", b'{"ended": "the agent is gone"}')
    gone = "import hub_courier, shutil\nreal = hub_courier.HubCourier.open\n"
    gone += "def open(self):\n    shutil.rmtree(self.place.parent / 'checkpoints')\n    real(self)\n"
    gone += "hub_courier.HubCourier.open = open"
    assert folder.upload(gone)["state"] == "whole"
    assert StoreRemote(address, RUN, 1).newest_step() == 1


def test_what_has_not_ended_in_time_ends_with_its_process_and_the_next_one_goes_on(hub_bucket, tmp_path) -> None:
    folder = Folder(tmp_path / "job")
    address = parse(hub_bucket.address)
    folder.write("store.json", store_hub.leave(address, "lambda", RUN, 1, soon()).reveal().encode())
    folder.checkpoint(1)
    folder.write("watchdog.json", b'{"ended": "the agent is gone"}')
    late = "import hub_courier, time\nsend, lay = hub_courier.HubCourier.send, hub_courier.HubCourier.lay\n"
    late += "def hurried(self, name, *more):\n    hub_courier.CALL = 0.3 if name == 'CHECKPOINT.json' else 120.0\n"
    late += "    return send(self, name, *more)\nhub_courier.HubCourier.send = hurried\n"
    late += "def stuck(self, name, *more):\n    time.sleep(1000 if name == 'CHECKPOINT.json' else 0)\n"
    late += "    return lay(self, name, *more)\nhub_courier.HubCourier.lay = stuck"
    with folder.uploader(late) as process:
        said = [json.loads(line) for line in process.stdout]
    assert process.returncode == 1
    assert "no answer within" in said[-1]["error"]
    assert said[-1]["failing"] > 0
    known = json.loads((folder.path / "upload.json").read_text())
    assert (len(known["files"]), known["failing"]) == (3, said[-1]["failing"])
    assert folder.upload()["state"] == "whole"
    assert StoreRemote(address, RUN, 1).newest_step() == 1
