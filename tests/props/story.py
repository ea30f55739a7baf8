"""A story: all that will go wrong in one world, drawn up front from one seed, so that it can be read and told again."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from random import Random
from typing import Any

from buckets import StoreNature
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
    key: bool  # may lie on the machine
    risk: bool  # is accepted


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
    guard_deaths: tuple[int, ...]  # the steps at which the guard's passes die, 0 = not; of any home's in turn
    foreign: int
    quiet: float = field(default=0.0)  # when the last incident is over
    store: StoreNature | None = None  # where results go; None = nowhere
    leaves: str = ""  # what its trainings leave unsealed, see rigs.py

    def told(self) -> list[str]:
        """Tell it in lines."""
        lines = [f"seed {self.seed}", f"vendor: {asdict(self.nature)}", f"computers: {asdict(self.computers)}"]
        lines += [f"wish {number}: {asdict(one)}" for number, one in enumerate(self.wishes)]
        lines += [f"store: {asdict(self.store)}, left unsealed: {self.leaves}"] if self.store else []
        lines += [f"lies {self.lies}, late launches {self.late_launches}, foreign {self.foreign}"]
        lines += [f"controllers die at steps {self.deaths}, guards at {self.guard_deaths}"]
        return lines + [f"at {at:.0f} s: {kind} {how}" for at, kind, how in self.incidents]


def draw(seed: int) -> Story:
    """Draw one."""
    chance = Random(seed)
    # From a chance of its own: a world keeps the rest of its story when the vendors come to know another kind.
    nature = _kind(Random(seed * 7 + 5), _nature(chance))
    computers = _computers(chance)
    wishes = tuple(_wish(chance, len(computers.homes)) for _ in range(chance.choice([1, 1, 1, 2, 2, 3])))
    last = max(one.at + one.minutes * 60 for one in wishes)
    calm = chance.random() < 0.1
    count = 0 if calm else chance.choice([1, 2, 3, 4, 6, 8])
    incidents = sorted((_incident(chance, last, computers, len(wishes)) for _ in range(count)), key=lambda one: one[0])
    store = _store(Random(seed * 11 + 3)) if not nature.jobs else None
    if store is not None:
        more = _store_incidents(Random(seed * 13 + 1), last, len(wishes))
        incidents = sorted([*incidents, *more], key=lambda one: one[0])
    quiet = max([last, *(at + how.get("seconds", 0.0) for at, _, how in incidents)])
    return Story(
        seed=seed,
        nature=nature,
        computers=computers,
        wishes=wishes,
        incidents=tuple(incidents),
        # An old ledger holds reads of before it was put back: with a vendor that denies what exists, too much at once.
        lies=0.0
        if calm or "old ledger" in {kind for _, kind, _ in incidents}
        else chance.choice([0.0, 0.0, 0.02, 0.1]),
        late_launches=0.0 if calm else chance.choice([0.0, 0.0, 0.0, 0.5]),
        deaths=tuple(() if calm else _deaths(chance) for _ in wishes),
        guard_deaths=() if calm else tuple(chance.choice([0, 0, chance.randint(1, 12)]) for _ in range(12)),
        foreign=chance.choice([0, 0, 1, 3]),
        quiet=quiet,
        store=store,
        leaves=Random(seed * 17 + 319).choice(["", "", "script", "early"]) if store else "",
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
        poll=chance.choice([15.0, 30.0]),
        ignores=chance.choice([0] * 13 + [1, 3, 30]),
        flaws=chance.choice([0.0, 0.0, 0.02, 0.1]),
        pages=chance.random() < 0.3,
    )


def _kind(chance: Random, nature: Nature) -> Nature:
    """Make it the like of a vendor there is: a hub of jobs with a limit of its own, or pods with a key of their own."""
    if nature.jobs and chance.random() < 0.6:
        limit = int(2 * nature.boot) + chance.choice([0, 60, 240])  # its boot counts as waiting
        queue = limit * chance.choice([0.0, 0.0, 0.0, 0.2, 0.6, 4.0])
        return replace(nature, records=True, linger=0.0, lists_ended=True, queue_limit=limit, queue=queue)
    if not nature.jobs and chance.random() < 0.3:
        pods = replace(nature, bills_boot=True, records=False, pods=True, routes=chance.choice([0, 1, 2]))
        # Of these some are notebooks: they end themselves, and go when nobody is heard.
        return replace(pods, idle=chance.choice([0.0, 0.0, 300.0, 900.0]))
    return nature


def _store(chance: Random) -> StoreNature | None:
    if chance.random() > SHARE_WITH_STORE:
        return None
    return StoreNature(
        policies=chance.random() < 0.7,
        checksums=chance.random() < 0.9,
        flaws=chance.choice([0.0, 0.0, 0.05, 0.3]),
        slow=chance.choice([0.0, 0.0, 2.0, 10.0]),
        part_bytes=chance.choice([2**30, 2**30, 64]),
        full_status=chance.choice([507, 403]),
    )


def _store_incidents(chance: Random, last: float, wishes: int) -> list[tuple[float, str, dict[str, Any]]]:
    """What goes wrong with the store; and so that it is what counts, the laptop or the machine is gone in some."""
    found = []
    for _ in range(chance.choice([0, 1, 1, 2, 3])):
        kind = chance.choice(STORE_KINDS)
        seconds, wish = chance.choice(LENGTHS), chance.randrange(wishes)
        how = {"wish": wish} if kind == "uploader dies" else {"seconds": seconds} if kind != "leave is over" else {}
        found.append((chance.random() * last, kind, how))
    away = chance.random() * last
    if chance.random() < 0.3:
        found.append((away, "laptop gone", {"computer": 0}))
    elif chance.random() < 0.4:  # it wakes long after all is over, and the store is down just then, or was
        seconds = chance.choice([600.0, 1200.0, 3600.0])
        found.append((away, "laptop asleep", {"computer": 0, "seconds": seconds}))
        found.append((away + seconds - 20, "store down", {"seconds": chance.choice([60.0, 200.0, 600.0])}))
    if chance.random() < 0.3:
        found.append((last * (0.5 + chance.random() / 2), "vanishes", {"wish": chance.randrange(wishes)}))
    return found


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
        key=chance.random() < 0.5,
        risk=chance.random() < 0.7,
    )


def _deaths(chance: Random) -> tuple[int, ...]:
    return tuple(
        chance.choice([chance.randint(1, 25), chance.randint(1, 150)]) for _ in range(chance.choice([0, 0, 1, 2, 4]))
    )


LENGTHS = (20.0, 20.0, 60.0, 60.0, 200.0, 200.0, 600.0, 3600.0)
JUMPS = (-7200.0, -600.0, -90.0, 90.0, 600.0, 7200.0)
SHARE_WITH_STORE = 0.3  # of the worlds with machines
STORE_KINDS = (
    "store down",
    "store down",
    "store full",
    "store slow",
    "store key wrong",
    "leave is over",
    "uploader dies",
)
# What can go wrong, how often as against the others, and what must be known of it.
KINDS = {
    "API down": (2, "seconds"),
    "network down": (2, "computer seconds"),
    "laptop asleep": (2, "computer seconds"),
    "disk full": (1, "computer seconds"),
    "laptop off": (2, "computer seconds"),
    "laptop gone": (1, "computer"),
    "wrong account": (1, "computer seconds"),
    "old ledger": (1, "computer seconds"),
    "key revoked": (1, "computer"),
    "laptop clock": (1, "computer by"),
    "machine clock": (1, "wish by"),
    "price drift": (1, "factor"),
    "sold out": (1, "seconds"),
    "made two": (1, ""),
    "stop": (2, "wish"),
    "extend": (2, "wish minutes"),
    "agent dies": (2, "wish"),
    "controller dies": (1, "wish"),
    "watchdog dies": (1, "wish"),
    "machine reboots": (1, "wish"),
    "vanishes": (1, "wish"),
    "sickens": (1, "wish"),
}


def _incident(chance: Random, last: float, computers: Computers, wishes: int) -> tuple[float, str, dict[str, Any]]:
    """One thing that goes wrong, with all that is to be known of it."""
    kind = chance.choices(list(KINDS), [often for often, _ in KINDS.values()])[0]
    drawn = {
        "seconds": chance.choice(LENGTHS),
        "computer": chance.randrange(len(computers.ahead) + computers.watcher),
        "wish": chance.randrange(wishes),
        "by": chance.choice(JUMPS),
        "factor": chance.choice([0.5, 1.005, 1.5, 3.0]),
        "minutes": chance.choice([2.0, 5.0, 20.0]),
    }
    return chance.random() * last, kind, {name: drawn[name] for name in KINDS[kind][1].split()}
