"""The judge: holds what gpurun claimed against what truly was. Imports nothing of gpurun; reads names by itself.

History in (the world's own truth, and the words gpurun left), violations out, each a line. Times are true epoch
seconds. A rented thing whose name is a mark is somebody's; its ceiling is what the name says at the end.

What excuses an overrun is bad weather only (weather.py); two minutes of good weather running must suffice. The law of
the store is oracle_store.py's.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import oracle_store
from weather import PATIENCE, Span, good

if TYPE_CHECKING:
    from pathlib import Path

_MARK = re.compile(r"gpurun-([0-9a-f]{4})-([a-z0-9-]+-\d{6}-[0-9a-f]{6})-(\d+)(?:-n\d)?-t([0-9a-z]{6,7})")
_CENT = 1e-6
_MICRO = 2e-6  # seconds: what moments of microseconds leave of a whole step
_ASKED = 30.0  # seconds at most from the last list before a launch or an end, all its pages, to that


@dataclass(frozen=True)
class Fact:
    """One thing that was rented, as it truly was."""

    id: str
    name: str
    account: str
    made: float
    billed_from: float
    ended: float | None
    price: float
    step: int
    order: int  # the launch that made it
    limit_at: float = math.inf  # when the vendor's own limit ends it

    @property
    def mark(self) -> tuple[str, str, int, float] | None:
        """Home, run, attempt, ceiling; None = foreign."""
        match = _MARK.fullmatch(self.name)
        return None if match is None else (match[1], match[2], int(match[3]), float(int(match[4], 36)))

    def meter(self, now: float, spare: float = 0.0) -> float:
        """Dollars by the vendor's own meter, in begun steps; `spare` = seconds to leave out, as a clock rounds."""
        seconds = max((now if self.ended is None else self.ended) - self.billed_from - spare, 0.0)
        return self.price * math.ceil(seconds / self.step - 1e-9) * self.step / 3600


@dataclass(frozen=True)
class Kill:
    """An order to end that the vendor carried out."""

    at: float
    home: str  # of the process that gave it; "" = an empty one
    by: str  # "guard" or "controller"
    id: str
    name: str
    under_way: bool  # that home's ledger had the attempt as under way at that moment
    ahead: float  # of the clock of its computer: its own runs it ends by whichever clock is ahead


@dataclass(frozen=True)
class Claim:
    """gpurun's word that something is gone. `run` done, or the allocation `id` free."""

    at: float
    home: str
    account: str
    run: str
    id: str = ""
    blank: bool = False  # by a ledger of before its launch: it can't know that there is anything to read back


@dataclass(frozen=True)
class Holder:
    """Somebody who could end what `covers` says, and when: alive, awake, on line, with a key that works."""

    name: str
    account: str
    able: tuple[Span, ...]
    home: str = ""  # "" = everything on the account
    run: str = ""
    id: str = ""
    own: str = ""  # the home whose marks it may judge by the later clock
    behind: float = 0.0  # seconds that its clock was behind at worst: so much later it ends what is another home's


@dataclass(frozen=True)
class Told:
    """One run as its ledger tells it at the end."""

    home: str
    run: str
    state: str
    reason: str
    low: float
    high: float
    recorded: bool  # every one of its allocations ended on the vendor's own record
    step: int
    price: float
    known: tuple[tuple[str, str], ...]  # its allocations, each with the words on which it is called gone
    events: tuple[tuple[str, str, str], ...]  # verb, kind, text
    folder: Path
    whole: bool  # its ledger was never put back
    answerable: bool  # its computer lived and the weather was good long enough for the run to be over


@dataclass
class History:
    """All that happened."""

    now: float = 0.0
    things: list[Fact] = field(default_factory=list)
    holders: list[Holder] = field(default_factory=list)
    down: list[Span] = field(default_factory=list)  # the vendor's API
    lag: float = 0.0  # seconds by which its lists may be behind
    restored: list[tuple[float, str]] = field(default_factory=list)  # when an old ledger was put back, and whose
    failed: list[float] = field(default_factory=list)  # calls that got no answer, whosever
    ignored: list[tuple[float, str]] = field(default_factory=list)
    kills: list[Kill] = field(default_factory=list)
    claims: list[Claim] = field(default_factory=list)
    reads: list[tuple[float, str, str, frozenset[str], str]] = field(default_factory=list)
    heard: set[tuple[str, str, str]] = field(default_factory=set)  # home, run ("" = the guard), what it was shown
    priced: set[tuple[str, str]] = field(default_factory=set)  # homes that read what an allocation costs
    told: list[Told] = field(default_factory=list)
    well: list[tuple[float, float, str]] = field(default_factory=list)  # a guard's passes that said "all well"
    errors: list[str] = field(default_factory=list)
    objects: list[tuple[float, int, str, bytes | None]] = field(default_factory=list)  # each change in the store:
    # when, by which request, the key, what it is from then on (None = deleted)
    silent: list[tuple[float, str]] = field(default_factory=list)  # when the store failed a controller, and whose home
    sealed: list[tuple[float, str]] = field(default_factory=list)  # when a machine heard that its result.json is there
    leaving: list[tuple[float, str, dict[str, bytes]]] = field(
        default_factory=list
    )  # when one went since all is there,
    # its id, and what lay on its disk of what its training leaves


@dataclass
class Verdict:
    """What the judge found."""

    violations: list[str] = field(default_factory=list)
    worst_overrun: float = 0.0  # seconds past a ceiling in good weather
    longest_past: float = 0.0  # seconds past a ceiling in any weather
    false_kills: int = 0


def judge(history: History) -> Verdict:
    """Hold a history to the seven laws."""
    verdict = Verdict()
    for law in (_ends, _said, _well, _single, _money, _evidence, _kills, _files, _errors):
        law(history, verdict)
    verdict.violations += oracle_store.judge(history)
    return verdict


# ── 1. The meter stops ──────────────────────────────────────────────────────────────────────────


def _ends(history: History, verdict: Verdict) -> None:
    for thing in history.things:
        if thing.mark is None:
            continue
        ceiling, end = thing.mark[3], history.now if thing.ended is None else thing.ended
        start = max(ceiling, thing.billed_from)
        if end <= start:
            continue
        verdict.longest_past = max(verdict.longest_past, end - start)
        worst = max((b - a for a, b in good(history, thing, start, end)), default=0.0)
        verdict.worst_overrun = max(verdict.worst_overrun, worst)
        if worst > PATIENCE:
            past = f"{end - start:.0f} s past its ceiling, {worst:.0f} s of good weather"
            verdict.violations.append(f"(1) {thing.name} ({thing.id}) billed {past}")


def _said(history: History, verdict: Verdict) -> None:
    """Nothing is called gone that bills, nor without a read of the same account that came after its end."""
    things = {thing.id: thing for thing in history.things}
    for claim in history.claims:
        named = [things[claim.id]] if claim.id in things else []
        if not claim.id:
            named = [one for one in history.things if one.mark is not None and one.mark[:2] == (claim.home, claim.run)]
        for thing in named:
            if thing.made > claim.at or claim.blank or (not claim.id and _was_forgotten(history, thing, claim.at)):
                continue
            if thing.ended is None or thing.ended > claim.at:
                verdict.violations.append(f"(1) {claim.run} said {claim.id or 'it was done'} while {thing.id} billed")
            elif not _was_read(history, claim, thing):
                verdict.violations.append(f"(1) {claim.run} said {thing.id} was gone, and nobody had read it back")


def _well(history: History, verdict: Verdict) -> None:
    """Who says that all is well has read a whole list meanwhile."""
    for begun, ended, home in history.well:
        if not any(begun <= at <= ended and who == home and not one for at, who, _, _, one in history.reads):
            verdict.violations.append(
                f"(1) a guard of home {home or '(empty)'} said that all was well, and read no list"
            )


def _was_read(history: History, claim: Claim, thing: Fact) -> bool:
    """A read shows it gone: of it alone, or of a whole list."""
    return any(
        home == claim.home
        and thing.ended is not None
        and thing.ended <= at <= claim.at
        and account == thing.account
        and (one == thing.id or (not one and thing.id not in listed))
        for at, home, account, listed, one in history.reads
    )


# ── 2. to 6. ────────────────────────────────────────────────────────────────────────────────────


def _single(history: History, verdict: Verdict) -> None:
    runs: dict[tuple[str, str], list[Fact]] = {}
    for thing in history.things:
        if thing.mark is not None:
            runs.setdefault(thing.mark[:2], []).append(thing)
    for (_, run), things in runs.items():
        for number, one in enumerate(things):
            for other in things[number + 1 :]:
                both = min(one.ended or math.inf, other.ended or math.inf) - max(one.billed_from, other.billed_from)
                first, second = sorted((one, other), key=lambda thing: thing.made)
                if both > 0 and one.order != other.order and not _was_forgotten(history, first, second.made):
                    verdict.violations.append(f"(2) {one.id} and {other.id} billed for {run} at once")


def _was_forgotten(history: History, thing: Fact, moment: float) -> bool:
    """Whether at a moment a ledger put back to before this was launched could not know of it: no list showed it yet.

    Nothing that gpurun keeps knows of it then, and the vendor does not tell of it for the lag of its lists.
    """
    if thing.mark is None or moment - thing.made > history.lag + _ASKED:
        return False
    return any(home == thing.mark[0] and thing.made - history.lag <= at <= moment for at, home in history.restored)


def _money(history: History, verdict: Verdict) -> None:
    for told in history.told:
        if not told.whole:
            continue
        mine = [one for one in history.things if one.mark is not None and one.mark[:2] == (told.home, told.run)]
        if any(one.price > told.price + _CENT and (told.home, one.id) not in history.priced for one in mine):
            continue  # dearer than was agreed to, and nobody could read that yet
        meter, least = (sum(one.meter(history.now, spare) for one in mine) for spare in (0.0, _MICRO))
        if not told.low - _CENT <= meter or not least <= told.high + _CENT + _unheard(history, told, mine):
            words = f"(3) {told.run}: the meter says ${meter:.6f}, the ledger ${told.low:.6f} to ${told.high:.6f}"
            verdict.violations.append(words)
        slack = told.price * told.step * max(len(told.known), 1) / 3600
        if told.recorded and told.state == "done" and told.high - told.low > slack + _CENT:
            verdict.violations.append(
                f"(3) {told.run}: ${told.low:.6f} to ${told.high:.6f} though its end is on record"
            )


def _unheard(history: History, told: Told, things: list[Fact]) -> float:
    """Dollars of what one launch made beside the one that was asked for, where no answer ever showed it to the run.

    A vendor that makes two of one order and is never heard again bills for what nobody can know of. What a list showed
    to the controller of another run is not heard: each keeps the book of its own run alone.
    """
    shown = {one for home, whose, one in history.heard if home == told.home and whose in {"", told.run}}
    orders: dict[int, list[Fact]] = {}
    for thing in things:
        orders.setdefault(thing.order, []).append(thing)
    hidden = 0.0
    for made in orders.values():
        unknown = sorted(one.meter(history.now) for one in made if one.id not in shown)
        hidden += sum(unknown[:-1] if len(unknown) == len(made) else unknown)
    return hidden


def _evidence(history: History, verdict: Verdict) -> None:
    for told in history.told:
        if told.state != "done":
            continue
        words = "\n".join(text for _, _, text in told.events)
        last = [text for verb, _, text in told.events if verb == "state" and "-> done" in text]
        if not last or len(last[-1].partition("-> done")[2]) < 3:
            verdict.violations.append(f"(4) {told.run} is done, and no event says why")
        for one, evidence in told.known:
            if not evidence or evidence not in words:
                verdict.violations.append(f"(4) {told.run} is done, and no event says on whose word {one} is gone")


def _kills(history: History, verdict: Verdict) -> None:
    for kill in history.kills:
        match = _MARK.fullmatch(kill.name)
        words = ""
        if match is None:
            words = "is foreign"
        elif match[1] != kill.home and kill.at < int(match[4], 36):
            words = f"is another home's, {int(match[4], 36) - kill.at:.0f} s before its ceiling"
        elif kill.by == "guard" and kill.under_way and kill.at + max(kill.ahead, 0.0) < int(match[4], 36):
            words = "is this home's own live attempt"
        if words:
            verdict.false_kills += 1
            verdict.violations.append(
                f"(5) {kill.home or 'a guard'}'s {kill.by} ended {kill.id} {kill.name}, which {words}"
            )


def _files(history: History, verdict: Verdict) -> None:
    for told in history.told:
        result = told.folder / "result.json"
        completed = told.state == "done" and told.reason == "completed" and told.whole
        if completed and not result.is_file() and not oracle_store.was_tried(history, told):
            verdict.violations.append(f"(6) {told.run} is said to be completed, and there is no result")
        if result.is_file():
            value = json.loads(result.read_bytes())
            for one in value["artifacts"]:
                path = told.folder / one["name"]
                if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != one["sha256"]:
                    verdict.violations.append(f"(6) {told.run}: {one['name']} is not what result.json names")
        for seal in told.folder.glob("checkpoints/*/CHECKPOINT.json"):
            value = json.loads(seal.read_bytes())
            model = seal.with_name("model.bin")
            if not model.is_file() or model.read_bytes() != f"{value['thing']} after {value['step']}".encode():
                verdict.violations.append(f"(6) {told.run}: {seal.parent.name} is sealed and not whole")


def _errors(history: History, verdict: Verdict) -> None:
    verdict.violations += [f"(0) {text}" for text in history.errors]
    for told in history.told:
        if told.answerable and told.state != "done":
            verdict.violations.append(f"(0) {told.run} is still {told.state} long after everything was well again")
