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

from orchestrator import data_preview, quoting
from orchestrator import plan as planning
from orchestrator.bundle import blobs, pack
from orchestrator.caps import check_cap, committed
from orchestrator.cloud import asked_for
from orchestrator.cost import Bounds
from orchestrator.estimate.compare import Known
from orchestrator.estimate.learnt import Past
from orchestrator.facts import Memory
from orchestrator.home import write_json
from orchestrator.jobs import JobFile
from orchestrator.records import RunRow
from providers.base import Holder, Place, Proof
from providers.errors import UsageError
from providers.optional import Remarks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from datetime import datetime
    from decimal import Decimal

    from orchestrator.config import Limits
    from orchestrator.home import Home
    from orchestrator.ledger import Ledger
    from orchestrator.plan import Plan
    from orchestrator.templates import Template
    from providers.base import Blob, Offer, Provider
    from providers.errors import RefusedError


SETUP = ("bash", "payload/setup.sh")
HERE = Holder("the controller", Place.HERE, Proof.PROVEN, extendable=True, evidence="runs while this computer is awake")


@dataclass(frozen=True, slots=True)
class Leave:
    """What the user allows, beside the limits of the template, and who else watches."""

    wait_seconds: float = 0.0  # for capacity
    trust_on_first_use: bool = False
    cloud: str = ""  # of a vendor that has several: "community" = on strangers' machines
    free_tier: bool = False  # one may be taken where there is nothing to pay with
    substitute: bool = False  # another GPU than was asked for will do, where a vendor gives one
    key_on_machine: bool = False  # the account's key may go to the machine: asked for in so many words
    key_by_default: bool = False  # the same as a default: where the vendor has a use for it
    remarks: tuple[tuple[str, str], ...] = ()  # more of the plan's lines
    monthly_cap: Decimal = planning.CAP
    probe_steps: int = 0  # judged by so many steps on the machine, it goes on or stops there; 0 = not judged
    force: bool = False  # launch what does not fit, or can't be quoted
    alone: bool = False  # plan although this computer alone can stop the meter: to be shown, and refused then
    guards: Callable[[Provider, datetime], Sequence[Holder]] = lambda _provider, _now: ()
    # What can be found wrong before any money moves, of the worst case and the dearest price an hour; gives what was
    # found in order, in words for the plan.
    preflight: Callable[[Provider, Template, Decimal, Decimal], Sequence[str]] = lambda *_: ()

    def key_for(self, provider: Provider) -> bool:
        """Say whether the key goes to a machine of this vendor.

        Raises:
            UsageError: it was asked for, and the vendor has no use for it.
        """
        if provider.traits.key_on_machine:
            return self.key_on_machine or self.key_by_default
        if self.key_on_machine:
            raise UsageError(
                f"--key-on-machine has no use on {provider.name}: what it rents ends without the account's key,"
                " which would only be at risk there",
                hint="drop --key-on-machine",
            )
        return False


@dataclass(frozen=True, slots=True)
class Prepared:
    """A run that is packed and planned; the ledger does not know it yet."""

    plan: Plan
    row: RunRow
    home: Home
    planned: datetime  # by our clock
    monthly_cap: Decimal
    refused: RefusedError | None = None  # it is planned to be shown, and may not be launched

    def check(self, ledger: Ledger) -> None:
        """Refuse what may not be launched as it is planned; asked before the question, and again by `commit`.

        Raises:
            RefusedError: this computer alone could stop the meter, or the monthly cap.
        """
        if self.refused is not None:
            raise self.refused
        check_cap(ledger.runs(), self.row.run_id, self.row.worst, self.planned, self.monthly_cap)

    def discard(self) -> None:
        """Throw the packed run away: a dry run, a "no", a refusal."""
        shutil.rmtree(self.home.run(self.row.run_id).path, ignore_errors=True)


def prepare(
    home: Home,
    ledger: Ledger,
    provider: Provider,
    template: Template,
    gpu: planning.Gpus,
    now: datetime,
    leave: Leave = Leave(),
    chosen: quoting.Choice | None = None,
) -> Prepared:
    """Pack the job and plan it. `now` is by our clock; the plan's times are by the vendor's.

    `chosen` = what `choice` gave a moment ago.

    Raises:
        RefusedError: no offer fits, the limits leave no time, or only this computer could stop the meter.
        UsageError: the vendor has no use for the key; the model or the data can't be used.
        BundleError: code or data can't be shipped.
        ProviderError: the offers can't be read.
    """
    settings, planned, limits = template.settings, now, template.settings.limits
    key, data = leave.key_for(provider), _data(home, template)
    made = chosen or choice(home, ledger, provider, template, gpu, now, leave)
    offers, quote, offer = made.offers, made.quote, made.offers[0]
    now = (now + provider.skew).replace(microsecond=0)  # a mark tells whole seconds
    dearest = max(offers, key=lambda one: one.price)
    times = _times(limits, dearest, provider, now, saves=not template.bare)
    checked = tuple(leave.preflight(provider, template, quote.worst, dearest.price))
    folder = home.run(run_id := new_run_id(settings.name, now))
    folder.path.mkdir(parents=True, mode=0o700)
    with ExitStack() as undo:
        undo.callback(shutil.rmtree, folder.path, ignore_errors=True)
        bundle = pack(folder.bundle, template.config, template.code)
        write_json(folder.config, template.config)
        job_file = _job_file(template, data, offer.gpu_count, bare=template.bare or not provider.traits.makes_setup)
        job_file.write(folder)
        row = _row(run_id, template, times, quote, provider, now, {"key_on_machine": key})
        theirs = provider.holders(job_file.job(row, folder, ledger.home_id, {}), offer)
        holders, refused = _held(provider, theirs, dearest, limits, planned, leave)
        plan = planning.Plan(
            *(run_id, settings.name, made.work, offer, offers, _typed(gpu), provider.account(), times, quote, holders),
            data=tuple((blob.name, blob.size, blob.sha256) for blob in data),
            bundle_bytes=bundle.size,
            left_out=bundle.left_out,
            folder=str(folder.path),
            launched=now,
            wait_seconds=leave.wait_seconds,
            trust_on_first_use=leave.trust_on_first_use,
            accept_risk=limits.accept_risk,
            key_on_machine=key,
            take_substitute=leave.substitute,
            remarks=(*_remarks(provider, job_file, offer), *_seen(template, data), *leave.remarks),
            probe_steps=leave.probe_steps,
            month=planning.Month(leave.monthly_cap, *committed(ledger.runs(), planned)) if dearest.price else None,
            why=made.why,
            kinds=made.kinds,
            checked=checked,
        )
        undo.pop_all()
    return Prepared(plan, replace(row, plan=plan.as_json()), home, planned, leave.monthly_cap, refused)


def _held(
    provider: Provider, theirs: Sequence[Holder], dearest: Offer, limits: Limits, planned: datetime, leave: Leave
) -> tuple[tuple[Holder, ...], RefusedError | None]:
    """Name who can stop the meter, and refuse where that is this computer alone; `alone` keeps it for later."""
    holders = (*theirs, *(leave.guards(provider, planned) if dearest.price else ()), HERE)
    helps = provider.traits.key_on_machine
    try:
        planning.refuse_sole_holder(holders, dearest.price, accept_risk=limits.accept_risk, key_helps=helps)
    except planning.SoleHolderError as error:
        if leave.alone:
            return holders, error
        raise
    return holders, None


def choice(
    home: Home,
    ledger: Ledger,
    provider: Provider,
    template: Template,
    gpu: planning.Gpus,
    now: datetime,
    leave: Leave,
) -> quoting.Choice:
    """Quote the job on what a vendor has, and choose; nothing is packed yet.

    Raises:
        RefusedError, UsageError, ProviderError: as `prepare`.
    """
    asked, notes = quoting.question(template, force=leave.force)
    work = work_of(template.config, _data(home, template))
    known = Known(Bounds.of(template.settings.limits), Past(ledger.measured()), work)
    wanted = quoting.Wanted(asked, notes, known, provider.traits.billing_step_seconds, now.date())
    offers = asked_for(provider.offers(), leave.cloud, free_tier=leave.free_tier)
    found = quoting.choose(offers, gpu, wanted, waiting=leave.wait_seconds > 0, force=leave.force)
    return replace(found, work=work)


def _data(home: Home, template: Template) -> tuple[Blob, ...]:
    found = blobs([(file.path, file.name) for file in template.files], home.root / "hashes.json")
    known = {file.name: file for file in template.files}
    return tuple(
        replace(blob, source=file.source, endpoint=file.endpoint) if (file := known.get(blob.name)) else blob
        for blob in found
    )


def _typed(gpu: planning.Gpus) -> tuple[str, ...]:
    return (gpu,) if isinstance(gpu, str) else tuple(gpu or ())


def _times(limits: Limits, dearest: Offer, provider: Provider, now: datetime, *, saves: bool) -> planning.Times:
    step, poll = provider.traits.billing_step_seconds, provider.traits.poll_seconds
    queue = provider.traits.queue_seconds
    return planning.times(
        limits,
        dearest.price,
        now,
        step_seconds=step,
        poll_seconds=poll,
        queue_seconds=queue,
        saves=saves,
        most_hours=dearest.most_hours,
    )


def _remarks(provider: Provider, job_file: JobFile, offer: Offer) -> Sequence[tuple[str, str]]:
    return provider.remarks(job_file.command, offer) if isinstance(provider, Remarks) else ()


def _seen(template: Template, data: Iterable[Blob]) -> tuple[tuple[str, str], ...]:
    return data_preview.remarks(template.files, {blob.name: blob.sha256 for blob in data})


def _job_file(template: Template, data: tuple[Blob, ...], gpus: int, *, bare: bool) -> JobFile:
    """Say what the run's every attempt does; `bare` = no environment is made for it."""
    return JobFile(
        command=template.command,
        blobs=data,
        max_idle_seconds=max(int(template.settings.limits.max_idle_minutes * 60), 1),
        secrets=tuple(template.settings.secrets),
        setup=template.setup or (() if bare else SETUP),
        gpus=gpus,
    )


def commit(prepared: Prepared, ledger: Ledger, now: datetime) -> str:
    """Enter the run into the ledger: from here on every next command carries it to its end.

    The limits were planned from the moment of planning; thinking about the question shortens nothing.

    Raises:
        RefusedError: the monthly cap, or nobody else can stop the meter; nothing was entered.
    """
    waited = int(max((now - prepared.planned), timedelta(0)).total_seconds())
    row = replace(
        prepared.row,
        created=prepared.row.created + waited,
        deadline=prepared.row.deadline + waited,
        ceiling=prepared.row.ceiling + waited,
    )
    if prepared.refused is not None:
        raise prepared.refused
    ledger.admit(row, now, monthly_cap=prepared.monthly_cap)
    return row.run_id


def new_run_id(name: str, now: datetime) -> str:
    """`<template slug>-<yymmdd>-<6 hex>`."""
    return f"{name[:24].strip('-')}-{now:%y%m%d}-{secrets.token_hex(3)}"


def work_of(config: dict[str, Any], data: Iterable[Blob]) -> str:
    """Name what a run does: the same settings on the same data have the same name."""
    facts = [config, [(blob.name, blob.sha256) for blob in data]]
    return sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def _row(
    run_id: str,
    template: Template,
    times: planning.Times,
    quote: planning.Quote,
    provider: Provider,
    now: datetime,
    plan: dict[str, Any],
) -> RunRow:
    return RunRow(
        run_id=run_id,
        template=template.settings.name,
        provider=provider.name,
        created=now.timestamp(),
        deadline=times.deadline.timestamp(),
        ceiling=times.ceiling.timestamp(),
        grace_seconds=times.grace_seconds,
        max_attempts=times.attempts,
        max_cost=times.max_cost,
        worst=quote.worst,
        plan=plan,
        memory=Memory(),
        skew=provider.skew.total_seconds(),
    )
