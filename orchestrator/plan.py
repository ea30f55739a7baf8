"""The plan: what a launch will do, what it may cost, and who stops it. Pure: everything is handed in.

settings + offer + sizes + holders + the time -> Plan -> shown, asked, kept in the ledger
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from orchestrator.cost import GRACE_SHARE, MOST_GRACE_SECONDS, OVERRUN_SECONDS, Bounds, worst
from orchestrator.estimate.learnt import bare
from providers.base import Holder, Offer, Place, Proof
from providers.errors import RefusedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    Gpus = str | Sequence[str] | None  # as people type them

    from orchestrator.config import Limits

_GRACE_OF_NOTHING_SECONDS = 30  # what was left on a rented machine is still brought home
_LEAST_SECONDS = 5.0
_ANSWER_SECONDS = 60.0  # that a vendor may take over a terminate, a lost answer and a second try included
_DEAREST = 2  # times the cheapest: what is dearer is another wish
_MOST_CANDIDATES = 12
CAP = Decimal(300)  # USD a month, the same
GUARD_HERE = "the guard"  # the name of its timer on this computer


class SoleHolderError(RefusedError):
    """Only this computer could stop the meter, and nobody accepted that risk."""


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
    """The estimate of the whole job on the first offer: USD, seconds, GiB on one GPU. Spans are low, likely, high.

    `low` and `likely` are None where nobody can say how much there is to do; `worst` never is.
    """

    low: Decimal | None
    likely: Decimal | None
    worst: Decimal
    seconds_likely: float | None
    basis: str  # where the figures come from, in words
    seconds: tuple[float, float, float] | None = None
    stages: dict[str, tuple[float, float, float]] = field(default_factory=dict)
    steps: int = 0
    tokens: float = 0.0  # computed in all, by the estimate's own count
    tokens_per_second: tuple[float, float, float] | None = None
    card: str = ""
    card_gib: float = 0.0
    fits: str = ""  # fits, tight, no; "" = not modelled
    fix: str = ""
    memory_gib: dict[str, tuple[float, float, float]] = field(default_factory=dict)  # allocated, reserved, process
    components: dict[str, float] = field(default_factory=dict)
    room_gib: dict[str, float] = field(default_factory=dict)  # disk, host_memory
    micro_batch: int = 0
    like: str = ""  # names the work and the card, so that what it measures serves later quotes
    measured: str = ""  # the runs on which it was measured; "" = modelled
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """All that the user is shown before anything is rented."""

    run_id: str
    template: str
    work: str  # names the settings and the data: runs of the same work are comparable
    offer: Offer  # the first to be tried
    candidates: tuple[Offer, ...]  # all that may be rented instead, in that order
    gpu: tuple[str, ...]  # as they were asked for; none = any
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
    take_substitute: bool = False  # the user's leave to run on another GPU, where a vendor gives one
    month: Month | None = None
    remarks: tuple[tuple[str, str], ...] = ()  # more of its lines: a name, and what is to be known
    why: str = ""  # this offer and no other
    kinds: tuple[str, ...] = ()  # names of offers that hold the job, without their region; none = all do
    checked: tuple[str, ...] = ()  # what was found in order before any money moves
    store: dict[str, Any] | None = None  # where results go as it trains, and what that store can do; None = no store
    probe_steps: int = 0  # after which the machine says whether the limits can hold the rest; 0 = never

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
    most_hours: float = 0.0,
) -> Times:
    """Turn hours and dollars into absolute limits that hold with the laptop off.

    A budget is what the vendor's meter may show at the end, so it buys less than price and time say (cost.affordable):
    begun steps count whole, and C lies two minutes before the money is gone, because a guard may take them. At D the
    controller needs a look and an answer; where a vendor is looked at so rarely that two minutes don't hold both, D
    lies before C by the rest. What of an end the vendor carries out later, it does not bill (decision 008).

    Where a launch may wait unbilled for `queue_seconds`, both limits lie that much later: hours and dollars are for
    what runs, and the vendor's own time limit holds them there.

    `most_hours` = that the vendor itself lends it; 0 = it sets no such limit.

    `saves` = the job has something to save before its deadline, and needs the time for it.

    Raises:
        RefusedError: the budget does not last long enough to do anything.
    """
    ends = Bounds.of(limits)
    reach, attempts = ends.ceiling(price, step_seconds)
    until = ends.lasts(price, step_seconds) - max(poll_seconds + _ANSWER_SECONDS - OVERRUN_SECONDS, 0.0)
    seconds, bound, cuts = min(ends.max_seconds, until), until < ends.max_seconds, reach < ends.ceiling_seconds
    if seconds < _LEAST_SECONDS:
        raise _nothing_left(limits, ends.max_cost, price, step_seconds)
    lent = most_hours * 3600 or math.inf
    bound = bound and until < lent
    seconds, reach = int(min(seconds, lent)), int(min(reach, lent))  # a mark tells whole seconds
    grace = min(MOST_GRACE_SECONDS if saves else _GRACE_OF_NOTHING_SECONDS, int(seconds * GRACE_SHARE))
    begun = launched + timedelta(seconds=int(queue_seconds))
    deadline, end = begun + timedelta(seconds=seconds), begun + timedelta(seconds=reach)
    return Times(deadline, end, max(grace, 1), attempts, ends.max_cost if cuts or limits.max_cost else None, bound)


def _nothing_left(limits: Limits, budget: Decimal, price: Decimal, step_seconds: int) -> RefusedError:
    if limits.max_hours * 3600 < _LEAST_SECONDS:
        return RefusedError(f"{limits.max_hours:g} h is no time for a job", hint="raise --max-hours")
    least = worst(price, 660, step_seconds)
    return RefusedError(
        f"${budget} at ${price}/h leaves no time to work: begun billing steps count whole, and to end a machine may"
        f" take {OVERRUN_SECONDS // 60} minutes that bill",
        hint=f"ten minutes of it need --max-cost {least}",
    )


def candidates(offers: Sequence[Offer], gpu: Gpus, kinds: Sequence[str] = ()) -> list[Offer]:
    """Give the available offers for the wanted GPUs ("cpu" = none), cheapest first; of `kinds` alone, if any are named.

    Those that would do as well as the cheapest: as many GPUs, at no more than twice its price.
    """
    found = [offer for offer in of_gpus(offers, gpu) if offer.available]
    if kinds:
        found = [offer for offer in found if bare(offer.name) in kinds]
    return alike(sorted(found, key=lambda offer: (offer.price, not offer.gpu_count, offer.name)))


def of_gpus(offers: Sequence[Offer], gpu: Gpus) -> list[Offer]:
    """Keep the offers that were asked for, sold out ones too; who asks for nothing still wants a GPU."""
    asked = names(gpu)
    found = [offer for offer in offers if not asked or any(_matches(offer, one) for one in asked)]
    with_gpu = [offer for offer in found if offer.gpu_count]
    return with_gpu if not asked and any(offer.available for offer in with_gpu) else found


def alike(found: Sequence[Offer]) -> list[Offer]:
    """Keep those that would do as well as the first, in their order."""
    like = [one for one in found if (one.gpu_count, bool(one.price)) == (found[0].gpu_count, bool(found[0].price))]
    return [one for one in like if one.price <= found[0].price * _DEAREST][:_MOST_CANDIDATES]


def names(gpu: Gpus) -> tuple[str, ...]:
    """Give the names that were asked for; `auto` and nothing mean any."""
    given = (gpu,) if isinstance(gpu, str) else tuple(gpu or ())
    return () if "auto" in given else given


def pool(offers: Sequence[Offer], gpu: Gpus, *, waiting: bool = False) -> list[Offer]:
    """Give all offers that are what was asked for and can be had.

    `waiting` = the user waits for capacity: where all is sold out, that counts too.

    Raises:
        RefusedError: nothing on offer is what was asked for.
    """
    found = of_gpus(offers, gpu)
    ready = [offer for offer in found if offer.available]
    if found and not ready and waiting:
        ready = [replace(offer, available=True) for offer in found]
    if ready:
        return ready
    asked = ", ".join(names(gpu))
    on_offer = sorted({offer.gpu or "cpu" for offer in offers if offer.available})
    raise RefusedError(
        f"{asked or 'everything'} is sold out" if found else f"no offer has the GPU {asked}" if asked else "no offers",
        hint="wait for it: --wait-for-capacity 2h" if found else f"on offer now: {', '.join(on_offer) or 'nothing'}",
    )


def choose(offers: Sequence[Offer], gpu: Gpus, *, waiting: bool = False) -> list[Offer]:
    """Take the offers that may be rented for a wish by their price alone, in the order in which they are tried.

    Raises:
        RefusedError: nothing on offer is what was asked for.
    """
    return candidates(pool(offers, gpu, waiting=waiting), gpu)


def _matches(offer: Offer, gpu: str) -> bool:
    """Compare as people type it; a family's name means all of it: `a100`, `a100-80gb`, "a6000" for "rtx-a6000".

    The vendor's own name of an offer means that one: "cpu-basic", "l4x4". A card that is in no table goes by its name.
    """
    from orchestrator.estimate import catalogue, gpus

    wanted = _plainly(gpu)
    if wanted == "cpu":
        return not offer.gpu_count
    if wanted == _plainly(offer.name):
        return True
    own = {card.name for card in gpus.family(offer.gpu)} if offer.gpu else set()
    if own and (meant := {card.name for card in gpus.family(gpu)}):
        exact = catalogue.card_of(offer)
        return exact is not None and exact.name in meant
    spelt = {_plainly(offer.gpu), _plainly(offer.gpu).removeprefix("rtx-")}
    return any(name == wanted or name.startswith(f"{wanted}-") for name in spelt)


def _plainly(gpu: str) -> str:
    return "-".join(gpu.lower().replace("_", " ").replace("-", " ").split())


def refuse_sole_holder(
    holders: Sequence[Holder], price: Decimal, *, accept_risk: bool, key_helps: bool = False
) -> None:
    """Refuse a launch that bills and that this computer alone can stop, unless the risk was accepted.

    Holders count by where they fail: the controller and the guard's timer here are one. `key_helps` = a machine of
    this vendor could end itself if it had the account's key.

    Raises:
        SoleHolderError: says who is absent and why, and names the flags that lift it.
    """
    if not price or accept_risk or {one.place for one in holders if one.proof is not Proof.ABSENT} - {Place.HERE}:
        return
    absent = "".join(f"\n{one.name}: {one.evidence}" for one in holders if one.place is not Place.HERE)
    raise SoleHolderError(
        f"only this computer could stop the meter: if it sleeps or dies, the bill goes on{absent}",
        hint="a guard at Hugging Face: gpurun guard install --on hf;"
        " or one on an always-on machine: gpurun config set guard-elsewhere ssh://user@box;"
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
