"""Preflight against a simulated Hub: names, revisions, gates, tokens, columns, push targets, and silence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hf_ground import HfSim, hf_running

from orchestrator import preflight_hub, templates
from providers.errors import ConfigError, CredentialsError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

COLUMNS = {"features": [{"name": "text", "dtype": "string"}], "splits": [{"name": "train", "num_examples": 7}]}
REPOS: list[dict[str, Any]] = [
    {"id": "acme/open", "files": {"config.json": "{}"}},
    {"id": "acme/empty", "files": {"README.md": ""}},
    {"id": "acme/gated", "files": {"config.json": "{}"}, "gated": True},
    {"id": "alice/own", "files": {"config.json": "{}"}, "private": True},
    {"id": "datasets/acme/rows", "card": {"dataset_info": COLUMNS}},
    {"id": "datasets/acme/bare"},
    {
        "id": "datasets/acme/none",
        "card": {"dataset_info": {**COLUMNS, "splits": [{"name": "train", "num_examples": 0}]}},
    },
    {"id": "datasets/acme/gated", "gated": True},
]


@pytest.fixture(scope="module")
def started() -> Iterator[HfSim]:
    """One Hub for all: nothing here changes it but what a test puts there itself."""
    with hf_running() as sim:
        for repo in REPOS:
            sim.tell("/repo", repo)
        yield sim


@pytest.fixture
def hub(started: HfSim, monkeypatch: pytest.MonkeyPatch) -> HfSim:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", started.url)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", started.url + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setenv("HF_ENDPOINT", started.url)
    return started


def wanted(tmp_path: Path, training: str, *more: str) -> tuple[preflight_hub.Wanted, ...]:
    path = tmp_path / "t.yaml"
    path.write_text(f"name: t\ntraining: {training}\n")
    return preflight_hub.wanted(templates.load(str(path), more))


def test_a_file_that_two_steps_read_is_looked_for_here_and_not_on_the_hub() -> None:
    template = templates.load("chain")
    assert len(template.files) == 1
    assert preflight_hub.wanted(template) == ()


@pytest.mark.parametrize("name", ["qlora-sft", "text-classification", "full-sft", "lora-8bit"])
def test_a_rehearsals_hub_says_that_it_has_no_models_of_the_vendors(hub: HfSim, name: str) -> None:
    with pytest.raises(ConfigError, match="the Hub has no model") as raised:
        preflight_hub.check(preflight_hub.wanted(templates.load(name)), hub.exports["HF_TOKEN"])
    assert "a rehearsal's Hub has only what was pushed to it: gpurun launch demo" in raised.value.hint


def sft(model: str = "acme/open", data: str = "acme/rows", more: str = "") -> str:
    return f"{{method: sft, model: {model}, data: {{train: {data}}}{more}}}"


def test_what_is_there_is_told_with_its_commit(hub: HfSim, tmp_path: Path) -> None:
    told = preflight_hub.check(wanted(tmp_path, sft()), hub.exports["HF_TOKEN"])
    assert told[0].startswith("model acme/open is there, at ")
    assert told[1:] == ("data acme/rows is there, with the columns that the method reads",)


@pytest.mark.usefixtures("hub")
def test_a_public_model_needs_no_token(tmp_path: Path) -> None:
    assert len(preflight_hub.check(wanted(tmp_path, sft()), token=False)) == 2


@pytest.mark.parametrize(
    ("training", "words"),
    [
        (sft("acme/nothing"), "training.model: the Hub has no model acme/nothing that your HF_TOKEN may read"),
        (sft(more=", revision: v9"), 'training.model: acme/open has no revision "v9"'),
        (sft("acme/empty"), "acme/empty on the Hub has no config.json"),
        (sft(data="acme/nothing"), "training.data.train: the Hub has no data set acme/nothing"),
        (sft(data="acme/rows@v9"), 'training.data.train: acme/rows has no revision "v9"'),
        (sft(data="acme/rows, text_field: body"), 'acme/rows has no "body" or "prompt" and "completion" or "messages"'),
        (sft(data="acme/rows, split: test"), "training.data.split: acme/rows has no split test; it has train"),
        (sft(data="acme/none"), "the split train of acme/none has no rows"),
        ("{method: classify, model: acme/open, data: {train: acme/rows}}", 'no "text" and "label"; it has text'),
    ],
)
def test_what_is_not_there_is_named_with_its_key(hub: HfSim, tmp_path: Path, training: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        preflight_hub.check(wanted(tmp_path, training), hub.exports["HF_TOKEN"])
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("training", "page"),
    [
        (sft("acme/gated"), "https://huggingface.co/acme/gated"),
        (sft(data="acme/gated"), "huggingface.co/datasets/acme/"),
    ],
)
def test_a_gate_names_the_page_to_accept(hub: HfSim, tmp_path: Path, training: str, page: str) -> None:
    with pytest.raises(CredentialsError, match="is gated, and your HF_TOKEN may not read it") as caught:
        preflight_hub.check(wanted(tmp_path, training), hub.exports["HF_TOKEN"])
    assert page in caught.value.hint


def test_a_private_model_is_no_use_to_a_machine_that_gets_no_token(hub: HfSim, tmp_path: Path) -> None:
    every = wanted(tmp_path, sft("alice/own"))
    assert len(preflight_hub.check(every, hub.exports["HF_TOKEN"])) == 2
    with pytest.raises(ConfigError, match="the machine, which gets no HF_TOKEN, may read") as caught:
        preflight_hub.check(every, token=False)
    assert "secrets: [HF_TOKEN]" in caught.value.hint


def test_columns_that_nobody_described_are_left_to_the_machine(hub: HfSim, tmp_path: Path) -> None:
    told = preflight_hub.check(wanted(tmp_path, sft(data="acme/bare")), hub.exports["HF_TOKEN"])
    assert told[1] == "data acme/bare is there; its columns are not described: the machine checks each row"


def test_a_push_target_is_tried_before_the_training(hub: HfSim, tmp_path: Path) -> None:
    token = hub.exports["HF_TOKEN"]
    for target, words in (
        ("alice/own", "can be written"),
        ("alice/new", "is to be made"),
        ("acme/new", "is to be made"),
    ):
        told = preflight_hub.check(wanted(tmp_path, sft(more=f", push: {{repo: {target}}}")), token)
        assert told[2] == f"push target {target} {words}"
    with pytest.raises(CredentialsError, match="alice may not write in stranger") as caught:
        preflight_hub.check(wanted(tmp_path, sft(more=", push: {repo: stranger/new}")), token)
    assert caught.value.hint == "push to alice/new"
    with pytest.raises(CredentialsError, match="needs a token on the machine"):
        preflight_hub.check(wanted(tmp_path, sft(more=", push: {repo: alice/new}")), token=False)


def test_a_hub_in_trouble_is_told_and_refuses_nothing(hub: HfSim, tmp_path: Path) -> None:
    hub.faults({"server_error": {"of": "repo_file", "times": 1}})
    told = preflight_hub.check(wanted(tmp_path, sft()), hub.exports["HF_TOKEN"])
    assert len(told) == 1
    assert told[0].startswith("not checked: acme/open, acme/rows (the Hub answered 500); the machine looks")


@pytest.mark.usefixtures("hub")
def test_a_hub_that_is_not_there_is_told_and_refuses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    words = "not checked: acme/open, acme/rows (the Hub at 127.0.0.1:9 can't be reached from here)"
    assert preflight_hub.check(wanted(tmp_path, sft()), None)[0].startswith(words)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set here" in preflight_hub.check(wanted(tmp_path, sft()), None)[0]
