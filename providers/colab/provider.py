"""The money plane of Google Colab.

    launch -> a VM for the attempt's own notebook hash, the mark kept here first, and on the VM by the byte plane
    find -> the same question again      inspect, allocations -> the list      terminate -> unassign, read back

A VM is ours by this home's record of its order, else by the marker file on it. What bears neither, or can't be asked,
is somebody's: shown, never touched. The bill is in compute units: their live rate is the difference of two looks.
"""

from __future__ import annotations

import os
import time
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from providers import ending
from providers.base import Allocation, Holder, Mark, Observation, Phase, Place, Proof, Traits, utc
from providers.colab import api, credentials, ender, launch, rates, reading
from providers.colab.marks import Shelf, nbh_of
from providers.colab.ways import Ways
from providers.errors import CredentialsError, ProviderError, UnreachableError, UsageError
from providers.http import base_url, printable
from providers.optional import Funds
from providers.pacing import pacer_for
from providers.table import SIGNS

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from datetime import datetime
    from decimal import Decimal
    from pathlib import Path

    from providers.base import Access, Job, Offer, Remote
    from providers.colab.credentials import Login
    from providers.colab.marks import Kept
    from providers.colab.reading import Account, Assignment

URL = "https://colab.research.google.com"
_URL, _PACE, _AGENT = "GPURUN_COLAB_URL", "GPURUN_COLAB_PACE", "GPURUN_COLAB_AGENT"
_INTERVAL_SECONDS = 0.3  # between two requests
_LEAST_SECONDS = 10.0
_LEAST_BOOT_SECONDS = 30.0
_ACCOUNT_SECONDS = 60.0  # for which a look at the balance is good
_CLOCK = timedelta(seconds=1)  # to which Colab's clock is known: `Date` has whole seconds
_LIMITS = Holder(
    "Colab's own limits",
    Place.SERVER,
    Proof.ABSENT,
    evidence="it takes away what is idle or old, when it does not say: counts for nothing",
)


class ColabProvider:
    """One Google account at Colab."""

    name = "colab"

    def __init__(self, home: Path, login: Login, *, url: str = URL, pace: float = 1.0, agent: str = api.AGENT) -> None:
        self._home = home
        self._login = login
        self._pace = pace
        self._name = ""
        self._shelf = Shelf(home)
        self._told: dict[str, datetime] = {}  # when Colab was told to end it, of those whose end it took
        self._balance: tuple[float, Account] | None = None
        pacer = pacer_for("colab", url, login.fingerprint, {"": _INTERVAL_SECONDS / pace})
        tunnel = api.Tunnel("Colab", url, login, pacer, pace=pace)
        tunnel.introduce(agent)
        self._api = api.Api(tunnel, login)
        self._ways = Ways(self._api, pace, agent)
        self.traits = Traits(
            # Nothing is promised. An order may take 180 s to be carried out, and is looked for over three of these.
            list_lag_seconds=max(60.0 / pace, 0.3),
            boot_limit_seconds=max(600.0 / pace, _LEAST_BOOT_SECONDS),
            start_limit_seconds=3600.0,  # data and packages come over our own world's links
            poll_seconds=max(10.0 / pace, 0.2),
            billing_step_seconds=1,  # units are drawn without a stop
            console_url=reading.CONSOLE,
            setup=True,  # its own transformers are a version behind, and it has no trl
            retry_seconds=60.0 / pace,
            ending_seconds=max(120.0 / pace, _LEAST_SECONDS),
        )

    @classmethod
    def from_home(cls, home: Path, environ: Mapping[str, str] | None = None) -> ColabProvider:
        """Open the account of the login that lies on this computer; see credentials.py.

        Raises:
            CredentialsError: there is none, or google-auth is not installed.
            UsageError: another setting makes no sense.
        """
        environ = os.environ if environ is None else environ
        pace = environ.get(_PACE) or "1"
        if not pace.replace(".", "", 1).isdigit() or not float(pace):
            raise UsageError(f"{_PACE} is no number above 0", hint=f"unset {_PACE}")
        agent = environ.get(_AGENT) or api.AGENT
        if not agent.isascii() or not agent.isprintable():
            raise UsageError(f"{_AGENT} is no name for a client", hint=f"unset {_AGENT}")
        url = base_url(environ.get(_URL) or URL, _URL)
        return cls(home, credentials.find(environ), url=url, pace=float(pace), agent=agent)

    @property
    def skew(self) -> timedelta:
        """Colab's clock minus ours at its last answer."""
        return self._api.skew

    def account(self) -> str:
        """Name the Google account: another login of the same one opens the same VMs."""
        if not self._name:
            self._name = f"colab-{printable(self._login.account(), 100)}"
        return self._name

    # ── money ────────────────────────────────────────────────────────────────────────────────────────────────────

    def offers(self) -> Sequence[Offer]:
        """Every GPU that the account has a right to, for units or on the free tier; nobody says which can be had."""
        told = self._account(fresh=True)
        return list(reading.offers(told, self._shelf.rates(), self._shelf.tier(), utc(time.time()) + self.skew))

    def funds(self) -> Funds | None:
        """Tell the balance, in dollars of its units; the free tier has none to hold against a cost of none."""
        told = self._account()
        balance = rates.dollars(told.balance, self._shelf.tier()) if told.balance > 0 else told.balance * 0
        return Funds(balance, words=f"{told.balance:.2f} compute units", page=reading.SIGN_UP)

    def remarks(self, command: Sequence[str], offer: Offer) -> Sequence[tuple[str, str]]:  # noqa: ARG002 (the shape)
        """Say what it draws, on whose word, and what only the free tier asks."""
        rate, free = rates.of_name(offer.name)
        if rate is None:
            return ()
        live, tier = self._shelf.rates().get(rate.offer), self._shelf.tier()
        dated = f"a table's, {rate.as_of or 'without a date'}, confidence {rate.confidence}"
        units = live or rate.units
        words = f"{units} an hour ({'read off this account lately' if live else dated}) at"
        plan = "" if tier is None else f" ({rates.TIERS.get(tier, 'an unknown plan')})"
        lines = [("units", f"{words} ${rates.unit_usd(tier):.4f} each{plan}; the live rate counts once it runs")]
        if free:
            lines = [
                ("free tier", f"one VM, {offer.most_hours:g} h at most; no ssh, no promise of a GPU or of its time")
            ]
        return lines

    def holders(self, job: Job, offer: Offer) -> Sequence[Holder]:  # noqa: ARG002 (the contract's shape)
        """Nobody whose power is proven: Colab's limits are unpublished, the VM's own way out can't be tried."""
        return [_LIMITS, replace(ender.HOLDER, proof=Proof.ABSENT)]

    def _account(self, *, fresh: bool = False) -> Account:
        at, known = self._balance or (0.0, None)
        if fresh or known is None or time.monotonic() - at > _ACCOUNT_SECONDS / self._pace:
            known = self._api.account()
            self._balance = time.monotonic(), known
        return known

    # ── VMs ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def launch(self, job: Job, offer: Offer) -> str:
        """Order a VM; see launch.py."""
        import providers.colab.remote  # noqa: F401 - taken while nothing bills

        _leave_sign(self._home)
        made = launch.launch(self._api, self._shelf, job, offer)
        self._ways.keep(made)
        return made.endpoint

    def find(self, mark: Mark) -> Sequence[Allocation]:
        """Ask what the attempt's notebook was given."""
        kept = self._shelf.of(mark)
        wanted = reading.wanted(kept.offer) if kept is not None else None
        asked = api.ok(self._api.look(nbh_of(mark), wanted.params if wanted else {}))
        if not asked.get("endpoint"):
            return []
        found = reading.assignment(asked)
        self._shelf.change(mark, endpoint=found.endpoint)
        return [self._allocation(found, mark, kept)]

    def inspect(self, allocation_id: str) -> Observation:
        """Look for one VM on the whole list; ABSENT where that lacks it."""
        if not reading.is_endpoint(allocation_id):
            return _absent(f"{printable(allocation_id, 40)!r} is no name that Colab gives")
        begun = self._now()
        listed = self._ways.list()
        evidence = f"GET /tun/m/assignments lists {len(listed)}"
        found = next((one for one in listed if one.endpoint == allocation_id), None)
        if found is None:
            return self._gone(allocation_id, f"{evidence}, not {allocation_id}", begun)
        kept = self._shelf.by_endpoint(allocation_id)
        told = self._balance_of(kept)
        return Observation(
            Phase.READY,
            billing=True,
            evidence=f"{evidence}, {allocation_id} among them",
            price=self._price(kept, told, found, alone=len(listed) == 1),
            message=f"{found.accelerator or 'no accelerator'}",
            failure=_substituted(found, kept) or _spent(kept, told),
        )

    def _gone(self, endpoint: str, evidence: str, now: datetime) -> Observation:
        """Say that there is none (any more): one whose end Colab took from us ended between that and now."""
        told = self._told.get(endpoint)
        if told is None:
            return _absent(evidence)
        return Observation(
            Phase.ABSENT,
            billing=False,
            evidence=f"POST /tun/m/unassign was taken; {evidence}",
            billed_until=told,
            billed_within=max((now + _CLOCK - told).total_seconds(), _CLOCK.total_seconds()),
            ended=True,
        )

    def _balance_of(self, kept: Kept | None) -> Account | None:
        """Read the balance for a VM of ours that is paid for; None = it has no say, or can't be told now."""
        if kept is None or rates.of_name(kept.offer)[1]:
            return None
        try:
            return self._account()
        except CredentialsError:
            raise
        except ProviderError:
            return None

    def _price(self, kept: Kept | None, told: Account | None, found: Assignment, *, alone: bool) -> Decimal | None:
        """USD an hour: what all draw where it is the only one, else what was seen when it came; None = not known."""
        if kept is None:
            return None
        if rates.of_name(kept.offer)[1]:
            return rates.UNIT_USD * 0
        units = kept.rate
        if told is not None and alone and told.count == 1 and told.rate > 0 and told.rate != units:
            units = told.rate
            mark = kept.parsed
            if mark is not None:
                self._shelf.change(mark, units=str(units))
            if not _another(found, kept):  # else it is another GPU's rate
                self._shelf.saw(kept.offer, units)
        return None if units is None else rates.dollars(units, self._shelf.tier())

    def terminate(self, allocation_ids: Sequence[str]) -> None:
        """Unassign these; none keeps another from its end.

        Raises:
            ProviderError: some may live on; the message names them.
        """
        ending.each(filter(reading.is_endpoint, allocation_ids), self._unassign, reading.CONSOLE)

    def _unassign(self, endpoint: str) -> None:
        begun = self._now()
        if self._api.unassign(endpoint):
            self._told.setdefault(endpoint, begun - _CLOCK)

    def extend(self, allocation_id: str, ceiling: datetime) -> bool:  # noqa: ARG002 (the contract's shape)
        """Colab's own limits can't be moved, nor even read."""
        return False

    def allocations(self) -> Sequence[Allocation]:
        """Everything that is assigned: ours by record or marker, the rest as somebody's."""
        listed = self._ways.list()
        known = {one.endpoint: one for one in self._shelf.all() if one.endpoint}
        unsure = [one for one in listed if one.endpoint not in known]
        if unsure:
            self._settle()
            known = {one.endpoint: one for one in self._shelf.all() if one.endpoint}
        found = []
        for one in listed:
            kept = known.get(one.endpoint)
            mark, words = (kept.parsed, "") if kept is not None else self._ways.marker(one.endpoint)
            found.append(self._allocation(one, mark, kept, words))
        return found

    def _settle(self) -> None:
        """Ask for the VMs of orders whose answer was lost: their endpoints are known by their notebooks alone."""
        for kept in list(self._shelf.all()):
            mark = kept.parsed
            if not kept.endpoint and mark is not None and mark.ceiling + timedelta(days=1) > self._now():
                self.find(mark)

    def _allocation(self, one: Assignment, mark: Mark | None, kept: Kept | None, words: str = "") -> Allocation:
        name = printable(str(mark) if mark is not None else f"{one.accelerator or 'CPU'}, {words}", 80)
        price = None if kept is None else self._price(kept, None, one, alone=False)
        return Allocation(one.endpoint, mark, name, billing=True, price=price, console_url=reading.CONSOLE)

    def tidy(self, live: Collection[Mark]) -> None:
        """Forget the orders whose runs are over and whose VMs are not listed."""
        over = [
            (kept, mark)
            for kept in self._shelf.all()
            if (mark := kept.parsed) is not None and not any(reading.same_attempt(one, mark) for one in live)
        ]
        if not over:
            return
        listed = {one.endpoint for one in self._ways.list()}
        for kept, mark in over:
            if kept.endpoint not in listed and (kept.endpoint or mark.ceiling < self._now()):
                self._shelf.drop(mark)

    def _now(self) -> datetime:
        return utc(time.time()) + self.skew

    # ── the way in ───────────────────────────────────────────────────────────────────────────────────────────────

    def remote(self, allocation_id: str, access: Access) -> Remote:
        """Reach a VM through its own Jupyter server.

        Raises:
            UnreachableError: nobody knows whose it is, or it is gone.
        """
        from providers.colab.remote import ColabRemote

        kept = self._shelf.by_endpoint(allocation_id)
        mark = kept.parsed if kept is not None else None
        if mark is None:
            mark = next((one.mark for one in self.allocations() if one.id == allocation_id), None)
        if mark is None:
            raise UnreachableError(f"{printable(allocation_id, 40)} is not there", allocation_id=allocation_id)
        return ColabRemote(self._ways.door(allocation_id), mark, access, ahead=self.skew.total_seconds())


def _absent(evidence: str) -> Observation:
    return Observation(Phase.ABSENT, billing=False, evidence=evidence)


def _another(found: Assignment, kept: Kept) -> bool:
    """Whether Colab gave another GPU than was ordered."""
    rate = rates.of_name(kept.offer)[0]
    return rate is not None and not found.is_what(rate.accelerator, high_memory=rate.high_memory)


def _substituted(found: Assignment, kept: Kept | None) -> str:
    """Say that Colab gave another GPU than was ordered; "" = it did not, or that was allowed."""
    if kept is None or kept.substitute or not _another(found, kept):
        return ""
    got = printable(found.accelerator, 20) or "none"
    return f"Colab gave {got} in place of {kept.offer}: not taken without --allow-substitute"


def _spent(kept: Kept | None, told: Account | None) -> str:
    """Say that a VM that was paid for runs on nothing: what the terms allow it then is less, and it may go any time."""
    return "the account's compute units are used up" if kept is not None and told is not None and told.is_free else ""


def _leave_sign(home: Path) -> None:
    """Let guard and costs look here from now on, see providers/table.py."""
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    (home / SIGNS["colab"][1]).touch()
