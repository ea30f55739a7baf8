"""Scheduled jobs: a spec and a cron line; at its minute, by this world's clock, a real job is submitted.

    POST … -> Scheduled ──(agenda: its next minute)──> world.submit; suspended, or one still runs: not this time

Cron as crontab(5) has it: minute hour day month weekday, with *, lists, ranges and steps; @hourly and its like. UTC.
"""

from __future__ import annotations

import calendar
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from simulators.clock import iso

if TYPE_CHECKING:
    from simulators.hf_jobs.world import HubWorld, Job

_MACROS = {
    "@annually": "0 0 1 1 *",
    "@yearly": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_RANGES = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))
_PART = re.compile(r"(?:\*|(\d+)(?:-(\d+))?)(?:/(\d+))?")
_FARTHEST_DAYS = 366 * 8  # to the next 29 February, whatever the century


class CronError(ValueError):
    """No schedule."""


def minutes_of(line: str) -> tuple[frozenset[int], ...]:
    """Read a schedule: the minutes, hours, days, months and weekdays (0 = Sunday) at which it is due.

    Raises:
        CronError: it is none.
    """
    fields = _MACROS.get(line, line).split()
    if len(fields) != len(_RANGES):
        raise CronError(f"Invalid schedule: {line}")
    return tuple(_numbers(field, *limits) for field, limits in zip(fields, _RANGES, strict=True))


def _numbers(field: str, low: int, high: int) -> frozenset[int]:
    found: set[int] = set()
    for part in field.split(","):
        match = _PART.fullmatch(part)
        if match is None:
            raise CronError(f"Invalid schedule: {part}")
        first, last = (int(match[1]), int(match[2] or match[1])) if match[1] else (low, high)
        if match[1] and match[3] and not match[2]:
            last = high
        step = int(match[3] or 1)
        if not (low <= first <= last <= high and step):
            raise CronError(f"Invalid schedule: {part}")
        found |= set(range(first, last + 1, step))
    return frozenset(found)


def next_minute(line: str, after: float) -> float:
    """Give the first moment after `after`, epoch seconds, at which it is due.

    Raises:
        CronError: it is no schedule, or one that is never due.
    """
    minutes, hours, days, months, weekdays = minutes_of(line)
    weekdays |= {0} if 7 in weekdays else set()
    either = len(days) < 31 and not set(range(7)) <= weekdays  # crontab(5): both restricted, then one of them will do
    when = datetime.fromtimestamp(after, UTC).replace(second=0, microsecond=0) + timedelta(minutes=1)
    for _ in range(_FARTHEST_DAYS):
        weekday = (calendar.weekday(when.year, when.month, when.day) + 1) % 7
        day, week = when.day in days, weekday in weekdays
        if when.month in months and ((day or week) if either else (day and week)):
            for hour in sorted(hours):
                for minute in sorted(minutes):
                    due = when.replace(hour=hour, minute=minute)
                    if due >= when:
                        return due.timestamp()
        when = (when + timedelta(days=1)).replace(hour=0, minute=0)
    raise CronError(f"Invalid schedule: {line} is never due")


@dataclass(slots=True)
class Scheduled:
    """One scheduled job. Moments are epoch seconds of the vendor's clock."""

    id: str
    namespace: str
    spec: dict[str, Any]
    schedule: str
    concurrency: bool
    suspended: bool
    created: float
    next_at: float
    turn: int = 0  # grows with each change of what is next: an older plan on the agenda is void then
    last: Job | None = None
    last_at: float = 0.0


class Schedules:
    """All scheduled jobs of a world. Called under its lock."""

    def __init__(self, world: HubWorld) -> None:
        self._world = world
        self.all: dict[str, Scheduled] = {}

    def create(self, namespace: str, wish: dict[str, Any]) -> Scheduled:
        """Take one in.

        Raises:
            CronError: its schedule is none.
        """
        now = self._world.clock.now()
        line = str(wish.get("schedule") or "")
        one = Scheduled(
            self._world.hexes(24),
            namespace,
            wish["jobSpec"],
            line,
            bool(wish.get("concurrency")),
            bool(wish.get("suspend")),
            now,
            next_minute(line, now),
        )
        self.all[one.id] = one
        self._plan(one)
        return one

    def change(self, one: Scheduled, *, schedule: str | None = None, suspended: bool | None = None) -> None:
        """Give it another schedule, suspend it or let it go on.

        Raises:
            CronError: the schedule is none; nothing has changed.
        """
        line = one.schedule if schedule is None else schedule
        one.next_at = next_minute(line, self._world.clock.now())
        one.schedule = line
        one.suspended = one.suspended if suspended is None else suspended
        self._plan(one)

    def _plan(self, one: Scheduled) -> None:
        one.turn += 1
        turn = one.turn

        def due(when: float) -> None:
            if self.all.get(one.id) is one and one.turn == turn and not self._world.closing:
                one.next_at = next_minute(one.schedule, when)
                if not one.suspended and self.may_run(one):
                    self.run(one, when)
                self._plan(one)

        self._world.agenda.at(one.next_at, due)

    def may_run(self, one: Scheduled) -> bool:
        """Whether another job of it may be submitted now."""
        return one.concurrency or one.last is None or one.last.terminal

    def run_now(self, one: Scheduled) -> Job:
        """Submit it beside its schedule."""
        return self.run(one, self._world.clock.now())

    def run(self, one: Scheduled, when: float) -> Job:
        """Submit it for this moment: it begins now, though the clock was moved past that."""
        one.last, one.last_at = self._world.submit(one.namespace, one.spec, scheduled=one.id), when
        return one.last

    def spell(self, one: Scheduled) -> dict[str, Any]:
        """Spell it as the vendor does: names of secrets, never their values."""
        last = None if one.last is None else {"id": one.last.id, "at": iso(one.last_at)}
        status = {"lastJob": last, "nextJobRunAt": None if one.suspended else iso(one.next_at)}
        return {
            "id": one.id,
            "createdAt": iso(one.created),
            "jobSpec": {**one.spec, "secrets": list(one.spec.get("secrets") or ())},
            "schedule": one.schedule,
            "suspend": one.suspended,
            "concurrency": one.concurrency,
            "status": status,
            "owner": {"id": "5e" + "0" * 22, "name": one.namespace, "type": "user"},
        }
