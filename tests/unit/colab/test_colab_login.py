"""Logins at Google: where they lie, what they must allow, what is typed where they don't."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from colab_ground import open_colab

from orchestrator.keys import variable_of
from providers.colab import credentials
from providers.colab.credentials import CLI_TOKEN, EMAIL, GOOGLE, SIGN_IN, find
from providers.errors import CredentialsError, UnreachableError, UsageError

USER = {"type": "authorized_user", "client_id": "id", "client_secret": "secret", "refresh_token": "1//token"}

LASTING = {"token": "ya29.good-for-an-hour", "expiry": "2099-01-01T00:00:00Z"}


def write(path: Path, **fields) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**USER, **fields}))
    return path


def test_nothing_there_names_the_exact_line_to_type(tmp_path):
    with pytest.raises(CredentialsError) as caught:
        find({"HOME": str(tmp_path)})
    assert "GOOGLE_APPLICATION_CREDENTIALS" in str(caught.value)
    assert caught.value.hint == SIGN_IN
    assert SIGN_IN == (
        "gcloud auth application-default login --scopes=openid,https://www.googleapis.com/auth/cloud-platform,"
        "https://www.googleapis.com/auth/userinfo.email,https://www.googleapis.com/auth/colaboratory"
    )


def test_the_variable_comes_first_then_the_official_command_s_login_then_gcloud_s(tmp_path):
    gcloud = write(
        tmp_path / ".config/gcloud/application_default_credentials.json",
    )
    assert find({"HOME": str(tmp_path)})._file == str(gcloud)
    cli = write(
        tmp_path / CLI_TOKEN.removeprefix("~/"),
    )
    assert find({"HOME": str(tmp_path)})._file == str(cli)
    named = write(tmp_path / "named.json")
    assert find({"HOME": str(tmp_path), credentials.VARIABLE: str(named)})._file == str(named)


def test_without_google_auth_the_exact_pip_line_is_named(tmp_path, monkeypatch):
    named = write(tmp_path / "named.json")
    monkeypatch.setitem(sys.modules, "google.oauth2.credentials", None)
    with pytest.raises(CredentialsError) as caught:
        find({credentials.VARIABLE: str(named)})
    assert caught.value.hint == "pip install 'gpurun[colab]'"


def test_a_login_without_the_scope_is_refused_before_anything_is_asked(tmp_path):
    named = write(tmp_path / "named.json", scopes=["openid"], **LASTING)
    with pytest.raises(CredentialsError, match=r"lacks the scope userinfo\.email") as caught:
        find({credentials.VARIABLE: str(named)}).freshen()
    assert caught.value.hint == SIGN_IN


def test_a_token_that_lasts_is_taken_as_it_is(tmp_path):
    named = write(tmp_path / "named.json", scopes=[EMAIL], **LASTING)
    login = find({credentials.VARIABLE: str(named)})
    login.freshen()
    assert login.reveal() == LASTING["token"]


@pytest.mark.parametrize("text", ["", "[]", "{}", "not json", '{"type": "service_account"}', '{"refresh_token": 5}'])
def test_a_file_that_is_no_login_is_an_error_that_says_so(tmp_path, text):
    named = tmp_path / "named.json"
    named.write_text(text)
    with pytest.raises(CredentialsError) as caught:
        find({credentials.VARIABLE: str(named)})
    assert caught.value.hint == SIGN_IN


def test_a_refresh_token_goes_to_google_whatever_the_file_says(tmp_path):
    for address in ("https://evil.example/token", "http://evil.example/token", ""):
        named = write(tmp_path / "named.json", token_uri=address)
        assert find({credentials.VARIABLE: str(named)})._credentials.token_uri == GOOGLE


def test_no_login_is_ever_shown(tmp_path):
    named = write(tmp_path / "named.json", scopes=[EMAIL], **LASTING)
    login = find({credentials.VARIABLE: str(named)})
    assert "ya29" not in repr(login) + str(login) + f"{login!r}"


def test_the_account_is_named_by_google_and_the_same_for_another_login_of_its(sim, tmp_path):
    first = open_colab(sim, tmp_path)
    login = Path(sim.exports[credentials.VARIABLE])
    kept = json.loads(login.read_text())
    write(tmp_path / "other.json", **kept, token=first._login.reveal())
    second = open_colab(sim, tmp_path, **{credentials.VARIABLE: str(tmp_path / "other.json")})
    assert first.account() == second.account() == "colab-alice@example.com"


def test_a_login_that_google_refuses_says_what_to_type(sim, tmp_path):
    provider = open_colab(sim, tmp_path)
    sim.faults({"token_refused": True})
    with pytest.raises(CredentialsError) as caught:
        provider.offers()
    assert caught.value.hint == SIGN_IN


def test_a_token_that_is_refused_in_the_middle_is_taken_anew(sim, provider):
    assert provider.offers()
    sim.faults({"key_rejected": {"times": 1}})
    assert provider.offers()


@pytest.mark.parametrize("fault", ["bad_gateway", "gateway_timeout"])
def test_a_trouble_of_google_s_own_is_no_word_about_the_login(sim, provider, fault):
    sim.faults({fault: {"of": "token", "times": 1}})
    assert provider.offers()
    sim.faults({fault: {"of": "token", "times": 30}})
    with pytest.raises(UnreachableError):
        provider._login.freshen(now=True)


def test_a_google_that_does_not_answer_proves_nothing(tmp_path, sim):
    kept = json.loads(Path(sim.exports[credentials.VARIABLE]).read_text())
    named = write(tmp_path / "named.json", **{**kept, "token_uri": "http://127.0.0.1:9/token"})
    provider = open_colab(sim, tmp_path, **{credentials.VARIABLE: str(named)})
    with pytest.raises(UnreachableError):
        provider.offers()


def test_login_says_that_colab_takes_no_key():
    with pytest.raises(UsageError) as caught:
        variable_of("colab")
    assert caught.value.hint == SIGN_IN
