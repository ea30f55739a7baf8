"""What the vendor will bill: started when the vendor says, ended when the end was really carried out.

    launched ── started ─────────────────────── ended
                └── price for every step begun ──┘      a step is a minute (Lambda, Hugging Face) or a second (RunPod)

Only what the vendor bills by moves it: not a shutdown inside the guest, not an accepted and ignored terminate.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_HALF_UP, Decimal

from simulators.clock import iso

_NANO = Decimal("1e-9")


@dataclass(slots=True)
class Entry:
    """One allocation on the bill. `price` is USD an hour; moments are epoch seconds of the vendor's clock.

    `step_seconds`: what is begun is billed whole ("one-minute increments", docs.lambda.ai, read 2026-11).
    """

    id: str
    name: str
    kind: str
    price: Decimal
    launched: float
    started: float | None = None
    ended: float | None = None
    ended_by: str = ""
    step_seconds: int = 60
    repriced: float | None = None  # since when the price is this one; None = since it started
    settled: Decimal = Decimal(0)  # USD for the time before

    def minutes(self, now: float) -> int:
        """Minutes begun so far."""
        return 0 if self.started is None else _steps(self.started, self._until(now), 60)

    def usd(self, now: float) -> Decimal:
        """USD so far, exact."""
        if self.started is None:
            return self.settled
        since = self.started if self.repriced is None else self.repriced
        return self.settled + self.price * _steps(since, self._until(now), self.step_seconds) * self.step_seconds / 3600

    def _until(self, now: float) -> float:
        return now if self.ended is None else min(now, self.ended)


class Meter:
    """The bill of one account. Its owner holds the world's lock."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}

    def launch(self, entry: Entry) -> None:
        """Put an allocation on the bill; it costs nothing until it starts."""
        self._entries[entry.id] = entry

    def start(self, allocation_id: str, when: float) -> None:
        """Bill from here on, unless it bills already or has ended."""
        entry = self._entries[allocation_id]
        if entry.started is None and entry.ended is None:
            entry.started = when

    def reprice(self, allocation_id: str, when: float, price: Decimal) -> None:
        """Ask another price from here on, as for a pod that is stopped and keeps its disk."""
        entry = self._entries[allocation_id]
        if entry.started is not None and entry.ended is None:
            entry.settled, entry.repriced = entry.usd(when), when
        entry.price = price

    def end(self, allocation_id: str, when: float, by: str) -> None:
        """Bill no further."""
        entry = self._entries[allocation_id]
        if entry.ended is None:
            entry.ended, entry.ended_by = when, by

    def started(self, allocation_id: str) -> float | None:
        """Tell since when it bills."""
        return self._entries[allocation_id].started

    def entries(self) -> list[Entry]:
        """Give every allocation there ever was."""
        return list(self._entries.values())

    def usd(self, now: float) -> Decimal:
        """Tell the whole bill so far, exact."""
        return sum((entry.usd(now) for entry in self._entries.values()), Decimal(0))

    def rate(self) -> Decimal:
        """Tell what an hour costs as things stand."""
        running = (entry.price for entry in self._entries.values() if entry.started is not None and entry.ended is None)
        return sum(running, Decimal(0))

    def rename(self, allocation_id: str, name: str) -> None:
        """Keep the name that a person reads on the bill."""
        self._entries[allocation_id].name = name

    def report(self, now: float, statuses: dict[str, str]) -> dict[str, object]:
        """Tell the bill. `billing_now` counts all that has not ended: what still boots will bill if left alone."""
        entries = self._entries.values()
        return {
            "at": iso(now),
            "billing_now": sum(entry.ended is None for entry in entries),
            "usd": _dollars(self.usd(now)),
            "allocations": [_row(entry, now, statuses.get(entry.id, "gone")) for entry in entries],
        }


def _steps(since: float, until: float, step_seconds: int) -> int:
    seconds = Decimal(str(round(max(until - since, 0.0), 3)))
    return int((seconds / step_seconds).to_integral_value(ROUND_CEILING))


def _row(entry: Entry, now: float, status: str) -> dict[str, object]:
    return {
        "id": entry.id,
        "name": entry.name,
        "type": entry.kind,
        "price": str(entry.price),
        "launched": iso(entry.launched),
        "started": None if entry.started is None else iso(entry.started),
        "ended": None if entry.ended is None else iso(entry.ended),
        "ended_by": entry.ended_by,
        "minutes": entry.minutes(now),
        "usd": _dollars(entry.usd(now)),
        "status": status,
    }


def _dollars(usd: Decimal) -> str:
    """Four decimals, nine where a step's price needs more."""
    exact = usd.quantize(_NANO, ROUND_HALF_UP)
    short = exact.quantize(Decimal("0.0001"), ROUND_HALF_UP)
    return str(short if short == exact else exact)
