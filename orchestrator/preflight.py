"""Preflight: what can be found wrong before any money moves. Gives what was found, in lines for the plan.

    settings ──> models, data sets, push target on the Hub (preflight_hub.py)
    vendor   ──> balance and spend limit, where it tells them (providers/optional.py)

What is wrong is an error. What can't be asked from here is a line that says so, never a refusal: the machine may
reach what this computer does not, and looks itself before it loads anything. Rows that lie here, data_files.py reads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator import credentials, preflight_hub
from orchestrator.render import money, price
from providers.errors import CredentialsError, ProviderError, RefusedError
from providers.optional import Funded

if TYPE_CHECKING:
    from decimal import Decimal

    from orchestrator.templates import Template
    from providers.base import Provider
    from providers.optional import Funds

NOT_CHECKED = "not checked"  # so begins what nobody could be asked about


def check(provider: Provider, template: Template, worst: Decimal, per_hour: Decimal) -> tuple[str, ...]:
    """Look at all that a run will need; `worst` and `per_hour` are USD, of the dearest offer.

    Raises:
        ConfigError: a model, a data set or a revision is not there, or the data lack what the method reads.
        CredentialsError: it is there, and the token that the machine gets may not read it, or write the push target.
        RefusedError: the account's balance or limit can't carry the worst case.
    """
    return (*_hub(provider, template), *_funds(provider, worst, per_hour))


def _hub(provider: Provider, template: Template) -> tuple[str, ...]:
    wanted = preflight_hub.wanted(template)
    if not wanted:
        return ()
    secrets = credentials.resolve(template.settings.secrets)
    given = secrets.get(preflight_hub.TOKEN)
    here = provider.name == "local"  # there the training has what this computer has
    return preflight_hub.check(wanted, given.reveal() if given else None if here else False)


def _funds(provider: Provider, worst: Decimal, per_hour: Decimal) -> tuple[str, ...]:
    """Hold the account's own figures against the worst case; a vendor that tells none has no say."""
    if not per_hour or not isinstance(provider, Funded):
        return ()
    try:
        funds = provider.funds()
    except CredentialsError:
        raise
    except ProviderError as error:
        return (f"{NOT_CHECKED}: the balance at {provider.name} ({error})",)
    return () if funds is None else _carried(funds, provider, worst, per_hour)


def _carried(funds: Funds, provider: Provider, worst: Decimal, per_hour: Decimal) -> tuple[str, ...]:
    page = provider.traits.console_url
    if funds.balance is not None and funds.balance < worst:
        left = money(max(funds.balance, funds.balance * 0)) + (f" ({funds.words})" if funds.words else "")
        page = funds.page or page
        raise RefusedError(
            f"the account at {provider.name} holds {left}, and this run may cost {money(worst)}",
            hint=f"top it up{f' at {page}' if page else ''}, or a smaller --max-cost or --max-hours",
        )
    running = funds.spend_per_hour or per_hour * 0
    if funds.limit_per_hour is not None and running + per_hour > funds.limit_per_hour:
        raise RefusedError(
            f"{provider.name} lets this account spend {price(funds.limit_per_hour)}: {price(running)} runs already,"
            f" and this offer is {price(per_hour)}",
            hint=f"end something else first, or ask for a higher limit{f' at {page}' if page else ''}",
        )
    return () if funds.balance is None else (f"balance {money(funds.balance)} carries the worst case",)
