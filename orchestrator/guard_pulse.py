"""The guard's pulse, `GPURUN_HOME/guard.json`: when it last looked, what it saw, what it owes, what it could not do.

Written by every pass (guard_pass.py); read by `ps`, `doctor`, `guard status` and the next pass. Standard library only.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

from orchestrator.home import read_json, write_json
from orchestrator.render import WIDTH, ago, clean, duration, fit
from providers.errors import StateError

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.home import Home

NAME = "guard.json"
HOME = "this home"  # whose trouble it is where no provider is named
SCRIPT = "guard.sh"  # what a timer runs: there while one is installed
SILENT_SECONDS = 180.0  # three beats missed
AHEAD_SECONDS = 60.0  # by which clocks may differ


@dataclass(frozen=True, slots=True)
class Seen:
    """What was seen of one provider."""

    account: str = ""
    counts: dict[str, int] | None = None  # of what bills, by verdict; None = nobody could look
    ended: list[dict[str, Any]] = field(default_factory=list)  # proven gone in this pass
    unproven: list[dict[str, Any]] = field(default_factory=list)  # told to end, and not proven gone
    troubles: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    skew_seconds: float = 0.0
    console_url: str = ""
    unknown: list[str] = field(default_factory=list)  # marks of this home that its ledger does not know


@dataclass(frozen=True, slots=True)
class Pulse:
    """One pass. `when` is epoch seconds by our clock."""

    when: float
    host: str
    seconds: float = 0.0
    providers: dict[str, Seen] = field(default_factory=dict)
    troubles: list[str] = field(default_factory=list)  # of this home
    tended: list[str] = field(default_factory=list)  # runs that nobody held
    alerted: dict[str, float] = field(default_factory=dict)  # what lasts, and when it was told last
    under_way: bool = False  # the pass goes on: it waits for a proof
    watched: bool = False  # `gpurun guard watch` makes the next one

    @property
    def unproven(self) -> int:
        """How many are not proven gone."""
        return sum(len(seen.unproven) for seen in self.providers.values())

    @property
    def blind(self) -> list[str]:
        """What it could not see or do, by provider."""
        return [f"{name}: {text}" for name, seen in self.providers.items() for text in seen.troubles]

    @property
    def may_bill(self) -> bool:
        """Whether something may bill that should not, as far as anyone can tell."""
        return bool(self.unproven or self.blind or not self.providers)

    @property
    def is_well(self) -> bool:
        """Everything was seen, and nothing is owed."""
        return not (self.may_bill or self.troubles)


def path_of(home: Home) -> Path:
    """Name the file."""
    return home.root / NAME


def write(home: Home, pulse: Pulse) -> None:
    """Leave the pulse.

    Raises:
        StateError: the home can't be written.
    """
    try:
        write_json(path_of(home), asdict(pulse))
    except OSError as error:
        text = f"{path_of(home)} can't be written: {error.strerror or error}"
        raise StateError(text, hint="gpurun doctor") from error


def read(home: Home) -> Pulse | None:
    """Read the last pulse; None = no guard ever ran in this home.

    Raises:
        StateError: it is there, and can't be read.
    """
    value = read_json(path_of(home))
    try:
        return None if value is None else parse(value)
    except ValueError as error:
        raise StateError(f"{path_of(home)} is no pulse: {error}", hint="the next pass writes it anew") from error


def parse(value: dict[str, Any]) -> Pulse:
    """Read a pulse out of its JSON.

    Raises:
        ValueError: it is none.
    """
    try:
        seen = {name: Seen(**_known(Seen, one)) for name, one in value["providers"].items()}
        told = value.get("alerted") or {}
        alerted = told if isinstance(told, dict) else dict.fromkeys(told, value["when"])  # as before times were kept
        return Pulse(**{**_known(Pulse, value), "providers": seen, "alerted": alerted})
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(str(error)) from error


def _known(kind: type, value: dict[str, Any]) -> dict[str, Any]:
    """Leave out what another gpurun wrote."""
    names = {each.name for each in fields(kind)}
    return {name: one for name, one in value.items() if name in names}


def is_installed(home: Home) -> bool:
    """Whether a timer was installed for this home."""
    return (home.root / SCRIPT).is_file()


def is_kept(home: Home, pulse: Pulse | None) -> bool:
    """Whether a next pass is due without anybody typing it: a timer's, or that of `gpurun guard watch`."""
    return is_installed(home) or (pulse is not None and pulse.watched)


def owes(home: Home) -> bool:
    """Whether the last pass left something that is not proven gone; what can't be read is for line() to say."""
    try:
        pulse = read(home)
    except StateError:
        return False
    return pulse is not None and pulse.unproven > 0


def staleness(pulse: Pulse, now: float) -> str:
    """Say why a pulse proves no living guard; "" = it does. One from the future was written by a clock that was set."""
    age = now - pulse.when
    if age < -AHEAD_SECONDS:
        return f"its last pulse is {duration(-age)} ahead of this clock"
    return f"silent for {duration(age)}" if age > SILENT_SECONDS else ""


def line(home: Home, now: float, *, wanted: bool = True) -> str:
    """Say in one line how the guard is: "guard: 40 s ago, all well"; "" = there is none, and none is `wanted`."""
    try:
        pulse = read(home)
    except StateError as error:
        return f"guard: {clean(str(error))}"
    installed = is_installed(home)
    if pulse is None:
        none = "no guard installed: gpurun guard install" if wanted else ""
        return "guard: installed, and has not run yet" if installed else none
    age, stale = max(now - pulse.when, 0.0), staleness(pulse, now)
    if stale:
        left = f", {summary(pulse)}" if pulse.unproven else ""
        kept = is_kept(home, pulse)
        words = f"guard: {stale}{left}: gpurun guard status" if kept else f"no guard installed, last pass {ago(age)}"
        return words if kept or not left else f"{words}{left}: gpurun guard once"
    return fit(f"guard: {ago(age)}, {summary(pulse)}", WIDTH)


def summary(pulse: Pulse) -> str:
    """Say what a pass found, the worst first."""
    if pulse.unproven:
        return f"{pulse.unproven} " + ("told to end, not proven gone yet" if pulse.under_way else "NOT PROVEN GONE")
    if pulse.blind:
        return f"CAN'T TELL: {clean(pulse.blind[0])}"
    if not pulse.providers:
        return "CAN'T TELL: no provider's key is at hand"
    if pulse.troubles:
        return clean(pulse.troubles[0])
    return "all well"
