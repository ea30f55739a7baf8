"""`gpurun adopt`: what an instance that somebody started by hand is, and what adopting it would do, before it is done.

Not here: the deed and the run that holds it from then on (adopt.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from orchestrator.cost import worst
from orchestrator.memo import holder_values
from orchestrator.plan_screen import holder_line
from orchestrator.render import ago, facts, moment, money, price
from providers.base import Place, Proof
from providers.errors import UsageError
from providers.optional import Adopts

if TYPE_CHECKING:
    from collections.abc import Sequence
    from decimal import Decimal

    from orchestrator.home import Home
    from providers.base import Allocation, Holder, Mark, Provider


@dataclass(frozen=True, slots=True)
class Adoption:
    """One instance, and until when it may bill."""

    provider: Provider
    marker: Adopts  # the same provider: it can mark what is there
    allocation: Allocation
    hours: float
    now: datetime  # by the vendor's clock
    price: Decimal  # USD an hour
    worst: Decimal  # USD from now on
    guards: tuple[Holder, ...] = ()

    @property
    def until(self) -> datetime:
        """The ceiling: after this nothing of it may bill."""
        return self.now + timedelta(hours=self.hours)

    def go(self, home: Home) -> str:
        """Put the mark on it, enter the run and start its controller; gives the run's id.

        Raises:
            GpurunError: the vendor or the ledger refused.
        """
        from orchestrator import notify
        from orchestrator.adopt import adopt
        from orchestrator.ledger import Ledger
        from orchestrator.processes import spawn_controller

        ledger = Ledger(home.ensure().ledger)
        try:
            found, now = self.allocation, datetime.now(UTC)
            run_id = adopt(
                home, ledger, self.provider, self.marker, found, hours=self.hours, now=now, guards=self.guards
            )
            notify.keep(home, run_id, notify.of_defaults(home))
        finally:
            ledger.close()
        spawn_controller(home, run_id)
        return run_id

    def screen(self) -> str:
        """Say what it is and what will be done."""
        one = self.allocation
        since = one.since.timestamp() if one.since else None
        begun = f", since {moment(since)} ({ago(self.now.timestamp() - since)})" if since is not None else ""
        return facts(
            [
                ("instance", f"{self.provider.name} {one.id}"),
                ("name", f"{one.name or 'none'}; the mark takes its place"),
                ("price", price(self.price) + begun),
                ("cost", f"at most {money(self.worst)} from now on"),
                ("end", f"gpurun will end it at {self.until:%H:%M} UTC on {self.until:%d %b}, whatever runs on it"),
                ("holders", self._holders()),
                ("login", "as until now: gpurun has no key to it, and brings no files home"),
            ]
        )

    def _holders(self) -> str:
        """Name who can end it: the mark makes it any guard's business."""
        others = [one for one in self.guards if one.place is not Place.HERE and one.proof is not Proof.ABSENT]
        alone = "" if others else " Nobody else can stop it."
        here = f"the controller (here): while this computer is awake.{alone}"
        return "\n".join([*(holder_line(holder_values(one)) for one in self.guards), here])


def _guards(home: Home | None, provider: Provider, now: datetime) -> tuple[Holder, ...]:
    from orchestrator import elsewhere, settings_file

    if home is None:
        return ()
    address = str(settings_file.load(home.root / settings_file.NAME).get("guard-elsewhere", ""))
    return tuple(elsewhere.holders(home, address, provider, now))


def look(provider: Provider, wanted: str, hours: float, now: datetime, home: Home | None = None) -> Adoption:
    """Find the instance, by its id or its name, among what bills on the account.

    One that `home` marked and knows nothing of was cut off in the middle of its adoption: it may be adopted again.

    Raises:
        UsageError: the vendor can't take a mark or tells no price; no such instance, or it is ours already, or over.
        ProviderError: the account can't be read.
    """
    if not isinstance(provider, Adopts):
        raise UsageError(f"{provider.name} has nothing that can be adopted", hint="gpurun adopt -h")
    found = _named(provider.allocations(), wanted, provider.name)
    if found.mark is not None and not (home and _was_cut_off(home, found.mark)):
        raise UsageError(
            f"{found.id} carries a mark of gpurun's already: {found.mark}", hint=f"gpurun show {found.mark.run_id}"
        )
    if not found.billing:
        raise UsageError(f"{found.id} does not bill: there is nothing to end")
    if found.price is None:
        raise UsageError(f"{provider.name} does not tell what {found.id} costs: it can't be metered")
    most = worst(found.price, hours * 3600, provider.traits.billing_step_seconds)
    guards = _guards(home, provider, now)
    return Adoption(provider, provider, found, hours, now + provider.skew, found.price, most, guards)


def _was_cut_off(home: Home, mark: Mark) -> bool:
    from orchestrator.ledger import Ledger

    ledger = Ledger(home.ensure().ledger)
    try:
        return mark.home == ledger.home_id and mark.run_id not in [row.run_id for row in ledger.runs()]
    finally:
        ledger.close()


def _named(listed: Sequence[Allocation], wanted: str, provider: str) -> Allocation:
    found = [one for one in listed if wanted in {one.id, one.name}] or [
        one for one in listed if wanted and one.id.startswith(wanted)
    ]
    if len(found) == 1:
        return found[0]
    foreign = " ".join(one.id for one in listed if one.mark is None) or "none"
    many = f"{len(found)} instances of {provider} are called" if found else f"{provider} bills no instance called"
    raise UsageError(f'{many} "{wanted}"; not of gpurun there: {foreign}', hint="gpurun adopt ID --hours 3")
