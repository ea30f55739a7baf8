"""A run and its store: what the controller does with it, and what it may conclude from what lies there.

    launch: keep_run (run.json, bundle, small data) · start: grant · gone: look, remote, bring_newest · end: tidy

A run without a store passes through all of this untouched, and no package is loaded for it.
"""

from __future__ import annotations

import json
import logging
import re
from dataclasses import asdict, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from orchestrator import stored_data
from orchestrator.collect import fetch
from orchestrator.home import write_json
from orchestrator.jobs import JobFile, checkpoint_step, newest_checkpoint
from orchestrator.store import HUB_SHAPE, as_json, from_json, open_store, parse
from orchestrator.store_remote import StoreRemote
from orchestrator.words import Reason, State
from providers.base import Manifest, Phase, Secret, utc
from providers.errors import GpurunError, IntegrityError, ProviderError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from orchestrator.facts import Seen
    from orchestrator.home import RunFolder
    from orchestrator.launch import Prepared
    from orchestrator.records import RunRow
    from orchestrator.store import Store
    from providers.base import RemoteStatus

log = logging.getLogger("gpurun.store")
SPARE = timedelta(hours=24)  # that a grant outlives the ceiling: an extension moves that
_REFUSED = re.compile(r"says (?:400|401|403)")  # payload/courier.py: by its word the leave is not, or no longer, good


# ── before the launch ───────────────────────────────────────────────────────────────────────────


def wanted(typed: str | None, endpoint: str | None, defaults: Mapping[str, object]) -> dict[str, Any] | None:
    """Find out what the store that is wanted can do, by trying it; gives what a plan keeps of it, None = none.

    Raises:
        UsageError: it is no address, or boto3 is not here.
        ProviderError: it can't be written, read or deleted.
    """
    text = typed if typed is not None else str(defaults.get("store") or "none")
    if text == "none":
        return None
    address = parse(text, endpoint if endpoint is not None else str(defaults.get("s3-endpoint") or ""))
    return as_json(address, open_store(address).try_out())


def with_store(prepared: Prepared, store: dict[str, Any] | None, *, typed: bool) -> Prepared:
    """Have a planned run bring its results into the store; `typed` = not a default.

    Raises:
        UsageError: this vendor's jobs have no use for it.
        CredentialsError, RefusedError: the token that a machine would get opens too little, or too much.
    """
    if store is None:
        return prepared
    try:
        checked = admit(store, prepared.row.provider)
    except UsageError:
        if not typed:
            return prepared
        prepared.discard()
        raise
    except GpurunError:
        prepared.discard()
        raise
    plan = replace(prepared.plan, store=store, checked=(*prepared.plan.checked, *checked))
    return replace(prepared, plan=plan, row=replace(prepared.row, plan=plan.as_json()))


def admit(store: Mapping[str, Any], provider: str) -> tuple[str, ...]:
    """Look whether what this vendor rents may write into the store; gives words for the plan.

    Raises:
        UsageError: its jobs have no use for such a store.
        CredentialsError, RefusedError: the token that a machine would get opens too little, or too much.
    """
    address = from_json(store)[0]
    if provider == "hf" and not address.is_hub:
        words = "a job of Hugging Face's keeps its results in a bucket of yours: a store in S3 has no use there"
        raise UsageError(words, hint=f"--store {HUB_SHAPE}, or none")
    if not address.is_hub:
        return ()
    from orchestrator import store_hub

    return store_hub.check_machine(address, provider)


def keep_run(row: RunRow, folder: RunFolder, home_id: str) -> None:
    """Write what the run is into its store: another home can show it and, with its small data, carry it on."""
    found = _of(row)
    if found is None:
        return
    store, job = found[0], JobFile.read(folder)
    facts = {
        "run_id": row.run_id,
        "home": home_id,
        "template": row.template,
        "provider": row.provider,
        "created": row.created,
        "deadline": row.deadline,
        "ceiling": row.ceiling,
        "grace_seconds": row.grace_seconds,
        "max_cost": None if row.max_cost is None else str(row.max_cost),
        "plan": row.plan,
        "job": {
            "command": list(job.command),
            "blobs": [[blob.sha256, blob.size, blob.name] for blob in job.blobs],
            "max_idle_seconds": job.max_idle_seconds,
            "secrets": list(job.secrets),
            "setup": list(job.setup),
            "gpus": job.gpus,
        },
    }
    store.upload(store.address.run(row.run_id, "bundle.tar.gz"), str(folder.bundle))
    stored_data.keep(store, job.blobs, row.provider)
    store.put(store.address.run(row.run_id, "run.json"), json.dumps(facts, indent=1).encode())


def sources(row: RunRow, job: JobFile) -> Secret | None:
    """Sign what the machine may fetch of its data by itself; None = nothing."""
    found = None if stored_data.goes_by_store(row.provider) is False else _of(row)
    return stored_data.sources(found[0] if found else None, job.blobs, row.provider)


def keep_data(row: RunRow, job: JobFile) -> None:
    """Bring the data of a run that goes on elsewhere into its store.

    Raises:
        ProviderError: the store does not take it.
    """
    found = _of(row)
    if found is not None:
        stored_data.keep(found[0], job.blobs, row.provider)


def grant(row: RunRow) -> Secret | None:
    """Sign the present attempt's leave to write; None = the run has no store."""
    found = _of(row)
    if found is None:
        return None
    store, kept = found
    until = utc(row.ceiling) + SPARE
    if store.address.is_hub:
        from orchestrator import store_hub

        return store_hub.leave(store.address, row.provider, row.run_id, row.memory.attempt, until)
    return store.grant(row.run_id, row.memory.attempt, until, from_json(kept)[1])


def tokens(leave: Secret | None) -> list[Secret]:
    """Give what a leave holds that must stand in no log."""
    hub = {} if leave is None else json.loads(leave.reveal()).get("hub") or {}
    return [Secret(hub["token"])] if "token" in hub else []


def is_leave_due(row: RunRow, said: RemoteStatus, now: datetime) -> bool:
    """Say whether the machine needs a fresh leave: half of the one it has is gone, or the store refuses it.

    A leave lives seven days at most, and a run may go on for longer, or be extended; a key may be changed under it.
    """
    kept, until = row.plan.get("store"), said.store_until
    if not kept or until is None or said.store in {"", "whole", "sent"} or row.provider == "hf":  # that has a mount
        return False
    refused = bool(_REFUSED.search(said.store_error)) and said.store_failing is not None
    wanted = min(utc(row.ceiling) + SPARE, now + from_json(kept)[1].life)
    return refused or (until - now) < (wanted - now) / 2


# ── what lies there ─────────────────────────────────────────────────────────────────────────────


def remote(row: RunRow, attempt: int = 0, *, go_on: Callable[[], None] | None = None) -> StoreRemote | None:
    """Read an attempt in the store as if it were its machine, the present one unless named; None = no store."""
    kept = row.plan.get("store")
    if not kept:
        return None
    return StoreRemote(from_json(kept)[0], row.run_id, attempt or row.memory.attempt, go_on=go_on)


def look(row: RunRow, seen: Seen, trouble: Callable[[str], None]) -> Seen:
    """Add what the store knows: whether all of the attempt is verified there, and its word where the machine is gone.

    Where the machine is gone and the store can't be asked, nothing was seen: its results may be there.
    """
    there = None if row.memory.state is State.TERMINATING and row.memory.collected else remote(row)
    state, observation = row.memory.state, seen.observation
    if there is None or observation is None or state not in {State.RUNNING, State.COLLECTING, State.TERMINATING}:
        return seen
    said = seen.remote
    if said is not None:
        seen = replace(seen, storing=said.phase is Phase.EXITED and said.store == "busy")
        if said.store != "whole":
            return seen
    elif observation.phase is not Phase.ABSENT and not (state is State.TERMINATING and not observation.billing):
        return seen
    try:
        if not there.is_whole():
            return seen
        return replace(seen, stored=True, remote=said or there.status())
    except ProviderError as error:
        trouble(f"{error} {error.hint or ''}".strip())
        if state is State.TERMINATING:
            return replace(seen, mute=not observation.billing)
        return replace(seen, observation=None) if said is None else seen


def last_attempt(row: RunRow) -> int:
    """Give the highest attempt that anything there is of, 0 = none: a ledger that was put back forgets some.

    Raises:
        ProviderError: the store can't be asked.
    """
    found = _of(row)
    if found is None:
        return 0
    store, _ = found
    base = store.address.run(row.run_id) + "/"
    numbers = (one.key[len(base) :].partition("/")[0] for one in store.kept(base))
    return max((int(number) for number in numbers if number.isdecimal()), default=0)


def bring_newest(row: RunRow, folder: RunFolder) -> None:
    """Bring the newest whole checkpoint of the earlier attempts home, unless home has it or a newer one.

    Raises:
        ProviderError: the store can't be asked.
    """
    if row.memory.attempt == 1 or not row.plan.get("store"):
        return
    home = newest_checkpoint(folder.checkpoints)
    step = -1 if home is None else checkpoint_step(home)
    for attempt in range(row.memory.attempt - 1, 0, -1):
        there = remote(row, attempt)
        if there is None or there.newest_step() <= step:
            continue
        prefix = f"checkpoints/step-{there.newest_step()}/"
        entries = tuple(one for one in there.manifest().entries if one.name.startswith(prefix))
        try:
            fetch(there, Manifest(entries, final=False), folder.path)
        except IntegrityError as error:  # an older one is better than none
            log.warning("%s of attempt %d: %s", prefix, attempt, error)
        else:
            step = there.newest_step()


def bring_result(row: RunRow, folder: RunFolder) -> bool:
    """Bring home what the last attempt with a result has in the store; False = there is none, or no store.

    Without one, or where it names no artifacts, what a script of the user's had left by then; `pull` finds it named in
    so_far.json.
    """
    left: list[tuple[StoreRemote, Manifest]] = []
    final = False
    for attempt in range(row.memory.attempt, 0, -1):
        there = remote(row, attempt)
        if there is None:
            return False
        manifest = there.manifest()
        named = tuple(one for one in manifest.entries if one.name.startswith("artifacts/"))
        if manifest.final and not final:
            fetch(there, manifest, folder.path)
            final = True
            if named:
                return True
        left += [(there, Manifest(named, final=False))] if named else []
    for there, manifest in left[:1]:
        fetch(there, manifest, folder.path)
        write_json(folder.so_far, {"artifacts": [asdict(entry) for entry in manifest.entries]})
    return final


def tidy(row: RunRow) -> None:
    """Delete what nobody needs any more: attempts that a later one makes up for, and parts that no seal names.

    What can't be deleted now costs little, and is told by `gpurun store ls`.
    """
    found = _of(row)
    if found is None:
        return
    store, _ = found
    try:
        doomed = superfluous(store, row)
        store.delete(doomed)
    except ProviderError as error:
        log.warning("tidy: %s", error)


def superfluous(store: Store, row: RunRow) -> list[str]:
    """Name the keys of a run that is over which no reader will ask for.

    Before a completed attempt that is whole there nobody needs any. Else an attempt stays as long as it has what no
    later one has: a newer checkpoint, files that a script left, artifacts.
    """
    doomed: list[str] = []
    step, kinds = -1, set[str]()  # of the attempts after the one looked at
    completed = later = False
    for attempt in range(row.memory.attempt, 0, -1):
        prefix = store.address.attempt(row.run_id, attempt)
        there = StoreRemote(store.address, row.run_id, attempt, store=store)
        keys = sorted((one.key for one in store.kept(prefix)), key=lambda key: not key.endswith(".json"))  # seals first
        newest, found = there.newest_step(), there.kinds()
        if completed or (later and newest <= step and found <= kinds):
            doomed += keys
            continue
        whole = there.is_whole()
        over = whole and attempt == row.memory.attempt and row.memory.reason is Reason.COMPLETED
        stale = over or newest <= step  # nobody carries on from its checkpoints
        named = {prefix + key for key in there.named(results_only=stale)}
        gone = {f"{prefix}CHECKPOINT.json"} if stale else set[str]()
        gone |= {f"{prefix}SOFAR.json"} if whole and "left" not in found else set()
        doomed += [key for key in keys if key in gone or (key.startswith(f"{prefix}parts/") and key not in named)]
        completed, later = over, later or whole or newest >= 0 or bool(found)
        step, kinds = max(step, newest), kinds | found
    return doomed


def _of(row: RunRow) -> tuple[Store, dict[str, Any]] | None:
    kept = row.plan.get("store")
    return (open_store(from_json(kept)[0]), kept) if kept else None
