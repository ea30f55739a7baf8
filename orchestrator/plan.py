"""The plan: what a launch will do, what it may cost, and who stops it. Pure: everything is handed in.

settings + offer + sizes + holders + the time -> Plan -> shown, asked, kept in the ledger
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from orchestrator.cost import OVERRUN_SECONDS, affordable, charge, worst
from providers.base import Holder, Offer, Place, Proof
from providers.errors import RefusedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.config import Limits

MAX_GRACE_SECONDS = 600
_GRACE_SHARE = 0.2
_GRACE_OF_NOTHING_SECONDS = 30  # what was left on a rented machine is still brought home
_LEAST_SECONDS = 5.0
_ANSWER_SECONDS = 60.0  # that a vendor may take over a terminate, a lost answer and a second try included
_DEAREST = 2  # times the cheapest: what is dearer is another wish
_MOST_CANDIDATES = 12
FUSE = Decimal(100)  # USD that a run may cost where nobody named an amount: eight H100s for three hours
CAP = Decimal(300)  # USD a month, the same
GUARD_HERE = "the guard"  # the name of its timer on this computer


@dataclass(frozen=True, slots=True)
class Times:
    """Absolute UTC limits of a run, and the grace in which training saves."""

    deadline: datetime
    ceiling: datetime
    grace_seconds: int
    attempts: int = 1  # machines that may be rented, one after another
    max_cost: Decimal | None = None  # USD; None = the hours come first
    budget_bound: bool = False  # the deadline is as long as the budget lasts


@dataclass(frozen=True, slots=True)
class Month:
    """What the monthly cap leaves: USD, of this home's ledger only."""

    cap: Decimal
    spent: Decimal
    reserved: Decimal  # the worst case of open runs


@dataclass(frozen=True, slots=True)
class Quote:
    """USD for the whole job. `low` and `likely` are None while nothing like it was measured; `worst` never is."""

    low: Decimal | None
    likely: Decimal | None
    worst: Decimal
    seconds_likely: float | None
    basis: str  # where the figures come from, in words


@dataclass(frozen=True, slots=True)
class Plan:
    """All that the user is shown before anything is rented."""

    run_id: str
    template: str
    work: str  # names the settings and the data: runs of the same work are comparable
    offer: Offer  # the first to be tried
    candidates: tuple[Offer, ...]  # all that may be rented instead, in that order
    gpu: str | None  # as it was asked for
    account: str  # fingerprint: only its word counts for what this run made
    times: Times
    quote: Quote
    holders: tuple[Holder, ...]
    data: tuple[tuple[str, int, str], ...]  # name, bytes, sha256
    bundle_bytes: int
    left_out: tuple[str, ...]
    folder: str  # where results come home to
    launched: datetime
    wait_seconds: float = 0.0  # so long the user waits for capacity
    trust_on_first_use: bool = False  # the user's leave to take whatever host key answers first
    accept_risk: bool = False  # the user's leave to launch though this computer alone can stop the meter
    key_on_machine: bool = False  # the user's leave to put the account's key on the machine
    month: Month | None = None
    remarks: tuple[tuple[str, str], ...] = ()  # more of its lines: a name, and what is to be known

    def sentence(self) -> str:
        """Say who ends it and when, on whose word."""
        others = [one for one in self.holders if one.place is not Place.HERE and one.proof is not Proof.ABSENT]
        names, proof = " or ".join(one.name for one in others), _proofs(others)
        if not self.offer.price:
            latest = _moment(self.times.ceiling)
            return f"Ends by {latest} at the latest ($0.00) if {names}, {proof}, lives; otherwise with this computer."
        latest = f"{_moment(self.times.ceiling + timedelta(seconds=OVERRUN_SECONDS))} at the latest"
        if others:
            return (
                f"Ends by {latest} (${self.quote.worst}) if {names}, {proof}, lives and your key works;"
                " otherwise when this computer wakes."
            )
        return (
            f"Ends by {latest} (${self.quote.worst}) only if this computer is awake then and your key works"
            f"{self._second_here()}; otherwise when it wakes. Nobody else can stop it."
        )

    def _second_here(self) -> str:
        """Name the guard's timer on this computer: it helps when the controller dies, not when the computer sleeps."""
        timer = [one for one in self.holders if one.place is Place.HERE and one.name == GUARD_HERE]
        proven = any(one.proof is Proof.PROVEN for one in timer)
        return f" (should the controller die, the guard's timer here ends it, {_proofs(timer)})" if proven else ""

    def as_json(self) -> dict[str, Any]:
        """Give the plan as plain JSON values."""
        values: dict[str, Any] = _plain(asdict(self))
        values["sentence"] = self.sentence()
        values["budget_bound"] = self.times.budget_bound
        return values


def _moment(time: datetime) -> str:
    return f"{time:%H:%M} UTC on {time:%d %b}"


def _proofs(holders: Sequence[Holder]) -> str:
    proven = [holder.proven_at for holder in holders if holder.proof is Proof.PROVEN and holder.proven_at is not None]
    return f"last proven {max(proven):%H:%M} UTC" if proven else "unproven until start"


def times(
    limits: Limits,
    price: Decimal,
    launched: datetime,
    *,
    step_seconds: int = 1,
    poll_seconds: float = 0.0,
    queue_seconds: float = 0.0,
    saves: bool = True,
) -> Times:
    """Turn hours and dollars into absolute limits that hold with the laptop off.

    A budget is what the vendor's meter may show at the end, so it buys less than price and time say (cost.affordable):
    begun steps count whole, and C lies two minutes before the money is gone, because a guard may take them. At D the
    controller needs a look and an answer; where a vendor is looked at so rarely that two minutes don't hold both, D
    lies before C by the rest. What of an end the vendor carries out later, it does not bill (decision 008).

    Where a launch may wait unbilled for `queue_seconds`, both limits lie that much later: hours and dollars are for
    what runs, and the vendor's own time limit holds them there.

    `saves` = the job has something to save before its deadline, and needs the time for it.

    Raises:
        RefusedError: the budget does not last long enough to do anything.
    """
    seconds = limits.max_hours * 3600
    ceiling = max((limits.extendable_to_hours or 0) * 3600, seconds)
    budget = limits.max_cost or FUSE
    lasts, attempts = affordable(price, budget, step_seconds, limits.max_attempts)
    until = lasts - max(poll_seconds + _ANSWER_SECONDS - OVERRUN_SECONDS, 0.0)
    bound, cuts = until < seconds, lasts < ceiling
    seconds, ceiling = min(seconds, until), min(ceiling, lasts)
    if seconds < _LEAST_SECONDS:
        raise _nothing_left(limits, budget, price, step_seconds)
    seconds, ceiling = int(seconds), int(ceiling)  # a mark tells whole seconds
    grace = min(MAX_GRACE_SECONDS if saves else _GRACE_OF_NOTHING_SECONDS, int(seconds * _GRACE_SHARE))
    begun = launched + timedelta(seconds=int(queue_seconds))
    deadline, end = begun + timedelta(seconds=seconds), begun + timedelta(seconds=ceiling)
    return Times(deadline, end, max(grace, 1), attempts, budget if cuts or limits.max_cost else None, bound)


def _nothing_left(limits: Limits, budget: Decimal, price: Decimal, step_seconds: int) -> RefusedError:
    if limits.max_hours * 3600 < _LEAST_SECONDS:
        return RefusedError(f"{limits.max_hours:g} h is no time for a job", hint="raise --max-hours")
    least = worst(price, 660, step_seconds)
    return RefusedError(
        f"${budget} at ${price}/h leaves no time to work: begun billing steps count whole, and to end a machine may"
        f" take {OVERRUN_SECONDS // 60} minutes that bill",
        hint=f"ten minutes of it need --max-cost {least}",
    )


def quote(
    offer: Offer,
    dearest: Decimal,
    limits_seconds: float,
    step_seconds: int,
    measured: Sequence[float],
    what: str,
    attempts: int = 1,
) -> Quote:
    """Quote the job from like runs of this home (seconds each); without any, only the worst case is known.

    `dearest` is the price an hour of the dearest candidate: the worst case is at that, for all the attempts.
    """
    most = worst(dearest, limits_seconds, step_seconds, attempts)
    if not measured:
        return Quote(None, None, most, None, "nothing like it was run from this home yet: the limits are the estimate")
    ordered = sorted(measured)
    middle = ordered[len(ordered) // 2]
    plural = "your run" if len(ordered) == 1 else f"{len(ordered)} runs of yours"
    return Quote(
        charge(offer.price, ordered[0], step_seconds),
        charge(offer.price, middle, step_seconds),
        most,
        middle,
        f"measured on {plural} of {what}",
    )


def candidates(offers: Sequence[Offer], gpu: str | None) -> list[Offer]:
    """Give the available offers for the wanted GPU ("cpu" = none), cheapest first.

    Those that would do as well as the cheapest: as many GPUs, at no more than twice its price.
    """
    wanted = [offer for offer in offers if offer.available and _matches(offer, gpu)]
    if gpu in {None, "auto"} and any(offer.gpu_count for offer in wanted):
        wanted = [offer for offer in wanted if offer.gpu_count]  # who rents without a wish still wants a GPU
    wanted.sort(key=lambda offer: (offer.price, not offer.gpu_count, offer.name))
    like = [one for one in wanted if (one.gpu_count, bool(one.price)) == (wanted[0].gpu_count, bool(wanted[0].price))]
    return [one for one in like if one.price <= wanted[0].price * _DEAREST][:_MOST_CANDIDATES]


def choose(offers: Sequence[Offer], gpu: str | None, *, waiting: bool = False) -> list[Offer]:
    """Take the offers that may be rented for a wish, in the order in which they are tried.

    `waiting` = the user waits for capacity: what is sold out now counts too.

    Raises:
        RefusedError: nothing on offer is what was asked for.
    """
    found = candidates(offers, gpu)
    if not found and waiting:
        found = candidates([replace(offer, available=True) for offer in offers], gpu)
    if found:
        return found
    sold_out = any(_matches(offer, gpu) for offer in offers)
    names = sorted({offer.gpu or "cpu" for offer in offers if offer.available})
    raise RefusedError(
        f"{gpu or 'everything'} is sold out" if sold_out else f"no offer has the GPU {gpu}" if gpu else "no offers",
        hint="wait for it: --wait-for-capacity 2h" if sold_out else f"on offer now: {', '.join(names) or 'nothing'}",
    )


def _matches(offer: Offer, gpu: str | None) -> bool:
    """Compare as people type it: "A100", "a100 80gb", "a6000" for "rtx-a6000"; a family's name means all of it.

    The vendor's own name of an offer means that one: "cpu-basic", "l4x4".
    """
    if gpu is None or gpu == "auto":
        return True
    wanted = _plainly(gpu)
    if wanted == "cpu":
        return not offer.gpu_count
    names = {_plainly(offer.gpu), _plainly(offer.gpu).removeprefix("rtx-")}
    return wanted == _plainly(offer.name) or any(name == wanted or name.startswith(f"{wanted}-") for name in names)


def _plainly(gpu: str) -> str:
    return "-".join(gpu.lower().replace("_", " ").replace("-", " ").split())


def refuse_sole_holder(
    holders: Sequence[Holder], price: Decimal, *, accept_risk: bool, key_helps: bool = False
) -> None:
    """Refuse a launch that bills and that this computer alone can stop, unless the risk was accepted.

    Holders count by where they fail: the controller and the guard's timer here are one. `key_helps` = a machine of
    this vendor could end itself if it had the account's key.

    Raises:
        RefusedError: says who is absent and why, and names the flags that lift it.
    """
    if not price or accept_risk or {one.place for one in holders if one.proof is not Proof.ABSENT} - {Place.HERE}:
        return
    absent = "".join(f"\n{one.name}: {one.evidence}" for one in holders if one.place is not Place.HERE)
    raise RefusedError(
        f"only this computer could stop the meter: if it sleeps or dies, the bill goes on{absent}",
        hint="a guard on an always-on machine: gpurun config set guard-elsewhere ssh://user@box;"
        f"{' or --key-on-machine;' if key_helps else ''} or take the risk: --accept-risk, or limits.accept_risk",
    )


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value) if isinstance(value, Decimal) else value
