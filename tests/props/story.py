"""A story: all that will go wrong in one world, drawn up front from one seed, so that it can be read and told again."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from random import Random
from typing import Any

from vendors import Nature


@dataclass(frozen=True)
class Wished:
    """One run that somebody wants."""

    home: int
    at: float  # seconds from the beginning, as all times here
    minutes: float  # to the deadline
    more: float  # minutes from the deadline to the ceiling
    steps: int
    every: int
    attempts: int
    offers: int
    max_cost: float | None
    wait: float


@dataclass(frozen=True)
class Computers:
    """Who has what: a home is on one computer; a watcher has the key and an empty home."""

    ahead: tuple[float, ...]
    guarded: tuple[bool, ...]
    homes: tuple[int, ...]  # of each home, its computer
    keys: tuple[str, ...]
    watcher: bool


@dataclass(frozen=True)
class Story:
    """Everything that is settled before the first moment."""

    seed: int
    nature: Nature
    computers: Computers
    wishes: tuple[Wished, ...]
    incidents: tuple[tuple[float, str, dict[str, Any]], ...]
    lies: float
    late_launches: float
    deaths: tuple[tuple[int, ...], ...]  # of each wish: the steps at which its controllers die, one after another
    foreign: int
    quiet: float = field(default=0.0)  # when the last incident is over

    def told(self) -> list[str]:
        """Tell it in lines."""
        lines = [f"seed {self.seed}", f"vendor: {asdict(self.nature)}", f"computers: {asdict(self.computers)}"]
        lines += [f"wish {number}: {asdict(one)}" for number, one in enumerate(self.wishes)]
        lines += [f"lies {self.lies}, late launches {self.late_launches}, deaths {self.deaths}, foreign {self.foreign}"]
        return lines + [f"at {at:.0f} s: {kind} {how}" for at, kind, how in self.incidents]


def draw(seed: int) -> Story:
    """Draw one."""
    chance = Random(seed)
    nature = _nature(chance)
    computers = _computers(chance)
    wishes = tuple(_wish(chance, len(computers.homes)) for _ in range(chance.choice([1, 1, 1, 2, 2, 3])))
    last = max(one.at + one.minutes * 60 for one in wishes)
    calm = chance.random() < 0.1
    count = 0 if calm else chance.choice([1, 2, 3, 4, 6, 8])
    incidents = sorted(
        (one for _ in range(count) for one in _incident(chance, last, computers, len(wishes))), key=lambda one: one[0]
    )
    quiet = max([last, *(at + how.get("seconds", 0.0) for at, _, how in incidents)])
    return Story(
        seed=seed,
        nature=nature,
        computers=computers,
        wishes=wishes,
        incidents=tuple(incidents),
        lies=0.0 if calm else chance.choice([0.0, 0.0, 0.02, 0.1]),
        late_launches=0.0 if calm else chance.choice([0.0, 0.0, 0.0, 0.5]),
        deaths=tuple(() if calm else _deaths(chance) for _ in wishes),
        foreign=chance.choice([0, 0, 1, 3]),
        quiet=quiet,
    )


def _nature(chance: Random) -> Nature:
    jobs = chance.random() < 0.3
    return Nature(
        jobs=jobs,
        records=chance.random() < (0.6 if jobs else 0.3),
        bills_boot=chance.random() < 0.6,
        lag=chance.choice([0.0, 5.0, 20.0, 60.0]),
        boot=chance.choice([5.0, 20.0, 90.0]),
        queue=chance.choice([0.0, 0.0, 60.0, 600.0, 2400.0]) * chance.random() if jobs else 0.0,
        linger=chance.choice([0.0, 0.0, 7.0, 40.0, 200.0]),
        step=chance.choice([1, 1, 60]),
        poll=chance.choice([10.0, 20.0, 30.0]),
        ignores=chance.choice([0] * 7 + [1, 3, 30]),
        flaws=chance.choice([0.0, 0.0, 0.02, 0.1]),
        pages=chance.random() < 0.3,
    )


def _computers(chance: Random) -> Computers:
    count = chance.choice([1, 1, 1, 2])
    homes = tuple(chance.randrange(count) for _ in range(chance.choice([0, 0, 1]) + 1)) if count == 1 else (0, 1)
    return Computers(
        ahead=tuple(chance.choice([0.0, 0.0, -40.0, 300.0, -7200.0, 7200.0]) for _ in range(count)),
        guarded=tuple(chance.random() < 0.5 for _ in range(count)),
        homes=homes,
        keys=tuple("acct-a" if number == 0 or chance.random() < 0.8 else "acct-b" for number in range(count)),
        watcher=chance.random() < 0.4,
    )


def _wish(chance: Random, homes: int) -> Wished:
    minutes = chance.choice([3.0, 6.0, 10.0, 20.0])
    return Wished(
        home=chance.randrange(homes),
        at=chance.choice([0.0, 0.0, chance.random() * 300]),
        minutes=minutes,
        more=chance.choice([0.0, 0.0, 0.0, minutes]),
        steps=int(minutes * 60 * chance.choice([0.3, 0.6, 2.0])),
        every=chance.choice([20, 60, 150]),
        attempts=chance.choice([1, 2, 3, 3]),
        offers=chance.choice([1, 1, 3]),
        max_cost=chance.choice([None, None, None, 0.05, 0.2]),
        wait=chance.choice([0.0, 0.0, 120.0, 900.0]),
    )


def _deaths(chance: Random) -> tuple[int, ...]:
    return tuple(
        chance.choice([chance.randint(1, 25), chance.randint(1, 150)]) for _ in range(chance.choice([0, 0, 1, 2, 4]))
    )


LENGTHS = (20.0, 60.0, 200.0, 600.0, 3600.0)


def _incident(
    chance: Random, last: float, computers: Computers, wishes: int
) -> list[tuple[float, str, dict[str, Any]]]:
    """One thing that goes wrong, with what belongs to it."""
    kind = chance.choice(KINDS)
    at, seconds = chance.random() * last, chance.choice(LENGTHS)
    which, wish = chance.randrange(len(computers.ahead)), chance.randrange(wishes)
    how: dict[str, Any] = {}
    match kind:
        case "API down":
            how = {"seconds": seconds}
        case "network down" | "laptop asleep" | "disk full" | "laptop off" | "wrong account" | "sold out":
            how = {"computer": which, "seconds": seconds}
            if kind == "laptop off" and chance.random() < 0.3:
                kind, how = "laptop gone", {"computer": which}
        case "laptop clock":
            how = {"computer": which, "by": chance.choice([-7200.0, -600.0, -90.0, 90.0, 600.0, 7200.0])}
        case "machine clock":
            how = {"wish": wish, "by": chance.choice([-7200.0, -90.0, 90.0, 7200.0])}
        case "price drift":
            how = {"factor": chance.choice([0.5, 1.005, 1.5, 3.0])}
        case "old ledger":
            how = {"computer": which, "seconds": seconds}
        case "key revoked":
            how = {"computer": which}
        case (
            "stop" | "agent dies" | "controller dies" | "vanishes" | "sickens" | "extend" | "watchdog dies" | "reboots"
        ):
            how = {"wish": wish}
        case _:
            pass
    return [(at, kind, how)]


KINDS = (
    "API down", "API down", "network down", "network down", "laptop asleep", "laptop asleep", "disk full",
    "laptop off", "laptop off", "wrong account", "sold out", "laptop clock", "machine clock", "price drift",
    "old ledger", "key revoked", "stop", "stop", "agent dies", "agent dies", "controller dies", "vanishes",
    "sickens", "made two",
)  # fmt: skip
