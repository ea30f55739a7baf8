"""`gpurun adopt --store`: runs that another home began, known again from what lies in their store.

    run.json + the last attempt's seals -> a run that is over in this ledger, its files in this home

Nothing is rented or ended for it. Whether its machine still bills is asked where its vendor's key is at hand; in any
case it ends at its ceiling.
"""

from __future__ import annotations

import tarfile
import zlib
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import TYPE_CHECKING

from orchestrator import origins, run_file, stored
from orchestrator.facts import Memory
from orchestrator.follow import Follower
from orchestrator.home import write_aside
from orchestrator.jobs import JobFile
from orchestrator.ledger import Ledger
from orchestrator.records import RunRow
from orchestrator.store import BLOBS, Ability, open_store
from orchestrator.store import as_json as kept_of
from orchestrator.store_page import is_adopted, look, pick
from orchestrator.store_remote import StoreRemote
from orchestrator.words import ADOPTED, Reason, State
from providers.base import Blob
from providers.errors import GpurunError, IntegrityError, UsageError
from providers.table import open_provider
from providers.wire import digest_of

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from orchestrator.home import Home, RunFolder
    from orchestrator.run_file import JobFacts, RunFile
    from orchestrator.store import Address, Store
    from orchestrator.store_page import There


@dataclass(frozen=True, slots=True)
class Known:
    """What became of one run of the store's."""

    run_id: str
    text: str = ""  # whether it bills, on whose word
    may_bill: bool = False
    ids: tuple[str, ...] = ()  # what its vendor lists of it as billing
    wrong: str = ""  # why it could not be brought home


def adopt(home: Home, address: Address, named: str | None, now: datetime) -> list[Known]:
    """Bring runs of a store into this home, all of them or the one that is named; what is known is not brought again.

    A run that was adopted before and not carried on since is looked at again.

    Raises:
        UsageError: there is none, or this home launched it itself.
        ProviderError: the store can't be read, or the one that is named makes no sense.
    """
    store = open_store(address)
    there = [one for one in look(address, store) if one.named]
    wanted = [pick(address, there, named)] if named else there
    if not wanted:
        raise UsageError(f"no run lies in {address}", hint="gpurun store ls")
    ledger = Ledger(home.ensure().ledger)
    try:
        ours = {row.run_id for row in ledger.runs() if not is_adopted(row)}
        fresh = [one for one in wanted if one.run_id not in ours]
        if named and not fresh:
            raise UsageError(f"{wanted[0].run_id} is known here already", hint=f"gpurun show {wanted[0].run_id}")
        return [_adopted(home, ledger, store, one, now, alone=bool(named)) for one in fresh]
    finally:
        ledger.close()


def told(one: Known) -> str:
    """Say it to a person, with what to type next."""
    if one.wrong:
        return f"{one.run_id} is left out: {one.wrong}"
    if not one.may_bill:
        return f"{one.run_id} is here: gpurun show {one.run_id}, gpurun pull {one.run_id}"
    end = f"gpurun stop {one.run_id} in the home that launched it; what bills now: gpurun sweep"
    return f"{one.run_id} is here, and {one.text}\n  end it: {end}"


def as_json(home: Home, one: Known) -> dict[str, object]:
    """Spell it for programs."""
    return {
        "run_id": one.run_id,
        "adopted": not one.wrong,
        "may_bill": one.may_bill if not one.wrong else None,
        "allocations": list(one.ids),
        "evidence": one.wrong or one.text,
        "folder": None if one.wrong else str(home.run(one.run_id).path),
    }


def _adopted(home: Home, ledger: Ledger, store: Store, there: There, now: datetime, *, alone: bool) -> Known:
    """Enter one; what is wrong with it keeps none of the others away, unless it was asked for `alone`."""
    try:
        facts = run_file.read(store, there.run_id)
        if facts is None:
            raise IntegrityError(f"run.json of {there.run_id} is gone from {store.address}")
        row = _brought(home, store, there, facts)
    except GpurunError as error:
        if alone:
            raise
        return Known(there.run_id, wrong=str(error))
    words = [
        origins.ask(one, there.run_id, now, lambda name: open_provider(name, home.root))
        for one in origins.named_in(facts)
        if one.home != ledger.home_id
    ]
    may_bill, text = any(word.may_bill for word in words), "; ".join(word.text for word in words)
    evidence = f"{ADOPTED} {store.address}: {text or 'this home launched it'}"
    ledger.enter_ended(replace(row, memory=replace(row.memory, evidence=evidence)), now, evidence)
    return Known(there.run_id, text, may_bill, tuple(one for word in words for one in word.ids))


def _brought(home: Home, store: Store, there: There, facts: RunFile) -> RunRow:
    """Bring a run's files home; gives what the ledger is to know of it."""
    address, folder = store.address, home.run(there.run_id)
    folder.path.mkdir(parents=True, exist_ok=True, mode=0o700)
    _bring_job(folder, store, facts.job, there.run_id)
    attempt = max(there.attempts, default=1)
    for number in sorted(there.attempts):
        Follower(folder, number).pull(StoreRemote(address, there.run_id, number, store=store))
    status = StoreRemote(address, there.run_id, attempt, store=store).status()
    told = status.reason in set(Reason)
    memory = Memory(
        state=State.DONE,
        attempt=attempt,
        reason=Reason(status.reason) if told else Reason.LOST,
        detail=status.detail if told else f"no result of it is in {address} (yet)",
        collected=told,
    )
    able = facts.plan["store"]  # as its home saw it; `resume` tries it anew
    ability = Ability(policies=bool(able.get("policies")), checksums=bool(able.get("checksums")))
    others = origins.as_json(origins.named_in(facts))
    row = RunRow(
        run_id=there.run_id,
        template=facts.template,
        provider=facts.provider,
        created=facts.created,
        deadline=facts.deadline,
        ceiling=facts.ceiling,
        grace_seconds=facts.grace_seconds,
        max_attempts=attempt,
        max_cost=facts.max_cost,
        worst=Decimal(0),
        plan={**facts.plan, "store": kept_of(address, ability), "origins": others, "folder": str(folder.path)},
        memory=memory,
    )
    if not stored.bring_result(row, folder):
        stored.bring_newest(replace(row, memory=replace(memory, attempt=attempt + 1)), folder)
    return row


def _bring_job(folder: RunFolder, store: Store, job: JobFacts, run_id: str) -> None:
    """Bring the bundle and what is there of the data, so that the run can go on from here."""
    _bring(store, store.address.run(run_id, "bundle.tar.gz"), folder.bundle)
    try:
        with tarfile.open(folder.bundle) as bundle:
            config = bundle.extractfile("config.json")
            if config is not None:
                write_aside(folder.config, config.read())
    except (tarfile.TarError, KeyError, EOFError, zlib.error) as error:
        raise IntegrityError(f"the bundle of {run_id} in {store.address} is none: {error}") from error
    blobs = []
    for digest, size, name in job.blobs:
        path = folder.path / "data" / digest
        if store.size(store.address.key(BLOBS, digest)) == size:
            _bring(store, store.address.key(BLOBS, digest), path)
            if digest_of(path) != digest:
                raise IntegrityError(f"{name!r} in {store.address} is not what its name says")
        blobs.append(Blob(digest, size, path, name))
    JobFile(
        command=job.command,
        blobs=tuple(blobs),
        max_idle_seconds=job.max_idle_seconds,
        secrets=job.secrets,
        setup=job.setup,
        gpus=job.gpus,
    ).write(folder)


def _bring(store: Store, key: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.part")
    with aside.open("wb") as file:
        for block in store.stream(key):
            file.write(block)
    aside.replace(path)
