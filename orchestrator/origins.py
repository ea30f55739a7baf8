"""Other homes that launched a run, and whether their machines still bill: never two for one run.

    the row's "origins" + run.json in the store -> Origin(home, vendor, account, ceiling) -> the vendor's own list

Another home's machine is not ours to end: who would go on with its run waits for it. What this home launched itself is
looks.py's; a run on somebody's own computer costs nothing and is not asked for.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from orchestrator.store import from_json, open_store
from orchestrator.words import STILL_BILLS
from providers.base import utc
from providers.errors import CredentialsError, GpurunError, RefusedError
from providers.table import CONSOLES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from datetime import datetime

    from orchestrator.records import RunRow
    from orchestrator.run_file import RunFile
    from providers.base import Provider

_FREE = "local"
_SPARE = timedelta(minutes=5)  # past a ceiling: clocks differ, and an end takes its time


@dataclass(frozen=True, slots=True)
class Origin:
    """Who launched attempts of a run, and where."""

    home: str  # its id, as in a mark
    provider: str
    account: str  # fingerprint; "" = not known
    ceiling: float  # epoch seconds: what it launched ends by then


@dataclass(frozen=True, slots=True)
class Word:
    """What is known of an origin's machines."""

    may_bill: bool
    text: str  # on whose word, as of when
    ids: tuple[str, ...] = ()  # of those that the vendor lists as billing
    until: float = 0.0  # epoch seconds: the end by itself


def named_in(facts: RunFile) -> list[Origin]:
    """Name who launched a run by its run.json: its writer, and those whom the writer knew of."""
    writer = Origin(facts.home, facts.provider, str(facts.plan.get("account") or ""), facts.ceiling)
    return [writer, *_known(facts.plan)]


def of(row: RunRow, home_id: str) -> list[Origin]:
    """Name the other homes that launched a run where it may bill, by the row and by what its store says now.

    Raises:
        ProviderError: the store can't be read.
    """
    found = _known(row.plan)
    if row.plan.get("store"):
        from orchestrator import run_file

        facts = run_file.read(open_store(from_json(row.plan["store"])[0]), row.run_id)
        found += [] if facts is None else named_in(facts)
    return _merged(one for one in found if one.home != home_id and one.provider != _FREE)


def as_json(origins: Iterable[Origin]) -> list[dict[str, Any]]:
    """Spell them for a plan."""
    return [asdict(one) for one in _merged(origins)]


def ask(origin: Origin, run_id: str, now: datetime, opened: Callable[[str], Provider]) -> Word:
    """Ask the vendor what it lists of an origin's. One that can't be asked may bill until the ceiling."""
    if origin.provider == _FREE:
        return Word(may_bill=False, text="it ran on a computer of yours, which costs nothing")
    ends = f"it ends by {utc(origin.ceiling):%Y-%m-%d %H:%M} UTC at the latest"
    try:
        provider = opened(origin.provider)
        if origin.account and provider.account() != origin.account:
            raise CredentialsError("the key here opens another account")
        listed = provider.allocations()
    except GpurunError as error:
        may = now < utc(origin.ceiling) + _SPARE
        return Word(may, f"whether it still bills was not asked ({error}); {ends}", until=origin.ceiling)
    marks = {one.id: one.mark for one in listed if one.billing and one.mark}
    ours = {key: mark for key, mark in marks.items() if (mark.home, mark.run_id) == (origin.home, run_id)}
    if not ours:
        return Word(may_bill=False, text=f"none of it is listed at {origin.provider} (as of {now:%Y-%m-%d %H:%M} UTC)")
    until = max(mark.ceiling for mark in ours.values())
    text = f"{STILL_BILLS} as {', '.join(ours)} (as of {now:%Y-%m-%d %H:%M} UTC)"
    text += f"; it ends by {until:%Y-%m-%d %H:%M} UTC at the latest"
    return Word(may_bill=True, text=text, ids=tuple(ours), until=until.timestamp())


def what_bills(
    row: RunRow, home_id: str, now: datetime, opened: Callable[[str], Provider]
) -> tuple[Origin, Word] | None:
    """Find another home's machine of the run that bills, or may; None = there is none.

    Raises:
        ProviderError: the store can't be read.
    """
    told = ((origin, ask(origin, row.run_id, now, opened)) for origin in of(row, home_id))
    return next(((origin, word) for origin, word in told if word.may_bill), None)


def refuse(row: RunRow, home_id: str, now: datetime, opened: Callable[[str], Provider]) -> None:
    """Refuse to launch while another home's machine of the run may bill.

    Raises:
        RefusedError: says which, and what ends it.
        ProviderError: the store can't be read.
    """
    found = what_bills(row, home_id, now, opened)
    if found is None:
        return
    origin, word = found
    words = f"another home (gpurun-{origin.home}) launched {row.run_id} at {origin.provider}: {word.text}"
    where = CONSOLES.get(origin.provider, "")
    look = "gpurun sweep" if word.ids else f"the key to {origin.provider}'s account, then again"
    ends = f"; end it from there (gpurun stop {row.run_id}){' or at ' if where else ''}{where}"
    raise RefusedError(words, hint=f"{look}{ends}")


def _known(plan: Mapping[str, Any]) -> list[Origin]:
    return [Origin(**one) for one in plan.get("origins") or ()]


def _merged(origins: Iterable[Origin]) -> list[Origin]:
    """Keep one of each, with its last ceiling."""
    found: dict[tuple[str, str, str], Origin] = {}
    for one in origins:
        key = (one.home, one.provider, one.account)
        if key not in found or one.ceiling > found[key].ceiling:
            found[key] = one
    return list(found.values())
