"""What lies in a store, run by run, and what it costs there: `gpurun store ls` and `rm`."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from orchestrator import run_file, settings_file
from orchestrator.ledger import Ledger
from orchestrator.render import ago, money, size, table
from orchestrator.store import BLOBS, HUB_FREE, HUB_SHAPE, RUNS, open_store, parse
from orchestrator.words import ADOPTED
from providers.base import Mark, utc
from providers.errors import IntegrityError, RefusedError, UsageError

if TYPE_CHECKING:
    from orchestrator.home import Home
    from orchestrator.records import RunRow
    from orchestrator.store import Address, Store

_RUN = re.compile(r"[a-z0-9][a-z0-9-]{0,40}-\d{6}-[0-9a-f]{6}")  # an id, as a mark has it: it becomes a folder's name

_NEVER = datetime.fromtimestamp(0, UTC)


@dataclass(slots=True)
class There:
    """One run in a store, or all its data together (`run_id` = "data")."""

    run_id: str
    keys: list[str] = field(default_factory=list)
    size: int = 0  # bytes
    newest: datetime = _NEVER
    attempts: set[int] = field(default_factory=set)
    named: bool = False  # run.json is there
    results: set[int] = field(default_factory=set)  # attempts with a result
    until: datetime = _NEVER  # a job that bears such a mark may live so long: its own files lie here
    launched: datetime = _NEVER  # when run.json was written last
    resulted: datetime = _NEVER  # when a result was

    @property
    def is_over(self) -> bool:
        """Whether its newest attempt has a result, and nobody carried it on since."""
        return max(self.attempts, default=0) in self.results and self.resulted >= self.launched


def chosen(home: Home, address: str | None, endpoint: str | None) -> Address:
    """Give the store that was named, else the default's.

    Raises:
        UsageError: none is.
    """
    defaults = settings_file.load(home.root / settings_file.NAME)
    text = address or str(defaults.get("store") or "")
    if not text:
        raise UsageError("no store is named", hint=f"gpurun config set store s3://bucket/prefix, or {HUB_SHAPE}")
    if endpoint is not None and not text.startswith("s3:"):
        raise UsageError(f"--s3-endpoint is the server of an s3:// store, not of {text}", hint="drop it")
    return parse(text, endpoint if endpoint is not None else str(defaults.get("s3-endpoint") or ""))


def look(address: Address, store: Store | None = None) -> list[There]:
    """List what is there, the newest run first and the data last."""
    store = store or open_store(address)
    found: dict[str, There] = {}
    for kind in (RUNS, BLOBS):
        base = address.key(kind) + "/"
        for one in store.kept(base):
            run_id, _, rest = one.key[len(base) :].partition("/")
            mark = (
                Mark.parse(run_id) if kind == RUNS else None
            )  # what a job of Hugging Face's has in the account's bucket
            name = mark.run_id if mark else run_id if kind == RUNS else "data"
            if kind == RUNS and not _RUN.fullmatch(name):
                continue
            there = found.setdefault(name, There(name))
            there.keys.append(one.key)
            there.size += one.size
            there.newest = max(there.newest, one.written)
            if mark is not None:
                there.until = max(there.until, mark.ceiling)
                rest = f"{mark.attempt}/{rest.removeprefix('out/files/')}"
            number, _, inner = rest.partition("/")
            if kind == RUNS and number.isdecimal():
                there.attempts.add(int(number))
                if inner == "result.json":
                    there.results.add(int(number))
                    there.resulted = max(there.resulted, one.written)
            if rest == "run.json":
                there.named, there.launched = True, one.written
    return sorted(found.values(), key=lambda one: (one.run_id == "data", -one.newest.timestamp()))


def screen(address: Address, found: list[There], now: datetime) -> str:
    """Show it, with what it costs a month."""
    if not found:
        return f"{address}: nothing of gpurun's is there"
    rows = [
        (
            one.run_id,
            size(one.size),
            _monthly(address, one.size),
            "" if one.run_id == "data" else "whole" if one.results else "unfinished",
            ago((now - one.newest).total_seconds()),
        )
        for one in found
    ]
    whole = sum(one.size for one in found)
    usd = _monthly(address, whole)
    end = f"{address}: {size(whole)}" + (f", {usd} a month" if usd else ", at a price that is not known here")
    end += f" {HUB_FREE}" if address.is_hub else ""
    return f"{table(('RUN', 'SIZE', 'A MONTH', 'RESULT', 'WRITTEN'), rows, right=(1, 2))}\n{end}"


def as_json(address: Address, found: list[There]) -> list[dict[str, object]]:
    """Spell it for programs."""
    return [
        {
            "run_id": one.run_id,
            "bytes": one.size,
            "usd_a_month": None if (usd := address.monthly_usd(one.size)) is None else str(usd),
            "attempts": sorted(one.attempts),
            "whole": bool(one.results),
            "written": one.newest.isoformat(),
        }
        for one in found
    ]


def pick(address: Address, found: list[There], prefix: str) -> There:
    """Find what was named by the beginning of its id, or "data".

    Raises:
        UsageError: nothing, or several.
    """
    exact = [one for one in found if one.run_id == prefix]
    fitting = exact or [one for one in found if one.run_id.startswith(prefix)]
    if len(fitting) != 1:
        words = f"{len(fitting)} runs in {address} begin with" if fitting else f"nothing in {address} begins with"
        raise UsageError(f"{words} {prefix!r}", hint="gpurun store ls")
    return fitting[0]


def refuse_live(home: Home, store: Store, one: There, found: list[There], now: datetime) -> None:
    """Refuse to take files away from under what may live: a run of this home, another home's, a job of Hugging Face's.

    Raises:
        RefusedError: says until when.
        ProviderError: the store can't be read.
    """
    if one.until > now:
        words = f"a job of {one.run_id} may use them until {one.until:%Y-%m-%d %H:%M} UTC"
        raise RefusedError(words, hint=f"gpurun stop {one.run_id}; its files go when it is over")
    ours, home_id = _ours(home)
    for each in [one] if one.run_id != "data" else [each for each in found if each.named]:
        row = ours.get(each.run_id)
        if row is not None and not row.memory.is_done:
            words = f"{each.run_id} goes on and brings its results there"
            raise RefusedError(words, hint=f"gpurun stop {each.run_id}, then again")
        known = home_id if row is not None and not is_adopted(row) else ""
        ceiling = None if each.is_over or not each.named else _ceiling(store, each.run_id, known)
        if ceiling is not None and ceiling > now:
            words = f"{each.run_id} may go on in another home until {ceiling:%Y-%m-%d %H:%M} UTC"
            raise RefusedError(
                words, hint=f"gpurun stop {each.run_id} in the home that launched it, or wait until then"
            )


def is_adopted(row: RunRow) -> bool:
    """Say whether all that is known of a run is what lay in a store."""
    return row.memory.is_done and row.memory.evidence.startswith(ADOPTED)


def _ours(home: Home) -> tuple[dict[str, RunRow], str]:
    """Give this home's runs, and its id; none before its first launch."""
    if not home.ledger.exists():
        return {}, ""
    ledger = Ledger(home.ledger)
    try:
        return {row.run_id: row for row in ledger.runs()}, ledger.home_id
    finally:
        ledger.close()


def _ceiling(store: Store, run_id: str, over_in: str) -> datetime | None:
    """Say when a run ends at the latest, by its run.json; None = that is gone, makes no sense, or is `over_in`'s."""
    try:
        facts = run_file.read(store, run_id)
    except IntegrityError:
        return None
    return None if facts is None or facts.home == over_in else utc(facts.ceiling)


def _monthly(address: Address, count: int) -> str:
    usd = address.monthly_usd(count)
    return "" if usd is None else money(usd)
