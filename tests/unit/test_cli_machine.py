"""The commands for machines: who can be logged in to, which ports and durations are read, what rent asks for."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING

import click
import pytest
from past import NOW, admit, done, output

from orchestrator import cli, glance, plan_screen, processes, rent
from orchestrator.cli.common import WithCommand, duration, port
from orchestrator.forward import Forwarder, Port
from orchestrator.home import Home
from orchestrator.lifecycle import Memory
from orchestrator.login import config_of, ssh_argv
from orchestrator.wish import Wish
from orchestrator.words import Launch, Reason, State
from providers.errors import GpurunError

if TYPE_CHECKING:
    from pathlib import Path

RUN = "demo-261122-aaaaaa"
RUNNING = Memory(state=State.RUNNING, launch=Launch.ACCEPTED, allocation_id="i-1")


@pytest.fixture(autouse=True)
def _held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(glance.Run, "held", lambda *_: True)  # their controllers live on another computer


def seen(home: Path, memory: Memory = RUNNING, provider: str = "lambda", *, ended: bool = False) -> glance.Run:
    admit(home, RUN, memory, ended=ended)
    return glance.find(Home(home), RUN, NOW)._replace(provider=provider)


# ── ssh ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_ssh_to_a_local_run_says_where_it_is(capsys: pytest.CaptureFixture[str], home: Path) -> None:
    seen(home)
    code, out, err = output(capsys, "ssh", "--", "true")
    assert (code, out) == (2, "")
    assert "there is nothing to log in to" in err
    assert f"cd {home / 'runs' / RUN}" in err


def test_ssh_to_a_run_that_is_over_says_that_its_machine_is_gone(home: Path) -> None:
    run = seen(home, done(Reason.COMPLETED), ended=True)
    with pytest.raises(GpurunError, match="is over: its machine is gone") as caught:
        ssh_argv(Home(home), run)
    assert caught.value.hint == f"gpurun show {RUN}"


def test_ssh_before_the_machine_was_reached_says_what_it_waits_for(home: Path) -> None:
    run = seen(home, Memory(state=State.PROVISIONING, detail="not reachable yet"))
    with pytest.raises(GpurunError, match="was not reached yet: provisioning, not reachable yet") as caught:
        ssh_argv(Home(home), run)
    assert f"gpurun logs -f {RUN}" in caught.value.hint


def test_ssh_to_a_vendor_without_shells_is_refused_at_once(home: Path) -> None:
    with pytest.raises(GpurunError, match="gpurun opens no shell there"):
        ssh_argv(Home(home), seen(home, provider="colab"))


def test_ssh_takes_the_configuration_of_the_present_attempt(home: Path) -> None:
    run = seen(home)._replace(attempt=2)
    for attempt in ("1", "2"):
        folder = Home(home).run(RUN).ssh / attempt
        folder.mkdir(parents=True)
        (folder / "config").write_text("")
    assert ssh_argv(Home(home), run)[1:] == ["-F", str(config_of(Home(home), run)), "gpurun"]
    assert config_of(Home(home), run).parent.name == "2"


def test_words_behind_the_dashes_are_left_as_they_were_typed() -> None:
    command = WithCommand("x", params=[click.Argument(["run"], required=False), click.Option(["--json"])])
    context = command.make_context("x", ["demo", "--", "ls", "--json", "--", "-h"])
    assert (context.params["run"], context.obj) == ("demo", ["ls", "--json", "--", "-h"])
    assert command.make_context("x", ["--", "ls"]).params["run"] is None
    assert command.make_context("x", []).obj == []
    assert command.get_usage(context).endswith("[RUN] [-- CMD...]")


def test_one_word_is_a_line_for_the_shell_and_several_are_quoted(home: Path, nasty: str) -> None:
    run = seen(home)
    config = config_of(Home(home), run)
    config.parent.mkdir(parents=True)
    config.write_text("")
    assert ssh_argv(Home(home), run, ["cd /tmp && ls"])[4:] == ["cd /tmp && ls"]
    (line,) = ssh_argv(Home(home), run, ["printf", "%s", nasty])[4:]
    assert shlex.split(line) == ["printf", "%s", nasty]


# ── ports and durations ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "seconds"), [("2h", 7200), ("30m", 1800), ("90s", 90), ("1h30m", 5400), ("1.5H", 5400), ("1d", 86400)]
)
def test_a_duration_has_its_unit(text: str, seconds: float) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["90", "", "0s", "2 hours", "-1h", "1h x", "1h30", "h", "\u0663h", "1.2.3h"])
def test_a_duration_without_a_clear_unit_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is no duration: write 2h, 30m, 90s or 1h30m"):
        duration(text)


def test_a_port_stands_for_itself_or_for_another() -> None:
    assert [port("8888"), port("8888:80"), port("8888:")] == [Port(8888, 8888), Port(8888, 80), Port(8888, 8888)]


@pytest.mark.parametrize("text", ["", "0", "65536", "http", ":80", "1:2:3", "-1", "\uff18\uff18"])
def test_what_is_no_port_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is no port"):
        port(text)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["launch", "loop", "--forward", "8888", "--detach", "-y"], "lasts as long as this command watches"),
        (
            ["launch", "loop", "--forward", "8888", "--forward", "8888:80", "-y"],
            "names one port of this computer twice",
        ),
        (["logs", "--forward", "x"], "is no port"),
        (["launch", "loop", "--wait-for-capacity", "2"], "is no duration"),
    ],
)
def test_a_forward_that_can_not_be_is_refused_before_anything_is_planned(
    capsys: pytest.CaptureFixture[str], home: Path, args: list[str], words: str
) -> None:
    code, _, err = output(capsys, *args)
    assert code == 2
    assert words in err
    assert not home.exists()


def test_without_an_ssh_of_the_system_nothing_is_launched(
    capsys: pytest.CaptureFixture[str], home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    code, _, err = output(capsys, "launch", "loop", "--forward", "8888", "-y")
    assert code == 3
    assert "apt-get install openssh-client" in err
    assert not home.exists()


def test_forwarding_a_local_run_says_once_that_there_is_nothing_to_forward(home: Path) -> None:
    said: list[str] = []
    forwarder = Forwarder(Home(home), [Port(8888, 8888)], said.append)
    run = seen(home, provider="local")
    for now in (NOW, NOW + 1):
        forwarder.look(run, now)
    assert said == ["nothing is forwarded: the run is on this computer"]


# ── rent ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_this_computer_can_not_be_rented(capsys: pytest.CaptureFixture[str], home: Path) -> None:
    for args in (["--provider", "local"], []):
        code, out, err = output(capsys, "rent", "--hours", "3", "-y", *args)
        assert (code, out) == (2, "")
        assert "local has nothing to rent" in err
    assert not home.exists()


def test_rent_as_json_ends_with_its_object_where_nothing_was_rented(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = output(capsys, "rent", "--provider", "local", "--hours", "3", "--json")
    assert json.loads(out)["reason"] == "usage"


def test_rent_needs_hours(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = output(capsys, "rent", "--provider", "lambda", "-y")
    assert code == 2
    assert "--hours" in err


def test_a_rented_machine_waits_bare_within_the_limits_and_never_hangs(home: Path) -> None:
    wish = Wish("rent", "lambda", "a10", (), max_hours="1.5", max_cost="4.5", accept_risk=True)
    made = rent.template(Home(home), wish, {("limits", "max_hours"): 9.0, ("limits", "max_attempts"): 1})
    limits = made.settings.limits
    assert (made.bare, made.command, made.files, made.code) == (True, rent.COMMAND, (), None)
    assert (limits.max_hours, str(limits.max_cost), limits.accept_risk, limits.max_attempts) == (1.5, "4.5", True, 1)
    assert limits.max_idle_minutes * 60 > 720 * 3600


def test_wrong_hours_are_named_by_the_flag_of_rent(home: Path) -> None:
    for hours in ("soon", "0", "9999"):
        with pytest.raises(GpurunError, match="--hours") as caught:
            rent.template(Home(home), Wish("rent", "lambda", None, (), max_hours=hours), {})
        assert caught.value.exit_code == 2


def test_who_rented_is_told_once_how_to_log_in_when_the_machine_can_be_reached(home: Path) -> None:
    said: list[str] = []
    invitation = rent.Invitation(Home(home), said.append)
    run = seen(home)
    invitation.look(run, NOW)
    assert said == []
    config_of(Home(home), run).parent.mkdir(parents=True)
    config_of(Home(home), run).write_text("")
    invitation.look(run, NOW)
    invitation.look(run, NOW)
    assert len(said) == 1
    assert f"gpurun ssh {RUN}" in said[0]
    assert f"gpurun stop {RUN}" in said[0]


def test_a_run_is_taken_up_before_one_logs_in(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spawned: list[str] = []
    monkeypatch.setattr(processes, "spawn_controller", lambda _home, run_id: spawned.append(run_id))
    monkeypatch.setattr(glance.Run, "held", lambda *_: False)
    admit(home, RUN, RUNNING)
    assert cli.run(["ssh"]) == 2
    assert spawned == [RUN]


# ── the plan of a machine ────────────────────────────────────────────────────────────────────────────────────────────


def plan_of(*holders: tuple[str, str], price: str = "1.29", others: tuple[str, ...] = (), **more: object) -> str:
    offer = {
        "provider": "lambda", "name": "gpu_1x_a10@us-east-1", "gpu": "a10", "gpu_count": 1, "price": price, "vcpus": 30,
        "memory_gib": 200.0,
    }  # fmt: skip
    plan = {
        "run_id": RUN, "offer": offer, "candidates": [offer, *({**offer, "price": one} for one in others)],
        "quote": {"likely": None, "low": None, "seconds_likely": None, "worst": "3.87", "basis": "the limits"},
        "times": {"deadline": "2026-11-22T15:00:00+00:00", "ceiling": "2026-11-22T15:00:00+00:00"},
        "launched": "2026-11-22T12:00:00+00:00",
        "holders": [{"name": "x", "place": place, "proof": proof} for place, proof in holders],
        "data": [], "bundle_bytes": 1, "left_out": [], "folder": "/x", "sentence": "Ends.", **more,
    }  # fmt: skip
    return plan_screen.plan_screen(plan, {"max_idle_minutes": 30})


def test_a_plan_says_what_a_closed_laptop_costs_where_nobody_else_can_end_the_bill() -> None:
    alone = plan_of(("here", "proven"), ("machine", "absent"), others=("1.49",))
    assert "each hour that this computer sleeps past it costs $1.49 more" in alone
    assert "asleep" not in plan_of(("here", "proven"), ("machine", "unproven until start"))
    assert "asleep" not in plan_of(("here", "proven"), price="0")


def test_a_plan_names_what_else_may_be_rented_how_long_it_asks_and_an_unverified_host_key() -> None:
    plain = plan_of(("here", "proven"))
    assert not any(words in plain for words in ("else", "wait", "host key"))
    told = plan_of(("here", "proven"), others=("1.29", "1.49"), wait_seconds=7200.0, trust_on_first_use=True)
    for words in ("else the next of 2 like it, at most $1.49/h", "asks again for 2 h", "host key  NOT VERIFIED"):
        assert words in told
    assert all(len(line) <= 80 for line in told.splitlines())


def test_a_limit_on_idling_that_can_not_be_reached_is_not_shown() -> None:
    assert "hung after 30 min" in plan_of(("here", "proven"))
    short = {"deadline": "2026-11-22T12:20:00+00:00", "ceiling": "2026-11-22T12:20:00+00:00"}
    assert "hung" not in plan_of(("here", "proven"), times=short)


def test_a_plan_says_until_when_a_machine_may_write_into_the_store_and_who_renews_that() -> None:
    store = {"bucket": "b-1", "prefix": "", "endpoint": "", "policies": True, "checksums": True, "lasting": True}
    held = ("here", "proven"), ("machine", "unproven until start")
    assert "renewed" not in plan_of(*held, store=store)
    assert "lives 1 h, since your key is a session's; renewed" in " ".join(
        plan_of(*held, store={**store, "lasting": False}).split()
    )
    long = {"deadline": "2026-11-22T15:00:00+00:00", "ceiling": "2026-12-12T15:00:00+00:00"}
    assert "renewed while this computer is awake" in " ".join(plan_of(*held, store=store, times=long).split())
