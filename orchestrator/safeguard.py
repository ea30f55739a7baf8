"""What a controller leans on where its usual means fail: the vendor's clock unheard, a run that can't be recorded.

Not here: the loop itself (controller.py) and what it decides (lifecycle.py).
"""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import TYPE_CHECKING

from orchestrator.jobs import mark_of
from orchestrator.reach import check_account
from orchestrator.words import Launch
from providers.base import seconds_between, utc
from providers.errors import ProviderError

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from orchestrator.facts import Memory
    from orchestrator.records import RunRow
    from providers.base import Provider

log = logging.getLogger("gpurun.controller")
_FREE_SECONDS = 60.0  # that a run must be seen free before a controller leaves that can't record it


class VendorClock:
    """The time by the vendor's clock: money and limits go by it. Until it has answered, it is off as it last was."""

    def __init__(self, ours: Callable[[], datetime], provider: Provider, last_skew: float) -> None:
        self._ours = ours
        self._provider = provider
        self._last = timedelta(seconds=last_skew)
        self._heard = False
        self._before: tuple[datetime, datetime] | None = None  # ours and the vendor's, at the last answer
        self.rate = 1.0  # seconds of the vendor's in one of ours, never less: a simulator's clock may be hurried

    def heard(self) -> None:
        """Note that the vendor has answered: what the provider says of its clock is known."""
        self._heard = True
        ours, theirs = self._ours(), self()
        if self._before is not None and seconds_between(self._before[0], ours) > 0:
            gone = seconds_between(self._before[1], theirs) / seconds_between(self._before[0], ours)
            self.rate = max(1.0, gone)
        self._before = ours, theirs

    @property
    def skew(self) -> timedelta:
        """How far the vendor's clock is ahead of ours."""
        return self._provider.skew if self._heard else self._provider.skew or self._last

    def __call__(self) -> datetime:
        """The time, UTC."""
        return self._ours() + self.skew


class LastResort:
    """Ends a run past its deadline where nothing can be decided or recorded any more."""

    def __init__(self, provider: Provider, home_id: str) -> None:
        self._provider = provider
        self._home_id = home_id
        self._free_since: datetime | None = None

    def take(self, row: RunRow, now: datetime) -> bool:
        """End it; True = it was seen free for a while. The next command takes up what could not be written down."""
        if now < utc(row.deadline):
            return False
        try:
            check_account(self._provider, row)
            ours = self._ours(row)
            self._provider.terminate(ours)
            billing = any(self._provider.inspect(one).billing for one in ours)
        except ProviderError as error:
            log.warning("terminate: %s", error)
            billing = True
        self._free_since = None if billing else self._free_since or now
        patience = timedelta(seconds=max(self._provider.traits.list_lag_seconds, _FREE_SECONDS))
        return self._free_since is not None and now - self._free_since >= patience

    def _ours(self, row: RunRow) -> list[str]:
        """Name what the run may have rented: the id of a launch that could not be written down is found by its mark."""
        if row.memory.launch is Launch.INTENDED:
            return [one.id for one in self._provider.find(mark_of(row, self._home_id)) if one.billing]
        return ids_of(row.memory)


def ids_of(memory: Memory) -> list[str]:
    """Name all that this attempt rented."""
    return [one for one in (memory.allocation_id, *memory.extra_ids) if one]
