"""How vendors misbehave: what a row of a table is, the book that a vendor keeps of them, and what is armed now.

    {"launch_capacity": 2, "list_lag": {"seconds": 40}, "sshd_never": true}       a number = times
    ["reply_lost", "disk_full"]                                                  each as its row says

Each vendor's rows are its own: lambda_cloud/faults.py, runpod/faults.py. Everywhere: `times` = how often it strikes
(null = always), `skip` = how many chances it lets pass first. Faults of an instance strike the next one that is
launched, or with `"instance": "<id>"` (or `"*"`) those that are there. Seconds are the vendor's own.
"""

from __future__ import annotations

import difflib
import random
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

Value = str | int | float | bool | None

EVERYWHERE: dict[str, Value] = {"times": 1, "skip": 0}
_LAUNCH: dict[str, Value] = {"type": None, "region": None}
_INSTANCE: dict[str, Value] = {**_LAUNCH, "instance": None}
_NAMES = frozenset({*_INSTANCE, "of"})  # options that are words though their default is none


class FaultError(ValueError):
    """What was asked for is no fault, or no option of it."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A row of the table: its options with their defaults, and what happens. `dice` = `--seed` may draw it."""

    name: str
    story: str
    options: Mapping[str, Value] = field(default_factory=dict)
    on_instance: bool = False
    dice: bool = True


def on_request(name: str, story: str, *, dice: bool = True, **options: Value) -> Fault:
    """Strike a request; `of` names an operation, None = any."""
    return Fault(name, story, {**EVERYWHERE, "of": None, **options}, dice=dice)


def on_launch(name: str, story: str, *, dice: bool = True, **options: Value) -> Fault:
    """Strike a launch, of any type in any region or of these."""
    return Fault(name, story, {**EVERYWHERE, **_LAUNCH, **options}, dice=dice)


def on_reply(name: str, story: str, *, of: str = "launch") -> Fault:
    """Spoil the reply to a deed that is done; what was launched stays hidden for a while."""
    return Fault(name, story, {**EVERYWHERE, "of": of, "hidden_seconds": 20})


def on_instance(name: str, story: str, *, dice: bool = True, **options: Value) -> Fault:
    """Strike one instance, from its launch on or later."""
    return Fault(name, story, {**EVERYWHERE, **_INSTANCE, **options}, on_instance=True, dice=dice)


def on_link(begun: str) -> tuple[Fault, ...]:
    """Strike one instance's road to its caller; `after` counts from the moment so called."""
    cut = f"every connection is reset, so long after {begun} (and `bytes` more), `count` times"
    silent = "the peer stays connected and says nothing for so long"
    return (
        on_instance("link_cut", cut, after=20, count=1, every=20, bytes=None),
        on_instance("link_blackhole", "packets go nowhere for so long", after=20, seconds=30, bytes=None),
        on_instance("link_freeze", silent, after=20, seconds=30, bytes=None),
    )


_SPANS = {"seconds", "hidden_seconds", "after", "every", "delay"}


@dataclass(slots=True)
class Hit:
    """A fault that strikes, with its options."""

    name: str
    options: dict[str, Value]

    def number(self, option: str) -> float:
        """Give an option that is a number; none counts as zero."""
        value = self.options[option]
        return 0.0 if value is None else float(value)

    def text(self, option: str) -> str:
        """Give an option as words."""
        return str(self.options[option])

    def given(self, option: str) -> bool:
        """Tell whether an option has a value."""
        return self.options[option] is not None

    def hurried(self, pace: float) -> Hit:
        """Give the same with every span of time so much shorter."""
        if self.name == "clock_skew":  # no span: a reading
            return self
        spans = {name: value for name, value in self.options.items() if name in _SPANS and value is not None}
        return Hit(self.name, self.options | {name: float(value) / pace for name, value in spans.items()})


class Faults:
    """What is armed. Its owner holds the world's lock. `on_instance` names the faults that an instance is given."""

    def __init__(self, on_instance: Iterable[str] = ()) -> None:
        self._on_instance = tuple(on_instance)
        self._armed: list[Hit] = []
        self.struck: list[str] = []

    def arm(self, hits: Iterable[Hit]) -> None:
        """Arm faults; arming one again replaces it, `times: 0` disarms it."""
        for hit in hits:
            self._armed = [other for other in self._armed if other.name != hit.name]
            if hit.options["times"] != 0:
                self._armed.append(hit)

    def take(self, name: str, **facts: str) -> Hit | None:
        """Let a fault strike if it is armed and meant for this; counts it."""
        for hit in self._armed:
            if hit.name == name and _meant(hit, facts) and self._due(hit):
                self.struck.append(name)
                return hit
        return None

    def take_for_instance(self, **facts: str) -> dict[str, Hit]:
        """Draw every fault that the next instance gets."""
        drawn = (self.take(name, **facts) for name in self._on_instance)
        return {hit.name: hit for hit in drawn if hit is not None}

    def clear(self) -> None:
        """Disarm everything; what an instance already has stays with it."""
        self._armed.clear()

    def armed(self) -> dict[str, dict[str, Value]]:
        """Show what is still armed."""
        return {hit.name: dict(hit.options) for hit in self._armed}

    def _due(self, hit: Hit) -> bool:
        skip, times = hit.options["skip"], hit.options["times"]
        if isinstance(skip, int) and skip > 0:
            hit.options["skip"] = skip - 1
            return False
        if isinstance(times, int):
            hit.options["times"] = times - 1
            if times <= 1:
                self._armed.remove(hit)
        return True


def _meant(hit: Hit, facts: Mapping[str, str]) -> bool:
    filters = {name: hit.options.get(name) for name in ("of", "type", "region", "when")}
    return all(want is None or facts.get(name) == want for name, want in filters.items())


class Book:
    """A vendor's table of faults. `words` = what an option may say: (fault or "*", option) -> words."""

    def __init__(self, rows: Sequence[Fault], words: Mapping[tuple[str, str], tuple[str, ...]]) -> None:
        self._rows = tuple(rows)
        self._words = words
        self.table: Mapping[str, Fault] = MappingProxyType({row.name: row for row in rows})

    @property
    def on_instance(self) -> tuple[str, ...]:
        """The faults that strike an instance, in the table's order."""
        return tuple(row.name for row in self._rows if row.on_instance)

    def parse(self, wish: object) -> list[Hit]:
        """Read faults from JSON.

        Raises:
            FaultError: an unknown name or option, with the nearest known one.
        """
        if isinstance(wish, list) and all(isinstance(name, str) for name in wish):
            wish = dict.fromkeys(wish, True)
        if not isinstance(wish, dict):
            raise FaultError('faults are a list of names, or an object such as {"launch_capacity": 2}')
        return [self._hit(name, value) for name, value in wish.items()]

    def _hit(self, name: str, value: object) -> Hit:
        row = self.table.get(name)
        if row is None:
            raise FaultError(f"no fault is called {name!r}{_nearest(name, self.table)}")
        options = dict(row.options)
        if value is None or value is False:
            options["times"] = 0
        elif isinstance(value, int) and value is not True:
            options["times"] = self._checked(name, "times", value)
        elif isinstance(value, dict):
            for option, given in value.items():
                if option not in options:
                    raise FaultError(f"{name} has no option {option!r}{_nearest(option, options)}")
                options[option] = self._checked(name, option, given)
        elif value is not True:
            raise FaultError(f"{name} takes a number of times, true, or an object of options")
        return Hit(name, options)

    def _checked(self, name: str, option: str, value: object) -> Value:
        """Take an option's value if it is of the kind of its default."""
        usual = self.table[name].options[option]
        words = self._words.get((name, option)) or self._words.get(("*", option))
        if words and value is not None and value not in words:
            raise FaultError(f"{name}: {option} is one of {', '.join(words)}, not {value!r}")
        if value is None and (usual is None or option == "times"):
            return None
        if isinstance(usual, str) or option in _NAMES:
            if not isinstance(value, str):
                raise FaultError(f"{name}: {option} is a word, not {value!r}")
            return value
        if not isinstance(value, int | float) or value < 0 or (isinstance(value, bool) and usual is not False):
            raise FaultError(f"{name}: {option} is a number of 0 or more, not {value!r}")
        return value

    def drawn(self, seed: int) -> list[Hit]:
        """Draw one to three faults: the same seed draws the same ones."""
        dice = random.Random(seed)  # noqa: S311 - reproducible on purpose
        rows = dice.sample([row for row in self._rows if row.dice], dice.randint(1, 3))
        return [Hit(row.name, dict(row.options)) for row in rows]

    def listing(self) -> str:
        """Spell the table for a person."""
        lines = []
        for row in self._rows:
            options = ", ".join(
                f"{name}={value!r}" for name, value in row.options.items() if value != EVERYWHERE.get(name)
            )
            lines.append(f"{row.name:20} {row.story}\n{'':20}   {options or 'once'}")
        return "\n".join(lines)


def _nearest(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(known), 1)
    return f"; did you mean {close[0]!r}?" if close else ""
