"""From the user's wish to a run in the ledger: pack, plan, admit. Nothing is rented here.

Wish -> prepare() -> Prepared(plan) -> shown and asked -> commit() -> a background controller rents and runs it
"""

from __future__ import annotations

import json
import secrets
import shutil
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import timedelta
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from orchestrator import plan as planning
from orchestrator.bundle import blobs, pack
from orchestrator.cost import worst
from orchestrator.facts import Memory
from orchestrator.home import write_json
from orchestrator.jobs import JobFile
from orchestrator.records import RunRow
from providers.base import Holder, Place, Proof

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime
    from decimal import Decimal

    from orchestrator.home import Home
    from orchestrator.ledger import Ledger
    from orchestrator.plan import Plan
    from orchestrator.templates import Template
    from providers.base import Blob, Offer, Provider


SETUP = ("bash", "payload/setup.sh")
_HERE = Holder(
    "the controller", Place.HERE, Proof.PROVEN, extendable=True, evidence="runs while this computer is awake"
)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A run that is packed and planned; the ledger does not know it yet."""

    plan: Plan
    row: RunRow
    home: Home
    planned: datetime  # by our clock

    def discard(self) -> None:
        """Throw the packed run away: a dry run, a "no", a refusal."""
        shutil.rmtree(self.home.run(self.row.run_id).path, ignore_errors=True)


def prepare(
    home: Home,
    ledger: Ledger,
    provider: Provider,
    template: Template,
    gpu: str | None,
    now: datetime,
    *,
    wait_seconds: float = 0.0,
    trust_on_first_use: bool = False,
) -> Prepared:
    """Pack the job and plan it. `now` is by our clock; the plan's times are by the vendor's.

    Raises:
        RefusedError: no offer fits, or the limits leave no time.
        BundleError: code or data can't be shipped.
        ProviderError: the offers can't be read.
    """
    settings, planned = template.settings, now
    offers = planning.choose(provider.offers(), gpu, waiting=wait_seconds > 0)
    now = (now + provider.skew).replace(microsecond=0)  # a mark tells whole seconds
    offer, dearest = offers[0], max(offers, key=lambda one: one.price)
    times = planning.times(settings.limits, dearest.price, now, saves=not template.bare)
    run_id = new_run_id(settings.name, now)
    folder = home.run(run_id)
    folder.path.mkdir(parents=True, mode=0o700)
    with ExitStack() as undo:
        undo.callback(shutil.rmtree, folder.path, ignore_errors=True)
        data = blobs([(file.path, file.name) for file in template.files], home.root / "hashes.json")
        bundle = pack(folder.bundle, template.config, template.code)
        write_json(folder.config, template.config)
        job_file = _job_file(template, data, offer.gpu_count, bare=template.bare or not provider.traits.ssh)
        job_file.write(folder)
        row = _row(run_id, template, dearest, times, provider, now)
        holders = (*provider.holders(job_file.job(row, folder, ledger.home_id, {}), offer), _HERE)
        planning.refuse_sole_holder(holders, offer.price, accept_risk=settings.limits.accept_risk)
        work = work_of(template.config, data)
        plan = planning.Plan(
            *(run_id, settings.name, work, offer, tuple(offers), gpu, provider.account(), times),
            quote=planning.quote(
                offer,
                dearest.price,
                (times.ceiling - now).total_seconds(),
                provider.traits.billing_step_seconds,
                seconds_of_same_runs(ledger, work, offer),
                settings.name,
            ),
            holders=holders,
            data=tuple((blob.name, blob.size, blob.sha256) for blob in data),
            bundle_bytes=bundle.size,
            left_out=bundle.left_out,
            folder=str(folder.path),
            launched=now,
            wait_seconds=wait_seconds,
            trust_on_first_use=trust_on_first_use,
        )
        undo.pop_all()
    return Prepared(plan, replace(row, plan=plan.as_json(), worst=plan.quote.worst), home, planned)


def _job_file(template: Template, data: tuple[Blob, ...], gpus: int, *, bare: bool) -> JobFile:
    """Say what the run's every attempt does; `bare` = no environment is made for it."""
    return JobFile(
        command=template.command,
        blobs=data,
        max_idle_seconds=max(int(template.settings.limits.max_idle_minutes * 60), 1),
        secrets=tuple(template.settings.secrets),
        setup=() if bare else SETUP,
        gpus=gpus,
    )


def commit(prepared: Prepared, ledger: Ledger, now: datetime, monthly_cap: Decimal | None = None) -> str:
    """Enter the run into the ledger: from here on every next command carries it to its end.

    The limits were planned from the moment of planning; thinking about the question shortens nothing.

    Raises:
        RefusedError: the monthly cap; nothing was entered.
    """
    waited = int(max((now - prepared.planned), timedelta(0)).total_seconds())
    row = replace(
        prepared.row,
        created=prepared.row.created + waited,
        deadline=prepared.row.deadline + waited,
        ceiling=prepared.row.ceiling + waited,
    )
    ledger.admit(row, now, monthly_cap=monthly_cap)
    return row.run_id


def new_run_id(name: str, now: datetime) -> str:
    """`<template slug>-<yymmdd>-<6 hex>`."""
    return f"{name[:24].strip('-')}-{now:%y%m%d}-{secrets.token_hex(3)}"


def work_of(config: dict[str, Any], data: Iterable[Blob]) -> str:
    """Name what a run does: the same settings on the same data have the same name."""
    facts = [config, [(blob.name, blob.sha256) for blob in data]]
    return sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def seconds_of_same_runs(ledger: Ledger, work: str, offer: Offer) -> list[float]:
    """Times for which this home's finished runs of the same work on the same offer billed, seconds."""
    return [
        sum(spell.ended - spell.start_low for spell in row.spells if spell.ended is not None)
        for row in ledger.runs()
        if row.spells
        and row.memory.reason == "completed"
        and row.plan.get("work") == work
        and (row.provider, row.plan["offer"]["name"]) == (offer.provider, offer.name)
    ]


def _row(
    run_id: str, template: Template, offer: Offer, times: planning.Times, provider: Provider, now: datetime
) -> RunRow:
    return RunRow(
        run_id=run_id,
        template=template.settings.name,
        provider=provider.name,
        created=now.timestamp(),
        deadline=times.deadline.timestamp(),
        ceiling=times.ceiling.timestamp(),
        grace_seconds=times.grace_seconds,
        max_attempts=template.settings.limits.max_attempts,
        max_cost=template.settings.limits.max_cost,
        worst=worst(offer.price, (times.ceiling - now).total_seconds(), provider.traits.billing_step_seconds),
        plan={},
        memory=Memory(),
        skew=provider.skew.total_seconds(),
    )
