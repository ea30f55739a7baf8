"""Several ends at once: none keeps another from its own, and what may live on is named."""

from __future__ import annotations

from typing import TYPE_CHECKING

from providers.errors import ProviderError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping


def each(allocation_ids: Iterable[str], end: Callable[[str], None], console: str) -> None:
    """End each, once.

    Raises:
        ProviderError: some may live on.
    """
    refused: dict[str, ProviderError] = {}
    for one in dict.fromkeys(allocation_ids):
        try:
            end(one)
        except ProviderError as error:
            refused[one] = error
    tell(refused, console)


def tell(refused: Mapping[str, ProviderError], console: str) -> None:
    """Say whose end was refused.

    Raises:
        ProviderError: what was said of the only one, or of each of several.
    """
    for one, error in refused.items():
        error.allocation_id = one
        if len(refused) == 1:
            raise error
    if refused:
        words = "; ".join(f"{one}: {error}" for one, error in refused.items())
        raise ProviderError(f"not ended: {words}", hint=f"look at {console}", allocation_id=min(refused))
