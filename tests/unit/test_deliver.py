"""The sender: every way to tell, with tries and limits; what hangs harms nobody, and no failure holds a token."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hooks import HANG, Hook, listening

from orchestrator import targets
from orchestrator.deliver import Pace, deliver
from orchestrator.notices import guard_says

if TYPE_CHECKING:
    from collections.abc import Iterator

NOTICE = guard_says("overdue-i-1", "gpurun ended an overdue allocation", "lambda i-1, naïve ✓").as_json(
    datetime(2026, 11, 22, 12, tzinfo=UTC)
)
QUICK = Pace(one_try=10.0, whole=40.0, pauses=(0.0, 0.0))
TOKEN = "services-T000-verysecret"  # noqa: S105 (a stand-in)


@pytest.fixture
def hook() -> Iterator[Hook]:
    with listening() as one:
        yield one


def told(text: str, pace: Pace = QUICK) -> str:
    (why,) = deliver(NOTICE, [targets.parse(text)], pace).values()
    return why


def script(folder: Path, code: str) -> str:
    path = folder / "tell it.py"
    path.write_text(code)
    return f"command:{sys.executable} '{path}' --option"


# ── webhooks and ntfy ────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_webhook_gets_the_notice_as_json(hook: Hook) -> None:
    assert told(f"{hook.url}/{TOKEN}?x=1") == ""
    (got,) = hook.got
    assert got.path == f"/{TOKEN}?x=1"
    assert got.headers["content-type"] == "application/json"
    assert got.json == NOTICE


@pytest.mark.parametrize(
    ("answers", "why", "tries"),
    [
        ([500, 429, 200], "", 3),
        ([500, 502, 503, 200], "answered 503", 3),
        ([404, 200], "answered 404", 1),  # another try would not help
        ([302, 200], "answered 302", 1),  # a redirect could carry the token elsewhere
    ],
)
def test_what_may_pass_is_tried_again_thrice_at_most(hook: Hook, answers: list[int], why: str, tries: int) -> None:
    hook.answers = answers
    assert (told(f"{hook.url}/x"), len(hook.got)) == (why, tries)


def test_one_that_hangs_keeps_nobody_from_being_told(hook: Hook) -> None:
    hook.answers = [HANG] * 3
    slow, outcomes = targets.parse(f"{hook.url}/{TOKEN}"), {}
    with listening() as other:
        quick = targets.parse(f"{other.url}/x")
        sender = threading.Thread(target=lambda: outcomes.update(deliver(NOTICE, [slow, quick], QUICK)))
        sender.start()
        until = time.monotonic() + 60
        while not other.got:
            assert time.monotonic() < until, "it waits for the one that hangs"
            time.sleep(0.02)
        hook.over.set()
        sender.join()
    assert outcomes == {slow: "can't be reached", quick: ""}


def test_a_try_that_gets_no_answer_is_given_up(hook: Hook) -> None:
    hook.answers = [HANG]
    assert told(f"{hook.url}/{TOKEN}", Pace(one_try=0.2, whole=40.0, pauses=())) == "no answer within 0 s"


def test_what_hangs_for_good_is_left_when_the_time_is_up(hook: Hook) -> None:
    hook.answers = [HANG]
    assert told(f"{hook.url}/x", Pace(one_try=30.0, whole=0.3, pauses=())) == "no answer within 0 s"


def test_nobody_there_is_told_without_the_address() -> None:
    with listening() as gone:
        text = f"{gone.url}/{TOKEN}"
    assert told(text) == "can't be reached"


def test_ntfy_is_published_to_as_its_manual_says(hook: Hook) -> None:
    assert told(f"ntfy://tk_secret@127.0.0.1:{hook.port}/my-topic") == ""
    (got,) = hook.got
    assert (got.path, got.headers["authorization"]) == ("/", "Bearer tk_secret")
    body = got.json
    assert (body["topic"], body["title"], body["message"]) == ("my-topic", NOTICE["title"], NOTICE["text"])
    assert (body["priority"], body["tags"]) == (4, ["warning"])


def test_a_login_of_the_users_netrc_goes_nowhere(hook: Hook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password other-secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert told(f"{hook.url}/x") == ""
    assert told(f"ntfy://tk_1@{hook.url.removeprefix('http://')}/topic") == ""
    assert [got.headers.get("authorization") for got in hook.got] == [None, "Bearer tk_1"]


def test_ntfy_takes_a_user_with_a_password_too(hook: Hook) -> None:
    assert told(f"ntfy://me:pass@127.0.0.1:{hook.port}/my-topic") == ""
    assert hook.got[0].headers["authorization"] == "Basic bWU6cGFzcw=="


# ── a command, the desktop, apprise ──────────────────────────────────────────────────────────────────────────────────


def test_a_command_gets_the_event_in_its_environment_and_as_json(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    facts = "[sys.argv[1:], dict(os.environ), json.load(sys.stdin)]"
    assert told(script(tmp_path, f"import json, os, sys\njson.dump({facts}, open({str(out)!r}, 'w'))")) == ""
    argv, environ, given = json.loads(out.read_text())
    assert (argv, given) == (["--option"], NOTICE)
    assert (environ["GPURUN_EVENT"], environ["GPURUN_TITLE"]) == ("guard", NOTICE["title"])
    assert "GPURUN_OUTCOME" not in environ  # what says nothing is not there


def test_a_command_that_reads_nothing_and_fails_is_told_by_its_exit_code(tmp_path: Path) -> None:
    assert told(script(tmp_path, "raise SystemExit(7)")) == "left with 7"
    assert told(f"command:/no/such/{TOKEN}") == "can't be run: No such file or directory"


def test_a_command_that_hangs_is_killed_with_its_children(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    code = (
        "import os, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        f"open({str(pids)!r}, 'w').write(f'{{os.getpid()}} {{child.pid}}')\n"
        "time.sleep(60)"
    )
    # Long enough for it to have started its child; it is asked again until it had.
    for seconds in (1.0, 3.0, 9.0):
        why = told(script(tmp_path, code), Pace(one_try=seconds / 3, whole=60.0, pauses=()))
        if pids.exists() and len(pids.read_text().split()) == 2:
            break
    assert why.startswith("did not end within")
    until = time.monotonic() + 30
    while any(is_living(int(pid)) for pid in pids.read_text().split()):
        assert time.monotonic() < until, "left running"
        time.sleep(0.05)


def is_living(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] not in {b"Z", b"X"}
    except FileNotFoundError:
        return False


def test_the_desktop_is_told_by_the_systems_own_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert told("desktop") == "this computer has no notify-send"
    program = tmp_path / "notify-send"
    program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {tmp_path}/out\n')
    program.chmod(0o755)
    assert told("desktop") == ""
    assert (tmp_path / "out").read_text().splitlines() == [
        *("--app-name=gpurun", "--urgency=critical", "--"),
        *(NOTICE["title"], NOTICE["text"]),
    ]


@pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")  # apprise 2.2 loads it on Python 3.11
def test_any_other_address_is_apprises(hook: Hook) -> None:
    assert told(f"json://127.0.0.1:{hook.port}/{TOKEN}") == ""
    assert hook.got[0].json["title"] == NOTICE["title"]
    hook.answers = [500] * 3
    assert told(f"json://127.0.0.1:{hook.port}/{TOKEN}") == "apprise could not tell it"
    assert told("nosuchscheme://x") == "apprise does not know such an address"


def test_without_apprise_an_address_of_its_is_refused_while_it_can_be_mended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(targets.ConfigError) as caught:
        targets.need_apprise([targets.parse("desktop"), targets.parse(f"slack://{TOKEN}/b/c")])
    assert "gpurun[notify]" in caught.value.hint
    assert TOKEN not in str(caught.value) + caught.value.hint
    targets.need_apprise([targets.parse("desktop")])


def test_the_senders_environment_is_left_as_it_is(hook: Hook) -> None:
    before = dict(os.environ)
    told(f"{hook.url}/x")
    assert dict(os.environ) == before
