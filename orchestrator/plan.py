"""The plan: what a launch will do, what it may cost, and who stops it. Pure: everything is handed in.

settings + offer + sizes + holders + the time -> Plan -> shown, asked, kept in the ledger
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from orchestrator.cost import charge, seconds_affordable, worst
from providers.base import Holder, Offer, Place, Proof
from providers.errors import RefusedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.config import Limits

MAX_GRACE_SECONDS = 600
_GRACE_SHARE = 0.2
_GRACE_OF_NOTHING_SECONDS = 30  # what was left on a rented machine is still brought home
_LEAST_SECONDS = 5.0
_DEAREST = 2  # times the cheapest: what is dearer is another wish
_MOST_CANDIDATES = 12


@dataclass(frozen=True, slots=True)
class Times:
    """Absolute UTC limits of a run, and the grace in which training saves."""

    deadline: datetime
    ceiling: datetime
    grace_seconds: int


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

    def sentence(self) -> str:
        """Say who ends it and when, on whose word."""
        latest = f"{self.times.ceiling:%H:%M} UTC on {self.times.ceiling:%d %b}"
        machine = [
            holder for holder in self.holders if holder.place is not Place.HERE and holder.proof is not Proof.ABSENT
        ]
        if not machine:
            return (
                f"Ends by {latest} (${self.quote.worst}) only if this computer is awake then;"
                " otherwise when it wakes. Nobody else can stop it."
            )
        names = " or ".join(holder.name for holder in machine)
        proof = _proofs(machine)
        if not self.offer.price:
            return f"Ends by {latest} at the latest ($0.00) if {names}, {proof}, lives; otherwise with this computer."
        return (
            f"Ends by {latest} at the latest (${self.quote.worst}) if {names}, {proof}, lives and your key works;"
            " otherwise when this computer wakes."
        )

    def as_json(self) -> dict[str, Any]:
        """Give the plan as plain JSON values."""
        values: dict[str, Any] = _plain(asdict(self))
        values["sentence"] = self.sentence()
        return values


def _proofs(holders: Sequence[Holder]) -> str:
    proven = [holder.proven_at for holder in holders if holder.proof is Proof.PROVEN and holder.proven_at is not None]
    return f"last proven {max(proven):%H:%M} UTC" if proven else "unproven until start"


def times(limits: Limits, price: Decimal, launched: datetime, *, saves: bool = True) -> Times:
    """Turn hours and dollars into absolute limits: what the budget can't pay for is past the deadline.

    `saves` = the job has something to save before its deadline, and needs the time for it.

    Raises:
        RefusedError: the budget does not last long enough to do anything.
    """
    seconds = limits.max_hours * 3600
    ceiling = max((limits.extendable_to_hours or 0) * 3600, seconds)
    if limits.max_cost is not None:
        affordable = seconds_affordable(price, limits.max_cost)
        seconds, ceiling = min(seconds, affordable), min(ceiling, affordable)
    if seconds < _LEAST_SECONDS:
        raise RefusedError(
            f"the limits leave {seconds:.0f} s at ${price}/h: no job can be done in that",
            hint="raise --max-cost or --max-hours",
        )
    seconds, ceiling = int(seconds), int(ceiling)  # a mark tells whole seconds
    grace = min(MAX_GRACE_SECONDS if saves else _GRACE_OF_NOTHING_SECONDS, int(seconds * _GRACE_SHARE))
    return Times(launched + timedelta(seconds=seconds), launched + timedelta(seconds=ceiling), max(grace, 1))


def quote(
    offer: Offer,
    dearest: Decimal,
    limits_seconds: float,
    step_seconds: int,
    measured: Sequence[float],
    what: str,
) -> Quote:
    """Quote the job from like runs of this home (seconds each); without any, only the worst case is known.

    `dearest` is the price an hour of the dearest candidate: the worst case is at that.
    """
    most = worst(dearest, limits_seconds, step_seconds)
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
    """Compare as people type it: "A100", "a100 80gb", "a6000" for "rtx-a6000"; a family's name means all of it."""
    if gpu is None or gpu == "auto":
        return True
    wanted = _plainly(gpu)
    if wanted == "cpu":
        return not offer.gpu_count
    names = {_plainly(offer.gpu), _plainly(offer.gpu).removeprefix("rtx-")}
    return any(name == wanted or name.startswith(f"{wanted}-") for name in names)


def _plainly(gpu: str) -> str:
    return "-".join(gpu.lower().replace("_", " ").replace("-", " ").split())


def refuse_sole_holder(holders: Sequence[Holder], price: Decimal, *, accept_risk: bool) -> None:
    """Refuse a launch that bills and that this computer alone can stop, unless the risk was accepted.

    Raises:
        RefusedError: names the flag that lifts it.
    """
    others = {holder.place for holder in holders if holder.proof is not Proof.ABSENT} - {Place.HERE}
    if price and not others and not accept_risk:
        raise RefusedError(
            "only this computer could stop the meter: if it sleeps or dies, the bill goes on",
            hint="add --accept-risk, or set limits.accept_risk in the template",
        )


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value) if isinstance(value, Decimal) else value
