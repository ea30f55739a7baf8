"""`gpurun adopt --store`: runs that another home began, known again from what lies in their store.

    run.json + the last attempt's seals -> a run that is over in this ledger, its files in this home

Nothing is rented or ended for it. Whether its machine still bills is asked where its vendor's key is at hand; in any
case it ends at its ceiling.
"""

from __future__ import annotations

import json
import tarfile
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from orchestrator import stored
from orchestrator.facts import Memory
from orchestrator.follow import Follower
from orchestrator.home import write_aside
from orchestrator.jobs import JobFile
from orchestrator.ledger import Ledger
from orchestrator.records import RunRow
from orchestrator.store import BLOBS, open_store
from orchestrator.store_page import look, pick
from orchestrator.store_remote import StoreRemote
from orchestrator.words import ADOPTED, Reason, State
from providers.base import Blob, utc
from providers.errors import GpurunError, IntegrityError, UsageError
from providers.table import open_provider
from providers.wire import digest_of

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from orchestrator.home import Home, RunFolder
    from orchestrator.store import Address, Store
    from orchestrator.store_page import There


def adopt(home: Home, address: Address, named: str | None, now: datetime) -> list[str]:
    """Bring runs of a store into this home, all of them or the one that is named; gives their ids.

    Raises:
        UsageError: there is none, or it is known here.
        ProviderError: the store can't be read.
    """
    store = open_store(address)
    there = [one for one in look(address, store) if one.named]
    wanted = [pick(address, there, named)] if named else there
    if not wanted:
        raise UsageError(f"no run lies in {address}", hint="gpurun store ls")
    ledger = Ledger(home.ensure().ledger)
    try:
        known = {row.run_id for row in ledger.runs()}
        fresh = [one for one in wanted if one.run_id not in known]
        if named and not fresh:
            raise UsageError(f"{wanted[0].run_id} is known here already", hint=f"gpurun show {wanted[0].run_id}")
        for one in fresh:
            row = _brought(home, store, one, now)
            ledger.enter_ended(row, now, row.memory.evidence)
    finally:
        ledger.close()
    return [one.run_id for one in fresh]


def _brought(home: Home, store: Store, there: There, now: datetime) -> RunRow:
    """Bring a run's files home; gives what the ledger is to know of it."""
    address, folder = store.address, home.run(there.run_id)
    facts = json.loads(store.get(address.run(there.run_id, "run.json")) or b"{}")
    folder.path.mkdir(parents=True, exist_ok=True, mode=0o700)
    _bring_job(folder, store, facts["job"], there.run_id)
    attempt = max(there.attempts, default=1)
    for number in sorted(there.attempts):
        Follower(folder, number).pull(StoreRemote(address, there.run_id, number, store=store))
    status = StoreRemote(address, there.run_id, attempt, store=store).status()
    told = status.reason in set(Reason)
    words = status.detail if told else f"no result of it is in {address} (yet)"
    memory = Memory(
        state=State.DONE,
        attempt=attempt,
        reason=Reason(status.reason) if told else Reason.LOST,
        detail=words,
        collected=told,
        evidence=f"{ADOPTED} {address}: {_looked(home, facts, there.run_id, now)}",
    )
    kept = {**facts["plan"]["store"], "bucket": address.bucket, "prefix": address.prefix, "endpoint": address.endpoint}
    row = RunRow(
        run_id=there.run_id,
        template=facts["template"],
        provider=facts["provider"],
        created=facts["created"],
        deadline=facts["deadline"],
        ceiling=facts["ceiling"],
        grace_seconds=facts["grace_seconds"],
        max_attempts=attempt,
        max_cost=None if facts["max_cost"] is None else Decimal(facts["max_cost"]),
        worst=Decimal(0),
        plan={**facts["plan"], "store": kept, "folder": str(folder.path)},
        memory=memory,
    )
    if not stored.bring_result(row, folder):
        stored.bring_newest(replace(row, memory=replace(memory, attempt=attempt + 1)), folder)
    return row


def _looked(home: Home, facts: dict[str, Any], run_id: str, now: datetime) -> str:
    """Say whether machines of it still bill, on the vendor's word; what can't be asked is not known."""
    ends = f"it ends by {utc(facts['ceiling']):%Y-%m-%d %H:%M} UTC at the latest"
    try:
        listed = open_provider(facts["provider"], home.root).allocations()
    except GpurunError as error:
        return f"whether it still bills was not asked ({error}); {ends}"
    of_it = [one for one in listed if one.mark and (one.mark.home, one.mark.run_id) == (facts["home"], run_id)]
    billing = [one.id for one in of_it if one.billing]
    if billing:
        return f"IT STILL BILLS as {', '.join(billing)}; {ends}; gpurun sweep"
    return f"none of it is listed at {facts['provider']} (as of {now:%Y-%m-%d %H:%M} UTC)"


def _bring_job(folder: RunFolder, store: Store, job: dict[str, Any], run_id: str) -> None:
    """Bring the bundle and what is there of the data, so that the run can go on from here."""
    _bring(store, store.address.run(run_id, "bundle.tar.gz"), folder.bundle)
    with tarfile.open(folder.bundle) as bundle:
        config = bundle.extractfile("config.json")
        if config is not None:
            write_aside(folder.config, config.read())
    blobs = []
    for digest, size, name in job["blobs"]:
        path = folder.path / "data" / digest
        if store.size(store.address.key(BLOBS, digest)) == size:
            _bring(store, store.address.key(BLOBS, digest), path)
            if digest_of(path) != digest:
                raise IntegrityError(f"{name!r} in {store.address} is not what its name says")
        blobs.append(Blob(digest, size, path, name))
    JobFile(
        command=tuple(job["command"]),
        blobs=tuple(blobs),
        max_idle_seconds=job["max_idle_seconds"],
        secrets=tuple(job["secrets"]),
        setup=tuple(job["setup"]),
        gpus=job["gpus"],
    ).write(folder)


def _bring(store: Store, key: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.part")
    with aside.open("wb") as file:
        for block in store.stream(key):
            file.write(block)
    aside.replace(path)
