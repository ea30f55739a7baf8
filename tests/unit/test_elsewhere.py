"""Who counts as another holder: a guard whose pulse is fresh, that saw this account, had no trouble. Nobody else."""

from __future__ import annotations

import json
import os
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, Any

import pytest
from fakes import Clock, FakeCloud

from orchestrator import elsewhere, guard_pulse, guard_timer, settings_file
from orchestrator.guard_timer import Timer
from orchestrator.home import Home
from orchestrator.plan import GUARD_HERE
from providers.base import Place, Proof
from providers.errors import UnreachableError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
BEAT = NOW.timestamp() - 40
BOX = "ssh://me@box"


def pulse(**more: Any) -> dict[str, Any]:
    seen = {"account": "key-1", "counts": {"live": 1}, "troubles": [], **more.pop("seen", {})}
    return {"when": BEAT, "host": "box", "providers": {"lambda": seen}, **more}


def holder(told: dict[str, Any]) -> elsewhere.Holder:
    return elsewhere.look(BOX, "lambda", "key-1", NOW, lambda _address: told)


def test_a_fresh_pulse_that_saw_the_account_is_a_holder() -> None:
    found = holder(pulse())
    assert (found.name, found.place, found.proof) == ("the guard at box", Place.ELSEWHERE, Proof.PROVEN)
    assert found.proven_at == NOW - timedelta(seconds=40)
    assert found.extendable
    assert found.worst_overrun_seconds == 120
    assert holder({"time": BEAT, "providers": {"lambda": {"account": "key-1", "trouble": ""}}}).proof is Proof.PROVEN


@pytest.mark.parametrize(
    ("told", "why"),
    [
        (pulse(when=BEAT - 141), "its last pulse was 3 min 01 s ago"),
        (pulse(when=NOW.timestamp() + 90), "its clock is 1 min 30 s ahead"),
        (pulse(installed=None, note=""), "nobody runs it again: no timer is installed there"),
        (pulse(installed={"way": "cron"}, note="no cron daemon runs here"), "nobody runs it again: no cron daemon"),
        (pulse(seen={"account": "key-2"}), "it looks at key-2, and this is key-1"),
        (pulse(seen={"account": ""}), "it looks at no account"),
        (pulse(seen={"troubles": ["no answer"]}), "it has trouble: no answer"),
        (pulse(seen={"trouble": "key refused"}), "it has trouble: key refused"),
        (pulse(seen={"counts": None}), "it could not look at lambda"),
        (pulse(providers={}), "it does not look at lambda"),
        (pulse(providers=None), "it does not look at lambda"),
        (pulse(when="now"), "no pulse of a guard"),
        (pulse(when=True), "no pulse of a guard"),
        (pulse(when=float("nan")), "no pulse of a guard"),
        ({}, "it has never run"),
        ({"installed": None, "note": "", "age_seconds": None}, "it has never run"),
    ],
)
def test_every_other_pulse_is_an_absence_with_its_reason(told: dict[str, Any], why: str) -> None:
    found = holder(told)
    assert (found.proof, found.proven_at) == (Proof.ABSENT, None)
    assert why in found.evidence


def test_a_guard_that_is_watched_or_has_a_timer_comes_again() -> None:
    assert holder(pulse(installed=None, note="", watched=True)).proof is Proof.PROVEN
    assert holder(pulse(installed={"way": "systemd"}, note="")).proof is Proof.PROVEN


def test_what_a_guard_says_reaches_no_terminal_raw() -> None:
    found = holder(pulse(seen={"troubles": ["\x1b[2J" + "x" * 5000]}))
    assert "\x1b" not in found.evidence
    assert len(found.evidence) <= 200


CHECK = {"name": "guard", "tags": "gpurun key-1", "status": "up", "last_ping": "2026-11-22T11:59:20+00:00"}


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({}, ""),
        ({"status": "grace"}, "its check is grace"),
        ({"status": "down"}, "its check is down"),
        ({"tags": "gpurun"}, "give it the tag key-1"),
        ({"tags": "key-12"}, "give it the tag key-1"),
        ({"last_ping": None}, "never pinged"),
        ({"last_ping": "2026-11-22T11:50:00+00:00"}, "10 min ago"),
    ],
)
def test_a_healthchecks_check_counts_while_it_is_up_and_names_the_account(more: dict[str, Any], why: str) -> None:
    found = holder({**CHECK, **more})
    assert (found.proof is Proof.PROVEN) == (not why)
    assert why in found.evidence


# ── asking ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An `ssh` that writes its arguments down and does what `answer` says."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "ssh"
    program.write_text('#!/bin/sh\nhere=$(dirname "$0")\nprintf "%s\\n" "$@" > "$here/args"\n. "$here/answer"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


def test_a_box_is_asked_over_ssh_without_a_password_and_heard_whatever_its_exit_code(ssh: Path) -> None:
    (ssh / "answer").write_text(f"echo '{json.dumps(pulse())}'\nexit 5\n")
    assert elsewhere.pulse_at("ssh://me@box:2222") == pulse()
    args = (ssh / "args").read_text().splitlines()
    assert args[:2] == ["-o", "BatchMode=yes"]
    assert args[4:8] == ["-p", "2222", "--", "me@box"]
    assert "gpurun guard status --json" in args[8]


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ("echo 'sh: gpurun: not found' >&2; exit 127", "ssh left with 127: sh: gpurun: not found"),
        ("echo '[1, 2]'", "no pulse there"),
        ("echo 'Welcome to box'", "no pulse there: ssh left with 0"),
        ("exit 255", "ssh left with 255"),
    ],
)
def test_a_box_that_tells_no_pulse_is_absent_and_says_what_came(ssh: Path, answer: str, why: str) -> None:
    (ssh / "answer").write_text(answer + "\n")
    found = elsewhere.look(BOX, "lambda", "key-1", NOW)
    assert (found.proof, why in found.evidence) == (Proof.ABSENT, True), found.evidence


def test_a_box_that_never_answers_is_left_alone(ssh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(elsewhere, "_PATIENCE_SECONDS", 0.3)
    (ssh / "answer").write_text("exec sleep 20\n")
    with pytest.raises(UnreachableError, match="no answer over ssh"):
        elsewhere.pulse_at(BOX)


@contextmanager
def served(
    status: int, body: bytes, headers: dict[str, str] | None = None
) -> Iterator[tuple[str, list[dict[str, str]]]]:
    asked: list[dict[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(dict(self.headers))
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/pulse.json", asked
        finally:
            server.shutdown()
            thread.join()


def test_a_served_pulse_is_read_with_the_key_of_the_check_if_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    with served(200, json.dumps(pulse()).encode()) as (address, asked):
        assert elsewhere.pulse_at(address) == pulse()
        monkeypatch.setenv("HEALTHCHECKS_API_KEY", "hcr_made_up")
        elsewhere.pulse_at(address)
    assert [one.get("X-Api-Key") for one in asked] == [None, "hcr_made_up"]
    assert "Authorization" not in asked[0]


@pytest.mark.parametrize(
    ("status", "body", "why"),
    [
        (404, b"{}", "HTTP 404"),
        (302, b"", "HTTP 302"),
        (200, b"\xff{", "no JSON object"),
        (200, b"[]", "no JSON"),
    ],
)
def test_an_address_without_a_pulse_is_absent_and_no_redirect_is_followed(status: int, body: bytes, why: str) -> None:
    with served(status, body, {"Location": "http://127.0.0.1:9/"}) as (address, asked):
        found = elsewhere.look(address, "lambda", "key-1", NOW)
    assert (found.proof, why in found.evidence) == (Proof.ABSENT, True), found.evidence
    assert len(asked) == 1


def test_a_body_without_end_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(elsewhere, "_MOST_BYTES", 1000)
    with served(200, b" " * 100_000) as (address, _), pytest.raises(UnreachableError, match="no end"):
        elsewhere.pulse_at(address)


def test_nobody_at_the_address_is_absent_and_the_address_is_not_told_again() -> None:
    found = elsewhere.look("http://127.0.0.1:9/secret-path", "lambda", "key-1", NOW)
    assert found.evidence == "no answer: ConnectionError"


# ── the timer here ───────────────────────────────────────────────────────────────────────────────────────────────────


def here(home: Home) -> elsewhere.Holder:
    cloud = FakeCloud(Clock())
    (found,) = elsewhere.holders(home, "", cloud, datetime.now(UTC))
    return found


def test_a_timer_on_this_computer_is_shown_as_what_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, cloud = Home(tmp_path / "home").ensure(), FakeCloud(Clock())
    timer: list[Timer | None] = [None]
    monkeypatch.setattr(guard_timer, "find", lambda _home: timer[0])
    (home.root / guard_pulse.SCRIPT).write_text("")
    assert "not installed" in here(home).evidence
    timer[0] = Timer("cron", ())
    assert "never run" in here(home).evidence
    seen = guard_pulse.Seen(account=cloud.account(), counts={})
    beat = guard_pulse.Pulse(time.time(), "me", providers={cloud.name: seen})
    guard_pulse.write(home, beat)
    found = here(home)
    assert (found.name, found.place, found.proof) == (GUARD_HERE, Place.HERE, Proof.PROVEN)
    for nobody in (Timer("systemd", (), "its timer is not active"), None):
        timer[0] = nobody
        assert here(home).proof is Proof.ABSENT
    guard_pulse.write(home, replace(beat, watched=True))
    assert here(home).proof is Proof.PROVEN  # no timer: gpurun guard watch
    guard_pulse.write(home, replace(beat, watched=True, when=time.time() - 600))
    assert "10 min ago" in here(home).evidence
    guard_pulse.path_of(home).write_text("{half")
    assert here(home).proof is Proof.ABSENT


# ── the address ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "text",
    [
        "ssh://me@box",
        "ssh://box",
        "ssh://me@box.example:2222",
        "https://hc.example/x",
        "http://127.0.0.1:8/x",
        "ssh://10.0.0.7",
    ],
)
def test_where_a_guard_can_be_asked_is_kept(tmp_path: Path, text: str) -> None:
    settings_file.set_value(tmp_path / "config.toml", "guard-elsewhere", text)
    assert settings_file.get(tmp_path / "config.toml", "guard-elsewhere") == text


@pytest.mark.parametrize(
    "text",
    [
        "box", "me@box", "ssh://-oProxyCommand=x", "ssh://-x@box", "ssh://me@box/tmp", "ssh://me:secret@box", "ssh://",
        "http://hc.example/x", "https://me:secret@hc.example", "ftp://box", "ssh://me@box:no", "ssh://bo x", "ssh://b'x",
    ],
)  # fmt: skip
def test_where_nobody_can_be_asked_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(settings_file.ConfigError, match="ssh://user@box"):
        settings_file.set_value(tmp_path / "config.toml", "guard-elsewhere", text)
