"""Bytes may take hours: while they come, this process alone can stop the meter, and does."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest
from fakes import START, FakeRemote
from worlds import RUN, World

from orchestrator.facts import Memory, Seen
from orchestrator.lifecycle import is_overtaken
from orchestrator.words import Act, Reason, State
from providers.base import Observation, Phase, RemoteStatus

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from providers.base import Access


class Endless(FakeRemote):
    """A machine that is asked for a little, and gives it for ever."""

    def __init__(self, world: World, allocation_id: str, access: Access, verb: str) -> None:
        super().__init__(world.cloud, allocation_id)
        self.world, self.access, self.verb = world, access, verb

    def logs(self, offset: int) -> bytes:
        if self.verb != "logs":
            return super().logs(offset)
        self.world.clock.advance(1)
        return b"and so on\n"

    def fetch(self, names: Sequence[str], dest: Path) -> None:
        while self.verb == "fetch" and self._machine().told_stop is None:
            self.world.clock.advance(1)
            assert self.access.go_on is not None
            self.access.go_on()
        super().fetch(names, dest)


def endless(world: World, verb: str) -> World:
    world.cloud.remote = lambda one, access: Endless(world, one, access, verb)  # type: ignore[method-assign]
    return world


@pytest.fixture(autouse=True)
def _asked_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.reach._TELL_SECONDS", 0.0)


@pytest.mark.parametrize("verb", ["logs", "fetch"])
def test_a_machine_that_gives_bytes_without_end_is_ended_at_the_deadline(fast_path: Path, verb: str) -> None:
    world = endless(World(fast_path, hours=0.05), verb)
    world.cloud.holder_on_machine = False
    world.drive()
    world.check_ended()
    (machine,) = world.cloud.machines.values()
    assert machine.ended is not None
    assert (machine.ended - START).total_seconds() < 0.05 * 3600 + 60


def test_a_budget_is_kept_while_bytes_come(fast_path: Path) -> None:
    world = endless(World(fast_path, hours=0.4, max_cost=Decimal("0.05")), "fetch")
    world.cloud.total_steps = 10**6
    world.drive()
    world.check_ended()
    assert world.memory.reason is Reason.BUDGET
    assert world.cloud.dollars() < Decimal("0.10")


def test_a_stop_is_told_to_a_machine_whose_checkpoint_is_on_its_way(fast_path: Path) -> None:
    world = endless(World(fast_path, hours=0.4), "fetch")
    world.cloud.total_steps = 10**6
    advance = world.clock.advance

    def later(seconds: float) -> None:
        advance(seconds)
        if world.clock.now >= START.replace(minute=5) and not world.memory.stop_requested:
            world.ledger.request_stop(RUN, world.clock())

    world.clock.advance = later  # type: ignore[method-assign]
    world.drive()
    world.check_ended()
    assert world.memory.reason is Reason.STOPPED
    (machine,) = world.cloud.machines.values()
    assert machine.told_stop is not None
    assert (machine.told_stop - START).total_seconds() < 360


def test_what_moves_is_given_up_for_a_limit_alone(world: World) -> None:
    rules, look = world.row.rules(world.cloud.traits), Seen()
    late = rules.deadline
    before = START.replace(minute=3)
    lost = Memory(state=State.COLLECTING, entered=START, reason=Reason.LOST, launch=world.memory.launch)
    assert not is_overtaken(Act.COLLECT, lost, look, before, rules)
    assert is_overtaken(Act.COLLECT, lost, look, late, rules)
    slow = replace(lost, state=State.STARTING, reason=None)
    up = Seen(Observation(Phase.READY, billing=True, evidence=""), RemoteStatus(Phase.READY))
    assert not is_overtaken(Act.START, slow, up, before, replace(rules, start_limit_seconds=1.0))
    assert is_overtaken(Act.START, slow, up, late, rules)
    assert not is_overtaken(Act.COLLECT, replace(lost, state=State.TERMINATING), look, late, rules)


def test_a_run_that_never_ended_by_itself_gets_some_seconds_for_its_last_words(world: World) -> None:
    rules = world.row.rules(world.cloud.traits)
    surprised = Memory(state=State.COLLECTING, entered=rules.deadline, reason=Reason.DEADLINE)
    late = [is_overtaken(Act.COLLECT, surprised, Seen(), rules.deadline + timedelta(seconds=s), rules) for s in (1, 60)]
    assert late == [False, True]


def test_files_of_what_bills_no_more_have_all_the_time(world: World) -> None:
    """A job that its vendor ended at its own limit leaves its files: they were given up again and again, for ever."""
    rules = world.row.rules(world.cloud.traits)
    surprised = Memory(state=State.COLLECTING, entered=rules.deadline, reason=Reason.DEADLINE)
    free = Seen(Observation(Phase.EXITED, billing=False, evidence="ended"))
    for seconds in (1, 60, 86_400):
        assert not is_overtaken(Act.COLLECT, surprised, free, rules.deadline + timedelta(seconds=seconds), rules)
