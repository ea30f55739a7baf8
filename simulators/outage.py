"""A vendor whose API is down for a while: it refuses connections, or answers 503. Fault `api_down`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from simulators.clock import Agenda
    from simulators.faults import Faults


class Door(Protocol):
    """Where the API is reached."""

    def listen(self) -> None:
        """Answer."""

    def fall_silent(self) -> None:
        """Refuse connections."""


class Outage:
    """Carries out what `api_down` says. Its owner holds the world's lock."""

    def __init__(self, agenda: Agenda, faults: Faults, door: Door) -> None:
        self._agenda, self._faults, self._door = agenda, faults, door
        self.until = 0.0  # 503 until then, epoch seconds of the vendor's

    def at(self, occasion: str, moment: float) -> None:
        """Let it strike at an occasion, if it is armed for that one."""
        hit = self._faults.take("api_down", when=occasion)
        if hit is None:
            return
        start = moment + hit.number("delay")
        end = start + hit.number("seconds")
        if hit.text("how") == "refused":
            self._agenda.at(start, lambda _moment: self._door.fall_silent())
            self._agenda.at(end, lambda _moment: self._door.listen())
        else:
            self._agenda.at(start, lambda _moment: setattr(self, "until", end))
