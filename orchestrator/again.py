"""`gpurun resume` of a run that is over: planned anew, from its newest whole checkpoint, on this vendor or another.

    ledger row + offers -> Again(plan) -> shown and asked -> go(): the same run, its next attempt, the same curve

Its settings, its data and its bundle stay what they were; only where it runs and its limits are new.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from orchestrator import elsewhere, origins, settings_file, stored, wish
from orchestrator import plan as planning
from orchestrator.caps import committed
from orchestrator.cloud import of_cloud
from orchestrator.config import Limits
from orchestrator.cost import worst
from orchestrator.facts import Memory
from orchestrator.jobs import JobFile, checkpoint_step, newest_checkpoint
from orchestrator.launch import HERE, SETUP, Leave
from orchestrator.ledger import Ledger
from orchestrator.processes import spawn_controller
from orchestrator.store import as_json, from_json, open_store
from orchestrator.words import Reason
from providers.errors import UsageError

if TYPE_CHECKING:
    from orchestrator.home import Home
    from orchestrator.records import RunRow
    from providers.base import Provider


@dataclass(frozen=True, slots=True)
class Wanted:
    """What was typed."""

    provider: str | None = None
    gpu: tuple[str, ...] = ()
    max_hours: float | None = None
    max_cost: Decimal | None = None
    accept_risk: bool = False
    key_on_machine: bool = False


@dataclass(frozen=True, slots=True)
class Again:
    """A plan to show, and the means to go through with it."""

    home: Home
    row: RunRow
    job: JobFile
    step: int  # of the checkpoint that it carries on from; -1 = there is none
    monthly_cap: Decimal

    @property
    def plan(self) -> dict[str, Any]:
        """Give what is shown."""
        whence = (
            f"step {self.step}" if self.step >= 0 else "the beginning: no checkpoint of it is whole, here or stored"
        )
        return {**self.row.plan, "remarks": [["resumes", f"attempt {self.row.memory.attempt}, from {whence}"]]}

    def go(self) -> str:
        """Open the run again and start its controller; gives its id.

        Raises:
            RefusedError: the monthly cap.
        """
        folder, ledger = self.home.run(self.row.run_id), Ledger(self.home.ledger)
        try:
            self.job.write(folder)
            stored.keep_run(self.row, folder, ledger.home_id)  # who looks from elsewhere finds that it is ours now
            ledger.reopen(self.row, datetime.now(UTC), monthly_cap=self.monthly_cap)
        finally:
            ledger.close()
        for path in (folder.result, folder.path / "summary.json", folder.status):
            path.unlink(missing_ok=True)
        spawn_controller(self.home, self.row.run_id)
        return self.row.run_id


def is_open_to(run: RunRow) -> bool:
    """Say whether a run that is over has something to go on with."""
    return run.memory.is_done and run.memory.reason is not Reason.COMPLETED and not run.plan.get("adopted")


def prepare(home: Home, run_id: str, wanted: Wanted, now: datetime) -> Again:
    """Plan the next attempt of a run that is over. `now` is by our clock.

    Raises:
        UsageError: it is not over, or completed.
        JobGoneError: what it ships is no longer here.
        GpurunError: as a launch.
    """
    from providers.table import open_provider

    defaults = settings_file.load(home.root / settings_file.NAME)
    ledger = Ledger(home.ledger)
    try:
        row = ledger.run(run_id)
        if not is_open_to(row):
            words = f"it is {row.memory.reason or row.memory.state}"
            raise UsageError(f"{run_id} can't be carried on elsewhere: {words}", hint=f"gpurun show {run_id}")
        others = _refuse_elsewhere(home, row, ledger.home_id, now)
        row = replace(row, plan={**row.plan, "origins": others}) if others else row
        folder = home.run(run_id)
        provider = open_provider(wanted.provider or row.provider, home.root)
        address = str(defaults.get("guard-elsewhere", ""))
        leave = Leave(
            key_on_machine=wanted.key_on_machine,
            key_by_default=defaults.get("key-on-machine") == "yes" or bool(row.plan.get("key_on_machine")),
            monthly_cap=wish.monthly_cap(defaults),
            guards=lambda provider, now: elsewhere.holders(home, address, provider, now),
        )
        row = _with_store(row, provider.name)
        fresh = replace(row, memory=Memory(attempt=row.memory.attempt + 1))
        stored.bring_newest(fresh, folder)
        job = JobFile.read(folder)
        found = _planned(home, ledger, fresh, job, provider, wanted, leave, now)
    finally:
        ledger.close()
    step = newest_checkpoint(folder.checkpoints)
    offers = found.plan["offer"]["gpu_count"]
    job = replace(job, gpus=offers, setup=_setup(job, provider))
    return Again(home, found, job, -1 if step is None else checkpoint_step(step), leave.monthly_cap)


def _refuse_elsewhere(home: Home, row: RunRow, home_id: str, now: datetime) -> list[dict[str, Any]]:
    """Refuse while another home's machine of it may bill, or where it completed there; gives who launched it.

    Raises:
        RefusedError, UsageError: as said.
        ProviderError: the store can't be read.
    """
    from providers.table import open_provider

    origins.refuse(row, home_id, now, lambda name: open_provider(name, home.root))
    others = origins.of(row, home_id)
    there = stored.remote(row, stored.last_attempt(row)) if others else None
    if there is not None and there.status().reason == Reason.COMPLETED:
        where, name = from_json(row.plan["store"])[0], row.run_id
        server = f" --s3-endpoint {where.endpoint}" if where.endpoint else ""
        hint = f"gpurun adopt {name} --store {where}{server}, then gpurun pull {name}"
        raise UsageError(f"{name} completed in another home", hint=hint)
    return origins.as_json(others)


def _with_store(row: RunRow, provider: str) -> RunRow:
    """Try its store anew before money moves: keys and what a store can do change; tells what was found.

    Raises:
        ProviderError, RefusedError, UsageError: it does not serve (there).
    """
    kept = row.plan.get("store")
    if not kept:
        return replace(row, plan={**row.plan, "checked": []})
    checked = stored.admit(kept, provider)
    address = from_json(kept)[0]
    store = as_json(address, open_store(address).try_out())
    return replace(row, plan={**row.plan, "store": store, "checked": list(checked)})


def _setup(job: JobFile, provider: Provider) -> tuple[str, ...]:
    """Say how the environment is made there; a setup of the user's own stays."""
    if job.setup not in {(), SETUP}:
        return job.setup
    return SETUP if provider.traits.makes_setup and "payload/idle.py" not in job.command else ()


def _planned(
    home: Home,
    ledger: Ledger,
    row: RunRow,
    job: JobFile,
    provider: Provider,
    wanted: Wanted,
    leave: Leave,
    now: datetime,
) -> RunRow:
    old, step = row.plan, provider.traits.billing_step_seconds
    begin = (now + provider.skew).replace(microsecond=0)
    limits = _limits(old, wanted)
    gpu = wanted.gpu or (tuple(old.get("gpu") or ()) if provider.name == row.provider else ())
    cloud = str(old["offer"].get("cloud") or "") if provider.name == row.provider else ""
    offers = planning.choose(of_cloud(provider.offers(), cloud), gpu)
    dearest = max(one.price for one in offers)
    times = planning.times(
        limits,
        dearest,
        begin,
        step_seconds=step,
        poll_seconds=provider.traits.poll_seconds,
        queue_seconds=provider.traits.queue_seconds,
        most_hours=offers[0].most_hours,
    )
    spent = row.accrued(now.timestamp()).high
    most = worst(dearest, (times.ceiling - begin).total_seconds() - provider.traits.queue_seconds, step, times.attempts)
    row = _moved(row, provider, times, most, spent)
    made = replace(job, gpus=offers[0].gpu_count).job(row, home.run(row.run_id), ledger.home_id, {})
    key = leave.key_for(provider)
    theirs = provider.holders(replace(made, key_on_machine=key), offers[0])
    holders = (*theirs, *(leave.guards(provider, now) if dearest else ()), HERE)
    risk = wanted.accept_risk or bool(old.get("accept_risk"))
    planning.refuse_sole_holder(holders, dearest, accept_risk=risk, key_helps=provider.traits.key_on_machine)
    plan = planning.Plan(
        *(row.run_id, row.template, str(old.get("work", "")), offers[0], tuple(offers), gpu, provider.account(), times),
        planning.Quote(None, None, most, None, "what is left of it was not estimated: the limits are the estimate"),
        holders,
        data=(),
        bundle_bytes=0,
        left_out=(),
        folder=str(home.run(row.run_id).path),
        launched=begin,
        accept_risk=risk,
        key_on_machine=key,
        take_substitute=bool(old.get("take_substitute")),
        month=planning.Month(leave.monthly_cap, *committed(ledger.runs(), now)) if dearest else None,
    ).as_json()
    kept: dict[str, Any] = {
        name: old[name] for name in ("data", "bundle_bytes", "left_out", "store", "template", "checked") if name in old
    }
    return replace(row, plan={**old, **plan, **kept})


def _moved(row: RunRow, provider: Provider, times: planning.Times, most: Decimal, spent: Decimal) -> RunRow:
    """Give a run its new vendor and limits; what it cost so far, USD, comes on top."""
    return replace(
        row,
        provider=provider.name,
        deadline=times.deadline.timestamp(),
        ceiling=times.ceiling.timestamp(),
        grace_seconds=times.grace_seconds,
        max_attempts=row.memory.attempt + times.attempts - 1,
        max_cost=None if times.max_cost is None else times.max_cost + spent,
        worst=most + spent,
        skew=provider.skew.total_seconds(),
        wish=None,
    )


def _limits(old: dict[str, Any], wanted: Wanted) -> Limits:
    """Take the limits as they were, from now on, but for what was typed."""
    times = old["times"]
    begin, deadline, ceiling = (
        datetime.fromisoformat(text) for text in (old["launched"], times["deadline"], times["ceiling"])
    )
    hours = wanted.max_hours or max((deadline - begin) / timedelta(hours=1), 0.01)
    budget = wanted.max_cost or (Decimal(times["max_cost"]) if times.get("max_cost") else None)
    return Limits(
        max_hours=hours,
        extendable_to_hours=None if wanted.max_hours else max((ceiling - begin) / timedelta(hours=1), hours),
        max_cost=budget,
        max_attempts=max(int(times.get("attempts") or 1), 1),
    )
