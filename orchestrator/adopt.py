"""Put an instance that somebody started by hand under the meter: mark it, then hold it like any run of ours.

Not here: finding it and saying what would happen (adoption.py). Such a run has no byte plane: nothing on the machine
is touched, nothing is brought home; it is ended at its hour, or when `gpurun stop` asks for it.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from orchestrator.cost import Spell, worst
from orchestrator.facts import Memory
from orchestrator.launch import new_run_id
from orchestrator.plan import Plan, Quote, Times
from orchestrator.records import RunRow
from orchestrator.words import Launch, State
from providers.base import Holder, Mark, Offer, Place, Proof
from providers.errors import LedgerError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from decimal import Decimal

    from orchestrator.home import Home
    from orchestrator.ledger import Ledger
    from providers.base import Allocation, Provider
    from providers.optional import Adopts

TEMPLATE = "adopt"


def adopt(
    home: Home,
    ledger: Ledger,
    provider: Provider,
    marker: Adopts,
    found: Allocation,
    *,
    hours: float,
    now: datetime,
    guards: Sequence[Holder] = (),
) -> str:
    """Mark the instance and enter it into the ledger; gives the run's id. `now` is by our clock.

    The mark comes first: what bears it is ended at its ceiling by anybody's guard, even if the ledger fails after it.
    One that bears a mark of ours already, from an adoption that was cut off there, keeps its run's id.

    Raises:
        UsageError: the vendor does not tell what it costs.
        ProviderError: it could not be marked.
        LedgerError: it is marked and not held; the message says so.
    """
    if found.price is None:
        raise UsageError(f"{provider.name} does not tell what {found.id} costs: it can't be metered")
    begin = (now + provider.skew).replace(microsecond=0)
    end = begin + timedelta(seconds=int(hours * 3600))
    mark = replace(found.mark or Mark(ledger.home_id, new_run_id(TEMPLATE, begin), 1, end), ceiling=end)
    row = _row(home, provider, found, mark, begin, found.price, guards)
    home.run(mark.run_id).path.mkdir(parents=True, exist_ok=True, mode=0o700)
    marker.adopt(found.id, mark)
    step, at = provider.traits.billing_step_seconds, begin.timestamp()
    spell = Spell(found.price, step, at, at, None, None)
    try:
        ledger.admit(row, now)
        ledger.open_allocation(found.id, mark, spell, provider=provider.name, account=provider.account())
    except LedgerError as error:
        words = f"{found.id} bears the mark {mark} now, and nobody ends it: {error}"
        raise LedgerError(words, hint=f"{error.hint}; then adopt it again", allocation_id=found.id) from error
    return mark.run_id


def _row(
    home: Home,
    provider: Provider,
    found: Allocation,
    mark: Mark,
    begin: datetime,
    price: Decimal,
    guards: Sequence[Holder],
) -> RunRow:
    run_id, end = mark.run_id, mark.ceiling
    offer = Offer(provider.name, found.name or found.id, "", 0, price)
    most = worst(price, (end - begin).total_seconds(), provider.traits.billing_step_seconds)
    plan = Plan(
        run_id=run_id,
        template=TEMPLATE,
        work="",
        offer=offer,
        candidates=(offer,),
        gpu=(),
        account=provider.account(),
        times=Times(end, end, 1),
        quote=Quote(None, None, most, None, "the price that the vendor tells, for the hours given"),
        holders=(*guards, Holder("the controller", Place.HERE, Proof.PROVEN, extendable=True)),
        data=(),
        bundle_bytes=0,
        left_out=(),
        folder=str(home.run(run_id).path),
        launched=begin,
        accept_risk=True,  # it bills already: nobody is asked whether it may
    )
    memory = Memory(
        state=State.RUNNING,
        attempt=mark.attempt,
        entered=begin,
        intended=begin,
        launch=Launch.ACCEPTED,
        allocation_id=found.id,
        offer=offer,
    )
    return RunRow(
        run_id=run_id,
        template=TEMPLATE,
        provider=provider.name,
        created=begin.timestamp(),
        deadline=end.timestamp(),
        ceiling=end.timestamp(),
        grace_seconds=1,
        max_attempts=mark.attempt,  # what is gone is not rented again
        max_cost=None,
        worst=most,
        plan={**plan.as_json(), "adopted": found.id},
        memory=memory,
        skew=provider.skew.total_seconds(),
    )
