"""One order at Colab: a VM for the attempt's own `nbh`, sent once; what was really given is for `inspect` to judge.

A 412, a 400, an outcome 1, 2 or 5 without a VM, and a 503 that a second look confirms, say that nothing was given.
Anything else but a VM says nothing: it is looked for by its `nbh`.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from providers.colab import api, rates, reading
from providers.colab.marks import Kept, nbh_of
from providers.errors import (
    CredentialsError,
    NoCapacityError,
    ProviderError,
    QuotaError,
    StateError,
    UnclearError,
    UsageError,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from decimal import Decimal
    from typing import Any

    from providers.base import Job, Offer
    from providers.colab.api import Api
    from providers.colab.marks import Shelf
    from providers.colab.reading import Account, Assignment, Wanted
    from providers.http import Reply

log = logging.getLogger("gpurun.colab")

_BUY = f"units: {reading.SIGN_UP}"
_OUTCOMES = {
    1: f"the account's quota has no such GPU now; {_BUY}",
    2: f"the account's time on the free tier is used up; {_BUY}",
    5: "Colab has blocked this account: it is not asked again",
}
_DENIED = 5
_NOTHING_GIVEN = frozenset({400, 401, 403, 412, 503})  # by a question, which orders nothing


def launch(colab: Api, shelf: Shelf, job: Job, offer: Offer) -> Assignment:
    """Order one VM; gives what was assigned.

    Raises:
        NoCapacityError, QuotaError, CredentialsError, UsageError: nothing was given.
        UnclearError: it may have been.
    """
    wanted = reading.wanted(offer.name)
    if wanted is None:
        raise UsageError(f"{offer.name!r} is no offer of Colab's", hint="gpurun offers --provider colab")
    before = _look(colab)
    _check(before, wanted)
    nbh = nbh_of(job.mark)
    try:
        shelf.keep(Kept(str(job.mark), offer.name, substitute=job.take_substitute))
    except StateError as error:
        raise UsageError(f"nothing is ordered that nobody would know again: {error}", hint=error.hint) from error
    made = _order(colab, nbh, wanted, before, str(job.mark))
    shelf.change(job.mark, endpoint=made.endpoint)
    if made.tier is not None:
        shelf.saw(tier=made.tier)
    _note_rate(colab, shelf, job, wanted, made, before)
    return made


def _look(colab: Api) -> Account | None:
    """Read what runs before; None = it can't be told, and the live rate will be learnt later."""
    try:
        return colab.account()
    except CredentialsError:
        raise
    except ProviderError:
        return None


def _check(before: Account | None, wanted: Wanted) -> None:
    if not wanted.free:
        if before is not None and before.is_free:
            raise QuotaError("Colab: no compute units are left on the account", hint=_BUY)
        return
    if before is None:
        raise NoCapacityError("Colab does not tell how many VMs run: the free tier gives one", hint="try again shortly")
    if before.count:
        words = f"Colab's free tier gives one VM, and {before.count} of the account runs already"
        raise QuotaError(words, hint=f"end it at {reading.CONSOLE} (Runtime, Manage sessions)")


def _order(colab: Api, nbh: str, wanted: Wanted, before: Account | None, mark: str) -> Assignment:
    for left in (1, 0):
        first = colab.look(nbh, wanted.params)
        if first.status in _NOTHING_GIVEN:
            raise _refusal(first, {}, wanted, before, mark)
        asked = api.ok(first)
        if asked.get("endpoint"):  # ordered before: the same notebook has the same VM
            return reading.assignment(asked)
        if asked.get("p") is True:
            words = "Colab wants to see a person before it gives this account a VM"
            raise CredentialsError(words, hint=f"open a notebook at {reading.CONSOLE}")
        token = api.token_of(asked, first.what)
        try:
            reply = colab.order(nbh, wanted.params, token)
        except ProviderError as error:
            raise UnclearError(f"{error}; it may have given {mark} a VM", hint=error.hint) from error
        if reply.status != 403 or not left:  # the token of the second step: the first gives another
            break
    return _given(colab, nbh, reply, wanted, before, mark)


def _given(colab: Api, nbh: str, reply: Reply, wanted: Wanted, before: Account | None, mark: str) -> Assignment:
    """Read what an order brought."""
    body = reply.body or {}
    if 200 <= reply.status < 300 and body.get("endpoint"):
        try:
            return reading.assignment(body)
        except ProviderError as error:
            raise UnclearError(f"{error}; it may have given {mark} a VM", hint=error.hint) from error
    if reply.status == 503 and (made := _second_look(colab, nbh, wanted)) is not None:
        return made
    raise _refusal(reply, body, wanted, before, mark)


def _second_look(colab: Api, nbh: str, wanted: Wanted) -> Assignment | None:
    """See whether an order that failed was carried out all the same.

    Raises:
        UnclearError: that can't be told.
    """
    try:
        asked = api.ok(colab.look(nbh, wanted.params))
    except ProviderError as error:
        raise UnclearError(f"{error}; it may have been given a VM", hint=error.hint) from error
    return reading.assignment(asked) if asked.get("endpoint") else None


def _refusal(
    reply: Reply, body: Mapping[str, Any], wanted: Wanted, before: Account | None, mark: str
) -> ProviderError | UsageError:
    """Say why nothing was given, or that nobody knows."""
    said = f": {api.words(reply)}" if api.words(reply) else ""
    text = f"{reply.what} answered {reply.status}{said}"
    outcome = body.get("outcome") if 200 <= reply.status < 300 else None
    if outcome in _OUTCOMES:
        words = f"Colab gives no {wanted.accelerator} (outcome {outcome}): {_OUTCOMES[outcome]}"
        return CredentialsError(words) if outcome == _DENIED else QuotaError(words)
    match reply.status:
        case 412:
            words = f"{text}: too many VMs on the account, or a limit for a while"
            hint = f"end others at {reading.CONSOLE} (Runtime, Manage sessions), or --wait-for-capacity 2h"
            return (QuotaError if before is not None and before.count else NoCapacityError)(words, hint=hint)
        case 400:
            return QuotaError(f"{text}: the account has no right to a {wanted.accelerator}", hint=_BUY)
        case 503:
            return NoCapacityError(
                f"{text}: no {wanted.accelerator} is free", hint="wait for it: --wait-for-capacity 2h"
            )
        case 401 | 403:
            return api.error_of(reply)
    return UnclearError(f"{text}; it may have given {mark} a VM")


def _note_rate(colab: Api, shelf: Shelf, job: Job, wanted: Wanted, made: Assignment, before: Account | None) -> None:
    """Learn the live rate: what all VMs draw now, less what they drew before. Others' comings and goings spoil it."""
    after = _look(colab)
    units = drawn(before, after)
    if units is not None:
        shelf.change(job.mark, units=str(units))
    if units is not None and made.is_what(wanted.accelerator, high_memory=wanted.high_memory):
        shelf.saw(wanted.offer, units)
        known = rates.table()[wanted.offer]
        log.info(
            "Colab draws %s units an hour for %s; the table of %s has %s", units, wanted.offer, known.as_of, known.units
        )


def drawn(before: Account | None, after: Account | None) -> Decimal | None:
    """Units an hour that the one VM between two looks draws; None = they don't tell."""
    if before is None or after is None or after.count != before.count + 1:
        return None
    units = after.rate - before.rate
    return units if units > 0 else None
