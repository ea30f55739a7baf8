"""Where notices go: each kind of target is read, none is shown whole, what is none is named without its token."""

from __future__ import annotations

import pytest

from orchestrator import targets
from orchestrator.targets import Way
from providers.errors import ConfigError

TOKEN = "xoxb-verysecret-0123456789"  # noqa: S105 (a stand-in)


@pytest.mark.parametrize(
    ("text", "way", "shown"),
    [
        (f"https://hooks.example/services/{TOKEN}", Way.WEBHOOK, "webhook hooks.example"),
        (f"https://user:{TOKEN}@hooks.example:8443/x", Way.WEBHOOK, "webhook hooks.example"),
        ("http://127.0.0.1:9/x", Way.WEBHOOK, "webhook 127.0.0.1"),
        ("ntfy://my-secret-topic", Way.NTFY, "ntfy ntfy.sh/my-s…"),
        ("https://ntfy.sh/my-secret-topic", Way.NTFY, "ntfy ntfy.sh"),
        (f"ntfy://{TOKEN}@box.example/topic12", Way.NTFY, "ntfy box.example/topi…"),
        ("desktop", Way.DESKTOP, "desktop"),
        (f"command:/usr/bin/tell --token '{TOKEN}'", Way.COMMAND, "command tell"),
        (f"slack://{TOKEN}/a/b", Way.APPRISE, "slack"),
    ],
)
def test_a_target_is_read_and_shown_without_its_token(text: str, way: Way, shown: str) -> None:
    target = targets.parse(f" {text} ")
    assert (target.way, target.shown, target.text) == (way, shown, text)
    assert TOKEN not in repr(target) + str(target)


@pytest.mark.parametrize(
    "text",
    [
        *("", TOKEN, "mailto", "https://", f"https:///{TOKEN}", "https://[::1/x", "https://host:port/x", "ntfy://"),
        *("ntfy://host/a b", "ntfy://host/ünder", "command:", "command:   ", "command:'open", f"x\n{TOKEN}"),
        "https://h/" + "x" * 1000,
    ],
)
def test_what_is_no_target_is_refused_without_being_shown(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        targets.parse(text)
    assert TOKEN not in str(caught.value) + caught.value.hint


@pytest.mark.parametrize(
    ("text", "server", "topic", "login"),
    [
        ("ntfy://Topic_1", "https://ntfy.sh", "Topic_1", None),
        ("https://ntfy.sh/topic", "https://ntfy.sh", "topic", None),
        ("ntfy://box:8443/topic", "https://box:8443", "topic", None),
        ("ntfy://127.0.0.1:80/topic", "http://127.0.0.1:80", "topic", None),
        ("ntfy://box/pre/fix/topic", "https://box/pre/fix", "topic", None),
        ("ntfy://tk_1@box/topic", "https://box", "topic", ("", "tk_1")),
        ("ntfy://me:p%40ss@box/topic", "https://box", "topic", ("me", "p@ss")),
        ("ntfy://[::1]:80/topic", "http://[::1]:80", "topic", None),
    ],
)
def test_an_ntfy_target_names_server_topic_and_login(
    text: str, server: str, topic: str, login: tuple[str, str] | None
) -> None:
    assert targets.ntfy_of(text) == (server, topic, login)


def test_several_stand_in_one_line_and_a_command_takes_the_rest_of_it() -> None:
    found = targets.several("desktop  ntfy://topic command:/bin/tell desktop 'a b'")
    assert [one.way for one in found] == [Way.DESKTOP, Way.NTFY, Way.COMMAND]
    assert targets.words_of(found[-1].text) == ["/bin/tell", "desktop", "a b"]
    assert targets.several("desktop desktop") == targets.several("desktop")


def test_more_targets_than_a_pipe_holds_are_refused() -> None:
    with pytest.raises(ConfigError, match="9 targets"):
        targets.all_of([f"ntfy://topic-{number}" for number in range(9)])
