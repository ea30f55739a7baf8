"""All that goes wrong by the story: each kind is a method, called at its moment with what was drawn for it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from orchestrator.ledger import Ledger
from providers.base import utc

if TYPE_CHECKING:
    from collections.abc import Callable

    from computers import Computer, SimHome
    from dogs import Machine
    from rigs import Rig
    from vendors import Thing
    from weather import Span
    from world import World


class Trouble:
    """Strikes one world. An incident is counted where it found something to strike."""

    def __init__(self, world: World) -> None:
        self._world = world

    @property
    def _now(self) -> float:
        return self._world.engine.now

    def strike(self, kind: str, how: dict[str, Any]) -> None:
        """Let it happen."""
        world = self._world
        world.pending -= 1
        world.say("world", f"{kind} {how}")
        name = "_" + kind.replace(" ", "_").lower()
        if "wish" in how:
            struck = self._strike_run(getattr(self, name), world.story.wishes[how["wish"]].home, how)
        else:
            computer = world.computers[how.get("computer", 0)]
            struck = getattr(self, name)(computer, (self._now, self._now + how.get("seconds", 0.0)), how)
        world.counts[kind] += struck is not False

    def _later(self, moment: float, what: Callable[[], object]) -> None:
        """Have it end: the world is not over before."""
        self._world.pending += 1

        def end() -> None:
            self._world.pending -= 1
            what()

        self._world.engine.at(moment, end)

    # ── the vendor and the wires ────────────────────────────────────────────────────────────────

    def _api_down(self, _computer: Computer, span: Span, _how: dict[str, Any]) -> None:
        self._world.vendor.down.append(span)

    def _network_down(self, computer: Computer, span: Span, _how: dict[str, Any]) -> None:
        computer.cut_off.append(span)

    def _sold_out(self, _computer: Computer, span: Span, _how: dict[str, Any]) -> None:
        self._world.vendor.sold_out_until = span[1]

    def _price_drift(self, _computer: Computer, _span: Span, how: dict[str, Any]) -> None:
        self._world.vendor.drift = how["factor"]

    def _made_two(self, _computer: Computer, _span: Span, _how: dict[str, Any]) -> None:
        self._world.vendor.double_next = True

    def _key_revoked(self, computer: Computer, _span: Span, _how: dict[str, Any]) -> None:
        self._world.vendor.revoked.setdefault(computer.key, self._now)
        self._world.history.revoked(computer.key)

    # ── the store ───────────────────────────────────────────────────────────────────────────────

    def _store_down(self, _computer: Computer, span: Span, _how: dict[str, Any]) -> None:
        self._world.bucket.down.append(span)

    def _store_full(self, _computer: Computer, span: Span, _how: dict[str, Any]) -> None:
        self._world.bucket.full.append(span)

    def _store_slow(self, _computer: Computer, span: Span, _how: dict[str, Any]) -> None:
        self._world.bucket.crawls.append(span)

    def _store_key_wrong(self, _computer: Computer, span: Span, _how: dict[str, Any]) -> None:
        self._world.bucket.locked.append(span)

    def _leave_is_over(self, _computer: Computer, _span: Span, _how: dict[str, Any]) -> None:
        self._world.bucket.void_before = self._now

    def _uploader_dies(self, _home: SimHome, run_id: str, _how: dict[str, Any]) -> bool:
        struck = [one for one in self._machines(run_id) if one.porter.helper.runs]
        for machine in struck:
            machine.porter.helper.dies()
        return bool(struck)

    # ── a computer ──────────────────────────────────────────────────────────────────────────────

    def _laptop_asleep(self, computer: Computer, span: Span, how: dict[str, Any]) -> None:
        computer.sleep_for(how["seconds"])
        self._world.history.hole(computer, span)

    def _disk_full(self, computer: Computer, span: Span, _how: dict[str, Any]) -> None:
        computer.full = True
        self._later(span[1], lambda: setattr(computer, "full", False))

    def _laptop_clock(self, computer: Computer, _span: Span, how: dict[str, Any]) -> None:
        computer.ahead += how["by"]
        computer.behind = max(computer.behind, -computer.ahead)

    def _laptop_off(self, computer: Computer, span: Span, _how: dict[str, Any]) -> bool:
        if computer.dead:
            return False
        self._world.history.hole(computer, span)
        computer.power_off()

        def back() -> None:
            computer.power_on()
            self._world.timers(computer)

        self._later(span[1], back)
        return True

    def _laptop_gone(self, computer: Computer, span: Span, _how: dict[str, Any]) -> None:
        self._world.history.hole(computer, (span[0], math.inf))
        computer.gone = True
        computer.power_off()

    def _wrong_account(self, computer: Computer, span: Span, _how: dict[str, Any]) -> bool:
        right = self._world.keys[computer.name]
        if computer.key != right:
            return False
        computer.key = "acct-c"
        self._world.history.hole(computer, span)
        self._later(span[1], lambda: setattr(computer, "key", right))
        return True

    def _old_ledger(self, computer: Computer, span: Span, _how: dict[str, Any]) -> None:
        homes = [home for home in computer.homes if home.id]
        for home in homes:
            home.back_up()

        def put_back() -> None:
            for home in homes:
                home.restore()
                self._world.history.restored(home)
            self._world.timers(computer)

        self._later(span[1], put_back)

    # ── a run ───────────────────────────────────────────────────────────────────────────────────

    def _strike_run(self, deed: Callable[..., bool], where: int, how: dict[str, Any]) -> bool:
        home, run_id = self._world.homes[where], f"demo-261122-{how['wish']:06x}"
        return run_id in home.runs and deed(home, run_id, how)

    def _living(self, run_id: str) -> list[tuple[Thing, Rig]]:
        world = self._world
        things = [one for one in world.vendor.things.values() if f"-{run_id}-" in one.name]
        return [(one, world.rigs[one.id]) for one in things if one.ended is None and one.bills_at(self._now)]

    def _stop(self, home: SimHome, run_id: str, _how: dict[str, Any]) -> bool:
        if not home.computer.is_awake(self._now):
            return False

        def stop() -> None:
            ledger = Ledger(home.home.ledger)
            try:
                ledger.request_stop(run_id, home.computer.clock())
            finally:
                ledger.close()
            home.tend()

        self._world.engine.spawn(home.computer, f"stop {run_id}", stop, home.id)
        return True

    def _controller_dies(self, home: SimHome, run_id: str, _how: dict[str, Any]) -> bool:
        held = home.held.get(run_id)
        if held is None or not held.alive:
            return False
        held.kill()
        return True

    def _agent_dies(self, _home: SimHome, run_id: str, _how: dict[str, Any]) -> bool:
        struck = [rig for _, rig in self._living(run_id) if rig.died is None and rig.began is not None]
        for rig in struck:
            rig.died = self._now
        return bool(struck)

    def _vanishes(self, _home: SimHome, run_id: str, _how: dict[str, Any]) -> bool:
        struck = self._living(run_id)
        for thing, _ in struck:
            self._world.vendor.end(thing, "vanished")
        return bool(struck)

    def _sickens(self, _home: SimHome, run_id: str, _how: dict[str, Any]) -> bool:
        struck = self._living(run_id)
        for thing, _ in struck:
            thing.sick = True
        return bool(struck)

    def _machine_clock(self, _home: SimHome, run_id: str, how: dict[str, Any]) -> bool:
        struck = self._living(run_id)
        for _, rig in struck:
            rig.clock_ahead.append((self._now, how["by"]))
        return bool(struck)

    def _watchdog_dies(self, _home: SimHome, run_id: str, _how: dict[str, Any]) -> bool:
        struck = self._machines(run_id)
        for machine in struck:
            machine.dies()
        return bool(struck)

    def _machine_reboots(self, _home: SimHome, run_id: str, _how: dict[str, Any]) -> bool:
        struck = self._machines(run_id)
        for machine in struck:
            machine.reboots()
        return bool(struck)

    def _machines(self, run_id: str) -> list[Machine]:
        machines = self._world.machines
        return [machines[one.id] for one, _ in self._living(run_id) if one.id in machines]

    def _extend(self, home: SimHome, run_id: str, how: dict[str, Any]) -> bool:
        if not home.computer.is_awake(self._now):
            return False

        def extend() -> None:
            ledger = Ledger(home.home.ledger)
            try:
                deadline = utc(ledger.run(run_id).deadline + how["minutes"] * 60)
                now = home.computer.clock()
                ledger.wish_extension(run_id, deadline=deadline, max_cost=None, now=now, monthly_cap=None)
            finally:
                ledger.close()

        self._world.engine.spawn(home.computer, f"extend {run_id}", extend, home.id)
        return True
