"""`--push-to-hub` before anything is rented: what would fail at the end is refused at the beginning."""

from __future__ import annotations

import pytest

from orchestrator import push, templates
from orchestrator.screens import _push as shown
from providers.errors import CredentialsError, RefusedError, UsageError


@pytest.fixture
def hub(hf, monkeypatch):
    """The Hub as a command finds it: by the environment."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", hf.sim.url)
    for name, value in hf.sim.exports.items():
        monkeypatch.setenv(name, value)
    return hf.sim


def make(hub, repo: str, **how) -> None:
    from huggingface_hub import HfApi

    HfApi(endpoint=hub.url, token=hub.exports["HF_TOKEN"]).create_repo(repo, **how)


def test_a_repository_that_may_be_made_is_made_private_once_the_plan_was_agreed_to(hub):
    wish = push.check("alice/model", public=False)
    assert hub.state()["repos"] == {}
    assert "alice/model on the Hub, private" in wish.remark()[1]
    wish.make()
    assert hub.state()["repos"]["alice/model"]["private"]
    push.check("alice/model", public=False).make()  # there already: as good


def test_everybody_s_repository_is_made_only_where_that_was_asked_for(hub):
    wish = push.check("alice/open", public=True)
    assert "PUBLIC" in wish.remark()[1]
    wish.make()
    assert not hub.state()["repos"]["alice/open"]["private"]


def test_what_should_be_private_does_not_go_where_everybody_reads(hub):
    make(hub, "alice/model", private=False)
    with pytest.raises(RefusedError, match="everybody can read it") as caught:
        push.check("alice/model", public=False)
    assert "--push-public" in caught.value.hint


@pytest.mark.parametrize("repo", ["", "model", "a/b/c", "alice/", "alice/mo del", "alice/../x", "alice/a--b", "-a/b"])
@pytest.mark.usefixtures("hub")
def test_what_is_no_repository_is_said_to_be_none(repo):
    with pytest.raises(UsageError, match="is no repository"):
        push.check(repo, public=False)


def test_a_namespace_of_somebody_else_and_a_token_that_only_reads_are_refused(hub):
    with pytest.raises(CredentialsError, match="somebody"):
        push.check("somebody/model", public=False)
    make(hub, "alice/model", private=True)
    hub.faults({"read_only_token": {"times": None}})
    with pytest.raises(CredentialsError, match="403"):
        push.check("alice/model", public=False)


def test_a_right_that_only_the_making_can_show_is_shown_before_anything_is_rented(hub):
    wish = push.check("alice/model", public=False)  # the Hub says nothing of such a token until it writes
    hub.faults({"read_only_token": {"times": None}})
    with pytest.raises(CredentialsError, match="403") as caught:
        wish.make()
    assert "huggingface.co/settings/tokens" in caught.value.hint


@pytest.mark.usefixtures("hub")
def test_without_a_token_the_variable_is_named(monkeypatch, tmp_path):
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises(CredentialsError, match="HF_TOKEN"):
        push.check("alice/model", public=False)


def test_any_training_can_be_pushed_and_its_own_command_and_secrets_stay(hub, tmp_path):
    (tmp_path / "mine.py").write_text("")
    (tmp_path / "mine.yaml").write_text(
        "name: mine\ntraining: {method: script, code: mine.py, command: ['{python}', code/mine.py, '--', -x]}\n"
        "secrets: [WANDB_API_KEY]\n"
    )
    pushed = push.check("alice/model", public=False).into(templates.load(str(tmp_path / "mine.yaml")))
    script, *wish = pushed.command[1:]
    assert (script, wish[:2], wish[2:4]) == (
        "payload/hub_push.py",
        ["alice/model", "private"],
        ["--endpoint", hub.url],
    )
    assert wish[4:] == ["--", "{python}", "code/mine.py", "--", "-x"]
    assert pushed.settings.secrets == ["WANDB_API_KEY", "HF_TOKEN"]


@pytest.mark.usefixtures("hub")
def test_a_template_that_pushes_by_itself_is_not_pushed_twice(tmp_path):
    (tmp_path / "mine.yaml").write_text(
        "name: mine\ntraining: {method: export, model: alice/base, push: {repo: alice/other}}\n"
    )
    with pytest.raises(UsageError, match="alice/other"):
        push.check("alice/model", public=False).into(templates.load(str(tmp_path / "mine.yaml")))


def test_the_end_says_where_it_is_or_that_it_failed_and_what_to_type():
    there = {"push_repo": "alice/model", "push_private": True, "push_commit": "0123456789abcdef", "push_error": ""}
    assert shown(there) == "alice/model on the Hub, private, commit 0123456789ab"
    failed = shown({**there, "push_error": "403 \x1b[31mno"})
    assert "FAILED, and nothing is lost: 403 " in failed
    assert "\x1b" not in failed
    assert "hf upload alice/model <the artifacts> --private" in failed
    assert shown({"loss": 0.1}) == ""
