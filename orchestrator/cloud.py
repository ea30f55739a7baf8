"""Which cloud of a vendor is rented from: a stranger's machine is taken only where it was asked for. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from providers.errors import RefusedError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from providers.base import Offer

SECURE, COMMUNITY, FREE = "secure", "community", "free"
RISK = "COMMUNITY: private data and tokens then lie on a stranger's machine, whose owner can read them"


def of_cloud(offers: Sequence[Offer], cloud: str) -> list[Offer]:
    """Keep the offers of one cloud: the vendor's own, unless another is named."""
    wanted = "" if cloud in {"", SECURE} else cloud
    return [offer for offer in offers if offer.cloud == wanted]


def asked_for(offers: Sequence[Offer], cloud: str, *, free_tier: bool = False) -> list[Offer]:
    """Keep the offers of the cloud that the user named; those of a free tier where there is nothing to pay with.

    Raises:
        UsageError: the vendor has no such cloud.
        RefusedError: there is only a free tier, and nobody allowed that.
    """
    found = of_cloud(offers, cloud)
    if not found and (gratis := of_cloud(offers, FREE)):
        if free_tier:
            return gratis
        raise RefusedError(
            f"nothing is left on the account at {gratis[0].provider} to pay with, and its free tier promises nothing",
            hint="--allow-free-tier takes it all the same; or buy compute units: https://colab.research.google.com/signup",
        )
    if offers and cloud == COMMUNITY and not found:
        raise UsageError(f"{offers[0].provider} rents from no {cloud} cloud", hint="drop --cloud community")
    return found
