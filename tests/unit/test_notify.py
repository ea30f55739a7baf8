"""The herald: told once whatever restarts, by a process of its own that disturbs nobody and shows no token."""

from __future__ import annotations

import io
import json
import os
import subprocess
import time
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hooks import HANG, Hook, listening
from past import admit, done, output
from worlds import World

from orchestrator import notify, targets, wish
from orchestrator.facts import Memory
from orchestrator.guard_pulse import SCRIPT, Pulse, path_of, write
from orchestrator.home import Home
from orchestrator.ledger import Ledger
from orchestrator.notices import guard_says
from orchestrator.words import Reason, State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from orchestrator.records import Event

RUN = "demo-261122-aaaaaa"
TOKEN = "T000-verysecret"  # noqa: S105 (a stand-in)


@pytest.fixture
def hook() -> Iterator[Hook]:
    with listening() as one:
        yield one


@pytest.fixture(autouse=True)
def _no_sender_outlives_its_test() -> Iterator[None]:
    yield
    for child in notify._children:
        child.kill()
        child.wait()
    notify._children.clear()


def until(seen: Callable[[], bool]) -> None:
    limit = time.monotonic() + 60
    while not seen():
        assert time.monotonic() < limit, "it never came"
        time.sleep(0.02)


def over(home: Path, hook: Hook, reason: Reason = Reason.COMPLETED, **more: object) -> Home:
    """A home with a run that is over and whose end was not told."""
    admit(home, RUN, done(reason), ended=True, **more)  # type: ignore[arg-type]
    found = Home(home)
    found.run(RUN).path.mkdir(parents=True)
    notify.keep(found, RUN, (targets.parse(f"{hook.url}/{TOKEN}"),))
    return found


def look(home: Home, now: datetime | None = None) -> None:
    """Look as a new controller would."""
    ledger = Ledger(home.ledger)
    try:
        notify.Herald(home, ledger).look(ledger.run(RUN), now or datetime.now(UTC))
    finally:
        ledger.close()


def events(home: Home, run_id: str = RUN) -> list[Event]:
    ledger = Ledger(home.ledger)
    try:
        return [one for one in ledger.events(run_id) if one.verb == "notify"]
    finally:
        ledger.close()


# ── told once ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_end_is_told_once_however_often_a_controller_looks_again(home: Path, hook: Hook) -> None:
    found = over(home, hook)
    look(found)
    look(found)
    until(lambda: any(one.kind == "done" for one in events(found)))
    look(found)
    assert [one.kind for one in events(found)] == ["intent", "done"]
    assert events(found)[-1].text == "end webhook 127.0.0.1"
    (got,) = hook.got
    assert (got.path, got.json["event"], got.json["run_id"]) == (f"/{TOKEN}", "end", RUN)
    assert (got.json["outcome"], got.json["reason"], got.json["folder"]) == ("succeeded", "completed", None)


def test_a_token_stands_in_no_ledger_and_its_file_is_its_owners_until_the_end_was_told(home: Path, hook: Hook) -> None:
    found = over(home, hook)
    kept = found.run(RUN).notify
    assert kept.stat().st_mode & 0o777 == 0o600
    hook.answers = [404]
    look(found)
    until(lambda: any(one.kind == "failed" for one in events(found)))
    until(lambda: not kept.exists())
    assert events(found)[-1].text == "end webhook 127.0.0.1: answered 404"
    assert [path for path in home.rglob("*") if path.is_file() and TOKEN.encode() in path.read_bytes()] == []


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs Linux: argv and environment are read from /proc")
def test_a_senders_argv_and_environment_hold_no_token(home: Path, hook: Hook) -> None:
    hook.answers = [HANG]
    look(over(home, hook))
    until(lambda: bool(hook.got))
    (sender,) = notify._children
    folder = Path(f"/proc/{sender.pid}")
    assert b"orchestrator.deliver" in (folder / "cmdline").read_bytes()
    assert TOKEN.encode() not in (folder / "cmdline").read_bytes() + (folder / "environ").read_bytes()


def test_a_controller_that_died_before_its_sender_spoke_is_spoken_for_by_the_next(home: Path, hook: Hook) -> None:
    found = over(home, hook)
    ledger = Ledger(found.ledger)
    ledger.note(RUN, 1, "controller", "notify", "intent", "end x", datetime.now(UTC) - timedelta(minutes=6))
    ledger.close()
    look(found)
    until(lambda: bool(hook.got))
    assert [one.kind for one in events(found)][:2] == ["intent", "intent"]


def test_a_guards_pass_tells_the_end_that_a_killed_controller_could_not(home: Path, hook: Hook) -> None:
    found = over(home, hook)
    notify.catch_up(found)  # its controller may be telling it just now
    assert events(found) == []
    notify.catch_up(found, datetime.now(UTC) + timedelta(minutes=5))
    until(lambda: bool(hook.got))


def test_an_end_is_told_once_wherever_its_controller_is_killed(
    fast_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = killed_after(0, fast_path / "whole", monkeypatch)
    for line in range(lines - 14, lines + 1):  # from a tick before the end on
        killed_after(line, fast_path / str(line), monkeypatch)


def killed_after(line: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """End a run whose controller dies so many lines on; gives how many it passed."""
    world, told = World(folder), []
    world.cloud.traits = replace(world.cloud.traits, list_lag_seconds=0.0)
    world.cloud.total_steps = 1
    notify.keep(world.home, world.run_id, (targets.parse("desktop"),))

    def sender(_home: Home, payload: dict[str, Any]) -> None:
        told.append(payload["notice"]["key"])
        world.ledger.note(world.run_id, 1, "notifier", "notify", "done", told[-1], world.clock())

    monkeypatch.setattr(notify, "spawn", sender)
    world.drive(until=lambda: world.memory.state is State.TERMINATING)
    before = world.killer.passed
    world.killer.at = {before + line}
    world.drive()
    assert world.memory.is_done
    passed = world.killer.passed - before
    world.clock.advance(600)
    notify.catch_up(world.home, world.clock())
    assert told == ["end"], f"killed at line {line}"
    world.ledger.close()
    return passed


# ── nobody is disturbed ──────────────────────────────────────────────────────────────────────────────────────────────


def test_looking_never_waits_for_a_notifier_that_hangs(home: Path, hook: Hook) -> None:
    hook.answers = [HANG] * 9
    found = over(home, hook)
    look(found)  # comes back, whatever the hook does
    assert [one.kind for one in events(found)] == ["intent"]
    assert notify._children[0].poll() is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"targets": 3}', '{"targets": ["nonsense"]}', '{"targets": []}'])
def test_a_spoilt_list_of_targets_disturbs_nobody(home: Path, hook: Hook, text: str) -> None:
    found = over(home, hook)
    found.run(RUN).notify.write_text(text)
    look(found)
    assert (events(found), hook.got) == ([], [])


def test_a_ledger_that_takes_no_more_does_not_keep_it_from_being_told(home: Path, hook: Hook) -> None:
    found = over(home, hook)
    ledger = Ledger(found.ledger)
    row = ledger.run(RUN)
    ledger._db.execute("PRAGMA query_only = ON")
    notify.Herald(found, ledger).look(row, datetime.now(UTC))
    until(lambda: bool(hook.got))
    ledger.close()


def test_a_sender_that_can_not_be_started_disturbs_nobody(
    home: Path, hook: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = over(home, hook)

    def none_left(*_: object, **__: object) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(subprocess, "Popen", none_left)
    look(found)
    notify.heartbeat(found, ok=True)
    assert hook.got == []


def test_a_run_without_targets_starts_nothing_and_notes_nothing(home: Path) -> None:
    admit(home, RUN, done(Reason.COMPLETED), ended=True)
    look(Home(home))
    assert (notify._children, events(Home(home))) == ([], [])


def test_a_launch_keeps_its_targets_and_refuses_what_is_none_before_it_plans(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[tuple[int, str]] = []

    def controller(found: Home, run_id: str) -> int:
        path = found.run(run_id).notify
        kept.append((path.stat().st_mode & 0o777, json.loads(path.read_text())["targets"]))
        return 0

    monkeypatch.setattr(wish, "spawn_controller", controller)
    code, out, err = output(capsys, "launch", "loop", "-y", "--detach", "--notify", TOKEN)
    assert (code, TOKEN in out + err, home.exists()) == (2, False, False)
    text = f"https://hooks.example/{TOKEN}"
    code, out, err = output(capsys, "launch", "loop", "-y", "--detach", "--notify", "desktop", "--notify", text)
    assert (code, kept) == (0, [(0o600, ["desktop", text])])
    assert TOKEN not in out + err
    holding = [path.name for path in home.rglob("*") if path.is_file() and TOKEN.encode() in path.read_bytes()]
    assert holding == ["notify.json"]


# ── the guard ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_a_guard_says_is_told_once_an_hour(home: Path, hook: Hook, capsys: pytest.CaptureFixture[str]) -> None:
    assert output(capsys, "config", "set", "notify", f"{hook.url}/{TOKEN}")[0] == 0
    found, now = Home(home), datetime.now(UTC)
    trouble = [guard_says("lambda-unreachable", "the guard can't reach lambda", "no answer")]
    notify.tell_guard(found, trouble, now)
    until(lambda: [one.kind for one in events(found, "")] == ["intent", "done"])
    for minutes in (1, 59):
        notify.tell_guard(found, trouble, now + timedelta(minutes=minutes))
    assert [one.kind for one in events(found, "")] == ["intent", "done"]
    notify.tell_guard(found, trouble, now + timedelta(minutes=62))
    until(lambda: len(hook.got) == 2)
    assert (hook.got[0].json["event"], hook.got[0].json["run_id"]) == ("guard", None)


def test_what_reached_nobody_is_told_again_within_the_hour(home: Path, hook: Hook) -> None:
    home.mkdir()
    (home / "config.toml").write_text(f'notify = "{hook.url}/x"\n')
    found, now = Home(home), datetime.now(UTC)
    trouble = guard_says("lambda unreachable", "title", "text")
    with closing(Ledger(found.ledger)) as ledger:
        ledger.note("", 0, "guard", "notify", "intent", f"{trouble.key} title", now)
        ledger.note("", 0, "notifier", "notify", "failed", f"{trouble.key} ntfy: answered 500", now)
    assert [notify.lost(found, now + timedelta(minutes=minutes)) for minutes in (1, 6)] == [set(), {trouble.key}]
    notify.tell_guard(found, [trouble], now + timedelta(minutes=1))
    notify.tell_guard(found, [trouble], now + timedelta(minutes=6))
    until(lambda: [one.kind for one in events(found, "")] == ["intent", "failed", "intent", "done"])
    assert len(hook.got) == 1
    assert notify.lost(found, now + timedelta(minutes=12)) == set()


def test_a_damaged_ledger_keeps_nobody_from_hearing_of_it(home: Path, hook: Hook) -> None:
    home.mkdir()
    (home / "config.toml").write_text(f'notify = "{hook.url}/x"\n')
    Home(home).ledger.write_bytes(b"not SQLite at all" * 100)
    notify.tell_guard(Home(home), [guard_says("home", "its home is damaged", "the ledger can't be used")])
    until(lambda: bool(hook.got))
    assert notify.lost(Home(home)) == set()


def test_a_guard_tells_the_unfinished_runs_targets_too(home: Path, hook: Hook) -> None:
    admit(home, RUN, Memory(state=State.RUNNING))
    found = Home(home)
    found.run(RUN).path.mkdir(parents=True)
    notify.keep(found, RUN, (targets.parse(f"{hook.url}/run"),))
    notify.tell_guard(found, [guard_says("x", "title", "text")])
    until(lambda: bool(hook.got))
    assert hook.got[0].path == "/run"


@pytest.mark.parametrize("watched", [False, True])
def test_a_guard_that_falls_silent_is_told_and_a_sleep_is_no_silence(home: Path, hook: Hook, *, watched: bool) -> None:
    admit(home, RUN, Memory(state=State.RUNNING))
    found, awake, now = Home(home), [0.0], datetime.now(UTC)
    found.run(RUN).path.mkdir(parents=True)
    notify.keep(found, RUN, (targets.parse(f"{hook.url}/x"),))
    write(found, Pulse(when=now.timestamp(), host="here"))
    written = now.timestamp() - 3600
    os.utime(path_of(found), (written, written))
    ledger = Ledger(found.ledger)
    herald = notify.Herald(found, ledger, awake=lambda: awake[0])

    def looks(*seconds: float) -> int:
        for at in seconds:
            awake[0] = at
            herald.look(ledger.run(RUN), now)
        return len(ledger.events(notify.HOME_WIDE))

    assert looks(0, 1000) == 0  # a pass by hand, no guard is installed
    if watched:
        write(found, Pulse(when=now.timestamp(), host="here", watched=True))
        os.utime(path_of(found), (written, written))
    else:
        (found.root / SCRIPT).touch()
    assert looks(2000, 2100) == 0  # since 2000
    assert looks(2200, 5000) == 1
    os.utime(path_of(found), (written + 60, written + 60))
    assert looks(5001, 5100) == 1  # it just beat, late: the computer slept
    assert looks(5200) == 2
    until(lambda: len(hook.got) == 2)
    ledger.close()


# ── the heartbeat, the defaults, the command ─────────────────────────────────────────────────────────────────────────


def test_a_heartbeat_pings_its_url_and_says_when_all_is_not_well(
    home: Path, hook: Hook, capsys: pytest.CaptureFixture[str]
) -> None:
    notify.heartbeat(Home(home), ok=True)  # none is set: nothing happens
    assert output(capsys, "config", "set", "heartbeat", f"{hook.url}/ping/{TOKEN}")[0] == 0
    notify.heartbeat(Home(home), ok=True)
    until(lambda: len(hook.got) == 1)
    notify.heartbeat(Home(home), ok=False, text="lambda can't be reached")
    until(lambda: len(hook.got) == 2)
    assert [got.path for got in hook.got] == [f"/ping/{TOKEN}", f"/ping/{TOKEN}/fail"]
    assert hook.got[1].body == b"lambda can't be reached"


def test_a_heartbeat_that_fails_never_pings_as_if_all_were_well(home: Path, hook: Hook) -> None:
    (home / "config.toml").parent.mkdir(parents=True, exist_ok=True)
    (home / "config.toml").write_text(f'heartbeat = "{hook.url}/ping/{TOKEN}?create=1"\n')
    notify.heartbeat(Home(home), ok=False)
    until(lambda: len(hook.got) == 1)
    assert hook.got[0].path == f"/ping/{TOKEN}/fail?create=1"


def test_the_defaults_are_listed_and_said_back_without_their_tokens(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    value = f"https://hooks.example/{TOKEN} ntfy://{TOKEN}"
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{value}\n"))
    told = [output(capsys, "config", "set", "notify", "-")]
    told += [output(capsys, "config", "list"), output(capsys, "config", "list", "--json")]
    assert "webhook hooks.example" in told[0][2]
    assert all(TOKEN not in out + err for _, out, err in told)
    assert json.loads(told[2][1])["notify"].startswith("webhook hooks.example, ntfy ntfy.sh/")
    assert (home / "config.toml").stat().st_mode & 0o777 == 0o600
    assert output(capsys, "config", "get", "notify")[1].strip() == value  # asked for by name
    code, _, err = output(capsys, "config", "set", "heartbeat", f"ftp:{TOKEN}")
    assert (code, TOKEN in err, "https://" in err) == (2, False, True)


def test_a_target_can_be_tried_before_it_is_needed(home: Path, hook: Hook, capsys: pytest.CaptureFixture[str]) -> None:
    assert output(capsys, "config", "test-notify")[0] == 2  # nobody to tell
    assert output(capsys, "config", "test-notify", f"{hook.url}/{TOKEN}")[:2] == (
        *(0, f"{'TARGET':<17}\nwebhook 127.0.0.1  told\n".replace("TARGET           \n", "TARGET\n")),
    )
    assert hook.got[0].json["event"] == "test"
    hook.answers = [403]
    code, out, _ = output(capsys, "config", "test-notify", f"{hook.url}/{TOKEN}", "--json")
    assert (code, json.loads(out)) == (
        3,
        [{"target": "webhook 127.0.0.1", "told": False, "why": "answered 403"}],
    )
    assert not home.exists()
